"""A pool's spec as addresses: what is given, what is reserved, what is a mistake."""

import pytest

from services.ipam import intervals
from services.ipam.api import PoolRange, PoolSpec
from services.ipam.intervals import Interval, point
from services.ipam.space import MAX_NETWORKS, PoolSpace, Spans, _networks


def space(*entries, **spec):
    return PoolSpace(PoolSpec(pools=tuple(PoolRange(**entry) for entry in entries), **spec))


def shown(items):
    """Intervals as text, `a` or `a-b`."""
    return [
        intervals.text(i.first) if i.first == i.last else f"{intervals.text(i.first)}-{intervals.text(i.last)}"
        for i in items
    ]


def given(pool):
    return shown(piece for item in pool.ranges for piece in item.assignable.intervals)


# Where a range begins and ends (metal3's rules)


@pytest.mark.parametrize(
    ("entry", "covered"),
    [
        ({"start": "192.168.0.10", "end": "192.168.0.20"}, "192.168.0.10-192.168.0.20"),
        ({"start": "192.168.0.10", "end": "192.168.0.10"}, "192.168.0.10"),
        ({"subnet": "192.168.1.0/24"}, "192.168.1.1-192.168.1.255"),
        ({"subnet": "192.168.1.10/24"}, "192.168.1.11-192.168.1.255"),
        ({"subnet": "192.168.1.255/24"}, "192.168.1.255"),
        ({"subnet": "192.168.1.0/24", "start": "192.168.1.0"}, "192.168.1.0-192.168.1.255"),
        ({"subnet": "192.168.1.0/24", "start": "192.168.1.100"}, "192.168.1.100-192.168.1.255"),
        ({"subnet": "192.168.1.0/24", "end": "192.168.1.100"}, "192.168.1.1-192.168.1.100"),
        ({"subnet": "192.168.1.10/24", "end": "192.168.1.20"}, "192.168.1.11-192.168.1.20"),
        ({"subnet": "192.168.1.0/24", "start": "192.168.1.5", "end": "192.168.1.6"}, "192.168.1.5-192.168.1.6"),
        ({"subnet": "192.168.1.0/31"}, "192.168.1.0-192.168.1.1"),
        ({"subnet": "192.168.1.1/31"}, "192.168.1.1"),
        ({"subnet": "192.168.1.7/32"}, "192.168.1.7"),
        ({"subnet": "192.168.1.0/30"}, "192.168.1.1-192.168.1.3"),
        ({"start": "192.168.0.10"}, "192.168.0.10-255.255.255.255"),
        ({"subnet": "2001:db8::/64"}, "2001:db8::1-2001:db8::ffff:ffff:ffff:ffff"),
        ({"subnet": "2001:db8::/127"}, "2001:db8::-2001:db8::1"),
        ({"subnet": "2001:db8::5/128"}, "2001:db8::5"),
        ({"start": "2001:db8::0001", "end": "2001:db8::000f"}, "2001:db8::1-2001:db8::f"),
        ({"start": "ffff::"}, "ffff::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    ],
)
def test_a_range_covers_what_metal3_would(entry, covered):
    pool = space(entry)
    assert shown(pool.spans) == [covered]
    assert pool.problems == []


@pytest.mark.parametrize(
    ("subnet", "first"),
    [
        ("192.168.1.0/24", "192.168.1.0"),
        ("192.168.1.10/24", "192.168.1.11"),
        ("192.168.1.0/31", "192.168.1.0"),
        ("2001:db8::/64", "2001:db8::"),
    ],
)
def test_with_reserved_addresses_allowed_a_subnet_begins_at_its_network_address(subnet, first):
    pool = space({"subnet": subnet}, allocate_reserved_addresses=True)
    assert intervals.text(pool.spans[0].first) == first
    assert pool.reserved == {}


# What is never given


@pytest.mark.parametrize(
    ("entries", "spec", "expected"),
    [
        pytest.param([{"start": "10.0.0.10", "end": "10.0.0.20"}], {"prefix": 24}, ["10.0.0.10-10.0.0.20"], id="in"),
        pytest.param([{"subnet": "10.0.0.0/24"}], {}, ["10.0.0.1-10.0.0.254"], id="network and broadcast"),
        pytest.param(
            [{"start": "10.0.0.0", "end": "10.0.0.255"}], {"prefix": 24}, ["10.0.0.1-10.0.0.254"], id="ends by prefix"
        ),
        pytest.param([{"start": "10.0.0.0", "end": "10.0.0.255"}], {}, ["10.0.0.0-10.0.0.255"], id="no prefix"),
        pytest.param(
            [{"start": "0.0.0.0", "end": "255.255.255.255"}], {"prefix": 0}, ["0.0.0.1-255.255.255.254"], id="prefix 0"
        ),
        pytest.param(
            [{"subnet": "10.0.0.0/29"}], {"gateway": "10.0.0.1"}, ["10.0.0.2-10.0.0.6"], id="gateway of the pool"
        ),
        pytest.param(
            [{"subnet": "10.0.0.0/29", "gateway": "10.0.0.6"}],
            {"gateway": "10.0.0.1"},
            ["10.0.0.2-10.0.0.5"],
            id="gateway of the range, and the pool's all the same",
        ),
        pytest.param(
            [{"subnet": "10.0.0.0/30"}, {"subnet": "10.0.1.0/30", "gateway": "10.0.0.2"}],
            {},
            ["10.0.0.1", "10.0.1.1-10.0.1.2"],
            id="gateway of another range",
        ),
        pytest.param(
            [{"subnet": "10.0.0.0/29"}],
            {"gateway": "10.0.0.1", "allocate_reserved_addresses": True},
            ["10.0.0.0-10.0.0.7"],
            id="flag",
        ),
        pytest.param(
            [{"subnet": "10.0.0.0/29"}],
            {"excluded_addresses": ("10.0.0.3",)},
            ["10.0.0.1-10.0.0.2", "10.0.0.4-10.0.0.6"],
            id="excluded address",
        ),
        pytest.param(
            [{"subnet": "10.0.0.0/28"}],
            {"excluded_addresses": ("10.0.0.4/30",)},
            ["10.0.0.1-10.0.0.3", "10.0.0.8-10.0.0.14"],
            id="excluded subnet",
        ),
        pytest.param(
            [{"subnet": "10.0.0.0/28"}],
            {"excluded_addresses": ("10.0.0.2-10.0.0.4", "10.0.0.13-10.0.1.9", "172.16.0.0/12")},
            ["10.0.0.1", "10.0.0.5-10.0.0.12"],
            id="excluded ranges",
        ),
        pytest.param(
            [{"subnet": "10.0.0.0/30"}],
            {"excluded_addresses": ("10.0.0.1",), "allocate_reserved_addresses": True},
            ["10.0.0.0", "10.0.0.2-10.0.0.3"],
            id="excluded whatever the flag says",
        ),
        pytest.param(
            [{"start": "2001:db8::", "end": "2001:db8::ffff"}],
            {"prefix": 112},
            ["2001:db8::1-2001:db8::ffff"],
            id="IPv6: the anycast address is not given, the last one is",
        ),
        pytest.param([{"subnet": "10.0.0.0/31"}], {}, ["10.0.0.0-10.0.0.1"], id="point to point"),
        pytest.param([{"subnet": "10.0.0.9/32"}], {}, ["10.0.0.9"], id="single"),
        pytest.param([{"subnet": "2001:db8::/127"}], {}, ["2001:db8::-2001:db8::1"], id="IPv6 point to point"),
        pytest.param([{"subnet": "2001:db8::9/128"}], {}, ["2001:db8::9"], id="IPv6 single"),
        pytest.param(
            [{"subnet": "10.0.0.0/23"}],
            {"prefix": 24},
            ["10.0.0.1-10.0.0.254", "10.0.1.1-10.0.1.254"],
            id="ends of each network that the prefix makes",
        ),
        pytest.param(
            [{"subnet": "10.0.0.0/30"}], {"prefix": 32}, ["10.0.0.1-10.0.0.2"], id="ends of the subnet, hosts get /32"
        ),
        pytest.param(
            [{"subnet": "10.0.0.0/24", "prefix": 16}], {}, ["10.0.0.1-10.0.0.254"], id="subnet within a wider network"
        ),
        pytest.param(
            [{"start": "10.0.0.1", "end": "10.0.0.5"}, {"start": "10.0.0.3", "end": "10.0.0.8"}],
            {},
            ["10.0.0.1-10.0.0.5", "10.0.0.6-10.0.0.8"],
            id="what two entries cover counts once, for the first",
        ),
        pytest.param(
            [{"start": "10.0.0.4", "end": "10.0.0.5"}, {"start": "10.0.0.3", "end": "10.0.0.8"}],
            {},
            ["10.0.0.4-10.0.0.5", "10.0.0.3", "10.0.0.6-10.0.0.8"],
            id="an entry around an earlier one",
        ),
        pytest.param(
            [{"subnet": "10.0.0.0/30"}, {"subnet": "2001:db8::/126"}],
            {},
            ["10.0.0.1-10.0.0.2", "2001:db8::1-2001:db8::3"],
            id="both families",
        ),
    ],
)
def test_a_pool_gives_neither_reserved_nor_excluded_addresses(entries, spec, expected):
    pool = space(*entries, **spec)
    assert given(pool) == expected
    assert pool.problems == []
    assert pool.total == sum(i.size for r in pool.ranges for i in r.assignable.intervals)


@pytest.mark.parametrize(
    ("entries", "total"),
    [
        ([], 0),
        ([{"start": "10.0.0.1", "end": "10.0.0.1"}], 1),
        ([{"start": "10.0.0.1", "end": "10.0.0.2"}], 2),
        ([{"subnet": "10.0.0.0/24"}], 254),
        ([{"subnet": "10.0.0.0/24"}, {"subnet": "10.0.0.0/24"}], 254),
        ([{"subnet": "10.0.0.0/24"}, {"subnet": "10.0.1.0/24"}], 508),
        ([{"subnet": "10.0.0.0/8"}], 2**24 - 2),
        ([{"start": "0.0.0.0"}], 2**32),
        ([{"subnet": "2001:db8::/64"}], 2**64 - 1),
        ([{"start": "::"}], 2**128),
    ],
)
def test_the_size_of_a_pool_is_exact_whatever_its_size(entries, total):
    assert space(*entries).total == total


def test_a_range_of_very_many_networks_reserves_only_the_outermost_ends():
    many = space({"start": "10.0.0.0", "end": "10.255.255.255", "prefix": 24})
    assert len(many.reserved) == 2 * MAX_NETWORKS
    assert not many.is_assignable(point("10.1.0.255"))
    too_many = space({"start": "10.0.0.0", "end": "11.0.0.0", "prefix": 24})
    assert [intervals.text(at) for at in sorted(too_many.reserved)] == ["10.0.0.0", "10.0.0.255", "11.0.0.0"]
    assert too_many.is_assignable(point("10.1.0.255"))
    assert space({"subnet": "2001:db8::/32", "prefix": 64}).total == 2**96 - 2


def test_what_a_pool_keeps_in_mind_does_not_grow_with_each_range_of_very_many_networks():
    block = 4 * MAX_NETWORKS
    entries = [
        {"start": f"10.{i * 4}.0.0", "end": intervals.text(point(f"10.{i * 4}.0.0") + block - 1), "prefix": 30}
        for i in range(20)
    ]
    pool = space(*entries)
    assert len(pool.reserved) == 2 * MAX_NETWORKS + 19 * 4
    assert pool.total == 20 * block - len(pool.reserved)


def test_ranges_that_overlap_in_any_way_give_each_address_once():
    spans = [(5, 9), (1, 3), (20, 30), (2, 6), (9, 20), (40, 41), (0, 50), (25, 60)]
    entries = [{"start": f"10.0.0.{first}", "end": f"10.0.0.{last}"} for first, last in spans]
    pool = space(*entries)
    seen = set()
    for (first, last), given in zip(spans, pool.ranges, strict=True):
        own = set(range(first, last + 1)) - seen
        seen |= own
        assert {at - point("10.0.0.0") for i in given.assignable.intervals for at in range(i.first, i.last + 1)} == own
    assert pool.total == len(seen)


def test_what_is_not_given_is_refused_with_its_reason():
    pool = space(
        {"subnet": "10.0.0.0/29"},
        {"start": "10.0.1.1"},
        gateway="10.0.0.1",
        excluded_addresses=("10.0.0.2", "10.9.9.9"),
    )
    assert [pool.why_not(point(a)) for a in ("10.0.0.3", "10.0.1.1", "255.255.255.255")] == [None, None, None]
    outside = pool.why_not(point("9.9.9.9"))
    assert outside == (
        "AddressOutsidePool",
        "9.9.9.9 is outside the pool's ranges (10.0.0.1-10.0.0.7, 10.0.1.1-255.255.255.255)",
    )
    assert pool.why_not(point("10.0.0.2")) == ("AddressExcluded", "10.0.0.2 is in the pool's excludedAddresses")
    assert pool.why_not(point("10.9.9.9"))[0] == "AddressExcluded"
    assert pool.why_not(point("10.0.0.1")) == (
        "AddressExcluded",
        "10.0.0.1 is a gateway of the pool; set allocateReservedAddresses to give it all the same",
    )
    assert "broadcast address" in pool.why_not(point("10.0.0.7"))[1]
    assert "is a network address" in space({"start": "10.0.0.0", "prefix": 24}).why_not(point("10.0.0.0"))[1]
    assert pool.why_not(point("10.0.0.0"))[0] == "AddressOutsidePool"
    assert pool.why_not(point("::1"))[0] == "AddressOutsidePool"
    assert [intervals.text(i.first) for i in pool.excluded] == ["10.0.0.2", "10.9.9.9"]


def test_many_ranges_are_told_in_a_few_words():
    assert space().describe() == "none"
    pool = space(*({"start": f"10.0.{n}.1", "end": f"10.0.{n}.2"} for n in range(6)))
    assert pool.describe(most=1) == "10.0.0.1-10.0.0.2, and 5 more"
    four = "10.0.0.1-10.0.0.2, 10.0.1.1-10.0.1.2, 10.0.2.1-10.0.2.2, 10.0.3.1-10.0.3.2"
    assert pool.describe() == f"{four}, and 2 more"
    pool = space(*({"start": f"10.0.{n}.1", "end": f"10.0.{n}.2"} for n in range(4)))
    assert pool.describe() == four


# The settings that come with an address


@pytest.mark.parametrize(
    ("entry", "spec", "expected"),
    [
        ({"subnet": "192.168.1.0/24"}, {}, (24, "", ())),
        ({"subnet": "192.168.1.0/24"}, {"prefix": 22}, (22, "", ())),
        ({"subnet": "192.168.1.0/24", "prefix": 20}, {"prefix": 22}, (20, "", ())),
        ({"subnet": "192.168.1.0/24", "prefix": 0}, {"prefix": 22}, (22, "", ())),
        ({"subnet": "192.168.1.0/24", "prefix": 0}, {}, (24, "", ())),
        ({"start": "192.168.1.1", "prefix": 0}, {"prefix": 22}, (22, "", ())),
        ({"start": "192.168.1.1", "prefix": 0}, {}, (0, "", ())),
        ({"start": "192.168.1.1"}, {"prefix": 0}, (0, "", ())),
        ({"start": "192.168.1.1"}, {}, (None, "", ())),
        ({"start": "192.168.1.1"}, {"prefix": 22}, (22, "", ())),
        ({"start": "192.168.1.1"}, {"gateway": "192.168.0.1"}, (None, "192.168.0.1", ())),
        ({"start": "192.168.1.1", "gateway": "192.168.0.2"}, {"gateway": "192.168.0.1"}, (None, "192.168.0.2", ())),
        ({"start": "192.168.1.1", "gateway": "0.0.0.0"}, {"gateway": "192.168.0.1"}, (None, "0.0.0.0", ())),
        ({"start": "192.168.1.1"}, {"gateway": "2001:db8::1"}, (None, "", ())),
        ({"start": "2001:db8::5"}, {"gateway": "2001:db8::0001"}, (None, "2001:db8::1", ())),
        ({"start": "192.168.1.1"}, {"dns_servers": ("8.8.8.8",)}, (None, "", ("8.8.8.8",))),
        (
            {"start": "192.168.1.1", "dns_servers": ("1.1.1.1",)},
            {"dns_servers": ("8.8.8.8",)},
            (None, "", ("1.1.1.1",)),
        ),
        ({"start": "192.168.1.1"}, {"dns_servers": ("2001:4860:4860::8888",)}, (None, "", ("2001:4860:4860::8888",))),
    ],
)
def test_an_address_gets_its_ranges_settings_else_its_pools_else_the_subnets(entry, spec, expected):
    pool = space(entry, **spec)
    (item,) = pool.ranges
    assert (item.prefix, item.gateway, item.dns_servers) == expected
    assert pool.problems == []


def test_the_settings_are_those_of_the_first_range_that_covers_the_address():
    pool = space(
        {"start": "10.0.0.4", "end": "10.0.0.5", "prefix": 16}, {"start": "10.0.0.1", "end": "10.0.0.9", "prefix": 24}
    )
    assert [pool.range_of(point(f"10.0.0.{n}")).prefix for n in (3, 4, 5, 6)] == [24, 16, 16, 24]
    assert [pool.place_of(point(f"10.0.0.{n}")) for n in (0, 3, 4, 5, 6, 10)] == [None, 1, 0, 0, 1, None]
    assert pool.range_of(point("10.0.0.10")) is None


# Mistakes: each is named, and hides nothing else

GOOD = {"start": "172.16.0.1", "end": "172.16.0.9"}


@pytest.mark.parametrize(
    ("entry", "spec", "field", "value"),
    [
        ({"start": "abc"}, {}, "spec.pools[0].start", "abc"),
        ({"start": "10.0.0.300", "end": "10.0.0.9"}, {}, "spec.pools[0].start", "10.0.0.300"),
        ({"start": "10.0.0.1", "end": "abc"}, {}, "spec.pools[0].end", "abc"),
        ({"start": "fe80::1%eth0"}, {}, "spec.pools[0].start", "fe80::1%eth0"),
        ({"start": "::ffff:10.0.0.1"}, {}, "spec.pools[0].start", "::ffff:10.0.0.1"),
        ({"start": "10.0.0.010"}, {}, "spec.pools[0].start", "10.0.0.010"),
        ({"subnet": "10.0.0.0"}, {}, "spec.pools[0].subnet", "10.0.0.0"),
        ({"subnet": "10.0.0.0/33"}, {}, "spec.pools[0].subnet", "10.0.0.0/33"),
        ({"subnet": "abc/24"}, {}, "spec.pools[0].subnet", "abc/24"),
        ({"start": "10.0.0.1", "end": "10.0.0.9", "subnet": "abc"}, {}, "spec.pools[0].subnet", "abc"),
        ({"end": "10.0.0.9"}, {}, "spec.pools[0]", "10.0.0.9"),
        ({}, {}, "spec.pools[0]", ""),
        ({"start": "10.0.0.9", "end": "10.0.0.1"}, {}, "spec.pools[0].end", "10.0.0.1"),
        ({"start": "10.0.0.1", "end": "2001:db8::9"}, {}, "spec.pools[0]", "10.0.0.1 2001:db8::9"),
        ({"start": "2001:db8::1", "subnet": "10.0.0.0/24"}, {}, "spec.pools[0]", "2001:db8::1 10.0.0.0/24"),
        ({"start": "10.0.1.1", "subnet": "10.0.0.0/24"}, {}, "spec.pools[0].start", "10.0.1.1"),
        ({"end": "9.0.0.1", "subnet": "10.0.0.0/24"}, {}, "spec.pools[0].end", "9.0.0.1"),
        ({"subnet": "10.0.0.0/24", "start": "10.0.0.9", "end": "10.0.0.1"}, {}, "spec.pools[0].end", "10.0.0.1"),
        (GOOD, {"gateway": "abc"}, "spec.gateway", "abc"),
        (GOOD, {"gateway": "10.0.0.0/24"}, "spec.gateway", "10.0.0.0/24"),
        ({**GOOD, "gateway": "abc"}, {}, "spec.pools[0].gateway", "abc"),
        ({**GOOD, "gateway": "2001:db8::1"}, {}, "spec.pools[0].gateway", "2001:db8::1"),
        ({**GOOD, "prefix": 33}, {}, "spec.pools[0].prefix", "33"),
        ({**GOOD, "prefix": -1}, {}, "spec.pools[0].prefix", "-1"),
        ({"start": "2001:db8::1", "prefix": 129}, {}, "spec.pools[0].prefix", "129"),
        (GOOD, {"prefix": 64}, "spec.prefix", "64"),
        (GOOD, {"prefix": -1}, "spec.prefix", "-1"),
        (GOOD, {"dns_servers": ("8.8.8.8", "dns.example")}, "spec.dnsServers[1]", "dns.example"),
        ({**GOOD, "dns_servers": ("dns.example",)}, {}, "spec.pools[0].dnsServers[0]", "dns.example"),
        (GOOD, {"excluded_addresses": ("abc",)}, "spec.excludedAddresses[0]", "abc"),
        (
            GOOD,
            {"excluded_addresses": ("172.16.0.5-172.16.0.1",)},
            "spec.excludedAddresses[0]",
            "172.16.0.5-172.16.0.1",
        ),
        (GOOD, {"excluded_addresses": ("1.1.1.1", "1.1.1.1-::1")}, "spec.excludedAddresses[1]", "1.1.1.1-::1"),
        (GOOD, {"excluded_addresses": ("172.16.0.0/33",)}, "spec.excludedAddresses[0]", "172.16.0.0/33"),
        (GOOD, {"pre_allocations": {"a": "abc"}}, "spec.preAllocations[a]", "abc"),
        (GOOD, {"pre_allocations": {"a": ""}}, "spec.preAllocations[a]", ""),
        (GOOD, {"pre_allocations": {"a": "9.9.9.9"}}, "spec.preAllocations[a]", "9.9.9.9"),
        (
            GOOD,
            {"pre_allocations": {"a": "172.16.0.3"}, "gateway": "172.16.0.3"},
            "spec.preAllocations[a]",
            "172.16.0.3",
        ),
        (
            GOOD,
            {"pre_allocations": {"a": "172.16.0.3"}, "excluded_addresses": ("172.16.0.3",)},
            "spec.preAllocations[a]",
            "172.16.0.3",
        ),
        (
            {"subnet": "2001:db8::/64"},
            {"pre_allocations": {"a": "2001:db8::5", "b": "2001:db8:0::0005"}},
            "spec.preAllocations[b]",
            "2001:db8:0::0005",
        ),
    ],
)
def test_a_mistake_is_named_and_the_rest_is_served(entry, spec, field, value):
    pool = space(entry, {"start": "172.20.0.1", "end": "172.20.0.2", "prefix": 24}, **spec)
    (problem,) = pool.problems
    assert (problem.field, problem.value) == (field, value)
    assert problem.expected
    assert str(problem) == f"{field}: {value!r}: {problem.expected}"
    assert pool.is_assignable(point("172.20.0.1"))
    if entry.get("start") == GOOD["start"] and entry.get("end") == GOOD["end"]:
        assert pool.is_assignable(point("172.16.0.1"))


def test_a_pool_without_ranges_is_a_mistake():
    (problem,) = space().problems
    assert problem.field == "spec.pools"


def test_all_mistakes_are_named_at_once_and_each_once():
    pool = space(
        {"start": "abc", "gateway": "def", "dns_servers": ("ghi",)},
        {"start": "10.0.0.1", "end": "10.0.0.2"},
        {"start": "10.0.0.3", "end": "10.0.0.4"},
        gateway="jkl",
        prefix=64,
        excluded_addresses=("mno",),
        pre_allocations={"a": "pqr"},
    )
    assert [problem.field for problem in pool.problems] == [
        "spec.excludedAddresses[0]",
        "spec.gateway",
        "spec.pools[0].start",
        "spec.pools[0].gateway",
        "spec.pools[0].dnsServers[0]",
        "spec.prefix",
        "spec.preAllocations[a]",
    ]
    assert given(pool) == ["10.0.0.1-10.0.0.2", "10.0.0.3-10.0.0.4"]


def test_a_mistaken_setting_falls_back_to_the_next_one():
    pool = space(
        {"subnet": "10.0.0.0/24", "prefix": 99, "gateway": "abc", "dns_servers": ("def",)},
        prefix=28,
        gateway="10.0.0.1",
        dns_servers=("8.8.8.8", "ghi"),
    )
    assert (pool.ranges[0].prefix, pool.ranges[0].gateway, pool.ranges[0].dns_servers) == (28, "10.0.0.1", ("8.8.8.8",))
    assert space({"subnet": "10.0.0.0/24", "prefix": 99}, prefix=64).ranges[0].prefix == 24


@pytest.mark.parametrize(
    ("entry", "served"),
    [
        ({"subnet": "10.0.0.0/29", "start": "9.0.0.0"}, ["10.0.0.1-10.0.0.6"]),
        ({"subnet": "10.0.0.0/29", "end": "10.0.0.200"}, ["10.0.0.1-10.0.0.6"]),
        ({"subnet": "10.0.0.0/29", "start": "10.0.0.200"}, []),
        ({"subnet": "10.0.0.0/29", "end": "9.0.0.0"}, []),
        ({"subnet": "10.0.0.0/29", "start": "10.9.0.1", "end": "10.9.0.9"}, []),
    ],
)
def test_a_range_gives_nothing_outside_the_subnet_it_names(entry, served):
    pool = space(entry)
    assert given(pool) == served
    assert {problem.expected for problem in pool.problems} == {"an address of subnet 10.0.0.0/29"}


def test_pre_allocations_are_kept_by_value_and_the_first_of_two_wins():
    pool = space(
        {"subnet": "2001:db8::/64"},
        pre_allocations={"a": "2001:0db8::0005", "b": "2001:db8::6", "c": "2001:db8::5", "d": "2001:db8::"},
    )
    assert pool.pre_allocations == {"a": point("2001:db8::5"), "b": point("2001:db8::6")}
    assert pool.kept_for == {point("2001:db8::5"): "a", point("2001:db8::6"): "b"}
    assert pool.bad_pre_allocations.keys() == {"c", "d"}
    assert list(pool.bad_pre_allocations.values()) == pool.problems
    assert "'a'" in pool.bad_pre_allocations["c"].expected
    assert "outside the pool's ranges" in pool.bad_pre_allocations["d"].expected


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        (
            {"start": "10.0.0.1", "end": "::1"},
            ("spec.pools[0]", "10.0.0.1 ::1", "addresses of one family"),
        ),
        (
            {"start": "10.0.0.1", "subnet": "fd00::/64"},
            ("spec.pools[0]", "10.0.0.1 fd00::/64", "addresses of one family"),
        ),
        ({"end": "10.0.0.9"}, ("spec.pools[0]", "10.0.0.9", "start or subnet beside end")),
        ({}, ("spec.pools[0]", "", "start and end, or subnet")),
        (
            {"subnet": "10.0.0.0"},
            ("spec.pools[0].subnet", "10.0.0.0", "an address, a slash and a prefix length"),
        ),
    ],
)
def test_an_entry_that_is_no_range_is_told_with_what_was_expected(entry, problem):
    assert [tuple(found) for found in space(entry).problems] == [problem]


