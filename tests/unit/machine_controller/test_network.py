"""Devices to network configuration: what is written, and every mistake that is told."""

from __future__ import annotations

import pytest

from services.machine_controller.api import DHCPOverrides, Network, NetworkDevice, PoolRef, Route
from services.machine_controller.guestinfo.network import BoundAddress, GatewayStyle, network_config
from services.machine_controller.guestinfo.problems import InvalidError

MACS = ("00:50:56:aa:bb:01", "00:50:56:aa:bb:02", "00:50:56:aa:bb:03")
STATIC = NetworkDevice(network_name="n", ip_addrs=("10.0.0.5/24",), gateway4="10.0.0.1")
OTHER = NetworkDevice(network_name="n", ip_addrs=("10.1.0.5/24",))
POOL = (PoolRef("ipam.metal3.io", "IPPool", "p"),)


def rendered(*devices, bound=(), routes=(), macs=None, **options):
    return network_config(Network(devices, routes), macs or MACS[: len(devices)], bound, **options)


def nics(*devices, **options):
    return list(rendered(*devices, **options).config["ethernets"].values())


def problems(*devices, **options):
    with pytest.raises(InvalidError) as caught:
        rendered(*devices, **options)
    return [(problem.field, problem.value, problem.expected) for problem in caught.value.problems]


def test_a_static_nic_has_all_that_its_device_says():
    device = NetworkDevice(
        network_name="n",
        device_name="ens192",
        ip_addrs=("10.0.0.5/24", "FD00:0:0::5/64"),
        gateway4="10.0.0.1",
        gateway6="FD00::1",
        mtu=9000,
        nameservers=("10.0.0.2", "FD00:0::2", "10.0.0.2"),
        search_domains=("a.example", "b.example", "a.example"),
    )
    assert nics(device) == [
        {
            "match": {"macaddress": MACS[0]},
            "set-name": "ens192",
            "dhcp4": False,
            "dhcp6": False,
            "accept-ra": False,
            "addresses": ["10.0.0.5/24", "fd00::5/64"],
            "mtu": 9000,
            "routes": [{"to": "0.0.0.0/0", "via": "10.0.0.1"}, {"to": "::/0", "via": "fd00::1"}],
            "nameservers": {"addresses": ["10.0.0.2", "fd00::2"], "search": ["a.example", "b.example"]},
        }
    ]


@pytest.mark.parametrize(
    ("device", "waits"),
    [
        (STATIC, (True, False)),
        (NetworkDevice(ip_addrs=("fd00::5/64",)), (False, True)),
        (NetworkDevice(ip_addrs=("10.0.0.5/24", "fd00::5/64")), (True, True)),
        (NetworkDevice(dhcp4=True), (True, False)),
        (NetworkDevice(dhcp4=True, dhcp6=True), (True, True)),
        (NetworkDevice(skip_ip_allocation=True), (False, False)),
    ],
)
def test_a_family_is_waited_for_when_some_nic_gets_an_address_of_it(device, waits):
    config = rendered(device)
    assert (config.waits4, config.waits6) == waits


def test_the_other_style_writes_the_gateway_keys_and_no_default_route():
    device = NetworkDevice(ip_addrs=("10.0.0.5/24", "fd00::5/64"), gateway4="10.0.0.1", gateway6="fd00::1")
    (nic,) = nics(device, style=GatewayStyle.GATEWAY)
    assert (nic["gateway4"], nic["gateway6"]) == ("10.0.0.1", "fd00::1")
    assert "routes" not in nic


def test_of_several_default_routes_each_has_a_metric_of_its_own():
    second = NetworkDevice(ip_addrs=("10.1.0.5/24",), gateway4="10.1.0.1")
    first, second, third = nics(STATIC, second, NetworkDevice(dhcp4=True))
    assert first["routes"] == [{"to": "0.0.0.0/0", "via": "10.0.0.1", "metric": 100}]
    assert second["routes"] == [{"to": "0.0.0.0/0", "via": "10.1.0.1", "metric": 200}]
    assert third["dhcp4-overrides"] == {"route-metric": 300}


