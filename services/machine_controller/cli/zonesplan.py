"""From what a vCenter has to VSphereFailureDomains and VSphereDeploymentZones: a pure function.

Responsible for: which zones there are at a level, their names, their tags, where machines are placed, and the remarks
about what an administrator has to decide.
Invariants: the same site and choice give the same objects, byte for byte. A tag that an object carries already is used
by its own name. Objects are what Cluster API's vSphere provider accepts: what it needs to place machines in a cluster
is written out, although it could be derived.
Must not know: vCenter's API, Kubernetes' API.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from services.machine_controller import api
from services.machine_controller.zones import tagging
from services.machine_controller.zones.tagging import COMPUTE_CLUSTER, DATACENTER, HOST_GROUP, Wanted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from services.machine_controller.cli.zonesite import ClusterSite, DatacenterSite, Site
    from services.machine_controller.vsphere.values import AffinityRule, Ref

LEVELS = ("cluster", "hosts", "datacenter")
REGION_CATEGORY = "k8s-region"
ZONE_CATEGORY = "k8s-zone"
_NAME_LIMIT = 63
_HASH = 6
_LISTED = 8


class Choice(NamedTuple):
    """What a user may choose."""

    by: str = "cluster"
    region: str = ""
    region_category: str = REGION_CATEGORY
    zone_category: str = ZONE_CATEGORY
    datastore: str = ""
    networks: tuple[str, ...] = ()
    folder: str = ""
    resource_pool: str = ""
    name_prefix: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    control_plane: bool = True
    auto_configure: bool = False


class Plan(NamedTuple):
    """Objects as plain data in the order in which they are applied, the tags that they need, and remarks."""

    objects: tuple[dict[str, Any], ...] = ()
    wanted: tuple[Wanted, ...] = ()
    remarks: tuple[str, ...] = ()


class _Place(NamedTuple):
    """One zone to be: what it is made of."""

    datacenter: DatacenterSite
    cluster: ClusterSite | None = None
    rule: AffinityRule | None = None
    whole: bool = False  # the zone is the datacenter, whether or not there is but one cluster to place machines in

    @property
    def hosts(self) -> tuple[Ref, ...]:
        if self.cluster is None or self.rule is None:
            return ()
        return self.cluster.rules.host_groups.get(self.rule.host_group, ())

    @property
    def path(self) -> str:
        if self.cluster is None or self.whole:
            return self.datacenter.found.path
        path = self.cluster.cluster.path
        return f"{path} host group {self.rule.host_group}" if self.rule is not None else path

    @property
    def words(self) -> str:
        """What a name is made from: a cluster that is named after its datacenter does not repeat it."""
        datacenter = slug(self.datacenter.found.name)
        if self.cluster is None or self.whole:
            return datacenter
        cluster = slug(self.cluster.cluster.name)
        parts = [cluster if cluster.startswith(f"{datacenter}-") else f"{datacenter}-{cluster}"]
        if self.rule is not None:
            parts.append(slug(self.rule.host_group))
        return "-".join(parts)


def make(site: Site, choice: Choice) -> Plan:
    """Plan the zones of a site."""
    remarks: list[str] = []
    places = [place for datacenter in site.datacenters for place in _places(datacenter, choice, remarks)]
    names = _names([(place.words, place.path) for place in places], choice.name_prefix)
    regions = _region_names(site, places, choice, remarks)
    objects: list[dict[str, Any]] = []
    wanted: list[Wanted] = []
    for place, name in zip(places, names, strict=True):
        region = api.TagTarget(regions[_region_carrier(place, choice)], _region_type(choice), choice.region_category)
        zone_type = _zone_type(choice)
        zone = tagging.wanted(api.TagTarget(name, zone_type, choice.zone_category), *_carriers(place))
        zone = zone._replace(tag=_carried(site, zone, remarks) or name)
        wanted += [tagging.wanted(region, *_carriers(place)), zone]
        topology = _topology(place, choice, remarks)
        meta: dict[str, Any] = {"name": name}
        domain_meta = (
            {**meta, "annotations": {api.AUTO_CONFIGURE_ANNOTATION: "true"}} if choice.auto_configure else meta
        )
        domain_spec = {
            "region": {"name": region.name, "type": region.type, "tagCategory": region.tag_category},
            "zone": {"name": zone.tag, "type": zone_type, "tagCategory": zone.category},
            "topology": topology,
        }
        zone_meta = {**meta, "labels": dict(choice.labels)} if choice.labels else meta
        zone_spec: dict[str, Any] = {
            "server": site.server,
            "failureDomain": name,
            "controlPlane": choice.control_plane,
        }
        if constraint := _constraint(place, choice):
            zone_spec["placementConstraint"] = constraint
        objects += [
            _manifest(api.VSPHERE_FAILURE_DOMAINS.kind, domain_meta, domain_spec),
            _manifest(api.VSPHERE_DEPLOYMENT_ZONES.kind, zone_meta, zone_spec),
        ]
    return Plan(tuple(objects), tuple(dict.fromkeys(wanted)), tuple(dict.fromkeys(remarks)))


def slug(text: str) -> str:
    """Return a name as Kubernetes allows it for objects and label values; "x" when nothing of it is left."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:_NAME_LIMIT].rstrip("-") or "x"


