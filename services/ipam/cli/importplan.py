"""What an import has to do, and what it must not: a pure function from the stream and the target to steps.

Responsible for: recognising what the target has already, and refusing what would give a claim another address than it
has or an address a second holder.
Invariants: nothing that exists is ever changed. A claim goes with its IPAddress and its IPReservation: when one of them
is refused all are, as the claim alone would be given another address. What a refused pool serves is refused with it.
Must not know: the API server, the order and the pace of the writes.
"""

from __future__ import annotations

from collections import defaultdict
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from services.ipam import api, intervals, kinds
from services.ipam.cli.portable import identity, portable, resource_for, spec_type
from services.ipam.poolobjects import pool_key, read_pool_spec
from services.ipam.slots import Use
from services.runtime.kube.objects import KubeObject, view, with_annotations, with_spec

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from services.ipam.api import ClaimKey, PoolKey
    from services.ipam.cli.snapshot import Snapshot
    from services.runtime.kube.resource import Resource

IMPORT_ANNOTATION = "ipam.groundwork.dev/import"
"""On IPReservations that an import keeps for a claim: the claim."""
Place = tuple[str, int]
"""Domain and point."""


class Verdict(Enum):
    """What becomes of an object of the stream."""

    CREATE = "created"
    UNCHANGED = "unchanged"
    REFUSED = "refused"


class Step(NamedTuple):
    """One object of the stream and its verdict."""

    obj: KubeObject
    """In the API version that the target serves."""
    resource: Resource | None
    """None when the target does not serve it; always refused then."""
    claim: ClaimKey | None
    """The claim that it is, or belongs to."""
    pool: PoolKey | None
    """The pool that it is, or asks for."""
    verdict: Verdict
    reason: str = ""

    def refused(self, reason: str) -> Step:
        """The step with that verdict."""
        return self._replace(verdict=Verdict.REFUSED, reason=reason)


def plan(stream: Sequence[KubeObject], target: Snapshot) -> list[Step]:
    """Steps in the order of the stream. Raises msgspec.ValidationError when an object does not have its CRD's shape."""
    known = _Known(stream, target)
    steps = [_step(obj, known) for obj in stream]
    steps = [_pinned(_conflicts(step, known), known) for step in steps]
    return cascade(steps)


def cascade(steps: Sequence[Step]) -> list[Step]:
    """Refuse what must not be created because something that it goes with is refused."""
    pools: dict[PoolKey, Step] = {}
    for step in steps:
        if step.verdict is Verdict.REFUSED and _is_pool(step.obj) and step.pool is not None:
            pools[step.pool] = step
    steps = [
        step.refused(f"{step.pool}, which it belongs to, is refused")
        if step.verdict is Verdict.CREATE and step.claim is not None and step.pool in pools
        else step
        for step in steps
    ]
    claims: dict[ClaimKey, Step] = {}
    for step in steps:
        if step.verdict is Verdict.REFUSED and step.claim is not None:
            claims.setdefault(step.claim, step)
    return [
        step.refused(f"{identity(claims[step.claim].obj)}, which goes with it, is refused")
        if step.verdict is Verdict.CREATE and step.claim in claims
        else step
        for step in steps
    ]


def differences(wanted: KubeObject, existing: KubeObject) -> tuple[str, ...]:
    """Fields of the spec in which two objects differ, defaults and uids aside; metadata does not count."""
    mine, theirs = _spec(wanted), _spec(existing)
    if mine == theirs:
        return ()
    names = zip(mine.__struct_fields__, mine.__struct_encode_fields__, strict=True)
    return tuple(sorted(f"spec.{shown}" for name, shown in names if getattr(mine, name) != getattr(theirs, name)))


def differs(wanted: KubeObject, existing: KubeObject) -> str:
    """Why an object that exists cannot stand for the wanted one; "" when it can."""
    if existing.deleting:
        return "it exists here and is being deleted: import again when it is gone"
    fields = differences(wanted, existing)
    return (
        f"it exists here and differs in {', '.join(fields)}: remove it, or leave it out of the stream" if fields else ""
    )


def placeholder(obj: KubeObject, claim: ClaimKey) -> KubeObject:
    """An IPReservation that keeps an address for a claim to come, in the form that no allocator touches."""
    spec = view(obj.spec, api.ReservationSpec)
    said = f"kept for the import of {claim}: import again, or delete this"
    kept = msgspec.structs.replace(spec, claim=None, description=said)
    return with_annotations(with_spec(obj, kept), {IMPORT_ANNOTATION: str(claim)})


def is_placeholder(existing: KubeObject, claim: ClaimKey | None) -> bool:
    """Tell whether an IPReservation keeps an address for the import of a claim."""
    marked = (existing.metadata.annotations or {}).get(IMPORT_ANNOTATION) == str(claim)
    return marked and not existing.deleting and view(existing.spec, api.ReservationSpec).claim is None


def _spec(obj: KubeObject) -> msgspec.Struct:
    """Spec with the definitions' defaults where it says nothing."""
    return view(portable(obj).spec, spec_type(obj))


def _is_pool(obj: KubeObject) -> bool:
    return obj.kind in {api.IP_POOLS.kind, api.GLOBAL_IP_POOLS.kind}


