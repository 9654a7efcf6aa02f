"""The one place that knows where tools keep what outlives a run: the user's cache folder, never the repository."""

from __future__ import annotations

import os
from pathlib import Path


def cache() -> Path:
    """Return $XDG_CACHE_HOME/groundwork, or ~/.cache/groundwork (XDG Base Directory Specification)."""
    configured = os.environ.get("XDG_CACHE_HOME", "")
    # The specification: a relative path there is invalid and to be ignored.
    base = Path(configured) if os.path.isabs(configured) else Path.home() / ".cache"  # noqa: PTH117 - "" is no Path
    return base / "groundwork"
