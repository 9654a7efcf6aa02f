"""The one place that knows where things are: the checkout, and what outlives a run, which is never kept in it."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The checkout that the tools belong to."""


def cache() -> Path:
    """Return $XDG_CACHE_HOME/groundwork, or ~/.cache/groundwork (XDG Base Directory Specification)."""
    configured = os.environ.get("XDG_CACHE_HOME", "")
    # The specification: a relative path there is invalid and to be ignored.
    base = Path(configured) if os.path.isabs(configured) else Path.home() / ".cache"  # noqa: PTH117 - "" is no Path
    return base / "groundwork"
