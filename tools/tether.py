"""Runs a program that dies with the process that started it: `tether.py PARENT_PID PROGRAM [ARGUMENT ...]`.

Linux sends the signal set here when the *thread* that forked us ends, so callers fork from a thread that lives as long
as their process. The setting survives exec, and the program keeps this process id. Run with `python -I -S`: it starts
in some 10 ms and imports nothing of the project. A preexec_fn would do the same but is unsafe in a process with
threads.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Tie this process to its parent and become the program."""
    parent, program = int(sys.argv[1]), sys.argv[2:]
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:  # it died before the request above
        sys.exit(1)
    os.execv(program[0], program)  # noqa: S606 - the point is to become the program, without a shell


if __name__ == "__main__":
    main()
