"""`python -m services.capv_integrator`: the integrator as a process."""

from __future__ import annotations

import sys

from services.capv_integrator.service import build
from services.capv_integrator.settings import IntegratorSettings
from services.runtime.main import run


def main() -> int:
    """Run until told to stop; returns the exit code."""
    return run(IntegratorSettings, build)


if __name__ == "__main__":
    sys.exit(main())