# -- which zones ---------------------------------------------------------------------------------------------------


def _places(datacenter: DatacenterSite, choice: Choice, remarks: list[str]) -> Iterable[_Place]:
    if choice.by == "datacenter":
        only = datacenter.clusters[0] if len(datacenter.clusters) == 1 else None
        if only is None and datacenter.clusters:
            remarks.append(
                f"{datacenter.found.path} has {len(datacenter.clusters)} clusters: resourcePool and datastore of the "
                "machines decide which is used"
            )
        return [_Place(datacenter, only, whole=True)]
    if not datacenter.clusters:
        remarks.append(f"{datacenter.found.path} has no cluster, so it gives no zone")
    if choice.by == "cluster":
        return [_Place(datacenter, cluster) for cluster in datacenter.clusters]
    found: list[_Place] = []
    for cluster in datacenter.clusters:
        rules = [rule for rule in cluster.rules.rules if rule.vm_group and rule.host_group]
        if not rules:
            remarks.append(f"{cluster.cluster.path} has no VM-host rule, so it gives no zone of hosts")
        chosen: dict[str, AffinityRule] = {}
        for rule in sorted(rules, key=lambda rule: (rule.host_group, not rule.enabled, rule.vm_group)):
            first = chosen.setdefault(rule.host_group, rule)
            if first is not rule:
                remarks.append(
                    f"VM-host rule {rule.name} of {cluster.cluster.path} is for host group {rule.host_group} too: "
                    f"its zone is that of rule {first.name}"
                )
                continue
            if not cluster.rules.host_groups.get(rule.host_group):
                remarks.append(f"host group {rule.host_group} of {cluster.cluster.path} has no hosts")
            if not rule.enabled:
                remarks.append(f"VM-host rule {rule.name} of {cluster.cluster.path} is disabled")
            found.append(_Place(datacenter, cluster, rule))
    return found


def _names(words: Sequence[tuple[str, str]], prefix: str) -> list[str]:
    """Names of zones; what would be called alike is told apart by a hash of its path."""
    plain = [slug(f"{prefix}-{each}" if prefix else each) for each, _ in words]
    counts = Counter(plain)
    return [
        name if counts[name] == 1 else f"{name[: _NAME_LIMIT - _HASH - 1]}-{_hash(path)}"
        for name, (_, path) in zip(plain, words, strict=True)
    ]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_HASH]


# -- tags ----------------------------------------------------------------------------------------------------------


def _region_type(choice: Choice) -> str:
    return COMPUTE_CLUSTER if choice.by == "hosts" else DATACENTER


def _zone_type(choice: Choice) -> str:
    return {"cluster": COMPUTE_CLUSTER, "hosts": HOST_GROUP, "datacenter": DATACENTER}[choice.by]


def _carriers(place: _Place) -> tuple[Ref, Ref | None, tuple[Ref, ...]]:
    cluster = place.cluster.cluster.ref if place.cluster is not None else None
    return place.datacenter.found.ref, cluster, place.hosts


