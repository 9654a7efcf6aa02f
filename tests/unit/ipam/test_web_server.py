"""The status page's server over real sockets: what it answers, to whom, with which headers, and how long it waits."""

import asyncio
import json

import aiohttp
import pytest

from services.ipam.settings import IpamSettings
from services.ipam.web import policy, server
from services.runtime.flags import Address
from services.runtime.listener import bind
from services.runtime.settings import SettingsError
from tests.support.kube import eventually
from tests.support.status_page import Read, Site


class Served:
    """A site on a port of the loopback, and a client."""

    def __init__(self, site, session, address):
        self.site, self.session, self.address = site, session, address

    async def ask(self, path="/", method="GET", **headers):
        url = f"http://{self.address}{path}"
        async with self.session.request(method, url, headers=headers, allow_redirects=False) as answer:
            return answer.status, answer.headers, await answer.read()


@pytest.fixture
async def served():
    site = Site(web_host=("ipam.example.com",)).ready()
    sock = bind(Address("127.0.0.1", 0))
    address = "{}:{}".format(*sock.getsockname())
    running = asyncio.create_task(site.page.server.run(sock))
    async with aiohttp.ClientSession() as session:
        yield Served(site, session, address)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize(
    ("path", "status", "kind"),
    [
        ("/", 200, "text/html"),
        ("/status.json", 200, "application/json"),
        ("/pools/IPPool/ns/pool", 200, "text/html"),
        ("/pools/IPPool/ns/pool?from=x", 400, "text/html"),
        ("/pools/IPPool/ns/pool/status.json", 200, "application/json"),
        ("/pools/IPPool/ns/none", 404, "text/html"),
        ("/static/status.css", 200, "text/css"),
        ("/static/status.js", 200, "text/javascript"),
        ("/static/icon.svg", 200, "image/svg+xml"),
        ("/static/../part.py", 404, "text/html"),
        ("/static/%2e%2e%2fpart.py", 404, "text/html"),
        ("/metrics", 404, "text/html"),
        ("/%ff%00", 404, "text/html"),
    ],
)
async def test_every_answer_has_its_kind_and_the_strict_headers(served, path, status, kind):
    served.site.pool("pool", {"subnet": "10.0.0.0/28"})
    for method in ("GET", "HEAD"):
        seen, headers, body = await served.ask(path, method)
        assert (seen, headers["Content-Type"].partition(";")[0]) == (status, kind)
        assert policy.HEADERS.items() <= headers.items()
        assert headers["Server"] == "groundwork"
        assert bool(body) is (method == "GET")
        if method == "GET" and kind == "text/html":
            Read(body)
        if method == "GET" and kind == "application/json":
            json.loads(body)
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["Content-Security-Policy"].startswith("default-src 'none';")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_nothing_but_reading_is_possible(served, method):
    status, headers, _ = await served.ask("/", method)
    assert (status, headers["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    ("host", "answered"),
    [
        ("127.0.0.1:8081", True),
        ("[::1]:9", True),
        ("10.0.0.7", True),
        ("localhost:1234", True),
        ("groundwork-ipam", True),
        ("groundwork-ipam.groundwork.svc:8081", True),
        ("x.y.svc.cluster.local.", True),
        ("ipam.example.com", True),
        ("IPAM.example.com:443", True),
        ("rebound.attacker.example", False),
        ("localhost.attacker.example", False),
        ("svc.attacker.example", False),
        ("", False),
        (":80", False),
    ],
)
async def test_a_name_that_an_outsider_could_point_here_is_not_answered(served, host, answered):
    assert policy.answers(host, {"ipam.example.com"}) is answered
    if host:
        status, _, body = await served.ask("/", Host=host)
        assert status == (200 if answered else 421)
        assert answered or b"Pools" not in body


async def test_a_page_is_made_once_for_all_who_ask_within_a_second(served, monkeypatch):
    made = []
    show = served.site.page.server._show

    async def counted(parts, query):
        made.append(parts)
        return await show(parts, query)

    monkeypatch.setattr(served.site.page.server, "_show", counted)
    for _ in range(3):
        assert (await served.ask("/"))[0] == 200
    assert len(made) == 1
    served.site.clock.elapsed += 1.5
    await served.ask("/")
    assert len(made) == 2


async def test_readers_beyond_the_limit_are_told_to_come_back(served, monkeypatch):
    going = asyncio.Event()

    async def slow(parts, query):
        await going.wait()
        return server.Page(b"done")

    monkeypatch.setattr(served.site.page.server, "_show", slow)
    asked = [asyncio.create_task(served.ask(f"/?{number}")) for number in range(server._QUEUED)]

    async def queued():
        return served.site.page.server._queued

    await eventually(queued, lambda number: number == server._QUEUED)
    status, headers, _ = await served.ask("/")
    assert (status, headers["Retry-After"]) == (503, "5")
    assert (await served.ask("/static/status.css"))[0] == 200, "what costs nothing is answered"
    going.set()
    assert {status for status, _, _ in await asyncio.gather(*asked)} == {200}


async def test_a_page_that_cannot_be_made_is_logged_and_tells_nothing(served, monkeypatch, caplog):
    async def broken(parts, query):
        raise RuntimeError("secret")

    monkeypatch.setattr(served.site.page.server, "_show", broken)
    status, _, body = await served.ask("/")
    assert status == 500
    assert b"secret" not in body


async def test_a_client_that_asks_nothing_is_let_go_and_does_not_keep_others_out(served, monkeypatch):
    monkeypatch.setattr(server, "_IDLE_SECONDS", 0.2)
    monkeypatch.setattr(server, "_CONNECTIONS", 2)
    host, port = served.address.split(":")
    silent = [await asyncio.open_connection(host, int(port)) for _ in range(2)]
    with pytest.raises(aiohttp.ClientError):
        await served.ask("/")
    for reader, writer in silent:
        writer.write(b"GET / HT")
        assert await reader.read() == b""
        writer.close()
    assert (await served.ask("/"))[0] == 200


async def test_what_is_no_http_is_answered_without_an_error_in_the_log(served, capfd):
    host, port = served.address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"\x16\x03\x01 nonsense\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.0 400")
    writer.close()
    assert "ERROR" not in capfd.readouterr().err


def test_the_page_is_off_and_on_the_loopback_unless_asked_for_otherwise():
    assert IpamSettings.parse([], {}).web is False
    settings = IpamSettings.parse(["--web", "--web-address=:8081", "--web-host=a.example.com"], {})
    assert (settings.web, settings.web_address, settings.web_host) == (True, Address("", 8081), ("a.example.com",))
    assert IpamSettings().web_address.host == "127.0.0.1"
    with pytest.raises(SettingsError, match="--web-address"):
        IpamSettings.parse(["--web-address=here"], {})
