"""Finds known vulnerabilities of the locked packages, in advisory data given as files or by asking OSV's service.

Responsible for: reading records of the OSV schema (https://ossf.github.io/osv-schema/), and the rules by which they
match a version. Invariants: what holds no advisories is an error, never "nothing found"; withdrawn records count
for nothing. Must not know what is done about a finding.
"""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
import zipfile
from typing import TYPE_CHECKING, Any, NamedTuple

from packaging.version import InvalidVersion, Version

from tools.audit.lock import normalised

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tools.audit.lock import Pin

OSV = "https://api.osv.dev/v1/querybatch"
_TIMEOUT_S = 30.0
_MODIFIED = re.compile(rb'"modified"\s*:\s*"(\d{4}-\d\d-\d\d)')


class AdvisoryError(RuntimeError):
    """The advisories cannot be had or are not what they should be."""


class Finding(NamedTuple):
    """One vulnerability of one locked package."""

    package: str
    version: str
    advisory: str
    summary: str


class Answer(NamedTuple):
    """What was found, among how many records, the newest of which was changed on which day ("" when asked online)."""

    findings: Sequence[Finding]
    records: int
    newest: str


def search(source: Path, pins: Sequence[Pin]) -> Answer:
    """Search a folder of .json records, or an archive of them such as OSV's all.zip of PyPI."""
    names = {pin.name: pin for pin in pins}
    # Most records are about other packages: only those that name one of ours are parsed.
    spelt = "|".join(re.escape(name).replace(r"\-", "[-_.]+") for name in names)
    ours = re.compile(rf'"name"\s*:\s*"(?:{spelt})"'.encode(), re.IGNORECASE)
    findings: list[Finding] = []
    records, newest = 0, b""
    for text in _texts(source):
        records += 1
        newest = max([newest, *_MODIFIED.findall(text)])
        if ours.search(text):
            record = json.loads(text)
            findings += [
                Finding(pin.name, pin.version, record["id"], str(record.get("summary", "")))
                for pin in pins
                if affects(record, pin.name, pin.version)
            ]
    if not records or not newest:
        raise AdvisoryError(f"{source} has no advisories: give OSV's all.zip of PyPI, or a folder of its records")
    return Answer(sorted(findings), records, newest.decode())


def _texts(source: Path) -> Iterator[bytes]:
    try:
        if source.is_dir():
            for path in sorted(source.rglob("*.json")):
                yield path.read_bytes()
            return
        with zipfile.ZipFile(source) as archive:
            for name in sorted(archive.namelist()):
                if name.endswith(".json"):
                    yield archive.read(name)
    except (OSError, zipfile.BadZipFile) as error:
        raise AdvisoryError(f"cannot read {source}: {error}") from error


def affects(record: dict[str, Any], name: str, version: str) -> bool:
    """Whether an OSV record says that this version of a package of PyPI is vulnerable."""
    if record.get("withdrawn"):
        return False
    return any(
        affected.get("package", {}).get("ecosystem") == "PyPI"
        and normalised(affected["package"].get("name", "")) == normalised(name)
        and (
            version in affected.get("versions", ())
            or any(
                _within(range_.get("events", ()), version) for range_ in affected.get("ranges", ()) if _orders(range_)
            )
        )
        for affected in record.get("affected", ())
    )


def _orders(range_: dict[str, Any]) -> bool:
    return range_.get("type") in {"ECOSYSTEM", "SEMVER"}  # the third, GIT, speaks of commits


def _within(events: Sequence[dict[str, str]], version: str) -> bool:
    # As the schema evaluates them: the events in the order of their versions, and the last one that applies.
    wanted, vulnerable = Version(version), False
    for kind, at in sorted((pair for event in events for pair in event.items()), key=lambda pair: _version(pair[1])):
        if kind == "introduced" and wanted >= _version(at):
            vulnerable = True
        elif (kind == "fixed" and wanted >= _version(at)) or (kind == "last_affected" and wanted > _version(at)):
            vulnerable = False
    return vulnerable


def _version(text: str) -> Version:
    try:
        return Version("0.dev0" if text == "0" else text)  # "0" stands for: before every version
    except InvalidVersion:
        return Version("0.dev0")  # a version that PyPI would not have taken: rather too much than too little


def ask(pins: Sequence[Pin], url: str = OSV) -> Answer:
    """Ask OSV's service about the packages; raises AdvisoryError when there is no answer."""
    queries = [{"package": {"name": pin.name, "ecosystem": "PyPI"}, "version": pin.version} for pin in pins]
    request = urllib.request.Request(  # noqa: S310 - the address is ours, or given by whoever runs this
        url, json.dumps({"queries": queries}).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:  # noqa: S310 - as above
            results = json.load(response)["results"]
    except (OSError, urllib.error.URLError, ValueError, KeyError, TypeError) as error:
        raise AdvisoryError(f"no answer from {url}: {error}") from error
    if len(results) != len(pins):
        raise AdvisoryError(f"{url} answered {len(results)} of {len(pins)} questions")
    findings = [
        Finding(pin.name, pin.version, found["id"], "")
        for pin, result in zip(pins, results, strict=True)
        for found in result.get("vulns", ())
    ]
    return Answer(sorted(findings), len(pins), "")
