"""The status of a VSphereMachine: conditions, addresses, network and the contract's sign to Cluster API.

Responsible for: the one place where a status is put together, from the old one, what is said and what the guest
reports.
Invariants: `initialization.provisioned` becomes true once and stays; conditions of others stay as they are; the address
of the control plane's endpoint is nobody's own, on whichever node it is, unless the machine was assigned it. A status
that says the same is the same object.
Must not know: how it is written, why something is said.
Source: the InfraMachine contract of the Cluster API book; CAPV v1.16 for the types of addresses.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, NamedTuple

from services.machine_controller import api, phases
from services.runtime.kube import conditions
from services.runtime.kube.conditions import FALSE, TRUE, Condition, find, set_condition
from services.runtime.kube.objects import view, with_status

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from services.machine_controller.phases import Claims, Say
    from services.machine_controller.vsphere.values import VirtualMachine
    from services.runtime.kube.objects import KubeObject

READY_REASON = "Ready"
NOT_READY = "NotReady"
_NOT_PAUSED = "NotPaused"
_FULFILLED = "Fulfilled"
_WAITING = "WaitingForIPAddress"
_MOST = 128
"""How many rows a list of the status may have: the definition refuses the whole status for one more."""


class News(NamedTuple):
    """What a status is to say anew; None leaves it as it is."""

    say: Say | None = None
    paused: bool = False
    vcenter: str | None = None
    """Why vCenter cannot be used, "" when it can."""
    claims: Claims | None = None
    """None for a machine without pools."""
    drift: tuple[str, ...] | None = None
    """In what the VM is not as it was made."""
    soft_power_off: Condition | None = None
    vm: VirtualMachine | None = None
    name: str = ""
    """Of the VM, which is the node's name."""
    first: tuple[str, ...] = ()
    """Addresses that come first: those that were assigned."""
    shared: str = ""
    """An address that is reported by nodes and is nobody's own."""
    gone: bool = False
    """Whether the VM is known not to exist."""


def with_news(obj: KubeObject, news: News, now: datetime) -> KubeObject:
    """VSphereMachine with its status brought up to date; itself when nothing changes."""
    old = view(obj.status, api.VSphereMachineStatus)
    rows = old.conditions

    def put(type_: str, status: bool, reason: str, message: str = "") -> None:
        nonlocal rows
        condition = Condition(type_, TRUE if status else FALSE, reason, message, None, obj.metadata.generation)
        rows = _put(rows, condition, now)

    if news.paused or find(rows, phases.PAUSED) is not None:
        put(phases.PAUSED, news.paused, phases.PAUSED if news.paused else _NOT_PAUSED)
    if news.vcenter is not None:
        put(
            phases.VCENTER_AVAILABLE,
            not news.vcenter,
            "VCenterUnreachable" if news.vcenter else "Available",
            news.vcenter,
        )
    if news.claims is not None:
        left = (*news.claims.missing, *news.claims.unbound)
        message = f"without an address: {', '.join(left)}" if left else ""
        put(phases.CLAIMS_FULFILLED, not left, _WAITING if left else _FULFILLED, message)
    if news.drift or (news.drift is not None and find(rows, phases.AS_PLACED) is not None):
        put(phases.AS_PLACED, not news.drift, "Changed" if news.drift else "AsMade", "; ".join(news.drift))
    if news.soft_power_off is not None:
        rows = _put(rows, news.soft_power_off, now)
    if news.say is not None:
        put(phases.PROVISIONED, news.say.status, news.say.reason, news.say.message)
    provisioned = find(rows, phases.PROVISIONED)
    if provisioned is not None:
        put(phases.READY, *_ready(provisioned, find(rows, phases.VCENTER_AVAILABLE)))
    fields: dict[str, object] = {"conditions": conditions.plain(rows)} if rows else {}
    if news.say is not None and news.say.status:
        fields["initialization"] = {"provisioned": True}
    if news.vm is not None and news.vm.guest.nics:
        fields["addresses"] = addresses(news) or None
        fields["network"] = _network(news.vm) or None
    elif news.gone:
        fields |= {"addresses": None, "network": None}
    return with_status(obj, api.with_fields(obj.status, **fields)) if fields else obj


def _put(rows: tuple[Condition, ...], condition: Condition, now: datetime) -> tuple[Condition, ...]:
    """Set a condition; that the generation is another one is no reason to write."""
    old = find(rows, condition.type)
    same = old is not None and (old.status, old.reason, old.message) == (
        condition.status,
        condition.reason,
        condition.message,
    )
    return rows if same else set_condition(rows, condition, now)


def _ready(provisioned: Condition, vcenter: Condition | None) -> tuple[bool, str, str]:
    if provisioned.status != TRUE:
        said = f"{provisioned.reason}: {provisioned.message}" if provisioned.message else provisioned.reason
        return False, NOT_READY, f"{phases.PROVISIONED}: {said}"
    if vcenter is not None and vcenter.status != TRUE:
        # The VM runs on without vCenter, and so does the node.
        return True, READY_REASON, f"{phases.VCENTER_AVAILABLE}: {vcenter.message}"
    return True, READY_REASON, ""


def addresses(news: News) -> list[dict[str, str]]:
    """Addresses that the guest reports, assigned ones first, and the node's name: at most what a status may have."""
    assert news.vm is not None
    reported = own_addresses(news.vm, news.shared)
    ordered = [a for a in news.first if a in reported] + [a for a in reported if a not in news.first]
    rows = [{"type": "ExternalIP", "address": address} for address in ordered]
    return [*rows[: _MOST - 1], {"type": "InternalDNS", "address": news.name}] if rows else []


def own_addresses(vm: VirtualMachine, shared: str = "") -> list[str]:
    """Every address that the guest reports and that others may use to reach it alone, each once."""
    found = dict.fromkeys(a for nic in vm.guest.nics for a in nic.addresses)
    return [address for address in found if usable(address) and address not in texts([shared])]


def usable(address: str) -> bool:
    """Whether it is an address that reaches a node: no loopback, no link-local one."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return not (parsed.is_loopback or parsed.is_link_local or parsed.is_unspecified or parsed.is_multicast)


def _network(vm: VirtualMachine) -> list[dict[str, object]]:
    return [
        {"macAddr": nic.mac, "connected": nic.connected}
        | ({"ipAddrs": list(nic.addresses[:_MOST])} if nic.addresses else {})
        | ({"networkName": nic.network} if nic.network else {})
        for nic in vm.guest.nics
        if nic.mac
    ][:_MOST]


def unreported(
    vm: VirtualMachine, static: Sequence[str], dhcp_devices: int, static_devices: int, shared: str = ""
) -> tuple[str, ...]:
    """What the guest does not report yet: the `static` addresses, and one for each device that uses DHCP.

    Where nothing was assigned at all, any address will do.
    """
    reported = own_addresses(vm, shared)
    left = [address for address in static if address not in reported]
    if not dhcp_devices and static:
        return tuple(left)
    addressed = sum(1 for nic in vm.guest.nics if any(a in reported for a in nic.addresses))
    wanted = max(1, dhcp_devices + static_devices)
    if addressed < wanted:
        left.append("an address" if wanted == 1 else f"addresses on {wanted} devices, but on {addressed}")
    return tuple(left)


def texts(interfaces: Iterable[str]) -> tuple[str, ...]:
    """Addresses without prefix lengths in their shortest form; what is none is left out."""
    found = []
    for text in interfaces:
        try:
            found.append(str(ipaddress.ip_interface(text).ip))
        except ValueError:
            continue
    return tuple(dict.fromkeys(found))
