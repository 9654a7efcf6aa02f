"""A machine in any order of events, crashes included: never a second VM, no end before the VM is gone.

The model has the parts that a crash tells apart: the object (record, deletion), vCenter (running clones, VMs), and what
the process remembers. Steps are carried out as `steps` does it, write by write, and a crash may come between any two.
"""

from __future__ import annotations

import itertools

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from services.machine_controller.decide import CLONE_GRACE_SECONDS, decide
from services.machine_controller.phases import Do, Look, World
from services.machine_controller.record import ANSWER_SECONDS, Record
from services.machine_controller.vsphere.errors import Busy
from services.machine_controller.vsphere.values import Gone, PowerState, Ref, Task, TaskState, VirtualMachine

UUID = "u1"


class Memory:
    """What a process knows until it dies."""

    def __init__(self):
        self.look = Look.UNKNOWN
        self.clone_task = None
        self.suspects = None
        self.searched_age = 0.0
        self.prepared = self.configured = False


class Machine(RuleBasedStateMachine):
    """The object, vCenter and the process."""

    def __init__(self):
        super().__init__()
        self.ids = itertools.count()
        self.record = None
        self.deleting = self.held = self.finished = False
        self.vms = {}  # reference -> power; all have our UUID
        self.tasks = {}  # reference -> running, done or failed, and the VM
        self.forgotten = set()
        self.noted = False
        """Whether it was ever written down which VM is ours."""
        self.asked_at = self.now = 0.0
        self.given_up_at = None
        self.memory = Memory()
        self.late = None
        """Until when vCenter may still begin a clone whose answer was lost."""

    @initialize()
    def held_first(self):
        self.held = True

    # Events around it

    @rule()
    def crash(self):
        self.memory = Memory()

    @rule(now=st.sampled_from([True, False, False, False]))  # rare, or most machines would end before they begin
    def delete(self, now):
        self.deleting = self.deleting or now

    @rule(seconds=st.sampled_from([0.0, 0.0, 1.0, CLONE_GRACE_SECONDS, ANSWER_SECONDS]))
    def time_passes(self, seconds):
        self.now += seconds
        if self.late is not None and self.now >= self.late:
            self.vcenter_begins_late()

    @precondition(lambda self: self.late is not None)
    @rule()
    def vcenter_begins_late(self):
        self.late = None
        self.start_clone()

    @precondition(lambda self: any(state == "running" for state, _ in self.tasks.values()))
    @rule(well=st.booleans(), data=st.data())
    def a_clone_ends(self, well, data):
        task = data.draw(st.sampled_from([t for t, (state, _) in self.tasks.items() if state == "running"]))
        vm = None
        if well:
            vm = Ref("VirtualMachine", f"vm-{next(self.ids)}")
            self.vms[vm] = PowerState.OFF
        self.tasks[task] = ("done" if well else "failed", vm)
        self.told()

    @precondition(lambda self: any(state != "running" for state, _ in self.tasks.values()))
    @rule()
    def vcenter_forgets_old_tasks(self):
        self.forgotten |= {task for task, (state, _) in self.tasks.items() if state != "running"}

    @precondition(lambda self: self.vms)
    @rule(do=st.sampled_from(["destroy", "off", "on"]))
    def somebody_else(self, do):
        reference = next(iter(self.vms))
        if do == "destroy":
            del self.vms[reference]
        else:
            self.vms[reference] = PowerState.ON if do == "on" else PowerState.OFF
        self.told()

    def told(self):
        """The watch tells: what is followed is seen as it is."""
        if self.memory.look is Look.PRESENT and not self.vms:
            self.memory.look = Look.UNKNOWN
        if self.memory.clone_task is not None:
            self.memory.look = Look.UNKNOWN
        if self.memory.suspects is not None:
            before = set(self.memory.suspects)
            self.memory.suspects = {t for t in before if self.tasks[t][0] == "running"}
            if before != self.memory.suspects:
                self.memory.look = Look.UNKNOWN

    # The process

    def world(self):
        memory = self.memory
        clone = None
        if memory.clone_task is not None:
            state, vm = self.tasks[memory.clone_task]
            if memory.clone_task in self.forgotten:
                clone = Gone(memory.clone_task)
            else:
                states = {"running": TaskState.RUNNING, "done": TaskState.SUCCESS, "failed": TaskState.ERROR}
                error = Busy("x") if state == "failed" else None
                clone = Task(ref=memory.clone_task, state=states[state], result=vm, error=error)
        vm = None
        if memory.look is Look.PRESENT:
            reference, power = next(iter(self.vms.items()))
            vm = VirtualMachine(ref=reference, name="m1", instance_uuid=UUID, power=power)
        return World(
            deleting=self.deleting,
            held=self.held,
            record=self.record,
            look=memory.look,
            vm=vm,
            clone=clone,
            suspects=len(memory.suspects) if memory.suspects is not None else None,
            clone_age=self.age(),
            searched_age=memory.searched_age,
            bootstrap="boot",
            prepared=memory.prepared,
            configured=memory.configured,
        )

    def age(self):
        """What `record.age` says; what was given up is in the record."""
        return self.now - (self.asked_at + ANSWER_SECONDS if self.given_up_at is None else self.given_up_at)

    @precondition(lambda self: not self.finished)
    @rule(
        steps=st.integers(1, 8),
        crash_after=st.none() | st.integers(0, 8),
        lost=st.none() | st.floats(0.0, ANSWER_SECONDS),
    )
    def work(self, steps, crash_after, lost):
        """Some steps, cut off after so many writes; an answer to a clone is waited for in vain for `lost` seconds."""
        written = 0
        for _ in range(steps):
            if self.finished:
                return
            for write in self.writes(decide(self.world()).do, lost=lost):
                if written == crash_after:
                    self.memory = Memory()
                    return
                write()
                written += 1

    @precondition(lambda self: not self.finished and decide(self.world()).do is Do.CLONE)
    @rule()
    def crash_before_the_answer(self):
        """Between two writes of one step, which `work` alone comes to rarely."""
        self.ask()
        self.clone(lost=0.0)
        self.crash()

    def writes(self, do, *, lost):
        """What a step writes, in its order."""
        memory = self.memory
        return {
            Do.NOTHING: (),
            Do.LOOK: (lambda: setattr(memory, "look", Look.PRESENT if self.vms else Look.ABSENT),),
            Do.CLONE: (
                self.ask,
                lambda: self.clone(lost=lost),
                self.note_task if lost is None else lambda: self.give_up(lost),
            ),
            Do.FOLLOW: (lambda: setattr(memory, "clone_task", Ref.parse(self.record.task)),),
            Do.SEARCH: (self.search,),
            Do.ADOPT: (self.adopt,),
            Do.DISCARD: (self.discard,),
            Do.PREPARE: (lambda: setattr(memory, "prepared", True),),
            Do.CONFIGURE: (lambda: setattr(memory, "configured", True),),
            Do.POWER_ON: (lambda: self.turn(PowerState.ON),),
            Do.NOTE_STARTED: (lambda: setattr(self, "record", _with(self.record, started=True)),),
            Do.POWER_OFF: (lambda: self.turn(PowerState.OFF),),
            Do.DESTROY: (self.destroy,),
            Do.FINISH: (self.finish,),
        }[do]

    def turn(self, power):
        self.vms.update(dict.fromkeys(self.vms, power))

    def ask(self):
        assert self.record is None
        assert not self.noted, "a VM that was written down is made again"
        self.record = Record(of="ns/m1", uuid=UUID, name="m1", template="VirtualMachine:vm-t")
        self.asked_at, self.given_up_at = self.now, None

    def start_clone(self):
        """VCenter reserves the name: a clone into a folder that has it fails."""
        task = Ref("Task", f"task-{next(self.ids)}")
        busy = bool(self.vms) or any(state == "running" for state, _ in self.tasks.values())
        self.tasks[task] = ("failed" if busy else "running", None)
        return task

    def clone(self, *, lost):
        self.memory.suspects = None
        if lost is None:
            self.memory.clone_task = self.start_clone()
        else:
            self.late = self.asked_at + ANSWER_SECONDS + CLONE_GRACE_SECONDS

    def give_up(self, seconds):
        """No answer came for so long: vCenter is given the grace from here."""
        self.time_passes(seconds)
        if self.late is not None:
            self.late = self.now + CLONE_GRACE_SECONDS
        self.given_up_at = self.now

    def note_task(self):
        self.record = _with(self.record, task=str(self.memory.clone_task))

    def search(self):
        if self.memory.clone_task is not None:
            self.note_task()
            return
        self.memory.suspects = {task for task, (state, _) in self.tasks.items() if state == "running"}
        self.memory.searched_age = self.age()
        self.memory.look = Look.UNKNOWN

    def adopt(self):
        if self.memory.look is not Look.PRESENT:
            _, vm = self.tasks[self.memory.clone_task]
            if vm not in self.vms:  # NotFound: the step fails, and is taken again
                self.forgotten.add(self.memory.clone_task)
                return
            self.memory.look = Look.PRESENT
        reference = next(iter(self.vms))
        self.record = _with(self.record or Record(of="ns/m1", uuid=UUID), task="", vm=str(reference))
        self.noted = True
        self.memory.clone_task = self.memory.suspects = None

    def discard(self):
        assert self.late is None, "a clone is forgotten that vCenter may still begin"
        self.record = None
        self.memory.clone_task = self.memory.suspects = None
        self.memory.look = Look.UNKNOWN

    def destroy(self):
        self.vms.clear()
        self.memory.look = Look.UNKNOWN

    def finish(self):
        if self.memory.look is Look.ABSENT and self.vms:
            self.memory.look = Look.PRESENT  # vCenter is asked once more
            return
        self.held = False
        self.finished = True

    # What must hold

    @invariant()
    def there_is_one_vm_at_most(self):
        assert len(self.vms) <= 1

    @invariant()
    def nothing_is_left_when_it_ends(self):
        if self.finished:
            assert not self.vms
            assert self.late is None
            assert all(state != "running" for state, _ in self.tasks.values())


def _with(record, **changes):
    return Record(**{**{f: getattr(record, f) for f in record.__struct_fields__}, **changes})


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