def test_with_the_other_style_only_the_first_of_several_keeps_its_gateway_key():
    second = NetworkDevice(ip_addrs=("10.1.0.5/24",), gateway4="10.1.0.1")
    first, second = nics(STATIC, second, style=GatewayStyle.GATEWAY)
    assert (first["gateway4"], first.get("routes")) == ("10.0.0.1", None)
    assert second["routes"] == [{"to": "0.0.0.0/0", "via": "10.1.0.1", "metric": 200}]


@pytest.mark.parametrize(
    "dhcp",
    [
        NetworkDevice(dhcp4=True, dhcp4_overrides=DHCPOverrides(use_routes="false")),
        NetworkDevice(dhcp6=True),
    ],
)
def test_a_nic_without_a_default_route_of_the_family_needs_no_metric(dhcp):
    first, second = nics(STATIC, dhcp)
    assert first["routes"] == [{"to": "0.0.0.0/0", "via": "10.0.0.1"}]
    assert "route-metric" not in second.get("dhcp4-overrides", {})


def test_a_metric_that_the_user_chose_stays():
    dhcp = NetworkDevice(dhcp4=True, dhcp4_overrides=DHCPOverrides(route_metric=7))
    assert nics(STATIC, dhcp)[1]["dhcp4-overrides"] == {"route-metric": 7}


def test_overrides_are_written_as_netplan_has_them_and_only_with_dhcp():
    overrides = DHCPOverrides(
        hostname="h",
        route_metric=0,
        send_hostname=True,
        use_dns=False,
        use_domains="True",
        use_hostname=True,
        use_mtu=False,
        use_ntp=True,
        use_routes="false",
    )
    (nic,) = nics(NetworkDevice(dhcp4=True, dhcp4_overrides=overrides))
    assert nic["dhcp4-overrides"] == {
        "hostname": "h",
        "route-metric": 0,
        "send-hostname": True,
        "use-dns": False,
        "use-domains": True,
        "use-hostname": True,
        "use-mtu": False,
        "use-ntp": True,
        "use-routes": False,
    }
    (nic,) = nics(NetworkDevice(dhcp6=True, dhcp4_overrides=overrides))
    assert "dhcp4-overrides" not in nic


def test_a_nic_with_dhcp_of_both_families_has_one_set_of_overrides():
    device = NetworkDevice(
        dhcp4=True,
        dhcp6=True,
        dhcp4_overrides=DHCPOverrides(use_dns=False),
        dhcp6_overrides=DHCPOverrides(use_domains="route"),
    )
    (nic,) = nics(device)
    assert nic["dhcp4-overrides"] == nic["dhcp6-overrides"] == {"use-dns": False, "use-domains": "route"}
    clashing = NetworkDevice(
        dhcp4=True,
        dhcp6=True,
        dhcp4_overrides=DHCPOverrides(use_dns=False),
        dhcp6_overrides=DHCPOverrides(use_dns=True),
    )
    where = "spec.network.devices[0].dhcp6Overrides"
    assert problems(clashing) == [(where, True, "use-dns as in dhcp4Overrides: False")]


def test_dhcp_beside_a_static_address_of_the_other_family():
    (nic,) = nics(NetworkDevice(dhcp4=True, ip_addrs=("fd00::5/64",), gateway6="fd00::1"))
    assert (nic["dhcp4"], nic["dhcp6"], nic["accept-ra"]) == (True, False, False)
    assert nic["routes"] == [{"to": "::/0", "via": "fd00::1"}]


def test_router_advertisements_are_taken_with_dhcp_for_ipv6_only():
    assert nics(NetworkDevice(dhcp6=True))[0]["accept-ra"] is True


def test_the_boot_does_not_wait_for_a_nic_without_addresses():
    static, idle = nics(STATIC, NetworkDevice(skip_ip_allocation=True))
    assert idle["optional"] is True
    assert "optional" not in static


def test_routes_of_the_whole_vm_go_to_the_nic_that_reaches_the_router():
    routes = (Route("172.16.0.0/12", "10.1.0.9", 7), Route("default", "10.0.0.9", 8))
    first, second, third = nics(STATIC, OTHER, NetworkDevice(skip_ip_allocation=True), routes=routes)
    assert first["routes"][1:] == [{"to": "0.0.0.0/0", "via": "10.0.0.9", "metric": 8}]
    assert second["routes"] == [{"to": "172.16.0.0/12", "via": "10.1.0.9", "metric": 7}]
    assert "routes" not in third


