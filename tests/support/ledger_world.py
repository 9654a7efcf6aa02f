"""A ledger with short words for what happens to it: addresses as text, claims by name."""

from __future__ import annotations

import random

from services.ipam import intervals
from services.ipam.api import ClaimKey, PoolKey, PoolRange, PoolSpec
from services.ipam.intervals import point
from services.ipam.ledger import Ledger, Refusal
from services.ipam.slots import Holding, Reservation, Use
from services.ipam.space import PoolSpace

ONE, TWO, ALL = PoolKey("IPPool", "ns", "one"), PoolKey("IPPool", "ns", "two"), PoolKey("GlobalIPPool", "", "all")
SMALL = [{"start": "10.0.0.1", "end": "10.0.0.3"}]


def claim(name, kind="IPClaim"):
    return ClaimKey(kind, "ns", name)


class World:
    """A ledger that remembers what it told, with short words for what happens to it."""

    def __init__(self, entries=None, **spec):
        self.woken, self.touched = [], []
        self.ledger = Ledger(wake=lambda key: self.woken.append(key.name), touched=self.touched.append)
        self.now = 0.0
        if entries is not None:
            self.pool(ONE, entries, **spec)

    def pool(self, key, entries, *, domain="default", random_order=False, **spec):
        ranges = tuple(PoolRange(**entry) for entry in entries)
        return self.ledger.set_pool(key, domain, PoolSpace(PoolSpec(pools=ranges, **spec)), random_order=random_order)

    def choose(self, name="x", pool=ONE, *, requested=None, age=0, seed=1):
        """An address as text, or the refusal."""
        state = self.ledger.pools[pool]
        at = None if requested is None else point(requested)
        found = self.ledger.choose(state, claim(name), ("", age), at, self.now, random.Random(seed))
        return found if isinstance(found, Refusal) else intervals.text(found)

    def hold(self, *addresses, name="holder", pool=ONE, domain="default"):
        for address in addresses:
            self.ledger.set_reservation(domain, point(address), Reservation(address, Use.HELD, claim(name), pool))

    def admin(self, address, domain="default"):
        self.ledger.set_reservation(domain, point(address), Reservation(address, Use.ADMIN, None, None))

    def release(self, address, name="holder", *, until=0.0, pool=ONE):
        reservation = Reservation(address, Use.RELEASED, claim(name), pool, until)
        self.ledger.set_reservation("default", point(address), reservation)

    def free(self, address, domain="default"):
        self.ledger.set_reservation(domain, point(address), None)

    def wait(self, name, age=0, pool=ONE):
        self.ledger.wait(self.ledger.pools[pool], claim(name), ("", age))

    def pick(self, name, address, pool=ONE):
        self.ledger.begin(self.ledger.pools[pool], point(address), claim(name))

    def told(self):
        """Names of the claims woken since the last call."""
        names, self.woken[:] = list(self.woken), []
        return names

    def counts(self, pool=ONE):
        """(total, used, free, reserved, cooling, out of range)."""
        found = self.ledger.pools[pool].counts(self.now)
        assert found.total == found.used + found.free + found.reserved + found.cooling
        return tuple(getattr(found, name) for name in found.__struct_fields__)


def holding(address, name="adopted", pool=ONE, *, owner="adopter", kind="IPClaim"):
    return Holding(kind, "ns", name, claim(owner, kind), pool, point(address))
