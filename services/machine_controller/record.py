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

from datetime import timedelta
from typing import TYPE_CHECKING, Final

import msgspec

from services.machine_controller.api import PREFIX
from services.runtime.kube.conditions import micro_timestamp, parse_timestamp

if TYPE_CHECKING:
    from datetime import datetime

    from services.runtime.kube.objects import KubeObject

ANNOTATION = f"{PREFIX}/vm"
ANSWER_SECONDS: Final = 75.0
"""An answer to the request for a clone is waited for so long after the record was made, then the request is given up:
one call, and some of a second one where the session had to be renewed."""


class Record(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """`of` is `namespace/name` of the object; references as `Type:id`.

    `since` is when the clone was asked for, `given_up` when its answer was no longer waited for.
    """

    of: str
    uuid: str
    name: str = ""
    server: str = ""
    template: str = ""
    folder: str = ""
    since: str = ""
    given_up: str = ""
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


def given_up(record: Record, now: datetime) -> Record:
    """Record of a clone whose answer is not waited for any more."""
    return msgspec.structs.replace(record, given_up=micro_timestamp(now))


def age(record: Record, now: datetime) -> float:
    """Seconds since the request for the clone was given up; negative while it may still be waited for.

    Of a process that died nobody knows when it stopped waiting: the latest moment counts.
    """
    if record.given_up:
        return (now - parse_timestamp(record.given_up)).total_seconds()
    if not record.since:
        return 0.0
    return (now - parse_timestamp(record.since) - timedelta(seconds=ANSWER_SECONDS)).total_seconds()


def write(record: Record | None) -> str | None:
    """Value of the annotation; None removes it."""
    return msgspec.json.encode(record).decode() if record is not None else None
