"""What a VSphereMachine needs next, row by row."""

from __future__ import annotations

import pytest

from services.machine_controller.decide import CLONE_GRACE_SECONDS, decide
from services.machine_controller.phases import Claims, Do, Look, Say, Stop, World
from services.machine_controller.record import Record
from services.machine_controller.vsphere.errors import Busy, DuplicateName
from services.machine_controller.vsphere.values import Gone, PowerState, Ref, Task, TaskState, VirtualMachine

VM = VirtualMachine(ref=Ref("VirtualMachine", "vm-1"), name="m1", instance_uuid="u1", power=PowerState.OFF)
ON = VirtualMachine(ref=VM.ref, name="m1", instance_uuid="u1", power=PowerState.ON)
SUSPENDED = VirtualMachine(ref=VM.ref, name="m1", instance_uuid="u1", power=PowerState.SUSPENDED)
LOST = VirtualMachine(ref=VM.ref, name="m1", instance_uuid="u1", connection="disconnected")
TASK = Ref("Task", "task-1")
ASKED = Record(of="ns/m1", uuid="u1", name="m1", template="VirtualMachine:vm-9")
CLONING = Record(of="ns/m1", uuid="u1", name="m1", task=str(TASK))
MADE = Record(of="ns/m1", uuid="u1", name="m1", vm=str(VM.ref))
STARTED = Record(of="ns/m1", uuid="u1", name="m1", vm=str(VM.ref), started=True)
FRESH = World(bootstrap="m1-boot")


def task(state, error=None, progress=None):
    return Task(ref=TASK, state=state, error=error, progress_percent=progress)


RUNNING = task(TaskState.RUNNING, progress=42)
DONE = task(TaskState.SUCCESS)
TAKEN = task(TaskState.ERROR, DuplicateName("m1", "VirtualMachine:vm-7"))
BROKEN = task(TaskState.ERROR, Busy("the disk"))


def present(vm, record=MADE, **changes):
    return FRESH._replace(record=record, look=Look.PRESENT, vm=vm, **changes)


