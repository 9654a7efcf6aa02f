"""What we write, read by two releases of cloud-init: their VMware data source, network renderers and boot stages."""

from __future__ import annotations

import pytest

from services.machine_controller import hostscript, kubevip
from services.machine_controller.api import DHCPOverrides, Network, NetworkDevice, Route
from services.machine_controller.guestinfo.network import BoundAddress, GatewayStyle
from services.machine_controller.guestinfo.vendordata import Kind, Part, vendordata
from services.machine_controller.hostproxy import HostProxy
from tests.support.guest import USER_DATA, all_booted, booted, interfaces, keys_of, macs, netplan, networkd, routes_of
from tools import cloudinit

RELEASES = tuple(cloudinit.RELEASES)
NAMESERVERS = {"nameservers": ("10.0.0.53", "fd00::53"), "search_domains": ("site.example", "example")}
V4 = NetworkDevice(network_name="n", ip_addrs=("10.0.0.5/24",), gateway4="10.0.0.1", mtu=1400, **NAMESERVERS)
V6 = NetworkDevice(network_name="n", ip_addrs=("fd00:1::5/64",), gateway6="fd00:1::1", **NAMESERVERS)
DUAL = NetworkDevice(
    network_name="n",
    ip_addrs=("10.0.0.5/24", "fd00:1::5/64"),
    gateway4="10.0.0.1",
    gateway6="fd00:1::1",
    routes=(Route("10.20.0.0/16", "10.0.0.254", 100),),
    **NAMESERVERS,
)
DHCP = NetworkDevice(
    network_name="n",
    dhcp4=True,
    dhcp4_overrides=DHCPOverrides(route_metric=300, use_dns=False, use_routes="false", hostname="other"),
)
IDLE = NetworkDevice(network_name="n", skip_ip_allocation=True)


STORAGE = NetworkDevice(network_name="n", device_name="storage0", ip_addrs=("10.9.0.5/16",), gateway4="10.9.0.1")
BOTH_DHCP = NetworkDevice(network_name="n", dhcp4=True, dhcp6=True)
LONG = "#cloud-config\n" + "".join(f"# ünicode {number}\n" for number in range(20_000))
SEVERAL = Network((V4, STORAGE, BOTH_DHCP, IDLE), routes=(Route("172.16.0.0/12", "10.9.0.9", 7),))

GUESTS = {
    "v4": keys_of(Network((V4,)), name="worker-0"),
    "v4 gateway": keys_of(Network((V4,)), style=GatewayStyle.GATEWAY),
    "v6": keys_of(Network((V6,))),
    "dual": keys_of(Network((DUAL,))),
    "dual gateway": keys_of(Network((DUAL,)), style=GatewayStyle.GATEWAY),
    "dhcp": keys_of(Network((DHCP,))),
    "several": keys_of(SEVERAL),
    "mixed": keys_of(Network((DUAL, DHCP, IDLE))),
    "bound": keys_of(Network((NetworkDevice(network_name="n"),)), bound=[[BoundAddress("10.5.0.9", 24, "10.5.0.1")]]),
    "long": keys_of(Network((V4,)), user_data=LONG.encode()),
}


@pytest.fixture(scope="module", params=RELEASES)
def release(request):
    return request.param


@pytest.fixture(scope="module")
def guests(release, tmp_path_factory):
    return all_booted(release, GUESTS, tmp_path_factory.mktemp("guests"))


def test_identity_host_name_and_user_data_arrive(guests):
    seen = guests["v4"]
    assert seen["source"] == "DataSourceVMware"
    assert seen["instance_id"] == "worker-0-uid"
    assert seen["hostname"] == "worker-0"
    assert seen["metadata"]["wait-on-network"] == {"ipv4": True, "ipv6": False}
    assert seen["userdata"].encode() == USER_DATA


def test_user_data_that_had_to_be_compressed_arrives(guests):
    assert GUESTS["long"]["guestinfo.userdata.encoding"] == "gzip+base64"
    assert guests["long"]["userdata"] == LONG


