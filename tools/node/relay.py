"""Passes TCP connections into a network namespace: `relay.py PORT PID HOST TARGET`.

Listens on 127.0.0.1:PORT where it is started, then enters the network namespace of process PID, from where it connects
to HOST:TARGET: a socket stays in the namespace that it was made in. So clients outside reach a node that has no link to
the outside. Run with `python -I -S`.
"""

import asyncio
import ctypes
import os
import socket
import sys
from contextlib import suppress

_CLONE_NEWNET = 0x40000000
_CHUNK_BYTES = 1 << 16


def _enter(pid: int) -> None:
    namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    # os.setns exists from Python 3.12 on.
    if ctypes.CDLL(None, use_errno=True).setns(namespace, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), f"setns(network namespace of {pid})")
    os.close(namespace)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while chunk := await reader.read(_CHUNK_BYTES):
            writer.write(chunk)
            await writer.drain()
        writer.write_eof()


async def _serve(listener: socket.socket, host: str, port: int) -> None:
    running: set[asyncio.Task[None] | None] = set()  # asyncio itself keeps no hold of a connection's task

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        running.add(task)
        try:
            await relay(reader, writer)
        finally:
            running.discard(task)

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, here = await asyncio.open_connection(host, port)
        except OSError:
            writer.close()
            return
        try:
            await asyncio.gather(_copy(reader, here), _copy(there, writer))
        finally:
            here.close()
            writer.close()

    async with await asyncio.start_server(connected, sock=listener) as server:
        await server.serve_forever()


def main() -> None:
    """Listen here, connect there."""
    port, pid, host, target = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    listener = socket.create_server(("127.0.0.1", port))
    _enter(pid)
    asyncio.run(_serve(listener, host, target))


if __name__ == "__main__":
    main()
