"""Blocking calls in a bounded number of threads, each with a deadline that also ends the call's thread.

pyVmomi blocks, so its calls run in threads of our own. Responsible for: how many run at once, how many may wait, and
what happens to a call whose answer does not come.
Invariants: a caller is answered within its deadline, whatever the server does. A call that is given up has its socket
shut down, so its thread comes free at once instead of waiting for the server: hanging calls never add up to more than
the fixed number of threads. Only name resolution cannot be cut off; the resolver's own limit bounds it.
Must not know: SOAP, sessions, what a call does.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from services.machine_controller.vsphere.errors import DeadlineExceeded, Overloaded, Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")

_CLOSE_SECONDS = 5.0


class GivenUpError(ConnectionError):
    """The call was given up by its caller before it got to use a connection."""


class Call:
    """A call in flight: when it has to be over, and the socket it waits on. `give_up` may be called by any thread."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._given_up = False
        self.sent = False  # whether a request may have reached the server

    def remaining(self) -> float:
        """Seconds left, at least a few milliseconds: a socket's timeout of zero means "do not block"."""
        return max(0.005, self._end - time.monotonic())

    def use(self, sock: socket.socket) -> None:
        """Name the socket that is worked on from here; GivenUpError when nobody waits for the answer any more."""
        with self._lock:
            if self._given_up:
                raise GivenUpError("the call was given up")
            self._socket = sock
        sock.settimeout(self.remaining())

    def release(self) -> None:
        """Forget the socket: it goes back to a pool, where another call uses it."""
        with self._lock:
            self._socket = None

    def give_up(self) -> None:
        """Wake the thread that waits on the socket. The socket is shut down, not closed: its thread still owns it."""
        with self._lock:
            self._given_up = True
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    # Of the base class: SSLSocket's own would take the TLS state away from under the reading thread.
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


_CURRENT = threading.local()


def current() -> Call:
    """Return the call that this thread carries out."""
    call: Call = _CURRENT.call
    return call


@contextlib.contextmanager
def carried_out(call: Call) -> Iterator[None]:
    """Make `call` the current one of this thread."""
    _CURRENT.call = call
    try:
        yield
    finally:
        call.release()
        del _CURRENT.call


class Threads:
    """At most `size` calls at once and `limit` waiting ones, to one server. Bound to the running event loop."""

    def __init__(self, server: str, *, size: int, limit: int = 1000) -> None:
        self._server = server
        self._limit = limit
        self._slots = asyncio.Semaphore(size)
        self._executor = ThreadPoolExecutor(size, thread_name_prefix=f"vcenter-{server}")
        self._calls: dict[asyncio.Future[object], Call] = {}
        self._waiting = 0
        self._closed = False

    @property
    def running(self) -> int:
        """Calls that hold a thread."""
        return len(self._calls)

    @property
    def waiting(self) -> int:
        """Calls that wait for one."""
        return self._waiting

    async def run(self, operation: str, work: Callable[[], T], *, seconds: float) -> T:
        """Return what `work` returns or raises in a thread.

        DeadlineExceeded after `seconds`, the wait for a thread included; Overloaded when too many wait.
        Cancelling the caller gives the call up as well.
        """
        if self._closed:
            raise Unreachable(self._server, "the connection is closed")
        if self._waiting >= self._limit:
            raise Overloaded(self._server, self._waiting)
        call = Call(seconds)
        self._waiting += 1
        try:
            async with asyncio.timeout(seconds):
                await self._slots.acquire()
        except TimeoutError:
            late = DeadlineExceeded(self._server, operation, seconds)
            late.outcome_unknown = False  # it waited for a thread and was never sent
            raise late from None
        finally:
            self._waiting -= 1
        if self._closed:
            self._slots.release()
            raise Unreachable(self._server, "the connection is closed")
        return await self._in_thread(operation, work, call, seconds)

    async def _in_thread(self, operation: str, work: Callable[[], T], call: Call, seconds: float) -> T:
        def carry_out() -> T:
            with carried_out(call):
                return work()

        try:
            answer = asyncio.get_running_loop().run_in_executor(self._executor, carry_out)
        except BaseException:
            self._slots.release()
            raise
        self._calls[answer] = call  # type: ignore[index] # a future of T is one of object
        answer.add_done_callback(self._finished)
        try:
            # Not wait_for: cancelling the future would hide that its thread still runs.
            done, _ = await asyncio.wait({answer}, timeout=call.remaining())
        except asyncio.CancelledError:
            call.give_up()
            raise
        if done:
            return answer.result()
        call.give_up()
        raise DeadlineExceeded(self._server, operation, seconds)

    def _finished(self, answer: asyncio.Future[T]) -> None:
        del self._calls[answer]  # type: ignore[arg-type] # as above
        self._slots.release()
        if not answer.cancelled():
            answer.exception()  # of a call that was given up: nobody else looks at it

    def give_up(self) -> None:
        """Give up every call in flight."""
        for call in self._calls.values():
            call.give_up()

    async def aclose(self) -> None:
        """Give up what runs and end the threads."""
        self._closed = True
        self.give_up()
        if self._calls:
            await asyncio.wait(set(self._calls), timeout=_CLOSE_SECONDS)
        self._executor.shutdown(wait=False, cancel_futures=True)
