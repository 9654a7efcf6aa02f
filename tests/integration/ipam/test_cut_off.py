"""What a removal leaves behind that is cut off between two writes. No allocator runs beside these tests."""

from __future__ import annotations

import pytest

from services.ipam import api, kinds
from services.ipam.addresses import AddressWriter
from services.ipam.caches import Caches
from services.ipam.ledger import Ledger
from services.runtime.kube.errors import NotLeader
from tests.support.tenant import Tenant


@pytest.mark.parametrize("writes", [1, 2])
async def test_an_address_whose_removal_is_cut_off_is_gone_or_says_that_it_is_to_go(kube, kind, writes):
    tenant = await Tenant.create(kube)
    resource = tenant.api(kind).addresses
    ours = api.ADDRESS_FINALIZERS[kind][0]
    wanted = tenant.address_manifest("address", "claim", "10.0.0.1", kind=kind, finalizers=[ours])
    await kube.create(resource, wanted)
    caches = Caches(Ledger(), *[lambda _: None] * 3)
    obj = await kube.client.get(resource, "address", tenant.namespace)
    caches.addresses[kind].observe(obj)
    left = writes

    def allow():
        nonlocal left
        if not left:
            raise NotLeader("cut off")
        left -= 1

    writer = AddressWriter(kube.client.guarded(allow), caches)
    if writes == 2:
        assert await writer.remove(kinds.read_address(kind, obj))
        await kube.gone(resource, "address", tenant.namespace)
        return
    with pytest.raises(NotLeader):
        await writer.remove(kinds.read_address(kind, obj))
    found = await kube.get(resource, "address", tenant.namespace)
    assert found["metadata"]["deletionTimestamp"]
    assert found["metadata"]["finalizers"] == [ours]
