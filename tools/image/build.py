"""Builds the images: the base, Groundwork's own on top of it, and a small client for tests.

Responsible for: the order and the names. Invariant: without a registry the same image comes out of the same Dockerfile
as with one, only its two bases are made here. Must not know how packages, wheels and layers are made.
"""

from __future__ import annotations

import datetime as dt
import subprocess
import tempfile
import time
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from tools import paths
from tools.image import debian, rootfs, wheels
from tools.image.debian import Apt
from tools.progress import say, step

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tools.image.storage import Storage

NAME = "docker.io/library/groundwork:dev"
"""What a node finds when a manifest says `groundwork:dev`."""
CLIENT = "localhost/groundwork-client:dev"
"""busybox: it waits, also as a pod's sandbox, and has printenv, wget, nslookup and a shell for tests."""
IMAGES = paths.ROOT / "deploy" / "images"
DOCKERFILE = IMAGES / "Dockerfile"
LOCKS = (IMAGES / "build-requirements.lock", paths.ROOT / "requirements.lock")

# Older ones lack security updates.
_BASE_MAX_AGE_S = 7 * 86_400
_LISTS_MAX_AGE_S = 86_400
_PYTHON = {"trixie": "3.13", "bookworm": "3.11"}
SUITES = tuple(_PYTHON)
"""Releases of Debian that a base can be made of."""
_RUNS = ("base-files", "ca-certificates", "netbase", "python3", "tzdata")
_BUILDS = (*_RUNS, "coreutils", "dash", "python3-venv")
# What only maintainer scripts call, whose work rootfs does; the builder's programs need some of the libraries.
_LIBRARIES = frozenset(("libacl1", "libmd0", "libpcre2-8-0", "libselinux1"))
_UNNEEDED = frozenset(("debconf", "dpkg", "mawk", "openssl", "perl-base", "tar")) | _LIBRARIES
# Debian's busybox has no printenv, which is what people ask a container for its environment with.
_PRINTENV = """\
#!/bin/sh
[ $# -gt 0 ] || exec env
for name; do
  eval "[ \\"\\${$name+set}\\" ]" || exit 1
  eval "echo \\"\\$$name\\""
done
"""


def base_names(suite: str) -> tuple[str, str]:
    """The names of the base that runs the services and of the one that builds them."""
    return f"localhost/groundwork-base:{suite}", f"localhost/groundwork-builder:{suite}"


def base(storage: Storage, suite: str = debian.SUITE) -> list[str]:
    """Make both base images of a Debian release and return the packages of the one that runs, "name version" each."""
    apt = Apt.of(suite)
    apt.update()
    runs, builds = base_names(suite)
    listed: list[str] = []
    with tempfile.TemporaryDirectory(prefix="groundwork-") as temporary:
        layer = Path(temporary) / "layer.tar"
        for name, packages, without in ((runs, _RUNS, _UNNEEDED), (builds, _BUILDS, _UNNEEDED - _LIBRARIES)):
            files = apt.fetch(packages, without)
            with step(f"making {name} of {len(files)} packages"):
                shell = {"usr/bin/sh": "dash"} if name == builds else None
                found = rootfs.write(files, layer, links=shell)
                storage.from_layer(layer, name, rootfs.EPOCH)
            listed = listed or found
    _stamp(storage, suite).touch()
    return listed


def _stamp(storage: Storage, suite: str) -> Path:
    return storage.folder / f"base-{suite}.made"


def _is_fresh(storage: Storage, suite: str) -> bool:
    stamp = _stamp(storage, suite)
    return stamp.exists() and time.time() - stamp.stat().st_mtime < _BASE_MAX_AGE_S


def build(
    storage: Storage,
    target: Path,
    *,
    name: str = NAME,
    suite: str = debian.SUITE,
    base_image: str = "",
    builder: str = "",
    python: str = "",
) -> None:
    """Build Groundwork's image as the archive `target`, on `base_image` or else on one made of a release of Debian.

    `builder` (default: the base) needs venv and pip; `python` is where the base has its interpreter.
    """
    args, contexts = {}, {}
    epoch, revision = _commit()
    if base_image:
        args = {"BASE": base_image, "BUILDER": builder or base_image}
    else:
        runs, builds = base_names(suite)
        if not (_is_fresh(storage, suite) and storage.has(runs) and storage.has(builds)):
            base(storage, suite)
        args = {"BASE": runs, "BUILDER": builds, "PIP_ARGS": "--no-index"}
        contexts = {"wheels": wheels.fetch(LOCKS, _PYTHON[suite])}
    if python:
        args["PYTHON"] = python
    args |= {
        "VERSION": version(),
        "REVISION": revision,
        "CREATED": dt.datetime.fromtimestamp(epoch, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    with step(f"building {name}", expected="about a minute"):
        storage.from_dockerfile(DOCKERFILE, paths.ROOT, name, epoch, args=args, contexts=contexts)
    storage.export(name, target)
    say(f"{target}: {target.stat().st_size / 1e6:.0f} MB; load it with: ctr -n k8s.io images import {target}")


def client(storage: Storage, target: Path, name: str = CLIENT) -> None:
    """Make the test client's image as the archive `target`: one static program."""
    apt = Apt.of(debian.SUITE)
    apt.update(_LISTS_MAX_AGE_S)
    without = frozenset(("libc6", "libgcc-s1", "gcc-14-base", *_UNNEEDED))
    with tempfile.TemporaryDirectory(prefix="groundwork-") as temporary:
        layer = Path(temporary) / "layer.tar"
        rootfs.write(
            apt.fetch(["busybox-static"], without),
            layer,
            links=dict.fromkeys(_applets(), "busybox"),
            programs={"usr/bin/printenv": _PRINTENV},
        )
        storage.from_layer(
            layer, name, rootfs.EPOCH, command=("sh", "-c", "trap 'exit 0' TERM INT; sleep infinity & wait")
        )
    storage.export(name, target)


def _applets() -> Sequence[str]:
    names = "sh cat echo env false id kill ls nslookup nc ping ps sleep test touch true wget"
    return [f"usr/bin/{name}" for name in names.split()]


def version() -> str:
    """The version of the distribution."""
    project = tomllib.loads((paths.ROOT / "pyproject.toml").read_text())["project"]
    found: str = project["version"]
    return found


def _commit() -> tuple[int, str]:
    """Time in seconds since 1970, and name, of the commit that is checked out; zero and "unknown" outside of git.

    The name of a checkout with changes ends with "-dirty": it does not tell what is in the image.
    """
    try:
        when, name = _git("log", "-1", "--format=%ct %H").split()
        changed = _git(
            "status",
            "--porcelain",
            "--",
            "services",
            "deploy/crds",
            "deploy/images",
            "pyproject.toml",
            "requirements.lock",
        )
    except (OSError, subprocess.CalledProcessError):
        return 0, "unknown"
    return int(when), f"{name}-dirty" if changed else name


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(paths.ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
