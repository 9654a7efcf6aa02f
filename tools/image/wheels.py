"""Fetches what pip installs into the image: wheels for the image's Python and processor, with the hashes of the lock.

Responsible for: a folder of wheels in the user's cache folder. Invariant: pip verifies every hash, here and again while
the image is built. Must not know how the image is built.
"""

from __future__ import annotations

import hashlib
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tools import paths
from tools.progress import step

if TYPE_CHECKING:
    from collections.abc import Sequence

_GLIBC = ("manylinux_2_34", "manylinux_2_28", "manylinux2014")


class WheelError(RuntimeError):
    """A wheel cannot be had; the message has pip's last words."""


def without_markers(lock: str) -> str:
    """Return a lock file without its conditions: pip would ask this Python about them, and not the image's."""
    return re.sub(r"(?m)^([^\s#][^;\n]*?)\s*;[^\\\n]*", r"\1 ", lock)


def fetch(locks: Sequence[Path], python: str) -> Path:
    """Return a folder with the wheels that the lock files name, for a Python such as "3.13" on this processor."""
    texts = [without_markers(lock.read_text()) for lock in locks]
    machine = platform.machine()
    digest = hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]
    target = paths.cache() / "wheels" / f"{python}-{machine}-{digest}"
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    tag = f"cp{python.replace('.', '')}"
    flags = ["--python-version", python, "--implementation", "cp", "--abi", tag, "--abi", "abi3", "--abi", "none"]
    flags += [flag for version in _GLIBC for flag in ("--platform", f"{version}_{machine}")]
    with (
        step(f"fetching the wheels for Python {python}", expected="about 20 s, once"),
        tempfile.TemporaryDirectory(prefix=".partial-", dir=target.parent) as partial,
    ):
        folder = Path(partial) / "wheels"
        for index, text in enumerate(texts):
            lock = Path(partial) / f"{index}.lock"
            lock.write_text(text)
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
            command += ["--require-hashes", "--only-binary=:all:", *flags, "--dest", str(folder), "-r", str(lock)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise WheelError(f"pip download: {done.stderr.strip()[-1500:]}")
        folder.chmod(0o755)
        folder.rename(target)
    return target
