"""Makes the layer of a base image from Debian packages: a tar archive, the same bytes for the same packages.

What maintainer scripts would set up is written here, so that neither they nor a shell, dpkg or perl need to be in it:
users, the certificate bundle, the merged /usr. `/var/lib/dpkg/status.d` lists the packages, where scanners look when
there is no dpkg. Invariants: root owns everything, nothing is setuid or writable by others but /tmp, and no
documentation but the licences is in it. Needs no root. Must not know what will run on it.
"""

from __future__ import annotations

import io
import tarfile
from typing import TYPE_CHECKING

from tools.image.deb import Deb

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

USER = 65532
EPOCH = 0
"""Time of every file. Python's .pyc files are made with hashes, so nothing compares it."""
_MERGED = ("bin", "sbin", "lib", "lib64")
_DROPPED = tuple(
    f"usr/share/{name}/"
    for name in ("man", "locale", "info", "lintian", "bug", "doc-base", "bash-completion", "ca-certificates", "pixmaps")
)
_FOLDERS = ("dev", "etc/ssl/certs", "proc", "run", "sys", "usr/bin", "usr/lib/ssl", "usr/lib64", "usr/sbin", "var")
_LINKS = {
    **{name: f"usr/{name}" for name in _MERGED},
    "var/run": "/run",
    # Where OpenSSL looks when nobody tells it where; the links of the package openssl, which has programs besides.
    "usr/lib/ssl/certs": "/etc/ssl/certs",
    "usr/lib/ssl/cert.pem": "/etc/ssl/certs/ca-certificates.crt",
}
_FILES = {
    "etc/passwd": (
        "root:x:0:0:root:/:/usr/sbin/nologin\n"
        f"nonroot:x:{USER}:{USER}:nonroot:/tmp:/usr/sbin/nologin\n"
        "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
    ),
    "etc/group": f"root:x:0:\nnonroot:x:{USER}:\nnogroup:x:65534:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\nservices: files\n",
}
_BUNDLE = "etc/ssl/certs/ca-certificates.crt"
_CERTIFICATES = "usr/share/ca-certificates/"


def write(
    packages: Iterable[Path],
    target: Path,
    *,
    links: Mapping[str, str] | None = None,
    programs: Mapping[str, str] | None = None,
) -> list[str]:
    """Write the layer and return its packages as "name version".

    `links` are further symbolic links, path to target; `programs` are scripts, path to content.
    """
    names: list[str] = []
    with tarfile.open(target, "w", format=tarfile.GNU_FORMAT) as out:
        layer = _Layer(out)
        for folder in _FOLDERS:
            layer.folder(folder)
        layer.folder("tmp", 0o1777)
        for path, to in {**_LINKS, **(links or {})}.items():
            layer.link(path, to)
        for path, text in _FILES.items():
            layer.file(path, text.encode())
        for path, text in (programs or {}).items():
            layer.file(path, text.encode(), 0o755)
        certificates: dict[str, bytes] = {}
        for package in map(Deb, packages):
            names.append(f"{package['Package']} {package['Version']}")
            layer.file(f"var/lib/dpkg/status.d/{package['Package']}", package.control.encode())
            for member, content in package.members():
                member.name, member.linkname = _merged(member.name), _merged(member.linkname)
                if member.name.startswith(_CERTIFICATES) and content is not None:
                    certificates[member.name] = content
                layer.member(member, content)
        layer.file(_BUNDLE, b"".join(certificates[name].rstrip() + b"\n" for name in sorted(certificates)))
    return sorted(names)


def _merged(path: str) -> str:
    # A relative target of a symbolic link starts with none of these names in Debian's packages.
    return f"usr/{path}" if path.split("/", 1)[0] in _MERGED and "/" in path else path


def _dropped(path: str) -> bool:
    documentation = path.startswith("usr/share/doc/") and not path.endswith("/copyright")
    return documentation or f"{path}/".startswith(_DROPPED)


class _Layer:
    """The archive as it grows; a path is written once, and its folders before it."""

    def __init__(self, out: tarfile.TarFile) -> None:
        self._out = out
        self._seen: set[str] = {"", "."}

    def folder(self, path: str, mode: int = 0o755) -> None:
        if path not in self._seen:
            self._parents(path)
            self._add(path, tarfile.DIRTYPE, mode)

    def link(self, path: str, to: str) -> None:
        if path not in self._seen:
            self._parents(path)
            self._add(path, tarfile.SYMTYPE, 0o777, linkname=to)

    def file(self, path: str, content: bytes, mode: int = 0o644) -> None:
        if path not in self._seen:
            self._parents(path)
            self._add(path, tarfile.REGTYPE, mode, content=content)

    def member(self, member: tarfile.TarInfo, content: bytes | None) -> None:
        path, mode = member.name, member.mode & 0o755
        if _dropped(path) or member.isdir():  # a folder that stays empty is none of ours
            return
        if member.issym():
            self.link(path, member.linkname)
        elif member.islnk() and path not in self._seen and member.linkname in self._seen:
            self._parents(path)
            self._add(path, tarfile.LNKTYPE, mode, linkname=member.linkname)
        elif content is not None:
            self.file(path, content, mode)

    def _parents(self, path: str) -> None:
        parent = path.rpartition("/")[0]
        if parent:
            self.folder(parent)

    def _add(self, path: str, kind: bytes, mode: int, *, linkname: str = "", content: bytes = b"") -> None:
        entry = tarfile.TarInfo(path)
        entry.type, entry.mode, entry.linkname, entry.size, entry.mtime = kind, mode, linkname, len(content), EPOCH
        entry.uname = entry.gname = "root"
        self._seen.add(path)
        self._out.addfile(entry, io.BytesIO(content))
