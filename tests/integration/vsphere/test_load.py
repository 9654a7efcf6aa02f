"""Many machines at once cost one session, a fixed number of threads and connections, and few calls each."""

from __future__ import annotations

import asyncio
import threading
import uuid

import msgspec
import pytest

from services.machine_controller.vsphere import wire
from services.machine_controller.vsphere.errors import Unreachable
from services.machine_controller.vsphere.vcenter import THREADS, VCenters
from tests.support import vcenter_load


@pytest.fixture
def callers(monkeypatch):
    """Names of the threads that made calls."""
    names = set()
    invoke = wire.Stub.InvokeMethod

    def noted(self, *arguments):
        names.add(threading.current_thread().name)
        return invoke(self, *arguments)

    monkeypatch.setattr(wire.Stub, "InvokeMethod", noted)
    return names


async def test_two_hundred_clones_at_once_share_a_session_and_few_threads(sim, vc, spec_for, name, callers):
    spec = await spec_for(name)
    sim.forget_stats()

    async def clone(number):
        one = msgspec.structs.replace(spec, name=f"{name}-{number}", instance_uuid=str(uuid.uuid4()))
        return await vc.watch.finished(await vc.vms.clone(one))

    tasks = await asyncio.gather(*(clone(number) for number in range(200)))
    assert [task.error for task in tasks if task.error] == []
    stats = sim.stats()
    assert stats["sessions"] == 1
    assert stats["peakConnections"] <= THREADS + 1  # and the long poll
    assert stats["calls"]["CloneVM_Task"] == 200
    # Beyond the two calls of each clone: the few that keep the watch's list.
    assert sum(stats["calls"].values()) - stats["calls"]["WaitForUpdatesEx"] < 200 * 2 + 150
    assert len(callers) <= THREADS + 1
    assert all(caller.startswith("vcenter-") for caller in callers)  # none in the thread of the event loop
    vms = {vm["instanceUuid"] for vm in sim.vms().values() if vm["name"].startswith(f"{name}-")}
    assert len(vms) == 200

    destroyed = await asyncio.gather(*(vc.vms.destroy(task.result) for task in tasks))
    ended = await asyncio.gather(*(vc.watch.finished(task) for task in destroyed))
    assert [task.error for task in ended if task.error] == []


async def test_the_lives_of_many_machines_leave_nothing_behind(sim):
    before = set(sim.vms())
    figures = await vcenter_load.run(sim, 25)
    print(figures)
    assert set(sim.vms()) == before
    assert (figures.sessions, figures.threads_before, figures.threads_after) == (1, 0, 0)
    assert figures.peak_threads <= THREADS + 1
    assert figures.peak_connections <= THREADS + 1
    # Find twice (three), clone (two), cards, reconfigure, power on, shut down, destroy; lists and look-ups are shared.
    assert figures.calls_per_machine() < 16
    assert sim.stats()["sessions"] == 0


async def test_the_number_of_threads_stays_the_same_over_many_calls(sim):
    async with VCenters() as connections:
        vc = connections.get(sim.server, "flat", sim.credentials, sim.trust)
        await asyncio.gather(*(vc.check() for _ in range(THREADS * 4)))
        settled = threading.active_count()
        for _ in range(2):
            await asyncio.gather(*(vc.check() for _ in range(100)))
        sim.request("CurrentTime", drop="before", times=20)
        answers = await asyncio.gather(*(vc.check() for _ in range(50)), return_exceptions=True)
        assert sum(isinstance(answer, Unreachable) for answer in answers) == 20
        assert threading.active_count() == settled
        assert sim.stats()["connections"] <= THREADS
