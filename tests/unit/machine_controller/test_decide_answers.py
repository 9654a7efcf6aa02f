"""The whole answer for one VSphereMachine: the step, what is said, and when to look again."""

from __future__ import annotations

import pytest

from services.machine_controller.decide import decide
from services.machine_controller.phases import Claims, Do, Look, Plan, Say, Stop, World
from services.machine_controller.vsphere.errors import DuplicateName
from services.machine_controller.vsphere.values import Gone, TaskState
from tests.unit.machine_controller.test_decide import (
    ASKED,
    BROKEN,
    CLONING,
    FRESH,
    LOST,
    MADE,
    OFF_NOW,
    ON,
    ON_NOW,
    RUNNING,
    STARTED,
    TAKEN,
    TASK,
    VM,
    ending,
    present,
    task,
)


def no(reason, message):
    return Say(False, reason, message)


def says(reason, message, do=Do.NOTHING, again=None):
    return Plan(do, no(reason, message), again)


READY = Plan(say=Say(True, "Provisioned"))
NOT_DONE_HERE = "the VM is poweredOff, which was not done here: power it on, or delete the Machine"
CLONES = "WaitingForClone"
NOTHING_LEFT = "the clone has left neither a VM nor a result in vCenter"


def gone(uuid):
    message = f"vCenter has no VM with the UUID {uuid} any more; it is not made again by itself: delete the Machine to "
    return says("NotFoundByBIOSUUID", message + "have it replaced", again=600.0)


def failed(clone):
    return FRESH._replace(record=CLONING, clone=clone, look=Look.ABSENT)


def taken(holder):
    message = f"the folder has a VM called m1 that is not this machine's{holder}: rename or remove it there, or delete "
    return says("DuplicateName", message + "this Machine", Do.DISCARD)


LIVING = {
    "no credentials": (FRESH._replace(unreachable="no Secret"), says("NotProvisioned", "no Secret")),
    "a young failure": (FRESH._replace(pause_seconds=0.5), Plan(again=0.5)),
    "a copy": (
        FRESH._replace(provider_id=True, provider_shared="VSphereMachine ns/m2"),
        says("NotOurs", "VSphereMachine ns/m2 has the same provider id: one of the two is a copy, delete that"),
    ),
    "a provider id without vm": (FRESH._replace(provider_id=True, look=Look.ABSENT), gone("of its provider id")),
    "no bootstrap data": (
        World(),
        says("WaitingForBootstrapData", "the Machine names no Secret with bootstrap data yet"),
    ),
    "no address": (
        FRESH._replace(static=(0, 2)),
        says("WaitingForStaticIPAllocation", "devices without an address: 0, 2; something has to write ipAddrs"),
    ),
    "claims that wait": (
        FRESH._replace(claims=Claims(unbound=("a", "b"))),
        says("WaitingForIPAddress", "claims without an address: a, b"),
    ),
    "claims that are refused": (
        FRESH._replace(claims=Claims(missing=("a", "b"), refusal="why")),
        says("WaitingForIPAddress", "claims without an address: a, b: why"),
    ),
    "no vm": (FRESH._replace(look=Look.ABSENT), says(CLONES, "cloning the template", Do.CLONE)),
    "no slot": (
        FRESH._replace(look=Look.ABSENT, slot=False),
        says(CLONES, "as many clones as are allowed run already", Do.QUEUE),
    ),
    "clone runs": (FRESH._replace(record=CLONING, clone=RUNNING), says(CLONES, "cloning the template, 40 % done")),
    "clone has begun": (
        FRESH._replace(record=CLONING, clone=task(TaskState.QUEUED)),
        says(CLONES, "cloning the template"),
    ),
    "clone failed": (failed(BROKEN), says("TaskFailed", "in use by another operation: the disk", Do.DISCARD)),
    "clone forgotten": (failed(Gone(TASK)), says("TaskFailed", NOTHING_LEFT, Do.DISCARD)),
    "clone failed without a word": (failed(task(TaskState.ERROR)), says("TaskFailed", NOTHING_LEFT, Do.DISCARD)),
    "name taken": (failed(TAKEN), taken(" (VirtualMachine:vm-7)")),
    "name taken by nobody known": (failed(task(TaskState.ERROR, DuplicateName("m1", ""))), taken("")),
    "clones that may be ours": (
        FRESH._replace(record=ASKED, suspects=2),
        says(CLONES, "2 clones of the template run, one of which may be this machine's"),
    ),
    "a second before the search": (
        FRESH._replace(record=ASKED, suspects=0, look=Look.ABSENT, searched_age=1.0, clone_age=14.5),
        Plan(again=0.5),
    ),
    "vm gone": (FRESH._replace(record=MADE, look=Look.ABSENT), gone("u1")),
    "vm gone, seen before": (present(VM)._replace(look=Look.ABSENT), gone("u1")),
    "vm inaccessible": (present(LOST), says("Inaccessible", "vCenter reports the VM as disconnected")),
    "vm prepared": (present(VM, prepared=True), says("NotProvisioned", "writing guestinfo", Do.CONFIGURE)),
    "vm being configured": (
        present(VM, prepared=True, operation="reconfigure"),
        says("NotProvisioned", "waiting for vCenter: reconfigure"),
    ),
    "vm configured": (present(VM, prepared=True, configured=True), says("PoweringOn", "powering on", Do.POWER_ON)),
    "vm being powered on": (present(VM, operation="power on"), says("PoweringOn", "waiting for vCenter: power on")),
    "vm runs": (present(ON, STARTED), READY),
    "addresses not seen": (
        present(ON, STARTED, missing=("10.0.0.1", "fd00::1")),
        says("WaitingForIPAllocation", "the guest does not report 10.0.0.1, fd00::1"),
    ),
    "no address seen any more": (present(ON, STARTED, missing=("10.0.0.1",), provisioned=True), READY),
    "powered off": (present(VM, STARTED, provisioned=True), says("PoweredOff", NOT_DONE_HERE)),
    "powered off before": (present(VM, STARTED), says("PoweredOff", NOT_DONE_HERE, Do.CONFIGURE)),
}


