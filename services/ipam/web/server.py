"""HTTP for the status page: which address shows what, with a limit for everything that a client may take.

Responsible for: requests into pages, errors included, and the connections they come over.
Invariants: only GET and HEAD are answered, and nothing that is asked changes anything; every answer has the headers of
`policy`; one page is made at a time and kept for a second, longer if it was costly to make, so that many readers cost
no more than one; a connection ends when nothing was asked over it for a minute.
Must not know: pools.
"""

from __future__ import annotations

import asyncio
import importlib.resources
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import unquote

from aiohttp import web
from aiohttp.http import HttpProcessingError

from services.ipam.web import document, policy
from services.runtime import log

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable, Collection, Mapping

    from services.runtime.clock import Clock

_LOG: Final = log.get("ipam.web")
_CONNECTIONS: Final = 64
_IDLE_SECONDS: Final = 60.0
_RENDER_SECONDS: Final = 30.0
_QUEUED: Final = 16
_KEPT_SECONDS: Final = 1.0
_REST: Final = 4.0
"""A page is kept for so many times the seconds that making it took: a reader takes a fifth of a core at most."""
_LONGEST_REST: Final = 30.0
_KEPT_PAGES: Final = 32
_KEPT_BYTES: Final = 1 << 20
_END_SECONDS: Final = 1.0
_FIELD_BYTES: Final = 8190
_STATIC: Final = {"status.css": "text/css", "status.js": "text/javascript", "icon.svg": "image/svg+xml"}
HTML: Final = "text/html"
JSON: Final = "application/json"


class Page(NamedTuple):
    """An answer: its status, media type and bytes."""

    body: bytes
    kind: str = HTML
    status: HTTPStatus = HTTPStatus.OK


class AskedWrongError(Exception):
    """Something in the request's address cannot be used; the text says what."""


