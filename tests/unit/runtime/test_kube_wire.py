"""Exchanges with a server that is only a few lines long: credentials that change, and answers of no API server."""

import asyncio
import json
import ssl
from contextlib import asynccontextmanager

import pytest

from services.runtime.clock import SystemClock
from services.runtime.kube import errors
from services.runtime.kube.config import Connection, Settings
from services.runtime.kube.events import EventRecorder, Regarding
from services.runtime.kube.objects import KubeObject, ObjectMeta
from services.runtime.kube.transport import Client, PatchKind
from services.runtime.leader import LEASES, LeaderElector
from services.runtime.leader_decide import Timing
from tools.pki import Pki


@asynccontextmanager
async def serving(answer, context=None):
    """A server at the URL it gives: `answer(request, certificate)` returns status, headers and body."""
    tasks = set()

    async def serve(reader, writer):
        tasks.add(asyncio.current_task())
        certificate = writer.get_extra_info("peercert") or {}
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                for line in head.lower().split(b"\r\n"):
                    if line.startswith(b"content-length:"):
                        head += await reader.readexactly(int(line.partition(b":")[2]))
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


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)


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


class Hung(Source):
    """Can be read once; later it takes until `go`."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.go = asyncio.Event()

    async def read(self):
        self.reads += 1
        if self.reads > 1:
            await self.go.wait()
            self.settings["authorization"] = "Bearer new"
        return Settings(**self.settings)


def takes_new_only(request, _certificate):
    return ("200 OK", {}, b"{}") if b"Bearer new" in request else ("401 Unauthorized", {}, REFUSED)


async def test_a_request_ends_in_time_while_its_credentials_are_renewed_and_all_wait_for_one_reading():
    async with serving(takes_new_only) as url:
        source = Hung(url=url, authorization="Bearer old")
        async with Client(await connect(source), timeout=0.2) as client, asyncio.timeout(20):
            assert await asyncio.gather(*(status(client) for _ in range(5))) == [errors.RequestTimeout] * 5
            with pytest.raises(errors.RequestTimeout):
                await anext(client.watch(LEASES, resource_version="1", timeout_seconds=1))
            assert source.reads == 2
            source.go.set()
            assert await status(client) == 200
            assert source.reads == 2


async def test_a_request_does_not_wait_for_a_renewal_that_is_only_due():
    async with serving(lambda *_: ("200 OK", {}, b"{}")) as url:
        source = Hung(url=url, authorization="Bearer old")
        connection = await connect(source)
        async with Client(connection) as client, asyncio.timeout(20):
            connection.renew_at = 0.0
            assert await status(client) == 200
            source.go.set()
            await connection.renew()
            assert (connection.authorization, source.reads) == ("Bearer new", 2)


WRITES = {
    "create": lambda client, lease: client.create(LEASES, lease),
    "update": lambda client, lease: client.update(LEASES, lease),
    "update_status": lambda client, lease: client.update_status(LEASES, lease),
    "patch": lambda client, _: client.patch(LEASES, "a", "ns", {}, kind=PatchKind.MERGE),
    "delete": lambda client, _: client.delete(LEASES, "a", "ns"),
    "raw": lambda client, _: client.raw("POST", "/a", body=b"{}"),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
async def test_a_write_is_not_sent_when_leadership_ends_while_the_credentials_are_renewed(write):
    class Slow(Source):
        async def read(self):
            nonlocal leading
            leading = leading and not self.reads
            self.settings["authorization"] = f"Bearer {self.reads}"
            return await super().read()

    def answer(request, _certificate):
        sent.append(request)
        return "401 Unauthorized", {}, REFUSED

    def check():
        if not leading:
            raise errors.NotLeader("deposed")

    leading, sent = True, []
    async with serving(answer) as url, Client(await connect(Slow(url=url))) as client:
        lease = KubeObject(metadata=ObjectMeta(name="a", namespace="ns", resourceVersion="1"))
        with pytest.raises(errors.NotLeader):
            await write(client.guarded(check), lease)
        assert len(sent) == 1


# What stands in front of a server may answer in its place

IMPOSTORS = {
    "a page": ("200 OK", {"Content-Type": "text/html"}, b"<html>maintenance</html>"),
    "a page in another encoding": ("200 OK", {}, b'{"kind": "\xe9"}'),
    "JSON that is no object": ("200 OK", {}, b'"ok"'),
    "a redirect": ("302 Found", {"Location": "https://login.example.org"}, b""),
    "a redirect with a body": ("307 Temporary Redirect", {"Location": "https://login.example.org"}, b"{}"),
    "a page of errors": ("503 Service Unavailable", {}, b"<html>maintenance</html>"),
}


class Leases:
    """Keeps one Lease; the next answer may be an impostor's."""

    def __init__(self):
        self.lease = None
        self.version = 0
        self.impostor = None

    def answer(self, request, _certificate):
        if self.impostor is not None:
            impostor, self.impostor = self.impostor, None
            return impostor
        head, _, body = request.partition(b"\r\n\r\n")
        if not head.startswith(b"GET"):
            self.version += 1
            self.lease = json.loads(body)
            self.lease["metadata"]["resourceVersion"] = str(self.version)
        if self.lease is None:
            return "404 Not Found", {}, json.dumps({"kind": "Status", "reason": "NotFound", "code": 404}).encode()
        return "200 OK", {}, json.dumps(self.lease).encode()


