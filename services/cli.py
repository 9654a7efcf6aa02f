"""`groundwork`: the command line of the whole project, one subcommand for each service that has one.

Responsible for: finding the subcommand. A module is imported only when its subcommand is used, so that a service's
imports cost the others nothing.
Invariant: a subcommand is a module with `main(arguments, program) -> exit code`.
Must not know: what a subcommand does.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, NamedTuple

from services.console import OK, UNUSABLE, version

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PROGRAM = "groundwork"


class Subcommand(NamedTuple):
    """Where a subcommand is and what the help says of it."""

    module: str
    summary: str


SUBCOMMANDS: Mapping[str, Subcommand] = {
    "ipam": Subcommand("services.ipam.cli.command", "address pools: fill, holders, ledger check, export and import"),
    "podpreset": Subcommand("services.podpreset.cli.command", "presets for pods: what they do, lint, convert, export"),
    "machine": Subcommand("services.machine_controller.cli.command", "machines on vSphere: kube-vip, failure domains"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand and return its exit code; 2 when there is none of that name."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in {"-h", "--help", "help"}:
        stream = sys.stdout if given else sys.stderr
        stream.write(usage())
        return OK if given else UNUSABLE
    if given[0] == "--version":
        print(f"{PROGRAM} {version()}")
        return OK
    subcommand = SUBCOMMANDS.get(given[0])
    if subcommand is None:
        known = ", ".join(SUBCOMMANDS)
        sys.stderr.write(f"{PROGRAM}: {given[0]!r} is no subcommand: use one of {known} (see {PROGRAM} --help)\n")
        return UNUSABLE
    code: int = importlib.import_module(subcommand.module).main(given[1:], f"{PROGRAM} {given[0]}")
    return code


def usage() -> str:
    """Text of `--help`."""
    width = max(len(name) for name in SUBCOMMANDS)
    lines = [f"  {name.ljust(width)}  {subcommand.summary}" for name, subcommand in SUBCOMMANDS.items()]
    return "\n".join(
        [f"usage: {PROGRAM} [--version] SUBCOMMAND ...", "", *lines, "", f"{PROGRAM} SUBCOMMAND --help tells more.", ""]
    )


if __name__ == "__main__":
    sys.exit(main())
