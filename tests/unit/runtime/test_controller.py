import asyncio
import contextlib
import logging

import pytest

from services.runtime import log, metrics
from services.runtime.controller import Controller, ReconcileError, Result, TerminalError
from services.runtime.kube import errors
from services.runtime.kube.objects import ObjectKey
from services.runtime.outcome import Cause, decide
from tests.support.virtual_time import LoopClock, settle, virtual_time


class OwnError(ReconcileError):
    """A failure that a service names."""


def sample(name, **labels):
    return metrics.REGISTRY.get_sample_value(f"controller_runtime_{name}", labels) or 0


class Counted:
    """What the metrics of one controller gained since it was made."""

    NAMES = ("reconcile_errors_total", "terminal_reconcile_errors_total", "reconcile_panics_total")

    def __init__(self, controller):
        self.controller = controller
        self.before = self.now()

    def now(self):
        results = {
            result: sample("reconcile_total", controller=self.controller, result=result)
            for result in ("success", "error", "requeue", "requeue_after")
        }
        names = (*self.NAMES, "reconcile_timeouts_total")
        return results | {name: sample(name, controller=self.controller) for name in names}

    def gained(self):
        return {name: value - self.before[name] for name, value in self.now().items() if value != self.before[name]}


@contextlib.asynccontextmanager
async def running(reconcile, *, name="test", **options):
    controller = Controller(name, reconcile, clock=LoopClock(), **options)
    task = asyncio.create_task(controller.run())
    try:
        yield controller
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def now():
    return asyncio.get_running_loop().time()


# -- the outcome table


TABLE = [
    (errors.NotLeader("gone"), Cause.NOT_LEADER, logging.DEBUG, False, None),
    (TerminalError("no such pool"), Cause.TERMINAL, logging.ERROR, False, None),
    (errors.Conflict(409, "Conflict", "changed"), Cause.EXPECTED, logging.DEBUG, True, None),
    (errors.NotFound(404, "NotFound", "no"), Cause.EXPECTED, logging.WARNING, True, None),
    (errors.AlreadyExists(409, "AlreadyExists", "is there"), Cause.EXPECTED, logging.WARNING, True, None),
    (errors.TooManyRequests(429, "TooManyRequests", "", 7.0), Cause.EXPECTED, logging.WARNING, True, 7.0),
    (errors.TooManyRequests(429, "TooManyRequests", ""), Cause.EXPECTED, logging.WARNING, True, None),
    (errors.ServerError(503, "ServiceUnavailable", "", 3.0), Cause.EXPECTED, logging.WARNING, True, 3.0),
    (errors.ServerError(500, "InternalError", ""), Cause.EXPECTED, logging.WARNING, True, None),
    (errors.ConnectionFailed("refused"), Cause.EXPECTED, logging.WARNING, True, None),
    (errors.RequestTimeout("10 s"), Cause.EXPECTED, logging.WARNING, True, None),
    (OwnError("not yet"), Cause.EXPECTED, logging.WARNING, True, None),
    (TimeoutError("own"), Cause.EXPECTED, logging.WARNING, True, None),
    (ConnectionResetError("peer"), Cause.EXPECTED, logging.WARNING, True, None),
    (KeyError("x"), Cause.BUG, logging.ERROR, True, None),
    (AssertionError("x"), Cause.BUG, logging.ERROR, True, None),
    (asyncio.CancelledError(), Cause.BUG, logging.ERROR, True, None),
]


@pytest.mark.parametrize(("error", "cause", "level", "retry", "after"), TABLE, ids=lambda value: type(value).__name__)
def test_each_error_has_its_row_in_the_outcome_table(error, cause, level, retry, after):
    outcome = decide(error)
    assert (outcome.cause, outcome.level, outcome.retry, outcome.retry_after) == (cause, level, retry, after)


COUNTS = {
    Cause.EXPECTED: {"error": 1, "reconcile_errors_total": 1},
    Cause.TERMINAL: {"error": 1, "reconcile_errors_total": 1, "terminal_reconcile_errors_total": 1},
    Cause.BUG: {"error": 1, "reconcile_errors_total": 1, "reconcile_panics_total": 1},
    Cause.NOT_LEADER: {},
}


