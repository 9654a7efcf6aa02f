"""What a command is asked about: files, a cluster, or both.

Responsible for: reading files and folders, connecting where the user wants the cluster's state, and laying what files
say over what the cluster has.
Invariants: without `--live` no cluster is looked for. A preset or namespace of a file takes the place of the cluster's.
Must not know: what is asked.
"""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from services import access
from services.console import Progress, UnusableError
from services.podpreset.cli.documents import DEFAULT_NAMESPACE, DocumentError, Documents, objects
from services.podpreset.cli.live import Cluster
from services.podpreset.compiled import compile_preset
from services.proxyenv.complete import Facts
from services.runtime.clock import SystemClock
from services.runtime.kube.discovery import Discovery
from services.runtime.kube.transport import Client

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncIterator, Iterable, Iterator, Sequence

    from services.podpreset.cli.documents import Json
    from services.podpreset.cli.workloads import Workload
    from services.runtime.kube.objects import KubeObject

REQUEST_SECONDS = 30.0
_SUFFIXES = (".yaml", ".yml", ".json")


class Inputs(NamedTuple):
    """Everything that a question about presets needs."""

    presets: list[KubeObject]
    namespaces: list[KubeObject]
    workloads: list[Workload]
    facts: Facts


@asynccontextmanager
async def cluster(options: argparse.Namespace, namespaces: Sequence[str] = ()) -> AsyncIterator[Cluster]:
    """Connect to the cluster that the options or the environment name; what is read may be limited to namespaces."""
    connection = await access.connect(options)
    with Progress() as progress:
        progress.step(f"connecting to {connection.url}")
        async with Client(connection, user_agent="groundwork-cli", timeout=REQUEST_SECONDS) as client:
            discovery = Discovery(client, SystemClock())
            yield Cluster(client, discovery, progress, namespaces)


async def gather(options: argparse.Namespace, read: Documents) -> tuple[Inputs, Inputs]:
    """Return what is without the files, and what is with them; without `--live` the first is empty of presets."""
    given = given_facts(options)
    mine = Inputs(list(read.presets.values()), list(read.namespaces.values()), list(read.workloads.values()), given)
    if not options.live:
        return mine._replace(presets=[]), mine
    async with cluster(options) as there:
        presets, namespaces = await there.presets(), await there.namespaces()
        overlaid = _overlay(presets, mine.presets)
        wanted = {name for obj in (*presets, *overlaid) for name in compile_preset(obj).include}
        facts = await there.facts(given, wanted)
    before = Inputs(presets, namespaces, mine.workloads, facts)
    after = Inputs(overlaid, _overlay(namespaces, mine.namespaces), mine.workloads, facts)
    return before, after


def _overlay(below: list[KubeObject], above: list[KubeObject]) -> list[KubeObject]:
    whole = {(obj.kind, obj.key): obj for obj in below} | {(obj.kind, obj.key): obj for obj in above}
    return list(whole.values())


def given_facts(options: argparse.Namespace) -> Facts:
    """Return what flags say of the cluster."""
    facts = Facts(tuple(options.service_cidr), tuple(options.pod_cidr), tuple(options.api_server))
    return facts._replace(metadata=tuple(options.metadata_address)) if options.metadata_address else facts


# -- files ---------------------------------------------------------------------------------------------------------


def read_documents(filenames: Iterable[str], namespace: str = DEFAULT_NAMESPACE) -> Documents:
    """Read files, folders and stdin (`-`). Raises UnusableError."""
    read = Documents(namespace)
    for source, text in _texts(filenames):
        try:
            read.add(text, source)
        except DocumentError as error:
            raise UnusableError(str(error)) from error
    return read


def read_objects(filenames: Iterable[str]) -> Iterator[tuple[str, Json]]:
    """Yield every object of files, with its place. Raises UnusableError."""
    for source, text in _texts(filenames):
        try:
            yield from objects(text, source)
        except DocumentError as error:
            raise UnusableError(str(error)) from error


def _texts(filenames: Iterable[str]) -> Iterator[tuple[str, str]]:
    for filename in filenames:
        if filename == "-":
            if sys.stdin.isatty():
                raise UnusableError("nothing to read: give -f FILE or pipe YAML in")
            yield "stdin", sys.stdin.read()
            continue
        for path in _paths(Path(filename)):
            try:
                yield str(path), path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise UnusableError(f"cannot read {path}: {error}") from error


def _paths(path: Path) -> list[Path]:
    """Return the file, or those of a folder in the order of their names; not of folders in it, as kubectl."""
    if not path.is_dir():
        return [path]
    found = sorted(entry for entry in path.iterdir() if entry.suffix in _SUFFIXES and entry.is_file())
    if not found:
        raise UnusableError(f"{path} has no file that ends in {', '.join(_SUFFIXES)}")
    return found
