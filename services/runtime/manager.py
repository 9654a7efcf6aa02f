"""A process from its first probe to its exit code: its parts start in the right order and stop in the right order.

Responsible for the order, which is controller-runtime's:
1. the health and metrics server answers (a process that waits for its caches must not be killed for it);
2. what needs no caches runs: webhook servers, discovery, the event recorder;
3. reflectors run until every store is synced; /readyz fails until then;
4. what needs caches but no leadership runs;
5. the Lease is won; a replica that stands by is ready;
6. controllers and everything else that needs leadership run.
And on SIGTERM or SIGINT: /readyz fails at once; no more work is taken and what runs may finish for 10 s while the Lease
is kept; beside that, servers go on serving for as long as they are sent requests (`add_drain`: clients do not learn of
the stop at once); then everything is cancelled, the Lease is released, and last the health server closes.

Invariants: everything runs in one TaskGroup, so a part that crashes ends the process (exit code 1) instead of leaving
it half alive. The Lease is released only after everything that writes has ended. A lost Lease ends the process at once
with exit code 1: the kubelet starts a clean one. A part that resists its cancellation cannot hold the process back.

Must not know: what any part does.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from services.runtime import log, metrics
from services.runtime.clock import Clock, SystemClock
from services.runtime.health import Check, HealthServer, ListenError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterator

    from services.runtime.controller import Controller
    from services.runtime.leader import LeaderElector
    from services.runtime.settings import Address

__all__ = ["Manager"]

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
"""A part crashed or the Lease was lost: worth a restart."""
EXIT_UNUSABLE: Final = 2
"""The configuration cannot work: a restart will not help."""

_DRAIN_SECONDS: Final = 10.0
_END_SECONDS: Final = 5.0
_PROGRESS_SECONDS: Final = 2.0
_HEARTBEAT_SECONDS: Final = 0.5
_BLOCKED_SECONDS: Final = 1.0
_START: Final = "start"
_ELECTION: Final = "leader election"
_LOG: Final = log.get("manager")
_TASKS = metrics.gauge("groundwork_event_loop_tasks", "Tasks of the event loop; grows without end where one is leaked.")
_LAG = metrics.histogram(
    "groundwork_event_loop_lag_seconds",
    "How late a timer of the event loop was; what blocks the loop delays probes, watches and lease renewal alike.",
    buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)


class _Store(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def synced(self) -> bool: ...
    def __len__(self) -> int: ...
    async def wait_synced(self) -> None: ...


class Reflector(Protocol):
    """What the manager needs of a reflector: that it runs forever and which store it fills."""

    @property
    def store(self) -> _Store:
        """The store it fills; several reflectors may share one."""

    async def run(self) -> None:
        """Follow the server; never returns."""


class _Part(NamedTuple):
    name: str
    run: Callable[[], Awaitable[None]]


class _LeadershipLostError(Exception):
    """Ends the process; the elector has logged why."""


class Manager:
    """Collects the parts of a service, then runs them: `Manager(...)`, `add_...`, `await run()`."""

    def __init__(
        self,
        bind_address: Address | None,
        *,
        elector: LeaderElector | None = None,
        clock: Clock | None = None,
        drain_seconds: float = _DRAIN_SECONDS,
        end_seconds: float = _END_SECONDS,
        leads: bool = True,
        abandon: Callable[[int], object] = os._exit,
    ) -> None:
        """Make a manager; without an elector the process works as if it were the leader, unless `leads` is false.

        With `leads` false, what needs leadership never runs: for processes beside the one that controls. Without a
        `bind_address` there are no probes; whoever started the process asks for its `problems`.

        `drain_seconds` bounds what controllers may take to finish. Parts that have not ended `end_seconds` after they
        were cancelled are abandoned: `abandon` ends the process with the exit code it is given.
        """
        self._clock = clock or SystemClock()
        self._elector = elector
        self._drain_seconds = drain_seconds
        self._end_seconds = end_seconds
        self._abandon = abandon
        self._ending: asyncio.TimerHandle | None = None
        self._leads = leads
        self._health = HealthServer(bind_address)
        self._health.add_readiness("running", lambda: "shutting down" if self._stop.is_set() else True)
        self._reflectors: list[Reflector] = []
        self._controllers: list[Controller[Any]] = []
        self._early: list[_Part] = []
        self._cached: list[_Part] = []
        self._leading: list[_Part] = []
        self._drains: list[_Part] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self.address: Address | None = None
        """Where the health server listens, once it does."""

    def add_reflector(self, reflector: Reflector) -> None:
        """Run a reflector, and wait for its store before anything that needs caches starts."""
        self._reflectors.append(reflector)
        store = reflector.store
        self._health.add_readiness(f"cache {store.name}", lambda: store.synced or "not synced")

    def add_controller(self, controller: Controller[Any]) -> None:
        """Run a controller while leading, and drain it on stop."""
        self._controllers.append(controller)
        self._leading.append(_Part(f"controller {controller.name}", controller.run))

    def add_runnable(
        self, name: str, run: Callable[[], Awaitable[None]], *, needs_leader: bool, needs_caches: bool = True
    ) -> None:
        """Run something else until it returns or the process stops. An exception from it ends the process.

        It is cancelled on stop, after the controllers were drained. `needs_leader` implies `needs_caches`.
        """
        parts = self._leading if needs_leader else self._cached if needs_caches else self._early
        parts.append(_Part(name, run))

    def add_drain(self, name: str, drain: Callable[[], Awaitable[None]]) -> None:
        """Call `drain` on stop, while the controllers finish; nothing is cancelled before it returns.

        It bounds its own time; a second signal cuts it short. An exception from it is logged.
        """
        self._drains.append(_Part(name, drain))

    def add_readiness(self, name: str, check: Check) -> None:
        """Let /readyz depend on `check` too."""
        self._health.add_readiness(name, check)

    def problems(self) -> dict[str, str]:
        """Return which readiness checks fail, and why."""
        return self._health.problems()

    def stop(self, reason: str) -> None:
        """Begin to stop as SIGTERM does; a second call ends the drain."""
        if self._stop.is_set():
            self._hurry.set()
            _LOG.info("Asked to stop again, not waiting any longer", reason=reason)
            return
        _LOG.info("Stopping", reason=reason)
        self._stop.set()

    async def run(self) -> int:
        """Run everything until a signal, `stop`, a crash or the loss of the Lease; return the exit code."""
        try:
            self.address = await self._health.start()
        except ListenError as error:
            _LOG.error("Cannot start", error=str(error))
            return EXIT_UNUSABLE
        if self.address is not None:
            _LOG.info("Serving probes and metrics", address=str(self.address))
        with self._signals():
            try:
                return await self._run_parts()
            finally:
                if self._elector is not None:
                    await self._elector.release()
                await self._health.close()

    async def _run_parts(self) -> int:
        code = EXIT_OK
        try:
            async with asyncio.TaskGroup() as group:
                self._spawn(group, _Part("heartbeat", self._heartbeat))
                self._spawn(group, _Part(_START, lambda: self._start(group)))
                await self._stop.wait()
                self._stand_down()
                await self._drain()
                self._expect_the_end()
                for task in self._tasks:
                    task.cancel()
        except* Exception:  # noqa: BLE001 - whatever it was has been logged where it happened
            code = EXIT_FAILED
        finally:
            if self._ending is not None:
                self._ending.cancel()
        _LOG.info("Stopped", code=code)
        return code

    async def _start(self, group: asyncio.TaskGroup) -> None:
        for part in self._early:
            self._spawn(group, part)
        for reflector in self._reflectors:
            self._spawn(group, _Part(f"reflector {reflector.store.name}", _forever(reflector.run)))
        await self._sync_caches()
        for part in self._cached:
            self._spawn(group, part)
        if not self._leads:
            return
        if self._elector is not None:
            self._spawn(group, _Part(_ELECTION, self._campaign))
            await self._elector.wait_leading()
        for part in self._leading:
            self._spawn(group, part)

    def _spawn(self, group: asyncio.TaskGroup, part: _Part) -> None:
        task = group.create_task(self._supervised(part), name=part.name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _sync_caches(self) -> None:
        stores = {id(reflector.store): reflector.store for reflector in self._reflectors}.values()
        started = self._clock.monotonic()
        async with asyncio.TaskGroup() as group:
            reporter = group.create_task(self._report_progress(stores, started))
            for store in stores:
                await store.wait_synced()
            reporter.cancel()
        # What the caches hold lives long: a full collection that walks a hundred thousand objects stops the loop for
        # long enough to be late for a probe or a renewal. Frozen objects are not walked, and still freed by their
        # reference counts when the watch replaces them.
        gc.collect()
        gc.freeze()
        seconds = round(self._clock.monotonic() - started, 3)
        _LOG.info("Caches are synced", seconds=seconds, objects={store.name: len(store) for store in stores})

    async def _report_progress(self, stores: Collection[_Store], started: float) -> None:
        while True:
            await self._clock.sleep(_PROGRESS_SECONDS)
            waiting = [store.name for store in stores if not store.synced]
            _LOG.info("Waiting for caches", missing=waiting, seconds=round(self._clock.monotonic() - started))

    async def _campaign(self) -> None:
        assert self._elector is not None
        await self._elector.run()
        raise _LeadershipLostError

    def _stand_down(self) -> None:
        """See that a process which has not begun to lead does not begin while it drains: others wait for the Lease."""
        tasks = {task.get_name(): task for task in self._tasks}
        if _START in tasks:
            tasks[_START].cancel()
            if _ELECTION in tasks:
                tasks[_ELECTION].cancel()

    async def _drain(self) -> None:
        """Let the controllers finish what they have in hand and servers serve on; a second signal cuts it short."""
        async with asyncio.TaskGroup() as group:
            hurry = group.create_task(self._hurry.wait())
            drained = group.create_task(self._drain_parts())
            await asyncio.wait((hurry, drained), return_when=asyncio.FIRST_COMPLETED)
            hurry.cancel()
            drained.cancel()

    async def _drain_parts(self) -> None:
        async with asyncio.TaskGroup() as group:
            for controller in self._controllers:
                group.create_task(controller.drain(self._drain_seconds))
            for part in self._drains:
                group.create_task(self._drain_part(part))

    async def _drain_part(self, part: _Part) -> None:
        try:
            await part.run()
        except Exception as error:  # noqa: BLE001 - the others still have to drain
            _LOG.exception("A part of the process could not be drained", part=part.name, error=error)

    async def _heartbeat(self) -> None:
        while True:
            due = self._clock.monotonic() + _HEARTBEAT_SECONDS
            await self._clock.sleep(_HEARTBEAT_SECONDS)
            lag = max(0.0, self._clock.monotonic() - due)
            _LAG.observe(lag)
            _TASKS.set(len(asyncio.all_tasks()))
            if lag > _BLOCKED_SECONDS:
                _LOG.warning("The event loop was blocked", seconds=round(lag, 3))

    async def _supervised(self, part: _Part) -> None:
        """Run a part; log what ends it. The exception goes on to the TaskGroup, which ends the process."""
        try:
            await part.run()
        except _LeadershipLostError:
            self._expect_the_end()
            raise
        except Exception as error:
            _LOG.exception("A part of the process crashed", part=part.name, error=error)
            self._expect_the_end()
            raise

    def _expect_the_end(self) -> None:
        """Bound the time that cancelled parts take: one that does not end would keep a useless process alive."""
        if self._ending is None:
            self._ending = asyncio.get_running_loop().call_later(self._end_seconds, self._abandon_parts)

    def _abandon_parts(self) -> None:
        running = sorted(task.get_name() for task in self._tasks if not task.done())
        _LOG.error("Parts of the process do not end, leaving without them", parts=running)
        self._abandon(EXIT_FAILED)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        wanted = (signal.SIGTERM, signal.SIGINT)
        for number in wanted:
            loop.add_signal_handler(number, self.stop, number.name)
        try:
            yield
        finally:
            for number in wanted:
                loop.remove_signal_handler(number)


def _forever(run: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
    """Make a normal return an error: a reflector that ended silently would leave a cache that grows stale."""

    async def checked() -> None:
        await run()
        raise RuntimeError("ended although it must run as long as the process")

    return checked
