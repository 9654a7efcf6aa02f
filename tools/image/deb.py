"""Reads one Debian package: what it says of itself, and its files.

Needs no dpkg: a package is an `ar` archive with two tar archives in it (deb(5)). Must not know what becomes of them.
"""

from __future__ import annotations

import email.parser
import io
import tarfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MAGIC = b"!<arch>\n"
_HEADER_BYTES = 60


class Deb:
    """A package, read into memory. `control` is its text of fields. Raises ValueError when the file is no package."""

    def __init__(self, path: Path) -> None:
        parts = dict(_parts(path.read_bytes()))
        try:
            self.control = _file(parts["control.tar"], "control").decode()
            self._data = parts["data.tar"]
        except KeyError as missing:
            raise ValueError(f"{path} is no Debian package: it has no {missing}") from None
        self._fields = email.parser.Parser().parsestr(self.control, headersonly=True)

    def __getitem__(self, field: str) -> str:
        """Return a field of `control` such as Version; raises KeyError when there is none."""
        value = self._fields[field]
        if value is None:
            raise KeyError(field)
        return str(value)

    def members(self) -> Iterator[tuple[tarfile.TarInfo, bytes | None]]:
        """Every file, folder and link, by a path without "./"; the content is None unless it is a file of its own."""
        with tarfile.open(fileobj=io.BytesIO(self._data)) as archive:
            for member in archive:
                opened = archive.extractfile(member) if member.isreg() else None
                member.name = member.name.removeprefix("./").rstrip("/")
                if member.islnk():
                    member.linkname = member.linkname.removeprefix("./")
                yield member, None if opened is None else opened.read()


def _parts(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Members of an `ar` archive, by name without the ending that says how they are packed."""
    if not data.startswith(_MAGIC):
        raise ValueError("no Debian package: it does not start as one")
    at = len(_MAGIC)
    while at + _HEADER_BYTES <= len(data):
        header = data[at : at + _HEADER_BYTES]
        name, size = header[:16].decode().strip().rstrip("/"), int(header[48:58])
        at += _HEADER_BYTES
        yield ".".join(name.split(".")[:2]), data[at : at + size]
        at += size + size % 2  # members begin at even places


def _file(archive: bytes, wanted: str) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        for member in opened:
            if member.name.removeprefix("./") == wanted and (content := opened.extractfile(member)) is not None:
                return content.read()
    raise KeyError(wanted)