def _region_carrier(place: _Place, choice: Choice) -> Ref:
    if _region_type(choice) == COMPUTE_CLUSTER and place.cluster is not None:
        return place.cluster.cluster.ref
    return place.datacenter.found.ref


def _region_names(site: Site, places: Iterable[_Place], choice: Choice, remarks: list[str]) -> Mapping[Ref, str]:
    """Name of the region tag of each object that carries one."""
    carriers: dict[Ref, tuple[str, str]] = {}
    for place in places:
        if _region_type(choice) == COMPUTE_CLUSTER and place.cluster is not None:
            of = _Place(place.datacenter, place.cluster)
            carriers[place.cluster.cluster.ref] = (of.words, of.path)
        else:
            carriers[place.datacenter.found.ref] = (slug(place.datacenter.found.name), place.datacenter.found.path)
    names = _names(list(carriers.values()), "")
    found: dict[Ref, str] = {}
    for target, name in zip(carriers, names, strict=True):
        want = Wanted(choice.region_category, name, _region_type(choice), (target,))
        found[target] = choice.region or _carried(site, want, remarks) or name
    return found


def _carried(site: Site, want: Wanted, remarks: list[str]) -> str:
    """Name of the tag of a category that all of its objects carry already; "" when they carry none."""
    each = [site.tags_of(target, want.category) for target in want.objects]
    common = set(each[0]).intersection(*each[1:]) if each else set()
    if len(common) > 1:
        where = ", ".join(site.names.get(target, str(target)) for target in want.objects)
        remarks.append(f"{where} carry several tags of category {want.category}: {', '.join(sorted(common))}")
    return min(common, default="")


# -- placement -----------------------------------------------------------------------------------------------------


def _topology(place: _Place, choice: Choice, remarks: list[str]) -> dict[str, Any]:
    topology: dict[str, Any] = {"datacenter": place.datacenter.label}
    if place.cluster is not None:
        topology["computeCluster"] = place.cluster.label
    if place.rule is not None:
        topology["hosts"] = {"vmGroupName": place.rule.vm_group, "hostGroupName": place.rule.host_group}
    datastore = _chosen(choice.datastore, place, "datastores", remarks)
    if datastore:
        topology["datastore"] = datastore
    networks = choice.networks or tuple(filter(None, [_chosen("", place, "networks", remarks)]))
    if networks:
        topology["networks"] = list(networks)
    return topology


def _chosen(name: str, place: _Place, kind: str, remarks: list[str]) -> str:
    """Return the one that was named, or the only one there is; else leave it to the machine's template."""
    if place.cluster is None:
        return name
    seen = place.cluster.datastores if kind == "datastores" else place.cluster.networks
    if name:
        if name not in seen:
            remarks.append(f"no host of {place.cluster.cluster.path} sees {kind[:-1]} {name}")
        return name
    if len(seen) == 1:
        return seen[0]
    if seen:
        more = f" and {len(seen) - _LISTED} more" if len(seen) > _LISTED else ""
        listed = ", ".join(seen[:_LISTED]) + more
        remarks.append(
            f"{place.cluster.cluster.path} sees {kind} {listed}: that of the machine's template is used unless you "
            f"choose one (--{kind[:-1]})"
        )
    return ""


def _constraint(place: _Place, choice: Choice) -> dict[str, str]:
    constraint: dict[str, str] = {}
    if place.cluster is not None:
        pool = f"{place.cluster.cluster.path}/Resources"
        constraint["resourcePool"] = f"{pool}/{choice.resource_pool}" if choice.resource_pool else pool
    elif choice.resource_pool:
        constraint["resourcePool"] = choice.resource_pool
    if choice.folder:
        constraint["folder"] = choice.folder
    return constraint


def _manifest(kind: str, meta: Mapping[str, Any], spec: Mapping[str, Any]) -> dict[str, Any]:
    return {"apiVersion": f"{api.GROUP}/{api.VERSION}", "kind": kind, "metadata": dict(meta), "spec": dict(spec)}
