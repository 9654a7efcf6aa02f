"""What stands between one service and the API server, and everything that can go wrong on the way.

Responsible for: an HTTP proxy that passes requests and watches on as the administrator, until told to fail: to stall
watches, leave connections half open, refuse, lose answers of writes that were carried out, answer with errors.
Invariants: `heal` ends everything but what is half open: such connections stay silent until the client gives them up.
"""

from __future__ import annotations

import asyncio
import contextlib
import random

import aiohttp
from aiohttp import web
from yarl import URL

from services.runtime.kube import config
from tests.integration.proxy import HOP_HEADERS

_CONNECT_SECONDS = 10.0
_REASONS = {401: "Unauthorized", 409: "Conflict", 429: "TooManyRequests", 500: "InternalError"}
_WRITES = {"POST", "PUT", "PATCH", "DELETE"}


class Gate:
    """`async with Gate(kubeconfig, rng) as gate`; `gate.url` on each of `hosts` is plain HTTP."""

    def __init__(self, kubeconfig, seed, hosts=("127.0.0.1",)):
        self._kubeconfig = kubeconfig
        self._rng = random.Random(seed)
        self._hosts = hosts
        self._stack = contextlib.AsyncExitStack()
        self._dead = set()
        self._transports = {}
        self.port = 0
        self.requests = 0
        self._flows = asyncio.Event()
        self._watches_flow = asyncio.Event()
        self.heal()

    async def __aenter__(self):
        connection = await config.load(str(self._kubeconfig))
        self._base = connection.url
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=connection.tls or True, limit=0),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS),
            auto_decompress=False,
        )
        self._session = await self._stack.enter_async_context(session)
        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        for host in self._hosts:
            await web.TCPSite(runner, host, self.port).start()
            self.port = runner.addresses[0][1]
        return self

    async def __aexit__(self, *_):
        await self._stack.aclose()
        await asyncio.sleep(0)

    def url(self, host="127.0.0.1"):
        return f"http://{host}:{self.port}"

    # What goes wrong

    def heal(self):
        """Let everything pass again."""
        self._flows.set()
        self._watches_flow.set()
        self._refusing = False
        self._statuses = ()
        self._writes_only = False
        self._share = 0.0
        self._lose = 0.0
        self._delay = 0.0

    def partition(self):
        """Let nothing through in either direction; what waits goes on after `heal`."""
        self._flows.clear()
        self._watches_flow.clear()

    def stall_watches(self):
        self._watches_flow.clear()

    def half_open(self, *, watches):
        """Never say anything again on the connections there are: on those with a watch, or on the others."""
        self._dead |= {t for t, is_watch in self._transports.items() if is_watch == watches}

    def cut(self):
        """Cut every connection."""
        for transport in list(self._transports):
            transport.abort()

    def refuse(self):
        """Take requests and hang up."""
        self._refusing = True
        self.cut()

    def storm(self, *statuses, share=0.7, writes_only=False):
        """Answer a share of the requests with one of these statuses; they never reach the server."""
        self._statuses, self._share, self._writes_only = statuses, share, writes_only

    def lose_answers(self, share=0.5):
        """Carry writes out, and hang up instead of answering."""
        self._lose = share

    def slow(self, seconds):
        """Let every answer take up to so long."""
        self._delay = seconds

    # Passing on

    async def _handle(self, request):
        transport, watch = request.transport, "watch" in request.query
        if transport is None:
            raise ConnectionResetError
        self._transports[transport] = watch
        self.requests += 1
        for gone in [t for t in self._transports if t.is_closing() and t is not transport]:
            self._transports.pop(gone)
            self._dead.discard(gone)
        body = await request.read()
        await self._passage(transport, self._flows)
        if self._refusing:
            transport.abort()
            return web.Response()
        write = request.method in _WRITES
        if (write or not self._writes_only) and self._rng.random() < self._share:
            return _refusal(self._rng.choice(self._statuses))
        if self._delay:
            await asyncio.sleep(self._rng.uniform(0, self._delay))
        lost = write and self._rng.random() < self._lose
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP_HEADERS}
        if not watch:
            headers["Accept-Encoding"] = request.headers.get("Accept-Encoding", "identity")
        url = URL(f"{self._base}{request.raw_path}", encoded=True)
        try:
            async with self._session.request(request.method, url, headers=headers, data=body) as upstream:
                if watch:
                    return await self._follow(request, transport, upstream)
                content = await upstream.read()
        except (aiohttp.ClientError, ConnectionError, TimeoutError):
            transport.abort()
            return web.Response()
        await self._passage(transport, self._flows)
        if lost:
            transport.abort()
        passed = {n: v for n, v in upstream.headers.items() if n.lower() not in HOP_HEADERS - {"content-encoding"}}
        return web.Response(status=upstream.status, headers=passed, body=content)

    async def _follow(self, request, transport, upstream):
        passed = {n: v for n, v in upstream.headers.items() if n.lower() not in HOP_HEADERS}
        response = web.StreamResponse(status=upstream.status, headers=passed)
        await response.prepare(request)
        try:
            async for chunk in upstream.content.iter_any():
                await self._passage(transport, self._watches_flow)
                await response.write(chunk)
            await self._passage(transport, self._watches_flow)
            await response.write_eof()
        except (aiohttp.ClientError, ConnectionError):
            await self._passage(transport, self._watches_flow)  # a partition hides the end of the server, too
            transport.abort()
        return response

    async def _passage(self, transport, flow):
        """Wait until bytes may pass: for ever on a connection that is half open."""
        while transport in self._dead or not flow.is_set():
            if transport in self._dead:
                await asyncio.Event().wait()
            await flow.wait()


def _refusal(status):
    """An error as the API server words it; of 5xx also as something before it does."""
    if status in _REASONS:
        body = {
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "reason": _REASONS[status],
            "message": "made by the fault runner",
            "code": status,
        }
        headers = {"Retry-After": "1"} if status in {429, 503} else {}
        return web.json_response(body, status=status, headers=headers)
    return web.Response(status=status, text="no healthy upstream")
