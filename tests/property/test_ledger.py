"""The ledger against the oracle: every sequence of events, small pools, all numbers compared after each event."""

import ipaddress
import random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from services.ipam import intervals
from services.ipam.api import ClaimKey, PoolKey
from services.ipam.ledger import Ledger, Refusal
from services.ipam.slots import Holding, Reservation, Use
from services.ipam.space import PoolSpace
from tests.support import oracle
from tests.support.pool_specs import NAMES, pool_spec, universe

USES = {oracle.HELD: Use.HELD, oracle.ADMIN: Use.ADMIN, oracle.RELEASED: Use.RELEASED}
DOMAINS = ("default", "site-b")
# Few addresses, so that pools run empty and claims wait; all overlap, so that an edit grows, shrinks or moves a pool.
FOUR = ipaddress.ip_network("192.0.2.0/29")
SIX = ipaddress.ip_network("2001:db8::/126")
SPECS = (
    {"entries": [{"subnet": "192.0.2.0/29"}]},
    {"entries": [{"subnet": "192.0.2.0/29"}], "gateway": "192.0.2.1", "pre": {"a": "192.0.2.3", "b": "192.0.2.1"}},
    {"entries": [{"subnet": "192.0.2.0/29"}], "excluded": ["192.0.2.2-192.0.2.4"]},
    {"entries": [{"start": "192.0.2.4", "end": "192.0.2.6"}, {"subnet": "192.0.2.0/29"}], "pre": {"c": "192.0.2.5"}},
    {"entries": [{"start": "192.0.2.2", "end": "192.0.2.2"}]},
    {"entries": [{"start": "192.0.2.2", "end": "192.0.2.3"}]},
    {"entries": [{"subnet": "192.0.2.0/29"}], "whole": True},
    {"entries": [{"start": "192.0.2.1", "end": "192.0.2.5"}], "excluded": ["192.0.2.0/29"]},
    {"entries": [{"subnet": "2001:db8::/126"}]},
    {
        "entries": [{"subnet": "2001:db8::/126"}, {"start": "192.0.2.6", "end": "192.0.2.7"}],
        "pre": {"d": "2001:db8::2"},
    },
)
POOLS = (*(PoolKey("IPPool", "ns", name) for name in ("one", "two", "three")), PoolKey("GlobalIPPool", "", "all"))
CLAIMS = tuple(ClaimKey(kind, "ns", name) for kind in ("IPClaim", "IPAddressClaim") for name in NAMES)

pools = st.sampled_from(POOLS)
claims = st.sampled_from(CLAIMS)
domains = st.sampled_from((DOMAINS[0], *DOMAINS))  # most of the time the same
addresses = universe(FOUR) | universe(SIX)
all_specs = st.sampled_from(SPECS)


def point(ip):
    return intervals.point(str(ip))


def ip_of(at):
    return ipaddress.ip_address(intervals.text(at))


