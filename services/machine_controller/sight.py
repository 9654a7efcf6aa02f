"""What this process knows of each machine's VM in vCenter: the VM itself, tasks of ours, what was done to it so far.

Responsible for: following VMs and tasks with vCenter's watch, and queueing the machine whenever something changed.
Invariants: everything here can be lost and is found out again after a restart; what must not be lost is in the
annotation (`record`). A VM counts as present only with the UUID that was asked for, or without any while vCenter
cannot get at it. All belongs to one event loop.
Must not know: Kubernetes, what follows from what is seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from services.machine_controller.phases import Look
from services.machine_controller.vsphere.values import Gone, PowerState, Ref, Task, VirtualMachine

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from services.machine_controller.guestinfo.nic import BoundAddress
    from services.machine_controller.vsphere.errors import VSphereError
    from services.machine_controller.vsphere.values import Update
    from services.machine_controller.vsphere.vcenter import VCenter
    from services.runtime.kube.objects import ObjectKey

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 300.0

RECONFIGURE = "reconfigure"
POWER_ON = "power on"
POWER_OFF = "power off"
DESTROY = "destroy"


class Sight:
    """One machine's; `uid` is the object's, `changed` queues it."""

    def __init__(self, uid: str, changed: Callable[[], None]) -> None:
        self.uid = uid
        self.vcenter: VCenter | None = None
        self.look = Look.UNKNOWN
        self.vm: VirtualMachine | None = None
        self.absent_at = 0.0
        self.gone: set[Ref] = set()
        """References that vCenter has said do not exist."""
        self.clone_task: Ref | None = None
        self.clone: Task | Gone | None = None
        self.suspects: set[Ref] | None = None
        self.searched_age = 0.0
        self.operation = ""
        self.error: VSphereError | None = None
        """Why the last operation failed; whoever deals with it takes it away."""
        self.prepared = False
        self.configured: Hashable | None = None
        """What the guestinfo was made of that stands in the VM."""
        self.addresses: dict[str, BoundAddress] = {}
        """Addresses of claims, by the claim's name."""
        self.paused_until = 0.0
        self._failures = 0
        self._changed = changed
        self._stops: dict[Ref, Callable[[], None]] = {}

    @property
    def cloning(self) -> bool:
        """Whether a clone is followed that is the machine's, or may be, and was not seen to end."""
        if self.clone_task is None:
            return bool(self.suspects)
        return not (isinstance(self.clone, Gone) or (self.clone is not None and self.clone.done))

    def connect(self, vcenter: VCenter) -> None:
        """Take note of the connection; everything seen through another one is forgotten."""
        if self.vcenter is not vcenter:
            self._reset()
            self.vcenter = vcenter

    def close(self) -> None:
        """Follow nothing any more."""
        self._reset()

    def fail(self, now: float, longest: float = LONGEST_PAUSE) -> float:
        """Take note of a failure; returns for how many seconds nothing is to be tried, at most `longest`."""
        pause: float = min(longest, FIRST_PAUSE * 2**self._failures)
        self._failures = min(self._failures + 1, 16)
        self.paused_until = now + pause
        return pause

    def succeed(self) -> None:
        """Take note that something went well."""
        self._failures = 0
        self.paused_until = 0.0

    # The VM

    def follow_vm(self, reference: Ref, uuid: str, known: VirtualMachine | None = None) -> None:
        """Follow the VM that should have an instance UUID; `known` is its state if that was read already."""
        self.unfollow_vm()
        self.look, self.vm = Look.PENDING, None
        if known is not None:
            self._saw(known, uuid)
        assert self.vcenter is not None

        def notify(update: Update) -> None:
            if isinstance(update, VirtualMachine):
                self._saw(update, uuid)
            elif isinstance(update, Gone):
                self.gone.add(reference)
                self.unfollow_vm()
                self.unknown()
            self._changed()

        self._stops[reference] = self.vcenter.watch.follow(reference, notify)

    def unfollow_vm(self) -> None:
        """Stop following the VM."""
        for reference in [ref for ref in self._stops if ref.type != "Task"]:
            self._stops.pop(reference)()

    def absent(self, now: float) -> None:
        """Take note that vCenter knows no VM with our UUID."""
        self.unfollow_vm()
        self.look, self.vm, self.absent_at = Look.ABSENT, None, now

    def unknown(self) -> None:
        """Have the VM looked for again."""
        self.look, self.vm = Look.UNKNOWN, None

    def _saw(self, vm: VirtualMachine, uuid: str) -> None:
        if vm.instance_uuid == uuid:
            self.look, self.vm = Look.PRESENT, vm
            if vm.power is PowerState.ON:
                self.configured = None  # a guest that runs may wipe what it has read
        elif vm.instance_uuid:
            # The reference means another VM now, as after a restore of vCenter.
            self.gone.add(vm.ref)
            self.unknown()
        elif not vm.connected:
            # Without its files vCenter does not know a VM's UUID. Nothing is done to such a VM, but it is told.
            self.look, self.vm = Look.PRESENT, replace(vm, instance_uuid=uuid)

    # Tasks

    def follow_clone(self, task: Ref) -> None:
        """Follow the clone that makes our VM."""
        if self.clone_task == task and task in self._stops:
            return
        if self.clone_task != task:
            self.clone_task, self.clone = task, None

        def notify(update: Update) -> None:
            if isinstance(update, Task | Gone) and self.clone_task == task:
                done_before = isinstance(self.clone, Task) and self.clone.done
                self.clone = self.clone if done_before else update
                self.look = self.look if self.look is Look.PRESENT else Look.UNKNOWN
                self._ended(task, update)
                self._changed()

        self._follow(task, notify)

    def end_clone(self) -> None:
        """Forget the clone: it was adopted or discarded."""
        if self.clone_task is not None:
            stop = self._stops.pop(self.clone_task, None)
            if stop is not None:
                stop()
        self.clone_task = self.clone = None
        self._drop_suspects()

    def suspect(self, tasks: set[Ref], age: float) -> None:
        """Follow clones one of which may be ours; `age` is the seconds since ours was given up."""
        self._drop_suspects()
        self.suspects, self.searched_age = set(tasks), age
        self.unknown()

        def follow(task: Ref) -> None:
            def notify(update: Update) -> None:
                ended = isinstance(update, Gone) or (isinstance(update, Task) and update.done)
                if ended and self.suspects is not None and task in self.suspects:
                    self.suspects.discard(task)
                    self._ended(task, update)
                    self.unknown()
                    self._changed()

            self._follow(task, notify)

        for task in tasks:
            follow(task)

    def operate(self, name: str, task: Ref, done: Callable[[], None] | None = None) -> None:
        """Follow a task on the VM; `done` is called when it went well."""
        self.operation = name

        def notify(update: Update) -> None:
            if not self._ended(task, update):
                return
            self.operation = ""
            if isinstance(update, Task) and update.error is not None:
                self.error = update.error
            elif isinstance(update, Gone):
                self.unknown()  # it ended so long ago that vCenter has forgotten it: what it did is seen in the VM
            else:
                self._assume(name)
                if done is not None:
                    done()
            self._changed()

        self._follow(task, notify)

    def _assume(self, operation: str) -> None:
        """See what a task of ours did, whose effect on the VM may be told a moment later."""
        if operation == DESTROY:
            self.unfollow_vm()
            if self.vm is not None:
                self.gone.add(self.vm.ref)
            self.unknown()
        elif self.vm is not None and operation in (POWER_ON, POWER_OFF):
            power = PowerState.ON if operation == POWER_ON else PowerState.OFF
            self.vm = replace(self.vm, power=power)

    def _follow(self, task: Ref, notify: Callable[[Update], None]) -> None:
        assert self.vcenter is not None
        stop = self._stops.pop(task, None)
        if stop is not None:
            stop()
        self._stops[task] = self.vcenter.watch.follow(task, notify)

    def _ended(self, task: Ref, update: Update) -> bool:
        """Whether a task has ended, in which case it is followed no longer."""
        ended = isinstance(update, Gone) or (isinstance(update, Task) and update.done)
        if ended:
            stop = self._stops.pop(task, None)
            if stop is not None:
                stop()
        return ended

    def _drop_suspects(self) -> None:
        for task in self.suspects or ():
            stop = self._stops.pop(task, None)
            if stop is not None:
                stop()
        self.suspects = None

    def _reset(self) -> None:
        for stop in self._stops.values():
            stop()
        self._stops.clear()
        self.unknown()
        self.gone.clear()
        self.clone_task = self.clone = None
        self.suspects = None
        self.operation = ""
        self.error = None
        self.vcenter = None


class Sights:
    """Those of all machines."""

    def __init__(self, queue: Callable[[ObjectKey], None]) -> None:
        self._queue = queue
        self._sights: dict[ObjectKey, Sight] = {}

    def of(self, key: ObjectKey, uid: str) -> Sight:
        """What is known of a machine; nothing yet when the object is another one of the same name."""
        sight = self._sights.get(key)
        if sight is None or sight.uid != uid:
            self.drop(key)
            sight = self._sights[key] = Sight(uid, lambda: self._queue(key))
        return sight

    def drop(self, key: ObjectKey) -> None:
        """Forget a machine that is gone."""
        sight = self._sights.pop(key, None)
        if sight is not None:
            sight.close()

    def retry(self, keys: set[ObjectKey] | None = None) -> None:
        """Let failures be forgotten, of all machines or some: what caused them was changed."""
        for key, sight in self._sights.items():
            if keys is None or key in keys:
                sight.succeed()
