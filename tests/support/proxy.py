"""A TCP proxy in front of a server, to make the network between a client and it as bad as a test needs."""

import asyncio
import contextlib


class Proxy:
    """`async with Proxy(host, port) as proxy`: listens on 127.0.0.1:proxy.port and passes bytes on both ways.

    `stall()` holds back every byte while connections stay open, as a lost route does; `resume()` lets them through.
    """

    def __init__(self, host, port):
        self._target = (host, port)
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._tasks = set()
        self._server = None

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_):
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)  # an aborted transport closes its socket in the next turn of the loop

    @property
    def port(self):
        return self._server.sockets[0].getsockname()[1]

    def stall(self):
        self._flowing.clear()

    def resume(self):
        self._flowing.set()

    async def _accept(self, reader, writer):
        self._tasks.add(asyncio.current_task())
        try:
            await self._flowing.wait()
            upstream_reader, upstream_writer = await asyncio.open_connection(*self._target)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass_on(reader, upstream_writer))
                group.create_task(self._pass_on(upstream_reader, writer))
        except (OSError, ExceptionGroup, asyncio.CancelledError):
            pass  # either side has gone, or the test has ended
        finally:
            self._tasks.discard(asyncio.current_task())

    async def _pass_on(self, reader, writer):
        try:
            while data := await reader.read(65536):
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
