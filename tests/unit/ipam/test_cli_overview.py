"""What the tables of pools and addresses say, row by row and cell by cell."""

from __future__ import annotations

import pytest

from services.ipam import intervals
from services.ipam.api import PoolKey
from services.ipam.cli import overview, tables
from services.ipam.cli.overview import PoolName, address_rows, pool_rows, select_addresses, select_pools
from services.runtime.kube.conditions import parse_timestamp
from tests.support.ipam_snapshot import address, bound, claim, pool, reservation, snapshot

NOON = parse_timestamp("2026-01-01T12:00:00Z").timestamp()
LEFT = {"kind": "IPClaim", "namespace": "a", "name": "left"}


def released(at, until, **spec):
    return reservation(at, lastClaim=LEFT, releasedAt="2026-01-01T11:00:00Z", reusableAt=until, **spec)


def counts(row):
    return row.total, row.used, row.free, row.reserved, row.cooling, row.out_of_range


TEN = {"pools": [{"start": "10.0.0.1", "end": "10.0.0.10"}]}
POOLS = {
    "an empty pool": ([], (10, 0, 10, 0, 0, 0)),
    "a bound claim": ([bound("one", "10.0.0.1")], (10, 1, 9, 0, 0, 0)),
    "an IPAddress that is not in the ledger": ([bound("one", "10.0.0.1")[1]], (10, 1, 9, 0, 0, 0)),
    "a reservation without an IPAddress": ([reservation("10.0.0.1", "one")], (10, 1, 9, 0, 0, 0)),
    "both kinds": ([bound("x", "10.0.0.1"), bound("x", "10.0.0.2", kind="IPAddressClaim")], (10, 2, 8, 0, 0, 0)),
    "an administrator's": ([reservation("10.0.0.1")], (10, 0, 9, 1, 0, 0)),
    "one that cools": ([released("10.0.0.1", "2026-01-01T12:00:01Z", pool={"kind": "IPPool"})], (10, 0, 9, 0, 1, 0)),
    "one that has cooled": ([released("10.0.0.1", "2026-01-01T11:59:59Z")], (10, 0, 10, 0, 0, 0)),
    "one beyond the ranges": ([bound("one", "10.0.0.99")], (10, 0, 10, 0, 0, 1)),
    "another domain's": ([reservation("10.0.0.1", domain="site2")], (10, 0, 10, 0, 0, 0)),
    "an overlapping pool's": ([pool("q", **TEN), bound("one", "10.0.0.1", of="q")], (10, 1, 9, 0, 0, 0)),
}


@pytest.mark.parametrize(("objects", "expected"), POOLS.values(), ids=POOLS)
def test_a_pool_is_counted_from_what_is_there(objects, expected):
    row = next(row for row in pool_rows(snapshot(pool(**TEN), objects), NOON) if row.key.name == "p")
    assert counts(row) == expected
    assert row.total == row.used + row.free + row.reserved + row.cooling


def test_counts_beyond_64_bits_are_exact():
    (row,) = pool_rows(snapshot(pool(pools=[{"subnet": "2001:db8::/48"}], preAllocations={"x": "2001:db8::9"})), NOON)
    assert (row.total, row.free, row.reserved) == (2**80 - 1, 2**80 - 2, 1)


@pytest.mark.parametrize(
    ("options", "ready", "reason"),
    [
        ({}, True, "PoolReady"),
        ({"deleting": True}, False, "Deleting"),
        ({"pools": [{"start": "10.0.0.9", "end": "10.0.0.1"}]}, False, "InvalidSpec"),
        ({"pools": "none"}, False, "InvalidSpec"),
        ({"annotations": {"cluster.x-k8s.io/paused": ""}}, False, "PoolPaused"),
    ],
)
def test_a_pool_is_ready_or_says_why_not(options, ready, reason):
    (row,) = pool_rows(snapshot(pool(**options)), NOON)
    assert (row.ready, row.reason) == (ready, reason)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (None, "none"),
        ({"observedGeneration": 1}, "none"),
        ({"observedGeneration": 1, "ipAddresses": {"total": 10, "free": 9, "used": 1}}, "current"),
        ({"observedGeneration": 0, "ipAddresses": {"total": 10, "free": 9, "used": 1}}, "behind"),
        ({"observedGeneration": 1, "ipAddresses": {"total": 10, "free": 10, "used": 0}}, "behind"),
    ],
)
def test_a_status_that_differs_from_what_is_there_is_called_behind(status, expected):
    (row,) = pool_rows(snapshot(pool(status=status, **TEN), bound("one", "10.0.0.1")), NOON)
    assert row.status == expected


