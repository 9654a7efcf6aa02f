"""The grammar of the pools annotation, a row for each form."""

from __future__ import annotations

import pytest

from services.capv_integrator.annotations import AnnotationError, Choices, PoolName, parse_pools, same_network, words

A, B = PoolName("a"), PoolName("b")
READ = {
    "a": Choices({}, (A,)),
    " a , b ": Choices({}, (A, B)),
    "ns/a": Choices({}, (PoolName("a", "ns"),)),
    "IPPool/a": Choices({}, (PoolName("a", "", "IPPool", "ipam.metal3.io"),)),
    "GlobalIPPool/a": Choices({}, (PoolName("a", "", "GlobalIPPool", "ipam.groundwork.dev"),)),
    "InClusterIPPool/ns/a": Choices({}, (PoolName("a", "ns", "InClusterIPPool", "ipam.cluster.x-k8s.io"),)),
    "Net.example.org/a": Choices({}, (PoolName("a", "", "Net", "example.org"),)),
    "ipv6:a": Choices({}, (PoolName("a", family="ipv6"),)),
    "ipv4:Net.example.org/ns/a": Choices({}, (PoolName("a", "ns", "Net", "example.org", "ipv4"),)),
    "0=a": Choices({"0": (A,)}),
    "0=a;1=b": Choices({"0": (A,), "1": (B,)}),
    "VM Network = a ; b": Choices({"VM Network": (A,)}, (B,)),
    "/DC0/network/VM Network=a,b": Choices({"/DC0/network/VM Network": (A, B)}),
    "odd=name=a": Choices({"odd=name": (A,)}),
    "a.b-c.1": Choices({}, (PoolName("a.b-c.1"),)),
}
REFUSED = {
    "": "is not a pool",
    "a,": "is not a pool",
    "a;": "is not a pool",
    "=a": "names no device",
    "0=": "is not a pool",
    "0=a;0=b": "twice",
    "a;b": "twice",
    "A/b/c/d": "API group",
    "IPPool/a/b/c": "is not a pool",
    "Unknown/a": "needs its API group",
    "ipv5:a": "ipv4 or ipv6",
    ":a": "ipv4 or ipv6",
    "Upper": "is not a pool",
    "a b": "is not a pool",
    "IPPool/": "is not a pool",
    "Kind.UPPER/a": "no kind of pool",
}


@pytest.mark.parametrize("text", READ)
def test_a_value_is_read(text):
    assert parse_pools(text) == READ[text]


@pytest.mark.parametrize("text", REFUSED)
def test_a_value_that_cannot_be_understood_is_refused_with_the_part(text):
    with pytest.raises(AnnotationError, match=REFUSED[text]):
        parse_pools(text)


OF = {
    ("a", 0, "x"): (A,),
    ("1=a", 0, "x"): (),
    ("1=a", 1, "x"): (A,),
    ("x=a;b", 3, "x"): (A,),
    ("x=a;b", 3, "y"): (B,),
    ("x=a;3=b", 3, "x"): (B,),  # an index goes before a network
    ("7=a", 0, "7"): (),  # a number is an index
    ("VM Network=a", 0, "/DC0/network/VM Network"): (A,),
}


@pytest.mark.parametrize(("text", "index", "network"), OF)
def test_a_device_gets_the_pools_of_its_choice(text, index, network):
    assert parse_pools(text).of(index, network) == OF[text, index, network]


def test_a_network_is_meant_by_its_name_or_the_last_part_of_its_path():
    assert same_network("net", "net")
    assert same_network("net", "/DC0/network/net")
    assert same_network("/DC0/network/net", "/DC0/network/net")
    assert not same_network("network/net", "/DC0/network/net")
    assert not same_network("other", "/DC0/network/net")


def test_a_pool_is_shown_as_it_would_be_written():
    for text in ("a", "ns/a", "IPPool/ns/a", "Net.example.org/a"):
        assert str(parse_pools(text).rest[0]) == text


def test_a_comma_list_has_no_empty_words():
    assert words(" a,, b ,") == ("a", "b")
    assert words("") == ()
