"""What is to be done about one claim: a pure function from what is known to one decision.

Responsible for: the rules of the Cluster API IPAM contract and metal3's, in order of precedence; each rule is one
branch of `decide`.
Invariants: a claim that has an address keeps it; a paused one is left alone; nothing is returned while somebody else's
finalizer says that it is in use; a refused claim holds nothing but what it already had been told.
Must not know: the API server, stores, the clock (`World.now` is Unix seconds).
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from services.ipam import api, intervals, kinds
from services.ipam.kinds import CAPI, Claim
from services.ipam.poolstate import PoolState

if TYPE_CHECKING:
    from services.ipam.api import ClaimKey, PoolKey
    from services.ipam.ledger import Refusal
    from services.ipam.slots import Holding


class ClusterState(Enum):
    """The Cluster that a claim belongs to."""

    NONE = "not named"
    MISSING = "does not exist"
    PAUSED = "is paused"
    ACTIVE = "is active"


class Pool(NamedTuple):
    """The pool that a claim asks for."""

    state: PoolState
    paused: bool
    deleting: bool
    allowed_namespaces: tuple[str, ...] | None
    name_prefix: str = ""
    """First part of the names of IPAddresses for IPClaims."""


class World(NamedTuple):
    """Everything that bears on one claim at one moment."""

    key: ClaimKey
    now: float
    claim: Claim | None
    """None when it is gone."""
    cluster: ClusterState
    pool: Pool | None
    """None when it does not exist or is another provider's."""
    holdings: tuple[Holding, ...]
    """Its IPAddresses."""
    reserved: tuple[int, ...]
    """Points of the IPReservations it holds in its pool's domain (any domain when the pool is gone)."""
    sticky: int | None
    """Point of the address that it gave back last, if still kept for it."""
    gone_for: float = 0.0
    """Seconds since this process first saw addresses of a claim that does not exist."""
    orphan_grace: float = 60.0
    orphans_deleting: bool = False
    """Deletion of one of the IPAddresses of a claim that does not exist was requested."""
    complete: bool = False
    """Status says that it has an address and nothing else; the IPAddress named there has our finalizer and is owned by
    this claim, and its reservation names it."""
    misplaced: bool = False
    """All that it has was given through another pool, so to an earlier claim of its name that was removed by force."""
    name_taken: bool = False
    """An IPAddress of another provider has the name that this claim's has to have."""
    stranded: bool = False
    """Its namespace is being deleted, so that no IPAddress can be created there."""
    elsewhere: tuple[str, ...] = ()
    """Names of IPReservations it holds in other domains than its pool's, which was moved; let go once it is bound."""


class Leave(NamedTuple):
    """Nothing to do; with `again`, look again after so many seconds."""

    why: str
    again: float | None = None


class Refuse(NamedTuple):
    """No address now: status says so."""

    reason: str
    """Reason of the Ready condition."""
    token: str
    """Finer word for Event and metric."""
    message: str
    wait: Refusal | None = None
    """What to wait for, when it is capacity or an address."""


class Bind(NamedTuple):
    """Make the claim hold this address, whatever part of that is missing."""

    at: int
    surplus: tuple[Holding, ...] = ()
    """IPAddresses of the same claim that its status does not name, to be returned."""
    surplus_reserved: tuple[int, ...] = ()
    """Points that it holds beside that without an IPAddress. Those of `surplus` go with their IPAddresses."""


class Release(NamedTuple):
    """Return everything, and let the claim go if it is to."""


Decision = Leave | Refuse | Bind | Release
Choose = Callable[[PoolState, Claim, int | None], "int | Refusal"]


