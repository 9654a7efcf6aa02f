"""What is not looked at and not written at once, so that a thousand machines do not wait for courtesies."""

from __future__ import annotations

import asyncio

import pytest

from services.capv_integrator import api, metrics
from services.capv_integrator.caches import MACHINE
from services.capv_integrator.claimobjects import OwnerKey
from services.capv_integrator.claims import ClaimKey, ClaimWriter
from services.capv_integrator.waitinglist import WaitingList
from services.runtime.controller import Result
from tests.support.virtual_time import LoopClock, run
from tests.unit.capv_integrator.worlds import NET, NS, Site

M1, M2 = (OwnerKey(MACHINE, NS, name) for name in ("m1", "m2"))


@pytest.fixture
def site():
    site = Site()
    site.pool()
    site.machine(NET)
    site.serve()
    site.queued.clear()
    return site


MINE = {"finalizers": [api.CLAIM_FINALIZER]}
CLAIM_CHANGES = {
    "the provider's finalizer": (lambda c: {"metadata": {"finalizers": [api.CLAIM_FINALIZER, "other"]}}, False),
    "our own finalizer": (lambda c: {"metadata": {"finalizers": []}}, True),
    "a condition that it is ready": (lambda c: {"status": {"conditions": [ready("True")]}}, False),
    "a condition that it is not": (lambda c: {"status": {"conditions": [ready("False")]}}, True),
    "our own condition": (
        lambda c: {"status": {"conditions": [{**ready("True"), "type": api.CLAIM_CONDITION}]}},
        False,
    ),
    "its address": (lambda c: {"status": {"addressRef": {"name": "a"}}}, True),
    "its deletion": (lambda c: {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}, True),
    "its owners": (lambda c: {"metadata": {"ownerReferences": []}}, True),
    "a pause": (lambda c: {"metadata": {"annotations": {**c.metadata.annotations, api.PAUSED_ANNOTATION: ""}}}, True),
}


def ready(status):
    return {
        "type": "Ready",
        "status": status,
        "reason": "R",
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }


@pytest.mark.parametrize("change", CLAIM_CHANGES)
def test_of_a_claim_that_matters_which_makes_a_difference(site, change):
    make, expected = CLAIM_CHANGES[change]
    claim = site.only_claim().obj
    site.change(claim, **make(claim))
    assert site.queued == ([M1] if expected else [])


def test_an_address_that_its_claim_does_not_name_yet_makes_nobody_look(site):
    claim = site.only_claim().obj
    store = site.caches.stores.addresses["IPAddressClaim"]
    spec = {"address": "10.0.0.10", "prefix": 24, "claimRef": {"name": claim.metadata.name}}
    site.put("IPAddress", "a", group=api.IPAM_GROUP, store=store, spec=spec)
    assert site.queued == []
    site.change(claim, status={"addressRef": {"name": "a"}})
    assert site.queued == [M1]


def test_conditions_are_put_off_while_addresses_are_on_their_way_but_not_for_ever():
    busy = True
    key = ClaimKey("IPAddressClaim", NS, "unknown")

    async def scenario():
        nonlocal busy
        writer = ClaimWriter(None, Site().caches, LoopClock(), lambda: busy)
        assert await writer.mark(key) == Result(requeue_after=2.0)
        await asyncio.sleep(59.0)
        assert await writer.mark(key) == Result(requeue_after=2.0)
        await asyncio.sleep(2.0)
        assert await writer.mark(key) is None, "it does what it can"
        assert await writer.mark(key) == Result(requeue_after=2.0)
        busy = False
        assert await writer.mark(key) is None

    run(scenario())


def test_the_list_counts_by_reason():
    waiting = WaitingList()
    waiting.put(M1, "A", 1.0)
    waiting.put(M2, "A", 2.0)
    waiting.put(M2, "B", 3.0)
    assert (waiting.waiting_for("A"), waiting.waiting_for("B"), waiting.waiting_for("C")) == (1, 1, 0)
    assert waiting.drop(M2) == 2.0
    assert waiting.drop(M2) is None
    assert (waiting.waiting_for("A"), waiting.waiting_for("B")) == (1, 0)
    waiting.drop(M1)
    assert metrics.NOT_SERVED.labels(MACHINE, "A")._value.get() == 0
