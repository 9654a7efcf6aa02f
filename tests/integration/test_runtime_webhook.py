"""The webhook server: behind a real API server, and against clients that mean no good."""

import asyncio
import contextlib
import gzip
import io
import json
import random
import socket

import pytest
from prometheus_client import generate_latest

from services.runtime import metrics
from services.runtime.admission import AdmissionAnswer
from services.runtime.health import ListenError
from services.runtime.kube.errors import ApiError, Invalid
from services.runtime.listener import Limits, bind
from services.runtime.settings import Address
from services.runtime.webhook import WebhookServer
from tests.support.hooks import (
    CONFIG_MAPS,
    Balancer,
    Fixed,
    Load,
    client,
    configuration,
    configured,
    noted,
    review,
    serving,
    trusting,
)
from tests.support.kube import Kube, eventually, manifest
from tests.support.toy_webhook import annotate
from tests.support.waiting import until
from tools.cluster import KubectlError

LOCAL = Address("127.0.0.1", 0)
SHORT = Limits(handshake=0.5, header=0.5, response=0.5, linger=0.5, connections=24)
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def certificate():
    return Fixed()


@pytest.fixture
async def server(certificate):
    made = WebhookServer(LOCAL, certificate, {"/annotate": annotate, "/big": big}, limits=SHORT, body_seconds=0.5)
    async with serving(made):
        yield made


def big(request):
    """An answer far larger than what fits into the buffers of sockets."""
    return AdmissionAnswer(patch=[{"op": "add", "path": "/a", "value": "x" * 30_000_000}])


def a_review(uid="u", **metadata):
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {"uid": uid, "object": {"metadata": metadata}},
    }


def count(name, **labels):
    return metrics.REGISTRY.get_sample_value(name, labels) or 0.0


class Others:
    """Clients that behave, while others do not: none of their requests may fail."""

    def __init__(self, server, certificate):
        self.url = f"https://{server.address}/annotate"
        self.bundle = certificate.bundle
        self.answered = 0

    async def __aenter__(self):
        self._tasks = [asyncio.create_task(self._ask(force)) for force in (False, True)]
        return self

    async def __aexit__(self, *_):
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _ask(self, force):
        async with client(self.bundle, force_close=force) as session:
            while True:
                async with session.post(self.url, json=a_review()) as answer:
                    assert answer.status == 200
                    assert (await answer.json())["response"]["patchType"] == "JSONPatch"
                self.answered += 1
                await asyncio.sleep(0.005)

    async def served(self):
        """Wait until they were served again."""
        goal = self.answered + 10
        while self.answered < goal:
            for task in self._tasks:
                if task.done():
                    task.result()
            await asyncio.sleep(0.005)


@pytest.fixture
async def others(server, certificate):
    async with Others(server, certificate) as running:
        await running.served()
        yield running
        await running.served()


# -- behind a real API server ------------------------------------------------------------------------------------------


async def test_the_api_server_takes_patches_refusals_warnings_and_failures(cluster, namespace, certificate):
    for on_error in ("allow", "deny"):
        server = WebhookServer(LOCAL, certificate, {"/annotate": annotate}, on_error=on_error)
        async with serving(server), Kube.connect(cluster.kubeconfig) as kube:
            wanted = configuration(f"{namespace}-{on_error}", namespace, server.address.port, bundle=certificate.bundle)
            async with configured(kube, wanted):
                found = await eventually(lambda kube=kube: review(kube, namespace), noted)
                assert noted(found)
                with pytest.raises(Invalid, match="asked to refuse"):
                    await review(kube, namespace, deny="yes")
                errors = count("groundwork_webhook_errors_total", path="/annotate")
                if on_error == "allow":
                    assert noted(await review(kube, namespace, fail="yes")) is None
                    warned = manifest(CONFIG_MAPS, "warned", namespace, labels={"warn": "careful"})
                    arguments = ("create", "--filename=-", "--dry-run=server", "--warnings-as-errors")
                    with pytest.raises(KubectlError, match=r"Warning: careful \."):
                        await asyncio.to_thread(cluster.kubectl, *arguments, input=json.dumps(warned))
                else:
                    with pytest.raises(ApiError, match="failed with an internal error") as caught:
                        await review(kube, namespace, fail="yes")
                    assert caught.value.status == 500
                assert count("groundwork_webhook_errors_total", path="/annotate") == errors + 1


