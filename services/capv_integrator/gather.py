"""Reading the stores into one value about one VSphereMachine or VSphereCluster.

Responsible for: finding everything that `decide` asks for, through indexes only.
Invariant: nothing is awaited, so all parts of a World are of one moment.
Must not know: what is decided.
"""

from __future__ import annotations

import ipaddress
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from services.capv_integrator import api, names, pools, waiting
from services.capv_integrator.caches import CLUSTER, MACHINE, cluster_of, cluster_paused, reference
from services.capv_integrator.claimobjects import Claim, claim_of_address, is_paused, read_address, recorded
from services.capv_integrator.decide import Place, World
from services.capv_integrator.poolobjects import dns_servers, search_domains
from services.capv_integrator.pools import Seeker, Source
from services.runtime.kube.objects import KubeObject, ObjectKey, view

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from services.capv_integrator.api import PoolRef
    from services.capv_integrator.caches import Caches
    from services.capv_integrator.claimobjects import OwnerKey


def gather(
    caches: Caches, key: OwnerKey, grace: float = 0.0, left: Mapping[tuple[str, PoolRef], float] = MappingProxyType({})
) -> World:
    """World of one owner. Raises msgspec.ValidationError when an object does not have its CRD's shape.

    `grace` and `left` are those of World.
    """
    owner = caches.stores.owners[key.kind].get(ObjectKey(key.namespace, key.name))
    claims = tuple(_with_address(caches, claim) for claim in caches.claims_of(key))
    if owner is None:
        return World(key, None, paused=_claims_paused(caches, claims), claims=claims, grace=grace)
    kinds = frozenset(kind for kind in api.CLAIMS if caches.served.get(kind) is not None)
    world = World(key, owner, claims=claims, kinds=kinds, left=left)
    return _machine(caches, world, owner) if key.kind == MACHINE else _cluster(caches, world, owner)


def _machine(caches: Caches, world: World, owner: KubeObject) -> World:
    own = api.devices_of(owner) or []
    world = world._replace(
        paused=is_paused(owner),
        in_spec=frozenset(_addresses(text for device in own for text in device.get("ipAddrs") or ())),
    )
    machine_key = reference(owner, api.CLUSTER_GROUP, "Machine")
    machine = caches.stores.machines.get(machine_key) if machine_key is not None else None
    if machine is None:
        return world._replace(blocked="WaitingForMachine", devices=waiting.devices(own))
    spec = view(machine.spec, api.MachineSpec)
    cluster_name = cluster_of(machine) or spec.cluster_name
    cluster = caches.stores.clusters.get(ObjectKey(world.key.namespace, cluster_name))
    world = world._replace(cluster=cluster_name)
    if cluster is None:
        return world._replace(blocked="WaitingForCluster", devices=waiting.devices(own))
    world = world._replace(paused=world.paused or cluster_paused(cluster))
    overlaid: list[dict[str, Any]] = []
    if spec.failure_domain:
        vm = next(iter(caches.stores.vms.by_index("owner", owner.key)), None)
        placed = (api.devices_of(vm) or []) if vm is not None else api.placed_devices(owner)
        if placed is None:
            return world._replace(blocked="WaitingForVSphereVM", devices=waiting.devices(own))
        overlaid = placed
    devices = waiting.devices(own, overlaid)
    if machine.deleting or not any(device.waits for device in devices):
        return world._replace(devices=devices)
    template = _template(caches, owner)
    sources = [
        _source(MACHINE, owner),
        *([_source("VSphereMachineTemplate", template)] if template is not None else []),
    ]
    seeker = Seeker(
        world.key.namespace,
        cluster_name,
        spec.failure_domain or "",
        None,
        "",
        tuple(sources),
        (cluster.metadata.annotations or {}).get(api.OLD_POOL_NAMESPACE_ANNOTATION, ""),
    )
    places = tuple(
        Place(
            str(device.at), str(device), pools.find(seeker._replace(at=device.at, network=device.network), caches.book)
        )
        for device in devices
        if device.waits
    )
    domains = search_domains(owner) or (search_domains(template) if template is not None else ())
    return world._replace(devices=devices, places=places, search_domains=domains)


