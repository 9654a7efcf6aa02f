"""Which addresses of its ranges a pool gives, in which order, and with which network settings."""

from __future__ import annotations

import pytest

from services.ipam.api import POOL_EXHAUSTED
from tests.support.tenant import CAPI, KINDS, METAL3


async def fill(tenant, count, kind=METAL3):
    """Take `count` addresses one after the other, hold that there is no further one, and return them."""
    got = [await tenant.give(f"claim-{i:02}", kind=kind) for i in range(count)]
    await tenant.claim("one-too-many", kind=kind)
    await tenant.refused("one-too-many", POOL_EXHAUSTED, kind)
    return got


async def test_the_lowest_free_address_is_given_whatever_claims_are_called(tenant, kind):
    await tenant.pool("pool", "10.0.0.10-10.0.0.13")
    assert [await tenant.give(name, kind=kind) for name in ("z", "m", "a")] == ["10.0.0.10", "10.0.0.11", "10.0.0.12"]


async def test_ranges_are_used_up_in_the_order_in_which_they_are_written(tenant):
    await tenant.pool("pool", "10.0.9.1-10.0.9.2", "10.0.1.1-10.0.1.1", "10.0.5.1-10.0.5.1")
    assert await fill(tenant, 4) == ["10.0.9.1", "10.0.9.2", "10.0.1.1", "10.0.5.1"]


async def test_single_addresses_are_ranges_too(tenant, kind):
    await tenant.pool("pool", "10.0.0.50-10.0.0.50", "10.0.0.128/32", {"start": "10.0.0.64", "end": "10.0.0.64"})
    assert await fill(tenant, 3, kind) == ["10.0.0.50", "10.0.0.128", "10.0.0.64"]


@pytest.mark.parametrize(
    ("block", "spec", "given"),
    [
        pytest.param("10.0.0.0/29", {"prefix": None}, "1 2 3 4 5 6", id="network and broadcast of a subnet"),
        pytest.param("10.0.0.0/29", {"gateway": "10.0.0.1"}, "2 3 4 5 6", id="gateway"),
        pytest.param(
            {"start": "10.0.0.1", "end": "10.0.0.4", "gateway": "10.0.0.4"}, {}, "1 2 3", id="a range's own gateway"
        ),
        pytest.param("10.0.0.126-10.0.0.130", {"prefix": 25}, "126 129 130", id="where two networks meet"),
        pytest.param("10.0.0.0-10.0.0.1", {}, "1", id="network address at the start"),
        pytest.param("10.0.0.254-10.0.0.255", {}, "254", id="broadcast address at the end"),
        pytest.param("10.0.0.4/31", {"prefix": None}, "4 5", id="point to point has no ends"),
        pytest.param("10.0.0.2/29", {"prefix": None}, "3 4 5 6", id="a subnet begins after the address as written"),
        pytest.param({"subnet": "10.0.0.0/29", "start": "10.0.0.5"}, {}, "5 6", id="a subnet narrowed by its start"),
        pytest.param(
            "10.0.0.1-10.0.0.6",
            {"excludedAddresses": ["10.0.0.1", "10.0.0.3-10.0.0.4", "10.0.0.6/32"]},
            "2 5",
            id="excluded",
        ),
        pytest.param(
            {"subnet": "10.0.0.0/30", "start": "10.0.0.0"},
            {"prefix": 30, "gateway": "10.0.0.1", "allocateReservedAddresses": True},
            "0 1 2 3",
            id="all of them when that is asked for",
        ),
    ],
)
async def test_gateway_network_broadcast_and_excluded_addresses_are_never_given(tenant, block, spec, given):
    expected = [f"10.0.0.{last}" for last in given.split()]
    await tenant.pool("pool", block, **spec)
    await tenant.counts(total=len(expected), free=len(expected))
    assert await fill(tenant, len(expected)) == expected


async def test_an_ipv6_subnet_keeps_back_its_first_address_and_gives_its_last(tenant, kind):
    await tenant.pool("pool", "2001:db8::/126", prefix=None)
    assert await fill(tenant, 3, kind) == ["2001:db8::1", "2001:db8::2", "2001:db8::3"]


