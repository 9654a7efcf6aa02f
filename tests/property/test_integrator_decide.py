"""Whatever happens to machines, pools and claims: no address in use is let go, and everything comes to rest."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from services.capv_integrator import api
from services.capv_integrator.caches import MACHINE
from services.capv_integrator.waiting import waits
from services.runtime.kube.objects import ObjectKey
from tests.unit.capv_integrator.worlds import NS, Site

NAMES = ("m1", "m2")
POOLS = {"a": "10.0.0.", "b": "10.0.1.", "six": "fd00::"}
WAITING = {"networkName": "net-a"}
DEVICE = st.sampled_from([WAITING, {"networkName": "net-a", "dhcp4": True}, {"networkName": "other"}])
ENOUGH = 12


class Life(RuleBasedStateMachine):
    """Users, a provider and the integrator take turns on one namespace."""

    def __init__(self):
        super().__init__()
        self.site = Site()
        self.free = dict.fromkeys(POOLS, 0)
        self.written = {}
        self.given = 0

    @initialize(devices=st.lists(DEVICE, min_size=1, max_size=2))
    def begin(self, devices):
        for name in NAMES:
            self.site.machine(devices, name=name)

    def machine(self, name):
        return self.site.store(MACHINE).get(ObjectKey(NS, name))

    def unbound(self):
        return [c for name in NAMES for c in self.site.claims(name=name) if c.bound is None and not c.obj.deleting]

    # Users

    @rule(pool=st.sampled_from(sorted(POOLS)), free=st.integers(0, 3), network=st.sampled_from(["net-a", "other"]))
    def set_pool(self, pool, free, network):
        self.free[pool] = free
        self.show(pool, {api.NETWORK_KEY: network})

    @rule(name=st.sampled_from(NAMES), devices=st.lists(DEVICE, max_size=3))
    def edit(self, name, devices):
        if (obj := self.machine(name)) is not None:
            self.site.change(obj, spec={"network": {"devices": devices}})

    @rule(name=st.sampled_from(NAMES), pools=st.sampled_from(["a", "a, b", "0=a; six", "missing", "NONSENSE"]))
    def annotate(self, name, pools):
        if (obj := self.machine(name)) is not None:
            annotations = {**(obj.metadata.annotations or {}), api.POOLS_ANNOTATION: pools}
            self.site.change(obj, metadata={"annotations": annotations})

    @rule(name=st.sampled_from(NAMES))
    def delete_and_make_again(self, name):
        if (obj := self.machine(name)) is not None:
            self.site.remove(obj)
            self.written.pop(name, None)
        else:
            self.site.machine([WAITING], name=name)

    @precondition(lambda self: self.site.claims(name="m1"))
    @rule(data=st.data())
    def delete_a_claim(self, data):
        claim = data.draw(st.sampled_from(sorted(self.site.claims(name="m1"), key=lambda c: c.name)))
        self.site.change(claim.obj, metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"})

    @rule(paused=st.booleans())
    def pause(self, paused):
        self.site.change(self.site.store("Cluster").values()[0], spec={"paused": paused})

    # The provider

    @precondition(lambda self: self.unbound())
    @rule(data=st.data())
    def answer(self, data):
        self.provide(data.draw(st.sampled_from(sorted(self.unbound(), key=lambda c: c.name))))

    def provide(self, claim):
        pool = claim.pool.name
        if self.free[pool] <= 0:
            if claim.refusal is None:
                self.site.refuse(claim)
            return
        self.free[pool] -= 1
        self.given += 1
        self.site.bind(claim, f"{POOLS[pool]}{self.given}", 64 if pool == "six" else 24)
        known = self.site.store("IPPool").get(ObjectKey(NS, pool))
        self.show(pool, known.metadata.labels)

    def show(self, pool, labels):
        self.site.pool(pool, first=f"{POOLS[pool]}1", free=self.free[pool], labels=labels)

    # The integrator

    @rule(name=st.sampled_from(NAMES))
    def reconcile(self, name):
        self.turn(name)

    def turn(self, name):
        plan = self.site.plan(name=name)
        kept = self.written.get(name, set())
        assert not {claim.name for claim in plan.release} & kept, "an address in use was let go"
        created = {self.site.name_of(new, owner=name) for new in plan.create}
        assert not created & {claim.name for claim in self.site.claims(name=name)}, "a claim was made twice"
        for claim in plan.release:
            owner = claim.pool.name
            if claim.bound is not None:
                self.free[owner] += 1
        done = self.site.carry_out(plan, name=name)
        for claim in plan.release:
            known = self.site.store("IPPool").get(ObjectKey(NS, claim.pool.name))
            self.show(claim.pool.name, known.metadata.labels)
        self.written.setdefault(name, set()).update(c.name for _, claims in plan.answers for c in claims)
        return done

    @invariant()
    def claims_of_written_addresses_exist(self):
        for name in NAMES:
            if self.machine(name) is not None:
                assert self.written.get(name, set()) <= {claim.name for claim in self.site.claims(name=name)}

    def teardown(self):
        """Left to itself everything comes to rest, and once the machines are gone nothing is left."""
        self.pause(paused=False)
        for _ in range(ENOUGH):
            for claim in self.unbound():
                self.provide(claim)
            done = [self.turn(name) for name in NAMES]
            if not any(done):
                break
        else:
            raise AssertionError("it never comes to rest")
        for name in NAMES:
            if (obj := self.machine(name)) is not None:
                waiting = [d for d in api.devices_of(obj) or [] if waits(d)]
                assert bool(waiting) == bool(self.site.plan(name=name).waiting)
                self.site.remove(obj)
                self.written.pop(name, None)
            self.turn(name)
            assert self.site.claims(name=name) == ()


Life.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestLife = Life.TestCase
