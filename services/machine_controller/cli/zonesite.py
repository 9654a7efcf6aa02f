"""What a vCenter has that zones can be made of: datacenters, clusters, hosts, groups with their rules, and tags.

Responsible for: reading it, and the values that plan and table are made from.
Invariants: read only. Everything is sorted by path or name, so the same vCenter gives the same site.
Must not know: what a zone is made of, how anything is printed.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from services.machine_controller.vsphere.errors import NotFound
from services.machine_controller.vsphere.values import Cluster, ClusterRules, Found, Host, Ref
from services.machine_controller.zones import autoconfigure
from services.machine_controller.zones.tagging import Present

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from services.console import Progress
    from services.machine_controller.vsphere.vcenter import VCenter

_UPLINKS = re.compile(
    r"-DVUplinks-\d+$"
)  # as vCenter calls the port group of a switch's uplinks, which is for no machine


class ClusterSite(NamedTuple):
    """A compute cluster; names of datastores and networks are those that its hosts see.

    `label` names it within its datacenter: the bare name if that is enough, else the path.
    """

    cluster: Cluster
    label: str
    hosts: tuple[Host, ...] = ()
    rules: ClusterRules = ClusterRules({}, {})
    datastores: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()


class DatacenterSite(NamedTuple):
    """A datacenter and its clusters, by path; `label` names it within the vCenter."""

    found: Found
    label: str
    clusters: tuple[ClusterSite, ...] = ()


class Site(NamedTuple):
    """A vCenter. `present` has the tags of the categories that were asked for, `names` paths of what may carry them."""

    server: str
    datacenters: tuple[DatacenterSite, ...] = ()
    present: Present = Present()
    names: Mapping[Ref, str] = MappingProxyType({})

    def tags_of(self, target: Ref, category: str) -> tuple[str, ...]:
        """Names of the tags of a category that an object carries."""
        carried = self.present.attached.get(target, frozenset())
        return tuple(
            sorted(tag.name for (name, _), tag in self.present.tags.items() if name == category and tag.id in carried)
        )


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