def decide(world: World, choose: Choose) -> Decision:
    """Return the decision; `choose` picks an address of the pool, a given one or any, without changing anything."""
    claim = world.claim
    if claim is None:
        return _orphaned(world)
    if claim.paused or world.cluster is ClusterState.PAUSED:
        return Leave("it is paused")
    if claim.pool is None:
        return (_used(claim) or Release()) if claim.stray else Leave("its pool is another provider's")
    if world.misplaced:
        return Release()
    if claim.obj.deleting:
        return _deleted(world, claim)
    if world.complete and len(world.holdings) == 1 and len(world.reserved) <= 1 and not world.elsewhere:
        return Leave("it has its address")
    if world.name_taken:
        message = f"IPAddress {claim.key.namespace}/{claim.key.name} exists and was not made for this claim: remove it"
        return Refuse(api.ALLOCATION_FAILED, "AddressNameTaken", message)
    if world.stranded and not world.holdings:
        message = f"Namespace {claim.key.namespace} is being deleted: nothing can be created in it any more"
        return Refuse(api.ALLOCATION_FAILED, "NamespaceTerminating", message)
    kept = _kept(world, claim)
    if world.pool is None:
        if kept is not None and claim.bound:
            return Leave("it has its address and the pool is gone")
        return Refuse(api.POOL_NOT_READY, "PoolNotFound", f"{claim.pool} does not exist")
    if kept is not None:
        return _keep(world, claim, world.pool, kept, choose)
    refusal = _not_served(world, claim, world.pool)
    if refusal is not None:
        return refusal
    return _allocate(world, claim, world.pool, choose)


def _orphaned(world: World) -> Decision:
    """Addresses of a claim that does not exist: returned after a grace, as a restore may bring the claim later."""
    if not world.holdings and not world.reserved:
        return Leave("it is gone and holds nothing")
    if world.cluster is ClusterState.PAUSED:
        return Leave("its Cluster is paused")
    if world.gone_for < world.orphan_grace and not world.orphans_deleting:
        return Leave("it is gone; its addresses are kept for a grace", again=world.orphan_grace - world.gone_for)
    return Release()


def _deleted(world: World, claim: Claim) -> Decision:
    if not claim.protected and not world.holdings and not world.reserved:
        return Leave("it is being deleted and holds nothing")
    used = _used(claim)
    if used is not None:
        return used
    if world.pool is not None and world.pool.paused:
        return Leave("it is being deleted and its pool is paused")
    return Release()


def _used(claim: Claim) -> Leave | None:
    """Say that somebody else's finalizer keeps the address of a claim."""
    names = ", ".join(claim.foreign_finalizers)
    return Leave(f"it is still used: {names}") if names else None


def _kept(world: World, claim: Claim) -> Bind | None:
    """The address that the claim has, wholly or in part: an IPAddress, or a reservation that a crash left."""
    if world.holdings:
        named = next((h for h in world.holdings if h.name == claim.bound), None)
        reserved = next((h for h in world.holdings if h.at in world.reserved), None)
        chosen = named or reserved or min(world.holdings, key=lambda h: h.name)
        if named is None:
            return Bind(chosen.at)
        # Only once status names one of them is it certain that nobody was told of the others.
        surplus = tuple(h for h in world.holdings if h is not named)
        taken = {h.at for h in world.holdings}
        return Bind(named.at, surplus, tuple(at for at in world.reserved if at not in taken))
    if world.reserved:
        return Bind(min(world.reserved))
    return None


def _keep(world: World, claim: Claim, pool: Pool, kept: Bind, choose: Choose) -> Decision:
    if kept.at not in world.reserved and not serves(pool.state.key, pool.allowed_namespaces, claim.key):
        # Whoever may write IPAddresses could have made it: one that the ledger does not know of opens no pool.
        return _not_allowed(claim.key, pool)
    if world.holdings:
        return kept
    if claim.bound or pool.state.space.is_assignable(kept.at):
        return _with_settings(pool, claim, kept.at)
    # Nobody was told of it, and the pool gives it to nobody any more.
    decision = _not_served(world, claim, pool) or _allocate(world, claim, pool, choose)
    return decision._replace(surplus_reserved=world.reserved) if isinstance(decision, Bind) else decision


