"""One NIC of a VM, read from its device: addresses, gateways, routes, name servers, all parsed and checked.

Responsible for: everything that can be judged by looking at one device; every mistake is collected with its path.
Invariants: a static address has a prefix; gateways agree within a family; MACs are in lower case with colons, which is
how cloud-init compares them.
Must not know: the other NICs, how anything is rendered.
Sources: CAPV's NetworkDeviceSpec and its rules for pools, netplan's and cloud-init's network config version 2.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, NamedTuple

from services.machine_controller.guestinfo.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from services.machine_controller.api import DHCPOverrides, NetworkDevice, Route

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

FAMILIES = (4, 6)
EVERYWHERE = {4: "0.0.0.0/0", 6: "::/0"}
_DEFAULT = "default"
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}\Z")
_DEVICE_NAME = re.compile(r"(?!\.{1,2}\Z)[^\s/:]{1,15}\Z")
_SEARCH_DOMAIN = re.compile(r"[A-Za-z0-9_]([-A-Za-z0-9_.]*[A-Za-z0-9_.])?\Z")
_MIN_MTU = {4: 68, 6: 1280}
_MAX_MTU = 65_535


class BoundAddress(NamedTuple):
    """What an IPAddress object says: an address, its prefix length, gateway and name servers where it has them."""

    address: str
    prefix: int | None = None
    gateway: str = ""
    nameservers: tuple[str, ...] = ()


class StaticRoute(NamedTuple):
    """A route; `metric` None leaves it to the guest."""

    to: IPNetwork
    via: Address
    metric: int | None


class Nic(NamedTuple):
    """A NIC that can be rendered; `place` is its index, `name` what the guest calls it."""

    place: int
    mac: str
    name: str
    addresses: tuple[Interface, ...]
    gateways: dict[int, Address]
    dhcp: dict[int, bool]
    overrides: dict[int, dict[str, object]]
    routes: tuple[StaticRoute, ...]
    nameservers: tuple[str, ...]
    search: tuple[str, ...]
    mtu: int | None

    def addressed(self, family: int) -> bool:
        """Whether the NIC gets an address of this family, static or by DHCP."""
        return self.dhcp[family] or any(address.version == family for address in self.addresses)

    def reaches(self, address: Address) -> bool:
        """Whether an address is in a network that the NIC is known to be in."""
        return any(address in interface.network for interface in self.addresses)


def read_nic(
    place: int, device: NetworkDevice, mac: str, bound: Sequence[BoundAddress], problems: list[Problem]
) -> Nic:
    """Read the device at index `place`; mistakes are added to `problems` and what is wrong is left out."""
    where = f"spec.network.devices[{place}]"
    addresses = _addresses(where, device, bound, problems)
    dhcp = {4: bool(device.dhcp4), 6: bool(device.dhcp6)}
    if not addresses and not any(dhcp.values()) and not device.skip_ip_allocation:
        problems.append(Problem(f"{where}.ipAddrs", (), "an address, a pool, dhcp4, dhcp6 or skipIPAllocation"))
    name = device.device_name or f"eth{place}"
    if not _DEVICE_NAME.match(name):
        problems.append(Problem(f"{where}.deviceName", name, "1 to 15 characters without blanks, / and :"))
    fixed_mac = mac.strip().lower().replace("-", ":")
    if not _MAC.match(fixed_mac):
        problems.append(Problem(f"{where}.macAddr", mac, "six pairs of hexadecimal digits"))
    nameservers = device.nameservers or tuple(server for item in bound for server in item.nameservers)
    nic = Nic(
        place=place,
        mac=fixed_mac,
        name=name,
        addresses=addresses,
        gateways=_gateways(where, device, bound, problems),
        dhcp=dhcp,
        overrides=_overrides(where, device, problems),
        routes=read_routes(f"{where}.routes", device.routes, problems),
        nameservers=tuple(_each_address(f"{where}.nameservers", nameservers, problems)),
        search=tuple(dict.fromkeys(device.search_domains)),
        mtu=device.mtu,
    )
    for index, domain in enumerate(device.search_domains):
        if not _SEARCH_DOMAIN.match(domain):
            problems.append(Problem(f"{where}.searchDomains[{index}]", domain, "a domain name"))
    least = _MIN_MTU[6 if nic.addressed(6) else 4]
    if nic.mtu is not None and not least <= nic.mtu <= _MAX_MTU:
        problems.append(Problem(f"{where}.mtu", nic.mtu, f"{least} to {_MAX_MTU}"))
    return nic


def read_routes(where: str, routes: Iterable[Route], problems: list[Problem]) -> tuple[StaticRoute, ...]:
    """Read routes at path `where`; `default` as destination means everything of the gateway's family."""
    found: dict[StaticRoute, None] = {}
    for index, route in enumerate(routes):
        via = _address(f"{where}[{index}].via", route.via, problems)
        if via is None:
            continue
        text = EVERYWHERE[via.version] if route.to == _DEFAULT else route.to
        try:
            to = ipaddress.ip_network(text, strict=False)
        except ValueError:
            problems.append(Problem(f"{where}[{index}].to", route.to, "a network, an address or default"))
            continue
        if to.version != via.version:
            problems.append(Problem(f"{where}[{index}].via", route.via, f"an IPv{to.version} address, as `to` is"))
            continue
        if route.metric is not None and route.metric < 0:
            problems.append(Problem(f"{where}[{index}].metric", route.metric, "0 or more"))
        found[StaticRoute(to, via, route.metric)] = None
    return tuple(found)


