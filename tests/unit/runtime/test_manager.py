import asyncio
import contextlib
import gc
import os
import signal
import socket

import aiohttp
import pytest

from services.runtime import metrics
from services.runtime.cache.store import Store
from services.runtime.controller import Controller
from services.runtime.manager import Manager
from services.runtime.settings import Address
from tests.support.virtual_time import LoopClock, settle, virtual_time

LOOPBACK = Address("127.0.0.1", 0)


@pytest.fixture(autouse=True)
def _thaw():
    """Undo the manager's gc.freeze(), which is for processes that hold caches until they end."""
    yield
    gc.unfreeze()


class Reflector:
    """Fills a store when it is told to."""

    def __init__(self, name, journal=None, *, ready=True):
        self.store = Store(name)
        self.journal = [] if journal is None else journal
        self.go = asyncio.Event()
        self.end = asyncio.Event()
        if ready:
            self.go.set()

    async def run(self):
        self.journal.append(f"reflector {self.store.name}")
        await self.go.wait()
        self.journal.append(f"synced {self.store.name}")
        self.store.replace([], "1")
        await self.end.wait()


class Elector:
    """Wins and loses when it is told to, and writes down what happens to it."""

    def __init__(self, journal=None, *, wins=True):
        self.journal = [] if journal is None else journal
        self.won = asyncio.Event()
        self.lose = asyncio.Event()
        if wins:
            self.won.set()

    async def run(self):
        self.journal.append("election")
        try:
            await self.lose.wait()
        finally:
            self.journal.append("election ended")

    async def wait_leading(self):
        await self.won.wait()

    async def release(self):
        self.journal.append("released")


@contextlib.asynccontextmanager
async def started(manager):
    """Run a manager; gives its task. It must have ended, or must end when told to, by the end of the block."""
    task = asyncio.create_task(manager.run())
    try:
        await until(lambda: manager.address is not None or task.done())
        yield task
    finally:
        if not task.done():
            manager.stop("end of the test")
            manager.stop("end of the test")
        await task


async def get(manager, path):
    async with aiohttp.ClientSession() as session, session.get(f"http://{manager.address}{path}") as response:
        return response.status, await response.text()


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in several places
            await asyncio.sleep(0.001)


def writer(journal, name):
    async def run():
        journal.append(name)
        try:
            await asyncio.Event().wait()
        finally:
            journal.append(f"{name} ended")

    return run


# -- start


async def test_the_parts_start_in_order_each_stage_after_the_one_before_it():
    async def reconcile(_key):
        journal.append("reconcile")

    journal = []
    elector = Elector(journal, wins=False)
    manager = Manager(LOOPBACK, elector=elector)
    reflectors = [Reflector(name, journal, ready=False) for name in ("pools", "claims")]
    controller = Controller("ordered", reconcile)
    controller.queue.add("a")
    manager.add_runnable("leader", writer(journal, "leader runnable"), needs_leader=True)
    manager.add_controller(controller)
    manager.add_runnable("cached", writer(journal, "cached runnable"), needs_leader=False)
    manager.add_runnable("early", writer(journal, "early runnable"), needs_leader=False, needs_caches=False)
    for reflector in reflectors:
        manager.add_reflector(reflector)
    async with started(manager) as task:
        await until(lambda: "reflector claims" in journal)
        assert journal == ["early runnable", "reflector pools", "reflector claims"]
        assert await get(manager, "/livez") == (200, "ok")
        assert (await get(manager, "/readyz"))[0] == 500

        reflectors[1].go.set()
        await until(lambda: "synced claims" in journal)
        await settle()
        assert "cached runnable" not in journal
        reflectors[0].go.set()
        await until(lambda: "election" in journal)
        assert journal[-2:] == ["cached runnable", "election"]
        assert await get(manager, "/readyz") == (200, "ok"), "a replica that stands by is ready"

        elector.won.set()
        await until(lambda: "reconcile" in journal)
        assert journal[-2:] == ["leader runnable", "reconcile"]
        assert not task.done()


async def test_readyz_names_the_caches_that_are_not_synced_and_every_check_that_fails():
    manager = Manager(LOOPBACK)
    slow = Reflector("claims", ready=False)
    manager.add_reflector(Reflector("pools"))
    manager.add_reflector(slow)
    manager.add_readiness("certificate", lambda: "expires in an hour")
    manager.add_readiness("broken", lambda: 1 / 0)
    manager.add_readiness("plain", lambda: False)
    async with started(manager):
        await until(lambda: manager._reflectors[0].store.synced)
        status, text = await get(manager, "/readyz")
        assert status == 500
        assert text.splitlines() == [
            "[+]running ok",
            "[+]cache pools ok",
            "[-]cache claims failed: not synced",
            "[-]certificate failed: expires in an hour",
            "[-]broken failed: ZeroDivisionError: division by zero",
            "[-]plain failed: not ready",
            "readyz check failed",
        ]


