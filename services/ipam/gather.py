"""Reading the stores and the ledger into one value about one claim.

Responsible for: finding everything that `decide` asks for, through indexes only.
Invariant: nothing is awaited, so all parts of a World are of one moment, and what is decided from it can be marked in
the ledger before anything else runs.
Must not know: what is decided.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.ipam import api, kinds
from services.ipam.decide import ClusterState, Pool, World
from services.ipam.poolobjects import cluster_paused, pool_cluster_name
from services.ipam.slots import Use
from services.runtime.kube.objects import ObjectKey

if TYPE_CHECKING:
    from collections.abc import Collection

    from services.ipam.api import ClaimKey, PoolKey
    from services.ipam.caches import Caches
    from services.ipam.kinds import Claim
    from services.ipam.slots import Holding


def gather(caches: Caches, key: ClaimKey, now: float, gone_for: float, orphan_grace: float) -> World:
    """World of one claim. Raises msgspec.ValidationError when the claim does not have its CRD's shape."""
    obj = caches.claim(key)
    claim = kinds.read_claim(key.kind, obj) if obj is not None else None
    objects = caches.addresses[key.kind].by_index("claim", key)
    holdings = tuple(h for h in (kinds.read_address(key.kind, o) for o in objects) if h is not None)
    pool = gather_pool(caches, claim.pool) if claim is not None and claim.pool is not None else None
    domain = pool.state.domain if pool is not None else None
    reserved = {}
    elsewhere = []
    for item in caches.reservations.by_index("held", key):
        read = kinds.read_reservation(item)
        if read is not None and domain in {None, read[0]}:
            reserved[read[1]] = read[2].pool
        elif read is not None:
            elsewhere.append(item.metadata.name)
    if claim is None:
        names = {(o.metadata.labels or {}).get(api.CLUSTER_NAME_LABEL, "") for o in objects}
        states = {cluster_state(caches, key.namespace, name) for name in names}
        cluster = ClusterState.PAUSED if ClusterState.PAUSED in states else ClusterState.NONE
    else:
        cluster = cluster_state(caches, key.namespace, claim.cluster)
    own = api.ADDRESS_FINALIZERS[key.kind]
    ours = tuple(
        h for h, o in zip(holdings, objects, strict=False) if claim is not None or _has_any(o.metadata.finalizers, own)
    )
    bare = claim is not None and not holdings and not reserved
    return World(
        key=key,
        now=now,
        claim=claim,
        cluster=cluster,
        pool=pool,
        holdings=ours,
        reserved=tuple(reserved),
        elsewhere=tuple(elsewhere),
        sticky=_sticky(caches, key, domain) if bare and pool is not None else None,
        gone_for=gone_for,
        orphan_grace=orphan_grace,
        orphans_deleting=claim is None and any(o.deleting for o in objects),
        complete=claim is not None and domain is not None and _complete(caches, claim, holdings, domain),
        misplaced=claim is not None and _misplaced(claim, holdings, reserved.values()),
        name_taken=bare and key.kind == kinds.CAPI and ObjectKey(key.namespace, key.name) in caches.addresses[key.kind],
    )


def gather_pool(caches: Caches, key: PoolKey) -> Pool | None:
    """Pool of a claim, None when it does not exist."""
    obj = caches.pool(key)
    state = caches.ledger.pools.get(key)
    if obj is None or state is None:
        return None
    spec = caches.specs[key]
    return Pool(
        state=state,
        paused=kinds.is_paused(obj)
        or cluster_state(caches, key.namespace, pool_cluster_name(obj, spec)) is ClusterState.PAUSED,
        deleting=obj.deleting,
        allowed_namespaces=spec.allowed_namespaces,
        name_prefix=spec.name_prefix,
    )


def cluster_state(caches: Caches, namespace: str, name: str) -> ClusterState:
    """State of the Cluster that an object belongs to."""
    if not name:
        return ClusterState.NONE
    obj = caches.clusters.get(ObjectKey(namespace, name))
    if obj is None:
        return ClusterState.MISSING
    return ClusterState.PAUSED if cluster_paused(obj) else ClusterState.ACTIVE


def _has_any(values: tuple[str, ...], wanted: tuple[str, ...]) -> bool:
    return any(value in wanted for value in values)


def _misplaced(claim: Claim, holdings: tuple[Holding, ...], reserved_through: Collection[PoolKey | None]) -> bool:
    if claim.pool is None:
        return False
    if holdings:
        return all(holding.pool != claim.pool and holding.name != claim.bound for holding in holdings)
    return bool(reserved_through) and all(pool not in {None, claim.pool} for pool in reserved_through)


def _sticky(caches: Caches, key: ClaimKey, domain: str | None) -> int | None:
    for item in caches.reservations.by_index("last", key):
        read = kinds.read_reservation(item)
        if read is not None and read[0] == domain:
            return read[1]
    return None


def _complete(caches: Caches, claim: Claim, holdings: tuple[Holding, ...], domain: str) -> bool:
    named = next((h for h in holdings if h.name == claim.bound), None)
    if named is None or not claim.protected or not kinds.says_bound(claim):
        return False
    obj = caches.addresses[claim.key.kind].get(ObjectKey(named.namespace, named.name))
    slot = caches.ledger.slot(domain, named.at)
    reservation = slot.reservation if slot is not None else None
    return (
        obj is not None
        and _has_any(obj.metadata.finalizers, api.ADDRESS_FINALIZERS[claim.key.kind])
        and any(ref.uid == claim.obj.metadata.uid for ref in obj.metadata.ownerReferences)
        and reservation is not None
        and reservation.use is Use.HELD
        and reservation.claim == claim.key
    )
