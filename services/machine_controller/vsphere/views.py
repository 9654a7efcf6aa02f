"""VMs and tasks as values, from the properties that vCenter delivers.

Responsible for: which properties are read, the same for a single read and for the watch, and what they mean.
Invariants: a property that is not set (a VM that is being made has no config) reads as the value's default. UUIDs and
MACs are in lower case; a guest's addresses are in their shortest form, so that they compare with assigned ones. Of a
guest's interfaces only those that are cards of the VM are told: bridges of pods and addresses of Services, which Tools
report too, are nothing of the node's.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any, Final

from services.machine_controller.vsphere.faults import fault_error
from services.machine_controller.vsphere.lookup import decoded
from services.machine_controller.vsphere.refs import ref
from services.machine_controller.vsphere.values import (
    Guest,
    GuestNic,
    PowerState,
    Ref,
    Task,
    TaskState,
    ToolsState,
    VirtualMachine,
)

if TYPE_CHECKING:
    from services.machine_controller.vsphere.properties import Properties

VM_PATHS: Final = (
    "name",
    "parent",
    "runtime.powerState",
    "runtime.connectionState",
    "runtime.host",
    "config.instanceUuid",
    "config.uuid",
    "config.template",
    "config.changeVersion",
    "guest.net",
    "guest.hostName",
    "guest.toolsRunningStatus",
)
TASK_PATHS: Final = (
    "info.state",
    "info.descriptionId",
    "info.entity",
    "info.progress",
    "info.result",
    "info.error",
)


def virtual_machine(reference: Ref, properties: Properties) -> VirtualMachine:
    """Return the VM that has these properties."""
    host, parent = properties.get("runtime.host"), properties.get("parent")
    return VirtualMachine(
        ref=reference,
        name=decoded(properties.get("name") or ""),
        instance_uuid=(properties.get("config.instanceUuid") or "").lower(),
        bios_uuid=(properties.get("config.uuid") or "").lower(),
        power=PowerState(str(properties.get("runtime.powerState") or PowerState.OFF)),
        connection=str(properties.get("runtime.connectionState") or ""),
        template=bool(properties.get("config.template")),
        host=ref(host) if host is not None else None,
        parent=ref(parent) if parent is not None else None,
        change_version=properties.get("config.changeVersion") or "",
        guest=_guest(properties),
    )


def _guest(properties: Properties) -> Guest:
    tools = properties.get("guest.toolsRunningStatus") or ""
    known = set(ToolsState)
    return Guest(
        tools=ToolsState(tools) if tools in known else ToolsState.UNKNOWN,
        host_name=properties.get("guest.hostName") or "",
        nics=tuple(_guest_nic(nic) for nic in properties.get("guest.net") or () if _is_card(nic)),
    )


def _is_card(nic: Any) -> bool:
    """Whether an interface is a card of the VM: it has the card's device key then, and -1 otherwise."""
    return bool(nic.deviceConfigId >= 0)


def _guest_nic(nic: Any) -> GuestNic:
    addresses = list(nic.ipAddress or ())
    if not addresses and nic.ipConfig is not None:
        addresses = [address.ipAddress for address in nic.ipConfig.ipAddress]
    return GuestNic(
        mac=(nic.macAddress or "").lower(),
        addresses=tuple(dict.fromkeys(filter(None, map(_shortest, addresses)))),
        network=nic.network or "",
        connected=bool(nic.connected),
    )


def _shortest(address: str) -> str:
    """Return an address in its shortest form, without a scope; "" for what is none, as a guest may say anything."""
    try:
        return str(ipaddress.ip_address(address.partition("%")[0]))
    except ValueError:
        return ""


def task(reference: Ref, properties: Properties) -> Task:
    """Return the task that has these properties."""
    state = TaskState(str(properties.get("info.state") or TaskState.QUEUED))
    entity, result, fault = (properties.get(f"info.{name}") for name in ("entity", "result", "error"))
    return Task(
        ref=reference,
        state=state,
        operation=properties.get("info.descriptionId") or "",
        entity=ref(entity) if entity is not None else None,
        progress_percent=properties.get("info.progress"),
        result=ref(result) if hasattr(result, "_moId") else None,
        error=fault_error(fault) if state is TaskState.ERROR and fault is not None else None,
    )