def _not_served(world: World, claim: Claim, pool: Pool) -> Refuse | None:
    """Reasons that have nothing to do with addresses."""
    key = pool.state.key
    if world.cluster is ClusterState.MISSING and claim.key.kind == CAPI:
        # Cluster API's contract. metal3 asks no Cluster by a claim's label, and some label claims with other names.
        message = f"Cluster {claim.key.namespace}/{claim.cluster}, which the claim belongs to, does not exist"
        return Refuse(api.ALLOCATION_FAILED, "ClusterNotFound", message)
    if not serves(key, pool.allowed_namespaces, claim.key):
        return _not_allowed(claim.key, pool)
    if pool.paused:
        return Refuse(api.POOL_NOT_READY, "PoolPaused", f"{key} is paused")
    if pool.deleting:
        return Refuse(api.POOL_NOT_READY, "PoolDeleting", f"{key} is being deleted")
    if not pool.state.space.ranges:
        problems = "; ".join(str(p) for p in pool.state.space.problems)
        return Refuse(api.POOL_NOT_READY, "InvalidSpec", f"{key} has no usable range: {problems}")
    return None


def _not_allowed(claim: ClaimKey, pool: Pool) -> Refuse:
    message = f"{pool.state.key} does not serve namespace {claim.namespace} (spec.allowedNamespaces)"
    return Refuse(api.ALLOCATION_FAILED, "NamespaceNotAllowed", message)


def serves(pool: PoolKey, namespaces: tuple[str, ...] | None, claim: ClaimKey) -> bool:
    """`allowedNamespaces`: of an IPPool, who besides its own namespace; of a GlobalIPPool, who at all (default all)."""
    if pool.namespace == claim.namespace:
        return True
    if namespaces is None:
        return not pool.namespace
    return "*" in namespaces or claim.namespace in namespaces


def _allocate(world: World, claim: Claim, pool: Pool, choose: Choose) -> Decision:
    space = pool.state.space
    kept = pool.state.pre_allocation_of(claim.key)
    wanted = space.pre_allocations.get(kept) if kept is not None else None
    problem = space.bad_pre_allocations.get(kept) if kept is not None else None
    if problem is not None:
        return Refuse(api.ALLOCATION_FAILED, "PreAllocationInvalid", str(problem))
    if claim.requested is not None:
        try:
            requested = intervals.point(claim.requested)
        except ValueError:
            message = f"annotation {api.REQUESTED_ADDRESS_ANNOTATION}: {claim.requested!r} is not an IP address"
            return Refuse(api.ALLOCATION_FAILED, "AddressMalformed", message)
        if wanted is not None and wanted != requested:
            message = (
                "PreAllocation and requested ip address are conflicting: "
                f"{intervals.text(wanted)} by the pool's preAllocations, {claim.requested} by the claim's annotation"
            )
            return Refuse(api.ALLOCATION_FAILED, "AddressConflicting", message)
        wanted = requested
    elif wanted is None and world.sticky is not None and len(pool.state.waiting) < pool.state.available:
        at = choose(pool.state, claim, world.sticky)
        if isinstance(at, int):
            return _with_settings(pool, claim, at)
    at = choose(pool.state, claim, wanted)
    if isinstance(at, int):
        return _with_settings(pool, claim, at)
    return Refuse(api.POOL_EXHAUSTED if at.exhausted else api.ALLOCATION_FAILED, at.token, at.message, at)


def _with_settings(pool: Pool, claim: Claim, at: int) -> Decision:
    """Check what the IPAddress needs of the pool besides an address: each kind of claim can do without the other's."""
    if claim.key.kind == CAPI:
        span = pool.state.space.range_of(at)
        if span is None or span.prefix is None:
            where = "its range" if span is None else f"spec.pools[{span.index}]"
            message = f"{pool.state.key}: {where} has no prefix, which a Cluster API address needs"
            return Refuse(api.ALLOCATION_FAILED, "PrefixMissing", message)
    elif pool.name_prefix:
        name = kinds.address_names(claim.key, pool.state.key, pool.name_prefix, pool.state.domain, at)[0]
        if not kinds.is_object_name(name):
            message = f"{pool.state.key}: spec.namePrefix would name the IPAddress {name!r}, which is not valid"
            return Refuse(api.POOL_NOT_READY, "InvalidSpec", message)
    return Bind(at)
