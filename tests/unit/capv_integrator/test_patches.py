"""The patches that are sent, applied by a library that knows nothing of us."""

from __future__ import annotations

from datetime import UTC, datetime

import jsonpatch
import pytest

from services.capv_integrator import api, patches
from services.capv_integrator.claimobjects import Address
from services.capv_integrator.waiting import devices as seen
from services.runtime.kube.conditions import Condition
from tests.unit.capv_integrator.worlds import NET, Site, plain

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
V4 = Address("10.0.0.5", 24, "10.0.0.1", ("10.0.0.2",), ("pool.example",))
V6 = Address("fd00::5", 64, "fd00::1", ("fd00::2", "10.0.0.2"))
BARE = Address("10.0.0.6", 24)


@pytest.fixture
def site():
    return Site()


@pytest.fixture
def claim(site):
    """Claims for addresses, without anybody behind them."""
    site.pool()
    owner = site.machine()
    (new,) = site.plan().create
    site.create(owner, new)
    return lambda address, name="c": site.only_claim()._replace(address=address)


def patched(machine, own, claims, overlaid=(), search_domains=()):
    operations = patches.machine_patch(machine, seen(own, overlaid), claims, search_domains)
    return operations, jsonpatch.apply_patch(plain(machine), operations)


FIELDS = {
    "IPv4": (
        {},
        [V4],
        {
            "ipAddrs": ["10.0.0.5/24"],
            "gateway4": "10.0.0.1",
            "nameservers": ["10.0.0.2"],
            "searchDomains": ["pool.example"],
        },
    ),
    "IPv6": ({}, [V6], {"ipAddrs": ["fd00::5/64"], "gateway6": "fd00::1", "nameservers": ["fd00::2", "10.0.0.2"]}),
    "both": (
        {},
        [V4, V6],
        {
            "ipAddrs": ["10.0.0.5/24", "fd00::5/64"],
            "gateway4": "10.0.0.1",
            "gateway6": "fd00::1",
            "nameservers": ["10.0.0.2", "fd00::2"],
            "searchDomains": ["pool.example"],
        },
    ),
    "no gateway": ({}, [BARE], {"ipAddrs": ["10.0.0.6/24"]}),
    "own values": (
        {"gateway4": "10.0.0.254", "nameservers": ["9.9.9.9"], "searchDomains": ["own.example"]},
        [V4],
        {"ipAddrs": ["10.0.0.5/24"]},
    ),
    "empty values": (
        {"gateway4": "", "nameservers": [], "searchDomains": None},
        [V4],
        {
            "ipAddrs": ["10.0.0.5/24"],
            "gateway4": "10.0.0.1",
            "nameservers": ["10.0.0.2"],
            "searchDomains": ["pool.example"],
        },
    ),
}


@pytest.mark.parametrize("case", FIELDS)
def test_a_device_gets_what_it_has_no_value_for(case):
    device, addresses, expected = FIELDS[case]
    assert patches.device_fields(device, addresses) == expected


def test_search_domains_of_the_machine_go_before_those_of_the_pool():
    assert patches.device_fields({}, [V4], ["m.example"])["searchDomains"] == ["m.example"]


def test_what_the_failure_domain_gives_is_not_written_over(site, claim):
    own, overlaid = [{"networkName": "t"}], [{"networkName": "z", "nameservers": ["8.8.8.8"]}]
    _, after = patched(site.machine(own), own, {0: [claim(V4)]}, overlaid)
    assert after["spec"]["network"]["devices"] == [
        {"networkName": "t", "ipAddrs": ["10.0.0.5/24"], "gateway4": "10.0.0.1", "searchDomains": ["pool.example"]}
    ]


def test_other_devices_and_unknown_fields_stay(site, claim):
    own = [{"networkName": "a", "future": {"x": 1}}, {"networkName": "b", "mtu": 1400}, {"networkName": "c"}]
    _, after = patched(site.machine(own), own, {1: [claim(BARE)]})
    assert after["spec"]["network"]["devices"] == [
        own[0],
        {"networkName": "b", "mtu": 1400, "ipAddrs": ["10.0.0.6/24"]},
        own[2],
    ]


def test_a_patch_fails_when_the_devices_are_not_those_that_were_seen(site, claim):
    machine = site.machine()
    operations, _ = patched(machine, NET, {0: [claim(V4)]})
    for changed in ([], [{"networkName": "net-b"}], [*NET, *NET], [{**NET[0], "ipAddrs": ["10.0.0.9/24"]}]):
        other = plain(machine)
        other["spec"]["network"]["devices"] = changed
        with pytest.raises(jsonpatch.JsonPatchTestFailed):
            jsonpatch.apply_patch(other, operations)


