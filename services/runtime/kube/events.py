"""Events for the users of an object: `kubectl describe` shows them below it.

Responsible for: events.k8s.io/v1 objects that pass its validation, counting repetitions into a series instead of
writing new objects, limits per object and in total, and sending in the background.
Invariants: `event` never blocks and never raises; what cannot be sent is dropped and counted. Events are a courtesy, so
nothing may depend on them.
Source: API reference events.k8s.io/v1 and k8s.io/kubernetes pkg/apis/core/validation/events.go for the limits.
Must not know: what is worth an event.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections import deque
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import MsgspecError, Struct

from services.runtime import log, metrics
from services.runtime.kube.conditions import micro_timestamp
from services.runtime.kube.errors import (
    AlreadyExists,
    ApiError,
    ConnectionFailed,
    KubeError,
    NotFound,
    ServerError,
    TooManyRequests,
)
from services.runtime.kube.objects import KubeObject, decode, encode
from services.runtime.kube.resource import EVENTS
from services.runtime.kube.transport import PatchKind, understood

if TYPE_CHECKING:
    from services.runtime.clock import Clock
    from services.runtime.kube.transport import Client

K = TypeVar("K")
V = TypeVar("V")

NORMAL = "Normal"
WARNING = "Warning"

NOTE_LIMIT = 1024  # bytes
WORD_LIMIT = 128  # action, reason and reportingInstance
NAME_LIMIT = 253
SERIES_WINDOW = 600.0
"""Seconds within which the same thing said again about the same object counts as a repetition."""
SERIES_PERIOD = 10.0
"""Seconds between two rounds of writing the counts of series."""
BUFFER = 1000
BURST = 25
REFILL = 300.0
"""Seconds in which an object regains one event of its burst; both numbers are client-go's spam filter."""
REMEMBERED = 4096
"""Series and allowances that are kept; the oldest go first, and then count anew."""
PACE = 0.02
"""Seconds between two new events: a thousand objects that become ready at once must not starve the work itself."""
ATTEMPTS = 5
RETRY = 2.0

_DROPPED = metrics.counter(
    "groundwork_events_dropped_total",
    "Events that were not written: buffer, rate or failed.",
    ("reason",),
    known=(("buffer",), ("rate",), ("failed",)),
)
_logger = log.get("runtime.events")


class Regarding(Struct, frozen=True, omit_defaults=True):
    """The object an event is about; the fields of core/v1 ObjectReference."""

    apiVersion: str = ""  # noqa: N815 - the wire name
    kind: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""
    resourceVersion: str = ""  # noqa: N815 - the wire name

    @classmethod
    def of(cls, obj: KubeObject) -> Regarding:
        """Refer to `obj`."""
        meta = obj.metadata
        return cls(obj.apiVersion, obj.kind, meta.namespace, meta.name, meta.uid, meta.resourceVersion)

    @property
    def identity(self) -> tuple[str, ...]:
        """What stays the same while the object changes."""
        return (self.kind, self.namespace, self.name, self.uid)


class _Series(Struct):
    """One thing said about one object, and how often."""

    key: tuple[Any, ...]
    regarding: Regarding
    type: str
    reason: str
    note: str
    action: str
    first: datetime
    last: datetime
    last_said: float  # monotonic
    count: int = 1
    written: int = 0  # the count that the server knows; 0 before the event exists
    name: str = ""


class _Allowance(Struct):
    """A token bucket."""

    tokens: float
    at: float


