"""More than one process in a pod: one Python process serves with one core, a webhook may need more.

Responsible for: starting the other processes with the command line of this one, starting them again when they die,
their readiness and metrics, and their end.

How they share the work: the first process binds the webhook's socket and hands it down; all of them accept from one
queue, so that whoever is idle takes the next connection, and a connection that waits is not lost with a process. (With
SO_REUSEPORT each would have a queue of its own, in which connections wait for a process that is busy, and die with it.)
Each process follows the API server with caches of its own. Only the first one leads, runs controllers, rotates
certificates and answers probes. The others hold a socket to it: over it they report what keeps them from being ready
and their metrics, once a second; and when it is closed, since the first process is gone, they stop.

Metrics of the whole: counters and histograms are summed, those of processes that have ended included, so that no sum
ever falls; of gauges, which rarely can be summed, each other process shows its own with the label `process`, and the
first one without.

Invariants: the others end with the first, however it ends. One that cannot start is tried again with backoff, and keeps
the pod from being ready. A process that has not reported for long is hung, and replaced.

Must not know: what a process serves.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import struct
import sys
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
from msgspec import Struct
from prometheus_client import Metric

from services.runtime import log, metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from services.runtime.clock import Clock

__all__ = ["Family", "Inherited", "Reporter", "Supervisor", "combined", "inherited"]

VARIABLE: Final = "GROUNDWORK_INHERITED"
"""Set for the processes that a `Supervisor` starts: number and the descriptors of channel and listening socket."""

_REPORT_SECONDS: Final = 1.0
_STALE_SECONDS: Final = 10.0
_HUNG_SECONDS: Final = 30.0
_END_SECONDS: Final = 15.0
_BACKOFF_SECONDS: Final = (0.5, 30.0)
_SOUND_SECONDS: Final = 60.0
_LARGEST_REPORT: Final = 64 * 1024 * 1024
_LENGTH: Final = struct.Struct(">I")
_SUMMED: Final = frozenset({"counter", "histogram", "summary"})
_LOG: Final = log.get("processes")
_RESTARTS = metrics.counter("groundwork_process_restarts_total", "Processes of this pod that ended and were replaced.")

Key = tuple[str, tuple[tuple[str, str], ...]]


class Family(Struct, frozen=True, array_like=True):
    """A metric with all its samples: (name, labels, value)."""

    name: str
    documentation: str
    type: str
    samples: list[tuple[str, dict[str, str], float]]


class _Report(Struct, frozen=True, array_like=True):
    problems: dict[str, str]
    metrics: list[Family]


class Inherited(NamedTuple):
    """What a process got from the one that started it."""

    number: int
    channel: socket.socket
    listener: socket.socket


def inherited() -> Inherited | None:
    """Return what this process got from another, None when it is the first. Takes the descriptors: call it once."""
    text = os.environ.pop(VARIABLE, "")
    if not text:
        return None
    number, channel, listener = map(int, text.split(":"))
    return Inherited(number, socket.socket(fileno=channel), socket.socket(fileno=listener))


# -- metrics -----------------------------------------------------------------------------------------------------------


def snapshot() -> list[Family]:
    """Return the metrics of this process."""
    return [
        Family(found.name, found.documentation, found.type, [(s.name, s.labels, float(s.value)) for s in found.samples])
        for found in metrics.REGISTRY.collect()
    ]


def combined(own: Iterable[Metric], others: Mapping[str, Sequence[Family]]) -> list[Metric]:
    """Return metrics of several processes as one: see the module's description. `others` by what labels their gauges.

    A process with the name "" counts for sums only.
    """
    result: dict[str, Metric] = {found.name: found for found in own}
    for process, families in others.items():
        for family in families:
            if not process and family.type not in _SUMMED:
                continue
            target = result.get(family.name)
            if target is None:
                target = result[family.name] = Metric(family.name, family.documentation, family.type)
            if family.type in _SUMMED:
                _add(target, family)
            else:
                for name, labels, value in family.samples:
                    target.add_sample(name, {**labels, "process": process}, value)
    return list(result.values())


def _add(target: Metric, family: Family) -> None:
    sums: dict[Key, float] = {_key(s.name, s.labels): float(s.value) for s in target.samples}
    for name, labels, value in family.samples:
        key = _key(name, labels)
        sums[key] = sums.get(key, 0.0) + value
    target.samples = []
    for (name, pairs), value in sums.items():
        target.add_sample(name, dict(pairs), value)


def _key(name: str, labels: Mapping[str, str]) -> Key:
    return name, tuple(labels.items())


# -- the first process -------------------------------------------------------------------------------------------------


class _Other:
    """What the first process knows of another one."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.report: _Report | None = None
        self.heard = 0.0
        self.process: asyncio.subprocess.Process | None = None


