"""One HTTP exchange with the API server: bytes out, bytes in, every failure one of our own types.

Responsible for: the aiohttp sessions, headers prepared once, a timeout on every exchange, the one retry after a 401
with renewed credentials, client-go's request metrics, and splitting a stream into lines of any length.
Invariants: nothing of aiohttp gets out of here. A connection that was opened with an older client certificate is not
used again: aiohttp keeps idle connections by, among others, the TLS context of the request, and a renewed certificate
comes in another one. aiohttp repeats a request of an idempotent method once when a kept-alive connection turns out
to be closed; that is safe for our PUT and DELETE, whose preconditions make a repetition fail with 409 or 404.
Must not know: resources, objects.
"""

from __future__ import annotations

import asyncio
import io
import time
from typing import TYPE_CHECKING, Self

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from services.runtime import metrics
from services.runtime.kube.errors import ConnectionFailed, RequestTimeout, from_status

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from services.runtime.kube.config import Connection

JSON = "application/json"
DEFAULT_TIMEOUT = 10.0
UNAUTHORIZED = 401
_LEAST = 0.001  # seconds; aiohttp takes zero for no limit
SUCCESS = range(200, 300)
LARGE = 2**20  # bytes from which aiohttp wants a body as a stream, so that writing it does not hold up the loop

REQUESTS = metrics.counter(
    "rest_client_requests_total",
    "HTTP requests to the API server by status code, method and host; <error> when there was no answer.",
    ("code", "method", "host"),
)
DURATION = metrics.histogram(
    "rest_client_request_duration_seconds",
    "Seconds from sending a request to having its answer, by HTTP method; watches are not in it.",
    ("verb",),
    buckets=(0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0),
)
_SENT = metrics.counter("groundwork_client_sent_bytes_total", "Bytes of the bodies of requests to the API server.")
_RECEIVED = metrics.counter(
    "groundwork_client_received_bytes_total",
    "Bytes of the bodies of the API server's answers, decompressed: call, or watch.",
    ("kind",),
)
_RECEIVED_CALL, _RECEIVED_WATCH = _RECEIVED.labels("call").inc, _RECEIVED.labels("watch").inc