@pytest.mark.parametrize(("name", "device"), [("v4", V4), ("v6", V6), ("dual", DUAL)])
def test_netplan_gets_addresses_gateways_dns_and_mtu(guests, name, device):
    (nic,) = netplan(guests[name]).values()
    assert nic["match"] == {"macaddress": macs(1)[0].lower()}
    assert nic["set-name"] == "eth0"
    assert tuple(nic["addresses"]) == device.ip_addrs
    gateways = {"0.0.0.0/0": device.gateway4, "::/0": device.gateway6}
    written = {route["to"]: route["via"] for route in nic["routes"]}
    assert {to: via for to, via in gateways.items() if via}.items() <= written.items()
    assert nic["nameservers"] == {"addresses": ["10.0.0.53", "fd00::53"], "search": ["site.example", "example"]}
    assert nic.get("mtu") == device.mtu


def test_ifupdown_gets_what_a_dual_stack_nic_needs(guests):
    stanzas = interfaces(guests["dual gateway"])
    v4, v6 = stanzas["eth0", "inet"], stanzas["eth0", "inet6"]
    assert {"address 10.0.0.5/24", "gateway 10.0.0.1"} <= set(v4)
    assert {"address fd00:1::5/64", "gateway fd00:1::1"} <= set(v6)
    assert any("10.20.0.0/16" in line and "10.0.0.254" in line for line in v4)
    assert any(line.startswith("dns-nameservers 10.0.0.53") for line in v4)
    assert "dns-search site.example example" in v4


@pytest.mark.parametrize(
    ("name", "gateway"),
    [("v4", "post-up route add default gw 10.0.0.1 || true"), ("v4 gateway", "gateway 10.0.0.1")],
)
def test_ifupdown_gets_an_ipv4_gateway_in_either_style(guests, name, gateway):
    assert {"address 10.0.0.5/24", "mtu 1400", gateway} <= set(interfaces(guests[name])["eth0", "inet"])


@pytest.mark.parametrize("name", ["dual", "dual gateway"])
def test_networkd_gets_addresses_gateways_and_dns(guests, release, name):
    sections = networkd(guests[name], "eth0")
    assert [section["Address"] for title, section in sections if title == "Address"] == list(DUAL.ip_addrs)
    found = {(to, via) for to, via, _ in routes_of(sections)}
    # cloud-init 22.4 makes ::/64 of ::/0, which is what the other style is for.
    everywhere = "::/64" if release == "bookworm" and name == "dual" else "::/0"
    assert found == {("0.0.0.0/0", "10.0.0.1"), (everywhere, "fd00:1::1"), ("10.20.0.0/16", "10.0.0.254")}
    network = dict(sections)["Network"]
    assert network["DNS"] == "10.0.0.53 fd00::53"
    assert network["Domains"] == "site.example example"
    assert network["DHCP"] == "no"


def test_dhcp_overrides_reach_netplan_networkd_and_ifupdown(guests):
    seen = guests["dhcp"]
    (nic,) = netplan(seen).values()
    assert nic["dhcp4"] is True
    overrides = {"hostname": "other", "route-metric": 300, "use-dns": False, "use-routes": False}
    assert nic["dhcp4-overrides"] == overrides
    sections = dict(networkd(seen, "eth0"))
    assert sections["Network"]["DHCP"] == "ipv4"
    assert sections["DHCPv4"] == {"Hostname": "other", "RouteMetric": "300", "UseDNS": "False", "UseRoutes": "False"}
    assert "metric 300" in interfaces(seen)["eth0", "inet"]


