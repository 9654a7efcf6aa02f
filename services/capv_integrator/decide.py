"""What a VSphereMachine or VSphereCluster needs now: a pure function from what is known to one plan.

Responsible for: which claims are made, moved to another pool, used, kept and let go, and what is said about it.
Invariants: a claim whose address was written is kept until the owner is gone, whatever the spec says later. Nothing is
written before all claims of a place are bound. Nothing is done to what is paused. Letting go is a proposal: whoever
carries it out asks the API server first whether the owner is as it was seen.
Must not know: the API server, stores, the clock.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from services.capv_integrator import api
from services.capv_integrator.annotations import IPV4
from services.capv_integrator.claimobjects import (
    CAPI,
    METAL3,
    Claim,
    NewClaim,
    adopted,
    name_of,
    recorded,
    says_written,
)
from services.capv_integrator.pools import Refusal, by_family, can_serve, choose

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from services.capv_integrator.api import PoolRef
    from services.capv_integrator.claimobjects import OwnerKey
    from services.capv_integrator.pools import Candidate, Found
    from services.capv_integrator.waiting import Device
    from services.runtime.kube.objects import KubeObject

Taken = Callable[["PoolRef"], int]
"""How many addresses of a pool are about to be taken by claims of ours that have none yet."""

WAITING_FOR_ADDRESS = "WaitingForAddress"
PAUSED = "Paused"


class Place(NamedTuple):
    """What waits for addresses: a device, or an endpoint."""

    name: str
    label: str
    """For messages."""
    found: Found | Refusal


class World(NamedTuple):
    """Everything that bears on one owner at one moment."""

    key: OwnerKey
    owner: KubeObject | None
    """The VSphereMachine or VSphereCluster; None when it is gone."""
    paused: bool = False
    blocked: str = ""
    """Why nothing can be said yet about what waits, as one word: something that it belongs to is not there."""
    cluster: str = ""
    places: tuple[Place, ...] = ()
    devices: tuple[Device, ...] = ()
    """Of a VSphereMachine, those that do not wait included."""
    in_spec: frozenset[str] = frozenset()
    """Addresses that stand in the owner's spec."""
    search_domains: tuple[str, ...] = ()
    claims: tuple[Claim, ...] = ()
    kinds: frozenset[str] = frozenset()
    """Kinds of claim that the server knows."""
    grace: float = 0.0
    """Seconds for which claims of an owner that does not exist are kept yet."""
    left: Mapping[tuple[str, PoolRef], float] = MappingProxyType({})
    """Pools that a place was moved away from, and the seconds for which it does not go back there."""


class Plan(NamedTuple):
    """What to do, in this order."""

    adopt: tuple[Claim, ...] = ()
    create: tuple[NewClaim, ...] = ()
    moved: tuple[tuple[str, PoolRef], ...] = ()
    """Pools that places are moved away from."""
    answers: tuple[tuple[str, tuple[Claim, ...]], ...] = ()
    """Claims whose addresses are to be written, by place."""
    mark: tuple[Claim, ...] = ()
    """Claims that do not say yet that their address was written."""
    release: tuple[Claim, ...] = ()
    refusal: Refusal | None = None
    """What keeps a place from being served that somebody has to mend."""
    waiting: str = ""
    """One word for what is waited for; "" when nothing waits once the answers are written."""
    again: float | None = None


def decide(world: World, taken: Taken) -> Plan:
    """Return the plan."""
    if world.owner is None:
        return _gone(world)
    if world.paused:
        return Plan(waiting=PAUSED if world.places else "")
    if world.owner.deleting:
        return Plan()
    kept = _kept(world, world.owner)
    mark = tuple(c for c in kept if c.address is not None and c.address.text in world.in_spec and not says_written(c))
    if world.blocked:
        nothing = bool(world.devices) and not any(device.waits for device in world.devices)
        return Plan(adopt=_incomplete(kept, world.owner), mark=mark, waiting="" if nothing else world.blocked)
    places = [_Serving(world, place, kept, taken).plan() for place in world.places]
    waiting = {place.name for place in world.places}
    idle = [c for c in world.claims if c.place not in waiting and c not in kept and _ours_to_end(c)]
    used = [claim for served in places for claim in served.used if claim not in kept]
    refusal = next((served.refusal for served in places if served.refusal is not None), None) or _lost(world, kept)
    unserved = next((served for served in places if not served.complete), None)
    silent = WAITING_FOR_ADDRESS if unserved is not None else ""
    return Plan(
        adopt=_incomplete([*kept, *used], world.owner),
        create=tuple(new for served in places for new in served.create),
        moved=tuple((served.place.name, ref) for served in places for ref in served.moved),
        answers=tuple((served.place.name, tuple(served.used)) for served in places if served.complete),
        mark=mark,
        release=(*idle, *(claim for served in places for claim in served.release)),
        refusal=refusal,
        waiting=refusal.reason if refusal is not None else silent,
        again=min((served.again for served in places if served.again is not None), default=None),
    )