def test_a_router_that_no_static_network_has_is_looked_for_behind_dhcp():
    route = Route("172.16.0.0/12", "10.9.0.9", 7)
    static, dhcp = nics(OTHER, NetworkDevice(dhcp4=True), routes=(route,))
    assert dhcp["routes"] == [{"to": "172.16.0.0/12", "via": "10.9.0.9", "metric": 7}]
    assert "routes" not in static
    expected = "an address in the network of one of the devices"
    assert problems(OTHER, routes=(route,)) == [("spec.network.routes[0].via", "10.9.0.9", expected)]


def test_destinations_lose_their_host_bits_and_repetitions_go():
    routes = (
        Route("10.20.3.4/16", "10.0.0.9", 1),
        Route("10.20.0.0/16", "10.0.0.9", 1),
        Route("8.8.8.8", "10.0.0.9", 0),
    )
    device = NetworkDevice(ip_addrs=("10.0.0.5/24",), routes=routes)
    assert nics(device)[0]["routes"] == [
        {"to": "10.20.0.0/16", "via": "10.0.0.9", "metric": 1},
        {"to": "8.8.8.8/32", "via": "10.0.0.9", "metric": 0},
    ]


@pytest.mark.parametrize(
    ("address", "gateway", "on_link"),
    [
        ("10.0.0.5/32", "10.0.0.1", True),
        ("10.0.0.5/24", "10.0.0.1", None),
        ("fd00::5/64", "fe80::1", None),
        ("fd00::5/128", "fd00::1", True),
    ],
)
def test_a_router_outside_of_the_network_is_said_to_be_on_the_link(address, gateway, on_link):
    family = 6 if ":" in address else 4
    (nic,) = nics(NetworkDevice(ip_addrs=(address,), **{f"gateway{family}": gateway}))
    assert nic["routes"][0].get("on-link") is on_link


def test_addresses_from_pools_come_after_those_of_the_spec_with_their_gateway():
    device = NetworkDevice(ip_addrs=("10.0.0.5/24",), addresses_from_pools=POOL)
    bound = [[BoundAddress("fd00::9", 64, "fd00::1", ("fd00::53",)), BoundAddress("10.0.0.9", 24)]]
    (nic,) = nics(device, bound=bound)
    assert nic["addresses"] == ["10.0.0.5/24", "fd00::9/64", "10.0.0.9/24"]
    assert nic["routes"] == [{"to": "::/0", "via": "fd00::1"}]
    assert nic["nameservers"] == {"addresses": ["fd00::53"]}


def test_name_servers_of_the_device_win_over_those_of_a_pool():
    device = NetworkDevice(nameservers=("10.0.0.53",))
    (nic,) = nics(device, bound=[[BoundAddress("10.0.0.9", 24, "", ("10.0.0.99",))]])
    assert nic["nameservers"] == {"addresses": ["10.0.0.53"]}


@pytest.mark.parametrize("mac", ["00:50:56:AA:BB:01", "00-50-56-aa-bb-01", " 00:50:56:aa:bb:01 "])
def test_macs_are_written_as_the_guest_compares_them(mac):
    assert nics(STATIC, macs=[mac])[0]["match"] == {"macaddress": "00:50:56:aa:bb:01"}


def test_two_nics_with_one_mac_are_refused_however_it_is_spelled():
    found = problems(STATIC, OTHER, macs=["00:50:56:AA:BB:01", "00:50:56:aa:bb:01"])
    assert found == [("spec.network.devices[1].macAddr", "00:50:56:aa:bb:01", "not that of devices[0]")]


def test_a_vm_with_another_number_of_nics_is_refused():
    assert problems(STATIC, macs=MACS[:2]) == [("macs", ", ".join(MACS[:2]), "1 NICs, as spec.network.devices")]


DEVICE = "spec.network.devices[0]"