class Wire:
    """The sessions with one API server; opened and closed by the Client that owns them."""

    def __init__(self, connection: Connection, user_agent: str, timeout: float) -> None:
        self.connection = connection
        self.timeout = timeout
        self._user_agent = user_agent
        self._sessions: tuple[aiohttp.ClientSession, aiohttp.ClientSession] | None = None
        self._host = URL(connection.url).authority
        self._timeouts: dict[float, aiohttp.ClientTimeout] = {}
        self._headers: dict[tuple[str, str], CIMultiDict[str]] = {}
        self._headers_of: str | None = None
        self._counters: dict[tuple[str, str], Callable[[], None]] = {}
        self._observers: dict[str, Callable[[float], None]] = {}

    async def __aenter__(self) -> Self:
        """Open a session for requests and one for streams."""
        self._sessions = self.connection.session(), self.connection.session(streams=True)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the sessions and their connections."""
        if self._sessions is not None:
            for session in self._sessions:
                await session.close()
            self._sessions = None

    async def send(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        content_type: str = JSON,
        accept: str = JSON,
        timeout: float | None = None,  # noqa: ASYNC109 - one timer for the exchange, not one for each await in it
        extra: dict[str, str] | None = None,
        check: Callable[[], None] | None = None,
    ) -> bytes:
        """Carry out one exchange; `path` is encoded already and includes the query. Raises KubeError.

        `check` is called right before each request that is sent, the one after a 401 too; what it raises refuses it.
        """
        seconds = self.timeout if timeout is None else timeout
        started = time.perf_counter()
        response = await self._request(
            method, path, body, content_type=content_type, accept=accept, seconds=seconds, extra=extra, check=check
        )
        try:
            content = await response.read()
            _RECEIVED_CALL(len(content))
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise _failure(error, method, path) from error
        self._observe(method, time.perf_counter() - started)
        if response.status not in SUCCESS:
            raise from_status(response.status, content, response.headers.get("Retry-After"))
        return content

    async def lines(
        self, path: str, *, accept: str = JSON, opened: Callable[[], None] | None = None
    ) -> AsyncGenerator[bytes, None]:
        """Stream the lines of a GET until the server ends it. Only connecting and the headers have a timeout.

        A line may be of any length. What follows the last newline when the stream ends was cut off and is dropped.
        """
        try:
            async with asyncio.timeout(self.timeout):
                response = await self._request("GET", path, accept=accept, seconds=None)
        except TimeoutError as error:
            raise RequestTimeout(f"GET {path}: no answer in {self.timeout} s") from error
        try:
            if response.status not in SUCCESS:
                async with asyncio.timeout(self.timeout):
                    content = await response.read()
                raise from_status(response.status, content, response.headers.get("Retry-After"))
            if opened is not None:
                opened()
            parts: list[bytes] = []
            while chunk := await response.content.readany():
                _RECEIVED_WATCH(len(chunk))
                head, *rest = chunk.split(b"\n")
                parts.append(head)
                if not rest:
                    continue
                yield b"".join(parts)
                for line in rest[:-1]:
                    yield line
                parts = [rest[-1]]
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise _failure(error, "GET", path) from error
        finally:
            _abort(response)

    async def _request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        content_type: str = JSON,
        accept: str,
        seconds: float | None,
        extra: dict[str, str] | None = None,
        check: Callable[[], None] | None = None,
    ) -> aiohttp.ClientResponse:
        """Send and return with the headers of the answer; a 401 is tried once more with renewed credentials.

        All of that, and reading the answer, ends within so many `seconds`; None leaves it to the caller.
        """
        connection = self.connection
        connection.renew_when_due()
        ends = None if seconds is None else asyncio.get_running_loop().time() + seconds
        generation = connection.generation
        limit, headers = self._limit(seconds), self._prepared(content_type, accept, extra)
        response = await self._exchange(method, path, body, headers, limit, check)
        if response.status != UNAUTHORIZED:
            return response
        try:
            async with asyncio.timeout_at(ends):
                renewed = await connection.renew(generation)
        except BaseException as error:
            _abort(response)
            if isinstance(error, TimeoutError):
                raise RequestTimeout(f"{method} {path.partition('?')[0]}: the credentials cannot be renewed") from error
            raise
        if not renewed:
            return response
        _abort(response)
        if ends is not None:
            left = max(_LEAST, ends - asyncio.get_running_loop().time())
            limit = aiohttp.ClientTimeout(total=left, sock_connect=5.0)
        headers = self._prepared(content_type, accept, extra)
        return await self._exchange(method, path, body, headers, limit, check)

    async def _exchange(
        self,
        method: str,
        path: str,
        body: bytes | None,
        headers: CIMultiDict[str],
        limit: aiohttp.ClientTimeout,
        check: Callable[[], None] | None,
    ) -> aiohttp.ClientResponse:
        if self._sessions is None:
            raise RuntimeError("the client is used outside its `async with`")
        if check is not None:
            check()
        _SENT.inc(len(body or b""))
        connection = self.connection
        try:
            response = await self._sessions[limit.total is None].request(
                method,
                URL(connection.url + path, encoded=True),
                data=io.BytesIO(body) if body is not None and len(body) > LARGE else body,
                headers=headers,
                timeout=limit,
                allow_redirects=False,
                ssl=connection.tls or True,
                server_hostname=connection.server_hostname,
            )
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self._count("<error>", method)
            raise _failure(error, method, path) from error
        self._count(str(response.status), method)
        return response

    def _prepared(self, content_type: str, accept: str, extra: dict[str, str] | None) -> CIMultiDict[str]:
        """Return the headers, built once for each pair of types and rebuilt when the credentials change.

        Accept-Encoding is identity: compressing costs the server, and us, more CPU than a network inside a cluster or
        data centre gains from it.
        """
        authorization = self.connection.authorization
        if authorization is not self._headers_of:
            self._headers.clear()
            self._headers_of = authorization
        headers = self._headers.get((content_type, accept))
        if headers is None:
            headers = CIMultiDict(
                {
                    "Accept": accept,
                    "Accept-Encoding": "identity",
                    "Content-Type": content_type,
                    "User-Agent": self._user_agent,
                }
            )
            if authorization:
                headers["Authorization"] = authorization
            self._headers[content_type, accept] = headers
        if extra:
            headers = headers.copy()
            headers.update(extra)
        return headers

    def _limit(self, seconds: float | None) -> aiohttp.ClientTimeout:
        key = -1.0 if seconds is None else seconds
        limit = self._timeouts.get(key)
        if limit is None:
            limit = aiohttp.ClientTimeout(total=seconds, sock_connect=5.0)
            self._timeouts[key] = limit
        return limit

    def _count(self, code: str, method: str) -> None:
        count = self._counters.get((code, method))
        if count is None:
            count = REQUESTS.labels(code, method, self._host).inc
            self._counters[code, method] = count
        count()

    def _observe(self, method: str, seconds: float) -> None:
        observe = self._observers.get(method)
        if observe is None:
            observe = DURATION.labels(method).observe
            self._observers[method] = observe
        observe(seconds)


def _abort(response: aiohttp.ClientResponse) -> None:
    """Drop a connection without the farewell of TLS, for which a peer that stalls would be waited for."""
    if response.connection is not None and response.connection.transport is not None:
        response.connection.transport.abort()
    response.close()


def _failure(error: Exception, method: str, path: str) -> ConnectionFailed:
    """Map a network error; the path without its query is enough to say what was tried."""
    kind = RequestTimeout if isinstance(error, TimeoutError) else ConnectionFailed
    return kind(f"{method} {path.partition('?')[0]}: {str(error) or type(error).__name__}")
