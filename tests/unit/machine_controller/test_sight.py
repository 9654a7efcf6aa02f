"""What is seen of a VM: told by a watch, taken back, and looked for again."""

from __future__ import annotations

import pytest

from services.machine_controller.phases import Look
from services.machine_controller.sight import DESTROY, LONGEST_PAUSE, POWER_ON, RECONFIGURE, Sight, Sights
from services.machine_controller.vsphere.errors import Busy
from services.machine_controller.vsphere.values import Gone, PowerState, Ref, Task, TaskState, VirtualMachine
from services.runtime.kube.objects import ObjectKey

VM = Ref("VirtualMachine", "vm-1")
KEY = ObjectKey("ns", "m1")


class Told:
    """The part of a connection that tells: a watch whose updates the test makes."""

    def __init__(self):
        self.watch = self
        self.followers = {}

    def follow(self, reference, notify):
        assert reference not in self.followers, "followed twice"
        self.followers[reference] = notify
        return lambda: self.followers.pop(reference, None)

    def tell(self, update):
        self.followers[update.ref](update)


def vm(power=PowerState.OFF, uuid="u1"):
    return VirtualMachine(ref=VM, instance_uuid=uuid, power=power)


def task(name, state=TaskState.SUCCESS, error=None):
    return Task(ref=Ref("Task", name), state=state, error=error)


@pytest.fixture
def told():
    return Told()


@pytest.fixture
def changes():
    return []


@pytest.fixture
def sight(told, changes):
    found = Sight("uid", lambda: changes.append(1))
    found.connect(told)
    return found


def test_a_vm_is_present_once_it_was_told_with_our_uuid(sight, told, changes):
    sight.follow_vm(VM, "u1")
    assert sight.look is Look.PENDING
    told.tell(vm(uuid=""))  # being made
    assert sight.look is Look.PENDING
    told.tell(vm())
    assert (sight.look, sight.vm.power) == (Look.PRESENT, PowerState.OFF)
    assert len(changes) == 2


@pytest.mark.parametrize("before", [None, vm()])
def test_a_vm_whose_files_cannot_be_read_is_present_and_inaccessible(sight, told, before):
    sight.follow_vm(VM, "u1", before)
    told.tell(VirtualMachine(ref=VM, connection="inaccessible"))
    assert (sight.look, sight.vm.connection, sight.vm.instance_uuid) == (Look.PRESENT, "inaccessible", "u1")
    told.tell(vm(uuid="u2"))
    assert sight.look is Look.UNKNOWN


def test_a_reference_that_means_another_vm_now_is_not_ours(sight, told):
    sight.follow_vm(VM, "u1")
    told.tell(vm(uuid="u2"))
    assert (sight.look, sight.vm) == (Look.UNKNOWN, None)
    assert VM in sight.gone


def test_a_vm_that_is_gone_is_looked_for_again(sight, told):
    sight.follow_vm(VM, "u1", vm())
    told.tell(Gone(VM))
    assert (sight.look, VM in sight.gone) == (Look.UNKNOWN, True)
    sight.absent(5.0)
    assert (sight.look, sight.absent_at, told.followers) == (Look.ABSENT, 5.0, {})


def test_a_guest_that_runs_may_have_wiped_what_it_was_told(sight, told):
    sight.follow_vm(VM, "u1", vm())
    sight.configured = "what"
    told.tell(vm(PowerState.ON))
    assert sight.configured is None


def test_what_a_task_of_ours_did_is_seen_before_the_vm_tells(sight, told):
    sight.follow_vm(VM, "u1", vm())
    done = []
    sight.operate(RECONFIGURE, Ref("Task", "t0"), lambda: done.append(1))
    assert sight.operation == RECONFIGURE
    told.tell(task("t0", TaskState.RUNNING))
    assert sight.operation == RECONFIGURE
    told.tell(task("t0"))
    assert (sight.operation, done) == ("", [1])
    sight.operate(POWER_ON, Ref("Task", "t1"))
    told.tell(task("t1"))
    assert sight.vm.power is PowerState.ON
    sight.operate(DESTROY, Ref("Task", "t2"))
    told.tell(task("t2"))
    assert (sight.look, VM in sight.gone, told.followers) == (Look.UNKNOWN, True, {})