@pytest.mark.parametrize(("error", "cause", "level", "retry", "after"), TABLE, ids=lambda value: type(value).__name__)
def test_an_error_is_counted_and_retried_as_its_row_says(error, cause, level, retry, after):
    @virtual_time
    async def scenario():
        async def reconcile(_key):
            calls.append(now())
            if len(calls) == 1:
                raise error

        calls = []
        counted = Counted("outcomes")
        async with running(reconcile, name="outcomes") as controller:
            controller.queue.add("a")
            await settle()
            gained = counted.gained()
            await asyncio.sleep(100)
            return calls, gained, controller.queue.retries("a")

    calls, gained, retries = scenario()
    assert gained == COUNTS[cause]
    assert retries == 0, "the success or the end of retries has reset the backoff"
    if not retry:
        assert calls == [0]
    elif after is None:
        assert calls == [0, pytest.approx(0.004375, abs=0.00063)]
    else:
        assert calls == [0, after]


@virtual_time
async def test_a_success_is_counted_and_forgets_the_failures_before_it():
    async def reconcile(_key):
        calls.append(now())
        if len(calls) < 6:
            raise OwnError("not yet")

    calls = []
    counted = Counted("recovering")
    async with running(reconcile, name="recovering") as controller:
        controller.queue.add("a")
        await asyncio.sleep(1)
        assert len(calls) == 6
        assert controller.queue.retries("a") == 0
    assert counted.gained() == {"success": 1, "error": 5, "reconcile_errors_total": 5}


@virtual_time
async def test_requeue_after_brings_the_key_back_and_forgets_failures():
    async def reconcile(_key):
        calls.append(now())
        if len(calls) == 1:
            raise OwnError("not yet")
        return Result(requeue_after=60) if len(calls) < 4 else Result()

    calls = []
    counted = Counted("periodic")
    async with running(reconcile, name="periodic") as controller:
        controller.queue.add("a")
        await asyncio.sleep(1000)
        assert controller.queue.retries("a") == 0
    first = calls[1]
    assert calls == [0, first, pytest.approx(first + 60), pytest.approx(first + 120)]
    assert counted.gained() == {"success": 1, "requeue_after": 2, "error": 1, "reconcile_errors_total": 1}


# -- workers


@virtual_time
async def test_a_reconcile_that_outlasts_its_deadline_is_cancelled_counted_and_retried():
    async def reconcile(_key):
        calls.append(now())
        if len(calls) == 1:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                cancelled.append(now())
                raise

    calls, cancelled = [], []
    counted = Counted("slow")
    async with running(reconcile, name="slow", deadline=30) as controller:
        controller.queue.add("a")
        await asyncio.sleep(31)
    assert cancelled == [30]
    assert calls == [0, pytest.approx(30.004375, abs=0.00063)]
    assert counted.gained() == {
        "success": 1,
        "error": 1,
        "reconcile_errors_total": 1,
        "reconcile_timeouts_total": 1,
    }


@virtual_time
async def test_no_exception_ends_a_worker():
    async def reconcile(key):
        done.append(key)
        if isinstance(key, BaseException):
            raise key

    done = []
    keys = [KeyError("a"), asyncio.CancelledError(), TimeoutError(), errors.NotLeader(), RecursionError(), "last"]
    async with running(reconcile, workers=1) as controller:
        for key in keys:
            controller.queue.add(key)
        await settle(50)
    assert done == keys


@virtual_time
async def test_as_many_reconciles_run_at_a_time_as_there_are_workers():
    async def reconcile(_key):
        nonlocal most
        at_work.add(_key)
        most = max(most, len(at_work))
        active.append(sample("active_workers", controller="wide"))
        await asyncio.sleep(1)
        at_work.discard(_key)

    at_work, active, most = set(), [], 0
    async with running(reconcile, name="wide", workers=3) as controller:
        for key in range(10):
            controller.queue.add(key)
        await asyncio.sleep(10)
    assert (most, max(active)) == (3, 3)
    assert sample("max_concurrent_reconciles", controller="wide") == 3
    assert sample("active_workers", controller="wide") == 0
    assert sample("reconcile_time_seconds_count", controller="wide") == 10
    assert sample("reconcile_time_seconds_sum", controller="wide") == pytest.approx(10)


@virtual_time
async def test_reconciles_that_never_wait_leave_the_loop_its_turns():
    async def reconcile(_key):
        nonlocal reconciled
        reconciled += 1

    async def bystander():
        while reconciled < 1000:
            turns.append(reconciled)
            await asyncio.sleep(0)

    reconciled, turns = 0, []
    async with running(reconcile, workers=2) as controller:
        for key in range(1000):
            controller.queue.add(key)
        await bystander()
    assert len(turns) >= 500, "each worker does at most one reconcile between two turns of anything else"


