"""TLS connections for an HTTP handler, such that no client can keep the others from being served.

Responsible for: accepting, the TLS handshake, how long a client may take for each step and how many connections there
may be, and the end: everything that was accepted is answered before the last connection is closed.

Invariants: every wait for a client has a limit: handshake, request header, response, idle connection (the body's is the
handler's). A connection beyond the limit takes the place of one whose client waits for nothing, first of those that
never asked: half-open connections push out each other and not clients at work. The certificate is looked up for each
handshake. A response during the end says `Connection: close`, which has to be known before aiohttp prepares it: it
closes the socket without the header otherwise, and the client's next request is lost.

Must not know: what is asked and answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, cast

from aiohttp import web
from aiohttp.http import HttpProcessingError

from services.runtime import log, metrics
from services.runtime.health import ListenError

if TYPE_CHECKING:
    from services.runtime.settings import Address

__all__ = ["Limits", "Listener", "Respond", "bind"]

Respond = Callable[[web.BaseRequest], Awaitable[web.Response]]
"""Answers one request. Called once its header has come; reads the body itself."""

_SERVER: Final = "webhook"
"""In place of aiohttp's and Python's versions, which are nobody's business."""
_BACKLOG: Final = 512
_PIECE_BYTES: Final = 65536
_ACCEPT_AGAIN_SECONDS: Final = 0.2
_LOOK_AGAIN_SECONDS: Final = 0.02
_TLS_END_SECONDS: Final = 1.0
_ABOUT_TO_ASK_SECONDS: Final = 1.0
_FULL: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_LOG: Final = log.get("webhook")

