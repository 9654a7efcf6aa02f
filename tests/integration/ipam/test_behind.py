"""A reconciler whose watches have shown less than the API server has. No allocator runs beside these tests."""

from __future__ import annotations

import random

import pytest

from services.ipam import api, kinds
from services.ipam.api import ClaimKey
from services.ipam.caches import Caches
from services.ipam.claims import ClaimReconciler
from services.ipam.ledger import Ledger
from services.ipam.poolwriter import PoolWriter
from services.ipam.reservations import ReservationWriter
from services.runtime.clock import SystemClock
from services.runtime.kube.events import EventRecorder
from tests.support.kube import manifest
from tests.support.tenant import Tenant


class Behind:
    """The allocator's claim reconciler on stores that are shown what a test wants them to."""

    def __init__(self, tenant):
        self.tenant, self.client = tenant, tenant.kube.client
        clock = SystemClock()
        self.caches = Caches(Ledger(), *[lambda _: None] * 3)
        self.caches.subscribe()
        self.reservations = ReservationWriter(self.client, self.caches, clock, sticky_limit=100)
        events = EventRecorder(self.client, "tests", clock)
        self.claims = ClaimReconciler(
            self.client,
            self.caches,
            self.reservations,
            PoolWriter(self.client, self.caches),
            events,
            clock,
            orphan_grace=0.0,
            settle_seconds=0.0,
            rng=random.Random(7),
        )

    def store(self, kind, resource):
        if resource == api.IP_POOLS:
            return self.caches.pools["IPPool"]
        if resource == api.IP_RESERVATIONS:
            return self.caches.reservations
        return (self.caches.claims if resource == self.tenant.api(kind).claims else self.caches.addresses)[kind]

    async def see(self, kind, resource, name):
        """Let a watch show an object as it is now."""
        namespace = "" if resource == api.IP_RESERVATIONS else self.tenant.namespace
        obj = await self.client.get(resource, name, namespace)
        store = self.store(kind, resource)
        store.apply("MODIFIED" if obj.key in store else "ADDED", obj)
        return obj

    async def reserve(self, name, **spec):
        """Make an IPReservation that is seen at once."""
        await self.tenant.kube.create(api.IP_RESERVATIONS, manifest(api.IP_RESERVATIONS, name, "", spec))
        await self.see("", api.IP_RESERVATIONS, name)


@pytest.fixture
async def behind(kube):
    return Behind(await Tenant.create(kube))


async def bound_before(behind, kind, ip):
    """A claim that another replica has bound, of which no more than the claim and its pool were seen."""
    tenant = behind.tenant
    key = ClaimKey(kind, tenant.namespace, "claim")
    other = Behind(tenant)
    await tenant.pool("pool", f"{ip}-{ip}")
    await tenant.claim("claim", kind=kind)
    for each, name in ((api.IP_POOLS, "pool"), (tenant.api(kind).claims, "claim")):
        await other.see(kind, each, name)
    await other.claims.reconcile(key)
    assert await tenant.held() == [ip]
    await tenant.change_pool(pools=[{"start": "10.0.0.1", "end": "10.0.0.250"}])
    for each, name in ((api.IP_POOLS, "pool"), (tenant.api(kind).claims, "claim")):
        await behind.see(kind, each, name)
    return key


@pytest.mark.parametrize("ip", ["10.0.0.49", "10.0.0.7"])
async def test_a_bound_claim_keeps_its_address_whatever_the_watches_have_yet_to_show(behind, kind, ip):
    key = await bound_before(behind, kind, ip)
    await behind.claims.reconcile(key)
    held = await behind.tenant.bound("claim", kind)
    assert held.ip == ip
    assert await behind.tenant.held() == [ip]
    assert len(await behind.tenant.addresses(kind)) == 1


async def test_a_pool_that_is_moved_to_another_domain_while_a_claim_is_bound_gives_an_address_of_that(behind, kind):
    tenant = behind.tenant
    await tenant.pool("pool", "10.0.0.10-10.0.0.12")
    await tenant.claim("claim", kind=kind)
    for each, name in ((api.IP_POOLS, "pool"), (tenant.api(kind).claims, "claim")):
        await behind.see(kind, each, name)
    key, domain = ClaimKey(kind, tenant.namespace, "claim"), f"{tenant.domain}-b"
    take = behind.reservations.take

    async def moved_meanwhile(*arguments):
        taken = await take(*arguments)
        behind.reservations.take = take
        await tenant.change_pool(domain=domain)
        await behind.see(kind, api.IP_POOLS, "pool")
        other = {"domain": domain, "address": "10.0.0.10", "description": "somebody was faster there"}
        name = kinds.reservation_name(domain, kinds.read_reservation(taken_now())[1])
        await behind.reserve(name, **other)
        return taken

    def taken_now():
        (found,) = behind.caches.reservations.by_index("held", key)
        return found

    behind.reservations.take = moved_meanwhile
    await behind.claims.reconcile(key)
    before, tenant.domain = tenant.domain, domain
    held = await tenant.bound("claim", kind)
    assert held.ip == "10.0.0.11"
    tenant.domain = before
    assert await tenant.reservations() == [], "nothing is left in the domain that the pool had"


async def test_what_a_crash_left_in_a_range_that_the_pool_does_not_have_any_more_is_given_up(behind, kind):
    tenant = behind.tenant
    await tenant.pool("pool", "10.0.0.10-10.0.0.12")
    await tenant.claim("claim", kind=kind)
    spec = {"domain": tenant.domain, "address": "10.0.0.10", "claim": {"kind": kind, "name": "claim"}}
    spec["claim"]["namespace"] = tenant.namespace
    spec["pool"] = {"kind": "IPPool", "namespace": tenant.namespace, "name": "pool"}
    await behind.reserve(tenant.reservation_name("10.0.0.10"), **spec)
    await tenant.change_pool(pools=[{"start": "192.168.7.5", "end": "192.168.7.9"}])
    for each, name in ((api.IP_POOLS, "pool"), (tenant.api(kind).claims, "claim")):
        await behind.see(kind, each, name)
    await behind.claims.reconcile(ClaimKey(kind, tenant.namespace, "claim"))
    assert (await tenant.bound("claim", kind)).ip == "192.168.7.5"
    assert await tenant.held() == ["192.168.7.5"]


async def test_the_address_of_a_claim_that_goes_is_not_given_again_before_its_object_is_gone(behind, kind):
    """Another replica has bound the claim; of that the watch of IPAddresses has shown nothing yet."""
    tenant = behind.tenant
    key = await bound_before(behind, kind, "10.0.0.14")
    await behind.see(kind, api.IP_RESERVATIONS, tenant.reservation_name("10.0.0.14"))
    await tenant.delete_claim("claim", kind)
    await behind.see(kind, tenant.api(kind).claims, "claim")
    await behind.claims.reconcile(key)
    assert await tenant.addresses(kind) == []
    assert await tenant.held() == []
    await tenant.claim_gone("claim", kind)
