"""The models of clients against the clients that are at hand: urllib, aiohttp, and curl where it is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import urllib.request
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from unittest import mock

import aiohttp.helpers
import pytest
import yarl
from hypothesis import given
from hypothesis import strategies as st

from services.proxyenv.clients import Client, Verdict, bypasses

HOSTS = (
    *("10.96.0.1", "10.1.2.3", "192.168.1.1", "127.0.0.1", "fd00::1", "::1", "localhost", "a.b.svc", "a.b.svc."),
    *("example.com", "a.example.com", "notexample.com", "mysql", "mysql.ns.svc", "b", "x.y"),
)
PORTS = (None, 80, 81)
# What every release of curl reads alike: IPv6 in brackets or with a prefix length is what releases differ in.
PLAIN = (
    *("10.96.0.0/12", "10.96.0.1", "10.*", "192.168.", "192.168.0.0/16", "10.96.0.1:81", "10.96.0.1/32", "127.0.0.0/8"),
    *(".svc", "svc", "*.svc", ".example.com", "example.com", "*.example.com", "example.com:81", "example.com."),
    *("*", "mysql", "fd00::1", "localhost", "EXAMPLE.com", ".", ":81", "b", "e*m", ".COM"),
)
ODD = ("[fd00::1]", "fd00::/8", "[fd00::1]:81", "a b", "..svc", "10.96.0.0/33", "10.96.0.0/a", "10.96.0.1/", "::1")


def lists(entries):
    """NO_PROXY lists of some of the entries."""
    separators = st.sampled_from([",", ", ", " ,", ",,"])
    pair = st.tuples(st.sampled_from(entries), separators)
    return (
        st.lists(pair, min_size=1, max_size=4).map(lambda pairs: "".join(sum(pairs, ()))).map(lambda s: s.rstrip(" ,"))
    )


def url(host, port):
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}{'' if port is None else f':{port}'}/"


@contextmanager
def environment(no_proxy):
    proxy = "http://127.0.0.1:3128"
    with mock.patch.dict(os.environ, {"http_proxy": proxy, "no_proxy": no_proxy}):
        yield


@given(no_proxy=lists(PLAIN + ODD), host=st.sampled_from(HOSTS), port=st.sampled_from(PORTS))
def test_urllib_answers_as_its_model(no_proxy, host, port):
    request = urllib.request.Request(url(host, port))
    real = urllib.request.proxy_bypass_environment(request.host, {"no": no_proxy})
    assert bypasses(Client.URLLIB, no_proxy, host, port) is (Verdict.DIRECT if real else Verdict.PROXIED)


@given(no_proxy=lists(PLAIN + ODD), host=st.sampled_from(HOSTS), port=st.sampled_from(PORTS))
def test_aiohttp_answers_as_its_model(no_proxy, host, port):
    with environment(no_proxy):
        try:
            aiohttp.helpers.get_env_proxy_for_url(yarl.URL(url(host, port)))
            real = Verdict.PROXIED
        except LookupError:
            real = Verdict.DIRECT
    assert bypasses(Client.AIOHTTP, no_proxy, host, port) is real


class Answering(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_CONNECT(self):
        # `connect-to` makes curl ask its proxy for a tunnel; what comes through it is answered here as well.
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


@contextmanager
def serving():
    """The port of a server that answers everything."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def curl(cases, proxy, origin):
    """Ask curl for every case in one process; the port that it connected to tells which way it went."""
    options = f'proxy = "http://127.0.0.1:{proxy}"\nconnect-to = "::127.0.0.1:{origin}"\nsilent\ngloboff\n'
    options += 'output = "/dev/null"\nwrite-out = "%{remote_port}\\n"\n'
    requests = [f'url = "{url(host, port)}"\nnoproxy = "{no_proxy}"\n{options}' for no_proxy, host, port in cases]
    command, config = ["curl", "-q", "-K", "-"], "next\n".join(requests)
    done = subprocess.run(command, input=config, capture_output=True, text=True, check=True)
    ways = {str(origin): Verdict.DIRECT, str(proxy): Verdict.PROXIED}
    return [ways[line] for line in done.stdout.split()]


# Without curl on this machine its model is held by the measured table alone.
@pytest.mark.parametrize("program", [name for name in ("curl",) if shutil.which(name)])
def test_curl_answers_as_its_model(program):
    cases = [(entry, host, port) for entry in PLAIN for host in HOSTS for port in PORTS]
    pairs = zip(PLAIN, (*PLAIN[7:], *PLAIN[:7]), strict=True)
    cases += [(f"{first} , {second}", host, 81) for first, second in pairs for host in HOSTS]
    with serving() as proxy, serving() as origin:
        real = curl(cases, proxy, origin)
    expected = [bypasses(Client.CURL, *case) for case in cases]
    assert [row for row in zip(cases, expected, real, strict=True) if row[1] is not row[2]] == []
