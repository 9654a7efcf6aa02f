"""From a machine's spec and place to the clone that vCenter is asked for.

Responsible for: looking names up in the inventory, and the rules about linked and full clones, disks and storage.
Invariants: a clone is linked where it may be and the template has a snapshot; a disk that has to grow makes it a full
one, unless the spec insists on linkedClone, which then is a mistake to be told. A clone has the template's disks, no
more of them. Nothing in vCenter is changed here.
Must not know: Kubernetes objects beyond the spec, when a clone is made.
Source: CAPV v1.16 pkg/services/govmomi/vcenter/clone.go.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from services.machine_controller.vsphere.errors import InvalidValue, NotFound
from services.machine_controller.vsphere.values import CloneSpec, NetworkDevice

if TYPE_CHECKING:
    from services.machine_controller.api import VSphereMachineSpec
    from services.machine_controller.placement import Placement
    from services.machine_controller.vsphere.inventory import Inventory
    from services.machine_controller.vsphere.values import Found, Ref, Template

LINKED = "linkedClone"
FULL = "fullClone"
_GIB = 1 << 30


async def clone_spec(
    inventory: Inventory, name: str, uuid: str, spec: VSphereMachineSpec, placement: Placement, note: str
) -> CloneSpec:
    """Look everything up; `note` is what the VM's annotation says. Raises VSphereError."""
    datacenter = await inventory.datacenter(placement.datacenter)
    template = await inventory.template(datacenter, spec.template)
    folder = await inventory.folder(datacenter, placement.folder)
    cluster = await inventory.cluster(datacenter, placement.compute_cluster) if placement.compute_cluster else None
    pool = await inventory.resource_pool(datacenter, placement.resource_pool, cluster=cluster)
    named = await inventory.datastore(datacenter, placement.datastore) if placement.datastore else None
    policy, datastore = "", named.ref if named is not None else None
    if spec.storage_policy_name:
        policy, datastore = await _by_policy(inventory, spec.storage_policy_name, named, pool, template, uuid)
    networks = [
        NetworkDevice(await inventory.network(datacenter, device.network_name), device.mac_addr.lower())
        for device in placement.network.devices
    ]
    _check_version(spec, template)
    _check_disks(spec, template)
    snapshot = _snapshot(spec, template)
    return CloneSpec(
        name=name,
        template=template.ref,
        folder=folder.ref,
        pool=pool.ref,
        instance_uuid=uuid,
        datastore=datastore,
        storage_policy_id=policy,
        snapshot=snapshot,
        cpus=spec.num_cpus,
        cores_per_socket=spec.num_cores_per_socket,
        memory_mib=spec.memory_mib,
        disks_gib=() if snapshot is not None and not _grows(spec, template) else _sizes(spec),
        networks=tuple(networks),
        annotation=note,
    )


def _snapshot(spec: VSphereMachineSpec, template: Template) -> Ref | None:
    """Return the snapshot to hang a linked clone on; None for a full clone."""
    if spec.clone_mode == FULL:
        return None
    if spec.snapshot:
        named = [ref for name, ref in template.snapshots if name == spec.snapshot]
        if not named:
            there = [name for name, _ in template.snapshots]
            raise NotFound("snapshot", spec.snapshot, where=template.path, nearby=there)
        return named[-1]
    if template.snapshot is not None and _grows(spec, template) and spec.clone_mode != LINKED:
        return None
    return template.snapshot


def _grows(spec: VSphereMachineSpec, template: Template) -> bool:
    return any(gib * _GIB > disk.capacity_bytes for gib, disk in zip(_sizes(spec), template.disks, strict=False))


def _sizes(spec: VSphereMachineSpec) -> tuple[int, ...]:
    """Sizes in GiB that are wanted of the template's disks, in their order; 0 for one that stays as it is."""
    return (spec.disk_gib, *spec.additional_disks_gib)


def _check_disks(spec: VSphereMachineSpec, template: Template) -> None:
    """Refuse sizes of disks that the template has not: CAPV passes over them, and a node would lack its disks."""
    wanted, others = len(spec.additional_disks_gib), max(0, len(template.disks) - 1)
    if wanted > others:
        why = f"they are for the disks of {template.path} behind its first, and none is added"
        raise InvalidValue("additionalDisksGiB", f"{wanted} given, at most {others} expected: {why}")


def _check_version(spec: VSphereMachineSpec, template: Template) -> None:
    """Refuse a hardware version that the template has not reached: CAPV would upgrade the VM before its first boot."""
    if _version(spec.hardware_version) > _version(template.hardware_version):
        there = f"{template.path} has {template.hardware_version or 'an unknown one'}, and no VM is upgraded"
        message = f"{spec.hardware_version} is more than the template's: {there}; upgrade the template instead"
        raise InvalidValue("hardwareVersion", message)


def _version(text: str) -> int:
    """Return the number in "vmx-19"; 0 for what has none."""
    number = text.removeprefix("vmx-")
    return int(number) if number.isdecimal() else 0


async def _by_policy(
    inventory: Inventory, name: str, datastore: Found | None, pool: Found, template: Template, uuid: str
) -> tuple[str, Ref]:
    """Return a storage policy's id and the datastore that the clone gets: the one that was named, if it fits.

    Where none was, one that fits out of those that the pool's hosts see: the template's own, if they see it.
    """
    policy = await inventory.storage_policy(name)
    among = (datastore.ref,) if datastore is not None else await inventory.pool_datastores(pool.ref)
    fitting = await inventory.compatible_datastores(policy, among)
    if not fitting:
        which = f"datastore {datastore.name}" if datastore is not None else f"any datastore of {pool.path}"
        raise InvalidValue("storagePolicyName", f"{policy.name} does not fit {which}")
    best = tuple(each for each in fitting if each in template.datastores) or fitting
    # Spread by the machine, so that a second try takes the same one.
    return policy.id, best[zlib.crc32(uuid.encode()) % len(best)]
