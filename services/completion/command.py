"""`groundwork completion`, and what the scripts that it prints ask while somebody types.

Responsible for: finding the parser that a line has led to, and answering in the protocol of kubectl's plugins: a word
a line, with a tab and its description, and last `:0` where file names may follow or `:4` where not.
Invariant: a service is imported only when the line names its subcommand.
Must not know: shells, clusters.
Source: kubectl's completion of plugins (KEP 3638) and spf13/cobra, "Shell completions", the directives.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import sys
from typing import TYPE_CHECKING

from services import access, cli, console
from services.completion import names
from services.completion.scripts import SHELLS, script
from services.completion.words import Answer, Word, complete
from services.console import PROGRAM, CommandLine

if TYPE_CHECKING:
    from collections.abc import Sequence

FILES_FOLLOW = ":0"
NO_FILES = ":4"
_EPILOG = """\
bash  add to ~/.bashrc: source <(groundwork completion bash)
zsh   add to ~/.zshrc, after compinit: source <(groundwork completion zsh)
fish  groundwork completion fish > ~/.config/fish/completions/groundwork.fish

`kubectl groundwork` is completed by kubectl's own completion, where kubectl_complete-groundwork is on PATH.

exit codes:
  0  printed
  2  the command could not do its work: wrong flags"""


def main(arguments: Sequence[str], program: str = "groundwork completion") -> int:
    """Run the command line; returns the exit code."""
    return console.run(parser(program), arguments)


def parser(program: str = "groundwork completion") -> CommandLine:
    """Return the command line, for `main` and for shells that complete it."""
    summary = "print a script that completes this command in a shell: subcommands, flags, and names in the cluster"
    line = CommandLine(prog=program, description=summary, epilog=_EPILOG)
    line.add_argument("shell", choices=SHELLS, help="which shell")
    line.set_defaults(work=_print)
    return line


async def _print(options: argparse.Namespace) -> int:
    sys.stdout.write(script(options.shell, PROGRAM))
    return console.OK


def kubectl() -> int:
    """Answer kubectl, which runs `kubectl_complete-groundwork` with the words of the line."""
    return answer(sys.argv[1:])


def answer(given: Sequence[str]) -> int:
    """Print what may follow; the last of the words is the one that is being written, "" for a new one."""
    *before, current = given or [""]
    found = _complete(before, current)
    words = list(found.words)
    if found.names and found.names != access.FILES:
        value = current.removeprefix(found.prefix)
        known = asyncio.run(names.find(found.names, _cluster_of(before)))
        words += [Word(f"{found.prefix}{name}") for name in known if name.startswith(value)]
    for word in words:
        sys.stdout.write(f"{word.text}\t{word.description}\n" if word.description else f"{word.text}\n")
    sys.stdout.write(f"{FILES_FOLLOW if found.names == access.FILES else NO_FILES}\n")
    return console.OK


def _complete(before: Sequence[str], current: str) -> Answer:
    _, rest = cli.split(before)
    subcommand = cli.SUBCOMMANDS.get(rest[0]) if rest else None
    if subcommand is not None:
        return complete(importlib.import_module(subcommand.module).parser(), rest[1:], current)
    return complete(_everything(), before, current)


def _everything() -> CommandLine:
    line = CommandLine(prog=PROGRAM)
    line.add_argument("--version", action="store_true", help="print the version")
    access.add_cluster(line)
    access.add_namespaces(line, "this namespace")
    commands = line.add_subparsers()
    for name, subcommand in cli.SUBCOMMANDS.items():
        commands.add_parser(name, help=subcommand.summary)
    return line


def _cluster_of(before: Sequence[str]) -> argparse.Namespace:
    """Which cluster the line names so far."""
    found = argparse.Namespace(kubeconfig=None, context=None)
    for place, word in enumerate(before):
        flag, equals, value = word.partition("=")
        name = flag.removeprefix("--")
        if flag.startswith("--") and hasattr(found, name):
            setattr(found, name, value if equals else "".join(before[place + 1 : place + 2]))
    return found
