"""`groundwork machine`: the subcommands, each in a module of its own.

Responsible for: putting the subcommands together. Exit codes: 0 done, 1 something needs attention, 2 the
command could not do its work.
Must not know: what a subcommand does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from services import console
from services.console import CommandLine
from services.machine_controller.cli import kubevip, zones

if TYPE_CHECKING:
    from collections.abc import Sequence

MODULES = (kubevip, zones)


def main(arguments: Sequence[str], program: str = "groundwork machine") -> int:
    """Run the command line; returns the exit code."""
    return console.run(parser(program), arguments)


def parser(program: str = "groundwork machine") -> CommandLine:
    """Return the command line, for `main` and for shells that complete it."""
    line = CommandLine(prog=program, description="Machines on vSphere: what they are given, and where they are placed.")
    commands = line.add_subparsers(metavar="COMMAND", required=True)
    for module in MODULES:
        module.add(commands)
    return line
