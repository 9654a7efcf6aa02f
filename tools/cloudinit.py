"""Debian's own cloud-init, made runnable without being installed: what guests will read our data with.

Responsible for: fetching cloud-init and the Python packages it needs from the Debian archive that apt knows, into the
user's cache folder, and for running a script with them.
Invariants: apt checks the archive's signature; nothing of the system's apt, dpkg or Python is changed or used but its
sources and keyring; a folder under its final name is complete. Python sees these packages and the standard library,
none of the virtual environment's.
Must not know: what is tested with it.

Where apt has no Debian archive (another distribution), unpack the packages of `PACKAGES` from both releases into
DIR/bookworm and DIR/trixie (dpkg-deb -x) and set GROUNDWORK_CLOUD_INIT=DIR.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tools import paths
from tools.progress import step

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

RELEASES: Mapping[str, str] = {"bookworm": "22.4", "trixie": "25.1"}
"""Debian releases and the cloud-init that each has: before and after it learned to render `::/0` everywhere."""
PACKAGES = (
    "cloud-init",
    "python3-blinker",
    "python3-certifi",
    "python3-chardet",
    "python3-charset-normalizer",
    "python3-configobj",
    "python3-idna",
    "python3-jinja2",
    "python3-json-pointer",
    "python3-jsonpatch",
    "python3-jwt",
    "python3-markupsafe",
    "python3-oauthlib",
    "python3-requests",
    "python3-serial",
    "python3-six",
    "python3-urllib3",
    "python3-yaml",
)
"""Those with compiled parts (yaml, markupsafe) work without them, so any Python from 3.11 on runs all of these."""
_SUITES = {*RELEASES, "bullseye", "forky", "oldstable", "stable", "testing", "unstable", "sid"}
_INDEX = re.compile(r"^'(?P<archive>[^']+)/dists/(?P<suite>[^/']+)/InRelease'", re.MULTILINE)
_KEYRINGS = ("debian-archive-keyring.gpg", "debian-archive-keyring.pgp")
_NETIFACES = '''"""Stands in for the C extension that tells cloud-init 22.4 which addresses to report: here none."""

AF_LINK, AF_INET, AF_INET6 = 17, 2, 10


def interfaces():
    return []


def gateways():
    return {"default": {}}


def ifaddresses(name):
    return {}
'''


class NoCloudInitError(RuntimeError):
    """cloud-init cannot be had here; the message says why and what to do."""


@dataclass(frozen=True)
class CloudInit:
    """The unpacked packages of one Debian release."""

    release: str
    root: Path

    @property
    def packages(self) -> Path:
        """The folder to import from."""
        return self.root / "usr" / "lib" / "python3" / "dist-packages"

    def run(self, script: Path, *arguments: str, input: str = "") -> str:  # noqa: A002 - as subprocess.run has it
        """Run a Python script that imports cloudinit; return its stdout, raise CalledProcessError when it fails.

        It sees itself as root, since cloud-init sets owners and modes.
        """
        as_root = [] if os.geteuid() == 0 else ["unshare", "--map-root-user"]
        environment = {
            "PATH": os.environ.get("PATH", ""),
            "PYTHONPATH": str(self.packages),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        done = subprocess.run(
            [*as_root, sys.executable, "-S", "-s", str(script), *arguments],
            input=input,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise subprocess.CalledProcessError(done.returncode, [str(script), *arguments], done.stdout, done.stderr)
        return done.stdout


def ensure(release: str) -> CloudInit:
    """Return cloud-init of a Debian release, fetched if it is not there yet. Raises NoCloudInitError."""
    given = os.environ.get("GROUNDWORK_CLOUD_INIT", "")
    if given:
        found = CloudInit(release, Path(given) / release)
        if not (found.packages / "cloudinit").is_dir():
            raise NoCloudInitError(f"GROUNDWORK_CLOUD_INIT={given}: no cloudinit in {found.packages}")
        return found
    folder = paths.cache() / "cloud-init"
    folder.mkdir(parents=True, exist_ok=True)
    root = folder / f"{release}-{RELEASES[release]}"
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.exists():
            with step(f"fetching cloud-init of Debian {release}", expected="about 10 s, once"):
                _fetch(release, root)
    return CloudInit(release, root)


def _fetch(release: str, root: Path) -> None:
    for program in ("apt-get", "dpkg-deb"):
        if shutil.which(program) is None:
            raise NoCloudInitError(f"no {program} on PATH: see {Path(__file__).name} on GROUNDWORK_CLOUD_INIT")
    with tempfile.TemporaryDirectory(dir=root.parent, prefix=".fetch-") as name:
        work = Path(name)
        options = _private_apt(release, work)
        # The archive's index alone: no translations, no components for desktops.
        _command("apt-get", *options, "-qq", "update", cwd=work)
        packages = work / "packages"
        packages.mkdir()
        _command("apt-get", *options, "-qq", "download", *PACKAGES, cwd=packages)
        unpacked = work / "unpacked"
        for package in sorted(packages.glob("*.deb")):
            _command("dpkg-deb", "-x", str(package), str(unpacked), cwd=work)
        fetched = next(iter(packages.glob("cloud-init_*.deb"))).name.split("_")[1]
        if not fetched.startswith(RELEASES[release]):
            raise NoCloudInitError(f"Debian {release} has cloud-init {fetched}, not {RELEASES[release]}")
        (CloudInit(release, unpacked).packages / "netifaces.py").write_text(_NETIFACES)
        unpacked.rename(root)


def _private_apt(release: str, work: Path) -> list[str]:
    """Options for an apt whose only source is the system's Debian archive, with its state in `work`."""
    # What an update would fetch: known from the sources alone, on a machine that has never had one.
    listed = _command("apt-get", "update", "--print-uris", cwd=work)
    archives = [match["archive"] for match in _INDEX.finditer(listed) if match["suite"] in _SUITES]
    keyrings = [path for name in _KEYRINGS if (path := Path("/usr/share/keyrings") / name).exists()]
    if not archives or not keyrings:
        raise NoCloudInitError(
            f"apt has no Debian archive as source: see {Path(__file__).name} on GROUNDWORK_CLOUD_INIT"
        )
    (work / "sources.list").write_text(f"deb [signed-by={keyrings[0]}] {archives[0]} {release} main\n")
    for folder in ("state/lists/partial", "cache/archives/partial"):
        (work / folder).mkdir(parents=True)
    (work / "state" / "status").touch()
    settings = {
        "Dir::State": work / "state",
        "Dir::State::status": work / "state" / "status",
        "Dir::Cache": work / "cache",
        "Dir::Etc::sourcelist": work / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Acquire::Languages": "none",
        "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
        "APT::Sandbox::User": "",
    }
    return [f"-o{name}={value}" for name, value in settings.items()]


def _command(program: str, *arguments: str, cwd: Path) -> str:
    done = subprocess.run([program, *arguments], cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        words = done.stderr.strip().splitlines()[-5:]
        raise NoCloudInitError(f"{program} {arguments[-1]} failed: " + "; ".join(words))
    return done.stdout


def main(arguments: Sequence[str]) -> int:
    """Fetch the releases that are named, or all, and print where each is."""
    try:
        for release in arguments or RELEASES:
            found = ensure(release)
            print(f"{release}={found.root}")
    except NoCloudInitError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
