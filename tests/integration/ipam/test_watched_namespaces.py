"""An allocator that is told to watch some namespaces works there, and touches nothing of the others."""

from __future__ import annotations

from services.ipam.api import GLOBAL_IP_POOLS
from tests.support.allocator import Allocator
from tests.support.tenant import Tenant


async def test_two_allocators_share_a_cluster_by_namespaces_and_still_give_no_address_twice(
    kube, cluster, tmp_path_factory, kind
):
    one, two = await Tenant.create(kube), await Tenant.create(kube)
    two.domain = one.domain
    pool = one.namespace
    flags = "--orphan-grace-seconds=0"
    folders = [tmp_path_factory.mktemp("allocator") for _ in range(2)]
    with Allocator.running(folders[0], cluster.kubeconfig, flags, f"--watch-namespace={one.namespace}"):
        await one.pool(pool, "10.0.0.1-10.0.0.3", resource=GLOBAL_IP_POOLS)
        made = await two.claim("claim", pool, kind, pool_kind="GlobalIPPool")
        first = await one.give("claim", pool, kind, pool_kind="GlobalIPPool")
        assert await two.claim_object("claim", kind) == made
        with Allocator.running(folders[1], cluster.kubeconfig, flags, f"--watch-namespace={two.namespace}"):
            second = (await two.bound("claim", kind)).ip
            assert first != second
            await one.counts(pool, GLOBAL_IP_POOLS, used=2, free=1)
        third = await one.give("last", pool, kind, pool_kind="GlobalIPPool")
        assert {first, second, third} == {"10.0.0.1", "10.0.0.2", "10.0.0.3"}
        assert (await two.bound("claim", kind)).ip == second, "what the other one holds is no orphan"
        await one.release("claim", kind)
        assert await one.give("next", pool, kind, pool_kind="GlobalIPPool") == first
