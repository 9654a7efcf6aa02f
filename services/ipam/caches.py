"""The local copies of everything the allocator looks at, and how their changes reach the ledger and the queues.

Responsible for: one store per resource with its indexes; translating store events into ledger changes and into keys
to look at.
Invariant: after a handler ran, the ledger agrees with the stores; a key is queued whenever something that its decision
depends on changed.
Must not know: what is decided about a key.
"""

from __future__ import annotations

import itertools
from collections import Counter
from typing import TYPE_CHECKING

from services.ipam import api, kinds
from services.ipam.api import ClaimKey, PoolKey
from services.ipam.kinds import CAPI, METAL3
from services.ipam.poolobjects import RESOURCES, cluster_paused, pool_cluster_name, pool_key, read_pool
from services.ipam.slots import Use
from services.runtime import log
from services.runtime.cache.store import Store
from services.runtime.kube.objects import KubeObject, ObjectKey

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from services.ipam.api import PoolSpec
    from services.ipam.ledger import Ledger
    from services.ipam.slots import Holding

_LOG = log.get("ipam.caches")


class Caches:
    """Stores, and the subscriptions that feed `ledger` and the queues."""

    def __init__(
        self,
        ledger: Ledger,
        queue_claim: Callable[[ClaimKey], None],
        queue_pool: Callable[[PoolKey], None],
        touch_pool: Callable[[PoolKey], None],
        namespaces: Collection[str] = (),
    ) -> None:
        """`touch_pool` queues a pool for a little later, so that many changes of its numbers lead to one look at it.

        `namespaces`: those that are watched, none for all; claims of others belong to other replicas.
        """
        self.ledger = ledger
        self._namespaces = frozenset(namespaces)
        self._add_claim = queue_claim
        self._queue_pool = queue_pool
        self._touch_pool = touch_pool
        self._sequence = itertools.count()
        self.tenants: dict[PoolKey, Counter[str]] = {}
        """Number of IPAddresses of each pool by namespace, other than its own."""
        self.specs: dict[PoolKey, PoolSpec] = {}
        """Of each pool, as it was read: a long one would take too long to be read again for each claim."""
        self.restored: set[ClaimKey] = set()
        """Claims that came with marks of being served while nothing of theirs was there: as from a backup."""
        self.arrivals: dict[ClaimKey, int] = {}
        """Order in which claims without an address were first seen, to tell apart those created in the same second."""
        self.pools = {kind: Store[KubeObject](kind, {"cluster": _pool_cluster}) for kind in RESOURCES}
        self.claims = {
            kind: Store[KubeObject](kind, {"waiting": _waits_for(kind), "cluster": _claim_cluster(kind)})
            for kind in (METAL3, CAPI)
        }
        self.addresses = {
            kind: Store[KubeObject](
                f"IPAddress of {kind}", {"claim": _address_claim(kind), "cluster": _address_cluster}
            )
            for kind in (METAL3, CAPI)
        }
        self.reservations = Store[KubeObject](
            "IPReservation", {"held": _held_by, "last": _released_by, "released": _released_through}
        )
        self.clusters = Store[KubeObject]("Cluster")

    def subscribe(self) -> None:
        """Start to feed the ledger; reservations and pools first, so that addresses find their place at once."""
        self.reservations.subscribe(self._reservation_changed)
        for pools in self.pools.values():
            pools.subscribe(self._pool_changed)
        for kind, addresses in self.addresses.items():
            addresses.subscribe(lambda old, new, kind=kind: self._address_changed(kind, old, new))  # type: ignore[misc]  # mypy cannot infer a lambda with a default
        for kind, claims in self.claims.items():
            claims.subscribe(lambda old, new, kind=kind: self._claim_changed(kind, old, new))  # type: ignore[misc]  # as above
        self.clusters.subscribe(self._cluster_changed)

    def age(self, key: ClaimKey, obj: KubeObject) -> tuple[str, int]:
        """Place of a claim among those that wait: creation time, then order of arrival."""
        return (obj.metadata.creationTimestamp or "", self.arrivals.get(key, 0))

    def group_of(self, key: ClaimKey) -> tuple[PoolKey | None, bool] | None:
        """Claims are worked on by groups in turn: of each pool those that wait, and those that have their address.

        So nobody waits for another pool's claims nor, after a start, until all that are bound were looked at. None when
        the claim is gone or not ours.
        """
        obj = self.claim(key)
        if obj is None:
            return None
        claim = kinds.read_claim(key.kind, obj)
        return claim.pool, bool(claim.bound)

    def claim_settled(self, key: ClaimKey) -> bool:
        """Tell that a claim is gone and that nothing which was made for it is left."""
        held = self.addresses[key.kind].keys("claim", key) or self.reservations.keys("held", key)
        return not held and self.claim(key) is None

    def pool_settled(self, key: PoolKey) -> bool:
        """Tell that a pool is gone and that nothing is remembered of its addresses."""
        return self.pool(key) is None and not self.reservations.keys("released", key)

    def pool(self, key: PoolKey) -> KubeObject | None:
        """Pool object by key."""
        return self.pools[key.kind].get(ObjectKey(key.namespace, key.name))

    def claim(self, key: ClaimKey) -> KubeObject | None:
        """Claim object by key."""
        return self.claims[key.kind].get(ObjectKey(key.namespace, key.name))

    def _queue_claim(self, key: ClaimKey) -> None:
        # Reservations are cluster-scoped: some are held by claims that this process cannot see.
        if self._watches(key.namespace):
            self._add_claim(key)

    def _watches(self, namespace: str) -> bool:
        return not (self._namespaces and namespace) or namespace in self._namespaces

    def _reservation_changed(self, old: KubeObject | None, new: KubeObject | None) -> None:
        after = kinds.read_reservation(new) if new is not None else None
        before = kinds.read_reservation(old) if old is not None else None
        if before is not None and (after is None or before[:2] != after[:2]):
            self.ledger.set_reservation(before[0], before[1], None)
        if after is not None:
            self.ledger.set_reservation(*after)
        for item in (before, after):
            if item is None:
                continue
            domain, at, reservation = item
            if reservation.use is Use.HELD and reservation.claim is not None:
                self._queue_claim(reservation.claim)
            slot = self.ledger.slot(domain, at)
            for holding in slot.holdings if slot is not None else ():
                if holding.claim != reservation.claim:  # whose address it was that somebody else had reserved
                    self._queue_claim(holding.claim)
        if after is not None and after[2].use is Use.RELEASED and after[2].pool is not None:
            pool = after[2].pool
            if self._watches(pool.namespace) and self.pool(pool) is None:
                self._queue_pool(pool)

    def _address_changed(self, kind: str, old: KubeObject | None, new: KubeObject | None) -> None:
        after = kinds.read_address(kind, new) if new is not None else None
        before = kinds.read_address(kind, old) if old is not None else None
        self.ledger.set_holding(before, after)
        for holding, step in ((before, -1), (after, 1)):
            if holding is not None:
                self._queue_claim(holding.claim)
                if holding.namespace != holding.pool.namespace:
                    self._count_tenant(holding, step)
        obj = new if new is not None else old
        if kind == CAPI and obj is not None:
            # Whoever it was made for, a claim of its name may wait for the name.
            self._queue_claim(ClaimKey(kind, obj.metadata.namespace, obj.metadata.name))

    def _count_tenant(self, holding: Holding, step: int) -> None:
        tenants = self.tenants.setdefault(holding.pool, Counter())
        tenants[holding.namespace] += step
        if not tenants[holding.namespace]:
            del tenants[holding.namespace]
            if not tenants:
                del self.tenants[holding.pool]

    def _claim_changed(self, kind: str, old: KubeObject | None, new: KubeObject | None) -> None:
        obj = new if new is not None else old
        assert obj is not None
        key = ClaimKey(kind, obj.metadata.namespace, obj.metadata.name)
        if new is None:
            self.arrivals.pop(key, None)
            self.restored.discard(key)
            self.ledger.stop_waiting(key)
        elif not kinds.read_claim(kind, new).bound:
            self.arrivals.setdefault(key, next(self._sequence))
        else:
            self.arrivals.pop(key, None)
        if new is not None and (old is None or old.metadata.uid != new.metadata.uid) and self.claims[kind].synced:
            claim = kinds.read_claim(kind, new)
            if claim.protected or claim.bound:
                self.restored.add(key)
        self._queue_claim(key)

    def _pool_changed(self, old: KubeObject | None, new: KubeObject | None) -> None:
        obj = new if new is not None else old
        assert obj is not None
        key = pool_key(obj)
        if new is None:
            self.ledger.remove_pool(key)
            self.specs.pop(key, None)
            self._queue_waiting(key)
        else:
            if old is None or old.spec != new.spec:
                spec, space = read_pool(new)
                random_order = spec.allocation_strategy == "random"
                domain = self.specs[key].domain if key in self.specs else None
                self.ledger.set_pool(key, spec.domain, space, random_order=random_order)
                self.specs[key] = spec
                # Those that wait are woken by the ledger; of those that have an address only these may be concerned.
                same = spec.domain == domain
                for claim in self.ledger.claims_through(key, {spec.domain, domain or spec.domain}, bare=same):
                    self._queue_claim(claim)
            if old is None or _serving(old) != _serving(new):
                self._queue_waiting(key)
        if old is None or new is None or old.status == new.status:
            self._queue_pool(key)
        else:
            # Nearly always our own write: if it led to the next one at once, a busy pool's would never end.
            self._touch_pool(key)

    def _cluster_changed(self, old: KubeObject | None, new: KubeObject | None) -> None:
        obj = new if new is not None else old
        assert obj is not None
        if old is not None and new is not None and cluster_paused(old) == cluster_paused(new):
            return
        for kind, claims in self.claims.items():
            for key in list(claims.keys("cluster", obj.key)):
                self._queue_claim(ClaimKey(kind, key.namespace, key.name))
        for kind, addresses in self.addresses.items():
            # Of claims that are gone, which no list of claims has any more.
            for item in addresses.by_index("cluster", obj.key):
                holding = kinds.read_address(kind, item)
                if holding is not None and self.claim(holding.claim) is None:
                    self._queue_claim(holding.claim)
        for kind, pools in self.pools.items():
            for key in list(pools.keys("cluster", obj.key)):
                pool = PoolKey(kind, key.namespace, key.name)
                self._queue_pool(pool)
                self._queue_waiting(pool)

    def _queue_waiting(self, pool: PoolKey) -> None:
        """Queue the claims that a pool has yet to serve or to release, oldest first."""
        waiting: list[tuple[tuple[str, int], ClaimKey]] = []
        for kind, claims in self.claims.items():
            for obj in claims.by_index("waiting", pool):
                key = ClaimKey(kind, obj.metadata.namespace, obj.metadata.name)
                waiting.append((self.age(key, obj), key))
        for _, key in sorted(waiting):
            self._queue_claim(key)


