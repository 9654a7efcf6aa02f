"""Checks of pools, claims and the ledger; the last with the rules of `groundwork ipam verify`.

Invariant: pure; nothing is said of what was not read, and much of one kind is said once.
Must not know: how it was read, how findings look.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from services.doctor.finding import Finding, Level, many, some
from services.doctor.seen import Unread
from services.ipam import api, intervals
from services.ipam.cli import overview, verify
from services.ipam.cli.snapshot import Snapshot
from services.ipam.poolobjects import pool_key, read_pool_spec
from services.ipam.space import PoolSpace
from services.runtime.kube.conditions import Condition, find, parse_timestamp
from services.runtime.kube.objects import view

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from services.doctor.seen import Seen
    from services.ipam.api import PoolKey
    from services.ipam.cli.overview import PoolRow
    from services.runtime.kube.objects import KubeObject

NEARLY_FULL = 0.9
PATIENCE = timedelta(seconds=60)
"""A claim that is younger may still be on its way."""
_MOST = 20
"""Pairs of pools that are named one by one."""


def pools(seen: Seen) -> Iterator[Finding]:
    """Every pool can be served, has addresses left, and shares none by accident."""
    books = seen.books
    if isinstance(books.pools, Unread):
        return
    whole = Snapshot(books.pools)
    counted = not isinstance(books.addresses, Unread) and not isinstance(books.reservations, Unread)
    if not isinstance(books.addresses, Unread) and not isinstance(books.reservations, Unread):
        whole = whole._replace(addresses=books.addresses, reservations=books.reservations)
    rows = overview.pool_rows(whole, seen.now.timestamp())
    bad = 0
    for row in rows:
        found = list(_pool(row, counted=counted))
        bad += bool(found)
        yield from found
    yield from _overlaps(books.pools)
    if len(rows) > bad:
        measure = "no mistakes, addresses left" if counted else "no mistakes"
        yield Finding(Level.OK, "pools", "", f"{many(len(rows) - bad, 'pool')}: {measure}")


def _pool(row: PoolRow, *, counted: bool) -> Iterator[Finding]:
    name = "/".join(filter(None, (row.key.namespace, row.key.name)))
    if not row.ready:
        level = Level.INFO if row.reason == "PoolPaused" else Level.WARNING
        yield Finding(level, "pools", str(row.key), f"{row.reason}: {row.message}", "docs/tasks/troubleshoot.md")
    if not counted or row.fill is None or row.fill < NEARLY_FULL:
        return
    left = f"{row.free} of {row.total} addresses are free" if row.free else f"none of {row.total} addresses is free"
    # Cooling ones are given when nothing else is left.
    cooling = f", {row.cooling} are cooling" if row.cooling else ""
    yield Finding(
        Level.WARNING, "pools", str(row.key), left + cooling, f"groundwork ipam addresses --pool {row.key.kind}/{name}"
    )


class _Span(NamedTuple):
    first: int
    last: int
    pool: PoolKey


def _overlaps(objects: Sequence[KubeObject]) -> Iterator[Finding]:
    domains: dict[PoolKey, str] = {}
    spans: list[_Span] = []
    for obj in objects:
        spec, _ = read_pool_spec(obj)
        key = pool_key(obj)
        domains[key] = spec.domain
        spans += [_Span(span.first, span.last, key) for span in PoolSpace(spec).spans]
    pairs: dict[tuple[PoolKey, PoolKey], _Span] = {}
    going_on: list[_Span] = []
    for span in sorted(spans):
        going_on = [each for each in going_on if each.last >= span.first]
        for each in going_on:
            if each.pool != span.pool and len(pairs) <= _MOST:
                pair = (min(each.pool, span.pool), max(each.pool, span.pool))
                pairs.setdefault(pair, _Span(span.first, min(each.last, span.last), span.pool))
        going_on.append(span)
    for (one, other), span in sorted(pairs.items())[:_MOST]:
        shared = f"{intervals.text(span.first)}-{intervals.text(span.last)}"
        if domains[one] == domains[other]:
            what = f"it shares {shared} with {other}: each address is given once all the same"
            yield Finding(Level.INFO, "pools", str(one), what, "nothing, if it is meant: docs/tasks/share-a-range.md")
        else:
            what = f"it has {shared} too, which {other} has in another domain: on one network they are given twice"
            action = "give both pools one spec.domain, unless they are different networks: docs/concepts/domain.md"
            yield Finding(Level.WARNING, "pools", str(one), what, action)
    if len(pairs) > _MOST:
        yield Finding(Level.INFO, "pools", "", f"more than {_MOST} pairs of pools have the same addresses")


# -- claims --------------------------------------------------------------------------------------------------------


def claims(seen: Seen) -> Iterator[Finding]:
    """Every claim of our pools has its address."""
    found = seen.books.claims
    if isinstance(found, Unread):
        return
    waiting: dict[tuple[str, str], list[str]] = defaultdict(list)
    for obj in found:
        created = obj.metadata.creationTimestamp
        young = created is not None and seen.now - parse_timestamp(created) < PATIENCE
        why = None if young or obj.deleting else _waits(obj)
        if why is not None:
            waiting[why].append(f"{obj.kind} {obj.key}")
    for (reason, message), names in sorted(waiting.items()):
        count = "1 claim waits" if len(names) == 1 else f"{len(names)} claims wait"
        kind, _, key = names[0].partition(" ")
        namespace, _, name = key.partition("/")
        action = f"kubectl describe {kind.lower()} -n {namespace} {name}; reasons are in docs/tasks/troubleshoot.md"
        what = f"{count}, {reason}: {message}" if message else f"{count}, {reason}"
        yield Finding(Level.WARNING, "claims", some(sorted(names)), what, action)
    if not waiting:
        yield Finding(Level.OK, "claims", "", f"none of {many(len(found), 'claim')} waits")


def _waits(obj: KubeObject) -> tuple[str, str] | None:
    """Why a claim has no address: reason and message; None when it has one, or is not ours to serve."""
    try:
        if obj.kind == api.IP_CLAIMS.kind:
            address = view(obj.status, api.IPClaimStatus).address
            bound = address is not None and bool(address.name)
            ours = True
        else:
            ref = view(obj.status, api.CapiClaimStatus).address_ref
            bound = ref is not None and bool(ref.name)
            ours = view(obj.spec, api.CapiClaimSpec).pool_ref.api_group in {api.METAL3_GROUP, api.OWN_GROUP}
        conditions = view(obj.status, _Status).conditions
    except msgspec.ValidationError as error:
        return "Unreadable", str(error)
    if bound or not ours:
        return None
    ready = find(conditions, api.READY)
    if ready is None or not ready.reason:
        return "NotLookedAt", "no allocator has said anything about it: see whether one runs and watches the namespace"
    return ready.reason, ready.message


class _Status(msgspec.Struct):
    conditions: tuple[Condition, ...] = ()


# -- the ledger ----------------------------------------------------------------------------------------------------


def ledger(seen: Seen) -> Iterator[Finding]:
    """Claims, IPAddresses and IPReservations agree; what two looks have in common counts."""
    first = seen.books.snapshot
    if first is None:
        return
    found = [item for item in verify.check(first) if not item.information]
    if found:
        if seen.again is None:
            return
        found = [item for item in verify.persistent(set(found), verify.check(seen.again)) if not item.information]
    kinds: dict[str, list[verify.Discrepancy]] = defaultdict(list)
    for item in found:
        kinds[item.kind].append(item)
    for kind, items in sorted(kinds.items()):
        subject = some([item.subject for item in items])
        one = f"{kind}: {items[0].wrong}"
        what = one if len(items) == 1 else f"{len(items)} times {one}"
        yield Finding(Level.ERROR, "ledger", subject, what, f"{items[0].action}; all: groundwork ipam verify")
    if not found:
        counted = (many(len(first.claims), "claim"), many(len(first.reservations), "IPReservation"))
        what = f"{counted[0]}, {len(first.addresses)} IPAddresses and {counted[1]} agree"
        yield Finding(Level.OK, "ledger", "", what)
