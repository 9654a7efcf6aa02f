"""The time of day is put forward or back: what the allocator waits for takes as long as it did."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from services.ipam import api
from services.ipam.caches import Caches
from services.ipam.claims import ClaimReconciler
from services.ipam.ledger import Ledger
from services.runtime.controller import Result
from services.runtime.kube.objects import KubeObject, ObjectMeta, raw, with_status

CLAIM = api.ClaimKey(api.IP_CLAIMS.kind, "ns", "claim")
STEPS = [timedelta(hours=1), timedelta(hours=-1), timedelta(days=-400)]


class SteppedClock:
    """Two clocks of which a test moves each."""

    def __init__(self):
        self.elapsed = 100.0
        self.day = datetime(2026, 5, 4, tzinfo=UTC)

    def monotonic(self):
        return self.elapsed

    def now(self):
        return self.day


def stored(resource, name, spec, namespace="", **meta):
    metadata = ObjectMeta(name=name, namespace=namespace, uid=name, resourceVersion="1", **meta)
    return KubeObject(apiVersion=resource.api_version, kind=resource.kind, metadata=metadata, spec=raw(spec))


@pytest.fixture
def clock():
    return SteppedClock()


@pytest.fixture
def caches():
    caches = Caches(Ledger(), lambda _: None, lambda _: None, lambda _: None)
    caches.subscribe()
    return caches


@pytest.fixture
def reconcile(caches, clock):
    """Looks at the claim; nothing here gets as far as a call."""
    claims = ClaimReconciler(None, caches, None, None, None, clock, orphan_grace=60.0, settle_seconds=1.0)
    return lambda: claims.reconcile(CLAIM)


async def waits(reconcile, clock, seconds, step):
    """Hold that it waits, and half the time later for the rest of it, although the day was put elsewhere."""
    assert await reconcile() == Result(seconds)
    clock.elapsed += seconds / 2
    clock.day += step
    assert await reconcile() == Result(seconds / 2)


@pytest.mark.parametrize("step", STEPS, ids=str)
async def test_a_claim_that_somebody_else_began_to_bind_is_left_alone_for_as_long_as_ever(
    caches, reconcile, clock, step
):
    pool = {"namePrefix": "pool", "pools": [{"start": "10.0.0.1", "end": "10.0.0.9"}]}
    caches.pools["IPPool"].replace([stored(api.IP_POOLS, "pool", pool, "ns")], "1")
    finalizers = (api.CLAIM_FINALIZERS[CLAIM.kind][0],)
    claim = stored(api.IP_CLAIMS, CLAIM.name, {"pool": {"name": "pool"}}, "ns", finalizers=finalizers)
    caches.claims[CLAIM.kind].replace([claim], "1")
    await waits(reconcile, clock, 1.0, step)


@pytest.mark.parametrize("marks", [{"finalizers": ("ipclaim.ipam.metal3.io",)}, {"status": "p-10-0-0-1"}], ids=str)
async def test_a_claim_that_comes_from_a_backup_is_left_alone_until_what_it_had_may_have_come(
    caches, reconcile, clock, marks
):
    pool = {"namePrefix": "pool", "pools": [{"start": "10.0.0.1", "end": "10.0.0.9"}]}
    caches.pools["IPPool"].replace([stored(api.IP_POOLS, "pool", pool, "ns")], "1")
    caches.claims[CLAIM.kind].replace([], "1")
    meta = {key: value for key, value in marks.items() if key == "finalizers"}
    claim = stored(api.IP_CLAIMS, CLAIM.name, {"pool": {"name": "pool"}}, "ns", **meta)
    if "status" in marks:
        claim = with_status(claim, {"address": {"name": marks["status"], "namespace": "ns"}})
    caches.claims[CLAIM.kind].apply("ADDED", replace(claim, metadata=replace(claim.metadata, resourceVersion="2")))
    await waits(reconcile, clock, 60.0, STEPS[0])


@pytest.mark.parametrize("step", STEPS, ids=str)
async def test_what_a_claim_left_is_kept_for_as_long_as_ever(caches, reconcile, clock, step):
    held = {"address": "10.0.0.1", "claim": CLAIM._asdict()}
    caches.reservations.replace([stored(api.IP_RESERVATIONS, "default.10.0.0.1", held)], "1")
    await waits(reconcile, clock, 60.0, step)