def test_a_status_that_cannot_be_read_is_called_behind():
    (row,) = pool_rows(snapshot(pool(status={"ipAddresses": {"total": "9"}}, **TEN)), NOON)
    assert (row.status, row.ready) == ("behind", True)


def test_a_pool_is_not_ready_for_every_reason_for_which_the_allocator_serves_nobody():
    (row,) = pool_rows(snapshot(pool(namePrefix="Bad_Name")), NOON)
    assert (row.ready, row.reason) == (False, "InvalidSpec")
    assert "spec.namePrefix" in row.message


def test_pools_of_a_namespace_come_with_those_of_no_namespace():
    rows = pool_rows(snapshot(pool("x", "a"), pool("y", "b"), pool("z", "")), NOON)
    assert [str(row.key) for row in rows] == ["GlobalIPPool z", "IPPool a/x", "IPPool b/y"]
    assert [row.key.name for row in select_pools(rows, ["b"])] == ["z", "y"]
    assert select_pools(rows, []) == rows


def shown(*objects):
    """State, claim and description of each address."""
    rows = address_rows(snapshot(pool(), objects), NOON)
    return [(intervals.text(row.at), row.state, str(row.claim or ""), row.description) for row in rows]


ADDRESSES = {
    "held": (bound("one", "10.0.0.1"), [("10.0.0.1", "held", "IPClaim a/one", "")]),
    "held with a description": (
        (bound("one", "10.0.0.1")[:2], reservation("10.0.0.1", "one", description="gateway VM")),
        [("10.0.0.1", "held", "IPClaim a/one", "gateway VM")],
    ),
    "held, not bound yet": (
        reservation("10.0.0.1", "one"),
        [("10.0.0.1", "held", "IPClaim a/one", "no IPAddress yet")],
    ),
    "held outside the ledger": (
        bound("one", "10.0.0.1")[1],
        [("10.0.0.1", "held", "IPClaim a/one", "not in the ledger")],
    ),
    "held although reserved": (
        (bound("one", "10.0.0.1")[1], reservation("10.0.0.1")),
        [("10.0.0.1", "held", "IPClaim a/one", "IPReservation default.10.0.0.1 disagrees")],
    ),
    "in conflict": (
        (bound("one", "10.0.0.1"), bound("two", "10.0.0.1", kind="IPAddressClaim")[1]),
        [
            ("10.0.0.1", "conflict", "IPAddressClaim a/two", "IPReservation default.10.0.0.1 disagrees"),
            ("10.0.0.1", "conflict", "IPClaim a/one", ""),
        ],
    ),
    "reserved": (reservation("10.0.0.1", description="printer"), [("10.0.0.1", "reserved", "", "printer")]),
    "cooling": (
        released("10.0.0.1", "2026-01-01T13:00:00Z"),
        [("10.0.0.1", "cooling", "", "kept for IPClaim a/left; for nobody else until 2026-01-01T13:00:00Z")],
    ),
    "released": (
        released("10.0.0.1", "2026-01-01T12:00:00Z"),
        [("10.0.0.1", "released", "", "kept for IPClaim a/left")],
    ),
    "pre-allocated": (
        (pool("q", preAllocations={"x": "10.0.0.1", "one": "10.0.0.2"}), bound("one", "10.0.0.2", of="q")),
        [
            ("10.0.0.1", "reserved", "", "kept for a claim named x (preAllocations)"),
            ("10.0.0.2", "held", "IPClaim a/one", ""),
        ],
    ),
    "in numeric order": (
        (reservation("10.0.0.10"), reservation("10.0.0.9")),
        [("10.0.0.9", "reserved", "", ""), ("10.0.0.10", "reserved", "", "")],
    ),
}