# name: what is known, the step, the reason that is said ("" for nothing), a text in its message
LIVING = {
    "paused": (FRESH._replace(paused=True), Do.NOTHING, "", ""),
    "blocked": (FRESH._replace(blocked=Say(False, "R", "m")), Do.NOTHING, "R", "m"),
    "blocked with a vm": (present(ON, STARTED, blocked=Say(False, "R", "m")), Do.NOTHING, "", ""),
    "not held": (FRESH._replace(held=False), Do.HOLD, "", ""),
    "misplaced": (FRESH._replace(misplaced=Say(False, "P", "zone")), Do.NOTHING, "P", "zone"),
    "misplaced and running": (present(ON, STARTED, misplaced=Say(False, "P", "z")), Do.NOTHING, "Provisioned", ""),
    "no credentials": (FRESH._replace(unreachable="no Secret"), Do.NOTHING, "NotProvisioned", "no Secret"),
    "no credentials later": (
        present(ON, STARTED, unreachable="no Secret", provisioned=True),
        Do.NOTHING,
        "",
        "",
    ),
    "credentials on their way": (FRESH._replace(connecting=True), Do.NOTHING, "", ""),
    "a young failure": (FRESH._replace(pause_seconds=3.0), Do.NOTHING, "", ""),
    "a zone's devices not written down": (FRESH._replace(unplaced=True, bootstrap=""), Do.PLACE, "", ""),
    "no bootstrap data": (World(), Do.NOTHING, "WaitingForBootstrapData", ""),
    "no control plane": (
        World(bootstrap_wait=Say(False, "WaitingForControlPlaneInitialized", "later")),
        Do.NOTHING,
        "WaitingForControlPlaneInitialized",
        "later",
    ),
    "no address": (FRESH._replace(static=(0, 2)), Do.NOTHING, "WaitingForStaticIPAllocation", "0, 2"),
    "no claims": (FRESH._replace(claims=Claims(missing=("m1-0-0",))), Do.CLAIM, "", ""),
    "another's claim": (
        FRESH._replace(claims=Claims(missing=("m1-0-0",), refusal="remove it")),
        Do.NOTHING,
        "WaitingForIPAddress",
        "remove it",
    ),
    "claims without address": (
        FRESH._replace(claims=Claims(unbound=("m1-0-0",), refusal="exhausted")),
        Do.NOTHING,
        "WaitingForIPAddress",
        "m1-0-0: exhausted",
    ),
    "addresses unread": (FRESH._replace(claims=Claims(unread=("m1-0-0",))), Do.READ_ADDRESSES, "", ""),
    "not looked": (FRESH, Do.LOOK, "", ""),
    "no vm": (FRESH._replace(look=Look.ABSENT), Do.CLONE, "WaitingForClone", ""),
    "no vm and no slot": (FRESH._replace(look=Look.ABSENT, slot=False), Do.QUEUE, "WaitingForClone", "allowed"),
    "a vm with our uuid": (FRESH._replace(look=Look.PRESENT, vm=VM), Do.ADOPT, "", ""),
    "a provider id": (FRESH._replace(provider_id=True), Do.LOOK, "", ""),
    "a provider id without vm": (
        FRESH._replace(provider_id=True, look=Look.ABSENT),
        Do.NOTHING,
        "NotFoundByBIOSUUID",
        "delete the Machine",
    ),
    "a shared provider id": (
        FRESH._replace(provider_id=True, provider_shared="VSphereMachine ns/m2"),
        Do.NOTHING,
        "NotOurs",
        "ns/m2",
    ),
    "clone not followed": (FRESH._replace(record=CLONING), Do.FOLLOW, "", ""),
    "clone runs": (FRESH._replace(record=CLONING, clone=RUNNING), Do.NOTHING, "WaitingForClone", "40 % done"),
    "clone done": (FRESH._replace(record=CLONING, clone=DONE), Do.ADOPT, "", ""),
    "clone failed": (FRESH._replace(record=CLONING, clone=BROKEN), Do.LOOK, "", ""),
    "clone failed and left nothing": (
        FRESH._replace(record=CLONING, clone=BROKEN, look=Look.ABSENT),
        Do.DISCARD,
        "TaskFailed",
        "the disk",
    ),
    "clone failed and left our vm": (
        FRESH._replace(record=CLONING, clone=BROKEN, look=Look.PRESENT, vm=VM),
        Do.ADOPT,
        "",
        "",
    ),
    "name taken": (
        FRESH._replace(record=CLONING, clone=TAKEN, look=Look.ABSENT),
        Do.DISCARD,
        "DuplicateName",
        "VirtualMachine:vm-7): rename or remove it",
    ),
    "clone forgotten": (
        FRESH._replace(record=CLONING, clone=Gone(TASK), look=Look.ABSENT),
        Do.DISCARD,
        "TaskFailed",
        "",
    ),
    "clone without id": (FRESH._replace(record=ASKED), Do.SEARCH, "", ""),
    "clones that may be ours": (FRESH._replace(record=ASKED, suspects=2), Do.NOTHING, "WaitingForClone", "2 clones"),
    "no clone runs": (FRESH._replace(record=ASKED, suspects=0), Do.LOOK, "", ""),
    "no clone runs yet": (
        FRESH._replace(record=ASKED, suspects=0, look=Look.ABSENT, searched_age=1.0, clone_age=2.0),
        Do.NOTHING,
        "",
        "",
    ),
    "a clone that another process may still ask for": (
        FRESH._replace(record=ASKED, suspects=0, look=Look.ABSENT, searched_age=-60.0, clone_age=-59.0),
        Do.NOTHING,
        "",
        "",
    ),
    "time to search again": (
        FRESH._replace(record=ASKED, suspects=0, look=Look.ABSENT, searched_age=1.0, clone_age=CLONE_GRACE_SECONDS),
        Do.SEARCH,
        "",
        "",
    ),
    "no clone ran": (
        FRESH._replace(record=ASKED, suspects=0, look=Look.ABSENT, searched_age=CLONE_GRACE_SECONDS),
        Do.DISCARD,
        "",
        "",
    ),
    "a clone without id has ended well": (
        FRESH._replace(record=ASKED, suspects=0, look=Look.PRESENT, vm=VM),
        Do.ADOPT,
        "",
        "",
    ),
    "vm not looked for": (FRESH._replace(record=MADE), Do.LOOK, "", ""),
    "vm not told yet": (FRESH._replace(record=MADE, look=Look.PENDING), Do.NOTHING, "", ""),
    "vm gone": (FRESH._replace(record=MADE, look=Look.ABSENT), Do.NOTHING, "NotFoundByBIOSUUID", "u1"),
    "vm inaccessible": (present(LOST), Do.NOTHING, "Inaccessible", "disconnected"),
    "vm off": (present(VM), Do.PREPARE, "", ""),
    "vm prepared": (present(VM, prepared=True), Do.CONFIGURE, "NotProvisioned", ""),
    "vm being configured": (present(VM, prepared=True, operation="reconfigure"), Do.NOTHING, "NotProvisioned", ""),
    "vm configured": (present(VM, prepared=True, configured=True), Do.POWER_ON, "PoweringOn", ""),
    "vm being powered on": (present(VM, operation="power on"), Do.NOTHING, "PoweringOn", ""),
    "a device was added": (present(VM, static=(1,)), Do.NOTHING, "WaitingForStaticIPAllocation", ""),
    "vm on": (present(ON), Do.NOTE_STARTED, "", ""),
    "vm runs": (present(ON, STARTED), Do.NOTHING, "Provisioned", ""),
    "no address seen": (
        present(ON, STARTED, missing=("10.0.0.1",)),
        Do.NOTHING,
        "WaitingForIPAllocation",
        "10.0.0.1",
    ),
    "no address seen any more": (
        present(ON, STARTED, missing=("10.0.0.1",), provisioned=True),
        Do.NOTHING,
        "Provisioned",
        "",
    ),
    "addresses unread after a restart": (
        present(ON, STARTED, missing=("x",), claims=Claims(unread=("m1-0-0",))),
        Do.READ_ADDRESSES,
        "",
        "",
    ),
    "powered off": (present(VM, STARTED, provisioned=True), Do.NOTHING, "PoweredOff", "poweredOff"),
    "suspended": (present(SUSPENDED, STARTED, provisioned=True), Do.NOTHING, "PoweredOff", "suspended"),
    "powered off before it was ready": (present(VM, STARTED), Do.CONFIGURE, "PoweredOff", ""),
    "suspended before it was ready": (present(SUSPENDED, STARTED), Do.NOTHING, "PoweredOff", ""),
    "restored": (present(VM, STARTED, configured=True), Do.NOTHING, "PoweredOff", ""),
}


