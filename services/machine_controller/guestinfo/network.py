"""cloud-init's network configuration, version 2, from a VM's devices, MAC addresses and bound addresses.

Responsible for: what concerns several NICs (names, MACs, metrics of default routes, routes of the whole VM) and the
document itself.
Invariants: NICs are found by MAC, in lower case; default routes are routes to 0.0.0.0/0 and ::/0, never `default`,
which older cloud-init refuses; where several NICs have one, each has a metric of its own; a family is waited for only
when some NIC gets an address of it, since cloud-init waits without end.
Must not know: where addresses come from, how the document reaches the VM.
Sources: cloud-init's "Networking config version 2", netplan's reference, measured with cloud-init 22.4, 25.1 and 26.2.
"""

from __future__ import annotations

import enum
import ipaddress
from typing import TYPE_CHECKING, Any, NamedTuple

from services.machine_controller.guestinfo.nic import (
    EVERYWHERE,
    FAMILIES,
    BoundAddress,
    Nic,
    StaticRoute,
    read_nic,
    read_routes,
)
from services.machine_controller.guestinfo.problems import InvalidError, Problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.machine_controller.api import Network

__all__ = ["BoundAddress", "GatewayStyle", "NetworkConfig", "network_config"]

_METRIC_STEP = 100


class GatewayStyle(enum.StrEnum):
    """How a device's gateway is written."""

    ROUTES = "routes"
    """As a route to everything: what current cloud-init and netplan want."""
    GATEWAY = "gateway"
    """As gateway4 and gateway6: deprecated, and right where an image's cloud-init is older than 25.3 and renders for
    ifupdown, networkd or sysconfig (it loses `::/0`, or needs net-tools for any route)."""


class NetworkConfig(NamedTuple):
    """`config` is the value of metadata's `network`; `waits4` and `waits6` are for `wait-on-network`."""

    config: dict[str, Any]
    waits4: bool
    waits6: bool


def network_config(
    network: Network,
    macs: Sequence[str],
    bound: Sequence[Sequence[BoundAddress]] = (),
    *,
    style: GatewayStyle = GatewayStyle.ROUTES,
) -> NetworkConfig:
    """Configuration of a VM.

    `macs` are those of the VM's NICs in the order of the devices, `bound` the addresses from pools for each device (may
    be shorter). Raises InvalidError with every mistake.
    """
    problems: list[Problem] = []
    if len(macs) != len(network.devices):
        expected = f"{len(network.devices)} NICs, as spec.network.devices"
        raise InvalidError([Problem("macs", ", ".join(macs), expected)])
    nics = [
        read_nic(place, device, macs[place], bound[place] if place < len(bound) else (), problems)
        for place, device in enumerate(network.devices)
    ]
    _distinct("deviceName", [nic.name for nic in nics], problems)
    _distinct("macAddr", [nic.mac for nic in nics], problems)
    _distinct_addresses(nics, problems)
    shared = _spread(nics, read_routes("spec.network.routes", network.routes, problems), problems)
    if problems:
        raise InvalidError(problems)
    metrics = {family: _default_metrics(nics, family) for family in FAMILIES}
    ethernets = {f"id{nic.place}": _ethernet(nic, shared[nic.place], metrics, style) for nic in nics}
    return NetworkConfig(
        {"version": 2, "ethernets": ethernets},
        *(any(nic.addressed(family) for nic in nics) for family in FAMILIES),
    )


def _distinct(field: str, values: Sequence[str], problems: list[Problem]) -> None:
    for place, value in enumerate(values):
        if value in values[:place]:
            where = f"spec.network.devices[{place}].{field}"
            problems.append(Problem(where, value, f"not that of devices[{values.index(value)}]"))


def _distinct_addresses(nics: Sequence[Nic], problems: list[Problem]) -> None:
    holders: dict[object, int] = {}
    for nic in nics:
        for interface in nic.addresses:
            holder = holders.setdefault(interface.ip, nic.place)
            if holder != nic.place:
                where = f"spec.network.devices[{nic.place}].ipAddrs"
                problems.append(Problem(where, str(interface), f"an address that devices[{holder}] does not have"))