# -- drain


@virtual_time
async def test_a_drain_takes_no_more_keys_and_lets_what_runs_finish():
    async def reconcile(key):
        started.append(key)
        await asyncio.sleep(5)
        finished.append(key)

    started, finished = [], []
    async with running(reconcile, workers=2) as controller:
        for key in "abcd":
            controller.queue.add(key)
        await asyncio.sleep(1)
        assert await controller.drain(10) is True
    assert now() == 5
    assert started == finished == ["a", "b"]


@virtual_time
async def test_a_drain_that_takes_too_long_cancels_what_still_runs():
    async def reconcile(key):
        try:
            await asyncio.sleep(3 if key == "quick" else 3600)
        except asyncio.CancelledError:
            cancelled.append((key, now()))
            raise
        finished.append(key)

    cancelled, finished = [], []
    counted = Counted("stubborn")
    async with running(reconcile, name="stubborn", workers=2, deadline=9000) as controller:
        controller.queue.add("stuck")
        controller.queue.add("quick")
        await asyncio.sleep(1)
        assert await controller.drain(10) is False
    assert (finished, cancelled) == (["quick"], [("stuck", 11)])
    assert counted.gained() == {"success": 1}, "a cancelled reconcile is no error"


@virtual_time
async def test_a_drain_of_idle_workers_or_of_none_is_over_at_once():
    async def reconcile(_key):
        raise AssertionError

    async with running(reconcile) as controller:
        await settle()
        assert await controller.drain(10) is True
    assert await Controller("never-run", reconcile, clock=LoopClock()).drain(10) is True
    assert now() == 0


@virtual_time
async def test_run_returns_after_a_drain_and_raises_what_cancels_it():
    async def reconcile(_key):
        await asyncio.sleep(3600)

    drained = Controller("drained", reconcile, clock=LoopClock())
    task = asyncio.create_task(drained.run())
    await settle()
    await drained.drain(1)
    await task
    cancelled = Controller("cancelled", reconcile, clock=LoopClock())
    task = asyncio.create_task(cancelled.run())
    cancelled.queue.add("a")
    await settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# -- logs


def test_what_a_reconcile_logs_carries_its_controller_key_and_id(logged):
    @virtual_time
    async def scenario():
        async def reconcile(_key):
            logger.info("Looking")
            await asyncio.sleep(1)
            logger.info("Done")

        logger = log.get("ipam")
        async with running(reconcile, name="pools", workers=2) as controller:
            for key in (ObjectKey("prod", "a"), ObjectKey("", "b"), "plain"):
                controller.queue.add(key)
            await asyncio.sleep(5)

    scenario()
    found = [record for record in logged() if record["logger"] == "ipam"]
    by_id = {}
    for record in found:
        assert record["controller"] == "pools"
        by_id.setdefault(record["reconcileID"], []).append(record)
    assert len(by_id) == 3
    assert all([entry["msg"] for entry in entries] == ["Looking", "Done"] for entries in by_id.values())
    named = [{name: entry[name] for name in ("namespace", "name", "key") if name in entry} for entry in found]
    assert {"namespace": "prod", "name": "a"} in named
    assert {"name": "b"} in named
    assert {"key": "plain"} in named


def test_a_bug_is_logged_with_its_traceback_and_an_expected_failure_without(logged):
    @virtual_time
    async def scenario():
        async def reconcile(key):
            if calls[key]:
                return
            calls[key] += 1
            raise {"bug": KeyError("lost"), "expected": OwnError("not yet"), "conflict": conflict}[key]

        calls = dict.fromkeys(("bug", "expected", "conflict"), 0)
        conflict = errors.Conflict(409, "Conflict", "changed")
        async with running(reconcile) as controller:
            for key in calls:
                controller.queue.add(key)
            await asyncio.sleep(1)

    scenario()
    bug, expected, conflict = (record for record in logged() if record["logger"] == "controller")
    assert (bug["level"], bug["error"]) == ("error", "KeyError: 'lost'")
    assert "in reconcile" in bug["stacktrace"]
    assert (expected["level"], expected["error"], expected["retries"]) == ("warning", "OwnError: not yet", 1)
    assert "stacktrace" not in expected
    assert conflict["level"] == "debug"
