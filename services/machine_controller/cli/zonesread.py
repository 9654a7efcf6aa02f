"""Reading what a vCenter has that zones can be made of.

Invariants: read only; names that are nowhere are an error that says what there is.
Must not know: what a zone is made of, how anything is printed.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from typing import TYPE_CHECKING

from services.machine_controller.cli.zonesite import ClusterSite, DatacenterSite, Site
from services.machine_controller.vsphere.errors import NotFound
from services.machine_controller.zones import autoconfigure

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from services.console import Progress
    from services.machine_controller.vsphere.values import Cluster, Ref
    from services.machine_controller.vsphere.vcenter import VCenter

# What vCenter calls the port group of a switch's uplinks, which is for no machine.
_UPLINKS = re.compile(r"-DVUplinks-\d+$")


async def look(
    vcenter: VCenter,
    server: str,
    progress: Progress,
    *,
    categories: Collection[str],
    datacenters: Iterable[str] = (),
    clusters: Collection[str] = (),
) -> Site:
    """Read a vCenter; names of datacenters and clusters narrow it down. Raises VSphereError."""
    progress.step("reading datacenters")
    inventory = vcenter.inventory
    everything = await inventory.datacenters()
    chosen = {(await inventory.datacenter(name)).ref for name in datacenters}
    found: list[DatacenterSite] = []
    seen: set[str] = set()
    for datacenter in everything:
        if chosen and datacenter.ref not in chosen:
            continue
        progress.step(f"reading {datacenter.path}")
        every = await inventory.clusters(datacenter)
        wanted = [each for each in every if not clusters or {each.name, each.path} & {*clusters}]
        seen |= {text for each in every for text in (each.name, each.path)}
        labels = _labels((each.name, each.path) for each in every)
        sites = await asyncio.gather(*(_cluster(vcenter, each, labels[each.path]) for each in wanted))
        label = _labels((each.name, each.path) for each in everything)[datacenter.path]
        if sites or not clusters:
            found.append(DatacenterSite(datacenter, label, tuple(sites)))
    for name in clusters:
        if name not in seen:
            raise NotFound("cluster", name, nearby=[text for text in seen if "/" not in text])
    carriers: dict[Ref, str] = {}
    progress.step("reading tags")
    for site in found:
        carriers[site.found.ref] = site.found.path
        for each in site.clusters:
            carriers[each.cluster.ref] = each.cluster.path
            carriers |= {host.ref: f"{each.cluster.path}/{host.name}" for host in each.hosts}
    return Site(server, tuple(found), await autoconfigure.read(vcenter.tags, categories, carriers), carriers)


def _labels(named: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the shortest text that names one of several objects, by path."""
    objects = list(named)
    counts = Counter(name for name, _ in objects)
    return {path: name if counts[name] == 1 else path for name, path in objects}


async def _cluster(vcenter: VCenter, cluster: Cluster, label: str) -> ClusterSite:
    hosts, rules, names = await asyncio.gather(
        vcenter.inventory.hosts(cluster.hosts),
        vcenter.rules.read(cluster.ref),
        vcenter.inventory.names((*cluster.datastores, *cluster.networks)),
    )

    def named(references: Iterable[Ref]) -> tuple[str, ...]:
        return tuple(sorted(names[reference].name for reference in references if reference in names))

    networks = tuple(name for name in named(cluster.networks) if not _UPLINKS.search(name))
    return ClusterSite(cluster, label, hosts, rules, named(cluster.datastores), networks)
