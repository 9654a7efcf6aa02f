"""What a VSphereMachine remembers of its VM: an annotation, so that it outlives the process and a move of the cluster.

The record is written before vCenter is asked for the clone, without a task; the task's id follows as soon as vCenter
has told it, the VM's reference when the clone is done. What a status would forget when objects move to another
management cluster stays: clusterctl keeps annotations.
Invariants: no record means that no clone was ever asked for, unless one is `damaged`. The UUID is the one that the
clone was asked to have (the object's uid at that time). A record is that of its own object: one in a copied manifest
counts for nothing.
Must not know: who reads it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from services.machine_controller.api import PREFIX

if TYPE_CHECKING:
    from services.runtime.kube.objects import KubeObject

ANNOTATION = f"{PREFIX}/vm"


class Record(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """`of` is `namespace/name` of the object, `since` when the clone was asked for; references as `Type:id`."""

    of: str
    uuid: str
    name: str = ""
    server: str = ""
    template: str = ""
    folder: str = ""
    since: str = ""
    task: str = ""
    vm: str = ""
    started: bool = False


def read(obj: KubeObject) -> Record | None:
    """Record of a VSphereMachine; None when there is none, or what stands there is not its own."""
    text = (obj.metadata.annotations or {}).get(ANNOTATION)
    if not text:
        return None
    try:
        record = msgspec.json.decode(text, type=Record)
    except msgspec.DecodeError:
        return None
    return record if record.of == str(obj.key) else None


def damaged(obj: KubeObject) -> bool:
    """Whether a record was written and cannot be read any more, so that there may be a VM all the same."""
    text = (obj.metadata.annotations or {}).get(ANNOTATION)
    if not text:
        return False
    try:
        msgspec.json.decode(text, type=Record)
    except msgspec.DecodeError:
        return True
    return False


def write(record: Record | None) -> str | None:
    """Value of the annotation; None removes it."""
    return msgspec.json.encode(record).decode() if record is not None else None