def test_a_task_that_failed_says_why_and_one_that_was_forgotten_has_the_vm_looked_at(sight, told):
    sight.follow_vm(VM, "u1", vm())
    error = Busy("x")
    sight.operate(POWER_ON, Ref("Task", "t1"))
    told.tell(task("t1", TaskState.ERROR, error))
    assert (sight.error, sight.operation, sight.vm.power) == (error, "", PowerState.OFF)
    sight.operate(POWER_ON, Ref("Task", "t2"))
    told.tell(Gone(Ref("Task", "t2")))
    assert sight.look is Look.UNKNOWN


def test_a_clone_is_followed_once_and_its_end_is_kept(sight, told):
    clone = Ref("Task", "c")
    assert not sight.cloning
    sight.follow_clone(clone)
    sight.follow_clone(clone)
    assert sight.cloning
    told.tell(task("c", TaskState.RUNNING))
    assert sight.clone.state is TaskState.RUNNING
    assert sight.cloning
    told.tell(task("c"))
    assert not sight.cloning
    assert (sight.clone.state, told.followers) == (TaskState.SUCCESS, {})
    sight.end_clone()
    assert (sight.clone, sight.clone_task) == (None, None)


def test_clones_that_may_be_ours_are_followed_to_their_end(sight, told):
    sight.suspect({Ref("Task", "a"), Ref("Task", "b")}, 3.0)
    assert (len(sight.suspects), sight.searched_age, sight.cloning) == (2, 3.0, True)
    sight.absent(0.0)
    told.tell(task("a", TaskState.RUNNING))
    assert sight.look is Look.ABSENT
    told.tell(task("a"))
    assert (sight.look, sight.suspects) == (Look.UNKNOWN, {Ref("Task", "b")})
    told.tell(Gone(Ref("Task", "b")))
    assert (sight.suspects, told.followers) == (set(), {})


def test_another_connection_knows_nothing_of_what_was_seen_through_the_first(sight, told):
    sight.follow_vm(VM, "u1", vm())
    sight.follow_clone(Ref("Task", "c"))
    sight.connect(told)
    assert sight.look is Look.PRESENT
    sight.connect(Told())
    assert (sight.look, sight.vm, sight.clone_task, told.followers) == (Look.UNKNOWN, None, None, {})


def test_pauses_grow_up_to_a_limit_and_end_with_a_success(sight):
    pauses = [sight.fail(100.0) for _ in range(12)]
    assert pauses[:4] == [1.0, 2.0, 4.0, 8.0]
    assert max(pauses) == LONGEST_PAUSE
    assert sight.paused_until == 100.0 + LONGEST_PAUSE
    assert sight.fail(100.0, 30.0) == 30.0
    sight.succeed()
    assert (sight.paused_until, sight.fail(0.0)) == (0.0, 1.0)


def test_another_object_of_the_same_name_starts_with_nothing(told):
    queued = []
    sights = Sights(queued.append)
    first = sights.of(KEY, "uid-1")
    first.connect(told)
    first.follow_vm(VM, "u1", vm())
    assert sights.of(KEY, "uid-1") is first
    second = sights.of(KEY, "uid-2")
    assert (second is first, told.followers) == (False, {})
    second.connect(told)
    second.follow_vm(VM, "u1")
    told.tell(vm())
    assert queued == [KEY]
    sights.drop(KEY)
    assert told.followers == {}


def test_other_credentials_end_the_pauses_of_those_who_use_them():
    sights = Sights(lambda _: None)
    other = ObjectKey("ns", "m2")
    for key in (KEY, other):
        sights.of(key, "uid").fail(10.0)
    sights.retry({KEY})
    assert [sights.of(key, "uid").paused_until for key in (KEY, other)] == [0.0, 11.0]
    sights.retry()
    assert sights.of(other, "uid").paused_until == 0.0
