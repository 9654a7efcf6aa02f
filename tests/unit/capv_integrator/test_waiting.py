"""Which devices wait, and what a failure domain changes about it."""

from __future__ import annotations

import json

import pytest

from services.capv_integrator import waiting
from services.runtime.kube.objects import KubeObject, decode

WAITS = {
    "nothing is said": ({}, True),
    "all flags are false": ({"dhcp4": False, "dhcp6": False, "skipIPAllocation": False}, True),
    "lists are empty": ({"ipAddrs": [], "addressesFromPools": []}, True),
    "fields are null": ({"ipAddrs": None, "dhcp4": None}, True),
    "a gateway alone is no address": ({"gateway4": "10.0.0.1", "nameservers": ["10.0.0.2"]}, True),
    "it is skipped": ({"skipIPAllocation": True}, False),
    "DHCP for IPv4": ({"dhcp4": True}, False),
    "DHCP for IPv6 alone": ({"dhcp6": True}, False),
    "it has an address": ({"ipAddrs": ["10.0.0.5/24"]}, False),
    "CAPV claims for it": ({"addressesFromPools": [{"kind": "IPPool", "name": "a"}]}, False),
}


@pytest.mark.parametrize("case", WAITS)
def test_a_device_waits_as_capv_says(case):
    device, expected = WAITS[case]
    assert waiting.waits({"networkName": "net", **device}) is expected


OVERLAID = {
    "the domain names the network": (
        [{"networkName": "t", "mtu": 9000}],
        [{"networkName": "zone", "mtu": 9000}],
        [("zone", True)],
    ),
    "the domain turns DHCP on": ([{"networkName": "t"}], [{"networkName": "t", "dhcp4": True}], [("t", False)]),
    "the domain turns DHCP off": ([{"networkName": "t", "dhcp4": True}], [{"networkName": "t"}], [("t", True)]),
    "the domain claims itself": (
        [{"networkName": "t"}],
        [{"networkName": "t", "addressesFromPools": [{"name": "p"}]}],
        [("t", False)],
    ),
    "the VSphereVM does not have the address yet": (
        [{"networkName": "t", "ipAddrs": ["10.0.0.5/24"]}],
        [{"networkName": "zone"}],
        [("zone", False)],
    ),
    "the VSphereVM still has an address that was taken out": (
        [{"networkName": "t"}],
        [{"networkName": "zone", "ipAddrs": ["10.0.0.5/24"]}],
        [("zone", True)],
    ),
    "the domain has more": (
        [{"networkName": "t"}],
        [{"networkName": "a"}, {"networkName": "b"}],
        [("a", True), ("b", True)],
    ),
    "the VSphereVM still has the address of a device that was taken out": (
        [{"networkName": "t"}],
        [{"networkName": "a"}, {"networkName": "b", "ipAddrs": ["10.0.0.5/24"]}],
        [("a", True), ("b", True)],
    ),
    "the domain has fewer": (
        [{"networkName": "t"}, {"networkName": "u"}],
        [{"networkName": "a"}],
        [("a", True), ("u", True)],
    ),
    "the template skips it": ([{"networkName": "t", "skipIPAllocation": True}], [{"networkName": "a"}], [("a", False)]),
}


@pytest.mark.parametrize("case", OVERLAID)
def test_a_device_is_seen_as_capv_sees_it(case):
    own, vm, expected = OVERLAID[case]
    assert [(d.network, d.waits) for d in waiting.devices(own, vm)] == expected


def test_a_device_that_only_the_domain_has_is_told_apart():
    first, second = waiting.devices([{"networkName": "t"}], [{"networkName": "a"}, {"networkName": "b"}])
    assert first.own == {"networkName": "t"}
    assert second.own is None
    assert (str(first), str(second)) == ("device 0 (a)", "device 1 (b)")
    assert str(waiting.devices([{}])[0]) == "device 0"


SINCE = "2026-01-01T00:00:00Z"
WAITING = {"status": "False", "reason": "WaitingForStaticIPAllocation", "lastTransitionTime": SINCE}
REPORTS = {
    "v1beta1": ({"conditions": [{"type": "VMProvisioned", **WAITING}]}, SINCE),
    "v1beta1, new style": (
        {"v1beta2": {"conditions": [{"type": "VirtualMachineProvisioned", **WAITING}]}},
        SINCE,
    ),
    "v1beta2": ({"conditions": [{"type": "VirtualMachineProvisioned", **WAITING}]}, SINCE),
    "v1beta2, old style": (
        {"deprecated": {"v1beta1": {"conditions": [{"type": "VMProvisioned", **WAITING}]}}},
        SINCE,
    ),
    "another reason": ({"conditions": [{"type": "VMProvisioned", **WAITING, "reason": "Cloning"}]}, None),
    "another condition": ({"conditions": [{"type": "Ready", **WAITING}]}, None),
    "no conditions": ({"ready": False}, None),
    "no status": ({}, None),
}


@pytest.mark.parametrize("case", REPORTS)
def test_capv_s_word_for_waiting_is_found_wherever_a_version_has_it(case):
    status, expected = REPORTS[case]
    text = json.dumps({"metadata": {"name": "m"}, "status": status}).encode()
    assert waiting.reported_since(None, decode(text, KubeObject)) == expected