async def test_an_address_far_into_an_ipv6_subnet_is_given_at_once_and_the_pool_goes_on(tenant, kind):
    await tenant.pool("pool", "2001:db8::/64")
    far = "2001:db8::dead:beef:0:1"
    assert await tenant.give("far", kind=kind, annotations={"ipAddress": "2001:DB8::dead:beef:0:1"}) == far
    assert await tenant.give("near", kind=kind) == "2001:db8::1"
    counts = await tenant.counts(used=2)
    assert counts["total"] == counts["free"] == 2**63 - 1


async def test_settings_of_a_range_override_those_of_the_pool(tenant):
    await tenant.pool(
        "pool",
        {"start": "10.0.0.9", "end": "10.0.0.9"},
        {"start": "10.1.0.9", "end": "10.1.0.9", "prefix": 20, "gateway": "10.1.0.1", "dnsServers": ["10.1.0.2"]},
        {"subnet": "10.2.0.0/28", "start": "10.2.0.9", "end": "10.2.0.9"},
        prefix=25,
        gateway="10.0.0.1",
        dnsServers=["10.0.0.2", "10.0.0.3"],
    )
    specs = []
    for name in ("a", "b", "c"):
        await tenant.claim(name)
        specs.append((await tenant.bound(name)).address["spec"])
    picked = [(s["address"], s["prefix"], s["gateway"], s["dnsServers"]) for s in specs]
    assert picked == [
        ("10.0.0.9", 25, "10.0.0.1", ["10.0.0.2", "10.0.0.3"]),
        ("10.1.0.9", 20, "10.1.0.1", ["10.1.0.2"]),
        ("10.2.0.9", 25, "10.0.0.1", ["10.0.0.2", "10.0.0.3"]),
    ]


async def test_a_range_without_prefix_gets_that_of_its_subnet(tenant, kind):
    await tenant.pool("pool", "10.0.0.0/22", prefix=None)
    await tenant.claim("claim", kind=kind)
    spec = (await tenant.bound("claim", kind)).address["spec"]
    assert (spec["prefix"], "gateway" in spec) == (22, False)


async def test_each_family_of_a_pool_gets_the_gateway_of_its_own_family(tenant):
    await tenant.pool(
        "pool",
        "10.0.0.9-10.0.0.9",
        {"start": "2001:db8::9", "end": "2001:db8::9", "prefix": 64},
        prefix=24,
        gateway="10.0.0.1",
    )
    for name, gateway in (("first", "10.0.0.1"), ("second", None)):
        await tenant.claim(name, kind=CAPI)
        assert (await tenant.bound(name, CAPI)).address["spec"].get("gateway") == gateway


async def test_a_pool_without_prefix_serves_metal3_and_tells_cluster_api_what_is_missing(tenant):
    await tenant.pool("pool", "10.0.0.1-10.0.0.9", prefix=None)
    for kind in KINDS:
        await tenant.claim("claim", kind=kind)
    assert "prefix" not in (await tenant.bound("claim", METAL3)).address["spec"]
    message = await tenant.refused("claim", "AllocationFailed", CAPI)
    assert message.startswith(f"IPPool {tenant.namespace}/pool: spec.pools[0] has no prefix")
    await tenant.change_pool(prefix=24)
    assert (await tenant.bound("claim", CAPI)).address["spec"]["prefix"] == 24


async def test_a_random_pool_gives_all_its_addresses_but_those_that_are_kept(tenant):
    await tenant.reserve("10.0.0.3")
    await tenant.pool(
        "pool",
        "10.0.0.0/28",
        prefix=28,
        allocationStrategy="random",
        gateway="10.0.0.1",
        excludedAddresses=["10.0.0.2"],
        preAllocations={"mine": "10.0.0.4"},
    )
    await tenant.counts(total=12, reserved=2, free=10)
    assert await tenant.give("wants", annotations={"ipAddress": "10.0.0.9"}) == "10.0.0.9"
    given = await fill(tenant, 9)
    assert set(given) == {f"10.0.0.{i}" for i in (5, 6, 7, 8, 10, 11, 12, 13, 14)}
    assert await tenant.give("mine") == "10.0.0.4"