async def test_no_admission_is_refused_through_a_rolling_restart(cluster, namespace, certificate):
    def replica():
        return WebhookServer(LOCAL, certificate, {"/annotate": annotate}, drain_seconds=0.6)

    async with Balancer() as service, Kube.connect(cluster.kubeconfig) as kube, contextlib.AsyncExitStack() as stack:
        wanted = configuration(namespace, namespace, service.port, bundle=certificate.bundle)
        running = [await stack.enter_async_context(serving(replica())) for _ in range(2)]
        service.backends = [server.address.port for server in running]
        await stack.enter_async_context(configured(kube, wanted))
        await eventually(lambda: review(kube, namespace), noted)
        async with Load(kube, namespace) as load:
            for turn in range(3):
                await load.more(60)
                new = await stack.enter_async_context(serving(replica()))
                old = running.pop(0)
                running.append(new)
                draining = asyncio.create_task(old.drain())
                await load.more(20)  # new connections go on arriving until the Service has learnt of the stop
                service.backends = [server.address.port for server in running]
                await draining
                assert not old._listener.connections, f"turn {turn}"
            await load.more(60)
        assert load.refused == []


async def test_the_api_server_hears_that_it_is_to_go_only_once_the_server_stops(server, certificate):
    async with client(certificate.bundle) as session:
        url = f"https://{server.address}/annotate"
        async with session.post(url, json=a_review()) as answer:
            assert "Connection" not in answer.headers
        server._drain_seconds = 0.3
        draining = asyncio.create_task(server.drain())
        await asyncio.sleep(0)
        for _ in range(2):  # on the connection that exists, and on a new one
            async with session.post(url, json=a_review()) as answer:
                assert answer.status == 200
                assert answer.headers["Connection"] == "close"
        await draining
        with pytest.raises(OSError, match="Cannot connect"):
            await session.post(url, json=a_review())


async def test_the_end_leaves_no_connection_open_whose_client_never_says_good_bye(certificate):
    server = WebhookServer(LOCAL, certificate, {"/annotate": annotate}, drain_seconds=0.0)
    async with serving(server):
        _, writer = await connect(server, certificate)
        writer.transport.pause_reading()
        await until(lambda: server._listener.connections)
        await server.drain()
        assert not server._listener.connections
        writer.transport.abort()


# -- requests that are no reviews --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "status", "text"),
    [
        ({"data": b"", "headers": JSON}, 400, "the body is empty"),
        ({"data": b"{", "headers": JSON}, 400, "no JSON: "),
        ({"json": {}}, 400, "kind AdmissionReview expected"),
        ({"json": {**a_review(), "request": None}}, 400, "the review has no request"),
        ({"json": a_review(uid="")}, 400, "the request has no uid"),
        ({"data": b"{}", "headers": {"Content-Type": "text/plain"}}, 415, "content type application/json expected"),
        ({"data": gzip.compress(b"{}"), "headers": {**JSON, "Content-Encoding": "gzip"}}, 415, "a body without"),
        (
            {"data": io.BytesIO(b" " * 9_000_000), "headers": JSON},
            413,
            "the body has 9000000 bytes, at most 8388608 are read",
        ),
    ],
)
async def test_what_is_no_review_is_refused_with_a_reason(server, certificate, options, status, text):
    before = count("groundwork_webhook_requests_total", path="/annotate", result="bad")
    async with (
        client(certificate.bundle) as session,
        session.post(f"https://{server.address}/annotate", **options) as got,
    ):
        assert got.status == status
        assert (await got.text()).startswith(text)
    assert count("groundwork_webhook_requests_total", path="/annotate", result="bad") == before + 1


async def test_another_path_is_404_and_another_method_405(server, certificate):
    async with client(certificate.bundle) as session:
        async with session.post(f"https://{server.address}/", json=a_review()) as answer:
            assert answer.status == 404
        async with session.get(f"https://{server.address}/annotate") as answer:
            assert (answer.status, answer.headers["Allow"]) == (405, "POST")