class Supervisor:
    """Keeps `count` processes running that share `listener`: give `run`, `drain` and `check` to the manager."""

    def __init__(self, count: int, listener: socket.socket, clock: Clock, command: Sequence[str] | None = None) -> None:
        """Make it; nothing is started before `run`. `command` is this process' own command line by default."""
        self._listener = listener
        self._clock = clock
        self._command = tuple(command or (sys.executable, *sys.orig_argv[1:]))
        self._others = [_Other(number) for number in range(1, count + 1)]
        self._ended: list[Family] = []
        self._stop = asyncio.Event()
        self._all_ended = asyncio.Event()

    def check(self) -> bool | str:
        """Tell whether every process is ready: for readiness."""
        now = self._clock.monotonic()
        for other in self._others:
            if other.report is None:
                return f"process {other.number}: starting"
            if now - other.heard > _STALE_SECONDS:
                return f"process {other.number}: silent for {now - other.heard:.0f} s"
            for name, problem in other.report.problems.items():
                return f"process {other.number}: {name}: {problem}"
        return True

    def combine(self, own: Iterable[Metric]) -> list[Metric]:
        """Return the metrics of all processes, given those of this one."""
        others = {str(other.number): other.report.metrics for other in self._others if other.report is not None}
        return combined(own, {"": self._ended, **others})

    async def run(self) -> None:
        """Start the processes and keep them running until `drain` has ended them; cancelled, kill them."""
        async with asyncio.TaskGroup() as group:
            for other in self._others:
                group.create_task(self._keep(other))
        self._all_ended.set()

    async def drain(self) -> None:
        """Ask all processes to stop, as SIGTERM asks this one, and wait until they have."""
        self._stop.set()
        for other in self._others:
            if other.process is not None:
                with contextlib.suppress(ProcessLookupError):
                    other.process.send_signal(signal.SIGTERM)
        await self._all_ended.wait()

    async def _keep(self, other: _Other) -> None:
        shortest, longest = _BACKOFF_SECONDS
        pause = shortest
        while not self._stop.is_set():
            started = self._clock.monotonic()
            try:
                code: int | None = await self._run_one(other)
            except OSError as error:  # no memory, or as many processes as there may be: that passes
                code = None
                _LOG.error("A process cannot be started", process=other.number, error=error)
            if self._stop.is_set():
                return
            if self._clock.monotonic() - started > _SOUND_SECONDS:
                pause = shortest
            _RESTARTS.inc()
            _LOG.error("A process has ended, starting another", process=other.number, code=code, seconds=pause)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stop.wait()
            pause = min(longest, pause * 2)

    async def _run_one(self, other: _Other) -> int:
        """Run a process to its end and return its exit code; negative for a signal."""
        ours, theirs = socket.socketpair()
        descriptors = (theirs.fileno(), self._listener.fileno())
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                env={**os.environ, VARIABLE: ":".join(map(str, (other.number, *descriptors)))},
                pass_fds=descriptors,
                start_new_session=True,  # Ctrl-C reaches this process, which passes it on once
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        other.process = process
        try:
            if self._stop.is_set():
                process.terminate()
            await self._listen(other, ours)
            # The channel is closed: it is about to end, or it is hung.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_END_SECONDS if self._stop.is_set() else _BACKOFF_SECONDS[0]):
                    await process.wait()
        finally:
            other.process = None
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
            code = await process.wait()
            self._remember(other)
        return code

    async def _listen(self, other: _Other, channel: socket.socket) -> None:
        """Take reports until the process closes the channel or has been silent for too long."""
        reader, writer = await asyncio.open_connection(sock=channel)
        decode = msgspec.msgpack.Decoder(_Report).decode
        try:
            while True:
                async with asyncio.timeout(_HUNG_SECONDS):
                    (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
                    if length > _LARGEST_REPORT:
                        return
                    other.report = decode(await reader.readexactly(length))
                other.heard = self._clock.monotonic()
        except TimeoutError:
            _LOG.error("A process does not report any more", process=other.number)
        except (asyncio.IncompleteReadError, ConnectionError, msgspec.MsgspecError):
            return
        finally:
            writer.close()

    def _remember(self, other: _Other) -> None:
        """Keep the counts of a process that has ended."""
        if other.report is not None:
            kept = combined((), {"": self._ended, "-": other.report.metrics})
            self._ended = [
                Family(
                    found.name, found.documentation, found.type, [(s.name, s.labels, s.value) for s in found.samples]
                )
                for found in kept
                if found.type in _SUMMED
            ]
            other.report = None


# -- the others --------------------------------------------------------------------------------------------------------


class Reporter:
    """Tells the process that started this one how it is; and stops this one when that one is gone."""

    def __init__(
        self, channel: socket.socket, problems: Callable[[], dict[str, str]], stop: Callable[[str], None]
    ) -> None:
        self._channel = channel
        self._problems = problems
        self._stop = stop

    async def run(self) -> None:
        """Report until cancelled, and a last time then."""
        reader, writer = await asyncio.open_connection(sock=self._channel)
        ended = asyncio.ensure_future(reader.read())  # nothing is ever sent: this returns when the other side is gone
        try:
            while not ended.done():
                self._report(writer)
                await writer.drain()
                await asyncio.wait({ended}, timeout=_REPORT_SECONDS)
        except ConnectionError:
            pass
        finally:
            if not ended.done():
                ended.cancel()
                self._report(writer)
            writer.close()
        self._stop("the process that started this one is gone")

    def _report(self, writer: asyncio.StreamWriter) -> None:
        content = msgspec.msgpack.encode(_Report(self._problems(), snapshot()))
        writer.write(_LENGTH.pack(len(content)) + content)
