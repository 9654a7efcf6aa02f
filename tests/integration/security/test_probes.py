"""The port of probes and metrics, which everybody in the pod network can reach."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from services.runtime import health
from services.runtime.health import MAX_CONNECTIONS, HealthServer
from services.runtime.settings import Address
from tests.support.waiting import until


@pytest.fixture
async def server():
    made = HealthServer(Address("127.0.0.1", 0))
    made.address = await made.start()
    yield made
    await made.close()
    await until(lambda: not made.connections)


async def probe(server):
    """What the kubelet does: a new connection for each question."""
    connector = aiohttp.TCPConnector(force_close=True)
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get(f"http://{server.address}/livez") as answer,
    ):
        return answer.status, await answer.text()


@pytest.mark.parametrize("sent", [b"", b"GET /metrics HTTP/1.1\r\nX: "], ids=["nothing", "half a header"])
async def test_who_holds_connections_keeps_no_probe_out(server, sent):
    held = []
    try:
        for number in range(3 * MAX_CONNECTIONS):
            held.append(await asyncio.open_connection(*server.address))
            held[-1][1].write(sent)
            if number % 50 == 0:
                assert await probe(server) == (200, "ok")
        assert await probe(server) == (200, "ok")
        assert len(server.connections) <= MAX_CONNECTIONS
        assert await held[0][0].read() == b"", "the first has made room"
    finally:
        for _, writer in held:
            writer.transport.abort()


async def test_a_connection_that_is_used_makes_room_last(server):
    async with aiohttp.ClientSession() as session:

        async def scrape():
            async with session.get(f"http://{server.address}/metrics") as answer:
                assert answer.status == 200
                await answer.read()

        await scrape()
        (own,) = server.connections
        held = []
        try:
            for _ in range(3):
                held += [await asyncio.open_connection(*server.address) for _ in range(MAX_CONNECTIONS - 10)]
                await scrape()
            assert own in server.connections
        finally:
            for _, writer in held:
                writer.transport.abort()


async def test_a_connection_over_which_nothing_is_asked_ends(server, monkeypatch):
    monkeypatch.setattr(health, "_IDLE_SECONDS", 0.2)
    reader, writer = await asyncio.open_connection(*server.address)
    writer.write(b"GET /livez HTTP/1.1\r\nX: ")
    assert await reader.read() == b""
    writer.transport.abort()