class LedgerMachine(RuleBasedStateMachine):
    """Claims behave as the reconciler does: a refused one waits, a woken one asks again."""

    def __init__(self):
        super().__init__()
        self.ledger = Ledger(wake=self._on_wake, touched=self._on_touch)
        self.model = oracle.LedgerModel()
        self.now = 1000.0
        self.ages = {claim: ("2026-01-01T00:00:00Z", number) for number, claim in enumerate(CLAIMS)}
        self.wishes = {}  # claim -> (pool, address or None), of those that asked and have not got one
        self.awake = []  # woken, not yet run
        self.picks = []  # (domain, address, claim, pool) in flight
        self.woken = []  # during the current event
        self.touched = set()  # as above
        self.names = 0

    def _on_wake(self, claim):
        self.woken.append(claim)
        if claim not in self.awake:
            self.awake.append(claim)

    def _on_touch(self, pool):
        self.touched.add(pool)

    # Every event goes through here, so that what it wakes and touches is checked.

    def event(self, real, model, *, exact=True, dropped=()):
        """Apply an event to both sides; `exact`: it must wake those it makes eligible and nobody else."""
        eligible, freed, watched = self.model.all_eligible(), self.model.freed(), dict(self.model.watch)
        numbers = self._numbers()
        self.woken.clear()
        self.touched.clear()
        real()
        model()
        wanted = self.model.all_eligible() - eligible | {
            claim for claim in self.model.freed() - freed if watched.get(claim) == self.model.watch[claim]
        }
        wanted |= set(dropped)
        if exact:
            assert set(self.woken) == wanted
        else:
            assert set(self.woken) >= wanted
        after = self._numbers()
        assert {pool for pool in after if after[pool] != numbers.get(pool)} <= self.touched

    def _numbers(self):
        """What a pool's status shows."""
        return {
            pool: (
                self.model.counts(pool, self.now),
                self.model.waiting(pool),
                self.model.overlaps(pool),
                {ip: who for ip, (who, via) in self.model.conflicts(self.model.pools[pool][0]).items() if pool in via},
            )
            for pool in self.model.pools
        }

    # Pools

    @initialize(spec=all_specs, random_order=st.booleans(), left=st.integers(0, 8), more=st.none() | all_specs)
    def begin_with_pools_that_are_nearly_empty(self, spec, random_order, left, more):
        self.set_pool(POOLS[0], DOMAINS[0], spec, random_order)
        for ip in sorted(self.model.obtainable(POOLS[0]), key=oracle.order)[left:]:
            self.reserve(DOMAINS[0], ip, oracle.HELD, CLAIMS[0], POOLS[0], 0)
        if more is not None:
            self.set_pool(POOLS[1], DOMAINS[0], more, not random_order)

    @rule(pool=pools, domain=domains, spec=all_specs, random_order=st.booleans())
    def set_pool(self, pool, domain, spec, random_order):
        moves = pool in self.model.pools and self.model.pools[pool][0] != domain
        self.event(
            lambda: self.ledger.set_pool(pool, domain, PoolSpace(pool_spec(**spec)), random_order=random_order),
            lambda: self.model.set_pool(pool, domain, oracle.PoolModel(**spec), random_order=random_order),
            exact=False,
            dropped=self.model.waiting(pool) if moves else (),
        )

    @rule(pool=pools)
    def remove_pool(self, pool):
        self.event(
            lambda: self.ledger.remove_pool(pool),
            lambda: self.model.remove_pool(pool),
            dropped=self.model.waiting(pool) if pool in self.model.pools else (),
        )

    # IPReservations and IPAddresses, by whoever

    @rule(
        domain=domains,
        ip=addresses,
        use=st.sampled_from(list(USES)),
        claim=claims,
        pool=pools | st.none(),
        delay=st.sampled_from([-5, 0, 5, 10]),
    )
    def reserve(self, domain, ip, use, claim, pool, delay):
        owner = None if use == oracle.ADMIN else claim
        reusable_at = self.now + delay if use == oracle.RELEASED else 0.0
        real = Reservation("name", USES[use], owner, pool, reusable_at)
        self._reserve(domain, ip, real, (use, owner, pool, reusable_at))

    def _reserved(self, *uses):
        found = [key for key, slot in self.model.slots.items() if slot.reservation and slot.reservation[0] in uses]
        return st.sampled_from(sorted(found, key=lambda key: (key[0], oracle.order(key[1]))))

    @precondition(lambda self: any(slot.reservation for slot in self.model.slots.values()))
    @rule(data=st.data())
    def unreserve(self, data):
        domain, ip = data.draw(self._reserved(*USES))
        self._reserve(domain, ip, None, None)

    @precondition(
        lambda self: any(s.reservation and s.reservation[0] == oracle.HELD for s in self.model.slots.values())
    )
    @rule(data=st.data(), delays=st.lists(st.sampled_from([0, 10, 20]), min_size=1, max_size=3))
    def give_back(self, data, delays):
        keys = data.draw(st.lists(self._reserved(oracle.HELD), min_size=1, max_size=len(delays), unique=True))
        for (domain, ip), delay in zip(keys, delays, strict=False):
            _, claim, pool, _ = self.model.slots[domain, ip].reservation
            until = self.now + delay
            released = Reservation("name", Use.RELEASED, claim, pool, until)
            self._reserve(domain, ip, released, (oracle.RELEASED, claim, pool, until))

    def _reserve(self, domain, ip, real, model):
        before = self.model.state(domain, ip)

        def change():
            self.model.slot(domain, ip).reservation = model

        rewaited = {c for c, (d, a) in self.model.watch.items() if (d, a) == (domain, ip)}
        # A released address that gets another delay may be told to those who wait for it once more.
        exact = not (rewaited and before[0] == oracle.RELEASED)
        self.event(lambda: self.ledger.set_reservation(domain, point(ip), real), change, exact=exact)

    @rule(claim=claims, pool=pools, ip=addresses)
    def an_address_comes(self, claim, pool, ip):
        self.names += 1
        name = f"address-{self.names}"
        holding = Holding(claim.kind, "ns", name, claim, pool, point(ip))
        self.event(
            lambda: self.ledger.set_holding(None, holding), lambda: self.model.add_holding(name, claim, pool, ip)
        )

    @precondition(lambda self: self.model.objects)
    @rule(data=st.data(), claim=claims, pool=pools, ip=addresses, goes=st.booleans())
    def an_address_goes_or_changes(self, data, claim, pool, ip, goes):
        name = data.draw(st.sampled_from(sorted(self.model.objects)))
        was = self.model.objects[name]
        old = Holding(was[0].kind, "ns", name, was[0], was[1], point(was[2]))
        if goes:
            self.event(lambda: self.ledger.set_holding(old, None), lambda: self.model.remove_holding(name))
            return
        new = Holding(claim.kind, "ns", name, claim, pool, point(ip))

        def change():
            self.model.remove_holding(name)
            self.model.add_holding(name, claim, pool, ip)

        if new != old:
            self.event(lambda: self.ledger.set_holding(old, new), change, exact=False)

    # Claims

    @precondition(lambda self: self.model.pools)
    @rule(data=st.data(), claim=claims, settled=st.sampled_from([None, True, False]))
    def a_claim_asks_for_one_address(self, data, claim, settled):
        pool = data.draw(st.sampled_from(sorted(self.model.pools)))
        domain, model, _ = self.model.pools[pool]
        by_use = {}  # so that the rare uses are asked for as often as the common ones
        for ip in sorted(model.covered, key=oracle.order):
            by_use.setdefault(self.model.state(domain, ip)[0], []).append(ip)
        requested = data.draw(st.one_of(*(st.sampled_from(some) for some in by_use.values()), addresses))
        self.wishes[claim] = (pool, requested)
        self._run(claim, settled)

    @precondition(lambda self: self.model.pools)
    @rule(data=st.data(), some=st.lists(claims, min_size=1, max_size=8, unique=True))
    def claims_ask_for_any_address(self, data, some):
        pool = data.draw(st.sampled_from(sorted(self.model.pools)))
        for claim in some:
            self.wishes[claim] = (pool, None)
            self._run(claim, settled=True)

    @precondition(lambda self: self.awake)
    @rule(settled=st.sampled_from([None, True, False]))
    def a_woken_claim_asks_again(self, settled):
        self._run(self.awake[0], settled)

    @rule(claim=claims)
    def a_claim_goes(self, claim):
        self.wishes.pop(claim, None)
        self._stop(claim)

    @precondition(lambda self: self.model.queue)
    @rule(data=st.data())
    def a_waiting_claim_is_made_anew(self, data):
        claim = data.draw(st.sampled_from(sorted(self.model.queue)))
        self.ages[claim] = ("2026-01-01T00:00:00Z", max(order for _, order in self.ages.values()) + 1)
        self._run(claim, settled=True)

    def _released(self):
        """[(pool, address)] of what a pool covers and a claim gave back."""
        return [
            (pool, ip)
            for pool, (domain, model, _) in sorted(self.model.pools.items())
            for ip in sorted(model.assignable, key=oracle.order)
            if self.model.state(domain, ip)[0] == oracle.RELEASED
        ]

    @precondition(lambda self: self._released())
    @rule(data=st.data(), claim=claims, returns=st.booleans())
    def a_claim_asks_for_what_was_given_back(self, data, claim, returns):
        pool, ip = data.draw(st.sampled_from(self._released()))
        owner = self.model.slots[self.model.pools[pool][0], ip].reservation[1]
        asks = owner if returns else claim
        self.wishes[asks] = (pool, ip)
        self._run(asks, settled=True)

    def _stop(self, claim):
        if claim in self.awake:
            self.awake.remove(claim)
        self.event(lambda: self.ledger.stop_waiting(claim), lambda: self.model.leave(claim))

    def _run(self, claim, settled):
        """One reconcile of a claim. `settled`: its pick succeeds, fails, or (None) stays in flight."""
        if claim in self.awake:
            self.awake.remove(claim)
        pool, requested = self.wishes.get(claim, (None, None))
        if pool not in self.model.pools or any(pick[2] == claim for pick in self.picks):
            self._stop(claim)
            return
        state = self.ledger.pools[pool]
        wanted = None if requested is None else point(requested)
        age = self.ages[claim]
        found = self.ledger.choose(state, claim, age, wanted, self.now, random.Random(self.names))
        allowed, token = self.model.choice(pool, claim, age, requested, self.now, name=claim.name)
        domain = self.model.pools[pool][0]
        if isinstance(found, Refusal):
            assert (found.token, set()) == (token, allowed)
            assert found.exhausted == (token == "PoolExhausted")
            self._wait(found, claim, pool, domain, requested)
            return
        assert ip_of(found) in allowed
        self._begin(domain, ip_of(found), claim, pool)
        if settled is not None:
            self._settle(self.picks[-1], success=settled)

    def _wait(self, refusal, claim, pool, domain, requested):
        if refusal.exhausted:
            if self.model.queue.get(claim) == (pool, self.ages[claim]):
                self.ledger.wait(self.ledger.pools[pool], claim, self.ages[claim])
                return
            again = claim in self.model.queue  # in another pool, or with the age of the claim it replaces

            def change():
                self.model.leave(claim)
                self.model.queue[claim] = (pool, self.ages[claim])

            self.event(
                lambda: self.ledger.wait(self.ledger.pools[pool], claim, self.ages[claim]), change, exact=not again
            )
        elif refusal.address is not None:
            assert refusal.address == point(requested)
            assert (refusal.until is not None) == (refusal.token == "AddressCooling")
            self._stop(claim)
            self.event(
                lambda: self.ledger.wait_for(domain, refusal.address, claim),
                lambda: self.model.watch.update({claim: (domain, requested)}),
            )
        else:
            self._stop(claim)

    def _begin(self, domain, ip, claim, pool):
        def change():
            self.model.slot(domain, ip).pending = (claim, pool)
            self.model.leave(claim)

        self.event(lambda: self.ledger.begin(self.ledger.pools[pool], point(ip), claim), change)
        self.picks.append((domain, ip, claim, pool))

    @precondition(lambda self: self.picks)
    @rule(data=st.data(), success=st.booleans())
    def a_pick_ends(self, data, success):
        self._settle(data.draw(st.sampled_from(self.picks)), success=success)

    def _settle(self, pick, *, success):
        self.picks.remove(pick)
        domain, ip, claim, pool = pick
        slot = self.model.slot(domain, ip)
        if success and (slot.reservation is None or slot.reservation[0] == oracle.RELEASED):
            self._reserve(domain, ip, Reservation("name", Use.HELD, claim, pool), (oracle.HELD, claim, pool, 0.0))
            self.wishes.pop(claim, None)

        def change():
            self.model.slot(domain, ip).pending = None

        self.event(lambda: self.ledger.settle(domain, point(ip)), change)

    @rule(seconds=st.sampled_from([1, 5, 20]))
    def time_passes(self, seconds):
        self.now += seconds

    # What holds at all times

    @invariant()
    def nobody_sleeps_who_could_be_served(self):
        assert self.model.all_eligible() <= set(self.awake)
        cooling = {c for c, (d, ip) in self.model.watch.items() if self.model.state(d, ip)[0] == oracle.RELEASED}
        assert self.model.freed() - cooling <= set(self.awake)

    @invariant()
    def pools_agree(self):
        assert self.ledger.pools.keys() == self.model.pools.keys()
        for pool, (domain, _, random_order) in self.model.pools.items():
            state = self.ledger.pools[pool]
            assert (state.domain, state.random_order) == (domain, random_order)
            assert [[ip_of(at) for i in free for at in range(i.first, i.last + 1)] for free in state.free] == (
                self.model.free(pool)
            )
            counts = state.counts(self.now)
            assert {name: getattr(counts, name) for name in counts.__struct_fields__} == self.model.counts(
                pool, self.now
            )
            assert counts.total == counts.used + counts.free + counts.reserved + counts.cooling
            assert state.available == len(self.model.obtainable(pool))
            assert {ip_of(at) for at in state.held} == self.model.held(pool)
            assert [entry[2] for entry in state.waiting] == self.model.waiting(pool)
            assert self.ledger.domains[domain].overlaps_of(pool) == self.model.overlaps(pool)

    @invariant()
    def conflicts_agree(self):
        for name, domain in self.ledger.domains.items():
            conflicts = self.model.conflicts(name)
            assert {ip_of(at): who for at, who in domain.conflicts.items()} == {
                ip: w for ip, (w, _) in conflicts.items()
            }
            for pool, (home, _, _) in self.model.pools.items():
                if home == name:
                    shown = {ip: who for ip, (who, via) in conflicts.items() if pool in via}
                    assert {ip_of(at): who for at, who in self.ledger.conflicts(pool)} == shown

    @invariant()
    def nothing_is_kept_of_what_is_over(self):
        for name, domain in self.ledger.domains.items():
            taken = {ip for (d, ip), slot in self.model.slots.items() if d == name and slot.state()[0] != oracle.FREE}
            assert {ip_of(at) for at in domain.slots} == taken
            watched = {ip for d, ip in self.model.watch.values() if d == name}
            assert {ip_of(at) for at in domain.address_waiters} == watched
            assert all(domain.held[pool] for pool in domain.held.keys() - domain.pools.keys())
            assert len(domain._edges) <= 2 * sum(len(state.space.spans) for state in domain.pools.values())
        assert self.ledger._waits.keys() == self.model.queue.keys()
        assert self.ledger._domain_of == self.model.home


LedgerMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=50)
TestLedger = LedgerMachine.TestCase
