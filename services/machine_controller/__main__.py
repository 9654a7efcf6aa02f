"""`python -m services.machine_controller`: the machine controller as a process."""

from __future__ import annotations

import sys

from services.machine_controller.service import build
from services.machine_controller.settings import MachineSettings
from services.runtime.main import run


def main() -> int:
    """Run until told to stop; returns the exit code."""
    return run(MachineSettings, build)


if __name__ == "__main__":
    sys.exit(main())
