"""The cgroup that all pods of a node are below, in every hierarchy: made before kubelet starts, removed last.

Invariants: nothing outside of the cgroup with the given name is changed, save that on cgroup v2 the controllers that
kubelet needs are passed on to children of the root. Knows nothing of what runs in it.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_V2 = _ROOT / "cgroup.controllers"
_NEEDED = ("cpu", "cpuset", "memory", "pids")
_INHERITED = ("cpuset.cpus", "cpuset.mems")  # empty in a new cgroup v1, and nothing runs while they are
_PATIENCE_S = 20.0


def _hierarchies() -> list[Path]:
    return [_ROOT] if _V2.exists() else [path for path in sorted(_ROOT.iterdir()) if path.is_dir()]


def make(name: str) -> None:
    """Make the cgroup `name` at the top of each hierarchy."""
    if _V2.exists():
        (_ROOT / "cgroup.subtree_control").write_text(" ".join(f"+{controller}" for controller in _NEEDED))
    for hierarchy in _hierarchies():
        made = hierarchy / name
        made.mkdir(exist_ok=True)
        for setting in _INHERITED:
            if (hierarchy / setting).exists() and not _V2.exists():
                (made / setting).write_text((hierarchy / setting).read_text())


def left(name: str) -> list[Path]:
    """What there is of the cgroup `name`, the innermost first."""
    found: list[Path] = []
    for hierarchy in _hierarchies():
        for folder, _, _ in os.walk(hierarchy / name, topdown=False):
            found.append(Path(folder))
    return found


def remove(name: str) -> None:
    """Remove the cgroup `name` everywhere; its processes must have been killed.

    They may still be ending, so this waits; raises OSError when it takes longer than that ever should.
    """
    deadline = time.monotonic() + _PATIENCE_S
    while folders := left(name):
        failure: OSError | None = None
        for folder in folders:
            try:
                folder.rmdir()
            except FileNotFoundError:
                continue
            except OSError as error:
                failure = error
        if failure is not None and time.monotonic() > deadline:
            raise failure
        time.sleep(0.05)
