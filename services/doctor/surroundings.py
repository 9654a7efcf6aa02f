"""Checks of what is around us: API server, Cluster API, other providers, pods, and what we may read ourselves.

Invariant: pure; nothing is said of what was not read.
Must not know: how it was read, how findings look.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from services.doctor.finding import Finding, Level, many, some
from services.doctor.seen import Unread, Why
from services.podpreset.cli.stale import Reason

if TYPE_CHECKING:
    from collections.abc import Iterator

    from services.doctor.seen import Json, Provider, Seen, Service

OLDEST = (1, 31)
"""The first with the CEL library for IP addresses, which our definitions use."""
NEWEST_TESTED = (1, 36)
CONTRACTS = ("v1beta2", "v1beta1")
"""Contracts of Cluster API that we speak."""
METAL3 = "ipam-metal3"
CAPV = "infrastructure-vsphere"
_CONTRACT_LABEL = re.compile(r"cluster\.x-k8s\.io/(v\d\w*)")
_RELEASE = re.compile(r"v?(\d+)\.(\d+)")
_PURPOSES = {
    "clusters.cluster.x-k8s.io": "Cluster API",
    "ipaddressclaims.ipam.cluster.x-k8s.io": "Cluster API's addresses",
    "vspheremachines.infrastructure.cluster.x-k8s.io": "machines on vSphere",
}


def apiserver(seen: Seen) -> Iterator[Finding]:
    """The API server is of a version that we know."""
    if isinstance(seen.version, Unread):
        return
    found = _RELEASE.match(seen.version)
    release = (int(found[1]), int(found[2])) if found else (0, 0)
    if not found:
        yield Finding(Level.INFO, "apiserver", "", f"the API server is {seen.version}, whatever that is")
    elif release < OLDEST:
        what = f"the API server is {seen.version}: our definitions need {_text(OLDEST)} or newer"
        yield Finding(Level.ERROR, "apiserver", "", what, "upgrade the cluster")
    elif release > NEWEST_TESTED:
        what = f"the API server is {seen.version}, newer than {_text(NEWEST_TESTED)}, with which this version is tested"
        yield Finding(Level.INFO, "apiserver", "", what)
    else:
        yield Finding(Level.OK, "apiserver", "", f"the API server is {seen.version}")


def _text(release: tuple[int, int]) -> str:
    return f"{release[0]}.{release[1]}"


def capi(seen: Seen) -> Iterator[Finding]:
    """Cluster API and CAPV speak a contract that we do."""
    for name, purpose in _PURPOSES.items():
        definition = seen.installed.get(name)
        if isinstance(definition, Unread) or name not in seen.installed:
            continue
        subject = f"CustomResourceDefinition {name}"
        if definition is None:
            yield from _absent(seen, subject, purpose, name)
            continue
        served = [version["name"] for version in definition["spec"]["versions"] if version["served"]]
        spoken = sorted(_contracts(definition), reverse=True)
        said = f"{purpose}: served as {', '.join(served)}"
        said += f", contract {', '.join(spoken)}" if spoken else ""
        if not set(served) & set(CONTRACTS):
            what = f"{said}: this version needs {' or '.join(CONTRACTS)}"
            yield Finding(Level.ERROR, "capi", subject, what, "upgrade Cluster API, or use another version of this")
        else:
            yield Finding(Level.OK, "capi", subject, said)
    if isinstance(seen.providers, Unread):
        return
    for provider in sorted(seen.providers):
        if not _ours(provider, seen):
            what = f"{provider.label} {_tag(provider)}".rstrip()
            level = Level.OK if provider.available else Level.WARNING
            what += "" if provider.available else ": no pod is available"
            look = "" if provider.available else f"kubectl describe deployment -n {provider.namespace} {provider.name}"
            yield Finding(level, "capi", str(provider), what, look)


def _absent(seen: Seen, subject: str, purpose: str, name: str) -> Iterator[Finding]:
    wanting = "capv-integrator" if name.startswith("vspheremachines.") else ""
    if wanting and wanting in {service.component for service in _services(seen)}:
        what = f"{purpose}: not installed, so {wanting} has nothing to do"
        yield Finding(Level.WARNING, "capi", subject, what, "clusterctl init --infrastructure vsphere")
    else:
        yield Finding(Level.INFO, "capi", subject, f"{purpose}: not installed")


def _contracts(definition: Json) -> set[str]:
    found = (_CONTRACT_LABEL.fullmatch(label) for label in definition["metadata"].get("labels") or ())
    return {match[1] for match in found if match}


def _tag(provider: Provider) -> str:
    image = provider.image.partition("@")[0].rpartition("/")[2]
    return image.partition(":")[2]


def providers(seen: Seen) -> Iterator[Finding]:
    """Nobody else gives the addresses of our pools, or makes our machines."""
    found = False
    allocators = [service for service in _services(seen) if service.component == "ipam" and service.replicas]
    if len(allocators) > 1:
        found = True
        both = ", ".join(map(str, allocators))
        what = f"several allocators serve the same pools and write over each other's status: {both}"
        action = f"kubectl scale deployment -n {allocators[1].namespace} {allocators[1].name} --replicas=0"
        yield Finding(Level.ERROR, "providers", str(allocators[0]), what, action)
    others = () if isinstance(seen.providers, Unread) else seen.providers
    machines = [service for service in _services(seen) if service.component == "machine-controller"]
    for provider in others:
        if _ours(provider, seen):
            continue
        stop = f"kubectl scale deployment -n {provider.namespace} {provider.name} --replicas=0"
        if provider.label == METAL3 or "ip-address-manager" in provider.image:
            found = True
            if provider.available:
                what = "metal3's allocator serves the pools of ipam.metal3.io too: addresses can be given twice"
                action = f"{stop}; docs/tasks/move-from-metal3.md"
                yield Finding(Level.ERROR, "providers", str(provider), what, action)
            else:
                yield Finding(Level.INFO, "providers", str(provider), "metal3's allocator is installed and stopped")
        elif provider.label == CAPV and machines and provider.available:
            found = True
            what = f"CAPV runs: {machines[0]} stands back while it does"
            yield Finding(Level.WARNING, "providers", str(provider), what, f"run one of them: {stop}")
    if not found and not isinstance(seen.providers, Unread):
        yield Finding(Level.OK, "providers", "", "nobody else serves the same objects")


def presets(seen: Seen) -> Iterator[Finding]:
    """Pods have what presets say now."""
    if isinstance(seen.stale, Unread):
        return
    counts: Counter[Reason] = Counter()
    spaces: dict[Reason, dict[str, None]] = {reason: {} for reason in Reason}
    for row in seen.stale.rows:
        counts[row.reason] += len(row.stale)
        spaces[row.reason][row.namespace] = None
    texts = {
        Reason.OLDER: "run with an earlier state of presets",
        Reason.WITHOUT: "run without what presets give",
        Reason.SURPLUS: "run with what no preset gives any more",
        Reason.REFUSED: "would be refused if they were created now",
    }
    for reason, count in sorted(counts.items()):
        names = list(spaces[reason])
        pods = f"{count} of {many(seen.stale.pods, 'pod')}"
        only = f" -n {names[0]}" if len(names) == 1 else ""
        yield Finding(
            Level.ERROR if reason is Reason.REFUSED else Level.WARNING,
            "presets",
            f"Namespace {some(names)}",
            f"{pods} {texts[reason]}",
            f"groundwork podpreset stale{only}, then kubectl rollout restart",
        )
    if not counts:
        yield Finding(
            Level.OK, "presets", "", f"{many(seen.stale.pods, 'pod')}, none with anything else than presets say"
        )


def access(seen: Seen) -> Iterator[Finding]:
    """Everything could be read."""
    for unread in sorted(seen.unread):
        match unread.why:
            case Why.FORBIDDEN:
                level, what = Level.WARNING, f"not permitted, so not checked: {unread.message}"
                action = "ask for the right, or --skip what needs it"
            case Why.TOO_MANY:
                level, what = Level.INFO, f"not read: {unread.message}"
                action = "give a higher --limit, or run groundwork ipam verify, which reads everything"
            case _:
                level, what, action = Level.WARNING, f"cannot be read: {unread.message}", "try again"
        yield Finding(level, "access", unread.what, what, action)


def _services(seen: Seen) -> list[Service]:
    return [] if isinstance(seen.services, Unread) else list(seen.services)


def _ours(provider: Provider, seen: Seen) -> bool:
    return (provider.namespace, provider.name) in {(each.namespace, each.name) for each in _services(seen)}
