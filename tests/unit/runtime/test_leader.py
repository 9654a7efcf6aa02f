"""The elector in virtual time, against one cell that can be compared and swapped, over a network that can be bad.

The cell has the one property of the API server that an election rests on. The integration tests ask the real one.
"""

import asyncio
import itertools
import random

import msgspec
import pytest
from hypothesis import given, settings, strategies

from services.runtime import metrics
from services.runtime.kube import errors, objects
from services.runtime.kube.objects import KubeObject, ObjectMeta
from services.runtime.leader import LeaderElector
from services.runtime.leader_decide import LeaseSpec
from tests.support.virtual_time import LoopClock, run, virtual_time

NEVER = 10.0**6


class Cell:
    """One Lease with a version, and a note of every change."""

    def __init__(self):
        self.lease = None
        self.version = 0
        self.writes = []

    @property
    def spec(self):
        return objects.view(self.lease.spec, LeaseSpec)

    def get(self):
        if self.lease is None:
            raise errors.NotFound(404, "NotFound", "no lease")
        return self.lease

    def create(self, lease):
        if self.lease is not None:
            raise errors.AlreadyExists(409, "AlreadyExists", "there is one")
        return self.put(lease)

    def update(self, lease):
        if self.lease is None:
            raise errors.NotFound(404, "NotFound", "no lease")
        if lease.metadata.resourceVersion != str(self.version):
            raise errors.Conflict(409, "Conflict", "changed")
        return self.put(lease)

    def put(self, lease):
        self.version += 1
        meta = msgspec.structs.replace(lease.metadata, resourceVersion=str(self.version))
        self.lease = msgspec.structs.replace(lease, metadata=meta)
        self.writes.append((now(), self.spec.holder_identity))
        return self.lease


class Network:
    """One process's way to the cell: each call takes `there` seconds, happens, and its answer `back` seconds."""

    def __init__(self, cell):
        self.cell = cell
        self.there = self.back = 0.01
        self.error = None
        self.calls = 0

    async def get(self, _resource, _name, _namespace):
        return await self.call(self.cell.get)

    async def create(self, _resource, lease):
        return await self.call(self.cell.create, lease)

    async def update(self, _resource, lease):
        return await self.call(self.cell.update, lease)

    async def call(self, function, *arguments):
        self.calls += 1
        if self.error is not None:
            raise self.error
        loop = asyncio.get_running_loop()
        answer = loop.create_future()
        # What is on its way happens even if nobody waits for the answer any more.
        loop.call_later(self.there, self.happen, answer, self.back, function, arguments)
        return await answer

    @staticmethod
    def happen(answer, back, function, arguments):
        try:
            result, error = function(*arguments), None
        except errors.ApiError as raised:
            result, error = None, raised
        asyncio.get_running_loop().call_later(back, Network.deliver, answer, result, error)

    @staticmethod
    def deliver(answer, result, error):
        if answer.done():
            return
        if error is None:
            answer.set_result(result)
        else:
            answer.set_exception(error)


class Process:
    """An elector that runs in a task."""

    def __init__(self, cell, name):
        self.network = Network(cell)
        self.elector = LeaderElector(self.network, "ns", "lease", name, LoopClock())
        self.task = asyncio.create_task(self.elector.run())

    @property
    def may_write(self):
        try:
            self.elector.check()
        except errors.NotLeader:
            return False
        return True

    def kill(self):
        """End it as SIGKILL would: without a word."""
        self.task.cancel()

    async def stop(self):
        """End it as SIGTERM does."""
        self.task.cancel()
        await asyncio.wait([self.task])
        await self.elector.release()


def now():
    return asyncio.get_running_loop().time()


async def until(condition, step=0.01, limit=120):
    async with asyncio.timeout(limit):
        while not condition():  # noqa: ASYNC110 - the moment is what is measured
            await asyncio.sleep(step)
    return now()