class _Known:
    """What stream and target say of addresses, claims and pools."""

    def __init__(self, stream: Sequence[KubeObject], target: Snapshot) -> None:
        self.capi_version = target.capi_version
        existing = (*target.pools, *target.claims, *target.addresses, *target.reservations)
        self.existing = {identity(obj): obj for obj in existing}
        self.coming = {identity(obj) for obj in stream}
        self.pools = {pool_key(obj): read_pool_spec(obj)[0].domain for obj in (*target.pools, *stream) if _is_pool(obj)}
        self.claims = {_claim_key(obj) for obj in (*target.claims, *stream) if obj.kind in api.CLAIM_FINALIZERS}
        self.wanted = _Holders(self, stream)
        self.held = _Holders(self, existing)
        self.kept = {
            place: str(identity(obj))
            for obj in target.reservations
            if (place := _kept_place(obj)) is not None and identity(obj) not in self.coming
        }
        """Places that a reservation of an administrator, or a released one, takes in the target."""

    def belongs(self, obj: KubeObject) -> tuple[ClaimKey | None, PoolKey | None, Place | None]:
        """Claim, pool and place of an IPAddress or a held IPReservation; claim and pool of a claim."""
        if obj.kind in api.CLAIM_FINALIZERS:
            claim = kinds.read_claim(obj.kind, obj)
            return claim.key, claim.pool, None
        if obj.kind == api.IP_RESERVATIONS.kind:
            read = kinds.read_reservation(obj)
            if read is None or read[2].use is not Use.HELD:
                return None, None, None
            return read[2].claim, read[2].pool, read[:2]
        if obj.kind == api.IP_ADDRESSES.kind:
            kind = kinds.METAL3 if obj.apiVersion == api.IP_ADDRESSES.api_version else kinds.CAPI
            holding = kinds.read_address(kind, obj)
            if holding is None:
                return None, None, None
            domain = self.pools.get(holding.pool)
            return holding.claim, holding.pool, (domain, holding.at) if domain is not None else None
        return None, pool_key(obj), None


class _Holders:
    """Who has which place, by IPAddresses and by reservations."""

    def __init__(self, known: _Known, objects: Iterable[KubeObject]) -> None:
        self.claims: dict[Place, set[ClaimKey]] = defaultdict(set)
        self.places: dict[ClaimKey, set[Place]] = defaultdict(set)
        self.reserved: dict[Place, ClaimKey] = {}
        """Whom the IPReservation names."""
        for obj in objects:
            claim, _, place = known.belongs(obj)
            if claim is None or place is None:
                continue
            self.claims[place].add(claim)
            self.places[claim].add(place)
            if obj.kind == api.IP_RESERVATIONS.kind:
                self.reserved[place] = claim


def _claim_key(obj: KubeObject) -> ClaimKey:
    return api.ClaimKey(obj.kind, obj.metadata.namespace, obj.metadata.name)


def _kept_place(obj: KubeObject) -> Place | None:
    read = kinds.read_reservation(obj)
    return read[:2] if read is not None and read[2].use is not Use.HELD else None


def _step(obj: KubeObject, known: _Known) -> Step:
    """Verdict by the object itself: is it there, is it the same, can it be there."""
    claim, pool, _ = known.belongs(obj)
    resource = resource_for(obj, known.capi_version)
    if resource is None:
        reason = f"the target does not serve {api.CAPI_GROUP}: install Cluster API first"
        return Step(obj, None, claim, pool, Verdict.REFUSED, reason)
    step = Step(msgspec.structs.replace(obj, apiVersion=resource.api_version), resource, claim, pool, Verdict.CREATE)
    if pool is None and obj.kind != api.IP_RESERVATIONS.kind:
        return step.refused("its pool is another provider's")
    existing = known.existing.get(identity(obj))
    if existing is None or (claim is not None and is_placeholder(existing, claim)):
        return step
    reason = differs(obj, existing)
    return step.refused(reason) if reason else step._replace(verdict=Verdict.UNCHANGED)


def _pinned(step: Step, known: _Known) -> Step:
    """A claim with the request for the very address that it has.

    An allocator that learns of the claim before it learns of the IPAddress and the IPReservation would else give it
    another one.
    """
    if step.verdict is not Verdict.CREATE or step.obj.kind not in api.CLAIM_FINALIZERS or step.claim is None:
        return step
    places = known.wanted.places.get(step.claim, set())
    if len(places) != 1 or api.REQUESTED_ADDRESS_ANNOTATION in (step.obj.metadata.annotations or {}):
        return step
    ((_, at),) = places
    return step._replace(obj=with_annotations(step.obj, {api.REQUESTED_ADDRESS_ANNOTATION: intervals.text(at)}))


def _conflicts(step: Step, known: _Known) -> Step:
    """Verdict by what else is in stream and target."""
    if step.verdict is not Verdict.CREATE or step.claim is None:
        return step
    claim, pool, place = known.belongs(step.obj)
    assert claim is not None
    if place is None:
        if step.obj.kind in api.CLAIM_FINALIZERS:
            return step
        return step.refused(f"{pool} is neither here nor in the stream")
    address = f"{intervals.text(place[1])} in domain {place[0]}"
    if claim not in known.claims:
        return step.refused(f"{claim} is neither here nor in the stream, and the allocator returns what nobody holds")
    if pool not in known.pools:
        return step.refused(f"{pool} is neither here nor in the stream")
    others = known.held.claims.get(place, set()) - {claim}
    if others:
        return step.refused(f"{address} is held here by {_listed(others)}")
    if place in known.kept:
        return step.refused(f"{address} is taken here by {known.kept[place]}")
    rivals = known.wanted.claims[place] - {claim}
    if rivals and known.wanted.reserved.get(place) != claim:
        return step.refused(f"the stream gives {address} to {_listed(rivals)} too")
    elsewhere = known.held.places.get(claim, set()) - known.wanted.places[claim]
    if elsewhere:
        shown = ", ".join(intervals.text(at) for _, at in sorted(elsewhere))
        return step.refused(f"{claim} exists here and has {shown}")
    return step


def _listed(claims: Iterable[ClaimKey]) -> str:
    return " and ".join(sorted(map(str, claims)))