def _cluster(caches: Caches, world: World, owner: KubeObject) -> World:
    host = str((view(owner.spec, api.VSphereClusterSpec).control_plane_endpoint or {}).get("host") or "")
    world = world._replace(paused=is_paused(owner), in_spec=frozenset(_addresses((host,))))
    key = reference(owner, api.CLUSTER_GROUP, "Cluster")
    cluster = caches.stores.clusters.get(key) if key is not None else None
    if cluster is None:
        return world._replace(blocked="" if host else "WaitingForCluster")
    world = world._replace(paused=world.paused or cluster_paused(cluster), cluster=cluster.metadata.name)
    # An endpoint that the Cluster has already is somebody else's choice, unless it is one of ours that was wiped here.
    known = view(cluster.spec, api.ClusterSpec).control_plane_endpoint.host
    written = recorded(owner)
    ours = {c.address.text for c in world.claims if c.name in written and c.address is not None}
    if host or (known and known not in ours):
        return world
    seeker = Seeker(
        world.key.namespace,
        world.cluster,
        "",
        None,
        "",
        (_source(CLUSTER, owner),),
        (cluster.metadata.annotations or {}).get(api.OLD_POOL_NAMESPACE_ANNOTATION, ""),
    )
    return world._replace(places=(Place(names.ENDPOINT, "control-plane endpoint", pools.find(seeker, caches.book)),))


def since(caches: Caches, key: OwnerKey) -> str | None:
    """When CAPV said that a VSphereMachine waits, as a timestamp."""
    if key.kind == CLUSTER:
        return None
    owner = caches.stores.owners[MACHINE].get(ObjectKey(key.namespace, key.name))
    vm = next(iter(caches.stores.vms.by_index("owner", ObjectKey(key.namespace, key.name))), None)
    return waiting.reported_since(owner, vm)


def _with_address(caches: Caches, claim: Claim) -> Claim:
    obj = caches.stores.addresses[claim.obj.kind].get(claim.bound) if claim.bound is not None else None
    # Of a status that a backup or somebody else has written, the IPAddress may be another claim's by now.
    mine = obj is not None and claim_of_address(obj) == claim.obj.key
    address = read_address(obj) if obj is not None and mine else None
    if address is None:
        return claim
    pool = caches.book.get(claim.pool)
    if pool is not None:
        servers = address.dns_servers or dns_servers(pool, address.text)
        address = address._replace(dns_servers=servers, search_domains=search_domains(pool.obj))
    return claim._replace(address=address)


def _claims_paused(caches: Caches, claims: Iterable[Claim]) -> bool:
    """Tell whether claims of an owner that is gone are paused, alone or with their Cluster (as during a move)."""
    for claim in claims:
        cluster = caches.stores.clusters.get(ObjectKey(claim.obj.metadata.namespace, cluster_of(claim.obj)))
        if is_paused(claim.obj) or (cluster is not None and cluster_paused(cluster)):
            return True
    return False


def _template(caches: Caches, owner: KubeObject) -> KubeObject | None:
    name = (owner.metadata.annotations or {}).get(api.TEMPLATE_ANNOTATION, "")
    return caches.stores.templates.get(ObjectKey(owner.metadata.namespace, name))


def _source(kind: str, obj: KubeObject) -> Source:
    # Of templates the metadata alone is followed, so the object does not know its kind.
    return Source(f"{kind} {obj.metadata.name}", obj.metadata.annotations or {}, obj.metadata.labels or {})


def _addresses(texts: Iterable[str]) -> Iterable[str]:
    """Addresses in one spelling; what is none cannot be a claim's."""
    for text in texts:
        try:
            yield str(ipaddress.ip_interface(text).ip)
        except ValueError:
            continue
