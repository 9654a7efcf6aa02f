"""Reads the archive of an image as a container would see it: its files, their owners and modes, and its configuration.

Responsible for: putting the layers on top of each other. Invariant: nothing is unpacked. Must not know what ought to be
in it. Source: the archive format of `docker save` (manifest.json), and the layers of the OCI image specification.
"""

from __future__ import annotations

import json
import tarfile
from typing import IO, TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"


class Contents:
    """An open archive. `entries` are the final files by path without a leading slash."""

    def __init__(self, path: Path) -> None:
        self._archive = tarfile.open(path)  # noqa: SIM115 - closed by close()
        (self._manifest,) = json.loads(self._read("manifest.json"))
        self.config: dict[str, Any] = json.loads(self._read(self._manifest["Config"]))
        self._layers: list[tarfile.TarFile] = []
        self.entries: dict[str, tuple[tarfile.TarFile, tarfile.TarInfo]] = {}
        for name in self._manifest["Layers"]:
            self._add(tarfile.open(fileobj=self._member(name)))  # noqa: SIM115 - as above

    @property
    def names(self) -> list[str]:
        """The names that the archive gives to the image."""
        return list(self._manifest["RepoTags"])

    def text(self, path: str) -> str:
        """Content of a file; links are not followed. Raises KeyError when there is no such file."""
        return self.data(path).decode(errors="replace")

    def data(self, path: str) -> bytes:
        """As `text`, in bytes; a hard link has its file's."""
        layer, entry = self.entries[path]
        opened = layer.extractfile(entry)
        return b"" if opened is None else opened.read()

    def files(self) -> Iterator[tuple[str, tarfile.TarInfo]]:
        """Every final file, folder and link with its header, sorted by path."""
        for path in sorted(self.entries):
            yield path, self.entries[path][1]

    def layers(self) -> Iterator[tuple[str, bytes]]:
        """Every file of every layer, also those that a later layer hides: path and content."""
        for layer in self._layers:
            for entry in layer.getmembers():
                if entry.isreg() and (opened := layer.extractfile(entry)) is not None:
                    yield entry.name, opened.read()

    def _add(self, layer: tarfile.TarFile) -> None:
        self._layers.append(layer)
        added: dict[str, tuple[tarfile.TarFile, tarfile.TarInfo]] = {}
        for entry in layer.getmembers():
            path = entry.name.removeprefix("./").strip("/")
            folder, _, name = path.rpartition("/")
            if name == _OPAQUE:
                self._hide(folder, itself=False)
            elif name.startswith(_WHITEOUT):
                self._hide(f"{folder}/{name.removeprefix(_WHITEOUT)}".lstrip("/"), itself=True)
            elif path not in {"", "."}:
                added[path] = (layer, entry)
        self.entries |= added  # after the whiteouts, which are about the layers below

    def _hide(self, path: str, *, itself: bool) -> None:
        for known in [known for known in self.entries if known.startswith(f"{path}/") or (itself and known == path)]:
            del self.entries[known]

    def _member(self, name: str) -> IO[bytes]:
        opened = self._archive.extractfile(name)
        if opened is None:
            raise KeyError(name)
        return opened

    def _read(self, name: str) -> bytes:
        return self._member(name).read()

    def close(self) -> None:
        """Close the archive."""
        for layer in self._layers:
            layer.close()
        self._archive.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