@pytest.mark.parametrize(("objects", "expected"), ADDRESSES.values(), ids=ADDRESSES)
def test_an_address_is_shown_with_its_state_and_its_holder(objects, expected):
    assert shown(objects) == expected


def test_an_address_of_a_deleted_pool_is_in_the_domain_of_its_reservation():
    objects = bound("one", "10.0.0.1", of="gone", domain="site2")
    (row,) = address_rows(snapshot(objects), NOON)
    assert (row.domain, row.state) == ("site2", "held")
    (row,) = address_rows(snapshot(objects[:2]), NOON)
    assert (row.domain, row.state) == ("", "held")


def test_a_reserved_address_belongs_to_every_pool_that_covers_it():
    objects = (
        pool(),
        pool("q", ""),
        pool("r", domain="site2"),
        pool("s", pools=[{"start": "10.9.0.1", "end": "10.9.0.2"}]),
    )
    (row,) = address_rows(snapshot(objects, reservation("10.0.0.1")), NOON)
    assert {str(key) for key in row.pools} == {"IPPool a/p", "GlobalIPPool q"}


FILTERS = {
    "none": ({}, ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.1.1", "10.0.0.1"]),
    "a domain": ({"domain": "site2"}, ["10.0.0.1"]),
    "a state": ({"states": ["reserved"]}, ["10.0.0.3"]),
    "two states": ({"states": ["reserved", "held"]}, ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.1.1", "10.0.0.1"]),
    "a pool": ({"pool": PoolName.parse("p")}, ["10.0.0.1", "10.0.0.2", "10.0.0.3"]),
    "a pool of a kind": ({"pool": PoolName.parse("GlobalIPPool/g")}, ["10.0.0.1"]),
    "a namespace's claims and pools": ({"namespaces": ["b"]}, ["10.0.0.2", "10.0.1.1"]),
    "an address": ({"span": overview.parse_span("10.0.0.2")}, ["10.0.0.2"]),
    "a CIDR": ({"span": overview.parse_span("10.0.1.0/24")}, ["10.0.1.1"]),
    "a range": ({"span": overview.parse_span("10.0.0.2-10.0.0.3")}, ["10.0.0.2", "10.0.0.3"]),
    "several": ({"domain": "default", "states": ["held"], "namespaces": ["a"]}, ["10.0.0.1", "10.0.0.2"]),
}


@pytest.mark.parametrize(("options", "expected"), FILTERS.values(), ids=FILTERS)
def test_addresses_are_filtered_by(options, expected):
    far = [{"start": "10.0.1.1", "end": "10.0.1.9"}]
    objects = (
        pool(),
        pool("q", "b", pools=far),
        pool("g", "", domain="site2"),
        bound("one", "10.0.0.1"),
        bound("two", "10.0.0.2", "b", of="a/p"),
        reservation("10.0.0.3"),
        bound("three", "10.0.1.1", "b", of="q"),
        bound("four", "10.0.0.1", "a", of="global:g", domain="site2"),
    )
    rows = select_addresses(address_rows(snapshot(objects), NOON), **options)
    assert [intervals.text(row.at) for row in rows] == expected


@pytest.mark.parametrize(
    ("text", "matching"),
    [
        ("p", ["IPPool a/p", "IPPool b/p", "GlobalIPPool p"]),
        ("a/p", ["IPPool a/p"]),
        ("IPPool/p", ["IPPool a/p", "IPPool b/p"]),
        ("IPPool/a/p", ["IPPool a/p"]),
        ("GlobalIPPool/p", ["GlobalIPPool p"]),
        ("q", []),
    ],
)
def test_a_pool_is_named_with_as_much_as_is_needed(text, matching):
    keys = [PoolKey("IPPool", "a", "p"), PoolKey("IPPool", "b", "p"), PoolKey("GlobalIPPool", "", "p")]
    assert [str(key) for key in keys if PoolName.parse(text).matches(key)] == matching


@pytest.mark.parametrize("text", ["", "/", "a/", "/p", "a/b/c", "IPPool/a/b/c"])
def test_what_names_no_pool_is_refused(text):
    with pytest.raises(ValueError):  # noqa: PT011 - the message is the caller's
        PoolName.parse(text)


# -- cells ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "0"),
        (16_777_214, "16777214"),
        (2**32, "4294967296"),
        (10**10 - 1, "9999999999"),
        (2**64, "2^64"),
        (2**64 - 2, "2^64-2"),
        (2**64 + 5, "2^64+5"),
        (2**64 - 10**6, "~2^64"),
        (2**80 - 2**78, "~2^79.6"),
        (2**128, "2^128"),
    ],
)
def test_a_number_is_readable_however_large(value, expected):
    assert tables.number(value) == expected