class EventRecorder:
    """Writes events as `component`, the reportingController (a qualified name such as `groundwork.dev/ipam`)."""

    def __init__(self, client: Client, component: str, clock: Clock, *, instance: str = "") -> None:
        self._client = client
        self._component = component
        self._instance = (instance or f"{component.rpartition('/')[2]}-{socket.gethostname()}")[:WORD_LIMIT]
        self._clock = clock
        self._series: dict[tuple[Any, ...], _Series] = {}
        self._allowances: dict[tuple[str, ...], _Allowance] = {}
        self._new: deque[_Series] = deque()
        self._wake = asyncio.Event()

    def event(self, obj: KubeObject | Regarding, type_: str, reason: str, message: str, action: str = "") -> None:
        """Say something about an object: `type_` Normal or Warning, `reason` and `action` UpperCamelCase words.

        The same reason and message within ten minutes adds to a series. Messages are cut to 1024 bytes.
        """
        regarding = obj if isinstance(obj, Regarding) else Regarding.of(obj)
        note = message.encode()[:NOTE_LIMIT].decode(errors="ignore")
        now = self._clock.monotonic()
        key = (*regarding.identity, type_, reason, note)
        series = self._series.get(key)
        if series is not None and now - series.last_said < SERIES_WINDOW:
            series.count += 1
            series.last = self._clock.now()
            series.last_said = now
            return
        if not self._allowed(regarding.identity, now):
            _DROPPED.labels("rate").inc()
            return
        moment = self._clock.now()
        series = _Series(key, regarding, type_, reason, note, action or reason, moment, moment, now)
        _remember(self._series, key, series)
        if len(self._new) >= BUFFER:
            self._drop(self._new.popleft(), "buffer")
        self._new.append(series)
        self._wake.set()

    async def run(self) -> None:
        """Send until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._send_new())
            tasks.create_task(self._send_series())

    async def _send_new(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._new:
                await self._deliver(self._new.popleft())
                await self._clock.sleep(PACE)

    async def _send_series(self) -> None:
        while True:
            await self._clock.sleep(SERIES_PERIOD)
            now = self._clock.monotonic()
            for key, series in list(self._series.items()):
                if 0 < series.written < series.count:
                    await self._deliver(series)
                if now - series.last_said >= SERIES_WINDOW:
                    self._series.pop(key, None)
            for identity, allowance in list(self._allowances.items()):
                if now - allowance.at >= BURST * REFILL:
                    del self._allowances[identity]

    async def _deliver(self, series: _Series) -> None:
        """Write a series as it stands; tries again while that may help, then drops it."""
        for attempt in range(ATTEMPTS):
            try:
                await self._write(series)
            except AlreadyExists:
                # The name is random, so it was our own try whose answer was lost.
                series.written = 1
            except NotFound:
                # The server has expired the event, which after an hour it does: say it anew. A namespace that is gone
                # answers the same to the second try.
                if not series.written:
                    break
                series.written, series.name = 0, ""
            except (ConnectionFailed, ServerError, TooManyRequests, MsgspecError) as error:
                wait = error.retry_after if isinstance(error, ApiError) else None
                await self._clock.sleep(wait or random.random() * RETRY * 2**attempt)
            except KubeError as error:
                _logger.debug("Event refused", reason=series.reason, error=error)
                break
            else:
                return
        self._drop(series, "failed")

    async def _write(self, series: _Series) -> None:
        namespace = series.regarding.namespace or "default"
        count = series.count
        if not series.written:
            series.name = series.name or _event_name(series.regarding.name)
            body = encode(self._body(series, namespace))
            path = EVENTS.path(namespace)
            understood(decode, await self._client.raw("POST", path, body=body), KubeObject, path)
            series.written = 1
        if count > 1:
            patch = {"series": {"count": count, "lastObservedTime": micro_timestamp(series.last)}}
            await self._client.patch(EVENTS, series.name, namespace, patch, kind=PatchKind.MERGE)
            series.written = count

    def _body(self, series: _Series, namespace: str) -> dict[str, Any]:
        return {
            "apiVersion": EVENTS.api_version,
            "kind": EVENTS.kind,
            "metadata": {"name": series.name, "namespace": namespace},
            "eventTime": micro_timestamp(series.first),
            "reportingController": self._component,
            "reportingInstance": self._instance,
            "action": series.action[:WORD_LIMIT],
            "reason": series.reason[:WORD_LIMIT],
            "regarding": series.regarding,
            "note": series.note,
            "type": series.type,
        }

    def _drop(self, series: _Series, why: str) -> None:
        _DROPPED.labels(why).inc()
        if self._series.get(series.key) is series:
            del self._series[series.key]

    def _allowed(self, identity: tuple[str, ...], now: float) -> bool:
        allowance = self._allowances.get(identity)
        if allowance is None:
            allowance = _Allowance(BURST, now)
            _remember(self._allowances, identity, allowance)
        allowance.tokens = min(BURST, allowance.tokens + (now - allowance.at) / REFILL)
        allowance.at = now
        if allowance.tokens < 1:
            return False
        allowance.tokens -= 1
        return True


def _event_name(name: str) -> str:
    """Return a new name that is a valid DNS subdomain and begins like the object's."""
    return f"{name[: NAME_LIMIT - 17].rstrip('-.')}.{random.getrandbits(64):016x}"


def _remember(memory: dict[K, V], key: K, value: V) -> None:
    if len(memory) >= REMEMBERED:
        del memory[next(iter(memory))]
    memory[key] = value
