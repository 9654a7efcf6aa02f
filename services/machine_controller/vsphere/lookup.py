"""Finding one inventory object by name, inventory path or id below a datacenter.

Responsible for: what a name may be, and the errors that say what there is instead.
Invariants: a path is exact; a bare name is looked for in the place where such objects are, however deep, and several
hits are Ambiguous. A name goes before an id that reads like it. Names are compared decoded: vCenter escapes percent
signs, slashes and backslashes in them.
Must not know: what is done with the object.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

import msgspec

from services.machine_controller.vsphere.errors import Ambiguous, NotFound
from services.machine_controller.vsphere.properties import read, read_below, read_upwards
from services.machine_controller.vsphere.refs import ref
from services.machine_controller.vsphere.values import Found, Ref

if TYPE_CHECKING:
    from collections.abc import Iterable

    from services.machine_controller.vsphere.session import Api

_ROOT: Final = "/"
_NEARBY: Final = 50


class Kind(msgspec.Struct, frozen=True):
    """A kind of inventory object: its word, its type on the wire, and the folder of a datacenter that holds it."""

    word: str
    type: str
    folder: str  # inventory path segment below the datacenter: vm, host, datastore, network


DATACENTER: Final = Kind("datacenter", "Datacenter", "")
CLUSTER: Final = Kind("cluster", "ClusterComputeResource", "host")
POOL: Final = Kind("resource pool", "ResourcePool", "host")
FOLDER: Final = Kind("folder", "Folder", "vm")
DATASTORE: Final = Kind("datastore", "Datastore", "datastore")
NETWORK: Final = Kind("network", "Network", "network")
TEMPLATE: Final = Kind("template", "VirtualMachine", "vm")

_FOLDERS: Final = {"vm": "vmFolder", "host": "hostFolder", "datastore": "datastoreFolder", "network": "networkFolder"}


def decoded(name: str) -> str:
    """Return a name as people know it."""
    return unquote(name)


def encoded(name: str) -> str:
    """Return a name as vCenter stores it."""
    return name.replace("%", "%25").replace("/", "%2f").replace("\\", "%5c")


def all_of(api: Api, kind: Kind, below: Ref | None) -> list[Found]:
    """Every object of a kind below a datacenter (None: anywhere), with its name; paths are left out."""
    found = read_below(api, below or ref(api.content.rootFolder), kind.type, "name")
    return [Found(reference, decoded(properties.get("name", ""))) for reference, properties in found.items()]


def folder_of(api: Api, datacenter: Ref, kind: Kind) -> Ref:
    """Return the folder of a datacenter that holds a kind of object."""
    return ref(read(api, datacenter, _FOLDERS[kind.folder])[_FOLDERS[kind.folder]])


def find(api: Api, kind: Kind, name: str, datacenter: Found | None, *, below: Ref | None = None) -> Found:
    """Return the one object of a kind that is called `name`: a bare name, an inventory path, or else its id.

    A path is absolute ("/DC0/vm/prod/ubuntu") or relative to the datacenter's folder for the kind ("prod/ubuntu"). An
    id is "dvportgroup-21", or as `str()` of a Ref has it ("DistributedVirtualPortgroup:dvportgroup-21").
    `below` narrows where a bare name is looked for. Raises NotFound with the names there are, and Ambiguous.
    """
    where = datacenter.path if datacenter else ""
    if "/" in name:
        return _by_path(api, kind, name, where)
    if below is None:
        below = folder_of(api, datacenter.ref, kind) if datacenter else ref(api.content.rootFolder)
    everything = all_of(api, kind, below)
    hits = [found for found in everything if found.name == name] or [
        found for found in everything if name in (found.ref.id, str(found.ref))
    ]
    if not hits:
        nearby = sorted({found.name for found in everything})
        raise NotFound(kind.word, name, where=where.lstrip("/"), nearby=nearby[:_NEARBY])
    if len(hits) > 1:
        raise Ambiguous(kind.word, name, list(paths(api, [hit.ref for hit in hits]).values()))
    return with_path(api, hits[0])


def _by_path(api: Api, kind: Kind, name: str, where: str) -> Found:
    path = name if name.startswith("/") else f"{where}/{kind.folder}/{name}"
    segments = [encoded(segment) for segment in path.split("/") if segment]
    managed = api.content.searchIndex.FindByInventoryPath("/".join(segments))
    if managed is None or (managed._wsdlName != kind.type and kind is not NETWORK):  # noqa: SLF001 - no public name
        raise NotFound(kind.word, name, where="" if name.startswith("/") else where.lstrip("/"))
    return with_path(api, Found(ref(managed), decoded(segments[-1])))


def with_path(api: Api, found: Found) -> Found:
    """Return it with its inventory path."""
    return msgspec.structs.replace(found, path=paths(api, [found.ref]).get(found.ref, ""))


def paths(api: Api, references: Iterable[Ref]) -> dict[Ref, str]:
    """Inventory paths of objects, decoded, in one call; what is gone is left out."""
    wanted = list(references)
    known = {
        reference: (decoded(properties.get("name", "")), ref(properties["parent"]) if "parent" in properties else None)
        for reference, properties in read_upwards(api, wanted, "name", "parent").items()
    }
    return {reference: _joined(reference, known) for reference in wanted if reference in known}


def _joined(reference: Ref, known: dict[Ref, tuple[str, Ref | None]]) -> str:
    names: list[str] = []
    at: Ref | None = reference
    while at is not None and at in known:
        name, parent = known[at]
        if parent is not None:  # the root folder's own name ("Datacenters") is not part of a path
            names.append(name)
        at = parent
    return _ROOT + _ROOT.join(reversed(names))
