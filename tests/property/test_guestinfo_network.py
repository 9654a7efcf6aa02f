"""Any devices that can be rendered: YAML gives them back, and what every guest relies on holds."""

from __future__ import annotations

import ipaddress

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from services.machine_controller.api import DHCPOverrides, Network, NetworkDevice, Route
from services.machine_controller.guestinfo import encode
from services.machine_controller.guestinfo.metadata import metadata
from services.machine_controller.guestinfo.network import GatewayStyle, network_config
from services.machine_controller.guestinfo.problems import InvalidError

OVERRIDES = st.builds(
    DHCPOverrides,
    hostname=st.none() | st.sampled_from(["yes", "1e3", "null", "0x1", "host"]),
    route_metric=st.none() | st.integers(0, 2**31 - 1),
    use_dns=st.none() | st.booleans(),
    use_domains=st.none() | st.sampled_from(["true", "false", "route"]),
    use_routes=st.none() | st.sampled_from(["true", "false"]),
)
# Digits below 60 between colons are a number to YAML 1.1.
MACS = st.lists(
    st.lists(st.integers(0, 99).map(lambda n: f"{n:02d}"), min_size=6, max_size=6).map(":".join)
    | st.binary(min_size=6, max_size=6).map(lambda raw: raw.hex(":").upper()),
    min_size=10,
    max_size=10,
    unique_by=str.lower,
)


@st.composite
def networks(draw):
    """Up to four NICs, each in networks of its own."""
    devices = []
    for place in range(draw(st.integers(0, 4))):
        v4 = ipaddress.ip_network(f"10.{place}.{draw(st.integers(0, 255))}.0/24")
        v6 = ipaddress.ip_network(f"fd00:{place}::/64")
        static4, static6 = draw(st.booleans()), draw(st.booleans())
        dhcp4, dhcp6 = draw(st.booleans()), draw(st.booleans())
        addresses = [f"{v4[draw(st.integers(2, 250))]}/24"] if static4 else []
        addresses += [f"{v6[draw(st.integers(2, 2**32))]}/64"] if static6 else []
        routes = draw(
            st.lists(st.integers(0, 5).map(lambda n, v4=v4: Route(f"172.{16 + n}.0.0/16", str(v4[9]), n)), max_size=3)
        )
        overrides = draw(st.none() | OVERRIDES)
        devices.append(
            NetworkDevice(
                network_name="n",
                device_name=draw(st.sampled_from(["", f"ens{place}", f"{place}e{place}"])),
                ip_addrs=tuple(addresses),
                dhcp4=dhcp4,
                dhcp6=dhcp6,
                gateway4=str(v4[1]) if static4 and draw(st.booleans()) else "",
                gateway6=str(v6[1]) if static6 and draw(st.booleans()) else "",
                mtu=draw(st.none() | st.integers(1280, 9000)),
                routes=tuple(routes) if static4 else (),
                nameservers=tuple(draw(st.lists(st.ip_addresses().map(str), max_size=3))),
                search_domains=tuple(draw(st.lists(st.sampled_from(["a.example", "no", "1.2"]), max_size=3))),
                dhcp4_overrides=overrides,
                dhcp6_overrides=overrides,
                skip_ip_allocation=not (addresses or dhcp4 or dhcp6),
            )
        )
    return Network(tuple(devices))


@given(network=networks(), macs=MACS, style=st.sampled_from(GatewayStyle))
def test_any_devices_come_back_from_yaml_as_they_were_rendered(network, macs, style):
    config = network_config(network, macs[: len(network.devices)], style=style)
    text = metadata("m1", config, instance_id="1e3")
    read = yaml.safe_load(text)
    assert read["network"] == config.config
    assert (read["instance-id"], read["wait-on-network"]) == ("1e3", {"ipv4": config.waits4, "ipv6": config.waits6})
    assert encode.decoded("k", encode.encoded("k", text)) == text


@given(network=networks(), macs=MACS, style=st.sampled_from(GatewayStyle))
def test_of_any_devices_no_guest_gets_what_it_cannot_take(network, macs, style):
    nics = network_config(network, macs[: len(network.devices)], style=style).config["ethernets"].values()
    assert [nic["match"]["macaddress"] for nic in nics] == [mac.lower() for mac in macs[: len(nics)]]
    assert len({nic["set-name"] for nic in nics}) == len(nics)
    for family, everywhere in ((4, "0.0.0.0/0"), (6, "::/0")):
        defaults = [
            route.get("metric")
            for nic in nics
            for route in [*nic.get("routes", ()), *([{"to": everywhere}] if f"gateway{family}" in nic else [])]
            if route["to"] == everywhere
        ]
        assert len(set(defaults)) == len(defaults), "two default routes of one metric"
    for nic in nics:
        assert nic.get("dhcp4-overrides", {}) == nic.get("dhcp6-overrides", {}) or not (nic["dhcp4"] and nic["dhcp6"])
        assert {route["to"] for route in nic.get("routes", ())}.isdisjoint({"default"})


@given(network=networks().filter(lambda network: len(network.devices) > 1), macs=MACS)
def test_two_nics_with_one_mac_are_never_rendered(network, macs):
    same = [macs[0].lower(), macs[0].upper(), *macs[2:]][: len(network.devices)]
    with pytest.raises(InvalidError) as caught:
        network_config(network, same)
    assert [problem.field for problem in caught.value.problems] == ["spec.network.devices[1].macAddr"]