@pytest.mark.parametrize("impostor", IMPOSTORS.values(), ids=IMPOSTORS)
async def test_an_answer_of_something_else_costs_nobody_the_leadership(impostor):
    leases = Leases()
    async with serving(leases.answer) as url, Client(await connect(Source(url=url))) as client:
        leases.impostor = impostor
        elector = LeaderElector(client, "ns", "lease", timing=Timing(15, 10, 0.05))
        running = asyncio.create_task(elector.run())
        await asyncio.wait({running, asyncio.create_task(elector.wait_leading())}, return_when=asyncio.FIRST_COMPLETED)
        for _ in range(3):
            leases.impostor = impostor
            await until(lambda: leases.impostor is None or running.done())
            version = leases.version
            await until(lambda before=version: leases.version > before or running.done())
        assert not running.done()
        assert elector.is_leader
        running.cancel()
        leases.impostor = impostor
        await elector.release()


class Hasty(SystemClock):
    async def sleep(self, seconds):
        await asyncio.sleep(min(seconds, 0.01))


@pytest.mark.parametrize("impostor", IMPOSTORS.values(), ids=IMPOSTORS)
async def test_an_event_is_written_again_when_something_else_has_answered(impostor):
    posts, patches = [], []

    def answer(request, _certificate):
        sent = posts if request.startswith(b"POST") else patches
        sent.append(request)
        return impostor if len(sent) == 1 else ("200 OK", {}, b'{"metadata": {"name": "e"}}')

    async with serving(answer) as url, Client(await connect(Source(url=url))) as client:
        recorder = EventRecorder(client, "groundwork.dev/test", Hasty())
        running = asyncio.create_task(recorder.run())
        recorder.event(Regarding("v1", "Thing", "ns", "a", "uid"), "Normal", "Said", "once")
        await until(lambda: len(posts) == 2 or running.done())
        recorder.event(Regarding("v1", "Thing", "ns", "a", "uid"), "Normal", "Said", "once")
        await until(lambda: len(patches) == 2 or running.done())
        assert not running.done()
        running.cancel()


@pytest.mark.parametrize("name", ["a page", "a redirect"])
async def test_after_an_answer_of_something_else_the_outcome_is_not_known(name):
    def calls(client):
        yield client.get(LEASES, "a", "ns")
        yield client.list(LEASES)
        yield client.create(LEASES, KubeObject(metadata=ObjectMeta(name="a", namespace="ns")))
        yield client.patch(LEASES, "a", "ns", {}, kind=PatchKind.MERGE)
        yield client.delete(LEASES, "a", "ns")

    async with serving(lambda *_: IMPOSTORS[name]) as url, Client(await connect(Source(url=url))) as client:
        for call in calls(client):
            with pytest.raises((errors.ConnectionFailed, errors.ServerError)):
                await call


async def test_a_watch_that_is_redirected_is_not_a_watch_without_rows():
    async with serving(lambda *_: IMPOSTORS["a redirect"]) as url, Client(await connect(Source(url=url))) as client:
        with pytest.raises(errors.ServerError):
            await anext(client.watch(LEASES, resource_version="1", timeout_seconds=1))
