"""Claims that want one certain address: by annotation, or because the pool keeps one for their name."""

from __future__ import annotations

from services.ipam.api import ALLOCATION_FAILED, IP_RESERVATIONS
from tests.support.tenant import KINDS, METAL3

ANNOTATION = "ipAddress"


def wants(ip):
    return {"annotations": {ANNOTATION: ip}}


async def test_a_claim_gets_the_address_that_its_annotation_asks_for(tenant, kind):
    await tenant.pool("pool", "10.0.0.10-10.0.0.20")
    assert await tenant.give("wants", kind=kind, **wants("10.0.0.16")) == "10.0.0.16"
    assert await tenant.give("takes-any", kind=kind) == "10.0.0.10"


CANNOT_BE_MET = {
    "10.0.9.9": "10.0.9.9 is outside the pool's ranges (10.0.0.1-10.0.0.20)",
    "2001:db8::1": "2001:db8::1 is outside the pool's ranges (10.0.0.1-10.0.0.20)",
    "10.0.0.5": "10.0.0.5 is in the pool's excludedAddresses",
    "10.0.0.1": "10.0.0.1 is a gateway of the pool; set allocateReservedAddresses to give it all the same",
    "10.0.0.6": "10.0.0.6 is held by IPClaim {namespace}/holder",
    "10.0.0.7": "10.0.0.7 is kept for 'somebody' by the pool's preAllocations",
    "10.0.0.8": "10.0.0.8 is kept by IPReservation {namespace}.10.0.0.8",
    "10.0.0": "annotation ipAddress: '10.0.0' is not an IP address",
    "010.0.0.9": "annotation ipAddress: '010.0.0.9' is not an IP address",
    "": "annotation ipAddress: '' is not an IP address",
}


async def test_a_request_that_cannot_be_met_says_exactly_why(tenant, kind):
    await tenant.reserve("10.0.0.8")
    await tenant.pool(
        "pool",
        "10.0.0.1-10.0.0.20",
        gateway="10.0.0.1",
        excludedAddresses=["10.0.0.5"],
        preAllocations={"somebody": "10.0.0.7"},
    )
    await tenant.counts(reserved=2)
    await tenant.give("holder", **wants("10.0.0.6"))
    for number, requested in enumerate(CANNOT_BE_MET):
        await tenant.claim(f"wants-{number}", kind=kind, **wants(requested))
    messages = [await tenant.refused(f"wants-{i}", ALLOCATION_FAILED, kind) for i in range(len(CANNOT_BE_MET))]
    assert messages == [message.format(namespace=tenant.namespace) for message in CANNOT_BE_MET.values()]
    assert await tenant.give("other", kind=kind) == "10.0.0.2", "the pool serves others"


async def test_a_request_that_was_mistaken_is_served_once_it_is_put_right(tenant, kind):
    await tenant.pool("pool", "10.0.0.1-10.0.0.20")
    await tenant.claim("claim", kind=kind, **wants("10.0.0.99"))
    await tenant.refused("claim", ALLOCATION_FAILED, kind)
    await tenant.kube.annotate(tenant.api(kind).claims, "claim", tenant.namespace, **{ANNOTATION: "10.0.0.9"})
    assert (await tenant.bound("claim", kind)).ip == "10.0.0.9"


async def test_a_requested_address_is_given_as_soon_as_its_holder_lets_go(tenant, kind):
    await tenant.pool("pool", "10.0.0.1-10.0.0.20")
    await tenant.give("holder", **wants("10.0.0.6"))
    await tenant.claim("wants", kind=kind, **wants("10.0.0.6"))
    await tenant.refused("wants", ALLOCATION_FAILED, kind, "is held by")
    await tenant.release("holder")
    assert (await tenant.bound("wants", kind)).ip == "10.0.0.6"


async def test_the_annotation_does_not_move_a_claim_that_has_an_address(tenant, kind):
    await tenant.pool("pool", "10.0.0.1-10.0.0.20")
    had = await tenant.give("claim", kind=kind)
    await tenant.kube.annotate(tenant.api(kind).claims, "claim", tenant.namespace, **{ANNOTATION: "10.0.0.9"})
    await tenant.settled()
    assert (await tenant.bound("claim", kind)).ip == had


