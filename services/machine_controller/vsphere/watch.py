"""What happens to tasks and VMs, told by vCenter: one long poll for each session instead of polling objects.

Responsible for: the set of followed objects, keeping vCenter's list of them equal, the long poll, and telling those
who follow. The mechanism: a property collector with one filter over one list view; WaitForUpdatesEx answers with what
changed since a version (vSphere Web Services, PropertyCollector).
Invariants: who follows an object hears its state once it is known, and again whenever it differs; nothing is lost
over a broken connection, a lost session or a restart of vCenter, because a new collector starts with the whole state.
`Gone` is delivered only when vCenter has confirmed that the object does not exist. The poll has a thread of its own,
so it takes none from calls, and `aclose` ends it at once.
Must not know: who follows and why.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from services.machine_controller.vsphere.calls import Threads
from services.machine_controller.vsphere.collector import POLL_SECONDS, Collector
from services.machine_controller.vsphere.errors import NotFound, VSphereError
from services.machine_controller.vsphere.faults import SessionLostError
from services.machine_controller.vsphere.values import Gone, Ref, Task, Update
from services.runtime import log, metrics

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.machine_controller.vsphere.session import Api, Session

_SETUP_SECONDS: Final = 30.0
_SLACK_SECONDS: Final = 15.0
_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 30.0
_KEPT_STALE: Final = 64
"""Objects that nobody follows any more stay listed until so many have come together: each removal is a call."""

_LOG: Final = log.get("vcenter.watch")
_RESTARTS: Final = metrics.counter(
    "groundwork_vcenter_watch_restarts_total", "Long polls for updates that had to start anew.", ("server",)
)
_UPDATES: Final = metrics.counter(
    "groundwork_vcenter_watch_updates_total", "Changes of followed objects that were delivered.", ("server", "type")
)


class _Followed:
    """Who follows an object, and what was told last."""

    def __init__(self) -> None:
        self.notify: dict[object, Callable[[Update], None]] = {}
        self.last: Update | None = None


class Watch:
    """See the module. It connects when the first object is followed."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._followed: dict[Ref, _Followed] = {}
        self._moved: set[Ref] = set()
        """Objects that are followed, or are not any more, since vCenter's list was last made equal."""
        self._changed = asyncio.Event()
        self._interrupted = asyncio.Event()
        self._threads = Threads(f"{session.server}-watch", size=1, limit=8)
        self._runner: asyncio.Task[None] | None = None
        self._closed = False
        self.connected = False
        session.on_changed(self._interrupt)

    def follow(self, reference: Ref, notify: Callable[[Update], None]) -> Callable[[], None]:
        """Have `notify` called in the event loop with the object's state, now (if known) and at each change.

        Returns what ends it. After `Gone` nothing follows. References of VMs and tasks are understood.
        """
        followed = self._followed.get(reference)
        if followed is None or isinstance(followed.last, Gone):
            followed = self._followed[reference] = _Followed()
        token = object()
        followed.notify[token] = notify
        if followed.last is not None:
            asyncio.get_running_loop().call_soon(self._tell, followed, token, followed.last)
        self._move(reference)
        if self._runner is None and not self._closed:
            self._runner = asyncio.create_task(self._run())

        def stop() -> None:
            followed.notify.pop(token, None)
            if not followed.notify and self._followed.get(reference) is followed:
                del self._followed[reference]
                self._move(reference)

        return stop

    def _move(self, reference: Ref) -> None:
        self._moved.add(reference)
        self._changed.set()

    def last(self, reference: Ref) -> Update | None:
        """Return the last known state of a followed object."""
        followed = self._followed.get(reference)
        return followed.last if followed is not None else None

    async def finished(self, task: Ref) -> Task:
        """Return a task once it has ended, well or not; NotFound when vCenter does not know it (any more).

        Knows no deadline: a clone takes what it takes. Works for any task whose id is known, also after a restart.
        """
        ended: asyncio.Future[Update] = asyncio.get_running_loop().create_future()

        def notify(update: Update) -> None:
            if not ended.done() and (isinstance(update, Gone) or (isinstance(update, Task) and update.done)):
                ended.set_result(update)

        stop = self.follow(task, notify)
        try:
            update = await ended
        finally:
            stop()
        if isinstance(update, Task):
            return update
        raise NotFound("task", task.id)

    async def aclose(self) -> None:
        """End the long poll. Those who follow hear nothing more."""
        self._closed = True
        if self._runner is not None:
            self._runner.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._runner
        await self._threads.aclose()

    async def _run(self) -> None:
        pause = _FIRST_PAUSE
        restarts = _RESTARTS.labels(str(self._session.server))
        while True:
            await self._someone_follows()
            api: Api | None = None
            try:
                api = await self._session.api()
                await self._watch(api)
            except SessionLostError:
                if api is not None:
                    self._session.lost(api)
            except VSphereError as error:
                if api is None or self._session.in_use(api):
                    _LOG.warning("Lost the watch of vCenter", server=str(self._session.server), error=error)
            except Exception:  # noqa: BLE001 - a mistake of ours must not leave everybody waiting for ever
                _LOG.exception("The watch of vCenter failed", server=str(self._session.server))
            restarts.inc()
            if self.connected:
                pause = _FIRST_PAUSE
                self.connected = False
                if api is not None and not self._session.in_use(api):
                    continue  # only the session has ended: a new one may follow at once
            # Jitter: all services notice a restart of vCenter at the same moment.
            await self._paused(pause * random.uniform(0.5, 1.0))
            pause = min(_LONGEST_PAUSE, pause * 2)

    async def _paused(self, seconds: float) -> None:
        """Sleep, unless credentials are replaced meanwhile."""
        self._interrupted.clear()
        waits = {
            asyncio.create_task(self._session.clock.sleep(seconds)),
            asyncio.create_task(self._interrupted.wait()),
        }
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    def _interrupt(self) -> None:
        self._threads.give_up()
        self._interrupted.set()

    async def _someone_follows(self) -> None:
        while not self._followed:
            self._changed.clear()
            await self._changed.wait()
        self._changed.set()

    async def _watch(self, api: Api) -> None:
        """Follow until something breaks; raises what it was."""
        collector = await self._blocking("create a property collector", Collector, api, _SETUP_SECONDS)
        lister = asyncio.create_task(self._keep_listed(api, collector))
        lister.add_done_callback(lambda _: self._threads.give_up())  # without it the poll would wait in vain
        try:
            while not lister.done():
                updates = await self._blocking(
                    "wait for updates", lambda _: collector.wait(), api, POLL_SECONDS + _SLACK_SECONDS
                )
                self.connected = True
                for update in updates:
                    self._deliver(update)
        finally:
            lister.cancel()
            await asyncio.wait({lister})
            await self._end(api, collector)
            if not lister.cancelled() and (error := lister.exception()) is not None:
                raise error

    async def _end(self, api: Api, collector: Collector) -> None:
        """Let vCenter forget the collector, and with it the poll; in vain when the session is gone."""
        if not self._session.in_use(api):
            return
        with contextlib.suppress(VSphereError):
            await self._session.attempt("end the watch", lambda _: collector.end(), api, seconds=_SLACK_SECONDS)

    async def _keep_listed(self, api: Api, collector: Collector) -> None:
        """Make vCenter's list equal to what is followed, over and over: of thousands of objects, by what differs."""
        listed: set[Ref] = set()
        stale: set[Ref] = set()
        self._moved = set(self._followed)
        while True:
            await self._changed.wait()
            self._changed.clear()
            moved, self._moved = self._moved, set()
            wanted = {reference for reference in moved if reference in self._followed}
            missing, stale = wanted - listed, (stale | ((moved - wanted) & listed)) - wanted
            if missing or len(stale) >= _KEPT_STALE:
                change = partial(_changed, collector, missing, stale)
                gone = await self._session.attempt("follow objects", change, api, seconds=_SETUP_SECONDS)
                listed |= missing - gone
                listed -= stale
                stale = set()
                for reference in gone:
                    self._deliver(Gone(reference))
            self._retell(wanted & listed, collector)

    def _retell(self, references: set[Ref], collector: Collector) -> None:
        """Give those who follow an object anew, while it was still listed, what the collector knows."""
        for reference in references:
            followed = self._followed.get(reference)
            if followed is not None and followed.last is None and (known := collector.known(reference)) is not None:
                self._deliver(known)

    async def _blocking(self, operation: str, work: Callable[[Api], Any], api: Api, seconds: float) -> Any:
        return await self._session.attempt(operation, work, api, seconds=seconds, threads=self._threads)

    def _deliver(self, update: Update) -> None:
        followed = self._followed.get(update.ref)
        if followed is None or followed.last == update:
            return
        followed.last = update
        _UPDATES.labels(str(self._session.server), "Gone" if isinstance(update, Gone) else update.ref.type).inc()
        for token in tuple(followed.notify):
            self._tell(followed, token, update)
        if isinstance(update, Gone) and self._followed.get(update.ref) is followed:
            del self._followed[update.ref]
            self._move(update.ref)

    def _tell(self, followed: _Followed, token: object, update: Update) -> None:
        notify = followed.notify.get(token)
        if notify is None:
            return
        try:
            notify(update)
        except Exception:  # noqa: BLE001 - one who follows must not stop the others from hearing
            _LOG.exception("A follower of vCenter's updates failed", object=str(update.ref))


def _changed(collector: Collector, add: set[Ref], remove: set[Ref], _: Api) -> set[Ref]:
    return collector.change(add, remove)
