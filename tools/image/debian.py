"""Fetches Debian packages with all that they need; needs no root and leaves this machine's own apt state alone.

Responsible for: the mirrors (this machine's apt knows them when it is a Debian, else deb.debian.org), resolving, and
files in the user's cache folder. Invariant: apt verifies the signatures with Debian's archive keys, so what is fetched
is what Debian released. Must not know what is made of the packages.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from tools import paths
from tools.progress import step

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

SUITE = "trixie"
"""Debian 13; its Python is 3.13. Its predecessor "bookworm" has 3.11."""
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_PUBLIC = ("http://deb.debian.org/debian/", "http://deb.debian.org/debian-security/")


class PackageError(RuntimeError):
    """Packages cannot be had; the message has apt's last words."""


def mirrors() -> tuple[str, str]:
    """Return the addresses of the archive and of its security updates."""
    found: Sequence[str] = ()
    if shutil.which("apt-get"):
        known = subprocess.run(
            ["apt-get", "indextargets", "--format", "$(REPO_URI) $(ORIGIN)", "Created-By: Packages"],
            capture_output=True,
            text=True,
            check=False,
        )
        rows = [line.partition(" ") for line in known.stdout.splitlines()]
        # Others' repositories end in /debian too, and say of whom they are; apt does not know it of lists never read.
        found = [uri for uri, _, origin in rows if origin.strip() == "Debian"] or [
            uri for uri, _, origin in rows if not origin.replace("$(ORIGIN)", "").strip()
        ]
    archive = next((uri for uri in found if uri.rstrip("/").endswith("/debian")), _PUBLIC[0])
    security = next((uri for uri in found if uri.rstrip("/").endswith("/debian-security")), _PUBLIC[1])
    return archive, security


@dataclass(frozen=True)
class Apt:
    """An apt of its own for one suite; its state and the fetched files are below `folder`."""

    suite: str
    folder: Path

    @classmethod
    def of(cls, suite: str) -> Apt:
        """The one in the user's cache folder. Raises PackageError where there is no apt, or nothing to verify with."""
        if shutil.which("apt-get") is None:
            raise PackageError("no apt-get here: make the base on a Debian or Ubuntu, or name one with --base")
        if not _KEYRING.is_file():
            raise PackageError(f"no {_KEYRING}: install the package debian-archive-keyring")
        return cls(suite, paths.cache() / "debian" / suite)

    def _run(self, *arguments: str, cwd: Path | None = None) -> str:
        options = {
            "Dir::Cache": self.folder / "cache",
            "Dir::State": self.folder / "state",
            "Dir::State::status": self.folder / "status",
            "Dir::Etc::sourcelist": self.folder / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "APT::Install-Recommends": "false",
            "APT::Sandbox::User": "root",
            "Acquire::Languages": "none",
        }
        flags = [flag for name, value in options.items() for flag in ("-o", f"{name}={value}")]
        done = subprocess.run(
            ["apt-get", *flags, *arguments],
            cwd=cwd,
            env={**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise PackageError(f"apt-get {arguments[0]}: {done.stderr.strip()[-1000:]}")
        return done.stdout

    def update(self, max_age_s: float = 0) -> None:
        """Read the lists of the suite, of its updates and of its security updates, unless they were read lately."""
        stamp = self.folder / "updated"
        if stamp.exists() and time.time() - stamp.stat().st_mtime < max_age_s:
            return
        for name in ("cache/archives/partial", "state/lists/partial", "debs"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "status").touch()
        archive, security = mirrors()
        signed = f"deb [signed-by={_KEYRING}]"
        (self.folder / "sources.list").write_text(
            f"{signed} {archive} {self.suite} main\n"
            f"{signed} {archive} {self.suite}-updates main\n"
            f"{signed} {security} {self.suite}-security main\n"
        )
        with step(f"reading the package lists of Debian {self.suite}"):
            self._run("update", "-q")
        stamp.touch()

    def fetch(self, names: Sequence[str], without: Collection[str] = ()) -> list[Path]:
        """Fetch the packages and what they depend on, as .deb files sorted by name, leaving out the names of `without`.

        `update` comes first. Raises PackageError.
        """
        plan = self._run("install", "-y", "--print-uris", *names)
        wanted: list[str] = []
        files: list[Path] = []
        for file in re.findall(r"^'[^']+' (\S+_\S+_\S+\.deb) ", plan, re.MULTILINE):
            name, version, _ = file.split("_")
            if name in without:
                continue
            files.append(self.folder / "debs" / file)
            if not files[-1].exists():
                wanted.append(f"{name}={unquote(version)}")
        if wanted:
            with step(f"fetching {len(wanted)} Debian packages"):
                self._run("download", "-q", *wanted, cwd=self.folder / "debs")
        return sorted(files)
