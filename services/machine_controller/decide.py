"""The next step of a VSphereMachine: a pure function from what is known to one step.

The table, first row that fits. A machine that is not being deleted:

| what is known                                          | step                                                       |
|--------------------------------------------------------|------------------------------------------------------------|
| paused, or its owners are not there                    | nothing                                                    |
| not held by our finalizer                              | hold                                                       |
| vCenter or the place is unknown, or a failure is young | nothing, and say so                                        |
| no clone was asked for                                 | wait for bootstrap data, static addresses and claims;      |
|                                                        | look for a VM with our UUID; clone if there is none        |
| a clone was asked for                                  | follow it, or search for it if its id was never told;      |
|                                                        | adopt the VM, or discard a clone that came to nothing      |
| its VM is not there any more                           | nothing, and say so: it is never made again                |
| its VM was never on                                    | prepare, configure, power on, note that                    |
| its VM was on and is not                               | nothing, and say so                                        |
| the guest does not report what it was assigned         | nothing, and say so                                        |

One that is being deleted: wait for a clone in flight; power off as the spec says, destroy, and finish once vCenter has
confirmed that there is none.

Invariants: `Do.CLONE` comes only where no clone was asked for and no VM has our UUID; `Do.FINISH` only where none was
asked for, or vCenter has said that there is no VM with our UUID; a record that cannot be read does not say that none
was. Steps on a VM come only for one with our UUID.
Must not know: the API server, vCenter, the clock.
"""

from __future__ import annotations

from services.machine_controller.phases import Do, Look, Plan, Say, World
from services.machine_controller.vsphere.errors import DuplicateName, VSphereError
from services.machine_controller.vsphere.values import PowerState, Task, TaskState

CLONE_GRACE_SECONDS = 15.0
"""A request that was given up may still be carried out; vCenter shows its task within this time."""
ABSENT_AGAIN_SECONDS = 600.0
"""A VM that comes back (registered again, restored) is told by no watch."""

WAITING_FOR_CLONE = "WaitingForClone"
WAITING_FOR_STATIC = "WaitingForStaticIPAllocation"
WAITING_FOR_CLAIMS = "WaitingForIPAddress"
WAITING_FOR_GUEST = "WaitingForIPAllocation"
WAITING_FOR_BOOTSTRAP = "WaitingForBootstrapData"
POWERING_ON = "PoweringOn"
PROVISIONED = "Provisioned"
NOT_PROVISIONED = "NotProvisioned"
TASK_FAILED = "TaskFailed"
DUPLICATE_NAME = "DuplicateName"
NOT_FOUND = "NotFoundByBIOSUUID"
POWERED_OFF = "PoweredOff"
INACCESSIBLE = "Inaccessible"
FOREIGN = "NotOurs"
DELETING = "Deleting"


def decide(world: World) -> Plan:
    """Return the next step."""
    if world.paused:
        return Plan()
    if world.deleting:
        return _deleting(world)
    if world.blocked is not None:
        # Of a machine that has its VM nothing changes because its owner is away for a moment, as while objects move.
        return Plan(say=None if world.record is not None else world.blocked)
    if not world.held:
        return Plan(Do.HOLD)
    if world.misplaced is not None and not _started(world):
        return Plan(say=world.misplaced)
    if world.unreachable:
        return Plan(say=None if world.provisioned else Say(False, NOT_PROVISIONED, world.unreachable))
    if world.connecting:
        return Plan()
    if world.pause_seconds > 0:
        return Plan(again=world.pause_seconds)
    if world.record is None:
        return _new(world)
    if not world.record.vm:
        return _cloning(world)
    return _with_vm(world)


def _started(world: World) -> bool:
    return world.record is not None and world.record.started


def _new(world: World) -> Plan:
    """No clone was asked for, as far as the object says."""
    if world.provider_shared:
        message = f"{world.provider_shared} has the same provider id: one of the two is a copy, delete that"
        return Plan(say=Say(False, FOREIGN, message))
    if world.provider_id:
        # Somebody else made it, such as CAPV; its BIOS UUID tells which it is.
        return _look(world) or _adopted(world) or _lost(world)
    if world.unplaced:
        return Plan(Do.PLACE)  # those who write addresses wait for it
    waits = _waits(world)
    if waits is not None:
        return waits
    found = _look(world) or _adopted(world)
    if found is not None:
        return found
    if not world.slot:
        return Plan(Do.QUEUE, Say(False, WAITING_FOR_CLONE, "as many clones as are allowed run already"))
    return Plan(Do.CLONE, Say(False, WAITING_FOR_CLONE, "cloning the template"))