async def test_the_health_server_serves_probes_and_metrics():
    manager = Manager(LOOPBACK)
    manager.add_reflector(Reflector("pools"))
    async with started(manager):
        await until(lambda: manager._reflectors[0].store.synced)
        assert await get(manager, "/healthz") == (200, "ok")
        assert await get(manager, "/readyz?verbose") == (
            200,
            "[+]running ok\n[+]cache pools ok\nreadyz check passed\n",
        )
        status, text = await get(manager, "/metrics")
        assert status == 200
        assert "# TYPE process_resident_memory_bytes gauge" in text
        assert (await get(manager, "/else"))[0] == 404


async def test_several_reflectors_may_fill_one_store():
    manager = Manager(LOOPBACK)
    first, second = Reflector("claims"), Reflector("claims")
    second.store = first.store
    manager.add_reflector(first)
    manager.add_reflector(second)
    async with started(manager):
        await until(lambda: first.store.synced)
        assert (await get(manager, "/readyz?verbose"))[1].count("cache claims") == 1


def test_waiting_for_caches_is_logged_every_two_seconds_with_the_names_of_the_missing_ones(logged):
    @virtual_time
    async def scenario():
        manager = Manager(LOOPBACK, clock=LoopClock())
        stores = [Store("pools"), Store("claims")]
        for store in stores:
            reflector = Reflector(store.name)
            reflector.store = store
            manager.add_reflector(reflector)
        syncing = asyncio.create_task(manager._sync_caches())
        await asyncio.sleep(3)
        stores[0].replace([], "1")
        await asyncio.sleep(2)
        stores[1].replace([], "1")
        await syncing

    scenario()
    shown = [(record["msg"], record.get("missing"), record["seconds"]) for record in logged() if "seconds" in record]
    assert shown == [
        ("Waiting for caches", ["pools", "claims"], 2),
        ("Waiting for caches", ["claims"], 4),
        ("Caches are synced", None, 5),
    ]


async def test_synced_caches_are_frozen_out_of_garbage_collection():
    manager = Manager(LOOPBACK)
    manager.add_reflector(Reflector("pools"))
    before = gc.get_freeze_count()
    async with started(manager):
        await until(lambda: gc.get_freeze_count() > before)


async def test_an_address_that_is_taken_is_exit_code_2_and_one_message(logged):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert await Manager(Address("127.0.0.1", port)).run() == 2
    (record,) = (record for record in logged() if record["level"] == "error")
    assert record["msg"] == "Cannot start"
    assert record["error"].startswith(f"cannot listen on 127.0.0.1:{port}: ")


# -- stop


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_the_controllers_keeps_the_lease_meanwhile_and_exits_with_0(number):
    async def reconcile(key):
        journal.append(f"reconcile {key}")
        await may_finish.wait()
        journal.append(f"reconciled {key}")

    journal, may_finish = [], asyncio.Event()
    manager = Manager(LOOPBACK, elector=Elector(journal))
    controller = Controller("drained", reconcile)
    controller.queue.add("a")
    controller.queue.add("b")
    manager.add_controller(controller)
    manager.add_runnable("writer", writer(journal, "writer"), needs_leader=True)
    async with started(manager) as task:
        await until(lambda: "reconcile a" in journal)
        os.kill(os.getpid(), number)
        await until(lambda: controller.queue.shutting_down)
        status, text = await get(manager, "/readyz")
        assert (status, "[-]running failed: shutting down" in text) == (500, True)
        assert (await get(manager, "/livez"))[0] == 200
        assert "election ended" not in journal
        may_finish.set()
        assert await task == 0
    ends = journal[journal.index("reconciled a") + 1 :]
    assert sorted(ends[:-1]) == ["election ended", "writer ended"]
    assert "reconcile b" not in journal
    assert journal[-1] == "released", "only when nothing writes any more"


async def test_a_drain_is_bounded():
    async def reconcile(_key):
        running.set()
        await asyncio.Event().wait()

    running = asyncio.Event()
    manager = Manager(LOOPBACK, drain_seconds=0.05)
    controller = Controller("stuck", reconcile)
    controller.queue.add("a")
    manager.add_controller(controller)
    async with started(manager) as task:
        await running.wait()
        manager.stop("test")
        assert await task == 0


