"""Virtual hardware: reading a VM's cards and disks, and the changes that a clone makes to them.

Invariants: cards and disks come in the order of their device keys, which is the order in which the guest sees them. New
cards have negative keys, as vCenter asks of a client; it replaces them. Disks grow; none is added or made smaller.
Must not know: sessions, calls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from services.machine_controller.vsphere.errors import InvalidValue
from services.machine_controller.vsphere.refs import ref
from services.machine_controller.vsphere.soap import vim
from services.machine_controller.vsphere.values import CloneSpec, Disk, Network, NetworkDevice, NetworkKind, Nic, Ref

if TYPE_CHECKING:
    from collections.abc import Iterable

_GIB: Final = 1 << 30
_KIB: Final = 1 << 10
_FIRST_NIC_KEY: Final = -100

_DEVICE: Final = vim.vm.device
_CHANGE: Final = vim.vm.device.VirtualDeviceSpec


def nics(hardware: Iterable[Any]) -> tuple[Nic, ...]:
    """Network cards of a device list."""
    cards = sorted((d for d in hardware if isinstance(d, _DEVICE.VirtualEthernetCard)), key=lambda card: card.key)
    return tuple(
        Nic(
            key=card.key,
            mac=(card.macAddress or "").lower(),
            label=card.deviceInfo.label if card.deviceInfo is not None else "",
            network=_network_of(card.backing),
            connected=bool(card.connectable is not None and card.connectable.connected),
        )
        for card in cards
    )


def _network_of(backing: Any) -> Ref | None:
    if isinstance(backing, _DEVICE.VirtualEthernetCard.DistributedVirtualPortBackingInfo):
        # The key of a port group is the id of its managed object.
        return Ref("DistributedVirtualPortgroup", backing.port.portgroupKey) if backing.port.portgroupKey else None
    network = getattr(backing, "network", None)
    return ref(network) if network is not None else None


def disks(hardware: Iterable[Any]) -> tuple[Disk, ...]:
    """Disks of a device list, in the order of their keys."""
    return tuple(
        Disk(disk.key, disk.deviceInfo.label if disk.deviceInfo is not None else "", _bytes(disk))
        for disk in _disks(hardware)
    )


def _disks(hardware: Iterable[Any]) -> list[Any]:
    return sorted((d for d in hardware if isinstance(d, _DEVICE.VirtualDisk)), key=lambda disk: disk.key)


def _bytes(disk: Any) -> int:
    return int(disk.capacityInBytes or disk.capacityInKB * _KIB)


def changes(hardware: list[Any], spec: CloneSpec) -> list[Any]:
    """Device changes that turn the template's hardware into the clone's; InvalidValue where that cannot be."""
    return [*_network_changes(hardware, spec), *_disk_changes(hardware, spec)]


def _network_changes(hardware: list[Any], spec: CloneSpec) -> list[Any]:
    if spec.networks is None:
        return []
    removed = [
        _CHANGE(operation=_CHANGE.Operation.remove, device=device)
        for device in hardware
        if isinstance(device, _DEVICE.VirtualEthernetCard)
    ]
    added = [
        _CHANGE(operation=_CHANGE.Operation.add, device=_card(wanted, _FIRST_NIC_KEY - index))
        for index, wanted in enumerate(spec.networks)
    ]
    return removed + added


def _card(wanted: NetworkDevice, key: int) -> Any:
    card = _DEVICE.VirtualVmxnet3(
        key=key,
        backing=_backing(wanted.network),
        connectable=_DEVICE.VirtualDevice.ConnectInfo(startConnected=True, allowGuestControl=True, connected=True),
    )
    if wanted.mac:
        card.addressType = "manual"
        card.macAddress = wanted.mac
    return card


def _backing(network: Network) -> Any:
    card = _DEVICE.VirtualEthernetCard
    match network.kind:
        case NetworkKind.DISTRIBUTED:
            port = vim.dvs.PortConnection(portgroupKey=network.portgroup_key, switchUuid=network.switch_uuid)
            return card.DistributedVirtualPortBackingInfo(port=port)
        case NetworkKind.OPAQUE:
            return card.OpaqueNetworkBackingInfo(
                opaqueNetworkId=network.opaque_id, opaqueNetworkType=network.opaque_type
            )
        case NetworkKind.STANDARD:
            return card.NetworkBackingInfo(deviceName=network.name)


def _disk_changes(hardware: list[Any], spec: CloneSpec) -> list[Any]:
    existing = _disks(hardware)
    if any(spec.disks_gib[len(existing) :]):
        raise InvalidValue("disk sizes", f"there are {len(spec.disks_gib)}, but the template has {len(existing)} disks")
    found: list[Any] = []
    for number, (disk, gib) in enumerate(zip(existing, spec.disks_gib, strict=False), start=1):
        if gib and gib * _GIB != _bytes(disk):
            found.append(_grown(disk, number, gib, linked=spec.snapshot is not None))
    return found


def _grown(disk: Any, number: int, gib: int, *, linked: bool) -> Any:
    wanted, present = gib * _GIB, _bytes(disk)
    if wanted < present:
        shown = f"{present / _GIB:g} GiB"
        message = f"{gib} GiB for disk {number} is less than the template's {shown}; disks cannot shrink"
        raise InvalidValue("disk size", message)
    if linked:
        raise InvalidValue("disk size", f"disk {number} of a linked clone cannot be larger than the template's")
    disk.capacityInKB = wanted // _KIB
    disk.capacityInBytes = wanted
    return _CHANGE(operation=_CHANGE.Operation.edit, device=disk)
