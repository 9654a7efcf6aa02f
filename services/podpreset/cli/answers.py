"""What the commands of `groundwork podpreset` do: read, hand over to the pure modules, print.

Invariants: nothing is ever written to the cluster, and without `--live` none is needed (but for `stale`). stdout has
the answer, stderr what is to be said about it. Credentials are shown only with `--show-credentials`.
Must not know: how anything is computed or looks.
"""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

from services import console, output
from services.console import UnusableError
from services.podpreset.cli import convert as conversion
from services.podpreset.cli import inputs, policy, redact, routes, tables, whatif
from services.podpreset.cli import lint as rules
from services.podpreset.cli import stale as drift
from services.podpreset.cli.documents import DEFAULT_NAMESPACE
from services.podpreset.cli.lint import Severity
from services.podpreset.cli.workloads import NoPodError
from services.podpreset.compiled import compile_preset
from services.proxyenv.clients import Client
from services.proxyenv.complete import complete

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from services.podpreset.cli.documents import Documents
    from services.podpreset.cli.inputs import Inputs
    from services.podpreset.cli.whatif import Admitted
    from services.podpreset.cli.workloads import Workload
    from services.podpreset.world import World

UNTOUCHED = ("kube-node-lease", "groundwork-system")
"""Namespaces that the webhook leaves alone, besides kube-system, as it is deployed."""


def _note(text: str) -> None:
    sys.stderr.write(f"{text}\n")


# -- what is asked about -------------------------------------------------------------------------------------------


def _read(options: argparse.Namespace) -> Documents:
    if not options.filename and not options.live:
        raise UnusableError("nothing to look at: give -f FILE, or --live for a running cluster")
    return inputs.read_documents(options.filename, options.namespace or DEFAULT_NAMESPACE)


def _world(given: Inputs, options: argparse.Namespace) -> World:
    untouched = UNTOUCHED if options.untouched_namespace is None else options.untouched_namespace
    return whatif.world(given.presets, given.namespaces, given.facts, untouched)


async def _what_if(options: argparse.Namespace) -> tuple[World, list[Admitted]]:
    """Decide about the pods of the files."""
    read = _read(options)
    if not read.workloads:
        raise UnusableError("no pod and no workload in what was read: give some with -f")
    _, given = await inputs.gather(options, read)
    if not given.presets and not options.live:
        raise UnusableError("no preset in what was read: give some with -f, or --live for those of a running cluster")
    world = _world(given, options)
    admitted = [_admit(workload, world) for workload in given.workloads]
    _tell_unknown(given)
    return world, admitted


def _tell_unknown(given: Inputs) -> None:
    """Say which entries the webhook would add and this command cannot, since it has not been told of the cluster."""
    wanted = dict.fromkeys(name for obj in given.presets for name in compile_preset(obj).include)
    for name in complete(tuple(wanted), given.facts).missing:
        _note(f"note: noProxy.include {name} is left out, since nothing is known of it: give --{name}, or --live")


def _admit(workload: Workload, world: World) -> Admitted:
    try:
        return whatif.admit(workload, world)
    except NoPodError as error:
        raise UnusableError(str(error)) from error


def _show(options: argparse.Namespace) -> tables.Show:
    return tables.Show(credentials=options.show_credentials)


def _code(found: object) -> int:
    return console.FOUND if found else console.OK


