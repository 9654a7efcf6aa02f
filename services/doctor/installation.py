"""Checks of what is installed: definitions, services, leaders, rights.

Invariant: pure; nothing is said of what was not read.
Must not know: how it was read, how findings look.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from services.doctor.definitions import differences
from services.doctor.finding import Finding, Level, many, some
from services.doctor.objects import lease_of
from services.doctor.seen import Unread

if TYPE_CHECKING:
    from collections.abc import Iterator

    from services.doctor.seen import Json, Seen, Service

LEASE_AGE = timedelta(seconds=60)
"""A Lease is renewed every two seconds. The clocks of this machine and of the leader's may differ."""
MACHINES_GROUP = "infrastructure.cluster.x-k8s.io"
INSTALL = "helm upgrade with crds.enabled, or: kubectl apply --server-side --force-conflicts -f deploy/crds"


def definitions(seen: Seen) -> Iterator[Finding]:
    """Every definition is there, in use, and as this version has it."""
    if seen.shipped is None:
        yield Finding(
            Level.INFO, "definitions", "", "this installation of the command has no definitions to compare with",
            "run it from a checkout or from the wheel",
        )  # fmt: skip
        return
    machines = any(service.component == "machine-controller" for service in _services(seen))
    good = 0
    for ours in seen.shipped:
        name = ours["metadata"]["name"]
        if ours["spec"]["group"] == MACHINES_GROUP and not machines:
            continue  # CAPV's, where it runs
        theirs = seen.installed.get(name)
        if isinstance(theirs, Unread):
            continue
        found = list(_definition(f"CustomResourceDefinition {name}", ours, theirs))
        good += not found
        yield from found
    if good:
        yield Finding(Level.OK, "definitions", "", f"{many(good, 'definition')} as this version has them")


def _definition(subject: str, ours: Json, theirs: Json | None) -> Iterator[Finding]:
    if theirs is None:
        yield Finding(Level.ERROR, "definitions", subject, "it is not installed", INSTALL)
        return
    status = theirs.get("status") or {}
    conditions = {each["type"]: each for each in status.get("conditions") or ()}
    for wanted in ("NamesAccepted", "Established"):
        condition = conditions.get(wanted) or {}
        if condition.get("status") != "True":
            what = f"it is not {wanted}: {condition.get('message') or 'the API server has not said why'}"
            yield Finding(Level.ERROR, "definitions", subject, what, f"kubectl describe crd {ours['metadata']['name']}")
            return
    found = differences(ours, theirs)
    if found:
        missing = [str(each) for each in found if each.missing]
        shown = some(missing + [str(each) for each in found if not each.missing])
        what = f"it is not this version's: {shown}"
        yield Finding(Level.ERROR if missing else Level.WARNING, "definitions", subject, what, INSTALL)
    versions = {version["name"] for version in theirs["spec"]["versions"]}
    storage = next(version["name"] for version in ours["spec"]["versions"] if version["storage"])
    stored = status.get("storedVersions") or ()
    if lost := [version for version in stored if version not in versions]:
        what = f"objects are stored as {', '.join(lost)}, which it does not have: they cannot be read"
        yield Finding(Level.ERROR, "definitions", subject, what, "put the version back before anything else")
    elif old := [version for version in stored if version != storage]:
        what = f"objects may still be stored as {', '.join(old)}"
        action = "write every object once, then take the version out of status.storedVersions"
        yield Finding(Level.INFO, "definitions", subject, what, action)


def services(seen: Seen) -> Iterator[Finding]:
    """Every Deployment of ours has its pods."""
    if isinstance(seen.services, Unread):
        return
    if not seen.services:
        what = "no Deployment with the label app.kubernetes.io/part-of=groundwork: no service is installed here"
        action = "helm install groundwork deploy/chart --namespace groundwork-system --create-namespace"
        yield Finding(Level.WARNING, "services", "", what, action)
    for service in seen.services:
        look = f"kubectl describe deployment -n {service.namespace} {service.name}"
        said = f": {service.trouble}" if service.trouble else ""
        if service.replicas == 0:
            what, action = "it is scaled to nothing", f"kubectl scale {_scale(service)} --replicas=2"
            yield Finding(Level.WARNING, "services", str(service), what, action)
        elif service.available == 0:
            what = f"none of {service.replicas} pods is available{said}"
            yield Finding(Level.ERROR, "services", str(service), what, look)
        elif service.available < service.replicas:
            what = f"{service.available} of {service.replicas} pods available{said}"
            yield Finding(Level.WARNING, "services", str(service), what, look)
        else:
            yield Finding(
                Level.OK, "services", str(service), f"{service.available} of {many(service.replicas, 'pod')} available"
            )


def leaders(seen: Seen) -> Iterator[Finding]:
    """One process of each service leads."""
    for service in _services(seen):
        if not service.elects:
            continue
        namespace, name = lease_of(service)
        lease = seen.leases.get((namespace, name))
        subject = f"Lease {namespace}/{name}"
        logs = f"kubectl logs -n {service.namespace} deployment/{service.name} --all-pods"
        if isinstance(lease, Unread) or service.replicas == 0 or service.available == 0:
            continue  # said elsewhere
        if lease is None or not lease.holder or lease.renewed is None:
            yield Finding(Level.ERROR, "leaders", subject, f"nobody leads {service}: it does nothing", logs)
        elif seen.now - lease.renewed > LEASE_AGE:
            age = round((seen.now - lease.renewed).total_seconds())
            what = f"{lease.holder} renewed it {age} s ago, by this machine's clock: nobody leads {service}"
            yield Finding(Level.ERROR, "leaders", subject, what, logs)
        else:
            yield Finding(Level.OK, "leaders", subject, f"{lease.holder} leads")


def rights(seen: Seen) -> Iterator[Finding]:
    """Every service may do what it has to."""
    for service in _services(seen):
        denied = seen.denied.get(str(service), ())
        if isinstance(denied, Unread):
            continue
        if denied:
            what = f"ServiceAccount {denied[0].account} may not {some([each.right for each in denied])}"
            action = "helm upgrade with rbac.create, or give the rights of docs/reference/rbac.md"
            yield Finding(Level.ERROR, "rights", str(service), what, action)
        elif str(service) in seen.denied:
            yield Finding(Level.OK, "rights", str(service), "it may do what it has to")


def _services(seen: Seen) -> list[Service]:
    return [] if isinstance(seen.services, Unread) else list(seen.services)


def _scale(service: Service) -> str:
    return f"deployment -n {service.namespace} {service.name}"