async def leading(name="one"):
    """A cell and a process that has led for half a minute."""
    cell = Cell()
    process = Process(cell, name)
    await process.elector.wait_leading()
    await asyncio.sleep(30)
    return cell, process


@virtual_time
async def test_the_first_process_makes_the_lease_and_leads():
    cell = Cell()
    one = Process(cell, "one")
    assert not one.may_write
    await one.elector.wait_leading()
    assert now() < 0.1
    assert one.may_write
    assert one.elector.is_leader
    assert (cell.spec.holder_identity, cell.spec.lease_transitions) == ("one", 0)
    one.kill()


@virtual_time
async def test_a_leader_renews_every_two_seconds_at_the_latest_with_one_call():
    cell, one = await leading()
    calls, writes = one.network.calls, len(cell.writes)
    await asyncio.sleep(200)
    renewals = [moment for moment, _ in cell.writes[writes:]]
    gaps = [after - before for before, after in itertools.pairwise(renewals)]
    assert 1.0 <= min(gaps) < 1.2, "jitter keeps replicas of many services apart"
    assert 1.9 < max(gaps) <= 2.03
    assert one.network.calls - calls <= len(renewals) + 1
    assert cell.spec.lease_transitions == 0
    one.kill()


@virtual_time
async def test_a_released_lease_is_taken_within_two_seconds():
    cell, one = await leading()
    two = Process(cell, "two")
    await asyncio.sleep(5)
    assert not two.may_write
    stopping = now()
    await one.stop()
    assert not one.may_write
    assert cell.spec.holder_identity == ""
    await two.elector.wait_leading()
    assert now() - stopping < 2.2
    assert cell.spec.lease_transitions == 1
    two.kill()


@virtual_time
async def test_the_lease_of_a_killed_process_is_taken_when_it_has_expired_and_not_before():
    cell, one = await leading()
    two = Process(cell, "two")
    await asyncio.sleep(5)
    one.kill()
    await asyncio.sleep(1)
    last = cell.writes[-1][0]
    await two.elector.wait_leading()
    # The other process can have seen the last renewal no sooner than it happened, and looks every two seconds.
    assert 15 < now() - last < 17.2
    two.kill()


@virtual_time
async def test_a_leader_without_a_network_stops_writing_before_another_process_takes_over():
    cell, one = await leading()
    two = Process(cell, "two")
    await asyncio.sleep(5)
    one.network.error = errors.ConnectionFailed("unreachable")
    stopped = await until(lambda: not one.may_write)
    renewed = one.elector._known.renewed
    assert stopped - renewed <= 10.02
    await one.task
    assert one.elector.lost.is_set()
    assert now() - renewed <= 10.02, "the process is told at once"
    await two.elector.wait_leading()
    assert now() - stopped > 4.9
    two.kill()


@pytest.mark.parametrize(("there", "back"), [(NEVER, 0), (0, NEVER)], ids=["no request arrives", "no answer arrives"])
def test_a_leader_whose_calls_hang_stops_in_time(there, back):
    @virtual_time
    async def scenario():
        _, one = await leading()
        one.network.there, one.network.back = there, back
        stopped = await until(lambda: not one.may_write)
        assert stopped - one.elector._known.renewed <= 10.02
        await one.task
        assert one.elector.lost.is_set()

    scenario()


@virtual_time
async def test_a_leader_bears_slow_answers_and_short_failures():
    cell, one = await leading()
    one.network.there = one.network.back = 2
    await asyncio.sleep(60)
    assert one.may_write
    one.network.there = one.network.back = 0.01
    await asyncio.sleep(6)
    for error in (
        errors.ServerError(503, "ServiceUnavailable", "starting"),
        errors.ConnectionFailed("refused"),
        errors.TooManyRequests(429, "TooManyRequests", "slow down", 1.0),
        errors.Forbidden(403, "Forbidden", "RBAC"),
        OSError("no route to host"),
    ):
        one.network.error = error
        await asyncio.sleep(6)
        assert one.may_write, error
        one.network.error = None
        await asyncio.sleep(6)
    assert not one.task.done()
    assert cell.spec.lease_transitions == 0
    one.kill()