def test_the_claims_are_noted_in_the_same_patch(site, claim):
    name = claim(V4).name
    machine = site.machine(metadata={"annotations": {"a": "b"}})
    operations, after = patched(machine, NET, {0: [claim(V4)]})
    assert after["metadata"]["annotations"] == {"a": "b", api.CLAIMS_ANNOTATION: name}
    assert all(operation["path"] != "/metadata/resourceVersion" for operation in operations)
    machine = site.machine(metadata={"annotations": {api.CLAIMS_ANNOTATION: f"x,{name}"}})
    _, after = patched(machine, NET, {0: [claim(V4)]})
    assert after["metadata"]["annotations"][api.CLAIMS_ANNOTATION] == f"x,{name}"


def test_where_there_are_no_annotations_the_version_of_the_object_is_tested(site, claim):
    machine = site.machine()
    operations, after = patched(machine, NET, {0: [claim(V4)]})
    assert after["metadata"]["annotations"] == {api.CLAIMS_ANNOTATION: claim(V4).name}
    other = plain(machine)
    other["metadata"]["resourceVersion"] = "other"
    with pytest.raises(jsonpatch.JsonPatchTestFailed):
        jsonpatch.apply_patch(other, operations)


def test_the_list_grows_to_the_device_of_the_failure_domain(site, claim):
    own = [{"networkName": "t"}]
    overlaid = [
        {"networkName": "z0"},
        {"networkName": "z1", "dhcp4": True, "mtu": None},
        {"networkName": "z2"},
        {"networkName": "z3"},
    ]
    _, after = patched(site.machine(own), own, {0: [claim(BARE)], 2: [claim(V6)]}, overlaid)
    assert after["spec"]["network"]["devices"] == [
        {"networkName": "t", "ipAddrs": ["10.0.0.6/24"]},
        {"networkName": "z1", "dhcp4": True},
        {"networkName": "z2", "ipAddrs": ["fd00::5/64"], "gateway6": "fd00::1", "nameservers": ["fd00::2", "10.0.0.2"]},
    ]


@pytest.mark.parametrize("spec", [{"template": "t"}, {"template": "t", "network": {"routes": []}}])
def test_a_machine_without_any_device_gets_a_list(site, claim, spec):
    machine = site.change(site.machine(), spec=spec)
    _, after = patched(machine, [], {0: [claim(BARE)]}, [{"networkName": "z"}])
    assert after["spec"]["network"]["devices"] == [{"networkName": "z", "ipAddrs": ["10.0.0.6/24"]}]
    assert after["spec"]["network"].get("routes") == spec.get("network", {}).get("routes")


ENDPOINTS = {
    "none": ({}, 6443),
    "v1beta1's empty one": ({"host": "", "port": 0}, 6443),
    "a port": ({"port": 443}, 443),
}


@pytest.mark.parametrize("case", ENDPOINTS)
def test_an_endpoint_keeps_its_port(site, claim, case):
    endpoint, port = ENDPOINTS[case]
    cluster = site.vsphere_cluster(**endpoint)
    after = jsonpatch.apply_patch(plain(cluster), patches.cluster_patch(cluster, claim(V4)))
    assert after["spec"] == {"server": "v", "controlPlaneEndpoint": {"host": "10.0.0.5", "port": port}}
    assert after["metadata"]["annotations"][api.CLAIMS_ANNOTATION] == claim(V4).name


@pytest.mark.parametrize("endpoint", [{}, {"host": "", "port": 0}])
def test_an_endpoint_that_somebody_sets_meanwhile_stays(site, claim, endpoint):
    cluster = site.vsphere_cluster(**endpoint)
    operations = patches.cluster_patch(cluster, claim(V4))
    other = plain(site.vsphere_cluster(host="vip.example.org", port=6443))
    with pytest.raises(jsonpatch.JsonPatchTestFailed):
        jsonpatch.apply_patch(other, operations)


ROW = {"type": api.OWNER_CONDITION, "status": "False", "lastTransitionTime": "2026-01-02T03:04:05Z"}
READY = {"type": "Ready", "status": "True", "lastTransitionTime": "x"}
STATUSES = {
    "no status": None,
    "no conditions": {"ready": True},
    "no rows": {"conditions": []},
    "others' conditions": {"conditions": [READY], "ready": True},
}


