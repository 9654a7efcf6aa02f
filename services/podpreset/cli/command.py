"""`groundwork podpreset`: what presets do to pods, and what is wrong with them.

Responsible for: subcommands and flags.
Invariants: exit codes are 0 all is well, 1 something was found, 2 the command could not do its work.
Must not know: what the commands do (see `answers`).
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from services import access, console
from services.console import CommandLine, complete_with
from services.podpreset.cli import answers, convert, lint, routes
from services.podpreset.cli.documents import DEFAULT_NAMESPACE
from services.proxyenv.clients import Client

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

POLICY = "mutatingadmissionpolicy"
_OK_CODE = "0  done, nothing to complain about"
_UNUSABLE_CODE = "2  the command could not do its work: wrong flags, unreadable files, no cluster, no permission"


def main(arguments: Sequence[str], program: str = "groundwork podpreset") -> int:
    """Run the command line; returns the exit code."""
    return console.run(parser(program), arguments)


# -- the command line ----------------------------------------------------------------------------------------------


def parser(program: str = "groundwork podpreset") -> CommandLine:
    """Return the command line, for `main` and for shells that complete it."""
    line = CommandLine(prog=program, description="See what presets do to pods, on files or on a running cluster.")
    commands = line.add_subparsers(metavar="COMMAND", required=True)

    def command(
        name: str, work: Callable[[argparse.Namespace], object], summary: str, found: str = "", more: str = ""
    ) -> CommandLine:
        codes = [_OK_CODE, *([f"1  {found}"] if found else []), _UNUSABLE_CODE]
        epilog = "\n  ".join(["exit codes:", *codes]) + more
        added: CommandLine = commands.add_parser(name, help=summary, description=summary, epilog=epilog)
        added.set_defaults(work=work)
        return added

    render = command("render", answers.render, "show pods as they would be created", "a pod would be refused")
    _add_inputs(render)
    _add_output(render, "yaml", "json")

    explain = command(
        "explain", answers.explain, "show what each container gets, and which preset gave it", "a pod would be refused"
    )
    _add_inputs(explain)
    _add_output(explain, "table", "json", "yaml")

    diff = command("diff", answers.diff, "show what presets change in pods", "there are differences")
    diff.description = f"""{diff.description}.
With --live: what the presets of the files change compared with those of the cluster, in the pods of the files or, if
they have none, of all workloads of the cluster."""
    _add_inputs(diff)

    rules = "\n  ".join(f"{name.ljust(15)} {text}" for name, text in lint.RULES.items())
    check = command(
        "lint",
        answers.lint,
        "find what is wrong with presets and pods, for each client that reads NO_PROXY",
        "something was found (notes alone do not count); with --host: clients differ in what they do",
        f"\n\nrules:\n  {rules}",
    )
    _add_inputs(check)
    _add_output(check, "table", "json", "yaml")
    check.add_argument(
        "--client",
        action="append",
        default=[],
        type=str.lower,
        choices=[client.lower() for client in Client],
        help="only what concerns this client; repeatable (default: all)",
    )
    check.add_argument(
        "--ignore", action="append", default=[], choices=lint.RULES, metavar="RULE", help="leave a rule out; repeatable"
    )
    check.add_argument("--no-proxy", metavar="LIST", help="look at this NO_PROXY list")
    check.add_argument(
        "--host",
        type=_host,
        metavar="[SCHEME://]HOST[:PORT]",
        help="show instead which clients reach this host directly; Java with the list as its http.nonProxyHosts",
    )
    check.add_argument(
        "--workloads", action="store_true", help="with --live, look at the pod templates of workloads too"
    )

    conversion = command(
        "convert",
        answers.convert,
        "write presets of other projects as ours",
        "something has no counterpart; it is said on stderr and in comments",
    )
    conversion.description = f"{conversion.description}: {', '.join(convert.KNOWN)}"
    _add_files(conversion)
    _add_output(conversion, "yaml", "json")

    drift = command(
        "stale",
        answers.stale,
        "list workloads whose pods run with what presets said earlier",
        "there are such workloads",
    )
    access.add_cluster(drift)
    access.add_namespaces(drift, "pods of this namespace")
    _add_facts(drift)
    _add_output(drift, "table", "wide", "json", "yaml", "name")

    export = command(
        "export",
        answers.export,
        "write presets as policies that need no webhook",
        "a preset cannot be expressed; see stderr",
    )
    export.add_argument("--to", choices=[POLICY], required=True, help="what to write (Kubernetes 1.36 and later)")
    preset = export.add_argument(
        "--preset", action="append", default=[], metavar="NAME", help="only presets of this name; repeatable"
    )
    complete_with(preset, "presets")
    _add_inputs(export)
    _add_output(export, "yaml", "json")
    return line


def _add_files(parser: CommandLine) -> None:
    action = parser.add_argument(
        "-f",
        "--filename",
        action="append",
        default=[],
        metavar="FILE",
        help="YAML or JSON of presets, namespaces, pods and workloads: a file, a folder or - for stdin; repeatable",
    )
    complete_with(action, access.FILES)


def _add_inputs(parser: CommandLine) -> None:
    _add_files(parser)
    parser.add_argument(
        "--live",
        action="store_true",
        help="take presets, namespaces and addresses of a running cluster; what files say comes on top",
    )
    access.add_cluster(parser)
    action = parser.add_argument(
        "-n", "--namespace", metavar="NS", help=f"namespace of objects that name none (default: {DEFAULT_NAMESPACE})"
    )
    complete_with(action, access.NAMESPACES)
    _add_facts(parser)
    parser.add_argument("--show-credentials", action="store_true", help="show passwords in values")


def _add_facts(parser: CommandLine) -> None:
    """Flags of the webhook, for what it finds in the cluster and what it is told."""
    for flag, metavar, text in (
        ("--service-cidr", "CIDR", "range of Services, for noProxy.include"),
        ("--pod-cidr", "CIDR", "range of pods, for noProxy.include"),
        ("--api-server", "HOST", "address or name of the API server, for noProxy.include"),
        ("--metadata-address", "HOST", "address or name of the instance metadata, for noProxy.include"),
    ):
        parser.add_argument(flag, action="append", default=[], metavar=metavar, help=f"{text}; repeatable")
    action = parser.add_argument(
        "--untouched-namespace",
        action="append",
        metavar="NS",
        help=f"namespace that the webhook leaves alone; repeatable (default: {', '.join(answers.UNTOUCHED)})",
    )
    complete_with(action, access.NAMESPACES)


def _add_output(parser: CommandLine, *choices: str) -> None:
    parser.add_argument("-o", "--output", choices=choices, default=choices[0], help="default: %(default)s")


def _host(text: str) -> routes.Destination:
    try:
        return routes.parse_destination(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