@virtual_time
async def test_a_process_that_was_stopped_refuses_its_first_write_when_it_goes_on():
    cell, one = await leading()
    asyncio.get_running_loop().elapsed += 20  # SIGSTOP: time passes and nothing runs
    assert not one.may_write
    with pytest.raises(errors.NotLeader, match="ns/lease"):
        one.elector.check()
    writes = len(cell.writes)
    await one.task
    assert len(cell.writes) <= writes + 1, "at most what was under way"
    assert not one.may_write


@virtual_time
async def test_an_answer_that_comes_too_late_makes_nobody_a_leader():
    cell = Cell()
    one = Process(cell, "one")
    one.network.there, one.network.back = 0.01, 4
    await asyncio.sleep(4.5)  # the read has ended, the write is under way
    asyncio.get_running_loop().elapsed += 20
    await asyncio.sleep(1)
    assert not one.may_write
    one.kill()


@virtual_time
async def test_a_lease_that_somebody_edits_is_kept():
    cell, one = await leading()
    meta = msgspec.structs.replace(cell.lease.metadata, annotations={"touched": "by kubectl"})
    cell.put(msgspec.structs.replace(cell.lease, metadata=meta))
    await asyncio.sleep(5)
    assert one.may_write
    assert cell.lease.metadata.annotations == {"touched": "by kubectl"}
    one.kill()


@virtual_time
async def test_a_lease_that_somebody_deletes_is_made_anew():
    cell, one = await leading()
    cell.lease = None
    await asyncio.sleep(5)
    assert one.may_write
    assert cell.spec.holder_identity == "one"
    one.kill()


@pytest.mark.parametrize("holder", ["thief", ""])
def test_a_lease_that_somebody_takes_away_is_lost_at_the_next_renewal(holder):
    @virtual_time
    async def scenario():
        cell, one = await leading()
        spec = msgspec.structs.replace(cell.spec, holder_identity=holder)
        cell.put(msgspec.structs.replace(cell.lease, spec=objects.raw(spec)))
        taken = now()
        await one.task
        assert now() - taken < 2.1
        assert not one.may_write
        assert cell.spec.holder_identity == holder
        await one.elector.release()
        assert cell.spec.holder_identity == holder

    scenario()


@virtual_time
async def test_a_lease_of_a_go_process_is_respected_and_taken_when_it_expires():
    cell = Cell()
    spec = {
        "holderIdentity": "capi-controller-manager_1",
        "leaseDurationSeconds": 30,
        "acquireTime": "2020-01-01T00:00:00.000000Z",
        "renewTime": "2020-01-01T00:00:00.000000Z",
        "leaseTransitions": 3,
    }
    cell.put(KubeObject(metadata=ObjectMeta(name="lease", namespace="ns"), spec=objects.raw(spec)))
    one = Process(cell, "one")
    await asyncio.sleep(29.9)
    assert cell.spec.holder_identity == "capi-controller-manager_1"
    await one.elector.wait_leading()
    assert now() < 32.1
    assert cell.spec.lease_transitions == 4
    one.kill()


@virtual_time
async def test_a_write_that_happened_without_an_answer_still_leads_to_leadership():
    cell = Cell()
    one = Process(cell, "one")
    await asyncio.sleep(0.015)
    one.network.back = NEVER
    await asyncio.sleep(1)
    assert cell.spec.holder_identity == "one"
    assert not one.may_write, "nobody has told it"
    one.network.back = 0.01
    await one.elector.wait_leading()
    assert now() < 10
    assert cell.spec.lease_transitions == 0
    one.kill()


@virtual_time
async def test_of_many_that_start_together_one_leads():
    cell = Cell()
    processes = [Process(cell, f"p{number}") for number in range(10)]
    await asyncio.sleep(60)
    assert sum(process.may_write for process in processes) == 1
    assert cell.spec.lease_transitions == 0
    for process in processes:
        process.kill()