@pytest.mark.parametrize("version", ["v1beta1", "v1beta2"])
@pytest.mark.parametrize("case", STATUSES)
def test_a_condition_is_added_beside_those_of_others(version, case):
    status = STATUSES[case]
    owner = Site(version=version).machine(**({} if status is None else {"status": status}))
    after = jsonpatch.apply_patch(
        plain(owner), patches.condition_patch(owner, patches.unserved("NoPoolMatches", "none"), NOW)
    )
    row = {**ROW, "reason": "NoPoolMatches", "message": "none"} | (
        {"severity": "Warning"} if version == "v1beta1" else {}
    )
    assert after["status"] == {**(status or {}), "conditions": [*(status or {}).get("conditions", []), row]}


def test_a_condition_that_is_there_is_not_written_again():
    for version in ("v1beta1", "v1beta2"):
        site = Site(version=version)
        wanted = patches.unserved("NoPoolMatches", "none")
        owner = site.machine()
        owner = site.patch(owner, patches.condition_patch(owner, wanted, NOW))
        found = patches.condition_of(owner)
        assert (found.status, found.reason, found.message) == ("False", "NoPoolMatches", "none")
        assert patches.condition_patch(owner, wanted, datetime(2027, 1, 1, tzinfo=UTC)) == []
        owner = site.patch(owner, patches.condition_patch(owner, patches.served(), NOW))
        assert patches.condition_of(owner).status == "True"


def test_a_condition_that_others_change_meanwhile_is_not_written_over(site):
    owner = site.machine(status={"conditions": [READY]})
    operations = patches.condition_patch(owner, Condition(api.OWNER_CONDITION, "True", "x"), NOW)
    other = plain(owner)
    other["status"]["conditions"] = [{**READY, "status": "False"}]
    with pytest.raises(jsonpatch.JsonPatchTestFailed):
        jsonpatch.apply_patch(other, operations)


def test_each_device_that_waits_gets_its_own_addresses_and_the_search_domains_asked_for(site, claim):
    own = [{"networkName": "a"}, {"networkName": "b"}]
    _, after = patched(site.machine(own), own, {0: [claim(V4)], 1: [claim(BARE)]}, (), ("asked.example",))
    first, second = after["spec"]["network"]["devices"]
    assert (first["ipAddrs"], first["searchDomains"]) == (["10.0.0.5/24"], ["asked.example"])
    assert (second["ipAddrs"], second["searchDomains"]) == (["10.0.0.6/24"], ["asked.example"])


def test_a_device_that_is_appended_takes_along_no_empty_field(site, claim):
    own, empty = [{"networkName": "t"}], {"deviceName": "", "mtu": None, "nameservers": [], "dhcp4Overrides": {}}
    overlaid = [{"networkName": "z0"}, {"networkName": "z1", **empty}]
    _, after = patched(site.machine(own), own, {1: [claim(BARE)]}, overlaid)
    assert after["spec"]["network"]["devices"][1] == {"networkName": "z1", "ipAddrs": ["10.0.0.6/24"]}


def test_an_endpoint_that_is_there_is_what_is_tested_and_not_the_whole_cluster(site, claim):
    cluster = site.vsphere_cluster(host="", port=0)
    test, *_ = patches.cluster_patch(cluster, claim(V4))
    assert test == {"op": "test", "path": "/spec/controlPlaneEndpoint", "value": {"host": "", "port": 0}}


def test_a_first_condition_is_added_without_the_rest_of_the_status(site):
    machine = site.machine(status={"ready": True})
    _, added = patches.condition_patch(machine, patches.served(), NOW)
    assert (added["op"], added["path"]) == ("add", "/status/conditions")


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ({"status": "False", "reason": "R", "message": "m"}, ("False", "R", "m")),
        ({"status": "True"}, ("True", "", "")),
    ],
)
def test_a_condition_is_read_as_it_stands(site, row, found):
    rows = [READY, {"type": api.OWNER_CONDITION, **row}]
    condition = patches.condition_of(site.machine(status={"conditions": rows}))
    assert condition == Condition(api.OWNER_CONDITION, *found)


def test_an_owner_that_waits_no_more_says_so():
    assert patches.served() == Condition(api.OWNER_CONDITION, "True", "NothingWaits", "")


def test_every_device_that_is_appended_gets_its_own_addresses(site, claim):
    own, overlaid = [{"networkName": "t"}], [{"networkName": f"z{n}"} for n in range(3)]
    _, after = patched(site.machine(own), own, {1: [claim(BARE)], 2: [claim(V6)]}, overlaid)
    found = [device.get("ipAddrs") for device in after["spec"]["network"]["devices"]]
    assert found == [None, ["10.0.0.6/24"], ["fd00::5/64"]]
