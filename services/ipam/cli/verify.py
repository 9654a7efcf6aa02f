"""The ledger check: every address has one holder, and claims, IPAddresses and IPReservations agree on it.

Responsible for: one rule for each way in which the objects can contradict each other; each finding says what is wrong
and what to do.
Invariants: nothing of the allocator's ledger, caches or object reading is used here, so that a mistake in them cannot
hide itself. What is being worked on is no discrepancy: claims that are not bound yet, objects being deleted.
The lists of a snapshot are of different moments, so a finding counts only if it is found twice (`persistent`).
Must not know: the API server, the clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from services.ipam.cli.facts import Books, entry_name, point

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from services.ipam.api import ClaimKey
    from services.ipam.cli.facts import AddressFact
    from services.ipam.cli.snapshot import Snapshot

_REPAIRED = (
    "the allocator puts this right by itself: check that it runs, reads this namespace, and that neither the claim nor "
    "its Cluster or pool is paused"
)
_RETURNED = (
    "the allocator returns it once its grace for restores (--orphan-grace-seconds) is over: check that it runs; "
    "restore the claim before that if something uses the address"
)


class Discrepancy(NamedTuple):
    """One finding. Two findings that are equal are the same one, seen at two moments."""

    kind: str
    """One word for the rule, stable."""
    subject: str
    """The object or address that it is about."""
    wrong: str
    action: str
    namespaces: frozenset[str]
    """Namespaces of the objects involved."""
    information: bool = False
    """Worth knowing, but nothing contradicts anything."""


def check(snapshot: Snapshot) -> list[Discrepancy]:
    """Every discrepancy of a snapshot, sorted; those of one moment may be of objects that changed meanwhile."""
    books = Books(snapshot)
    found = {item for rule in _RULES for item in rule(books)}
    return sorted(found, key=lambda item: (item.information, item[:3]))


def persistent(before: Collection[Discrepancy], after: Collection[Discrepancy]) -> list[Discrepancy]:
    """The discrepancies that were found at both moments, in the order of the second."""
    return [item for item in after if item in before]


# -- rules ---------------------------------------------------------------------------------------------------------


def _objects_are_readable(books: Books) -> Iterator[Discrepancy]:
    """An object has the shape of its definition, without which nothing is known of it."""
    for obj, error in books.unreadable:
        wrong = f"it does not have the shape of its definition: {error}"
        action = "install this version's deploy/crds, then correct the object"
        yield Discrepancy("Unreadable", f"{obj.kind} {obj.key}", wrong, action, frozenset({obj.metadata.namespace}))


def _one_holder(books: Books) -> Iterator[Discrepancy]:
    """In a domain an address belongs to one claim."""
    for domain, ip in books.addresses_of.keys() | books.entries_of.keys():
        by_address: dict[ClaimKey, AddressFact] = {a.claim: a for a in books.addresses_of.get((domain, ip), ())}
        by_entry = {e.claim: e for e in books.entries_of.get((domain, ip), ()) if e.claim is not None}
        if len(by_address) < 2 and len(by_entry) < 2:  # noqa: PLR2004 - one is what it should be
            continue
        holders = sorted(by_address.keys() | by_entry.keys())
        shown = []
        for claim in holders:
            proof = [str(item) for item in (by_address.get(claim), by_entry.get(claim)) if item is not None]
            shown.append(f"{claim} ({', '.join(proof)})")
        yield Discrepancy(
            kind="DuplicateAddress",
            subject=f"{ip} in domain {domain}",
            wrong=f"held by {' and by '.join(shown)}",
            action="decide who keeps it and delete the other claims, so that their owners ask for another address; put "
            "pools that are networks of their own into domains of their own",
            namespaces=frozenset(claim.namespace for claim in holders),
        )


def _addresses_are_reserved(books: Books) -> Iterator[Discrepancy]:
    """An IPAddress has the IPReservation of its claim."""
    for address in books.addresses:
        place = books.place(address)
        if place is None:
            continue
        entries = books.entries_of.get(place, [])
        if any(entry.claim == address.claim for entry in entries):
            continue
        other = next((entry for entry in entries if entry.claim is not None), None)
        if other is not None:
            if len({a.claim for a in books.addresses_of[place]}) == 1:
                yield _about(
                    address,
                    "HolderDiffers",
                    f"it is of {address.claim}, but {other} says that {other.claim} holds {address.text}",
                    "find out who uses the address, and delete the claim that does not",
                    other.claim,
                )
        elif books.settled(address.claim) and entries:
            use = "released" if entries[0].released else "kept by an administrator"
            wrong = f"{address.claim} has {address.text}, but {entries[0]} says that it is {use}"
            yield _about(address, "ReservationNotHeld", wrong, f"delete {entries[0]}: the allocator makes it anew")
        elif books.settled(address.claim):
            wrong = f"{address.text} has no IPReservation in domain {place[0]}, so another claim could be given it"
            yield _about(address, "ReservationMissing", wrong, _REPAIRED)


def _addresses_are_sound(books: Books) -> Iterator[Discrepancy]:
    """An IPAddress has an address, its claim, and its pool."""
    for address in books.addresses:
        if address.ip is None:
            wrong = f"{address.text!r} is not an address"
            yield _about(address, "MalformedAddress", wrong, "delete it: the allocator makes it anew for its claim")
        if address.deleting:
            continue
        if not books.exists(address.claim):
            yield _about(address, "ClaimMissing", f"{address.claim} does not exist", _RETURNED)
        pool = books.pools.get(address.pool)
        if pool is None:
            action = "create the pool again as it was, or delete the claim"
            yield _about(address, "PoolMissing", f"{address.pool} does not exist", action)
            continue
        claim = books.claims.get(address.claim)
        if claim is not None and claim.pool != address.pool:
            wrong = f"it is of {address.pool}, but {claim.key} asks for {claim.pool}"
            yield _about(address, "PoolDiffers", wrong, "delete the claim, so that its owner asks again")
        if claim is not None and claim.settled and not address.protected:
            wrong = f"{claim.key} is bound to it, but it has no finalizer of the allocator: a deletion takes effect"
            yield _about(address, "FinalizerMissing", wrong, _REPAIRED)


def _addresses_are_in_range(books: Books) -> Iterator[Discrepancy]:
    """Worth knowing: an address that its pool would not give any more."""
    for address in books.addresses:
        pool = books.pools.get(address.pool)
        if pool is None or address.ip is None:
            continue
        why = pool.space.why_not(point(address.ip))
        if why is not None:
            action = "none is needed: it keeps the address until it is deleted; widen the pool if it should not count"
            yield _about(address, "OutOfRange", f"{pool.key}: {why[1]}", action)._replace(information=True)


def _entries_are_sound(books: Books) -> Iterator[Discrepancy]:
    """An IPReservation has an address and the name that follows from it; one lock has one name."""
    for entry in books.entries:
        spaces = frozenset({entry.claim.namespace}) if entry.claim is not None else frozenset[str]()
        if entry.ip is None:
            wrong = f"{entry.text!r} is not an address"
            yield Discrepancy("MalformedReservation", str(entry), wrong, "delete it", spaces)
            continue
        name = entry_name(entry.domain, entry.ip)
        if entry.name != name:
            wrong = f"{entry.ip} in domain {entry.domain} is locked by the name {name} alone, so this protects nothing"
            action = f"create IPReservation {name} with the same spec and delete this one; install deploy/crds"
            yield Discrepancy("ReservationNameWrong", str(entry), wrong, action, spaces)


def _entries_are_used(books: Books) -> Iterator[Discrepancy]:
    """An IPReservation is held by a claim that exists and, once bound, has the IPAddress."""
    for entry in books.entries:
        if entry.claim is None or entry.ip is None:
            continue
        spaces = frozenset({entry.claim.namespace})
        claim = books.claims.get(entry.claim)
        mine = [a for a in books.addresses_of.get((entry.domain, entry.ip), ()) if a.claim == entry.claim]
        if not books.exists(entry.claim):
            wrong = f"it is held by {entry.claim}, which does not exist"
            yield Discrepancy("HolderMissing", str(entry), wrong, _RETURNED, spaces)
        elif claim is not None and claim.settled and not mine:
            wrong = (
                f"it is held by {claim.key}, which is bound, but there is no IPAddress of that claim with {entry.ip}"
            )
            yield Discrepancy("AddressMissing", str(entry), wrong, _REPAIRED, spaces)
        elif mine and entry.pool is not None and entry.pool != mine[0].pool:
            wrong = f"it is counted for {entry.pool}, but {mine[0]} is of {mine[0].pool}"
            action = f"set its spec.pool to {mine[0].pool}"
            yield Discrepancy("ReservationPoolDiffers", str(entry), wrong, action, spaces)


def _claims_are_sound(books: Books) -> Iterator[Discrepancy]:
    """A bound claim names its one IPAddress and cannot vanish without returning it."""
    for claim in books.claims.values():
        if not claim.settled:
            continue
        spaces = frozenset({claim.key.namespace})
        identity = (claim.key.kind, claim.key.namespace, claim.named)
        named = books.by_name.get(identity)
        if named is None and identity not in books.names:
            wrong = f"its status names IPAddress {claim.named}, which does not exist"
            yield Discrepancy("NamedAddressMissing", str(claim.key), wrong, _REPAIRED, spaces)
        elif named is None or named.claim != claim.key:
            owner = named.claim if named is not None else "another provider"
            wrong = f"its status names IPAddress {claim.named}, which is of {owner}"
            action = "delete the claim, so that its owner asks again"
            yield Discrepancy("NamedAddressForeign", str(claim.key), wrong, action, spaces)
        if not claim.protected:
            wrong = "it is bound but has no finalizer of the allocator: once deleted, its address is not returned"
            yield Discrepancy("FinalizerMissing", str(claim.key), wrong, _REPAIRED, spaces)
        several = sorted(str(a) for a in books.by_claim.get(claim.key, ()) if not a.deleting)
        if len(several) > 1:
            wrong = f"it has {len(several)} IPAddresses: {', '.join(several)}"
            action = (
                f"the allocator returns those that status does not name (it names {claim.named}): check that it runs"
            )
            yield Discrepancy("SeveralAddresses", str(claim.key), wrong, action, spaces)


_RULES = (
    _objects_are_readable,
    _one_holder,
    _addresses_are_reserved,
    _addresses_are_sound,
    _addresses_are_in_range,
    _entries_are_sound,
    _entries_are_used,
    _claims_are_sound,
)


def _about(address: AddressFact, kind: str, wrong: str, action: str, other: ClaimKey | None = None) -> Discrepancy:
    namespaces = {address.claim.namespace, address.pool.namespace, *((other.namespace,) if other else ())} - {""}
    return Discrepancy(kind, str(address), wrong, action, frozenset(namespaces))