class WebServer:
    """Serves what `show` makes of a path and a query; None from it is a page that does not exist."""

    def __init__(
        self,
        show: Callable[[tuple[str, ...], Mapping[str, str]], Awaitable[Page | None]],
        clock: Clock,
        hosts: Collection[str] = (),
    ) -> None:
        self._show = show
        self._clock = clock
        self._hosts = hosts
        self._one = asyncio.Lock()
        self._queued = 0
        self._kept: dict[str, tuple[float, Page]] = {}
        folder = importlib.resources.files(__package__) / "static"
        self._static = {name: Page((folder / name).read_bytes(), kind) for name, kind in _STATIC.items()}
        self.connections: set[_Connection] = set()

    async def run(self, sock: socket.socket) -> None:
        """Serve a bound socket until cancelled."""
        connections = _Server(self)
        loop = asyncio.get_running_loop()
        server = await loop.create_server(connections, sock=sock)
        _LOG.info("Serving the status page", address="{}:{}".format(*sock.getsockname()[:2]))
        try:
            await asyncio.Event().wait()
        finally:
            server.close()
            connections.pre_shutdown()
            await connections.shutdown(_END_SECONDS)

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request, whatever it is."""
        connection = request.protocol
        assert isinstance(connection, _Connection), "made by _Server"
        connection.asked()
        headers = {**policy.HEADERS, "Server": "groundwork"}
        if not policy.answers(request.headers.get("Host", ""), self._hosts):
            text = "This page is not served under that name. Add it with --web-host, or use an address or localhost."
            page = _error(HTTPStatus.MISDIRECTED_REQUEST, text)
        elif request.method not in policy.METHODS:
            headers["Allow"] = ", ".join(policy.METHODS)
            page = _error(HTTPStatus.METHOD_NOT_ALLOWED, "This page is read-only.")
        else:
            page = await self._page(request)
        if page.status is HTTPStatus.SERVICE_UNAVAILABLE:
            headers["Retry-After"] = "5"
        return web.Response(
            body=page.body, status=page.status, content_type=page.kind, charset="utf-8", headers=headers
        )

    async def _page(self, request: web.BaseRequest) -> Page:
        parts = tuple(unquote(part) for part in request.rel_url.raw_path.split("/")[1:])
        if len(parts) == 2 and parts[0] == "static" and parts[1] in self._static:  # noqa: PLR2004 - folder and file
            return self._static[parts[1]]
        asked = request.rel_url.raw_path_qs
        kept = self._kept.get(asked)
        if kept is not None and self._clock.monotonic() < kept[0]:
            return kept[1]
        if self._queued >= _QUEUED:
            return _error(HTTPStatus.SERVICE_UNAVAILABLE, "Too many readers at this moment.")
        self._queued += 1
        began = ended = self._clock.monotonic()
        try:
            async with asyncio.timeout(_RENDER_SECONDS), self._one:
                began = self._clock.monotonic()
                page = await self._made(parts, dict(request.rel_url.query))
                ended = self._clock.monotonic()
        except TimeoutError:
            return _error(HTTPStatus.SERVICE_UNAVAILABLE, "This took too long.")
        finally:
            self._queued -= 1
        if len(page.body) <= _KEPT_BYTES:
            self._kept = {key: kept for key, kept in self._kept.items() if kept[0] > self._clock.monotonic()}
            if len(self._kept) < _KEPT_PAGES:
                self._kept[asked] = (ended + min(max(_KEPT_SECONDS, _REST * (ended - began)), _LONGEST_REST), page)
        return page

    async def _made(self, parts: tuple[str, ...], query: Mapping[str, str]) -> Page:
        try:
            page = await self._show(parts, query)
        except AskedWrongError as error:
            return _error(HTTPStatus.BAD_REQUEST, str(error))
        except Exception as error:  # noqa: BLE001 - a page that cannot be made must not end the allocator
            _LOG.exception("A status page could not be made", path="/".join(parts), error=error)
            return _error(HTTPStatus.INTERNAL_SERVER_ERROR, "The page could not be made; the log says why.")
        return page or _error(HTTPStatus.NOT_FOUND, "There is nothing here. A pool that was here may be gone.")


def _error(status: HTTPStatus, text: str) -> Page:
    return Page(document.message(f"{status.value} {status.phrase}", text), HTML, status)


class _Server(web.Server):
    """Makes our connections instead of aiohttp's."""

    def __init__(self, owner: WebServer) -> None:
        super().__init__(owner.answer)
        self.owner = owner

    def __call__(self) -> _Connection:
        return _Connection(
            self,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=_IDLE_SECONDS,
            max_line_size=_FIELD_BYTES,
            max_field_size=_FIELD_BYTES,
            auto_decompress=False,  # no request has a body that is read
            access_log=None,
        )


class _Connection(web.RequestHandler):
    """aiohttp's HTTP protocol with one limit for all that a client may wait with: to ask, to go on, to read."""

    __slots__ = ("_end", "_open")

    def __init__(self, server: _Server, **options: Any) -> None:
        super().__init__(server, **options)
        self._open = server.owner.connections
        self._end: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if len(self._open) >= _CONNECTIONS:
            self._abort()
            return
        self._open.add(self)
        self.asked()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._open.discard(self)
        if self._end is not None:
            self._end.cancel()
        super().connection_lost(exc)

    def asked(self) -> None:
        """A request has come, or the connection has just been made."""
        if self._end is not None:
            self._end.cancel()
        self._end = asyncio.get_running_loop().call_later(_IDLE_SECONDS, self._abort)

    def log_exception(self, *args: Any, **options: Any) -> None:
        """Keep what is no HTTP out of the log: anybody could fill it."""
        error = options.get("exc_info")
        if isinstance(error, HttpProcessingError):
            _LOG.debug("A request is no HTTP", error=error)
        else:
            super().log_exception(*args, **options)

    def _abort(self) -> None:
        if isinstance(self.transport, asyncio.WriteTransport):
            self.transport.abort()
