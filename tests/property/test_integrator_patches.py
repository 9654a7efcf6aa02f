"""What is written into a machine never costs a user a value, whatever its devices look like."""

from __future__ import annotations

import copy
import functools

import jsonpatch
from hypothesis import given
from hypothesis import strategies as st

from services.capv_integrator import patches, waiting
from services.capv_integrator.claimobjects import Address
from tests.unit.capv_integrator.worlds import Site, plain

FLAG = st.sampled_from([None, False, True])
TEXTS = st.sampled_from([[], ["10.9.9.9"], ["a", "b"]])
DEVICE = st.fixed_dictionaries(
    {"networkName": st.sampled_from(["net-a", "net-b"])},
    optional={
        "dhcp4": FLAG,
        "dhcp6": FLAG,
        "skipIPAllocation": FLAG,
        "ipAddrs": st.sampled_from([None, [], ["10.0.0.77/24"]]),
        "addressesFromPools": st.sampled_from([None, [], [{"kind": "IPPool", "name": "p"}]]),
        "gateway4": st.sampled_from(["", "10.0.0.254"]),
        "gateway6": st.sampled_from(["", "fd00::fe"]),
        "nameservers": TEXTS,
        "searchDomains": TEXTS,
        "mtu": st.integers(0, 9000),
        "routes": st.just([{"to": "10.1.0.0/16", "via": "10.0.0.9", "metric": 3}]),
        "unknownField": st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
    },
)
DEVICES = st.lists(DEVICE, max_size=4)
ADDRESSES = st.lists(
    st.sampled_from(
        [
            Address("10.0.0.5", 24, "10.0.0.1", ("10.0.0.2",), ("p.example",)),
            Address("10.0.0.6", 24),
            Address("fd00::5", 64, "fd00::1", ("fd00::2",)),
        ]
    ),
    min_size=1,
    max_size=3,
)


def naive_wait(device):
    """CAPV's isWaitingForStaticIPAllocation for one device, line by line."""
    if device.get("skipIPAllocation") is True:
        return False
    if device.get("dhcp4") is True or device.get("dhcp6") is True:
        return False
    return len(device.get("ipAddrs") or []) == 0 and len(device.get("addressesFromPools") or []) == 0


def naive_overlay(own, domain):
    """CAPV's overrideNetworkDeviceSpecs: networks of a failure domain laid over devices by index."""
    result = [copy.deepcopy(device) for device in own]
    for index, network in enumerate(domain):
        if index == len(result):
            result.append({})
        result[index]["networkName"] = network["networkName"]
        for flag in ("dhcp4", "dhcp6"):
            if network.get(flag) is not None:
                result[index][flag] = network[flag]
        for name in ("nameservers", "searchDomains", "addressesFromPools"):
            if network.get(name):
                result[index][name] = network[name]
    return result


@functools.cache
def a_claim():
    site = Site()
    site.pool()
    site.machine()
    site.serve()
    return site.only_claim()


def applied(machine, devices, addresses):
    claims = {d.at: [a_claim()._replace(address=a) for a in addresses] for d in devices if d.waits}
    return jsonpatch.apply_patch(plain(machine), patches.machine_patch(machine, devices, claims, ["m.example"]))


@given(DEVICE)
def test_a_device_waits_exactly_when_capv_waits(device):
    assert waiting.waits(device) is naive_wait(device)


@given(DEVICES, DEVICES)
def test_devices_are_seen_exactly_as_capv_lays_a_failure_domain_over_them(own, domain):
    devices = waiting.devices(own, naive_overlay(own, domain))
    assert [d.effective for d in devices] == naive_overlay(own, domain)
    assert [d.own for d in devices] == [*own, *[None] * (len(devices) - len(own))]


@given(DEVICES, DEVICES, ADDRESSES, st.sampled_from([None, {"a": "b"}]))
def test_no_value_of_a_user_is_changed_and_nothing_waits_afterwards(own, domain, addresses, annotations):
    machine = Site().machine(own, metadata={"annotations": annotations})
    devices = waiting.devices(own, naive_overlay(own, domain))
    if not any(device.waits for device in devices):
        return
    after = applied(machine, devices, addresses)
    written = after["spec"]["network"]["devices"]
    for index, device in enumerate(own):
        assert {name: written[index].get(name) for name, value in device.items() if value} == {
            name: value for name, value in device.items() if value
        }
        if not devices[index].waits:
            assert written[index] == device
    now = naive_overlay(written, domain)
    assert not any(naive_wait(device) for device in now)
    assert len(now) == len(devices), "a device was added that CAPV does not have"
    assert [d.get("networkName") for d in now] == [d.network for d in devices]
    untouched = {name: value for name, value in plain(machine)["spec"].items() if name != "network"}
    assert untouched.items() <= after["spec"].items()
    assert (annotations or {}).items() <= after["metadata"]["annotations"].items()


@given(DEVICES, DEVICES, ADDRESSES)
def test_a_patch_that_was_made_for_other_devices_is_refused(own, other, addresses):
    devices = waiting.devices(own)
    if own == other or not any(device.waits for device in devices):
        return
    machine = Site().machine(own)
    claims = {d.at: [a_claim()._replace(address=a) for a in addresses] for d in devices if d.waits}
    operations = patches.machine_patch(machine, devices, claims)
    changed = plain(machine)
    changed["spec"]["network"]["devices"] = other
    try:
        jsonpatch.apply_patch(changed, operations)
    except jsonpatch.JsonPatchTestFailed:
        return
    raise AssertionError("it was applied")