def _addresses(
    where: str, device: NetworkDevice, bound: Sequence[BoundAddress], problems: list[Problem]
) -> tuple[Interface, ...]:
    found: list[Interface] = []
    for index, text in enumerate(device.ip_addrs):
        path = f"{where}.ipAddrs[{index}]"
        try:
            interface = _interface(text)
        except ValueError:
            problems.append(Problem(path, text, "an address with its prefix length, such as 10.0.0.5/24"))
            continue
        _add(path, interface, found, problems)
    for index, item in enumerate(bound):
        path = f"{where}.addressesFromPools[{index}]"
        try:
            interface = _interface(item.address if item.prefix is None else f"{item.address}/{item.prefix}")
        except ValueError:
            shown = item.address if item.prefix is None else f"{item.address}/{item.prefix}"
            problems.append(Problem(path, shown, "an IPAddress with address and prefix"))
            continue
        _add(path, interface, found, problems)
    return tuple(found)


def _interface(text: str) -> Interface:
    # Without a prefix length Python takes an address for a network of its own; a scope belongs to no configuration.
    if text.count("/") != 1 or "%" in text:
        raise ValueError(text)
    return ipaddress.ip_interface(text)


def _add(path: str, interface: Interface, found: list[Interface], problems: list[Problem]) -> None:
    if any(interface.ip == other.ip for other in found):
        problems.append(Problem(path, str(interface), "an address that the device does not have yet"))
    else:
        found.append(interface)


def _gateways(
    where: str, device: NetworkDevice, bound: Sequence[BoundAddress], problems: list[Problem]
) -> dict[int, Address]:
    found: dict[int, Address] = {}
    for family, text in zip(FAMILIES, (device.gateway4, device.gateway6), strict=True):
        path = f"{where}.gateway{family}"
        address = _address(path, text, problems) if text else None
        if address is not None and address.version != family:
            problems.append(Problem(path, text, f"an IPv{family} address"))
        elif address is not None:
            found[family] = address
    for index, item in enumerate(bound):
        path = f"{where}.addressesFromPools[{index}]"
        address = _address(path, item.gateway, problems) if item.gateway else None
        if address is not None and found.setdefault(address.version, address) != address:
            expected = f"the gateway that the device has: {found[address.version]}"
            problems.append(Problem(path, item.gateway, expected))
    return found


def _overrides(where: str, device: NetworkDevice, problems: list[Problem]) -> dict[int, dict[str, object]]:
    """DHCP overrides by family, for families that use DHCP.

    Where both do, both get all: networkd knows one set for a link, and netplan fails when the two differ.
    """
    read = {
        family: _override(overrides)
        for family, dhcp, overrides in (
            (4, device.dhcp4, device.dhcp4_overrides),
            (6, device.dhcp6, device.dhcp6_overrides),
        )
        if dhcp
    }
    if len(read) == len(FAMILIES):
        for key in read[4].keys() & read[6].keys():
            if read[4][key] != read[6][key]:
                path, expected = f"{where}.dhcp6Overrides", f"{key} as in dhcp4Overrides: {read[4][key]}"
                problems.append(Problem(path, read[6][key], expected))
        both = {**read[4], **read[6]}
        read = dict.fromkeys(FAMILIES, both)
    return {family: chosen for family, chosen in read.items() if chosen}


_OVERRIDES = {
    "hostname": "hostname",
    "route_metric": "route-metric",
    "send_hostname": "send-hostname",
    "use_dns": "use-dns",
    "use_domains": "use-domains",
    "use_hostname": "use-hostname",
    "use_mtu": "use-mtu",
    "use_ntp": "use-ntp",
    "use_routes": "use-routes",
}
_BOOLEANS = {"true": True, "false": False}


def _override(overrides: DHCPOverrides | None) -> dict[str, object]:
    values = {key: getattr(overrides, name, None) for name, key in _OVERRIDES.items()}
    # CAPV has text where netplan has booleans; `route` stays the text it is.
    spelled = {
        key: _BOOLEANS.get(value.lower(), value) if isinstance(value, str) else value for key, value in values.items()
    }
    return {key: value for key, value in spelled.items() if value is not None}


def _each_address(where: str, texts: Sequence[str], problems: list[Problem]) -> dict[str, None]:
    read = [_address(f"{where}[{index}]", text, problems) for index, text in enumerate(texts)]
    return dict.fromkeys(str(address) for address in read if address is not None)


def _address(path: str, text: str, problems: list[Problem]) -> Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        address = None
    if address is None or "%" in text:
        problems.append(Problem(path, text, "an IP address"))
        return None
    return address
