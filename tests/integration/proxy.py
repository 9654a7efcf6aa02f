"""What stands between a client and the API server when something goes wrong: a TCP proxy and an HTTP proxy with faults.

Both run on the test's own event loop and pass everything through until told otherwise. The TCP proxy does not look into
TLS, so certificates are the server's own. The HTTP proxy takes plain HTTP and speaks to the server as the admin.
"""

from __future__ import annotations

import asyncio
import contextlib
from urllib.parse import urlsplit

import yaml
from aiohttp import ClientConnectionError, web
from yarl import URL

from services.runtime.kube import config

HOP_HEADERS = {"connection", "transfer-encoding", "content-length", "content-encoding", "host", "keep-alive"}


def kubeconfig_at(kubeconfig, url, path):
    """Write a copy of a kubeconfig that goes to another address; returns its path."""
    content = yaml.safe_load(kubeconfig.read_text())
    for cluster in content["clusters"]:
        cluster["cluster"]["server"] = url
    path.write_text(yaml.safe_dump(content))
    path.chmod(0o600)
    return path


class TcpProxy:
    """Passes bytes on. `freeze` leaves what is connected hanging, `drop` cuts it, `refuse` takes no more of them."""

    def __init__(self, upstream):
        parts = urlsplit(upstream)
        self._upstream = (parts.hostname, parts.port)
        self._tasks = set()
        self._writers = set()
        self._frozen = set()
        self._stalled = False
        self._server = None
        self.port = 0
        self.accepted = 0

    async def __aenter__(self):
        await self.accept()
        return self

    async def __aexit__(self, *_):
        await self.refuse()
        self.drop()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)  # an aborted transport closes its socket in the next turn of the loop

    @property
    def url(self):
        return f"https://127.0.0.1:{self.port}"

    async def accept(self):
        """Take connections, on the same port as before."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def refuse(self):
        """Take no more connections; what is connected stays."""
        if self._server is not None:
            self._server.close()
            self._server = None
            await asyncio.sleep(0)

    def drop(self):
        """Cut every connection."""
        for writer in list(self._writers):
            writer.transport.abort()
        for task in list(self._tasks):
            task.cancel()
        self._frozen.clear()

    def freeze(self):
        """Forward nothing more on the connections there are, and close none of them; new ones work."""
        self._frozen |= self._tasks

    def stall(self):
        """Take new connections too, but forward nothing."""
        self._stalled = True
        self.freeze()

    def recover(self):
        """End a stall for new connections."""
        self._stalled = False

    async def _serve(self, reader, writer):
        self.accepted += 1
        task = asyncio.current_task()
        self._tasks.add(task)
        self._writers.add(writer)
        if self._stalled:
            self._frozen.add(task)
        upstream = None
        try:
            upstream_reader, upstream = await asyncio.open_connection(*self._upstream)
            self._writers.add(upstream)
            await asyncio.gather(
                self._pump(reader, upstream, task), self._pump(upstream_reader, writer, task), return_exceptions=True
            )
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            for end in (writer, upstream):
                if end is not None:
                    self._writers.discard(end)
                    end.transport.abort()

    async def _pump(self, reader, writer, task):
        while data := await reader.read(65536):
            if task in self._frozen:
                await asyncio.Event().wait()
            writer.write(data)
            await writer.drain()
        writer.transport.abort()


class HttpProxy:
    """Passes requests on. `fault` may answer instead: called with each request, it returns a response or None."""

    def __init__(self, kubeconfig):
        self._kubeconfig = kubeconfig
        self._stack = contextlib.AsyncExitStack()
        self.fault = None
        self.requests = []
        self.watches = []
        self.url = ""

    async def __aenter__(self):
        self._connection = await config.load(self._kubeconfig)
        self._session = await self._stack.enter_async_context(self._connection.session())
        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_):
        await self._stack.aclose()
        await asyncio.sleep(0)

    def cut_watches(self):
        """Cut the connections of the watches that are open."""
        for transport in self.watches:
            transport.abort()
        self.watches.clear()

    async def _handle(self, request):
        self.requests.append(request)
        if self.fault is not None and (answer := self.fault(request)) is not None:
            return answer
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP_HEADERS}
        url = URL(f"{self._connection.url}{request.raw_path}", encoded=True)
        async with self._session.request(request.method, url, headers=headers, data=await request.read()) as upstream:
            passed = {name: value for name, value in upstream.headers.items() if name.lower() not in HOP_HEADERS}
            response = web.StreamResponse(status=upstream.status, headers=passed)
            await response.prepare(request)
            if "watch" in request.query:
                self.watches.append(request.transport)
            try:
                async for chunk in upstream.content.iter_any():
                    await response.write(chunk)
                await response.write_eof()
            except (ClientConnectionError, ConnectionResetError):
                request.transport.abort()
            return response


def refusal(status, *, retry_after=None, body="no healthy upstream"):
    """An error answer: the text of something that stands in front of a server, or a meta/v1 Status."""
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    if isinstance(body, dict):
        return web.json_response(body, status=status, headers=headers)
    return web.Response(status=status, headers=headers, text=body)
