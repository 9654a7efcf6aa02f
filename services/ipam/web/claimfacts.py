"""What is said of one claim on the status page: since when and why it waits, and for whom it is.

Responsible for: the reason in the claim's own status, and where nothing stands there, what keeps it from being looked
at.
Must not know: HTML, the order in which claims are shown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from services.ipam import kinds
from services.ipam.decide import ClusterState
from services.ipam.gather import cluster_state
from services.ipam.poolobjects import pool_cluster_name
from services.ipam.web.facts import Waiting

if TYPE_CHECKING:
    from services.ipam.api import ClaimKey, PoolKey
    from services.ipam.caches import Caches
    from services.ipam.kinds import Claim
    from services.runtime.kube.objects import KubeObject


def waiting(caches: Caches, key: ClaimKey, pool: PoolKey, obj: KubeObject) -> Waiting:
    """Describe a claim that has no address or is being deleted."""
    try:
        claim = kinds.read_claim(key.kind, obj)
        reason, message = _why(caches, claim, pool)
    except msgspec.ValidationError as error:
        reason, message = "Unreadable", str(error)
    meta = obj.metadata
    since = meta.deletionTimestamp or meta.creationTimestamp or ""
    return Waiting(key, pool, since, obj.deleting, reason, message, owner_of(obj))


def owner_of(obj: KubeObject) -> str:
    """Return kind and name of what an object belongs to: its controller, else its first owner, else ""."""
    owners = obj.metadata.ownerReferences
    found = next((owner for owner in owners if owner.controller), owners[0] if owners else None)
    return f"{found.kind} {found.name}" if found is not None else ""


def pool_paused(caches: Caches, obj: KubeObject) -> bool:
    """Tell whether a pool or the Cluster that it belongs to is paused."""
    namespace = obj.metadata.namespace
    return kinds.is_paused(obj) or cluster_state(caches, namespace, pool_cluster_name(obj)) is ClusterState.PAUSED


def _why(caches: Caches, claim: Claim, pool: PoolKey) -> tuple[str, str]:
    """Reason and sentence: first what keeps the allocator from looking, then what it said when it looked."""
    if claim.paused:
        return "Paused", "The claim is paused"
    if cluster_state(caches, claim.key.namespace, claim.cluster) is ClusterState.PAUSED:
        return "Paused", f"Cluster {claim.key.namespace}/{claim.cluster} is paused"
    found = caches.pool(pool)
    if claim.obj.deleting:
        if claim.foreign_finalizers:
            return "StillUsed", f"Being deleted, but still used: {', '.join(claim.foreign_finalizers)}"
        if found is not None and pool_paused(caches, found):
            return "Paused", "Being deleted, and its pool is paused"
        return "BeingReturned", "Being deleted; its address is being returned"
    told = kinds.ready(claim)
    if told is not None and told.status != "True":
        return told.reason or "NotReady", told.message
    if found is None:
        return "PoolNotFound", f"{pool} does not exist"
    if pool_paused(caches, found):
        return "Paused", "Its pool is paused"
    return "Pending", "The allocator has not told of it yet"
