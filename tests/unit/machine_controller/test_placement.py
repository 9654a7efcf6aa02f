"""Where a machine goes: its own spec, and what a failure domain puts over it."""

from __future__ import annotations

import pytest

from services.machine_controller import api
from services.machine_controller.api import Network, NetworkDevice
from services.machine_controller.placement import Misplaced, Placement, devices_text, place, thumbprint
from services.runtime.kube.objects import KubeObject, ObjectMeta, raw

CLUSTER = api.VSphereClusterSpec(server="vc", thumbprint="AA")
SPEC = api.VSphereMachineSpec(
    datacenter="dc0",
    folder="own",
    datastore="ds0",
    resource_pool="rp0",
    network=Network(devices=(NetworkDevice(network_name="lan", ip_addrs=("10.0.0.1/24",), nameservers=("10.0.0.2",)),)),
)


def zone(**fields):
    spec = {"failureDomain": "fd", **fields}
    return KubeObject(kind="VSphereDeploymentZone", metadata=ObjectMeta(name="z"), spec=raw(spec))


def domain(**topology):
    spec = {"topology": {"datacenter": "dc1", **topology}}
    return KubeObject(kind="VSphereFailureDomain", metadata=ObjectMeta(name="fd"), spec=raw(spec))


def test_without_a_failure_domain_the_machines_own_spec_counts_and_the_clusters_server():
    found = place(SPEC, CLUSTER)
    assert found == Placement("vc", "dc0", "own", "rp0", "ds0", SPEC.network)
    assert place(SPEC, api.VSphereClusterSpec()) == Misplaced(
        "ServerMissing", "neither the machine nor its cluster names a vCenter"
    )


def test_a_machine_may_name_a_server_of_its_own():
    assert place(api.VSphereMachineSpec(server="other"), CLUSTER).server == "other"


@pytest.mark.parametrize(
    ("spec", "server", "expected"),
    [
        pytest.param({}, "vc", "AA", id="the cluster's"),
        pytest.param({}, "VC:443", "AA", id="the cluster's in other words"),
        pytest.param({}, "vc1", "", id="a zone's"),
        pytest.param({"server": "other", "thumbprint": "BB"}, "other", "BB", id="the machine's own"),
        pytest.param({"server": "other", "thumbprint": "BB"}, "vc", "", id="not the machine's"),
    ],
)
def test_a_thumbprint_is_for_the_server_that_machine_or_cluster_names(spec, server, expected):
    assert thumbprint(api.VSphereMachineSpec(**spec), CLUSTER, server) == expected


def test_a_zone_or_a_domain_that_is_missing_is_told_and_never_left_out():
    assert place(SPEC, CLUSTER, "z").reason == "DeploymentZoneNotFound"
    assert place(SPEC, CLUSTER, "z", zone()).reason == "FailureDomainNotFound"


def test_a_failure_domain_decides_about_what_it_names():
    constraint = {"folder": "f1", "resourcePool": "rp1"}
    found = place(SPEC, CLUSTER, "z", zone(server="vc1", placementConstraint=constraint), domain(datastore="ds1"))
    assert found == Placement("vc1", "dc1", "f1", "rp1", "ds1", SPEC.network)


def test_what_a_failure_domain_does_not_name_stays():
    found = place(SPEC, CLUSTER, "z", zone(), domain(computeCluster="c1"))
    assert (found.server, found.folder, found.resource_pool, found.datastore) == ("vc", "own", "rp0", "ds0")
    assert (found.datacenter, found.compute_cluster, found.vm_group) == ("dc1", "c1", "")


def test_hosts_of_a_failure_domain_are_a_group_that_the_vm_joins():
    found = place(SPEC, CLUSTER, "z", zone(), domain(hosts={"vmGroupName": "vms", "hostGroupName": "hosts"}))
    assert found.vm_group == "vms"


def test_networks_are_overlaid_by_index_and_addresses_stay_the_machines():
    found = place(SPEC, CLUSTER, "z", zone(), domain(networks=["lan-1", "storage-1"]))
    first, second = found.network.devices
    assert (first.network_name, first.ip_addrs, first.nameservers) == ("lan-1", ("10.0.0.1/24",), ("10.0.0.2",))
    assert second == NetworkDevice(network_name="storage-1")


def test_network_configurations_overlay_what_they_set():
    pool = {"apiGroup": "ipam.metal3.io", "kind": "IPPool", "name": "p"}
    configurations = [
        {"networkName": "lan-1", "nameservers": ["10.1.0.2"], "searchDomains": ["a.example"], "dhcp6": True},
        {"addressesFromPools": [pool], "dhcp4Overrides": {"useDNS": False}},
    ]
    found = place(SPEC, CLUSTER, "z", zone(), domain(networkConfigurations=configurations))
    first, second = found.network.devices
    assert (first.network_name, first.nameservers, first.search_domains) == ("lan-1", ("10.1.0.2",), ("a.example",))
    assert (first.dhcp4, first.dhcp6, first.ip_addrs) == (None, True, ("10.0.0.1/24",))
    assert second.addresses_from_pools == (api.PoolRef("ipam.metal3.io", "IPPool", "p"),)
    assert second.dhcp4_overrides.use_dns is False


def test_what_is_missing_is_named():
    assert place(SPEC, CLUSTER, "z") == Misplaced(
        "DeploymentZoneNotFound", "the Machine is for VSphereDeploymentZone z"
    )
    assert place(SPEC, CLUSTER, "z", zone()) == Misplaced(
        "FailureDomainNotFound", "VSphereDeploymentZone z names VSphereFailureDomain fd"
    )


@pytest.mark.parametrize("field", ["dhcp4", "dhcp6"])
@pytest.mark.parametrize(
    ("own", "over", "found"), [(True, None, True), (True, False, False), (None, True, True), (False, None, False)]
)
def test_whether_a_device_uses_dhcp_is_the_domains_word_if_it_has_one(field, own, over, found):
    spec = api.VSphereMachineSpec(network=Network(devices=(NetworkDevice(**{field: own}),)))
    configuration = {} if over is None else {field: over}
    placed = place(spec, CLUSTER, "z", zone(), domain(networkConfigurations=[configuration]))
    assert getattr(placed.network.devices[0], field) is found


def test_the_overrides_of_dhcp_are_the_domains_where_it_has_some():
    own, other = api.DHCPOverrides(use_dns=True), api.DHCPOverrides(use_dns=False)
    device = NetworkDevice(dhcp4_overrides=own, dhcp6_overrides=own)
    spec = api.VSphereMachineSpec(network=Network(devices=(device, device)))
    configurations = [{"dhcp6Overrides": {"useDNS": False}}, {"dhcp4Overrides": {"useDNS": False}}]
    first, second = place(spec, CLUSTER, "z", zone(), domain(networkConfigurations=configurations)).network.devices
    assert (first.dhcp4_overrides, first.dhcp6_overrides) == (own, other)
    assert (second.dhcp4_overrides, second.dhcp6_overrides) == (other, own)


def test_devices_are_written_down_without_addresses():
    text = devices_text([NetworkDevice(network_name="lan", ip_addrs=("10.0.0.1/24",)), NetworkDevice(dhcp4=True)])
    assert text == '[{"networkName":"lan"},{"dhcp4":true}]'
