"""Ignition configs that add files and units to bootstrap data without touching it.

Responsible for: a config that has the bootstrap data and ours as its parts; Ignition merges them in the guest.
Invariants: the bootstrap data is inside as it came, byte for byte; the version is that of the bootstrap data, since
Ignition refuses newer ones; the same input gives the same bytes.
Must not know: what files and units are for.
Source: Ignition's configuration specifications 2.3 (`append`) and 3.x (`merge`).
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any, NamedTuple

from services.machine_controller.guestinfo.problems import InvalidError, Problem

if TYPE_CHECKING:
    from collections.abc import Sequence

_MAJORS = {"2": "append", "3": "merge"}


class File(NamedTuple):
    """A file, root's own, replaced if it exists."""

    path: str
    content: str
    mode: int

    def __repr__(self) -> str:
        """Size only."""
        return f"File({self.path!r}, {len(self.content)} characters)"


class DropIn(NamedTuple):
    """A drop-in of a unit."""

    name: str
    content: str

    def __repr__(self) -> str:
        """Size only."""
        return f"DropIn({self.name!r}, {len(self.content)} characters)"


class Unit(NamedTuple):
    """A systemd unit, or drop-ins for one that exists; `enabled` starts it at boot."""

    name: str
    content: str = ""
    enabled: bool = False
    drop_ins: tuple[DropIn, ...] = ()

    def __repr__(self) -> str:
        """Sizes only."""
        return f"Unit({self.name!r}, {len(self.content)} characters, {self.drop_ins})"


def with_parts(bootstrap: bytes, files: Sequence[File], units: Sequence[Unit]) -> bytes:
    """Bootstrap data with files and units; itself when there are none.

    Raises InvalidError when the bootstrap data is no Ignition config of version 2 or 3.
    """
    if not files and not units:
        return bootstrap
    version = _version(bootstrap)
    key = _MAJORS[version.split(".", maxsplit=1)[0]]
    ours = _config(version, files, units)
    sources = [{"source": _data_url(part)} for part in (bootstrap, _json(ours))]
    return _json({"ignition": {"version": version, "config": {key: sources}}})


def _version(bootstrap: bytes) -> str:
    try:
        version = json.loads(bootstrap)["ignition"]["version"]
    except (ValueError, KeyError, TypeError):
        version = ""
    if not isinstance(version, str) or version.split(".", maxsplit=1)[0] not in _MAJORS:
        raise InvalidError([Problem("data.value: ignition.version", version, "an Ignition config of version 2 or 3")])
    return version


def _config(version: str, files: Sequence[File], units: Sequence[Unit]) -> dict[str, Any]:
    old = version.startswith("2.")
    # Version 2 names the file system and replaces by default; version 3 has one and asks for leave.
    place: dict[str, Any] = {"filesystem": "root"} if old else {"overwrite": True}
    return {
        "ignition": {"version": version},
        "storage": {
            "files": [
                {
                    "path": file.path,
                    "mode": file.mode,
                    "contents": {"source": _data_url(file.content.encode())},
                    **place,
                }
                for file in files
            ]
        },
        "systemd": {"units": [_unit(unit) for unit in units]},
    }


def _unit(unit: Unit) -> dict[str, Any]:
    document: dict[str, Any] = {"name": unit.name}
    if unit.content:
        document["contents"] = unit.content
    if unit.enabled:
        document["enabled"] = True
    if unit.drop_ins:
        document["dropins"] = [{"name": part.name, "contents": part.content} for part in unit.drop_ins]
    return document


def _data_url(content: bytes) -> str:
    return f"data:;base64,{base64.b64encode(content).decode('ascii')}"


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
