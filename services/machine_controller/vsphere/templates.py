"""What a machine is cloned from.

Invariant: a UUID is looked up as such, first as instance UUID; anything else is a name or an inventory path.
Must not know: how it is cloned.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from services.machine_controller.vsphere import devices, lookup
from services.machine_controller.vsphere.errors import Ambiguous, NotFound
from services.machine_controller.vsphere.properties import read
from services.machine_controller.vsphere.refs import ref
from services.machine_controller.vsphere.values import Found, Ref, Template

if TYPE_CHECKING:
    from collections.abc import Iterator

    from services.machine_controller.vsphere.session import Api

_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)
_PATHS: Final = (
    "name",
    "config.template",
    "config.uuid",
    "config.instanceUuid",
    "config.version",
    "config.hardware.device",
    "datastore",
    "snapshot",
)


def find(api: Api, datacenter: Found, name: str) -> Template:
    """Return the VM or template with a name, an inventory path, an instance UUID or a BIOS UUID."""
    if _UUID.fullmatch(name):
        reference = _by_uuid(api, datacenter, name.lower())
    else:
        reference = lookup.find(api, lookup.TEMPLATE, name, datacenter).ref
    properties = read(api, reference, *_PATHS)
    snapshot = properties.get("snapshot")
    hardware = properties.get("config.hardware.device", ())
    return Template(
        ref=reference,
        name=lookup.decoded(properties["name"]),
        path=lookup.paths(api, [reference]).get(reference, ""),
        is_template=bool(properties.get("config.template")),
        bios_uuid=properties.get("config.uuid", "").lower(),
        instance_uuid=properties.get("config.instanceUuid", "").lower(),
        hardware_version=properties.get("config.version", ""),
        snapshot=ref(snapshot.currentSnapshot) if snapshot is not None and snapshot.currentSnapshot else None,
        snapshots=tuple(_flat(snapshot.rootSnapshotList)) if snapshot is not None else (),
        disks=devices.disks(hardware),
        nics=devices.nics(hardware),
        datastores=tuple(ref(each) for each in properties.get("datastore", ())),
    )


def _flat(tree: Any) -> Iterator[tuple[str, Ref]]:
    for node in tree or ():
        yield lookup.decoded(node.name), ref(node.snapshot)
        yield from _flat(node.childSnapshotList)


def _by_uuid(api: Api, datacenter: Found, uuid: str) -> Ref:
    for instance in (True, False):
        found = api.content.searchIndex.FindAllByUuid(
            api.object(datacenter.ref), uuid, vmSearch=True, instanceUuid=instance
        )
        if len(found) > 1:
            raise Ambiguous("template", uuid, [str(ref(each)) for each in found])
        if found:
            return ref(found[0])
    raise NotFound("template", uuid, where=datacenter.name)