@pytest.mark.parametrize(("world", "plan"), LIVING.values(), ids=LIVING)
def test_what_is_done_and_said_of_a_machine(world, plan):
    assert decide(world) == plan


def ends(message, do=Do.NOTHING, again=None):
    return says("Deleting", message, do, again)


def soft(**stop):
    return ON_NOW._replace(stop=Stop("soft", **stop))


CANNOT = "the guest cannot be shut down, VMware Tools do not run: power it off, or change powerOffMode"
TRIES = ON_NOW._replace(stop=Stop("trySoft", asked_seconds=59.5, timeout_seconds=60.0))

DYING = {
    "no credentials": (ending(unreachable="no Secret"), ends("the VM cannot be deleted: no Secret")),
    "a young failure": (ending(pause_seconds=0.5), Plan(again=0.5)),
    "clone runs": (ending(CLONING, clone=RUNNING), ends("waiting for the clone: cloning the template, 40 % done")),
    "gone, seen before": (OFF_NOW._replace(look=Look.ABSENT), Plan(Do.FINISH)),
    "off": (OFF_NOW, ends("deleting the VM", Do.DESTROY)),
    "in work": (OFF_NOW._replace(operation="destroy"), ends("waiting for vCenter: destroy")),
    "inaccessible": (
        ending(look=Look.PRESENT, vm=LOST),
        ends("vCenter reports the VM as disconnected: it is deleted once that is over"),
    ),
    "on": (ON_NOW, ends("powering off", Do.POWER_OFF)),
    "soft": (soft(tools=True), ends("shutting the guest down", Do.SHUT_DOWN)),
    "soft without tools": (soft(), ends(CANNOT)),
    "soft and asked": (soft(asked_seconds=1e6, tools=True), ends("the guest is shutting down")),
    "half a second left": (TRIES, ends("the guest is shutting down", again=0.5)),
    "no time left": (
        TRIES._replace(stop=TRIES.stop._replace(asked_seconds=60.0)),
        ends("powering off", Do.POWER_OFF),
    ),
}


@pytest.mark.parametrize(("world", "plan"), DYING.values(), ids=DYING)
def test_what_is_done_and_said_of_a_machine_that_goes(world, plan):
    assert decide(world) == plan