def _print_objects(objects: Sequence[Any], form: str, comments: Sequence[Sequence[str]] = ()) -> None:
    """Print objects as a YAML stream, each with its comments before it, or as JSON."""
    if form == "json":
        whole = objects[0] if len(objects) == 1 else {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        print(output.structured(whole, form), end="")
        return
    for place, obj in enumerate(objects):
        lines = [f"# {line}\n" for line in (comments[place] if comments else ())]
        print("---\n" if place else "", *lines, output.structured(obj, form), sep="", end="")


# -- the commands --------------------------------------------------------------------------------------------------


async def render(options: argparse.Namespace) -> int:
    """Show pods as they would be."""
    _, admitted = await _what_if(options)
    show = _show(options)
    kept = [item for item in admitted if item.decision.allowed]
    shown = [show.pod(item.pod) for item in kept]
    _print_objects(shown, options.output)
    for item in admitted:
        if item.decision.message:
            _note(f"{item.workload} would be refused: {item.decision.message}")
        for text in item.decision.warnings:
            _note(f"warning: {item.workload}: {text}")
    if any(pod != item.pod for pod, item in zip(shown, kept, strict=True)):
        _note(f"{redact.HIDDEN} stands for credentials: --show-credentials shows them")
    return _code(len(kept) < len(admitted))


async def explain(options: argparse.Namespace) -> int:
    """Show what each container gets, and from whom."""
    world, admitted = await _what_if(options)
    show = _show(options)
    told = [(item, list(whatif.passed(item, world))) for item in admitted]
    if options.output == "table":
        print("\n".join(tables.explained(item, passed, show) for item, passed in told), end="")
    else:
        data = [tables.explained_data(item, passed, show) for item, passed in told]
        print(output.structured(data, options.output), end="")
    return _code([item for item in admitted if not item.decision.allowed])


async def diff(options: argparse.Namespace) -> int:
    """Show what presets change."""
    read = _read(options)
    before, after = await inputs.gather(options, read)
    workloads = after.workloads
    if not workloads and options.live:
        async with inputs.cluster(options, [options.namespace] if options.namespace else ()) as cluster:
            workloads = (await cluster.templates()).workloads
    if not workloads:
        raise UnusableError("no pod and no workload in what was read: give some with -f, or --live for all there are")
    _tell_unknown(after)
    compares = bool(options.live and read.presets)
    old_world, new_world = _world(before, options), _world(after, options)
    labels = ("now", "with the files") if compares else ("as it is written", "with presets")
    found = False
    for workload in workloads:
        old = _admit(workload, old_world).pod if compares else workload.pod
        text = tables.diff(str(workload), old, _admit(workload, new_world).pod, labels, _show(options))
        found = found or bool(text)
        print(text, end="")
    return _code(found)


async def lint(options: argparse.Namespace) -> int:
    """Show findings, or the ways of requests to one host."""
    clients = [client for client in Client if not options.client or client.lower() in options.client]
    if options.no_proxy is not None and not options.filename and not options.live:
        given = inputs.Inputs([], [], [], inputs.given_facts(options))
    else:
        _, given = await inputs.gather(options, _read(options))
    workloads = given.workloads
    if options.live and options.workloads:
        async with inputs.cluster(options, [options.namespace] if options.namespace else ()) as cluster:
            workloads = [*workloads, *(await cluster.templates()).workloads]
    if options.host is not None:
        return _lint_host(options, given, workloads, clients)
    found = rules.lint(given.presets, workloads, clients)
    if options.no_proxy is not None:
        found += rules.lint_list(options.no_proxy, "--no-proxy", clients)
    found = [item for item in found if item.rule not in options.ignore]
    counts = Counter(item.severity for item in found)
    if options.output == "table":
        looked = f"looked at {len(given.presets)} presets and {len(workloads)} pods and workloads"
        counted = ", ".join(f"{severity}s {counts[severity]}" for severity in Severity)
        print(tables.findings(found, f"{looked}: {counted}"), end="")
    else:
        print(output.structured([tables.finding_data(item) for item in found], options.output), end="")
    return _code(counts[Severity.ERROR] + counts[Severity.WARNING])


def _lint_host(
    options: argparse.Namespace, given: Inputs, workloads: Sequence[Workload], clients: Sequence[Client]
) -> int:
    rows: dict[str, routes.Ways] = {}
    if options.no_proxy is not None:
        rows["--no-proxy"] = routes.of_list(options.no_proxy, options.host, clients)
    world = _world(given, options)
    for workload in workloads:
        rows.update(routes.of_containers(_admit(workload, world), options.host, clients))
    if not workloads:
        for obj in given.presets:
            rows.update(routes.of_preset(compile_preset(obj), given.facts, options.host, clients))
    if not rows:
        raise UnusableError("no NO_PROXY in what was read: give pods, presets that set it, or --no-proxy LIST")
    if options.output == "table":
        print(tables.ways(rows, clients), end="")
    else:
        data = [
            {"where": where, "clients": {c.value: v.value for c, v in ways.items()}} for where, ways in rows.items()
        ]
        print(output.structured(data, options.output), end="")
    return _code(routes.disagree(rows.values()))


async def convert(options: argparse.Namespace) -> int:
    """Write presets of other projects as ours."""
    if not options.filename:
        raise UnusableError("nothing to convert: give -f FILE")
    made: list[conversion.Converted] = []
    others: Counter[str] = Counter()
    for _, obj in inputs.read_objects(options.filename):
        if conversion.convertible(obj):
            made.append(conversion.convert(obj))
        else:
            others[str(obj["kind"])] += 1
    if not made:
        raise UnusableError(f"nothing to convert in what was read: expected {', '.join(conversion.KNOWN)}")
    comments = [
        [
            f"from {item.source}",
            *(f"not carried: {text}" for text in item.lost),
            *(f"note: {text}" for text in item.remarks),
        ]
        for item in made
    ]
    _print_objects([item.obj for item in made], options.output, comments)
    for item in made:
        for text in item.lost:
            _note(f"{item.source}: not carried: {text}")
        for text in item.remarks:
            _note(f"{item.source}: note: {text}")
    for kind, count in sorted(others.items()):
        _note(f"passed over: {count} {kind}")
    return _code([item for item in made if item.lost])


async def stale(options: argparse.Namespace) -> int:
    """Show workloads whose pods are behind."""
    given = inputs.given_facts(options)
    async with inputs.cluster(options, options.namespace) as cluster:
        running = await cluster.pods()
        templates = await cluster.templates()
        everything = inputs.Inputs(await cluster.presets(), await cluster.namespaces(), [], given)
    workloads = {(item.kind, item.namespace, item.name): item for item in templates.workloads}
    rows = drift.stale(running, workloads, templates.parents, _world(everything, options))
    if options.output in {"json", "yaml"}:
        print(output.structured([tables.stale_data(row) for row in rows], options.output), end="")
    elif options.output == "name":
        print(output.names(map(tables.stale_name, rows)), end="")
    elif rows:
        print(tables.stale(rows, wide=options.output == "wide"), end="")
    else:
        _note(f"none of {len(running)} pods is stale")
    return _code(rows)


async def export(options: argparse.Namespace) -> int:
    """Write presets as policies."""
    _, given = await inputs.gather(options, _read(options))
    presets = [compile_preset(obj) for obj in given.presets]
    chosen = [preset for preset in presets if not options.preset or preset.key.name in options.preset]
    if not chosen:
        raise UnusableError("no such preset in what was read")
    objects: list[Any] = []
    comments: list[list[str]] = []
    refused = False
    for preset in chosen:
        made = policy.export(preset, presets, given.facts)
        refused = refused or bool(made.reasons)
        for reason in made.reasons:
            _note(f"{preset.key} cannot be a policy: {reason}")
        for obj in made.objects:
            objects.append(obj)
            comments.append(list(policy.COMMENT) if obj["kind"] == policy.KIND else [])
    _print_objects(objects, options.output, comments)
    return _code(refused)
