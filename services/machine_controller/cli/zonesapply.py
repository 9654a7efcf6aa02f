"""`groundwork machine zones apply`: a plan's tags made in vCenter, its objects applied, and its zones checked.

Responsible for: reading a plan, asking, the order of the steps, and the report.
Invariants: nothing is changed before the user has seen every change and agreed. Tags come before objects, so that zones
are ready when a controller first looks at them. Run twice, the second time changes nothing.
Must not know: how zones are planned, how a check is made.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlencode

import msgspec
import yaml

from services import access, console, output
from services.console import Progress, UnusableError
from services.machine_controller import api
from services.machine_controller.cli import zonesconnect
from services.machine_controller.zones import autoconfigure, tagging
from services.machine_controller.zones.decide import TAG_CHECKS, decide
from services.machine_controller.zones.observe import observe
from services.machine_controller.zones.selectors import same_server
from services.runtime.kube.errors import ApiError, NotFound
from services.runtime.kube.transport import Client, PatchKind

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Mapping, Sequence

    from services.machine_controller.vsphere.values import Ref
    from services.machine_controller.vsphere.vcenter import VCenter
    from services.machine_controller.zones.decide import Verdict
    from services.machine_controller.zones.tagging import Wanted
    from services.runtime.kube.resource import Resource

_RESOURCES = {resource.kind: resource for resource in (api.VSPHERE_FAILURE_DOMAINS, api.VSPHERE_DEPLOYMENT_ZONES)}
_FIELD_MANAGER = "groundwork-zones"


class Zone(NamedTuple):
    """A zone of the plan with its failure domain."""

    name: str
    spec: api.VSphereDeploymentZoneSpec
    domain: api.VSphereFailureDomainSpec


class Planned(NamedTuple):
    """A plan as it was read: objects in the order in which they are applied, and the zones that they make."""

    objects: tuple[dict[str, Any], ...]
    zones: tuple[Zone, ...]
    server: str


async def run(options: argparse.Namespace) -> int:
    """Do it; returns the exit code."""
    planned = read(_text(options.filename), options.filename)
    given = zonesconnect.server_of(options)
    if options.server and not same_server(given, planned.server):
        raise UnusableError(f"the plan is for {planned.server}, not for {given}")
    with Progress() as progress:
        async with zonesconnect.connect(options, planned.server, progress) as vcenter:
            wanted, names = await _tags_of(vcenter, planned.zones)
            present = await autoconfigure.read(
                vcenter.tags, [want.category for want in wanted], [ref for want in wanted for ref in want.objects]
            )
            conflicts = [conflict.text(names) for conflict in tagging.conflicts(wanted, present)]
            if conflicts:
                raise UnusableError("; ".join(conflicts))
            changes = [change.text(names) for change in tagging.plan(wanted, present)]
            for line in changes:
                print(f"would {line}")
            progress.step("comparing objects")
            # Before the tags: an object that the cluster refuses must not be found out after half of the work.
            different = await _apply(options, planned.objects, dry_run=True) if options.objects else 0
            if (changes or different) and not options.dry_run:
                _ask(options, progress, _question(len(changes), planned.server, different))
                progress.step("setting up tags")
                await autoconfigure.carry_out(vcenter.tags, wanted, names)
                progress.step("applying objects")
                if different:
                    await _apply(options, planned.objects, dry_run=False)
            progress.step("checking the zones")
            verdicts = {zone.name: await _check(vcenter, zone, as_if_tagged=options.dry_run) for zone in planned.zones}
    ready = "would be ready" if options.dry_run and changes else "ready"
    rows = [
        [name, ready if verdict.ready else "not ready", verdict.reason, verdict.message]
        for name, verdict in verdicts.items()
    ]
    print(output.table(("ZONE", "STATE", "REASON", "MESSAGE"), rows), end="")
    if options.dry_run:
        sys.stderr.write("dry run: nothing was changed\n")
    return console.OK if all(verdict.ready for verdict in verdicts.values()) else console.FOUND


# -- reading -------------------------------------------------------------------------------------------------------


def read(text: str, where: str) -> Planned:
    """Read a plan; UnusableError when it is not one."""
    try:
        documents = [document for document in yaml.safe_load_all(text) if document is not None]
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date that there is not
        raise UnusableError(f"{where} is no YAML: {error}") from None
    objects = [item for document in documents for item in _items(document)]
    domains: dict[str, api.VSphereFailureDomainSpec] = {}
    specs: dict[str, api.VSphereDeploymentZoneSpec] = {}
    for obj in objects:
        kind, name = _identity(obj, where)
        if name in (domains if kind == api.VSPHERE_FAILURE_DOMAINS.kind else specs):
            raise UnusableError(f"{where} has two of {kind} {name}")
        try:
            if kind == api.VSPHERE_FAILURE_DOMAINS.kind:
                domains[name] = msgspec.convert(obj.get("spec"), api.VSphereFailureDomainSpec)
            else:
                specs[name] = msgspec.convert(obj.get("spec"), api.VSphereDeploymentZoneSpec)
        except msgspec.ValidationError as error:
            raise UnusableError(f"{kind} {name} in {where}: {error}") from None
    zones: list[Zone] = []
    for name, spec in specs.items():
        if spec.failure_domain not in domains:
            raise UnusableError(f"{where} has no VSphereFailureDomain {spec.failure_domain!r}, which zone {name} names")
        zones.append(Zone(name, spec, domains[spec.failure_domain]))
    servers = {zone.spec.server for zone in zones}
    if len(servers) != 1 or not all(servers):
        raise UnusableError(f"{where} has to have zones of one vCenter, and has {', '.join(sorted(servers)) or 'none'}")
    ordered = sorted(objects, key=lambda obj: list(_RESOURCES).index(obj["kind"]))
    return Planned(tuple(ordered), tuple(zones), servers.pop())


def _items(document: Any) -> Iterable[Any]:
    """Return the objects of a document: a plan as JSON and a List have them in `items`."""
    return document["items"] if isinstance(document, dict) and isinstance(document.get("items"), list) else (document,)


def _identity(obj: Any, where: str) -> tuple[str, str]:
    kind = obj.get("kind") if isinstance(obj, dict) else None
    if kind not in _RESOURCES:
        raise UnusableError(f"{where} has an object that is neither of {', '.join(_RESOURCES)}")
    if obj.get("apiVersion") != f"{api.GROUP}/{api.VERSION}":
        raise UnusableError(f"{where} has a {kind} that is not of {api.GROUP}/{api.VERSION}")
    meta = obj.get("metadata")
    name = meta.get("name") if isinstance(meta, dict) else None
    if not isinstance(name, str) or not name:
        raise UnusableError(f"{where} has a {kind} without a name")
    return str(kind), name


def _text(filename: str) -> str:
    try:
        return sys.stdin.read() if filename == "-" else Path(filename).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise UnusableError(f"cannot read {filename}: {reason}") from None


def _question(changes: int, server: str, objects: int) -> str:
    parts = [f"make these {changes} changes in vCenter {server}"] if changes else []
    if objects:
        parts.append(f"apply {objects} objects to the cluster")
    text = " and ".join(parts)
    return f"{text[0].upper()}{text[1:]}?"


def _ask(options: argparse.Namespace, progress: Progress, question: str) -> None:
    if options.yes:
        return
    if not sys.stdin.isatty():
        raise UnusableError("nobody to ask: give --yes, or --dry-run to see what would be done")
    with progress.quiet():
        sys.stderr.write(f"{question} [y/N] ")
        sys.stderr.flush()
        answer = sys.stdin.readline()
    if answer.strip().lower() not in {"y", "yes"}:
        raise UnusableError("nothing was changed")


# -- vCenter -------------------------------------------------------------------------------------------------------


async def _tags_of(vcenter: VCenter, zones: Sequence[Zone]) -> tuple[tuple[Wanted, ...], Mapping[Ref, str]]:
    """Return the tags that the zones want, on what is there of them, and the names of that."""
    wanted: dict[Wanted, None] = {}
    for zone in zones:
        look = await observe(vcenter, zone.domain, zone.spec.placement_constraint)
        wanted |= dict.fromkeys(look.wanted)
    found = await vcenter.inventory.names(target for want in wanted for target in want.objects)
    return tuple(wanted), {target: each.path for target, each in found.items()}


async def _check(vcenter: VCenter, zone: Zone, *, as_if_tagged: bool) -> Verdict:
    """Look at a zone; `as_if_tagged` after the changes that were not made."""
    look = await observe(vcenter, zone.domain, zone.spec.placement_constraint)
    if not as_if_tagged or not look.wanted or not all(want.objects for want in look.wanted):
        return decide(look.observation)
    problems = {check: text for check, text in look.observation.problems.items() if check not in TAG_CHECKS}
    return decide(look.observation._replace(problems=problems))


# -- the cluster ---------------------------------------------------------------------------------------------------


async def _apply(options: argparse.Namespace, objects: Sequence[Mapping[str, Any]], *, dry_run: bool) -> int:
    """Apply objects, or let the server say what would come of it; returns how many are not as they should be."""
    different = 0
    connection = await access.connect(options)
    async with Client(connection, user_agent=_FIELD_MANAGER) as client:
        for obj in objects:
            resource = _RESOURCES[obj["kind"]]
            name = obj["metadata"]["name"]
            before = await _present(client, resource, name)
            after = await _send(client, resource, obj, dry_run=dry_run)
            if _substance(before) != _substance(after):
                different += 1
                done = "change" if before else "create"
                print(f"would {done} {resource.kind} {name}" if dry_run else f"{done}d {resource.kind} {name}")
            elif dry_run:
                print(f"{resource.kind} {name} is as it should be")
    return different


async def _present(client: Client, resource: Resource, name: str) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = json.loads(await client.raw("GET", resource.path("", name)))
    except NotFound:
        return {}
    return answer


def _substance(obj: Mapping[str, Any]) -> tuple[Any, ...]:
    """What makes a difference; a dry run has no resourceVersion to tell by."""
    meta = obj.get("metadata", {})
    return obj.get("spec"), meta.get("labels"), meta.get("annotations")


async def _send(client: Client, resource: Resource, obj: Mapping[str, Any], *, dry_run: bool) -> dict[str, Any]:
    """Apply one object on the server's side and return it."""
    name = obj["metadata"]["name"]
    query = urlencode({"fieldManager": _FIELD_MANAGER, "force": "false"} | ({"dryRun": "All"} if dry_run else {}))
    try:
        answer: dict[str, Any] = json.loads(
            await client.raw(
                "PATCH",
                f"{resource.path('', name)}?{query}",
                body=json.dumps(obj).encode(),
                headers={"Content-Type": PatchKind.APPLY.value},
            )
        )
    except ApiError as error:
        fixed = "cannot be modified" in error.message
        hint = ": delete it with its zone first, or plan with --name-prefix" if fixed else ""
        raise UnusableError(f"the cluster refuses {resource.kind} {name}: {error.message}{hint}") from None
    return answer