async def test_an_address_kept_for_a_name_is_given_to_claims_of_that_name_alone(tenant, kind):
    await tenant.pool("pool", "10.0.0.1-10.0.0.3", preAllocations={"mine": "10.0.0.1"})
    assert [await tenant.give(name, kind=kind) for name in ("a", "b")] == ["10.0.0.2", "10.0.0.3"]
    await tenant.claim("c", kind=kind)
    await tenant.refused("c", "PoolExhausted", kind)
    assert await tenant.give("mine", kind=kind) == "10.0.0.1"
    await tenant.release("mine", kind)
    await tenant.counts(reserved=1, used=2, free=0)
    assert await tenant.give("mine", kind=kind) == "10.0.0.1"


async def test_a_kept_ipv6_address_may_be_written_in_any_form(tenant, kind):
    await tenant.pool("pool", "2001:db8::5-2001:db8::6", preAllocations={"mine": "2001:0DB8:0::0005"})
    assert await tenant.give("other", kind=kind) == "2001:db8::6"
    assert await tenant.give("mine", kind=kind) == "2001:db8::5"


async def test_the_annotation_may_repeat_what_the_pool_keeps_for_the_name(tenant, kind):
    await tenant.pool("pool", "2001:db8::5-2001:db8::9", preAllocations={"mine": "2001:db8::7"})
    assert await tenant.give("mine", kind=kind, **wants("2001:DB8::0007")) == "2001:db8::7"


async def test_an_annotation_that_contradicts_the_pool_is_refused_with_both_addresses(tenant, kind):
    await tenant.pool("pool", "10.0.0.1-10.0.0.9", preAllocations={"mine": "10.0.0.3"})
    await tenant.claim("mine", kind=kind, **wants("10.0.0.4"))
    message = await tenant.refused("mine", ALLOCATION_FAILED, kind)
    assert message == (
        "PreAllocation and requested ip address are conflicting: 10.0.0.3 by the pool's preAllocations, "
        "10.0.0.4 by the claim's annotation"
    )


async def test_a_kept_address_that_another_claim_holds_is_named_with_its_holder_and_given_later(tenant, kind):
    await tenant.pool("pool", "10.0.0.1-10.0.0.9")
    assert await tenant.give("holder") == "10.0.0.1"
    await tenant.change_pool(preAllocations={"mine": "10.0.0.1"})
    await tenant.counts(used=1, reserved=0)
    await tenant.claim("mine", kind=kind)
    message = await tenant.refused("mine", ALLOCATION_FAILED, kind)
    assert message == f"10.0.0.1 is held by IPClaim {tenant.namespace}/holder"
    await tenant.release("holder", METAL3)
    assert (await tenant.bound("mine", kind)).ip == "10.0.0.1"


async def test_two_claims_of_one_name_and_different_kind_cannot_both_have_the_kept_address(tenant):
    await tenant.pool("pool", "10.0.0.1-10.0.0.9", preAllocations={"mine": "10.0.0.3"})
    first, second = KINDS
    assert await tenant.give("mine", kind=first) == "10.0.0.3"
    await tenant.claim("mine", kind=second)
    assert "is held by IPClaim" in await tenant.refused("mine", ALLOCATION_FAILED, second)
    await tenant.release("mine", first)
    assert (await tenant.bound("mine", second)).ip == "10.0.0.3"


async def test_an_administrator_reserves_an_address_and_gives_it_back(tenant, kind):
    await tenant.reserve("10.0.0.1", description="the old mail server")
    await tenant.pool("pool", "10.0.0.1-10.0.0.2")
    await tenant.counts(total=2, reserved=1, free=1)
    assert await tenant.give("first", kind=kind) == "10.0.0.2"
    await tenant.claim("second", kind=kind)
    await tenant.refused("second", "PoolExhausted", kind)
    await tenant.kube.delete(IP_RESERVATIONS, tenant.reservation_name("10.0.0.1"))
    assert (await tenant.bound("second", kind)).ip == "10.0.0.1"


async def test_an_address_reserved_by_an_administrator_can_be_waited_for(tenant, kind):
    await tenant.reserve("10.0.0.5")
    await tenant.pool("pool", "10.0.0.1-10.0.0.9")
    await tenant.counts(reserved=1)
    await tenant.claim("wants", kind=kind, **wants("10.0.0.5"))
    await tenant.refused("wants", ALLOCATION_FAILED, kind, "is kept by IPReservation")
    await tenant.kube.delete(IP_RESERVATIONS, tenant.reservation_name("10.0.0.5"))
    assert (await tenant.bound("wants", kind)).ip == "10.0.0.5"
