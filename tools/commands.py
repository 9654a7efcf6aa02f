"""What the command lines of the local cluster and of the node have in common.

Responsible for: telling whether something runs, and printing the environment in which kubectl finds it.
Must not know: how either of them is made.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Protocol

from tools import binaries
from tools.progress import say

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["NOT_RUNNING", "Place", "env", "status"]

NOT_RUNNING = 3
"""The exit code of `systemctl status` for the same answer."""


class Place(Protocol):
    """An API server to work with, and where its kubeconfig is."""

    kubeconfig: Path

    @property
    def url(self) -> str:
        """Address of the API server."""

    @property
    def running(self) -> bool:
        """Whether all of it runs."""


def status(place: Place | None) -> int:
    """Print whether it is up, and where; return the exit code."""
    if place is not None and place.running:
        print(f"up {place.url}")
        return 0
    print("down")
    return NOT_RUNNING


def env(kind: str, folder: Path, place: Place | None, *programs: str) -> int:
    """Print what a shell evaluates to find it and these programs; return the exit code."""
    if place is None:
        say(f"{kind} {folder.name} does not exist: run `up` first")
        return NOT_RUNNING
    found = binaries.folder(*programs, into=folder / "bin")
    print(f"export KUBECONFIG={shlex.quote(str(place.kubeconfig))}")
    print(f'export PATH={shlex.quote(str(found))}:"$PATH"')
    return 0