def _waits(world: World) -> Plan | None:
    """Return what has to come from elsewhere before a VM makes sense."""
    if world.bootstrap_wait is not None:
        return Plan(say=world.bootstrap_wait)
    if not world.bootstrap:
        return Plan(say=Say(False, WAITING_FOR_BOOTSTRAP, "the Machine names no Secret with bootstrap data yet"))
    if world.static:
        devices = ", ".join(map(str, world.static))
        message = f"devices without an address: {devices}; something has to write ipAddrs"
        return Plan(say=Say(False, WAITING_FOR_STATIC, message))
    return _claims(world)


def _claims(world: World) -> Plan | None:
    claims = world.claims
    if claims.missing and not claims.refusal:
        return Plan(Do.CLAIM)
    if claims.missing or claims.unbound:
        names = ", ".join(claims.unbound or claims.missing)
        message = f"claims without an address: {names}" + (f": {claims.refusal}" if claims.refusal else "")
        return Plan(say=Say(False, WAITING_FOR_CLAIMS, message))
    if claims.unread:
        return Plan(Do.READ_ADDRESSES)
    return None


def _look(world: World) -> Plan | None:
    if world.look is Look.UNKNOWN:
        return Plan(Do.LOOK)
    return Plan() if world.look is Look.PENDING else None


def _adopted(world: World) -> Plan | None:
    return Plan(Do.ADOPT) if world.look is Look.PRESENT else None


def _cloning(world: World) -> Plan:
    """A clone was asked for and no VM noted yet: what became of it."""
    assert world.record is not None
    if not world.record.task:
        return _clone_without_id(world)
    if world.clone is None:
        return Plan(Do.FOLLOW)
    if isinstance(world.clone, Task):
        if world.clone.state is TaskState.SUCCESS:
            return Plan(Do.ADOPT)
        if not world.clone.done:
            progress = world.clone.progress_percent
            message = "cloning the template" + (f", {progress // 10 * 10} % done" if progress else "")
            return Plan(say=_kept(world, Say(False, WAITING_FOR_CLONE, message)))
    # Failed, or so old that vCenter has forgotten it. It may have left a VM, or another clone of ours has made one.
    return _look(world) or _adopted(world) or Plan(Do.DISCARD, _kept(world, _failure(world)))


def _clone_without_id(world: World) -> Plan:
    """The process died, or the connection broke, between asking for the clone and being told its id."""
    if world.suspects is None:
        return Plan(Do.SEARCH)
    if world.suspects:
        message = f"{world.suspects} clones of the template run, one of which may be this machine's"
        return Plan(say=_kept(world, Say(False, WAITING_FOR_CLONE, message)))
    found = _look(world) or _adopted(world)
    if found is not None:
        return found
    if world.searched_age < CLONE_GRACE_SECONDS:
        left = CLONE_GRACE_SECONDS - world.clone_age
        return Plan(Do.SEARCH) if left <= 0 else Plan(again=left)
    return Plan(Do.DISCARD)


def _kept(world: World, say: Say) -> Say | None:
    """While a machine is being deleted, that is what is said."""
    return Say(False, DELETING, f"waiting for the clone: {say.message}") if world.deleting else say


def _failure(world: World) -> Say:
    task = world.clone
    if not isinstance(task, Task) or task.error is None:
        return Say(False, TASK_FAILED, "the clone has left neither a VM nor a result in vCenter")
    return failure(task.error, world.record.name if world.record is not None else "")


def failure(error: VSphereError, name: str) -> Say:
    """Say what a failed clone means for the VM called `name`."""
    if isinstance(error, DuplicateName):
        message = (
            f"the folder has a VM called {name} that is not this machine's"
            + (f" ({error.holder})" if error.holder else "")
            + ": rename or remove it there, or delete this Machine"
        )
        return Say(False, DUPLICATE_NAME, message)
    return Say(False, TASK_FAILED, str(error))


def _lost(world: World) -> Plan:
    uuid = world.record.uuid if world.record is not None else "of its provider id"
    message = (
        f"vCenter has no VM with the UUID {uuid} any more; it is not made again by itself: delete the Machine to have "
        "it replaced"
    )
    return Plan(say=Say(False, NOT_FOUND, message), again=ABSENT_AGAIN_SECONDS)


