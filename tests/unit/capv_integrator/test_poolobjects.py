"""Each provider's shape of a pool."""

from __future__ import annotations

import json

import pytest

from services.capv_integrator import api
from services.capv_integrator.poolobjects import PoolBook, dns_servers, read_pool, search_domains
from services.runtime.kube.objects import KubeObject, decode


def pool(spec=None, status=None, kind="IPPool", **metadata):
    resource = api.POOLS[kind][0]
    meta = {"name": "p", **({"namespace": "ns"} if resource.namespaced else {}), **metadata}
    obj = {
        "apiVersion": resource.api_version,
        "kind": kind,
        "metadata": meta,
        "spec": spec or {},
        "status": status or {},
    }
    return read_pool(decode(json.dumps(obj).encode(), KubeObject))


NUMBERS = {
    "our own": ("IPPool", {"ipAddresses": {"free": 3, "cooling": 2}, "availableIPCount": 9}, 3, 5),
    "metal3's": ("IPPool", {"availableIPCount": 4}, 4, 4),
    "metal3's before it counted": ("IPPool", {"indexes": {}}, None, None),
    "the in-cluster provider's": ("InClusterIPPool", {"ipAddresses": {"free": -3, "total": 1}}, -3, -3),
    "nothing yet": ("GlobalIPPool", {}, None, None),
    "nonsense": ("IPPool", {"ipAddresses": "many"}, None, None),
}


@pytest.mark.parametrize("case", NUMBERS)
def test_free_addresses_are_read_from_each_shape(case):
    kind, status, free, available = NUMBERS[case]
    assert (pool(None, status, kind).free, pool(None, status, kind).available) == (free, available)


FAMILIES = {
    "a range": ("IPPool", {"pools": [{"start": "10.0.0.1"}]}, "ipv4"),
    "a subnet": ("GlobalIPPool", {"pools": [{"subnet": "fd00::/64"}]}, "ipv6"),
    "the first of two": ("IPPool", {"pools": [{"start": "fd00::1"}, {"start": "10.0.0.1"}]}, "ipv6"),
    "the in-cluster provider's": ("InClusterIPPool", {"addresses": ["fd00::1-fd00::9"]}, "ipv6"),
    "its IPv4": ("GlobalInClusterIPPool", {"addresses": ["10.0.0.0/24"]}, "ipv4"),
    "nothing": ("IPPool", {}, "ipv4"),
    "nonsense": ("IPPool", {"pools": 7}, "ipv4"),
}


@pytest.mark.parametrize("case", FAMILIES)
def test_the_family_is_that_of_the_first_address(case):
    kind, spec, family = FAMILIES[case]
    assert pool(spec, None, kind).family == family


SERVERS = {
    "pools": [
        {"start": "10.0.0.10", "end": "10.0.0.19", "dnsServers": ["10.0.0.2"]},
        {"subnet": "10.0.1.0/24", "dnsServers": ["10.0.1.2"]},
        {"subnet": "10.0.2.0/24", "start": "10.0.2.100", "dnsServers": ["10.0.2.2"]},
        {"start": "fd00::1", "end": "fd00::9", "dnsServers": ["fd00::53"]},
        {"start": "nonsense", "end": "10.0.9.9", "dnsServers": ["10.9.9.9"]},
        {"start": "10.0.3.1", "end": "10.0.3.9"},
    ],
    "dnsServers": ["10.9.9.1"],
}


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("10.0.0.10", ("10.0.0.2",)),
        ("10.0.0.19", ("10.0.0.2",)),
        ("10.0.0.20", ("10.9.9.1",)),
        ("10.0.1.7", ("10.0.1.2",)),
        ("10.0.2.99", ("10.9.9.1",)),
        ("10.0.2.100", ("10.0.2.2",)),
        ("10.0.3.5", ("10.9.9.1",)),
        ("fd00::5", ("fd00::53",)),
        ("fd00::a", ("10.9.9.1",)),
    ],
)
def test_dns_servers_are_those_of_the_range_or_the_pool(address, expected):
    assert dns_servers(pool(SERVERS), address) == expected


def test_a_pool_without_dns_servers_gives_none():
    assert dns_servers(pool({"addresses": ["10.0.0.0/24"]}, None, "InClusterIPPool"), "10.0.0.1") == ()


def test_search_domains_come_from_either_annotation():
    for key in (api.SEARCH_DOMAINS_ANNOTATION, api.OLD_SEARCH_DOMAINS_ANNOTATION):
        assert search_domains(pool(annotations={key: "a.example, b.example"}).obj) == ("a.example", "b.example")
    assert search_domains(pool().obj) == ()


def test_selectors_are_labels_and_annotations_together():
    labels = {api.NETWORK_KEY: "a", api.USE_LABEL: "endpoints"}
    found = pool(labels=labels, annotations={api.NETWORK_KEY: "VM Network, /DC/x", api.CLUSTER_KEY: "ns/c1"})
    assert found.selectors == {api.NETWORK_KEY: ("a", "VM Network", "/DC/x"), api.CLUSTER_KEY: ("ns/c1",)}
    assert pool(annotations={api.NETWORK_KEY: " , "}).selectors == {}


@pytest.mark.parametrize(
    ("kind", "allowed", "namespace", "expected"),
    [
        ("IPPool", None, "ns", True),
        ("IPPool", None, "other", False),
        ("IPPool", ["other"], "other", True),
        ("IPPool", ["other"], "ns", True),
        ("IPPool", ["*"], "third", True),
        ("GlobalIPPool", None, "any", True),
        ("GlobalIPPool", ["other"], "any", False),
        ("GlobalIPPool", ["any"], "any", True),
        ("InClusterIPPool", None, "other", False),
    ],
)
def test_a_pool_serves_its_namespace_and_those_that_it_allows(kind, allowed, namespace, expected):
    spec = {} if allowed is None else {"allowedNamespaces": allowed}
    assert pool(spec, None, kind).serves(namespace) is expected


def test_the_book_knows_the_pools_of_a_namespace():
    book = PoolBook()
    one, everywhere = pool(), pool(kind="GlobalIPPool")
    book.put(one)
    book.put(everywhere)
    assert book.of("ns", "") == (one, everywhere)
    assert book.of("other") == ()
    assert book.get(one.ref) is one
    book.remove(one.ref)
    book.remove(one.ref)
    assert book.of("ns") == ()