@pytest.mark.parametrize(("world", "do", "reason", "text"), LIVING.values(), ids=LIVING)
def test_the_next_step_of_a_machine(world, do, reason, text):
    plan = decide(world)
    assert plan.do is do
    assert (plan.say.reason if plan.say is not None else "") == reason
    assert text in (plan.say.message if plan.say is not None else "")


def ending(record=MADE, **changes):
    return World(deleting=True, record=record, **changes)


SOFT = Stop("soft", tools=True)
TRY = Stop("trySoft", tools=True, timeout_seconds=60.0)
OFF_NOW = ending(look=Look.PRESENT, vm=VM)
ON_NOW = ending(STARTED, look=Look.PRESENT, vm=ON)

DYING = {
    "paused": (ending(paused=True), Do.NOTHING, ""),
    "not held": (ending(held=False), Do.NOTHING, ""),
    "never cloned": (ending(None), Do.FINISH, ""),
    "never cloned, vcenter unknown": (ending(None, unreachable="no Secret"), Do.FINISH, ""),
    "damaged record": (ending(None, damaged=True), Do.LOOK, ""),
    "damaged record, gone": (ending(None, damaged=True, look=Look.ABSENT), Do.FINISH, ""),
    "damaged record, off": (ending(None, damaged=True, look=Look.PRESENT, vm=VM), Do.DESTROY, "deleting"),
    "damaged record of a copy": (ending(None, damaged=True, provider_id=True, provider_shared="a"), Do.FINISH, ""),
    "a copy": (ending(None, provider_id=True, provider_shared="VSphereMachine ns/m2"), Do.FINISH, ""),
    "made by somebody else": (ending(None, provider_id=True), Do.LOOK, ""),
    "no credentials": (ending(unreachable="no Secret"), Do.NOTHING, "no Secret"),
    "credentials on their way": (ending(connecting=True), Do.NOTHING, ""),
    "a young failure": (ending(pause_seconds=5.0), Do.NOTHING, ""),
    "clone not followed": (ending(CLONING), Do.FOLLOW, ""),
    "clone runs": (ending(CLONING, clone=RUNNING), Do.NOTHING, "waiting for the clone"),
    "clone done": (ending(CLONING, clone=DONE), Do.ADOPT, ""),
    "clone failed": (ending(CLONING, clone=BROKEN, look=Look.ABSENT), Do.DISCARD, ""),
    "clone without id": (ending(ASKED), Do.SEARCH, ""),
    "a clone whose answer may still come": (
        ending(ASKED, suspects=0, look=Look.ABSENT, searched_age=-14.5, clone_age=-14.5),
        Do.NOTHING,
        "",
    ),
    "clones that may be ours": (ending(ASKED, suspects=1), Do.NOTHING, "waiting for the clone"),
    "not looked": (ending(), Do.LOOK, ""),
    "not told yet": (ending(look=Look.PENDING), Do.NOTHING, ""),
    "gone": (ending(look=Look.ABSENT), Do.FINISH, ""),
    "off": (OFF_NOW, Do.DESTROY, "deleting"),
    "in work": (OFF_NOW._replace(operation="destroy"), Do.NOTHING, "destroy"),
    "inaccessible": (ending(look=Look.PRESENT, vm=LOST), Do.NOTHING, "disconnected"),
    "on": (ON_NOW, Do.POWER_OFF, ""),
    "on, hard": (ON_NOW._replace(stop=Stop("hard", tools=True)), Do.POWER_OFF, ""),
    "suspended, soft": (ON_NOW._replace(vm=SUSPENDED, stop=SOFT), Do.POWER_OFF, ""),
    "soft": (ON_NOW._replace(stop=SOFT), Do.SHUT_DOWN, ""),
    "soft, asked": (ON_NOW._replace(stop=SOFT._replace(asked_seconds=9999.0)), Do.NOTHING, "shutting down"),
    "soft, no tools": (ON_NOW._replace(stop=SOFT._replace(tools=False)), Do.NOTHING, "VMware Tools"),
    "trySoft": (ON_NOW._replace(stop=TRY), Do.SHUT_DOWN, ""),
    "trySoft, asked": (ON_NOW._replace(stop=TRY._replace(asked_seconds=59.0)), Do.NOTHING, "shutting down"),
    "trySoft, asked in vain": (ON_NOW._replace(stop=TRY._replace(asked_seconds=60.0)), Do.POWER_OFF, ""),
    "trySoft, no tools": (ON_NOW._replace(stop=TRY._replace(tools=False)), Do.POWER_OFF, ""),
}


@pytest.mark.parametrize(("world", "do", "text"), DYING.values(), ids=DYING)
def test_the_next_step_of_a_machine_that_is_deleted(world, do, text):
    plan = decide(world)
    assert plan.do is do
    assert text in (plan.say.message if plan.say is not None else "")
    if plan.say is not None:
        assert plan.say.reason == "Deleting"


def test_what_ends_by_time_is_looked_at_again_in_time():
    asked = ASKED, Look.ABSENT
    waits = FRESH._replace(record=asked[0], look=asked[1], suspects=0, searched_age=1.0, clone_age=4.0)
    assert decide(waits).again == CLONE_GRACE_SECONDS - 4.0
    assert decide(FRESH._replace(pause_seconds=3.0)).again == 3.0
    assert decide(ON_NOW._replace(stop=TRY._replace(asked_seconds=20.0))).again == 40.0
    assert decide(FRESH._replace(record=MADE, look=Look.ABSENT)).again
