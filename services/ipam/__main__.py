"""`python -m services.ipam`: the allocator as a process."""

from __future__ import annotations

import sys

from services.ipam.service import build
from services.ipam.settings import IpamSettings
from services.runtime.main import run


def main() -> int:
    """Run until told to stop; returns the exit code."""
    return run(IpamSettings, build)


if __name__ == "__main__":
    sys.exit(main())