def test_several_nics_are_told_apart_by_mac_and_their_default_routes_by_metric(guests):
    seen = guests["several"]
    nics = netplan(seen)
    names = [(nic["match"]["macaddress"], nic["set-name"]) for nic in nics.values()]
    assert names == list(zip([mac.lower() for mac in macs(4)], ["eth0", "storage0", "eth2", "eth3"], strict=True))
    assert nics["id0"]["routes"] == [{"to": "0.0.0.0/0", "via": "10.0.0.1", "metric": 100}]
    assert nics["id1"]["routes"] == [
        {"to": "0.0.0.0/0", "via": "10.9.0.1", "metric": 200},
        {"to": "172.16.0.0/12", "via": "10.9.0.9", "metric": 7},
    ]
    assert nics["id2"]["dhcp4-overrides"] == nics["id2"]["dhcp6-overrides"] == {"route-metric": 300}
    assert nics["id3"]["optional"] is True
    assert {to for to, _, _ in routes_of(networkd(seen, "storage0"))} == {"0.0.0.0/0", "172.16.0.0/12"}
    assert dict(networkd(seen, "eth2"))["Network"]["DHCP"] == "yes"
    assert dict(networkd(seen, "eth3"))["Match"]["MACAddress"] == macs(4)[3].lower()


def test_an_address_from_a_pool_is_configured_as_one_of_the_spec(guests):
    (nic,) = netplan(guests["bound"]).values()
    assert nic["addresses"] == ["10.5.0.9/24"]
    assert nic["routes"] == [{"to": "0.0.0.0/0", "via": "10.5.0.1"}]


def test_no_renderer_refuses_any_of_these(guests):
    refused = {
        (guest, renderer): files["error"]
        for guest, seen in guests.items()
        for renderer, files in seen["rendered"].items()
        if "error" in files
    }
    assert refused == {}
    assert {len(seen["rendered"]) for seen in guests.values()} == {4}


def test_of_user_data_and_vendor_data_nothing_is_lost_and_kubeadm_comes_last(release, tmp_path):
    order = tmp_path / "order"
    kubeadm = tmp_path / "kubeadm.yaml"
    user_data = f"""\
## template: jinja
#cloud-config

write_files:
-   path: {kubeadm}
    owner: root:root
    permissions: '0640'
    content: |
      nodeName: '{{{{ ds.meta_data.local_hostname }}}}'
runcmd:
  - 'cat {kubeadm} >>{order}'
  - "echo kubeadm >>{order}"
"""
    vendor = vendordata(
        [
            Part(Kind.BOOTHOOK, "10-host.sh", f"#!/bin/sh\necho host >>{order}\n"),
            Part(Kind.SCRIPT, "20-vip.sh", f"#!/bin/sh\n# ünicode\n[ -s {kubeadm} ] && echo vip >>{order}\n"),
        ]
    )
    keys = keys_of(Network((V4,)), user_data=user_data.encode(), vendor_data=vendor)
    seen = booted(release, keys, tmp_path / "guest", boot=True)
    assert order.read_text().splitlines() == ["host", "vip", "nodeName: 'm1'", "kubeadm"]
    assert [item["path"] for item in seen["cloud_config"]["write_files"]] == [str(kubeadm)]
    assert len(seen["cloud_config"]["runcmd"]) == 2


def test_our_own_scripts_arrive_as_they_were_written(release, tmp_path):
    proxy = HostProxy.read({"httpProxy": "http://u:p%40@proxy:3128", "noProxy": "a.example"})
    vip = kubevip.KubeVip(image="registry.example/kube-vip:v0.8.9", address="10.0.0.9")
    # Not run here, where they would change this machine: the interpreter is one that prints its script.
    parts = [Part(Kind.BOOTHOOK, "10-host.sh", hostscript.host_script(proxy)), *kubevip.vendor_parts(vip)]
    silent = [part._replace(content=part.content.replace("#!/bin/sh", "#!/bin/true", 1)) for part in parts]
    keys = keys_of(Network((V4,)), vendor_data=vendordata(silent))
    booted(release, keys, tmp_path, boot=True)
    instance = tmp_path / "0" / "cloud_dir" / "instance"
    hooks = {path.name: path.read_text() for path in (instance / "boothooks").iterdir()}
    scripts = {path.name: path.read_text() for path in (instance / "scripts" / "vendor").iterdir()}
    assert sorted(hooks.values()) == sorted(part.content for part in silent if part.kind is Kind.BOOTHOOK)
    assert scripts == {part.name: part.content for part in silent if part.kind is Kind.SCRIPT}