_HANDSHAKES = metrics.counter("groundwork_webhook_tls_handshakes_total", "TLS handshakes begun.")
_HANDSHAKE_FAILURES = metrics.counter(
    "groundwork_webhook_tls_handshake_failures_total",
    "TLS handshakes that failed: refused (one side does not accept the other), timeout, disconnect, or full (too many "
    "connections).",
    ("reason",),
    known=(("refused",), ("timeout",), ("disconnect",), ("full",)),
)
_CONNECTIONS = metrics.gauge("groundwork_webhook_connections", "Open connections, handshakes included.")
_DROPPED = metrics.counter(
    "groundwork_webhook_connections_dropped_total",
    "Connections ended from our side early: header (its request took too long), response (it was not read), full (too "
    "many connections), certificate (there is none to show).",
    ("reason",),
    known=(("header",), ("response",), ("full",), ("certificate",)),
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a client may take. Seconds, except where the name says otherwise."""

    handshake: float = 5.0
    header: float = 10.0
    response: float = 10.0
    idle: float = 120.0
    """Longer than the API server keeps an idle connection (90 s): closing it is left to the side that uses it."""
    linger: float = 2.0
    """For reading on after a refusal, so that the client gets to see it."""
    connections: int = 512
    header_field_bytes: int = 4096


def bind(address: Address) -> socket.socket:
    """Reserve an address; nobody can connect before a `Listener` serves it. Raises `ListenError`."""
    host = address.host
    dual = not host and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual or ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if dual or host == "::" else 1)
        sock.bind((host, address.port))
    except OSError as error:
        sock.close()
        raise ListenError(f"cannot listen on {address}: {error.strerror or error}") from error
    sock.setblocking(False)
    return sock


class Listener:
    """Serves one socket: `start`, then `closing = True` as soon as clients should go elsewhere, then `close`."""

    def __init__(self, respond: Respond, context: Callable[[], ssl.SSLContext | None], limits: Limits) -> None:
        """Make a listener; `context` gives the TLS context of the next handshake, None to refuse it."""
        self._respond = respond
        self._context = context
        self.limits = limits
        self.closing = False
        """Whether responses ask the client to close the connection."""
        self._server: _Server | None = None
        self._socket: socket.socket | None = None
        self._again: asyncio.TimerHandle | None = None
        self._handshakes: dict[asyncio.Task[None], _Handshake] = {}
        self.connections: dict[_Connection, None] = {}
        """Open connections whose handshake is done, oldest first."""

    def start(self, sock: socket.socket) -> None:
        """Accept connections to a bound socket, which is the listener's from now on."""
        self._server = _Server(self)
        sock.listen(_BACKLOG)
        self._socket = sock
        self._accept_again()
        _CONNECTIONS.set_function(lambda: len(self._handshakes) + len(self.connections))

    async def close(self, seconds: float) -> None:
        """Accept nothing more; what was accepted has `seconds` to get its answers. Then every connection is closed."""
        self.closing = True
        if self._socket is not None:
            # What the kernel has accepted for us would be reset with the socket. New ones may come all the time.
            for _ in range(_BACKLOG):
                if not self._accept():
                    break
            self._stop_accepting()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                # Looked at rather than signalled: this runs once, and keeps the path of every request free of it.
                while self._handshakes or any(not connection.idle for connection in self.connections):  # noqa: ASYNC110
                    await asyncio.sleep(_LOOK_AGAIN_SECONDS)
        await self.abort()

    async def abort(self) -> None:
        """Close everything now."""
        self._stop_accepting()
        for handshake in self._handshakes.values():
            handshake.drop("disconnect")
        await asyncio.gather(*self._handshakes, return_exceptions=True)
        if self._server is not None:
            self._server.pre_shutdown()
            await self._server.shutdown(_TLS_END_SECONDS)
            self._server = None
        # aiohttp forgets a connection as soon as it says good-bye; the peer may be slow to say it back.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_TLS_END_SECONDS):
                while self.connections:  # noqa: ASYNC110 - as above
                    await asyncio.sleep(_LOOK_AGAIN_SECONDS)
        for connection in tuple(self.connections):
            connection.opened.abort()
        for _ in range(3):  # what an aborted TLS connection takes to close its socket
            await asyncio.sleep(0)

    # -- accepting -----------------------------------------------------------------------------------------------------

    def _accept_again(self) -> None:
        self._again = None
        if self._socket is not None:
            asyncio.get_running_loop().add_reader(self._socket, self._accept)

    def _accept(self) -> bool:
        """Take one connection; one at a time, so that processes which share the socket share the load."""
        assert self._socket is not None, "called while it is registered only"
        try:
            sock, _ = self._socket.accept()
        except OSError as error:
            if error.errno in _FULL:
                # The socket stays readable: asking again at once would keep the loop busy for nothing.
                _LOG.error("Cannot accept a connection", error=error)
                loop = asyncio.get_running_loop()
                loop.remove_reader(self._socket)
                self._again = loop.call_later(_ACCEPT_AGAIN_SECONDS, self._accept_again)
            return False
        sock.setblocking(False)
        context = self._context()
        if context is None or not self._make_room():
            _DROPPED.labels("full" if context else "certificate").inc()
            sock.close()
            return True
        loop = asyncio.get_running_loop()
        handshake = _Handshake(sock, loop.time())
        task = loop.create_task(self._shake_hands(handshake, context))
        self._handshakes[task] = handshake
        task.add_done_callback(lambda done: self._handshakes.pop(done, None))
        return True

    def _stop_accepting(self) -> None:
        if self._again is not None:
            self._again.cancel()
            self._again = None
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def _make_room(self) -> bool:
        """Whether there may be one more connection; if need be in the place of one that waits for nothing of ours.

        That is the oldest that has not asked anything yet, or else the one that has been idle for longest.
        """
        if len(self._handshakes) + len(self.connections) < self.limits.connections:
            return True
        waiting: list[_Handshake | _Connection] = [
            handshake for handshake in self._handshakes.values() if not handshake.dropped
        ]
        waiting += [connection for connection in self.connections if not connection.busy]
        if not waiting:
            return False
        min(waiting, key=lambda found: (not found.fresh, found.since)).drop("full")
        return True

    async def _shake_hands(self, handshake: _Handshake, context: ssl.SSLContext) -> None:
        assert self._server is not None, "accepted after start"
        _HANDSHAKES.inc()
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                self._server,
                handshake.sock,
                ssl=context,
                ssl_handshake_timeout=self.limits.handshake,
                ssl_shutdown_timeout=_TLS_END_SECONDS,
            )
        except OSError as error:  # ssl.SSLError is one
            reason = handshake.dropped or _why(error)
            _HANDSHAKE_FAILURES.labels(reason).inc()
            _LOG.debug("A TLS handshake failed", reason=reason, error=error)

    # -- requests ------------------------------------------------------------------------------------------------------

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Handle a request and write its response: here rather than in aiohttp, which would wait for a client forever.

        Writing again, as aiohttp does with a handler's result, changes nothing.
        """
        connection = request.protocol
        assert isinstance(connection, _Connection), "made by _Server"
        connection.begin()
        try:
            response, content = _in_pieces(await self._respond(request))
            response.headers["Server"] = _SERVER
            if self.closing:
                response.force_close()
            # A client that has gone is aiohttp's to notice: it closes the connection without a word.
            with contextlib.suppress(ConnectionError):
                await self._write(connection, response, content, request)
        finally:
            connection.end()
        return response

    async def _write(
        self, connection: _Connection, response: web.StreamResponse, content: memoryview, request: web.BaseRequest
    ) -> None:
        try:
            async with asyncio.timeout(self.limits.response):
                await response.prepare(request)
                for start in range(0, len(content), _PIECE_BYTES):
                    await response.write(content[start : start + _PIECE_BYTES])
                await response.write_eof()
        except TimeoutError:
            connection.drop("response")


class _Handshake:
    """A connection whose handshake goes on."""

    fresh = True

    def __init__(self, sock: socket.socket, since: float) -> None:
        self.sock = sock
        self.since = since
        self.dropped = ""
        """Why it was ended from our side."""

    def drop(self, reason: str) -> None:
        """End it, as if the client had: the event loop owns the socket, so it is not closed from here."""
        self.dropped = reason
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)


class _Server(web.Server):
    """Makes our connections instead of aiohttp's."""

    def __init__(self, listener: Listener) -> None:
        super().__init__(listener.answer)
        self.listener = listener

    def __call__(self) -> _Connection:
        limits = self.listener.limits
        return _Connection(
            self,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=limits.idle,
            lingering_time=limits.linger,
            max_line_size=limits.header_field_bytes,
            max_field_size=limits.header_field_bytes,
            auto_decompress=False,  # a small body must not become a large one
            access_log=None,
        )


