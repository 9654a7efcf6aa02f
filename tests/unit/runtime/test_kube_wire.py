"""Exchanges with a server that is only a few lines long: credentials that change, and answers of no API server."""

import asyncio
import json
import ssl
from contextlib import asynccontextmanager

import pytest

from services.runtime.kube import errors
from services.runtime.kube.config import Connection, Settings
from services.runtime.kube.transport import Client
from tools.pki import Pki


@asynccontextmanager
async def serving(answer, context=None):
    """A server at the URL it gives: `answer(head, certificate)` returns the status line's rest, headers and body."""
    tasks = set()

    async def serve(reader, writer):
        tasks.add(asyncio.current_task())
        certificate = writer.get_extra_info("peercert") or {}
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                for line in head.lower().split(b"\r\n"):
                    if line.startswith(b"content-length:"):
                        await reader.readexactly(int(line.partition(b":")[2]))
                status, headers, body = answer(head, certificate)
                await asyncio.sleep(0.01)
                fields = {"Content-Length": len(body), **headers}
                lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
                writer.write(f"HTTP/1.1 {status}\r\n{lines}\r\n".encode() + body)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        port = server.sockets[0].getsockname()[1]
        yield f"http{'s' if context else ''}://127.0.0.1:{port}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Source:
    """Gives the settings that it holds."""

    description = "a source"

    def __init__(self, **settings):
        self.settings = settings
        self.reads = 0

    async def read(self):
        self.reads += 1
        return Settings(**self.settings)


async def connect(source):
    return Connection(source, await source.read())


async def status(client):
    try:
        await client.raw("GET", "/a")
    except errors.KubeError as error:
        return type(error)
    return 200


REFUSED = json.dumps({"kind": "Status", "reason": "Unauthorized", "code": 401}).encode()


@pytest.fixture
def pki(tmp_path):
    return Pki(tmp_path / "pki")


def common_name(certificate):
    return dict(pair for entry in certificate.get("subject", ()) for pair in entry).get("commonName")


@pytest.mark.parametrize("complete", [True, False])
async def test_after_a_client_certificate_is_renewed_no_connection_shows_the_old_one(pki, tmp_path, complete):
    pairs = {name: pki.client(name, name, "") for name in ("old", "new")}
    used = tmp_path / "used.crt", tmp_path / "used.key"

    def install(certificate, key):
        for path, content in zip(used, (certificate, key), strict=True):
            fresh = path.with_suffix(".fresh")
            fresh.write_bytes(content.read_bytes())
            fresh.rename(path)

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(pki.ca.certificate))
    context.verify_mode = ssl.CERT_OPTIONAL
    server = pki.server("server", ["localhost"], ["127.0.0.1"])
    context.load_cert_chain(server.certificate, server.key)
    accepted = "old"

    def answer(_head, certificate):
        return ("200 OK", {}, b"{}") if common_name(certificate) == accepted else ("401 Unauthorized", {}, REFUSED)

    install(pairs["old"].certificate, pairs["old"].key)
    async with serving(answer, context) as url:
        files = {"ca_file": str(pki.ca.certificate), "cert_file": str(used[0]), "key_file": str(used[1])}
        connection = await connect(Source(url=url, **files))
        async with Client(connection) as work, Client(connection) as lease:
            assert await asyncio.gather(*(status(work) for _ in range(5)), status(lease)) == [200] * 6
            accepted = "new"
            if not complete:
                # Between the two writes of whoever renews it, the certificate has no key.
                install(pairs["new"].certificate, pairs["old"].key)
                assert await status(work) is errors.Unauthorized
            install(pairs["new"].certificate, pairs["new"].key)
            assert [await status(work) for _ in range(8)] == [200] * 8
            assert [await status(lease) for _ in range(3)] == [200] * 3
            assert await asyncio.gather(*(status(work) for _ in range(8))) == [200] * 8
