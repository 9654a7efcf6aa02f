"""Where a pinned binary comes from: the official envtest archive, or a build from Go modules.

Each source puts one or more executables into a folder it is given, or raises `Unavailable` so that the next source is
tried. What is downloaded is believed only if its SHA-512 is the pinned one; what is built is pinned by go.sum. Sources
know neither the cache nor its locks: tools.binaries owns those.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import tarfile
import tempfile
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from tools import golang
from tools.progress import say, step

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_TOOLS = Path(__file__).resolve().parent
_CHUNK_BYTES = 1 << 20


class Unavailable(Exception):  # noqa: N818 - an answer ("not from here"), not a failure of the program
    """This source cannot give the binary; its message says why."""


class Source(Protocol):
    """One way to obtain a binary of a stated version."""

    @property
    def version(self) -> str:
        """The folder name under which the result is cached."""

    def fetch(self, name: str, into: Path) -> None:
        """Put an executable called `name` (and perhaps others) into the folder `into`, or raise Unavailable."""


def machine() -> str:
    """Return Go's name of this processor ("amd64", "arm64")."""
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


@dataclass(frozen=True)
class Archive:
    """A .tar.gz with prebuilt executables; `sha512` maps a processor to the hex digest of its archive.

    `url` may contain {machine}. Offline machines must not wait: `timeout` seconds bound each socket operation, and a
    failure is remembered for the life of the process. GROUNDWORK_NO_DOWNLOAD=1 skips the attempt.
    """

    version: str
    url: str
    sha512: Mapping[str, str]
    timeout: float = 5.0
    _failures: list[str] = field(default_factory=list, compare=False, repr=False)

    def fetch(self, name: str, into: Path) -> None:
        """Download, verify, and unpack every executable of the archive into `into`."""
        if os.environ.get("GROUNDWORK_NO_DOWNLOAD") == "1":
            raise Unavailable("GROUNDWORK_NO_DOWNLOAD=1")
        if self._failures:
            raise Unavailable(self._failures[0])
        digest = self.sha512.get(machine())
        if digest is None:
            raise Unavailable(f"no archive for {machine()}")
        try:
            self._download(digest, into)
        except Unavailable as error:
            self._failures.append(str(error))
            raise
        if not (into / name).exists():
            raise Unavailable(f"the archive has no {name}")

    def _download(self, digest: str, into: Path) -> None:
        url = self.url.format(machine=machine())
        with tempfile.TemporaryFile() as archive:
            actual = hashlib.sha512()
            try:
                with urllib.request.urlopen(url, timeout=self.timeout) as response:  # noqa: S310 - the URL is our own
                    say(f"downloading {url}")
                    while chunk := response.read(_CHUNK_BYTES):
                        actual.update(chunk)
                        archive.write(chunk)
            except (OSError, urllib.error.URLError) as error:
                raise Unavailable(f"download failed: {error}") from error
            if actual.hexdigest() != digest:
                # Not silently: a wrong checksum is either a tampered archive or a stale pin, and both need eyes.
                say(f"{url}: the SHA-512 is not the pinned one; ignored")
                raise Unavailable("checksum mismatch")
            archive.seek(0)
            with tarfile.open(fileobj=archive, mode="r:gz") as tar:
                for member in tar:
                    if member.isfile() and (content := tar.extractfile(member)) is not None:
                        target = into / Path(member.name).name
                        with target.open("wb") as out:
                            shutil.copyfileobj(content, out)
                        target.chmod(0o755)


@dataclass(frozen=True)
class GoBuild:
    """`go build` of one main package, of the module whose go.mod (below tools/) pins it and all that it needs.

    `stamp` holds linker variables, import path and name to value: how Go programs are told their version. `expected` is
    for the progress line. `tags` are build tags, to leave out what is not needed.
    """

    version: str
    package: str
    module: str = "."
    stamp: Mapping[str, str] = field(default_factory=dict)
    expected: str = ""
    tags: Sequence[str] = ()

    def fetch(self, name: str, into: Path) -> None:
        """Build `package` as `into`/`name`; raise Unavailable with the compiler's last words when that fails."""
        folder = _TOOLS / self.module
        try:
            go = golang.toolchain(folder)
        except golang.NoGoError as error:
            raise Unavailable(str(error)) from error
        linker = " ".join(["-s", "-w", *(f"-X {variable}={value}" for variable, value in self.stamp.items())])
        # -buildvcs=false: git may be absent, and the stamp above says the version. -mod=readonly: go.sum decides.
        flags = ["-trimpath", "-buildvcs=false", "-mod=readonly", f"-ldflags={linker}", f"-tags={','.join(self.tags)}"]
        # A user's go.work must not join in, and without cgo the result runs wherever it is copied.
        environment = {**os.environ, "CGO_ENABLED": "0", "GOWORK": "off"}
        with step(f"building {name} {self.version} from source", expected=self.expected):
            built = subprocess.run(
                [go, "build", *flags, "-o", str(into / name), self.package],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
        if built.returncode != 0:
            raise Unavailable(f"go build {self.package} failed:\n" + "\n".join(built.stdout.splitlines()[-20:]))