async def test_a_second_signal_ends_the_drain():
    async def reconcile(_key):
        running.set()
        await asyncio.Event().wait()

    running = asyncio.Event()
    manager = Manager(LOOPBACK, drain_seconds=3600)
    controller = Controller("stuck", reconcile)
    controller.queue.add("a")
    manager.add_controller(controller)
    async with started(manager) as task:
        await running.wait()
        manager.stop("SIGTERM")
        await until(lambda: controller.queue.shutting_down)
        assert not task.done()
        manager.stop("SIGTERM")
        assert await task == 0


@pytest.mark.parametrize("waits_for", ["caches", "leadership"])
async def test_a_process_that_still_waits_stops_at_once(waits_for):
    journal = []
    manager = Manager(LOOPBACK, elector=Elector(journal, wins=False))
    manager.add_reflector(Reflector("pools", ready=waits_for != "caches"))
    manager.add_runnable("leader", writer(journal, "leader runnable"), needs_leader=True)
    async with started(manager) as task:
        await until(lambda: waits_for == "caches" or "election" in journal)
        manager.stop("test")
        assert await task == 0
    assert "leader runnable" not in journal
    assert journal[-1] == "released"


@pytest.mark.parametrize("waits_for", ["caches", "leadership"])
async def test_a_process_that_stands_by_does_not_begin_to_work_while_it_drains(waits_for):
    async def drain():
        journal.append("drain")
        elector.won.set()
        reflector.go.set()
        for _ in range(20):
            await asyncio.sleep(0)
        journal.append("drained")

    journal = []
    elector = Elector(journal, wins=False)
    manager = Manager(LOOPBACK, elector=elector)
    reflector = Reflector("pools", ready=waits_for != "caches")
    manager.add_reflector(reflector)
    manager.add_runnable("leader", writer(journal, "leader runnable"), needs_leader=True)
    manager.add_drain("server", drain)
    async with started(manager) as task:
        await until(lambda: waits_for == "caches" or "election" in journal)
        manager.stop("test")
        assert await task == 0
    assert "election" not in journal[journal.index("drain") :]
    assert "election ended" not in journal[journal.index("drained") :]
    assert "leader runnable" not in journal


async def test_signal_handlers_are_gone_when_the_manager_has_ended():
    manager = Manager(LOOPBACK)
    async with started(manager):
        pass
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


# -- crash and lost lease


async def test_a_part_that_crashes_ends_everything_with_exit_code_1_and_is_named(logged):
    async def crash():
        await may_crash.wait()
        raise KeyError("lost")

    journal, may_crash = [], asyncio.Event()
    manager = Manager(LOOPBACK, elector=Elector(journal))
    manager.add_runnable("writer", writer(journal, "writer"), needs_leader=True)
    manager.add_runnable("crasher", crash, needs_leader=False)
    async with started(manager) as task:
        await until(lambda: "writer" in journal)
        may_crash.set()
        assert await task == 1
    assert journal[-1] == "released"
    assert {"writer ended", "election ended"} <= set(journal)
    (record,) = (record for record in logged() if record["level"] == "error")
    assert (record["part"], record["error"]) == ("crasher", "KeyError: 'lost'")
    assert "in crash" in record["stacktrace"]


async def test_a_runnable_that_returns_ends_nothing():
    async def short():
        returned.set()

    returned = asyncio.Event()
    manager = Manager(LOOPBACK)
    manager.add_runnable("short", short, needs_leader=False)
    async with started(manager) as task:
        await returned.wait()
        await settle()
        assert not task.done()


async def test_a_reflector_that_returns_is_a_crash(logged):
    manager = Manager(LOOPBACK)
    reflector = Reflector("pools")
    manager.add_reflector(reflector)
    async with started(manager) as task:
        await until(lambda: reflector.store.synced)
        reflector.end.set()
        assert await task == 1
    (record,) = (record for record in logged() if record["level"] == "error")
    assert record["part"] == "reflector pools"


async def test_a_lost_lease_ends_the_process_at_once_without_a_drain():
    async def reconcile(_key):
        running.set()
        try:
            await asyncio.Event().wait()
        finally:
            journal.append("reconcile cancelled")

    journal, running = [], asyncio.Event()
    elector = Elector(journal)
    manager = Manager(LOOPBACK, elector=elector, drain_seconds=3600)
    controller = Controller("deposed", reconcile)
    controller.queue.add("a")
    manager.add_controller(controller)
    async with started(manager) as task:
        await running.wait()
        elector.lose.set()
        assert await task == 1
    assert "reconcile cancelled" in journal


async def test_a_lease_lost_during_the_drain_ends_it_with_exit_code_1():
    async def reconcile(_key):
        running.set()
        await asyncio.Event().wait()

    running = asyncio.Event()
    elector = Elector()
    manager = Manager(LOOPBACK, elector=elector, drain_seconds=3600)
    controller = Controller("deposed-in-drain", reconcile)
    controller.queue.add("a")
    manager.add_controller(controller)
    async with started(manager) as task:
        await running.wait()
        manager.stop("test")
        await until(lambda: controller.queue.shutting_down)
        elector.lose.set()
        assert await task == 1