def _with_vm(world: World) -> Plan:
    found = _look(world)
    if found is not None:
        return found
    vm = world.vm
    if world.look is Look.ABSENT or vm is None:
        return _lost(world)
    if not vm.connected:
        # As with a power-off from outside: it is what is told, whatever the VM was before.
        return Plan(say=Say(False, INACCESSIBLE, f"vCenter reports the VM as {vm.connection}"))
    if not _started(world):
        return _starting(world)
    if vm.power is not PowerState.ON:
        return _stopped(world)
    if world.missing:
        if world.claims.unread:
            return Plan(Do.READ_ADDRESSES)
        if world.provisioned:
            return Plan(say=Say(True, PROVISIONED))  # a guest that reboots reports nothing for a while
        return Plan(say=Say(False, WAITING_FOR_GUEST, f"the guest does not report {', '.join(world.missing)}"))
    return Plan(say=Say(True, PROVISIONED))


def _starting(world: World) -> Plan:
    assert world.vm is not None
    if world.vm.power is PowerState.ON:
        return Plan(Do.NOTE_STARTED)
    if world.operation:
        reason = POWERING_ON if world.operation == "power on" else NOT_PROVISIONED
        return Plan(say=Say(False, reason, f"waiting for vCenter: {world.operation}"))
    waits = _waits(world)
    if waits is not None:
        return waits
    if not world.prepared:
        return Plan(Do.PREPARE)
    if not world.configured:
        return Plan(Do.CONFIGURE, Say(False, NOT_PROVISIONED, "writing guestinfo"))
    return Plan(Do.POWER_ON, Say(False, POWERING_ON, "powering on"))


def _stopped(world: World) -> Plan:
    """A VM that was on and is off or suspended: whoever did that had a reason."""
    assert world.vm is not None
    message = f"the VM is {world.vm.power.value}, which was not done here: power it on, or delete the Machine"
    if not world.provisioned and not world.operation and not world.configured and world.vm.power is PowerState.OFF:
        # It may have wiped its guestinfo after reading it and never have got further.
        return _claims(world) or Plan(Do.CONFIGURE, Say(False, POWERED_OFF, message))
    return Plan(say=Say(False, POWERED_OFF, message))


def _deleting(world: World) -> Plan:
    if not world.held:
        return Plan()
    if world.record is None and (world.provider_shared or not (world.provider_id or world.damaged)):
        return Plan(Do.FINISH)
    if world.unreachable:
        return Plan(say=Say(False, DELETING, f"the VM cannot be deleted: {world.unreachable}"))
    if world.connecting:
        return Plan()
    if world.pause_seconds > 0:
        return Plan(again=world.pause_seconds)
    if world.record is not None and not world.record.vm:
        return _cloning(world)
    found = _look(world)
    if found is not None:
        return found
    if world.look is Look.ABSENT or world.vm is None:
        return Plan(Do.FINISH)
    if world.operation:
        return Plan(say=Say(False, DELETING, f"waiting for vCenter: {world.operation}"))
    if not world.vm.connected:
        message = f"vCenter reports the VM as {world.vm.connection}: it is deleted once that is over"
        return Plan(say=Say(False, DELETING, message))
    if world.vm.power is PowerState.OFF:
        return Plan(Do.DESTROY, Say(False, DELETING, "deleting the VM"))
    return _powering_off(world)


def _powering_off(world: World) -> Plan:
    assert world.vm is not None
    stop = world.stop
    hard = Plan(Do.POWER_OFF, Say(False, DELETING, "powering off"))
    if stop.mode not in ("soft", "trySoft") or world.vm.power is PowerState.SUSPENDED:
        return hard
    if stop.asked_seconds is None:
        if stop.tools:
            return Plan(Do.SHUT_DOWN, Say(False, DELETING, "shutting the guest down"))
        if stop.mode == "trySoft":
            return hard
        message = "the guest cannot be shut down, VMware Tools do not run: power it off, or change powerOffMode"
        return Plan(say=Say(False, DELETING, message))
    waiting = Say(False, DELETING, "the guest is shutting down")
    if stop.mode == "soft":
        return Plan(say=waiting)
    left = stop.timeout_seconds - stop.asked_seconds
    return hard if left <= 0 else Plan(say=waiting, again=left)
