"""What is read off the cluster's own objects."""

from __future__ import annotations

import json

import pytest

from services.podpreset.facts import EndpointSlice, api_server_addresses, pod_cidrs, service_cidrs
from services.runtime.kube.objects import KubeObject, decode


def made(kind, name="x", type_=KubeObject, **content):
    return decode(json.dumps({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, **content}).encode(), type_)


def ranges(*cidrs):
    return made("ServiceCIDR", spec={"cidrs": list(cidrs)})


@pytest.mark.parametrize(
    ("objects", "found"),
    [
        ([], ()),
        ([ranges("10.96.0.0/12")], ("10.96.0.0/12",)),
        ([ranges("fd00::/112", "10.96.0.0/12")], ("10.96.0.0/12", "fd00::/112")),
        ([ranges("10.1.0.0/24"), ranges("10.0.0.0/24")], ("10.0.0.0/24", "10.1.0.0/24")),
        ([ranges("10.0.0.0/24"), ranges("10.0.1.0/24")], ("10.0.0.0/23",)),
        ([ranges("10.0.0.0/24"), ranges("10.0.0.0/16")], ("10.0.0.0/16",)),
        ([made("ServiceCIDR", spec={"cidrs": "nonsense"}), ranges("10.0.0.0/24")], ("10.0.0.0/24",)),
        ([ranges("nonsense", "10.0.0.0/24")], ("10.0.0.0/24",)),
        ([made("ServiceCIDR")], ()),
    ],
)
def test_the_ranges_of_services_are_those_of_every_service_cidr(objects, found):
    assert service_cidrs(objects) == found
    assert service_cidrs(reversed(objects)) == found


@pytest.mark.parametrize(
    ("specs", "found"),
    [
        ([{}], ()),
        ([{"podCIDR": "10.244.0.0/24"}], ("10.244.0.0/24",)),
        ([{"podCIDR": "10.244.0.0/24", "podCIDRs": ["10.244.0.0/24", "fd01::/64"]}], ("10.244.0.0/24", "fd01::/64")),
        ([{"podCIDR": f"10.244.{n}.0/24"} for n in range(256)], ("10.244.0.0/16",)),
        ([{"podCIDR": "10.244.0.0/24"}, {}, {"podCIDR": "10.244.9.0/24"}], ("10.244.0.0/24", "10.244.9.0/24")),
        ([{"podCIDRs": None, "podCIDR": "10.244.0.0/24"}], ("10.244.0.0/24",)),
    ],
)
def test_the_ranges_of_pods_are_those_of_the_nodes_joined(specs, found):
    assert pod_cidrs([made("Node", spec=spec) for spec in specs]) == found


def behind(*addresses):
    return made("EndpointSlice", type_=EndpointSlice, endpoints=[{"addresses": [address]} for address in addresses])


@pytest.mark.parametrize(
    ("services", "slices", "found"),
    [
        ([], [], ()),
        ([made("Service", "kubernetes", spec={"clusterIP": "10.96.0.1"})], [], ("10.96.0.1",)),
        (
            [made("Service", "kubernetes", spec={"clusterIP": "10.96.0.1", "clusterIPs": ["fd00::1", "10.96.0.1"]})],
            [behind("192.0.2.3", "192.0.2.10")],
            ("10.96.0.1", "fd00::1", "192.0.2.3", "192.0.2.10"),
        ),
        ([made("Service", "other", spec={"clusterIP": "10.96.0.9"})], [], ()),
        ([made("Service", "kubernetes", spec={"clusterIP": "None"})], [behind("192.0.2.3")], ("192.0.2.3",)),
        ([], [made("EndpointSlice", type_=EndpointSlice, endpoints=None)], ()),
        ([], [made("EndpointSlice", type_=EndpointSlice, endpoints=[{"addresses": None}])], ()),
    ],
)
def test_the_api_server_is_at_its_service_first_and_then_at_what_is_behind_it(services, slices, found):
    assert api_server_addresses(services, slices) == found
