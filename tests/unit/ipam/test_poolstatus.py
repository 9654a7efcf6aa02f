"""What a pool says of itself, a row for each state."""

from __future__ import annotations

import pytest

from services.ipam import poolstatus
from services.ipam.api import AddressCounts, ClaimKey, PoolKey
from services.ipam.space import Problem
from tests.unit.ipam.worlds import at

KEY = PoolKey("IPPool", "ns", "pool")
HEALTHY = poolstatus.Facts(
    key=KEY,
    problems=(),
    counts=AddressCounts(total=3, used=1, free=2),
    held=1,
    waiting=0,
    available=2,
    overlaps=(),
    conflicts=(),
    deleting=False,
    strangers=(),
    indexes={},
)
HOLDERS = (ClaimKey("IPAddressClaim", "b", "y"), ClaimKey("IPClaim", "a", "x"))
ROWS = {
    "healthy": ({}, "Ready", "True", "PoolReady", ""),
    "a mistake in the spec": (
        {"problems": (Problem("spec.pools[0].end", "10.0.0", "an IPv4 or IPv6 address"),)},
        "Ready",
        "False",
        "InvalidSpec",
        "spec.pools[0].end: '10.0.0': an IPv4 or IPv6 address",
    ),
    "going": ({"deleting": True}, "Ready", "False", "Deleting", "Waits until its addresses are returned: 1 held"),
    "with addresses": ({}, "AddressesAvailable", "True", "AddressesAvailable", ""),
    "exhausted": (
        {"available": 0, "waiting": 2, "counts": AddressCounts(total=3, used=3)},
        "AddressesAvailable",
        "False",
        "PoolExhausted",
        "3 of 3 addresses are held, none is free; 2 claims wait",
    ),
    "alone": ({}, "NoOverlap", "True", "NoOverlap", ""),
    "sharing": (
        {"overlaps": (PoolKey("GlobalIPPool", "", "g"),)},
        "NoOverlap",
        "False",
        "PoolsOverlap",
        "Shares addresses with GlobalIPPool g",
    ),
    "in conflict": (
        {"conflicts": ((at("10.0.0.10"), HOLDERS),), "overlaps": (PoolKey("GlobalIPPool", "", "g"),)},
        "NoOverlap",
        "False",
        "AddressConflict",
        "Held twice: 10.0.0.10 by IPAddressClaim b/y and IPClaim a/x",
    ),
    "held by those it serves": ({}, "NamespacesAllowed", "True", "NamespacesAllowed", ""),
    "held by those it serves no more": (
        {"strangers": (("a", 2), ("b", 1))},
        "NamespacesAllowed",
        "False",
        "HeldFromOtherNamespaces",
        "Claims of namespaces that spec.allowedNamespaces does not have keep their addresses: a (2), b (1)",
    ),
}


@pytest.mark.parametrize(("change", "type_", "status", "reason", "message"), ROWS.values(), ids=ROWS.keys())
def test_a_pool_says_that_it_is(change, type_, status, reason, message):
    conditions = poolstatus.conditions(HEALTHY._replace(**change))
    (condition,) = [c for c in conditions if c.type == type_]
    assert (condition.status, condition.reason, condition.message) == (status, reason, message)


def test_a_message_names_the_first_few_and_counts_the_rest():
    many = tuple(PoolKey("IPPool", "ns", f"p{n}") for n in range(8))
    message = poolstatus.conditions(HEALTHY._replace(overlaps=many))[2].message
    assert message == "Shares addresses with " + ", ".join(f"IPPool ns/p{n}" for n in range(5)) + ", and 3 more"


CAPACITIES = {
    "countable": (
        (1 << 63) - 2,
        {"capacity": (1 << 63) - 2, "capacityCapped": False, "availableIPCount": (1 << 63) - 7},
    ),
    "capped": ((1 << 63) - 1, {"capacity": (1 << 63) - 1, "capacityCapped": True, "availableIPCount": None}),
}


@pytest.mark.parametrize(("total", "shown"), CAPACITIES.values(), ids=CAPACITIES.keys())
def test_metal3s_counts_are_left_out_where_they_would_be_wrong(total, shown):
    assert poolstatus.capacity(HEALTHY._replace(counts=AddressCounts(total=total, used=3, reserved=2))) == shown
