"""All that a VM is told, put together from a machine, its cluster and what was read for it."""

from __future__ import annotations

import json

import pytest
import yaml

from services.machine_controller import api
from services.machine_controller.api import Network, NetworkDevice
from services.machine_controller.guestinfo.encode import decoded
from services.machine_controller.guestinfo.nic import BoundAddress
from services.machine_controller.guestinfo.problems import InvalidError
from services.machine_controller.guestinfo.userdata import UserData
from services.machine_controller.placement import Placement
from services.machine_controller.render import Guest, check, proxy_source, render
from services.runtime.kube.objects import KubeObject, ObjectMeta, raw

MAC = "00:50:56:AA:BB:01"
BOOTSTRAP = b"## template: jinja\n#cloud-config\nruncmd: [kubeadm join]\n"
IGNITION = json.dumps({"ignition": {"version": "3.3.0"}}).encode()
IMAGE = "ghcr.io/kube-vip/kube-vip:v0.8.9"


def cluster(endpoint=True, **annotations):
    spec = {"server": "vc"} | ({"controlPlaneEndpoint": {"host": "10.0.0.250", "port": 6443}} if endpoint else {})
    meta = ObjectMeta(name="prod", namespace="ns", annotations={f"{api.PREFIX}/{k}": v for k, v in annotations.items()})
    return KubeObject(kind="VSphereCluster", metadata=meta, spec=raw(spec))


def guest(of=None, *, device=None, bound=(), control_plane=False, proxy=None, bootstrap=None, **changes):
    device = device or NetworkDevice(network_name="lan", ip_addrs=("10.0.0.5/24",), gateway4="10.0.0.1")
    network = {"services": {"cidrBlocks": ["10.96.0.0/12"]}, "pods": {"cidrBlocks": ["192.168.0.0/16"]}}
    capi = KubeObject(kind="Cluster", metadata=ObjectMeta(name="prod"), spec=raw({"clusterNetwork": network}))
    placement = Placement("vc.example:8443", "", "", "", "", Network(devices=(device,)))
    values = {
        "name": "m1",
        "instance_id": "u1",
        "control_plane": control_plane,
        "placement": placement,
        "bound": [list(bound)],
        "custom": {"disk.EnableUUID": "TRUE"},
        "cluster": of or cluster(),
        "capi_cluster": capi,
        "proxy": proxy or {},
        "bootstrap": bootstrap or UserData.read(BOOTSTRAP),
    }
    return Guest(**values | changes)


def told(keys):
    return yaml.safe_load(decoded("guestinfo.metadata", keys))


def test_a_vm_is_told_its_name_its_network_and_its_bootstrap_data_untouched():
    keys = render(guest(), [MAC])
    assert decoded("guestinfo.userdata", keys) == BOOTSTRAP
    assert keys["disk.EnableUUID"] == "TRUE"
    assert "guestinfo.vendordata" not in keys
    found = told(keys)
    assert (found["hostname"], found["instance-id"]) == ("m1", "u1")
    nic = found["network"]["ethernets"]["id0"]
    assert nic["match"] == {"macaddress": MAC.lower()}
    assert (nic["addresses"], nic["routes"]) == (["10.0.0.5/24"], [{"to": "0.0.0.0/0", "via": "10.0.0.1"}])


def test_addresses_from_pools_are_among_them():
    device = NetworkDevice(network_name="lan", addresses_from_pools=(api.PoolRef("g", "IPPool", "p"),))
    keys = render(guest(device=device, bound=[BoundAddress("10.1.0.9", 24, "10.1.0.1")]), [MAC])
    assert told(keys)["network"]["ethernets"]["id0"]["addresses"] == ["10.1.0.9/24"]


def test_a_cluster_may_have_its_gateways_written_the_old_way():
    nic = told(render(guest(cluster(**{"gateway-style": "gateway"})), [MAC]))["network"]["ethernets"]["id0"]
    assert (nic["gateway4"], "routes" in nic) == ("10.0.0.1", False)
    with pytest.raises(InvalidError, match="gateway-style"):
        render(guest(cluster(**{"gateway-style": "other"})), [MAC])