def _spread(
    nics: Sequence[Nic], routes: Sequence[StaticRoute], problems: list[Problem]
) -> dict[int, tuple[StaticRoute, ...]]:
    """Routes of the whole VM by NIC: those that are in the gateway's network, else those with DHCP of its family.

    A route on a NIC that cannot reach the gateway makes renderers fail or drop the device's other routes.
    """
    spread: dict[int, tuple[StaticRoute, ...]] = {nic.place: () for nic in nics}
    for index, route in enumerate(routes):
        takers = [nic for nic in nics if nic.reaches(route.via)] or [nic for nic in nics if nic.dhcp[route.via.version]]
        if not takers:
            where = f"spec.network.routes[{index}].via"
            problems.append(Problem(where, str(route.via), "an address in the network of one of the devices"))
        for nic in takers:
            spread[nic.place] += (route,)
    return spread


def _default_metrics(nics: Sequence[Nic], family: int) -> dict[int, int]:
    """Metrics for default routes by NIC; none when at most one NIC has such a route.

    Linux refuses a second default route of the same metric, and says so to nobody.
    """
    takers = [
        nic.place
        for nic in nics
        if family in nic.gateways or (nic.dhcp[family] and nic.overrides.get(family, {}).get("use-routes") is not False)
    ]
    return {place: _METRIC_STEP * (place + 1) for place in takers} if len(takers) > 1 else {}


def _ethernet(
    nic: Nic, shared: tuple[StaticRoute, ...], metrics: dict[int, dict[int, int]], style: GatewayStyle
) -> dict[str, Any]:
    document: dict[str, Any] = {
        "match": {"macaddress": nic.mac},
        "set-name": nic.name,
        "dhcp4": nic.dhcp[4],
        "dhcp6": nic.dhcp[6],
        # With a static address only, router advertisements would add another one and a second default route.
        "accept-ra": nic.dhcp[6],
    }
    if not any(nic.addressed(family) for family in FAMILIES):
        document["optional"] = True  # or the boot waits for an address that nobody gives
    metric = next(
        (metrics[family][nic.place] for family in FAMILIES if nic.dhcp[family] and nic.place in metrics[family]), None
    )
    for family in FAMILIES:
        overrides = dict(nic.overrides.get(family, {}))
        if nic.dhcp[family] and metric is not None:
            overrides.setdefault("route-metric", metric)
        if overrides:
            document[f"dhcp{family}-overrides"] = overrides
    if nic.addresses:
        document["addresses"] = [str(interface) for interface in nic.addresses]
    routes = []
    for family, gateway in sorted(nic.gateways.items()):
        metric = metrics[family].get(nic.place)
        # The old keys know no metric: of several NICs only the first keeps them.
        if style is GatewayStyle.GATEWAY and (metric is None or nic.place == min(metrics[family])):
            document[f"gateway{family}"] = str(gateway)
        else:
            routes.append(StaticRoute(ipaddress.ip_network(EVERYWHERE[family]), gateway, metric))
    if nic.mtu is not None:
        document["mtu"] = nic.mtu
    routes += [*nic.routes, *shared]
    if routes:
        document["routes"] = [_route(nic, route) for route in dict.fromkeys(routes)]
    nameservers = {"addresses": list(nic.nameservers), "search": list(nic.search)}
    if any(nameservers.values()):
        document["nameservers"] = {key: value for key, value in nameservers.items() if value}
    return document


def _route(nic: Nic, route: StaticRoute) -> dict[str, Any]:
    document: dict[str, Any] = {"to": str(route.to), "via": str(route.via)}
    if route.metric is not None:
        document["metric"] = route.metric
    static = any(interface.version == route.via.version for interface in nic.addresses)
    if static and not route.via.is_link_local and not nic.reaches(route.via):
        document["on-link"] = True  # a gateway outside of the network, as with addresses of prefix length 32
    return document
