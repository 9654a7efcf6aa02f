"""The plain HTTP server of every service: /livez, /readyz and /metrics.

Responsible for: answering probes and scrapes, and for a clear error when the address cannot be used.

Invariants: /livez answers "ok" for as long as the event loop turns; that an answer comes at all is the proof, so
nothing else is asked. Everybody in the pod network may connect, so a connection beyond the limit takes the place of
the one over which nothing was asked for longest, and none outlives a minute without a request: who holds connections
keeps no probe out. /readyz answers 200 when every check passes and 500 otherwise, like a Kubernetes component, and
lists the checks with `?verbose` or when one fails. Nothing secret is served and nothing can be changed here.

Must not know: what the checks look at.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from services.runtime import metrics
from services.runtime.settings import Address

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler

__all__ = ["Check", "HealthServer", "ListenError"]

Check = Callable[[], bool | str]
"""Returns True when ready, False or the reason when not."""

MAX_CONNECTIONS: Final = 128
_CLOSE_SECONDS: Final = 1.0  # a scrape that is under way may end
_IDLE_SECONDS: Final = 60.0
_FIELD_BYTES: Final = 8190


class ListenError(Exception):
    """The address cannot be listened on; the text names it and says why. The process exits with code 2."""


class HealthServer:
    """Serves until `close`; checks may be added at any time. Without an address it only keeps the checks."""

    def __init__(self, listen: Address | None) -> None:
        self._listen = listen
        self._checks: dict[str, Check] = {}
        self._runner: web.AppRunner | None = None
        self._server: asyncio.Server | None = None
        self.connections: dict[_Connection, None] = {}
        """Open ones, that over which nothing was asked for longest first."""

    def add_readiness(self, name: str, check: Check) -> None:
        """Let /readyz ask `check`, which must be quick and must not wait. A check that raises counts as failed."""
        self._checks[name] = check

    def problems(self) -> dict[str, str]:
        """Return the checks that fail, with the reason."""
        found = {name: _problem(check) for name, check in self._checks.items()}
        return {name: problem for name, problem in found.items() if problem is not None}

    async def start(self) -> Address | None:
        """Listen and return the address, with the port that the kernel chose if 0 was asked for.

        Raises `ListenError`.
        """
        if self._listen is None:
            return None
        application = web.Application(middlewares=[_note])
        # Kubernetes' own names, and the one that Cluster API's manifests probe.
        application.router.add_get("/livez", self._alive)
        application.router.add_get("/healthz", self._alive)
        application.router.add_get("/readyz", self._ready)
        application.router.add_get("/metrics", self._metrics)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=_CLOSE_SECONDS)
        await runner.setup()
        loop = asyncio.get_running_loop()

        def connection() -> _Connection:
            assert runner.server is not None, "set up above"
            return _Connection(runner.server, self.connections)

        try:
            self._server = await loop.create_server(connection, self._listen.host or None, self._listen.port)
        except OSError as error:
            await runner.cleanup()
            raise ListenError(f"cannot listen on {self._listen}: {error.strerror or error}") from error
        self._runner = runner
        return Address(*self._server.sockets[0].getsockname()[:2])

    async def close(self) -> None:
        """Stop listening and end connections. Does nothing when it was not started."""
        if self._server is not None:
            self._server.close()
            self._server = None
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _alive(self, _: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def _ready(self, request: web.Request) -> web.Response:
        problems = self.problems()
        if not problems and "verbose" not in request.query:
            return web.Response(text="ok")
        lines = [
            f"[-]{name} failed: {problems[name]}" if name in problems else f"[+]{name} ok" for name in self._checks
        ]
        lines.append("readyz check failed" if problems else "readyz check passed")
        return web.Response(status=500 if problems else 200, text="\n".join(lines) + "\n")

    async def _metrics(self, request: web.Request) -> web.Response:
        body, content_type = metrics.render(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})


@web.middleware
async def _note(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Note that something was asked."""
    connection = request.protocol
    assert isinstance(connection, _Connection), "made by HealthServer"
    connection.asked()
    return await handler(request)


class _Connection(web.RequestHandler):
    """aiohttp's HTTP protocol, with a limit for how many there are and for how long nothing is asked."""

    __slots__ = ("_end", "_open")

    def __init__(self, server: web.Server, opened: dict[_Connection, None]) -> None:
        options: dict[str, Any] = {
            "keepalive_timeout": _IDLE_SECONDS,
            "max_line_size": _FIELD_BYTES,
            "max_field_size": _FIELD_BYTES,
            "auto_decompress": False,  # no request has a body that is read
            "access_log": None,
        }
        super().__init__(server, loop=asyncio.get_running_loop(), **options)
        self._open = opened
        self._end: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if len(self._open) >= MAX_CONNECTIONS:
            next(iter(self._open)).abort()
        self.asked()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._forget()
        super().connection_lost(exc)

    def abort(self) -> None:
        """Close without waiting for the client, who may never read what is still to be sent."""
        self._forget()
        if isinstance(self.transport, asyncio.WriteTransport):
            self.transport.abort()

    def asked(self) -> None:
        """A request has come, or the connection has just been made. Half a header buys no time."""
        self._forget()
        self._open[self] = None
        self._end = asyncio.get_running_loop().call_later(_IDLE_SECONDS, self.abort)

    def _forget(self) -> None:
        self._open.pop(self, None)
        if self._end is not None:
            self._end.cancel()
            self._end = None


def _problem(check: Check) -> str | None:
    """Return why a check fails, or None."""
    try:
        result = check()
    except Exception as error:  # noqa: BLE001 - a broken check must not break the others
        return f"{type(error).__name__}: {error}"
    if isinstance(result, str):
        return result
    return None if result else "not ready"