def _gone(world: World) -> Plan:
    left = tuple(c for c in world.claims if _ours_to_end(c))
    if not left or world.paused:
        return Plan()
    if world.grace > 0:
        return Plan(again=world.grace)
    return Plan(release=left)


def _kept(world: World, owner: KubeObject) -> list[Claim]:
    """Claims whose addresses were written into the owner: it says so itself, or it has the address."""
    written = recorded(owner)
    return [c for c in world.claims if c.name in written or (c.address is not None and c.address.text in world.in_spec)]


def _lost(world: World, kept: Sequence[Claim]) -> Refusal | None:
    """Say that a claim is gone whose address was written, so that the address may be given to somebody else."""
    assert world.owner is not None
    covered = {c.address.text for c in kept if c.address is not None}
    bare = sorted(world.in_spec - covered)
    known = {c.name for c in world.claims}
    lost = [name for name in recorded(world.owner) if name not in known]
    if not lost or not bare or not world.kinds:
        return None
    message = (
        f"claim {', '.join(lost)}, whose address was written here, does not exist any more: nothing keeps "
        f"{', '.join(bare)} from being given to somebody else; reserve it, or replace what uses it"
    )
    return Refusal("ClaimMissing", message)


def _incomplete(claims: Sequence[Claim], owner: KubeObject) -> tuple[Claim, ...]:
    return tuple(c for c in claims if adopted(c, owner) is not c.obj)


def _ours_to_end(claim: Claim) -> bool:
    """Tell whether something is left to do for a claim that is not needed."""
    return claim.held or not claim.obj.deleting


