"""The webhook's port, which everybody in the pod network can reach: what it speaks, and requests that are two."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl

import pytest

from services.runtime.admission import AdmissionAnswer
from services.runtime.listener import Limits
from services.runtime.settings import Address
from services.runtime.webhook import WebhookServer
from tests.support.hooks import Fixed, serving, trusting

LIMITS = Limits(handshake=2.0, header=2.0, response=2.0, linger=0.2)
REVIEW = json.dumps(
    {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {"uid": "u", "object": {"metadata": {}}},
    }
).encode()


@pytest.fixture
async def server():
    """A server whose handler notes what it was asked."""
    certificate = Fixed()
    asked = []

    def note(request):
        asked.append(request.uid)
        return AdmissionAnswer()

    made = WebhookServer(Address("127.0.0.1", 0), certificate, {"/mutate": note}, limits=LIMITS, body_seconds=1.0)
    made.asked, made.bundle = asked, certificate.bundle
    async with serving(made):
        yield made


def suites():
    """Every suite of TLS 1.2 and before that this OpenSSL has, weak ones included."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_ciphers("ALL:COMPLEMENTOFALL:@SECLEVEL=0")
    return sorted({c["name"] for c in context.get_ciphers() if c["protocol"] != "TLSv1.3"})


def shake_hands(server, suite="", version=None):
    """Version and suite that a client and the server agree on, None when they do not."""
    context = trusting(server.bundle)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    if suite:
        context.set_ciphers(f"{suite}:@SECLEVEL=0")
    try:
        with (
            socket.create_connection(server.address) as sock,
            context.wrap_socket(sock, server_hostname="127.0.0.1") as tls,
        ):
            assert tls.compression() is None
            return tls.version(), tls.cipher()[0]
    except OSError:
        return None


async def test_of_all_suites_only_those_with_forward_secrecy_and_authenticated_encryption_are_spoken(server):
    offered = suites()
    assert {"AES128-SHA", "ECDHE-ECDSA-AES128-SHA"} <= set(offered), "a client that offers nothing weak shows nothing"
    spoken = [
        suite
        for suite in offered
        if await asyncio.to_thread(shake_hands, server, suite, ssl.TLSVersion.TLSv1_2) is not None
    ]
    assert spoken == [
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
    ]
    version, suite = await asyncio.to_thread(shake_hands, server)
    assert version == "TLSv1.3"
    assert suite in {"TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256"}


async def test_without_tls_nothing_is_said(server):
    reader, writer = await asyncio.open_connection(*server.address)
    writer.write(b"POST /mutate HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n")
    said = await reader.read()
    assert b"HTTP/" not in said
    writer.close()
    assert server.asked == []


_OTHER = REVIEW.replace(b'"u"', b'"smuggled"')
_SECOND = b"POST /mutate HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (
    len(_OTHER),
    _OTHER,
)
_CHUNKED = b"%x\r\n%s\r\n0\r\n\r\n" % (len(REVIEW), REVIEW)
_LENGTH = b"Content-Length: %d" % len(REVIEW)
AMBIGUOUS = {
    "a length and chunks": (b"Content-Length: 4\r\nTransfer-Encoding: chunked", _CHUNKED),
    "chunks and a length": (b"Transfer-Encoding: chunked\r\nContent-Length: 4", _CHUNKED),
    "two lengths": (_LENGTH + b"\r\nContent-Length: 0", REVIEW),
    "two lengths in one": (b"Content-Length: 0, %d" % len(REVIEW), REVIEW),
    "a length with a sign": (b"Content-Length: +%d" % len(REVIEW), REVIEW),
    "a length with an underscore": (b"Content-Length: 1_0", REVIEW),
    "a length in hexadecimal": (b"Content-Length: 0x10", REVIEW),
    "a negative length": (b"Content-Length: -1", REVIEW),
    "chunks that are not last": (b"Transfer-Encoding: chunked, identity", _CHUNKED),
    "chunks twice": (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", _CHUNKED),
    "a space before the colon": (b"Content-Length : 0\r\n" + _LENGTH, REVIEW),
    "a folded header": (_LENGTH + b"\r\nX: a\r\n b", REVIEW),
    "a carriage return alone": (_LENGTH + b"\r\nX: a\rTransfer-Encoding: chunked", REVIEW),
    "a NUL": (_LENGTH + b"\r\nX: a\x00b", REVIEW),
    "a chunk size with a sign": (b"Transfer-Encoding: chunked", b"+%x\r\n%s\r\n0\r\n\r\n" % (len(REVIEW), REVIEW)),
    "a chunk that is longer than it says": (b"Transfer-Encoding: chunked", b"1\r\n%s\r\n0\r\n\r\n" % REVIEW),
}


@pytest.mark.parametrize(("headers", "body"), AMBIGUOUS.values(), ids=AMBIGUOUS.keys())
async def test_a_request_whose_end_can_be_read_in_two_ways_is_refused_and_nothing_behind_it_is_read(
    server, headers, body
):
    reader, writer = await asyncio.open_connection(
        *server.address, ssl=trusting(server.bundle), server_hostname="127.0.0.1"
    )
    head = b"POST /mutate HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n" + headers + b"\r\n\r\n"
    writer.write(head + body + _SECOND)
    try:
        said = await reader.read()
    except ConnectionError:
        said = b""
    writer.transport.abort()
    assert b" 200 " not in said
    assert said.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 ")) or said == b""
    assert "smuggled" not in server.asked


async def test_two_requests_that_follow_each_other_are_two(server):
    """The control for the test above: the second request is a good one."""
    reader, writer = await asyncio.open_connection(
        *server.address, ssl=trusting(server.bundle), server_hostname="127.0.0.1"
    )
    head = b"POST /mutate HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n" + _LENGTH + b"\r\n\r\n"
    writer.write(head + REVIEW + _SECOND)
    seen = b""
    while seen.count(b"HTTP/1.1 200 ") < 2:
        got = await reader.read(4096)
        assert got, seen
        seen += got
    writer.transport.abort()
    assert server.asked == ["u", "smuggled"]


@pytest.mark.parametrize(
    ("sent", "status"),
    [(b"GET /metrics HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", 404), (b"\x00\r\n\r\n", 400)],
)
async def test_what_a_stranger_is_told_names_neither_software_nor_version(server, sent, status):
    reader, writer = await asyncio.open_connection(
        *server.address, ssl=trusting(server.bundle), server_hostname="127.0.0.1"
    )
    writer.write(sent)
    said = (await reader.read()).decode().lower()
    writer.transport.abort()
    assert said.split()[1] == str(status)
    assert "server: webhook\r\n" in said
    assert not any(word in said for word in ("aiohttp", "python", "groundwork"))
