"""Hypothesis strategies for small pool specs, as keywords that `oracle.PoolModel` and `pool_spec` both take."""

from __future__ import annotations

import ipaddress

from hypothesis import strategies as st

from services.ipam.api import PoolRange, PoolSpec

# Thirty-two addresses of each family: enough for overlaps of every kind, few enough to meet each of them often.
FOUR = ipaddress.ip_network("192.0.2.0/27")
SIX = ipaddress.ip_network("2001:db8::/123")
NAMES = ("a", "b", "c", "d", "e", "f")


def universe(*networks):
    """Addresses that tests draw from."""
    return st.sampled_from([ip for network in networks for ip in network])


@st.composite
def entries(draw, network):
    """One entry of `spec.pools` without mistakes."""
    bits = network.max_prefixlen
    entry = {}
    if draw(st.booleans()):
        low, high = sorted((draw(universe(network)), draw(universe(network))))
        entry = {"start": str(low), "end": str(high)}
    else:
        length = draw(st.integers(network.prefixlen, bits))
        some = draw(universe(network))
        written = draw(st.sampled_from([some, ipaddress.ip_network((some, length), strict=False)[0]]))
        entry["subnet"] = f"{written}/{length}"
        inside = list(ipaddress.ip_network((written, length), strict=False))
        if draw(st.booleans()):
            entry["start"] = str(draw(st.sampled_from(inside)))
        if draw(st.booleans()):
            first = ipaddress.ip_address(entry["start"]) if "start" in entry else min(written + 1, inside[-1])
            entry["end"] = str(draw(st.sampled_from([ip for ip in inside if ip >= first])))
    if draw(st.integers(0, 3)) == 0:
        entry["prefix"] = draw(st.integers(bits - 6, bits))
    if draw(st.integers(0, 3)) == 0:
        entry["gateway"] = str(draw(universe(network)))
    return entry


@st.composite
def blocks(draw, *networks):
    """One of `spec.excludedAddresses`."""
    network = draw(st.sampled_from(networks))
    low, high = sorted((draw(universe(network)), draw(universe(network))))
    cidr = f"{low}/{draw(st.integers(network.max_prefixlen - 2, network.max_prefixlen))}"
    return draw(st.sampled_from([str(low), cidr, f"{low}-{high}", f"{low} - {min(high, low + 3)}"]))


@st.composite
def specs(draw, *networks):
    """Keywords of a whole spec; its families are among those of the networks."""
    return {
        "entries": draw(st.lists(st.one_of(*(entries(n) for n in networks)), min_size=1, max_size=3)),
        "prefix": draw(st.none() | st.integers(24, 32)),
        "gateway": draw(st.just("") | universe(*networks).map(str)),
        "excluded": draw(st.lists(blocks(*networks), max_size=2)),
        "pre": draw(st.dictionaries(st.sampled_from(NAMES), universe(*networks).map(str), max_size=2)),
        "whole": draw(st.booleans()),
    }


def pool_spec(entries, *, prefix=None, gateway="", excluded=(), pre=None, whole=False):
    """The same keywords as a PoolSpec."""
    return PoolSpec(
        pools=tuple(PoolRange(**entry) for entry in entries),
        prefix=prefix,
        gateway=gateway,
        excluded_addresses=tuple(excluded),
        pre_allocations=pre or {},
        allocate_reserved_addresses=whole,
    )