def test_a_proxy_is_completed_with_what_a_node_must_reach_directly():
    settings = {"http-proxy": "http://proxy:3128", "no-proxy": "intranet.example"}
    vendor = decoded("guestinfo.vendordata", render(guest(cluster(**settings)), [MAC])).decode()
    for entry in ("10.96.0.0/12", "192.168.0.0/16", "10.0.0.250", "10.0.0.0/24", "vc.example", "intranet.example"):
        assert entry in vendor
    assert "8443" not in vendor


def test_settings_that_were_read_go_before_annotations():
    keys = render(guest(cluster(**{"http-proxy": "http://one:1"}), proxy={"httpProxy": "http://two:2"}), [MAC])
    vendor = decoded("guestinfo.vendordata", keys).decode()
    assert ("two:2" in vendor, "one:1" in vendor) == (True, False)


@pytest.mark.parametrize(
    ("annotations", "source"),
    [
        ({}, ("", "")),
        ({"proxy-secret": "s"}, ("Secret", "s")),
        ({"proxy-config-map": "c"}, ("ConfigMap", "c")),
        ({"proxy-secret": "s", "proxy-config-map": "c"}, ("Secret", "s")),
    ],
)
def test_proxy_settings_come_from_the_object_that_is_named(annotations, source):
    assert proxy_source(cluster(**annotations)) == source


@pytest.mark.parametrize(
    ("annotations", "url", "redacted"),
    [
        ({}, "http://proxy:3128", None),
        ({}, "http://user:secret@proxy:3128", ["vendordata"]),
        ({"redact": "userdata, vendordata"}, "http://proxy:3128", ["userdata", "vendordata"]),
        ({"redact": ""}, "http://user:secret@proxy:3128", None),
    ],
)
def test_what_holds_a_password_is_wiped_once_it_was_read(annotations, url, redacted):
    found = told(render(guest(cluster(**annotations), proxy={"httpProxy": url}), [MAC]))
    assert found.get("redact") == redacted


def test_kube_vip_is_for_control_planes_of_clusters_that_ask_for_it():
    asks = cluster(**{"kube-vip-image": IMAGE})
    vendor = decoded("guestinfo.vendordata", render(guest(asks, control_plane=True), [MAC])).decode()
    assert IMAGE in vendor
    assert "10.0.0.250" in vendor
    assert "guestinfo.vendordata" not in render(guest(asks), [MAC])
    assert "guestinfo.vendordata" not in render(guest(control_plane=True), [MAC])
    with pytest.raises(InvalidError, match="controlPlaneEndpoint"):
        render(guest(cluster(endpoint=False, **{"kube-vip-image": IMAGE}), control_plane=True), [MAC])


def test_ignition_has_no_vendor_data_so_everything_is_in_its_config():
    data = UserData.read(IGNITION, "ignition")
    asks = cluster(**{"kube-vip-image": IMAGE, "http-proxy": "http://proxy:3128"})
    keys = render(guest(asks, control_plane=True, bootstrap=data), [MAC])
    assert "guestinfo.vendordata" not in keys
    assert "guestinfo.userdata" not in keys
    merged = json.loads(decoded("guestinfo.ignition.config.data", keys))["ignition"]["config"]["merge"]
    assert len(merged) == 2
    assert decoded("guestinfo.ignition.config.data", render(guest(bootstrap=data), [MAC])) == IGNITION


def test_every_mistake_is_found_before_there_are_mac_addresses():
    check(guest())
    with pytest.raises(InvalidError, match="gateway4"):
        check(guest(device=NetworkDevice(network_name="lan", ip_addrs=("10.0.0.5/24",), gateway4="no")))
    with pytest.raises(InvalidError, match=r"customVMXKeys\[guestinfo.metadata\]"):
        check(guest(custom={"guestinfo.metadata": "x"}))
    with pytest.raises(InvalidError, match="host name"):
        check(guest(name="Not_A_Host"))
