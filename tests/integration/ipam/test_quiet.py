"""The allocator writes when something changed, and not otherwise."""

from __future__ import annotations

import asyncio

from services.ipam.api import IP_POOLS


async def test_a_pool_whose_numbers_did_not_change_is_not_written_again(tenant):
    await tenant.pool("pool", "10.0.0.1-10.0.0.9")
    await tenant.give("claim")
    await tenant.counts(used=1)
    # Past the second of lastUpdated, which a needless write would move.
    await asyncio.sleep(1.1)
    looked_at = await tenant.kube.annotate(IP_POOLS, "pool", tenant.namespace, note="a reason to look at the pool")
    await tenant.settled()
    await asyncio.sleep(1.1)
    pool = await tenant.pool_object()
    assert pool["metadata"]["resourceVersion"] == looked_at["metadata"]["resourceVersion"]