class _Serving:
    """How one place gets its addresses."""

    def __init__(self, world: World, place: Place, kept: Sequence[Claim], taken: Taken) -> None:
        self.place = place
        self.create: list[NewClaim] = []
        self.used: list[Claim] = []
        self.release: list[Claim] = []
        self.moved: list[PoolRef] = []
        self.refusal: Refusal | None = None
        self.again: float | None = None
        self.complete = False
        self._world = world
        self._kept = kept
        self._taken = taken
        # Devices may be put in another order: an address that one has is not another's, whatever its place.
        self._mine = [c for c in world.claims if c.place == place.name and not self._in_use(c)]

    def _in_use(self, claim: Claim) -> bool:
        return claim.address is not None and claim.address.text in self._world.in_spec

    def plan(self) -> _Serving:
        live = [c for c in self._mine if not c.obj.deleting or c in self._kept]
        # Somebody deleted it before its address was written: it goes, and another one is made.
        self.release += [c for c in self._mine if c not in live and c.held]
        found = self.place.found
        if isinstance(found, Refusal):
            # What has a claim goes on with it: its pool was right when it was chosen.
            families: dict[str, tuple[Candidate, ...]] = {c.family: () for c in live}
            if not families:
                self._refuse(found)
        else:
            families = self._families(by_family(found))
            self.release += [c for c in live if c.family not in families and c not in self._kept]
        for family, candidates in families.items():
            self._serve(family, candidates, [c for c in live if c.family == family])
        if isinstance(found, Refusal) and not all(c.bound for c in self.used):
            self._refuse(found)
        self.complete = bool(families) and len(self.used) == len(families) and all(map(self._usable, self.used))
        return self

    def _families(self, families: dict[str, tuple[Candidate, ...]]) -> dict[str, tuple[Candidate, ...]]:
        """An endpoint is one address."""
        if self._world.key.kind != "VSphereCluster":
            return families
        family = IPV4 if IPV4 in families else next(iter(families))
        return {family: families[family]}

    def _serve(self, family: str, candidates: Sequence[Candidate], live: Sequence[Claim]) -> None:
        """Find the claim for one family: the one that is bound, one that may yet be, or a new one."""
        refs = {candidate.ref for candidate in candidates}
        fitting = [c for c in live if not refs or c.pool in refs or c in self._kept]
        self.release += [c for c in live if c not in fitting]
        bound = sorted((c for c in fitting if c.bound), key=lambda c: (c not in self._kept, c.name))
        if bound:
            self.used.append(bound[0])
            self.release += [c for c in fitting if c is not bound[0] and c not in self._kept]
            return
        # Two of them are what a crash in the middle of a move leaves.
        current = min(fitting, key=lambda c: (c.refusal is not None, c.name), default=None)
        if current is None:
            self._create(family, choose(candidates, self._taken).ref)
            self._say_if_exhausted(candidates)
            return
        self.release += [c for c in fitting if c is not current and c not in self._kept]
        better = self._better(current, candidates)
        if better is not None:
            self._create(family, better.ref)
            self.release.append(current)
            self.moved.append(current.pool)
            return
        self.used.append(current)
        # One text for one state, whether the numbers of the pools or the claim tells of it first.
        if current.refusal is None or current.refusal.reason == "PoolExhausted":
            self._say_if_exhausted(candidates)
        if current.refusal is not None:
            reason = current.refusal.reason or "AllocationFailed"
            self._refuse(Refusal(reason, f"{current.obj.kind} {current.name}: {current.refusal.message}"))

    def _better(self, current: Claim, candidates: Sequence[Candidate]) -> Candidate | None:
        """Another pool for a claim that gets nothing out of its own."""
        if not candidates or current in self._kept:
            return None
        own = next((candidate.pool for candidate in candidates if candidate.ref == current.pool), None)
        empty = own is not None and own.available is not None and own.available <= 0
        if current.refusal is None and not empty:
            return None
        others = [c for c in candidates if c.ref != current.pool and can_serve(c, self._taken)]
        # Numbers that are wrong must not send a place round in circles.
        fresh = [candidate for candidate in others if (self.place.name, candidate.ref) not in self._world.left]
        if fresh:
            return choose(fresh, self._taken)
        waits = [self._world.left[self.place.name, candidate.ref] for candidate in others]
        self.again = min([*waits, *([self.again] if self.again is not None else [])], default=None)
        return None

    def _create(self, family: str, pool: PoolRef) -> None:
        kind = _claim_kind(pool, self._world)
        if isinstance(kind, Refusal):
            self._refuse(kind)
            return
        new = NewClaim(kind, self.place.name, family, pool)
        before = next((c for c in self._world.claims if c.name == name_of(self._world.key, new)), None)
        if before is not None and self._in_use(before):
            message = (
                f"its claim {before.name} has the address of another device, which was in its place before: "
                "put new devices behind the others, or give one of them ipAddrs"
            )
            self._refuse(Refusal("ClaimInUse", message))
        if before is not None:
            return  # or its predecessor is on its way out
        self.create.append(new)

    def _usable(self, claim: Claim) -> bool:
        if claim.address is None:
            return False
        if claim.address.prefix is None and self._world.key.kind == "VSphereMachine":
            message = f"{claim.obj.kind} {claim.name} got {claim.address.text} without a prefix, which CAPV needs"
            self._refuse(Refusal("AddressUnusable", message))
            return False
        return True

    def _say_if_exhausted(self, candidates: Sequence[Candidate]) -> None:
        """Say so when no pool has anything left by its own word, for providers whose claims say nothing."""
        if not candidates or any(can_serve(candidate, lambda _: 0) for candidate in candidates):
            return
        names = sorted(str(candidate.ref) for candidate in candidates)
        self._refuse(Refusal("PoolExhausted", ", ".join(f"{name} has no free address" for name in names)))

    def _refuse(self, refusal: Refusal) -> None:
        if self.refusal is None:
            self.refusal = Refusal(refusal.reason, f"{self.place.label}: {refusal.message}")


def _claim_kind(pool: PoolRef, world: World) -> str | Refusal:
    """Cluster API's contract, which knows no other namespace than the claim's; metal3's API for what it cannot do."""
    elsewhere = pool.namespace not in {"", world.key.namespace}
    if CAPI in world.kinds and not elsewhere:
        return CAPI
    if METAL3 in world.kinds and pool.group in {api.METAL3_GROUP, api.OWN_GROUP}:
        return METAL3
    wanted = METAL3 if elsewhere else f"{CAPI} or {METAL3}"
    return Refusal("NoClaimAPI", f"a claim on {pool} needs the API of {wanted}, which the server does not have")