async def test_a_body_without_a_length_is_cut_off_at_the_limit(server, certificate):
    async def endless():
        for _ in range(200):
            yield b" " * 65536

    url = f"https://{server.address}/annotate"
    async with client(certificate.bundle) as session, session.post(url, data=endless(), headers=JSON) as answer:
        assert answer.status == 413


async def test_fuzzed_requests_are_answered_or_closed_and_cost_nobody_else_anything(server, certificate, others):
    generator = random.Random(4)
    good = json.dumps(a_review()).encode()
    head = b"POST /annotate HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    errors = count("groundwork_webhook_errors_total", path="/annotate")
    for _ in range(60):
        body = bytearray(good)
        for _ in range(generator.randrange(1, 6)):
            place = generator.randrange(len(body))
            body[place : place + generator.randrange(4)] = generator.randbytes(generator.randrange(4))
        request = bytearray(head % len(body) + body)
        if generator.random() < 0.5:
            place = generator.randrange(len(request))
            request[place : place + generator.randrange(8)] = generator.randbytes(generator.randrange(8))
        reader, writer = await connect(server, certificate)
        writer.write(bytes(request))
        if generator.random() < 0.3:
            writer.transport.abort()
            continue
        first = await reader.read(12)
        assert first == b"" or first.startswith(b"HTTP/1."), first
        writer.transport.abort()
    assert count("groundwork_webhook_errors_total", path="/annotate") - errors < 60
    await others.served()


# -- clients that take their time --------------------------------------------------------------------------------------


async def connect(server, certificate):
    return await asyncio.open_connection(*server.address, ssl=trusting(certificate.bundle), server_hostname="127.0.0.1")


async def closed(reader):
    """Wait until the server has closed the connection; return what it had to say."""
    try:
        return await reader.read()
    except ConnectionError:
        return b""


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (b"", b""),
        (b"POST /annotate HTTP/1.1\r\nHost: h\r\n", b""),
        (b"POST /annotate HTTP/1.1\r\nHost: h\r\nX: " + b"a" * 10_000_000, b"HTTP/1.0 400 "),
        (b"POST /annotate HTTP/1.1\r\n" + b"X: y\r\n" * 2_000_000, b"HTTP/1.0 400 "),
        (b"\x16\x03\x01\x00" * 1000, b"HTTP/1.0 400 "),
        (b"POST /annotate HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n{", b"HTTP/1.1 408 "),
    ],
    ids=["nothing", "half-a-header", "10-MB-header", "12-MB-of-headers", "garbage", "half-a-body"],
)
async def test_a_client_that_does_not_finish_its_request_is_closed(server, certificate, others, sent, answer):
    reader, writer = await connect(server, certificate)
    with contextlib.suppress(ConnectionError):
        for start in range(0, len(sent), 65536):
            writer.write(sent[start : start + 65536])
            await writer.drain()
    got = await closed(reader)
    writer.close()
    assert got[: len(answer)] == answer or not got, got[:100]
    await others.served()


async def test_a_client_that_sends_a_byte_at_a_time_does_not_get_more_time(server, certificate, others):
    reader, writer = await connect(server, certificate)

    async def drip():
        for byte in b"POST /annotate HTTP/1.1\r\nX: " + b"a" * 10_000:
            writer.write(bytes([byte]))
            await asyncio.sleep(0.01)

    dripping = asyncio.create_task(drip())
    dropped = count("groundwork_webhook_connections_dropped_total", reason="header")
    assert await closed(reader) == b""
    assert count("groundwork_webhook_connections_dropped_total", reason="header") == dropped + 1
    dripping.cancel()
    writer.close()


async def test_a_header_after_an_answer_has_a_limit_too(server, certificate):
    reader, writer = await connect(server, certificate)
    body = json.dumps(a_review()).encode()
    writer.write(b"POST /annotate HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n")
    writer.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
    assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200")
    await asyncio.sleep(0.1)
    writer.write(b"POST /ann")
    dropped = count("groundwork_webhook_connections_dropped_total", reason="header")
    await closed(reader)
    assert count("groundwork_webhook_connections_dropped_total", reason="header") == dropped + 1
    writer.close()