def _serving(obj: KubeObject) -> tuple[object, ...]:
    return obj.spec, kinds.is_paused(obj), obj.deleting, obj.metadata.labels


def _pool_cluster(obj: KubeObject) -> tuple[ObjectKey, ...]:
    name = pool_cluster_name(obj)
    return (ObjectKey(obj.metadata.namespace, name),) if name else ()


def _waits_for(kind: str) -> Callable[[KubeObject], tuple[PoolKey, ...]]:
    def index(obj: KubeObject) -> tuple[PoolKey, ...]:
        claim = kinds.read_claim(kind, obj)
        return (claim.pool,) if claim.pool is not None and (obj.deleting or not claim.bound) else ()

    return index


def _claim_cluster(kind: str) -> Callable[[KubeObject], tuple[ObjectKey, ...]]:
    def index(obj: KubeObject) -> tuple[ObjectKey, ...]:
        name = kinds.read_claim(kind, obj).cluster
        return (ObjectKey(obj.metadata.namespace, name),) if name else ()

    return index


def _address_claim(kind: str) -> Callable[[KubeObject], tuple[ClaimKey, ...]]:
    def index(obj: KubeObject) -> tuple[ClaimKey, ...]:
        holding = kinds.read_address(kind, obj)
        return (holding.claim,) if holding is not None else ()

    return index


def _address_cluster(obj: KubeObject) -> tuple[ObjectKey, ...]:
    name = (obj.metadata.labels or {}).get(api.CLUSTER_NAME_LABEL, "")
    return (ObjectKey(obj.metadata.namespace, name),) if name else ()


def _held_by(obj: KubeObject) -> tuple[ClaimKey, ...]:
    item = kinds.read_reservation(obj)
    return (item[2].claim,) if item is not None and item[2].use is Use.HELD and item[2].claim is not None else ()


def _released_by(obj: KubeObject) -> tuple[ClaimKey, ...]:
    item = kinds.read_reservation(obj)
    return (item[2].claim,) if item is not None and item[2].use is Use.RELEASED and item[2].claim is not None else ()


def _released_through(obj: KubeObject) -> tuple[PoolKey, ...]:
    item = kinds.read_reservation(obj)
    return (item[2].pool,) if item is not None and item[2].use is Use.RELEASED and item[2].pool is not None else ()
