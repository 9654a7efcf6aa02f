"""The whole allocator on the real API server, against a naive model, in whatever order things can happen.

Administrators make, change, shrink, pause and delete pools that overlap, and reserve addresses; users make claims of
both kinds, some for one certain address, some held by a finalizer of somebody else, and delete them in order or by
force; the allocator is stopped, or cut off in the middle of its work. After each step the model says who has to be
served, who must not be, and what has to be gone; which of the free addresses is given it does not know.

GROUNDWORK_MACHINE_EXAMPLES sets how many histories are tried (4), GROUNDWORK_MACHINE_STEPS how long they are (20).
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
from contextlib import AsyncExitStack, suppress

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from services.ipam import api
from services.ipam.api import IP_POOLS
from services.runtime.kube.errors import AlreadyExists
from tests.support import oracle
from tests.support.capv_services import InProcess, Mistakes
from tests.support.kube import NAMESPACES, Kube, eventually, manifest
from tests.support.tenant import CAPI, KINDS, METAL3, Tenant, condition, settled

EXAMPLES = int(os.environ.get("GROUNDWORK_MACHINE_EXAMPLES", "4"))
STEPS = int(os.environ.get("GROUNDWORK_MACHINE_STEPS", "20"))
POOLS = ("one", "two")
NAMES = tuple("abcdef")
ADDRESSES = [ipaddress.ip_address(f"10.0.0.{n}") for n in range(1, 9)]
FOREIGN = "example.org/in-use"
BARRIER = "barrier"
PAUSED = "cluster.x-k8s.io/paused"
WITHIN = 30.0

some_address = st.sampled_from(ADDRESSES)
spans = st.tuples(some_address, some_address).map(sorted)
exclusions = st.lists(some_address, max_size=2, unique=True)


class Pool:
    """A pool as its administrator wants it."""

    def __init__(self, span, excluded):
        self.paused = False
        self.deleting = False
        self.change(span, excluded)

    def change(self, span, excluded):
        entry = {"start": str(span[0]), "end": str(span[1])}
        self.spec = {"pools": [entry], "excludedAddresses": [str(ip) for ip in excluded], "gateway": "10.0.0.254"}
        model = oracle.PoolModel([entry], prefix=24, gateway="10.0.0.254", excluded=self.spec["excludedAddresses"])
        self.assignable = model.assignable


class Claim:
    """A claim as its user wants it; `address` is what it was seen to have."""

    def __init__(self, pool, pin, *, used):
        self.pool, self.pin, self.used = pool, pin, used
        self.deleting = False
        self.address = None


class Machine(RuleBasedStateMachine):
    """See the module's text."""

    kubeconfig = None

    def __init__(self):
        super().__init__()
        self.runner = asyncio.Runner()
        self.stack = AsyncExitStack()
        self.pools, self.claims, self.reserved = {}, {}, set()

    @initialize()
    def begin(self):
        self.runner.run(self._begin())

    async def _begin(self):
        self.mistakes = Mistakes()
        self.stack.enter_context(self.mistakes.watching())
        self.kube = await self.stack.enter_async_context(Kube.connect(self.kubeconfig))
        self.tenant = await Tenant.create(self.kube)
        with suppress(AlreadyExists):
            await self.kube.create(NAMESPACES, manifest(NAMESPACES, BARRIER))
        spaces = [self.tenant.namespace, BARRIER]
        self.allocator = InProcess.allocator(self.kubeconfig, spaces, orphan_grace_seconds=0)
        await self.stack.enter_async_context(self.allocator.running())

    def teardown(self):
        try:
            if hasattr(self, "allocator"):
                self.runner.run(self._end())
        finally:
            self.runner.run(self.stack.aclose())
            self.runner.close()

    async def _end(self):
        """Delete everything: nothing may be left."""
        for name, pool in self.pools.items():
            if pool.paused:
                await self._pause(name, None)
                pool.paused = False
        for key, claim in self.claims.items():
            if claim.used:
                await self._finalizers(key, remove=FOREIGN)
                claim.used = False
            if not claim.deleting:
                claim.deleting = True
                await self._delete(key)
        await self._agrees()
        await self.tenant.nothing_held()
        assert self.mistakes.records == []

    # What happens

    def _do(self, action, *, barrier=False):
        async def act():
            await action
            if barrier:
                await settled(self.kube)
            await self._agrees()

        self.runner.run(act())

    @rule(name=st.sampled_from(POOLS), span=spans, excluded=exclusions)
    def an_administrator_makes_or_changes_a_pool(self, name, span, excluded):
        pool = self.pools.get(name)
        if pool is None:
            self.pools[name] = pool = Pool(span, excluded)
            self._do(self.tenant.pool(name, **pool.spec))
        else:
            pool.change(span, excluded)
            self._do(self.tenant.change_pool(name, **pool.spec), barrier=True)

    @precondition(lambda self: self.pools)
    @rule(data=st.data())
    def an_administrator_pauses_or_resumes_a_pool(self, data):
        name = data.draw(st.sampled_from(sorted(self.pools)))
        pool = self.pools[name]
        pool.paused = not pool.paused
        self._do(self._pause(name, "" if pool.paused else None), barrier=True)

    @precondition(lambda self: any(not pool.deleting for pool in self.pools.values()))
    @rule(data=st.data())
    def an_administrator_deletes_a_pool(self, data):
        name = data.draw(st.sampled_from(sorted(n for n, pool in self.pools.items() if not pool.deleting)))
        self.pools[name].deleting = True
        self._do(self.kube.delete(IP_POOLS, name, self.tenant.namespace), barrier=True)

    @rule(ip=some_address)
    def an_administrator_reserves_or_frees_an_address(self, ip):
        name = self.tenant.reservation_name(str(ip))
        if ip in self.reserved:
            self.reserved.remove(ip)
            self._do(self.kube.delete(api.IP_RESERVATIONS, name))
        elif all(claim.address != ip for claim in self.claims.values()):
            self._do(self._reserve(ip, name))

    @rule(
        kind=st.sampled_from(KINDS),
        name=st.sampled_from(NAMES),
        pool=st.sampled_from(POOLS),
        pin=st.none() | some_address,
        used=st.booleans(),
    )
    def a_user_makes_a_claim(self, kind, name, pool, pin, used):
        if (kind, name) in self.claims:
            return
        self.claims[kind, name] = Claim(pool, pin, used=used)
        details = {"annotations": {"ipAddress": str(pin)}} if pin is not None else {}
        details |= {"finalizers": [FOREIGN]} if used else {}
        self._do(self.tenant.claim(name, pool, kind, **details))

    @precondition(lambda self: any(not claim.deleting for claim in self.claims.values()))
    @rule(data=st.data())
    def a_user_deletes_a_claim(self, data):
        key = data.draw(st.sampled_from(sorted(k for k, claim in self.claims.items() if not claim.deleting)))
        self.claims[key].deleting = True
        self._do(self._delete(key))

    @precondition(lambda self: any(claim.used for claim in self.claims.values()))
    @rule(data=st.data())
    def somebody_else_lets_go_of_a_claim(self, data):
        key = data.draw(st.sampled_from(sorted(k for k, claim in self.claims.items() if claim.used)))
        self.claims[key].used = False
        self._do(self._finalizers(key, remove=FOREIGN))

    @precondition(lambda self: any(self._may_be_forced(claim) for claim in self.claims.values()))
    @rule(data=st.data())
    def somebody_removes_a_claim_by_force(self, data):
        key = data.draw(st.sampled_from(sorted(k for k, claim in self.claims.items() if self._may_be_forced(claim))))
        del self.claims[key]
        kind, name = key
        self._do(self.kube.force_delete(self.tenant.api(kind).claims, name, self.tenant.namespace))

    @rule(in_order=st.booleans())
    def the_allocator_is_restarted(self, in_order):
        async def again():
            await (self.allocator.stop() if in_order else self.allocator.cut_off())
            await self.allocator.start()

        self._do(again())

    @rule(kind=st.sampled_from(KINDS), names=st.lists(st.sampled_from(NAMES), min_size=2, max_size=4, unique=True))
    def the_allocator_is_cut_off_while_claims_come_and_go(self, kind, names):
        async def work():
            for name in names:
                if (claim := self.claims.get((kind, name))) is None:
                    self.claims[kind, name] = Claim("one", None, used=False)
                    await self.tenant.claim(name, "one", kind)
                elif not claim.deleting:
                    claim.deleting = True
                    await self._delete((kind, name))
            await self.allocator.restart()

        self._do(work())

    async def _pause(self, name, value):
        await self.kube.annotate(IP_POOLS, name, self.tenant.namespace, **{PAUSED: value})

    async def _reserve(self, ip, name):
        """An administrator takes an address, unless the allocator remembers it for a claim that was released."""
        if await self.kube.find(api.IP_RESERVATIONS, name) is None:
            await self.tenant.reserve(str(ip))
            self.reserved.add(ip)

    async def _delete(self, key):
        kind, name = key
        await self.tenant.delete_claim(name, kind)

    async def _finalizers(self, key, *, remove):
        kind, name = key
        resource = self.tenant.api(kind).claims

        async def removed():
            found = await self.kube.get(resource, name, self.tenant.namespace)
            kept = [f for f in found["metadata"].get("finalizers", []) if f != remove]
            version = {"resourceVersion": found["metadata"]["resourceVersion"], "finalizers": kept or None}
            await self.kube.patch(resource, name, self.tenant.namespace, metadata=version)
            return True

        await eventually(removed)

    def _may_be_forced(self, claim):
        pool = self.pools.get(claim.pool)
        return not claim.deleting and not claim.used and (pool is None or not pool.paused)

    # What has to be

    async def _agrees(self):
        """Wait until the API server shows what the model wants; then learn which addresses were given."""

        async def look():
            self.seen = await self._state()
            return self._differences(*self.seen)

        await eventually(look, lambda wrong: wrong == [], within=WITHIN)
        claims, addresses, _, pools = self.seen
        served = {key: addresses[key][0] for key in claims if key in addresses}
        self._oldest_first(claims, served)
        for key in list(self.claims):
            if key not in claims:
                del self.claims[key]
            else:
                self.claims[key].address = served.get(key)
        self.pools = {name: pool for name, pool in self.pools.items() if name in pools}

    def _oldest_first(self, claims, served):
        """No claim was served while an older one, that would have taken the same, went on waiting.

        Older is by creation time, in whole seconds.
        """
        queue = {key: claim for key, claim in self.claims.items() if key in claims and claim.pin is None}
        for key, claim in queue.items():
            if key in served and claim.address is None:
                waiting = [k for k, w in queue.items() if k not in served and not w.deleting and w.pool == claim.pool]
                born = claims[key]["metadata"]["creationTimestamp"]
                older = [k for k in waiting if claims[k]["metadata"]["creationTimestamp"] < born]
                assert not older, f"{key} was served before {older}"

    async def _state(self):
        """`(claims, addresses by claim, reservations, pools)` of the tenant."""
        claims, addresses = {}, {}
        for kind in (METAL3, CAPI):
            for obj in await self.kube.list(self.tenant.api(kind).claims, self.tenant.namespace):
                claims[kind, obj["metadata"]["name"]] = obj
            for obj in await self.tenant.addresses(kind):
                ref = obj["spec"]["claim" if kind == METAL3 else "claimRef"]["name"]
                addresses.setdefault((kind, ref), []).append(ipaddress.ip_address(obj["spec"]["address"]))
        pools = await self.kube.list(IP_POOLS, self.tenant.namespace)
        return claims, addresses, await self.tenant.reservations(), {p["metadata"]["name"]: p for p in pools}

    def _differences(self, claims, addresses, reservations, pools):
        wrong = [f"{key} exists" for key in claims.keys() - self.claims.keys()]
        wrong += [f"{key} does not exist and has {addresses[key]}" for key in addresses.keys() - claims.keys()]
        taken = [ip for some in addresses.values() for ip in some]
        if len(taken) != len(set(taken)):
            wrong.append(f"an address is given twice: {addresses}")
        held = {ipaddress.ip_address(r["spec"]["address"]) for r in reservations if "claim" in r["spec"]}
        if held != set(taken):
            wrong.append(f"reserved are {held}, given {set(taken)}")
        for key, claim in self.claims.items():
            wrong += [f"{key} {text}" for text in self._claim(key, claim, claims.get(key), addresses, set(taken))]
        for name, pool in self.pools.items():
            wrong += [f"pool {name} {text}" for text in self._pool(name, pool, pools.get(name), addresses)]
        return wrong

    def _claim(self, key, claim, seen, addresses, taken):
        held = addresses.get(key, [])
        pool = self.pools.get(claim.pool)
        if claim.deleting:
            kept = claim.used or (pool is not None and pool.paused and claim.address is not None)
            if (seen is not None) != kept and not (pool is not None and pool.paused):
                yield f"should {'stay' if kept else 'be gone'}"
            if kept and claim.address is not None and held != [claim.address]:
                yield f"lost {claim.address} although it is in use: {held}"
            return
        if seen is None:
            yield "is lost"
            return
        if claim.address is not None:
            if held != [claim.address]:
                yield f"had {claim.address} and has {held}"
            return
        possible = set()
        if pool is not None and not pool.paused and not pool.deleting:
            possible = pool.assignable - self.reserved
            possible &= {claim.pin} if claim.pin is not None else possible
        ready = condition(seen) or {}
        if len(held) > 1 or not set(held) <= possible:
            yield f"has {held}, possible are {possible}"
        elif held and ready.get("status") != "True":
            yield f"has {held} and says {ready}"
        elif not held and possible - taken:
            yield f"has nothing although {possible - taken} are free: {ready}"
        elif not held and (ready.get("status") != "False" or not ready.get("message")):
            yield f"has nothing and says {ready}"

    def _pool(self, name, pool, seen, addresses):
        through = [ips[0] for key, ips in addresses.items() if key in self.claims and self.claims[key].pool == name]
        if pool.deleting:
            if seen is None and through:
                yield f"is gone while {through} are held"
            elif seen is not None and not through and not pool.paused:
                yield "should be gone"
            return
        if seen is None:
            yield "is lost"
            return
        if not pool.paused:
            counts = seen.get("status", {}).get("ipAddresses", {})
            beyond = sum(ip not in pool.assignable for ip in through)
            wanted = (len(pool.assignable), beyond)
            if (counts.get("total"), counts.get("outOfRange", 0)) != wanted:
                yield f"counts {counts}, and has {wanted} (total, out of range)"


@pytest.mark.timeout(3600)
def test_the_allocator_does_what_a_naive_model_says(cluster):
    class Here(Machine):
        kubeconfig = cluster.kubeconfig

    run_state_machine_as_test(
        Here,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            phases=(
                Phase.explicit,
                Phase.reuse,
                Phase.generate,
            ),  # a history is as long as it is: shrinking takes hours
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
