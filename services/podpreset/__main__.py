"""`python -m services.podpreset`: the webhook as a process."""

from __future__ import annotations

import sys

from services.podpreset.service import build
from services.podpreset.settings import PodPresetSettings
from services.runtime.main import run


def main() -> int:
    """Run until told to stop; returns the exit code."""
    return run(PodPresetSettings, build)


if __name__ == "__main__":
    sys.exit(main())