def test_mistakes_beside_the_entries_are_told_with_what_was_expected():
    expected = "an address, a CIDR or a range a-b of one family"
    excluded = space({"start": "10.0.0.1", "gateway": "fd00::1"}, excluded_addresses=("10.0.0.9", "ten"))
    assert [tuple(problem) for problem in excluded.problems] == [
        ("spec.excludedAddresses[1]", "ten", expected),
        ("spec.pools[0].gateway", "fd00::1", "an address of the family of the range"),
    ]
    empty = ("spec.pools", "", "at least one entry with start and end, or subnet")
    assert [tuple(problem) for problem in space().problems] == [empty]


def test_the_spans_that_touch_another_are_found():
    spans = Spans([Interval(10, 19), Interval(30, 39), Interval(50, 59), Interval(70, 79)])
    for (first, last), found in {
        (0, 9): [],
        (0, 10): [10],
        (19, 30): [10, 30],
        (20, 29): [],
        (35, 36): [30],
        (40, 70): [50, 70],
        (60, 99): [70],
        (80, 99): [],
    }.items():
        assert [span.first for span in spans.touching(Interval(first, last))] == found


@pytest.mark.parametrize(("most", "found"), [(5, [0, 4, 8, 12]), (4, [0, 4, 8, 12]), (3, [0, 12]), (0, [0, 12])])
def test_of_too_many_networks_the_outermost_two_are_kept(most, found):
    assert _networks(Interval(1, 12), 30, most) == [Interval(at, at + 3) for at in found]


def test_what_is_no_address_is_told_and_what_comes_after_it_is_read():
    given = {"a": "ten", "b": "10.0.0.5"}
    pool = space({"start": "10.0.0.1", "end": "10.0.0.9"}, gateway="gw", pre_allocations=given)
    assert [tuple(problem) for problem in pool.problems] == [
        ("spec.gateway", "gw", "an IPv4 or IPv6 address"),
        ("spec.preAllocations[a]", "ten", "an IPv4 or IPv6 address"),
    ]
    assert pool.pre_allocations == {"b": point("10.0.0.5")}
