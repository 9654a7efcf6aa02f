"""`groundwork`: the command line of the whole project, one subcommand for each service that has one.

Responsible for: finding the subcommand, also behind flags that people write in front of it. A module is imported only
when its subcommand is used, so that a service's imports cost the others nothing.
Invariant: a subcommand is a module with `main(arguments, program) -> exit code` and, for shells that complete it,
`parser(program)`.
Must not know: what a subcommand does.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, NamedTuple

from services.console import OK, PROGRAM, UNUSABLE, program, version

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Subcommand(NamedTuple):
    """Where a subcommand is and what the help says of it."""

    module: str
    summary: str


SUBCOMMANDS: Mapping[str, Subcommand] = {
    "ipam": Subcommand("services.ipam.cli.command", "address pools: fill, holders, ledger check, export and import"),
    "podpreset": Subcommand("services.podpreset.cli.command", "presets for pods: what they do, lint, convert, export"),
    "machine": Subcommand("services.machine_controller.cli.command", "machines on vSphere: kube-vip, failure domains"),
    "doctor": Subcommand("services.doctor.command", "check an installation, and say what to do where it is wrong"),
    "completion": Subcommand("services.completion.command", "print a script that completes this command in a shell"),
}
COMPLETE = "__complete"
"""What the scripts of `completion` ask; not for people."""

_GLOBAL = {"--kubeconfig": True, "--context": True, "--namespace": True, "-n": True, "--all-namespaces": False}
_GLOBAL |= {"-A": False}
"""Flags that kubectl takes anywhere, and whether they have a value."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand and return its exit code; 2 when there is none of that name."""
    called = program()
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and given[0] == COMPLETE:
        code: int = importlib.import_module("services.completion.command").answer(given[1:])
        return code
    front, given = split(given)
    if not given or given[0] in {"-h", "--help", "help"}:
        stream = sys.stdout if given else sys.stderr
        stream.write(usage(called))
        return OK if given else UNUSABLE
    if given[0] in {"--version", "version"}:
        print(f"{PROGRAM} {version()}")
        return OK
    subcommand = SUBCOMMANDS.get(given[0])
    if subcommand is None:
        known = ", ".join(SUBCOMMANDS)
        sys.stderr.write(f"{called}: {given[0]!r} is no subcommand: use one of {known} (see {called} --help)\n")
        return UNUSABLE
    # Flags in front go to the end, where the subcommand's own parser takes or refuses them.
    module = importlib.import_module(subcommand.module)
    code = module.main([*given[1:], *front], f"{called} {given[0]}")
    return code  # noqa: RET504 - the annotation above says that it is a number, which import_module does not


def split(given: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the flags in front of the subcommand, and the rest."""
    rest = list(given)
    front: list[str] = []
    while rest and rest[0].partition("=")[0] in _GLOBAL:
        flag = rest.pop(0)
        front.append(flag)
        if _GLOBAL[flag.partition("=")[0]] and "=" not in flag and rest:
            front.append(rest.pop(0))
    return front, rest


def usage(called: str = PROGRAM) -> str:
    """Text of `--help`."""
    width = max(len(name) for name in SUBCOMMANDS)
    lines = [f"  {name.ljust(width)}  {subcommand.summary}" for name, subcommand in SUBCOMMANDS.items()]
    return "\n".join(
        [f"usage: {called} [--version] SUBCOMMAND ...", "", *lines, "", f"{called} SUBCOMMAND --help tells more.", ""]
    )


if __name__ == "__main__":
    sys.exit(main())