# -- release


@virtual_time
async def test_a_release_survives_a_renewal_that_was_under_way():
    cell, one = await leading()
    writes = len(cell.writes)
    one.network.back = 3
    await until(lambda: len(cell.writes) > writes, step=0.001)
    one.network.back = 0.01
    await one.stop()
    assert cell.spec.holder_identity == ""


@pytest.mark.parametrize(("there", "error"), [(NEVER, None), (0.01, errors.ConnectionFailed("gone"))])
def test_a_release_without_a_server_ends_after_three_seconds_and_never_raises(there, error):
    @virtual_time
    async def scenario():
        cell, one = await leading()
        one.network.there, one.network.error = there, error
        stopping = now()
        await one.stop()
        assert now() - stopping <= 3
        assert not one.may_write
        assert cell.spec.holder_identity == "one"

    scenario()


@virtual_time
async def test_a_process_that_does_not_lead_releases_nothing():
    cell, one = await leading()
    two = Process(cell, "two")
    await asyncio.sleep(5)
    calls = two.network.calls
    await two.stop()
    await two.elector.release()
    assert two.network.calls == calls
    assert cell.spec.holder_identity == "one"
    one.kill()


# -- status


@virtual_time
async def test_the_metric_shows_who_leads():
    def shown():
        return metrics.REGISTRY.get_sample_value("leader_election_master_status", {"name": "lease"})

    cell = Cell()
    one = Process(cell, "one")
    assert shown() == 0
    await one.elector.wait_leading()
    assert shown() == 1
    await one.stop()
    assert shown() == 0


def test_two_processes_never_have_the_same_identity():
    electors = [LeaderElector(None, "ns", "lease") for _ in range(2)]
    assert electors[0].identity != electors[1].identity


def test_a_leader_is_told_to_log_its_failures(logged):
    @virtual_time
    async def scenario():
        _, one = await leading()
        one.network.error = errors.ConnectionFailed("unreachable")
        await one.task

    scenario()
    failures = [record for record in logged() if record["msg"] == "The lease could not be renewed"]
    assert len(failures) >= 4
    assert all(record["error"] == "ConnectionFailed: unreachable" for record in failures)
    left = [record["seconds_left"] for record in failures]
    assert left == sorted(left, reverse=True)
    assert logged()[-1]["msg"] == "Leadership is lost"


# -- everything at once


@settings(max_examples=60)
@given(seed=strategies.integers(min_value=0, max_value=2**32))
def test_whatever_the_network_does_no_two_processes_may_write_and_in_the_end_one_may(seed):
    dice = random.Random(seed)

    def worsen(network):
        network.error = errors.ConnectionFailed("cut") if dice.random() < 0.3 else None
        network.there = dice.choice((0.001, 0.01, 0.5, 3, 8, NEVER))
        network.back = dice.choice((0.001, 0.01, 0.5, 3, 8, NEVER))

    async def scenario():
        cell = Cell()
        names = iter(range(1000))
        processes = [Process(cell, f"p{next(names)}") for _ in range(3)]
        for _ in range(40):
            worsen(dice.choice(processes).network)
            if dice.random() < 0.1:
                processes.pop(dice.randrange(3)).kill()
                processes.append(Process(cell, f"p{next(names)}"))
            for _ in range(dice.randrange(1, 60)):
                await asyncio.sleep(0.1)
                writers = [process.elector.identity for process in processes if process.may_write]
                assert len(writers) <= 1, (now(), writers)
                for index, process in enumerate(processes):
                    if process.task.done():
                        processes[index] = Process(cell, f"p{next(names)}")
        for process in processes:
            process.network.error, process.network.there, process.network.back = None, 0.01, 0.01
        # A renewal that was sent may still be on its way; then the lease expires, and the others look.
        await until(lambda: any(process.may_write for process in processes), step=0.1, limit=60)
        for process in processes:
            process.kill()

    run(scenario(), seed=seed)