async def test_a_client_that_does_not_read_its_answer_is_closed(server, certificate, others):
    _, writer = await connect(server, certificate)
    writer.transport.pause_reading()
    body = json.dumps(a_review()).encode()
    writer.write(b"POST /big HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n")
    writer.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
    dropped = count("groundwork_webhook_connections_dropped_total", reason="response")
    await until(lambda: count("groundwork_webhook_connections_dropped_total", reason="response") > dropped)
    writer.transport.abort()


async def test_half_open_connections_push_out_each_other_and_not_clients_at_work(server, certificate, others):
    silent = []
    try:
        for number in range(4 * SHORT.connections):
            sock = socket.create_connection(server.address)
            silent.append(sock)
            if number % 3 == 0:
                sock.sendall(b"\x16\x03\x01\x02\x00\x01\x00")  # the beginning of a ClientHello
            if number % 10 == 0:
                await others.served()
        await others.served()
    finally:
        for sock in silent:
            sock.close()


async def test_connections_that_never_ask_make_room_for_those_that_do(certificate):
    patient = Limits(header=60.0, connections=8)
    server = WebhookServer(LOCAL, certificate, {"/annotate": annotate}, limits=patient)
    async with serving(server):
        idle = [await connect(server, certificate) for _ in range(8)]
        url = f"https://{server.address}/annotate"
        async with client(certificate.bundle) as session, session.post(url, json=a_review()) as answer:
            assert answer.status == 200
        assert await closed(idle[0][0]) == b""
        for _, writer in idle:
            writer.transport.abort()


@pytest.mark.parametrize(
    "sent",
    [b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", b"\x00" * 100],
    ids=["nothing", "http", "half-a-hello", "zeros"],
)
async def test_a_handshake_that_is_none_is_counted_and_ends(server, certificate, others, sent):
    def failures():
        text = generate_latest(metrics.REGISTRY).decode()
        lines = [
            line for line in text.splitlines() if line.startswith("groundwork_webhook_tls_handshake_failures_total")
        ]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    before = failures()
    reader, writer = await asyncio.open_connection(*server.address)
    writer.write(sent)
    if not sent:
        writer.write_eof()
    await closed(reader)
    writer.close()
    await until(lambda: failures() > before)


async def test_a_client_that_does_not_trust_the_certificate_is_counted(server, certificate):
    before = count("groundwork_webhook_tls_handshake_failures_total", reason="refused")

    def shake_hands():
        with (
            socket.create_connection(server.address) as sock,
            pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"),
        ):
            trusting(Fixed().bundle).wrap_socket(sock, server_hostname="127.0.0.1")

    await asyncio.to_thread(shake_hands)
    await until(lambda: count("groundwork_webhook_tls_handshake_failures_total", reason="refused") > before)


async def test_only_tls_1_2_and_later_is_spoken(server):
    import ssl
    import warnings

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(OSError):  # noqa: PT011 - its text is OpenSSL's
        await asyncio.open_connection(*server.address, ssl=context)


async def test_large_bodies_of_many_clients_are_bounded_together(certificate):
    server = WebhookServer(
        LOCAL, certificate, {"/annotate": annotate}, max_body=100_000, body_seconds=5.0, limits=Limits(linger=0.5)
    )
    async with serving(server):
        head = b"POST /annotate HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: 99999\r\n\r\n"
        clients = [await connect(server, certificate) for _ in range(12)]
        for _, writer in clients:
            writer.write(head + b" " * 90_000)
            await writer.drain()
        first = [asyncio.create_task(reader.readline()) for reader, _ in clients]
        done, waiting = await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        assert all(task.result().startswith(b"HTTP/1.1 503 ") for task in done)
        assert waiting
        for task in first:
            task.cancel()
        for _, writer in clients:
            writer.transport.abort()


async def test_an_address_that_is_taken_is_said_so():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ListenError, match=f"cannot listen on 127.0.0.1:{port}: Address already in use"):
            bind(Address("127.0.0.1", port))


@pytest.mark.parametrize("host", ["", "::", "::1", "127.0.0.1", "0.0.0.0"])
async def test_any_form_of_address_can_be_bound(host):
    with bind(Address(host, 0)) as sock:
        assert sock.getsockname()[1] > 0