class _Connection(web.RequestHandler):
    """aiohttp's HTTP protocol, with a limit for the time between the first byte of a request and the end of its header.

    aiohttp has none for a connection on which nothing, or half a header, has come.
    """

    __slots__ = ("_deadline", "_listener", "busy", "fresh", "opened", "since")

    opened: asyncio.Transport
    """Its transport, which aiohttp lets go of before it is closed."""

    def __init__(self, server: _Server, **options: Any) -> None:
        super().__init__(server, **options)
        self._listener = server.listener
        self._deadline: asyncio.TimerHandle | None = None
        self.busy = False
        """Whether a request is being received or answered."""
        self.fresh = True
        """Whether no request has come yet."""
        self.since = 0.0
        """When it was made, or its last response written."""

    @property
    def idle(self) -> bool:
        """Whether the client waits for nothing. One that has just connected is about to ask."""
        if self.busy:
            return False
        if self.fresh:
            return asyncio.get_running_loop().time() - self.since > _ABOUT_TO_ASK_SECONDS
        return self._deadline is None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.opened = cast("asyncio.Transport", transport)  # of a stream; uvloop's are not of the class
        self.since = asyncio.get_running_loop().time()
        self._listener.connections[self] = None
        self._expect_header()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._listener.connections.pop(self, None)
        self._forget_deadline()
        if self.fresh and isinstance(exc, ssl.SSLError):
            # With TLS 1.3 the server has finished its handshake when the client says that it does not trust it.
            _HANDSHAKE_FAILURES.labels("refused").inc()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self.busy and self._deadline is None:
            self._expect_header()
        super().data_received(data)

    def log_exception(self, *args: Any, **options: Any) -> None:
        """Keep what is no HTTP out of the log: anybody could fill it."""
        error = options.get("exc_info")
        if isinstance(error, HttpProcessingError):
            _LOG.debug("A request is no HTTP", error=error)
        else:
            super().log_exception(*args, **options)

    def handle_error(self, *args: Any, **options: Any) -> web.StreamResponse:
        """Answer what is no HTTP."""
        response = super().handle_error(*args, **options)
        response.headers["Server"] = _SERVER
        return response

    def begin(self) -> None:
        """A request's header is complete."""
        self.busy, self.fresh = True, False
        self._forget_deadline()

    def end(self) -> None:
        """Its response was written."""
        self.busy = False
        self.since = asyncio.get_running_loop().time()

    def drop(self, reason: str) -> None:
        """Close without waiting for the client, who may never take what is still to be sent."""
        self._forget_deadline()
        if self.transport is not None:
            _DROPPED.labels(reason).inc()
            self.transport.abort()

    def _expect_header(self) -> None:
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(self._listener.limits.header, self.drop, "header")

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def _in_pieces(response: web.Response) -> tuple[web.StreamResponse, memoryview]:
    """Return a response whose body is to be written in pieces, and the body; empty when it may go in one.

    asyncio's TLS hands all of one write on to the socket's buffer and says that there is room for more: only the second
    write waits for the client.
    """
    body = response.body
    if not isinstance(body, bytes) or len(body) <= _PIECE_BYTES:
        return response, memoryview(b"")
    stream = web.StreamResponse(status=response.status, headers=response.headers)
    stream.content_length = len(body)
    if not response.keep_alive and response.keep_alive is not None:
        stream.force_close()
    return stream, memoryview(body)


def _why(error: OSError) -> str:
    if isinstance(error, ssl.SSLEOFError | ConnectionResetError):
        return "disconnect"
    if isinstance(error, ssl.SSLError):
        return "refused"
    return "timeout" if isinstance(error, ConnectionAbortedError | TimeoutError) else "disconnect"