@pytest.mark.parametrize(
    ("fill", "expected"),
    [
        (None, ""),
        (0.0, "[----------] 0%"),
        (1 / 2**64, "[#---------] <1%"),
        (0.41, "[####------] 41%"),
        (0.96, "[#########-] 96%"),
        (0.9999, "[#########-] >99%"),
        (1.0, "[##########] 100%"),
    ],
)
def test_a_bar_is_empty_or_full_only_when_that_is_so(fill, expected):
    assert tables.bar(fill) == expected


@pytest.mark.parametrize(
    ("since", "expected"),
    [
        ("", ""),
        ("2026-01-01T12:00:09Z", "0s"),
        ("2026-01-01T11:58:01Z", "119s"),
        ("2026-01-01T11:58:00Z", "2m"),
        ("2026-01-01T10:00:00Z", "2h"),
        ("2025-12-30T12:00:01Z", "47h"),
        ("2025-12-30T12:00:00Z", "2d"),
        ("2023-01-01T12:00:00Z", "3y"),
        ("0000-01-01T00:00:00Z", ""),
    ],
)
def test_an_age_is_short(since, expected):
    assert tables.age(since, NOON) == expected


def test_the_table_of_pools_has_a_column_for_every_count():
    rows = pool_rows(snapshot(pool(**TEN), bound("one", "10.0.0.1"), reservation("10.0.0.2")), NOON)
    header, line = tables.pools(rows, wide=False).splitlines()
    assert dict(zip(header.split(), line.split(), strict=False)) == {
        "NAMESPACE": "a",
        "KIND": "IPPool",
        "NAME": "p",
        "DOMAIN": "default",
        "TOTAL": "10",
        "USED": "1",
        "FREE": "8",
        "RESERVED": "1",
        "COOLING": "0",
        "OUT-OF-RANGE": "0",
        "FILL": "[##--------]",
        "READY": "20%",
    }
    assert line.endswith("20%   True")
    wide = tables.pools(rows, wide=True)
    assert "10.0.0.1-10.0.0.10" in wide
    assert "STATUS" in wide.splitlines()[0]


def test_the_table_of_addresses_has_a_row_for_every_holder():
    rows = address_rows(snapshot(pool(), bound("one", "10.0.0.1")), NOON)
    header, line = tables.addresses(rows, NOON, wide=True).splitlines()
    assert header.split() == [
        *("ADDRESS", "DOMAIN", "STATE", "POOL", "CLAIM", "IPADDRESS", "AGE", "DESCRIPTION", "IPRESERVATION")
    ]
    assert line.startswith("10.0.0.1   default   held")
    assert "IPPool a/p   IPClaim a/one   a/p-10-0-0-1   12h   -" in line


def test_the_data_of_rows_has_what_the_tables_have():
    taken = snapshot(pool(**TEN), bound("one", "10.0.0.1"))
    (data,) = [tables.pool_data(row) for row in pool_rows(taken, NOON)]
    assert data["total"] == 10
    assert data["fill"] == 0.1
    (data,) = [tables.address_data(row) for row in address_rows(taken, NOON)]
    assert data["claim"] == {"kind": "IPClaim", "namespace": "a", "name": "one"}
    assert data["ipAddress"] == "a/p-10-0-0-1"
    assert data["since"] == "2026-01-01T00:00:00Z"


def test_objects_of_other_providers_are_left_out():
    other = (
        claim("x", kind="IPAddressClaim", of="ipam.example.org!p"),
        address("x", "x", "10.0.0.1", kind="IPAddressClaim", of="ipam.example.org!p"),
    )
    assert shown(other) == []