@pytest.mark.parametrize(
    ("device", "problem"),
    [
        (NetworkDevice(), (f"{DEVICE}.ipAddrs", (), "an address, a pool, dhcp4, dhcp6 or skipIPAllocation")),
        (
            NetworkDevice(ip_addrs=("10.0.0.5",), skip_ip_allocation=True),
            (f"{DEVICE}.ipAddrs[0]", "10.0.0.5", "an address with its prefix length, such as 10.0.0.5/24"),
        ),
        (
            NetworkDevice(ip_addrs=("fe80::1%eth0/64",), skip_ip_allocation=True),
            (f"{DEVICE}.ipAddrs[0]", "fe80::1%eth0/64", "an address with its prefix length, such as 10.0.0.5/24"),
        ),
        (
            NetworkDevice(ip_addrs=("10.0.0.5/24", "10.0.0.5/16")),
            (f"{DEVICE}.ipAddrs[1]", "10.0.0.5/16", "an address that the device does not have yet"),
        ),
        (NetworkDevice(dhcp4=True, gateway4="fd00::1"), (f"{DEVICE}.gateway4", "fd00::1", "an IPv4 address")),
        (NetworkDevice(dhcp4=True, gateway6="gw"), (f"{DEVICE}.gateway6", "gw", "an IP address")),
        (NetworkDevice(dhcp4=True, mtu=67), (f"{DEVICE}.mtu", 67, "68 to 65535")),
        (NetworkDevice(ip_addrs=("fd00::5/64",), mtu=1279), (f"{DEVICE}.mtu", 1279, "1280 to 65535")),
        (
            NetworkDevice(dhcp4=True, device_name="sixteen-letters-"),
            (f"{DEVICE}.deviceName", "sixteen-letters-", "1 to 15 characters without blanks, / and :"),
        ),
        (NetworkDevice(dhcp4=True, nameservers=("dns",)), (f"{DEVICE}.nameservers[0]", "dns", "an IP address")),
        (NetworkDevice(dhcp4=True, search_domains=("a b",)), (f"{DEVICE}.searchDomains[0]", "a b", "a domain name")),
        (
            NetworkDevice(dhcp4=True, routes=(Route("10.0.0.0/33", "10.0.0.1", 1),)),
            (f"{DEVICE}.routes[0].to", "10.0.0.0/33", "a network, an address or default"),
        ),
        (
            NetworkDevice(dhcp4=True, routes=(Route("10.0.0.0/8", "fd00::1", 1),)),
            (f"{DEVICE}.routes[0].via", "fd00::1", "an IPv4 address, as `to` is"),
        ),
        (
            NetworkDevice(dhcp4=True, routes=(Route("10.0.0.0/8", "10.0.0.1", -1),)),
            (f"{DEVICE}.routes[0].metric", -1, "0 or more"),
        ),
    ],
)
def test_a_mistake_in_a_device_is_told_with_field_value_and_what_would_do(device, problem):
    assert problems(device) == [problem]


@pytest.mark.parametrize(
    ("bound", "problem"),
    [
        (BoundAddress("10.0.0.9"), ("10.0.0.9", "an IPAddress with address and prefix")),
        (BoundAddress("10.0.0.9", 33), ("10.0.0.9/33", "an IPAddress with address and prefix")),
        (BoundAddress("10.0.0.5", 24), ("10.0.0.5/24", "an address that the device does not have yet")),
        (BoundAddress("10.0.0.9", 24, "10.0.0.2"), ("10.0.0.2", "the gateway that the device has: 10.0.0.1")),
    ],
)
def test_an_address_from_a_pool_that_does_not_fit_is_told(bound, problem):
    assert problems(STATIC, bound=[[bound]]) == [(f"{DEVICE}.addressesFromPools[0]", *problem)]


def test_two_nics_with_one_address_or_name_are_refused():
    twin = NetworkDevice(device_name="eth0", ip_addrs=("10.0.0.5/16",))
    assert problems(STATIC, twin) == [
        ("spec.network.devices[1].deviceName", "eth0", "not that of devices[0]"),
        ("spec.network.devices[1].ipAddrs", "10.0.0.5/16", "an address that devices[0] does not have"),
    ]


def test_every_mistake_is_told_at_once():
    device = NetworkDevice(ip_addrs=("a", "b"), gateway4="c", nameservers=("d",))
    # No address is left, so that is told too.
    assert [value for _, value, _ in problems(device)] == ["a", "b", (), "c", "d"]


@pytest.mark.parametrize(
    ("device", "waits"),
    [
        (NetworkDevice(), True),
        (STATIC, False),
        (NetworkDevice(dhcp6=True), False),
        (NetworkDevice(skip_ip_allocation=True), False),
        (NetworkDevice(addresses_from_pools=POOL), False),
    ],
)
def test_a_device_waits_for_an_address_as_with_capv(device, waits):
    assert device.waits is waits