@pytest.mark.parametrize("ends_by", ["stop", "lost lease"])
async def test_a_part_that_does_not_end_is_abandoned_and_named(logged, ends_by):
    async def stubborn():
        running.set()
        while not may_end.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await may_end.wait()

    def abandon(code):
        codes.append(code)
        may_end.set()

    running, may_end, codes = asyncio.Event(), asyncio.Event(), []
    elector = Elector()
    manager = Manager(LOOPBACK, elector=elector, end_seconds=0.05, abandon=abandon)
    manager.add_runnable("stubborn", stubborn, needs_leader=False)
    async with started(manager) as task:
        await running.wait()
        if ends_by == "stop":
            manager.stop("test")
        else:
            elector.lose.set()
        assert await task == (0 if ends_by == "stop" else 1)
    assert codes == [1]
    (record,) = (record for record in logged() if record["level"] == "error")
    assert record["parts"] == ["stubborn"]


# -- servers


async def test_a_server_serves_on_while_everything_else_still_runs_and_readiness_fails_at_once():
    async def drain():
        journal.append("draining")
        draining.set()
        await may_end.wait()
        journal.append("drained")

    draining, may_end, journal = asyncio.Event(), asyncio.Event(), []
    elector = Elector(journal)
    manager = Manager(LOOPBACK, elector=elector)
    manager.add_reflector(Reflector("a"))
    manager.add_runnable("server", writer(journal, "server"), needs_leader=False)
    manager.add_drain("server", drain)
    async with started(manager) as task:
        await until(lambda: "server" in journal)
        manager.stop("test")
        await draining.wait()
        assert (await get(manager, "/readyz"))[0] == 500
        assert journal[-1] == "draining"
        may_end.set()
        assert await task == 0
    assert journal[-4:-3] == ["drained"]
    assert set(journal[-3:-1]) == {"election ended", "server ended"}
    assert journal[-1] == "released"


async def test_a_drain_that_fails_is_logged_and_does_not_keep_the_others_from_draining(logged):
    async def fail():
        raise RuntimeError("broken")

    async def drain():
        await asyncio.sleep(0.01)
        drained.set()

    drained = asyncio.Event()
    manager = Manager(LOOPBACK)
    manager.add_drain("broken", fail)
    manager.add_drain("sound", drain)
    async with started(manager) as task:
        manager.stop("test")
        assert await task == 0
    assert drained.is_set()
    (record,) = (record for record in logged() if record["level"] == "error")
    assert record["part"] == "broken"


async def test_a_second_signal_cuts_the_drain_of_a_server_short():
    async def drain():
        draining.set()
        await asyncio.Event().wait()

    draining = asyncio.Event()
    manager = Manager(LOOPBACK)
    manager.add_drain("server", drain)
    async with started(manager) as task:
        manager.stop("test")
        await draining.wait()
        manager.stop("again")
        assert await task == 0


async def test_a_process_that_never_leads_runs_what_needs_no_leadership_and_has_no_probes():
    journal = []
    manager = Manager(None, leads=False)
    reflector = Reflector("a", ready=False)
    manager.add_reflector(reflector)
    manager.add_runnable("server", writer(journal, "server"), needs_leader=False)
    manager.add_runnable("leader", writer(journal, "leader"), needs_leader=True)
    task = asyncio.create_task(manager.run())
    await until(lambda: manager.problems() == {"cache a": "not synced"})
    reflector.go.set()
    await until(lambda: "server" in journal)
    assert manager.problems() == {}
    assert manager.address is None
    manager.stop("test")
    assert manager.problems() == {"running": "shutting down"}
    assert await task == 0
    assert journal == ["server", "server ended"]


# -- heartbeat


def test_a_blocked_event_loop_is_measured_and_logged(logged):
    @virtual_time
    async def scenario():
        manager = Manager(LOOPBACK, clock=LoopClock())
        heartbeat = asyncio.create_task(manager._heartbeat())
        await asyncio.sleep(1.1)
        assert not logged()
        asyncio.get_running_loop().elapsed += 3.4  # as if something had computed for that long
        await asyncio.sleep(0.1)
        heartbeat.cancel()

    total = "groundwork_event_loop_lag_seconds_sum"
    before = metrics.REGISTRY.get_sample_value(total)
    scenario()
    assert metrics.REGISTRY.get_sample_value(total) - before == pytest.approx(3.0, abs=0.11)
    assert metrics.REGISTRY.get_sample_value("groundwork_event_loop_tasks") >= 1
    (record,) = logged()
    assert record["msg"] == "The event loop was blocked"
