"""Keeps a store equal to the server: lists, then watches, and comes back from whatever interrupts that.

Responsible for: carrying out what `decide` says (list, watch, pause), feeding the outcome back, noticing a connection
that went silent, saying once what is wrong and once that it is right again, and the metrics of it.
Invariants: `run` never ends on its own. All decisions are in `decide`; all state of the copy is in the store.
Must not know: what the objects mean.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar, cast

import msgspec

from services.runtime import log, metrics
from services.runtime.cache import decide
from services.runtime.cache.decide import Trouble
from services.runtime.kube.errors import ApiError, KubeError, NotFound
from services.runtime.kube.objects import KubeObject, decode
from services.runtime.kube.resource import Resource

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from services.runtime.cache.store import Store
    from services.runtime.clock import Clock
    from services.runtime.kube.objects import WatchEvent
    from services.runtime.kube.transport import Client

T = TypeVar("T", bound=KubeObject)

INACTIVITY = 70.0
"""Seconds without a byte after which a watch is given up: the server sends a bookmark about every 60."""
WATCH_SECONDS = (300, 600)
RECHECKS = (1.0, 10.0)
"""Seconds after a change of what is served at which it is asked whether another resource is preferred now: definitions
come in bursts, and their versions are served one after the other, a little later than the definition says."""
BOOKMARK = "BOOKMARK"

_LISTS = metrics.counter("groundwork_reflector_lists_total", "Complete lists taken over.", ("resource",))
_WATCHES = metrics.counter("groundwork_reflector_watches_total", "Watches started.", ("resource",))
_EVENTS = metrics.counter("groundwork_reflector_events_total", "Watch events received.", ("resource", "type"))
_TROUBLES = metrics.counter(
    "groundwork_reflector_interruptions_total", "Lists and watches that failed, by cause.", ("resource", "cause")
)
_RELISTS = metrics.counter("groundwork_reflector_relists_total", "Lists after the first one.", ("resource",))
_OBJECTS = metrics.gauge("groundwork_store_objects", "Objects in the local copy.", ("resource",))
_ALL = (_LISTS, _WATCHES, _EVENTS, _TROUBLES, _RELISTS, _OBJECTS)

_logger = log.get("runtime.cache")


def forget(name: str) -> None:
    """Take a store that is followed no more out of the metrics, which would keep it and its name for good."""
    for metric in _ALL:
        metric.remove_by_labels({"resource": name})


class Changes(Protocol):
    """Tells when what the server serves has changed; `Discovery` does."""

    @property
    def generation(self) -> int:
        """A number that grows with each change."""

    @property
    def live(self) -> bool:
        """Whether changes are noticed when they happen."""

    async def changed_since(self, generation: int) -> None:
        """Return once `generation` is not the current one any more."""

    def forget(self) -> None:
        """Drop what is remembered of the served resources: an answer contradicted it."""


class Reflector(Generic[T]):
    """Follows one resource in one namespace, or in all of them, for one store.

    `choose` is the resource, or finds it (`Discovery.pick`) and may give None: a resource that is not served counts as
    synced and empty, and is looked for again when `discovery` reports a change; so is one that is preferred to what is
    followed, such as a newer version. `as_` is the type of the store's objects, `inactivity` is in seconds, `jitter`
    gives numbers in [0, 1).
    """

    def __init__(
        self,
        client: Client,
        choose: Resource | Callable[[], Awaitable[Resource | None]],
        store: Store[T],
        *,
        clock: Clock,
        as_: type[T] = KubeObject,  # type: ignore[assignment]  # T's default
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
        metadata_only: bool = False,
        discovery: Changes | None = None,
        inactivity: float = INACTIVITY,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._client = client
        self._choose = choose
        self.store = store
        self._clock = clock
        self._as = as_
        self._namespace = namespace
        self._label_selector = label_selector
        self._field_selector = field_selector
        self._metadata_only = metadata_only
        self._discovery = discovery
        self._inactivity = inactivity
        self._jitter = jitter
        self._resource: Resource | None = None
        self._generation = 0
        self._listed = False
        self._state = decide.State()
        self._last = ""
        self._delivered = False
        self._superseded = False
        self._error: Exception | None = None
        self.last_contact: float | None = None
        """Monotonic time of the last answer that was of use: a list, a row of a watch, or a clear "not served"."""
        store.expect(namespace)

    @property
    def trouble(self) -> Trouble | None:
        """What keeps the copy from following the server right now; None when it does."""
        return self._state.trouble

    async def run(self) -> None:
        """Follow the server until cancelled."""
        _OBJECTS.labels(self.store.name).set_function(self.store.__len__)
        _RELISTS.labels(self.store.name)
        for cause in Trouble:
            _TROUBLES.labels(self.store.name, cause.value)
        outcome: decide.Outcome = decide.Resumed()
        while True:
            before = self._state
            self._state, action = decide.step(before, outcome, self._jitter())
            self._report(before.trouble)
            if isinstance(outcome, decide.ListFailed | decide.WatchEnded) and outcome.trouble is not None:
                _TROUBLES.labels(self.store.name, outcome.trouble.value).inc()
            match action:
                case decide.List():
                    outcome = await self._list()
                case decide.Watch(resource_version=resource_version):
                    outcome = await self._watch(resource_version)
                case decide.Pause():
                    outcome = await self._pause(action)

    async def _list(self) -> decide.Outcome:
        if self._discovery is not None:
            self._generation = self._discovery.generation
        try:
            choose = self._choose
            self._resource = choose if isinstance(choose, Resource) else await choose()
            if self._resource is None:
                return decide.ListFailed(Trouble.UNSERVED, populated=len(self.store) > 0)
            everything = await self._client.list(
                self._resource,
                self._namespace,
                label_selector=self._label_selector,
                field_selector=self._field_selector,
                as_=self._as,
                metadata_only=self._metadata_only,
                known=self.store.known,
            )
        except (KubeError, msgspec.MsgspecError) as error:
            if isinstance(error, NotFound) and self._discovery is not None:
                self._discovery.forget()
            return decide.ListFailed(self._explain(error), len(self.store) > 0, _retry_after(error))
        self.store.replace(everything.items, everything.resource_version, self._namespace)
        self._touch()
        _LISTS.labels(self.store.name).inc()
        if self._listed:
            _RELISTS.labels(self.store.name).inc()
        self._listed = True
        return decide.Listed(everything.resource_version)

    async def _watch(self, resource_version: str) -> decide.Outcome:
        assert self._resource is not None, "a watch follows a list"
        _WATCHES.labels(self.store.name).inc()
        self._last, self._delivered = resource_version, False
        events = self._client.watch(
            self._resource,
            self._namespace,
            resource_version=resource_version,
            timeout_seconds=WATCH_SECONDS[0] + int(self._jitter() * (WATCH_SECONDS[1] - WATCH_SECONDS[0])),
            label_selector=self._label_selector,
            field_selector=self._field_selector,
            metadata_only=self._metadata_only,
            opened=self._opened,
        )
        loop = asyncio.get_running_loop()
        began = armed = loop.time()
        trouble: Trouble | None = None
        retry_after: float | None = None
        try:
            async with asyncio.timeout(self._inactivity) as watchdog, self._rechecked(watchdog), aclosing(events):
                async for event in events:
                    if self._superseded:
                        break
                    if not self._take(event):
                        trouble = Trouble.REWOUND
                        break
                    now = loop.time()
                    # Moving a timer costs more than taking an event, so it is moved only when that begins to matter.
                    if now - armed > self._inactivity / 16:
                        watchdog.reschedule(now + self._inactivity)
                        armed = now
        except (KubeError, msgspec.MsgspecError, TimeoutError) as error:
            trouble, retry_after = self._explain(error), _retry_after(error)
        if self._superseded:
            trouble, retry_after = Trouble.SUPERSEDED, None
        return decide.WatchEnded(self._last, self._delivered, trouble, retry_after, loop.time() - began)

    @asynccontextmanager
    async def _rechecked(self, watchdog: asyncio.Timeout) -> AsyncIterator[None]:
        """For the body of the `with`, let the watchdog go off when another resource is preferred."""
        self._superseded = False
        if self._discovery is None or isinstance(self._choose, Resource):
            yield
            return
        checks = asyncio.create_task(self._recheck(self._discovery, self._choose, watchdog))
        try:
            yield
        finally:
            checks.cancel()

    async def _recheck(
        self, discovery: Changes, choose: Callable[[], Awaitable[Resource | None]], watchdog: asyncio.Timeout
    ) -> None:
        while True:
            generation = discovery.generation
            for seconds in RECHECKS:
                await self._clock.sleep(seconds)
                try:
                    preferred = await choose()
                except (KubeError, msgspec.MsgspecError):
                    continue
                # One that is not served is the watch's own business: the server ends it.
                if preferred not in {None, self._resource}:
                    self._superseded = True
                    watchdog.reschedule(asyncio.get_running_loop().time())
                    return
            await discovery.changed_since(generation)

    def _take(self, event: WatchEvent) -> bool:
        """Feed one row to the store; False when it belongs to another history than the one followed so far."""
        bookmark = event.type == BOOKMARK
        # A bookmark has metadata alone, whatever the type of the objects demands.
        obj = decode(event.object, KubeObject) if bookmark else decode(event.object, self._as)
        resource_version = obj.metadata.resourceVersion
        if decide.rewound(self._last, resource_version):
            return False
        if bookmark:
            self.store.advance(resource_version, self._namespace)
        else:
            self.store.apply(event.type, cast("T", obj))
        self._last = resource_version
        self._delivered = True
        self._touch()
        _EVENTS.labels(self.store.name, event.type).inc()
        return True

    async def _pause(self, action: decide.Pause) -> decide.Outcome:
        if action.clear:
            self.store.replace((), "", self._namespace)
            self._touch()
        if self._discovery is None or not action.until_change:
            await self._clock.sleep(action.seconds)
            return decide.Resumed()
        # Asking for what is not installed, again and again, would be the only traffic of an idle cluster.
        seconds = float(WATCH_SECONDS[1]) if action.settled and self._discovery.live else action.seconds
        changed = asyncio.ensure_future(self._discovery.changed_since(self._generation))
        over = asyncio.ensure_future(self._clock.sleep(seconds))
        try:
            await asyncio.wait({changed, over}, return_when=asyncio.FIRST_COMPLETED)
            return decide.Resumed(changed=changed.done())
        finally:
            changed.cancel()
            over.cancel()

    def _opened(self) -> None:
        """The server has accepted the watch: whatever was wrong is over, even if nothing happens for a while."""
        self._touch()
        before, self._state = self._state.trouble, decide.opened(self._state)
        self._report(before)

    def _touch(self) -> None:
        self.last_contact = self._clock.monotonic()

    def _explain(self, error: Exception) -> Trouble:
        self._error = error
        return decide.classify(error)

    def _report(self, before: Trouble | None) -> None:
        """Log a change from following to not following, from one cause to another, and back; never the same twice."""
        now = self._state.trouble
        if now is before:
            return
        fields = {"store": self.store.name, "namespace": self._namespace or "*"}
        if now is None:
            _logger.info("Following the server again", **fields)
        elif now is Trouble.UNSERVED:
            _logger.info("Resource is not served, waiting for it", **fields)
        elif now is Trouble.SUPERSEDED:
            _logger.info("Another version is served now, listing again", **fields)
        elif now is Trouble.EXPIRED:
            _logger.info("Resource version expired, listing again", **fields)
        elif now is Trouble.SILENT:
            # A quiet server says nothing between two bookmarks; if it is gone, the next try will tell.
            _logger.info("Heard nothing from the server, connecting again", **fields)
        else:
            _logger.warning("Cannot follow the server", cause=now.value, error=self._error, **fields)


def _retry_after(error: Exception) -> float | None:
    return error.retry_after if isinstance(error, ApiError) else None
