"""What a vCenter has that zones can be made of: datacenters, clusters, hosts, groups with their rules, and tags.

Responsible for: the values that plan and table are made from.
Invariants: everything is sorted by path or name, so the same vCenter gives the same site.
Must not know: how it is read, what a zone is made of, how anything is printed.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from services.machine_controller.vsphere.values import Cluster, ClusterRules, Found, Host, Ref
from services.machine_controller.zones.tagging import Present

if TYPE_CHECKING:
    from collections.abc import Mapping


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
