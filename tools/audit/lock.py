"""Reads a lock file that `make lock` wrote: which packages, in which versions, under which conditions.

Knows nothing of hashes, which pip verifies, nor of what the packages are.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from packaging.markers import Marker

if TYPE_CHECKING:
    from pathlib import Path

_PIN = re.compile(r"^([A-Za-z0-9][\w.-]*)==([^\s;\\]+)\s*(?:;\s*([^\\\n]+?))?\s*\\?$", re.MULTILINE)


class Pin(NamedTuple):
    """One package of the lock; `name` is normalised (PEP 503), `marker` is a PEP 508 condition or empty."""

    name: str
    version: str
    marker: str = ""

    @property
    def applies(self) -> bool:
        """Whether this Python on this machine installs it."""
        return not self.marker or Marker(self.marker).evaluate()


def parse(text: str) -> list[Pin]:
    """Return the packages of a lock file, in its order."""
    return [Pin(normalised(name), version, marker or "") for name, version, marker in _PIN.findall(text)]


def read(path: Path) -> list[Pin]:
    """As `parse`, of a file; raises ValueError when it pins nothing."""
    if not (pins := parse(path.read_text())):
        raise ValueError(f"{path} pins no package")
    return pins


def normalised(name: str) -> str:
    """Return a package's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
