"""`groundwork doctor`: flags, exit codes, and handing what was read to the checks.

Invariants: nothing is stored in the cluster. Exit codes: 0 no errors, 1 errors, 2 the cluster cannot be reached.
Must not know: what is checked, how it is read or looks.
"""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

from services import access, console, output
from services.console import CommandLine, Progress, UnusableError
from services.doctor import show
from services.doctor.checks import CHECKS, parts, run
from services.doctor.finding import Level
from services.doctor.gather import Gatherer
from services.doctor.reader import Reader
from services.runtime.clock import SystemClock
from services.runtime.kube.transport import Client

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from services.doctor.seen import Seen

LIMIT = 20_000
TIMEOUT_SECONDS = 15.0


def main(arguments: Sequence[str], program: str = "groundwork doctor") -> int:
    """Run the command line; returns the exit code."""
    return console.run(parser(program), arguments)


def parser(program: str = "groundwork doctor") -> CommandLine:
    """Return the command line, for `main` and for shells that complete it."""
    width = max(map(len, CHECKS))
    listed = "\n  ".join(f"{name.ljust(width)}  {check.summary}" for name, check in CHECKS.items())
    codes = "0  no errors\n  1  errors were found\n  2  the cluster cannot be reached, or wrong flags"
    line = CommandLine(
        prog=program,
        description="check whether Groundwork is installed right and well, and say what to do where it is not; nothing "
        "is changed",
        epilog=f"checks:\n  {listed}\n\nexit codes:\n  {codes}",
    )
    line.set_defaults(work=_doctor)
    access.add_cluster(line)
    line.add_argument("-o", "--output", choices=("table", "json", "yaml"), default="table", help="default: %(default)s")
    for flag, text in (("--only", "do this check"), ("--skip", "leave this check out")):
        line.add_argument(
            flag,
            action="append",
            default=[],
            choices=tuple(CHECKS),
            metavar="CHECK",
            help=f"{text}; repeatable (default: {'all' if flag == '--only' else 'none'})",
        )
    line.add_argument("-q", "--quiet", action="store_true", help="do not show what is as it should be")
    line.add_argument(
        "--limit",
        type=int,
        default=LIMIT,
        metavar="N",
        help="read no list with more objects than this (default: %(default)s)",
    )
    line.add_argument(
        "--timeout",
        type=float,
        default=TIMEOUT_SECONDS,
        metavar="SECONDS",
        help="for each answer of the API server (default: %(default)s)",
    )
    return line


async def _doctor(options: argparse.Namespace) -> int:
    chosen = [name for name in CHECKS if (not options.only or name in options.only) and name not in options.skip]
    if not chosen:
        raise UnusableError("--skip leaves nothing of --only")
    found = run(await _gather(options, parts(chosen)), chosen)
    if options.output == "table":
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
        sys.stdout.write(show.lines(found, width, everything=not options.quiet))
    else:
        kept = [item for item in found if item.level > Level.OK or not options.quiet]
        sys.stdout.write(output.structured(show.data(kept), options.output))
    return console.FOUND if any(item.level is Level.ERROR for item in found) else console.OK


async def _gather(options: argparse.Namespace, wanted: set[str]) -> Seen:
    connection = await access.connect(options)
    with Progress() as progress:
        progress.step(f"connecting to {connection.url}")
        async with Client(connection, user_agent="groundwork-doctor", timeout=options.timeout) as client:
            return await Gatherer(Reader(client, progress, options.limit), SystemClock(), progress, wanted).gather()
