"""How seven clients read NO_PROXY: the measured table, the letter cases, Java's own list."""

from __future__ import annotations

import pytest

from services.proxyenv.clients import Client, Verdict, bypasses, java_bypasses
from services.proxyenv.javahosts import java_non_proxy_hosts
from services.proxyenv.precedence import Settings, reaches, settings

LETTERS = {"D": Verdict.DIRECT, "p": Verdict.PROXIED, "X": Verdict.CRASH}
COLUMNS = (Client.CURL, Client.GO, Client.JAVA, Client.URLLIB, Client.REQUESTS, Client.HTTPX, Client.AIOHTTP)

# Measured with curl 7.88.1, Go 1.26, OpenJDK 17, CPython 3.11, requests 2.34, httpx 0.28 and aiohttp 3.14:
# D is direct, p through the proxy, X means that constructing a client raises.
MEASURED = [
    # list, host, port, then curl Go Java urllib requests httpx aiohttp
    ("10.96.0.0/12", "10.96.0.1", None, "D D p p D p p"),
    ("10.96.0.1", "10.96.0.1", None, "D D D D D D D"),
    ("192.168.", "192.168.1.1", None, "p p p p p p p"),
    ("10.*", "10.1.2.3", None, "p p D p p p p"),
    (".svc", "a.b.svc", None, "D D p D D D D"),
    ("svc", "a.b.svc", None, "D D p D D D D"),
    ("*.svc", "a.b.svc", None, "p D D p p p p"),
    (".example.com", "example.com", None, "D p p D D p D"),
    ("example.com", "a.example.com", None, "D D p D D D D"),
    ("EXAMPLE.com", "a.example.com", None, "D D p D D D D"),
    ("example.com", "A.Example.COM", None, "D D p D D D D"),
    ("*.example.com", "a.example.com", None, "p D D p p p p"),
    ("*", "x.y", None, "D D D D D D D"),
    ("a,*", "x.y", None, "p D D p p D p"),
    ("mysql", "mysql", None, "D D D D D D D"),
    ("mysql", "mysql.ns.svc", None, "p p p p p p p"),
    ("a , b", "b", None, "D D p D D D D"),
    ("a b", "b", None, "D p p p p p p"),
    ("example.com:81", "example.com", 81, "p D p D D D p"),
    ("example.com:81", "example.com", 82, "p p p p p p p"),
    ("example.com:80", "example.com", None, "p D p p p p p"),
    ("example.com.", "example.com", None, "D p p p p p p"),
    (".svc", "a.b.svc.", None, "D p p p p p p"),
    ("fd00::1", "fd00::1", None, "D D p p D D D"),
    ("[fd00::1]", "fd00::1", None, "p p D D p X p"),
    ("fd00::/8", "fd00::1", None, "p D p p p X p"),
    ("example.com,fd00::/8", "x.y", None, "p p p p p X p"),
    # Found beside the table, with the same clients.
    ("example.com", "notexample.com", None, "p p p p p p p"),
    ("", "localhost", None, "p D p p p p p"),
    ("a", "localhost", None, "p D D p p p p"),
    ("a", "127.0.0.5", None, "p D D p p p p"),
    (":81", "example.com", 81, "p p p p p D p"),
    ("bücher.example", "x.y", None, "p p p p p X p"),
    ("example.com:http", "x.y", None, "p p p p p X p"),
    ("http://example.com", "example.com", None, "p p p p p D p"),
    ("10.0.0.0/0", "10.1.1.1", None, "p D p p p p p"),
    ("::ffff:10.0.0.1", "10.0.0.1", None, "p D p p p p p"),
    ("10.0.0.1:81", "10.0.0.1", 81, "p D p D p D p"),
    ("[fd00::1]:81", "fd00::1", 81, "p D p D p X p"),
]


@pytest.mark.parametrize(
    ("no_proxy", "host", "port", "client", "expected"),
    [
        pytest.param(no_proxy, host, port, client, LETTERS[letter], id=f"{no_proxy} {host}:{port or ''} {client}")
        for no_proxy, host, port, letters in MEASURED
        for client, letter in zip(COLUMNS, letters.split(), strict=True)
    ],
)
def test_a_client_answers_as_it_was_measured(no_proxy, host, port, client, expected):
    assert bypasses(client, no_proxy, host, port) is expected


def test_a_host_may_come_with_the_brackets_of_a_url():
    for client in Client:
        assert bypasses(client, "fd00::1", "[fd00::1]") is bypasses(client, "fd00::1", "fd00::1")


def test_the_default_port_is_that_of_the_scheme():
    assert bypasses(Client.GO, "example.com:443", "example.com", scheme="https") is Verdict.DIRECT
    assert bypasses(Client.GO, "example.com:443", "example.com", scheme="http") is Verdict.PROXIED
    assert bypasses(Client.HTTPX, "example.com:443", "example.com", 443, scheme="https") is Verdict.PROXIED


# -- which variable ------------------------------------------------------------------------------------------------

BOTH = {"http_proxy": "http://l", "HTTP_PROXY": "http://u", "no_proxy": "lower", "NO_PROXY": "upper"}
PRECEDENCE = [
    ("both cases", BOTH, "http", {Client.GO: ("http://u", "upper")}, ("http://l", "lower")),
    ("upper alone", {"HTTP_PROXY": "u", "NO_PROXY": "x"}, "http", {Client.CURL: ("", "x")}, ("u", "x")),
    ("upper alone, https", {"HTTPS_PROXY": "u", "NO_PROXY": "x"}, "https", {}, ("u", "x")),
    ("lower alone", {"http_proxy": "l", "no_proxy": "x"}, "http", {}, ("l", "x")),
    (
        "an empty lower one",
        {"http_proxy": "l", "no_proxy": "", "NO_PROXY": "x"},
        "http",
        {Client.URLLIB: ("l", ""), Client.HTTPX: ("l", ""), Client.AIOHTTP: ("l", "")},
        ("l", "x"),
    ),
    (
        "ALL_PROXY",
        {"ALL_PROXY": "a"},
        "http",
        {Client.GO: ("", ""), Client.URLLIB: ("", ""), Client.AIOHTTP: ("", "")},
        ("a", ""),
    ),
    ("nothing", {}, "http", {}, ("", "")),
]


@pytest.mark.parametrize(("environment", "scheme", "others", "most"), [row[1:] for row in PRECEDENCE])
@pytest.mark.parametrize("client", [client for client in Client if client is not Client.JAVA])
def test_a_client_reads_the_variable_it_prefers(client, environment, scheme, others, most):
    assert settings(client, environment, scheme) == Settings(*others.get(client, most))


def test_java_reads_no_variable():
    assert settings(Client.JAVA, BOTH) == Settings("", "")
    assert reaches(Client.JAVA, BOTH, "example.com") is Verdict.DIRECT


def test_without_a_proxy_everything_is_direct_except_for_a_client_that_raises():
    environment = {"NO_PROXY": "fd00::/8"}
    assert reaches(Client.GO, environment, "example.com") is Verdict.DIRECT
    assert reaches(Client.HTTPX, environment, "example.com") is Verdict.CRASH
    assert reaches(Client.GO, {**environment, "HTTPS_PROXY": "p"}, "example.com", scheme="https") is Verdict.PROXIED


# -- Java's list ---------------------------------------------------------------------------------------------------

JAVA = [
    (".svc, example.com", "*.svc|example.com|*.example.com", ()),
    ("*.svc,.svc", "*.svc", ()),
    ("10.0.0.0/8", "10.*", ()),
    ("192.168.0.0/16,192.168.", "192.168.*", ()),
    ("10.96.0.0/15", "10.96.*|10.97.*", ()),
    ("10.1.2.4/31", "10.1.2.4|10.1.2.5", ()),
    ("0.0.0.0/0", "*", ()),
    ("10.0.0.1,10.*", "10.0.0.1|10.*", ()),
    ("fd00::1,[fd00::2],fd00::/8", "[fd00::1]|[fd00::2]", ("fd00::/8",)),
    ("example.com:81,a b,e*m,.,http://x", "", ("example.com:81", "a b", "e*m", ".", "http://x")),
    ("example.com.", "example.com|*.example.com", ()),
    ("*", "*", ()),
    ("a,*,b", "a|*.a|*|b|*.b", ()),
    (" , ", "", ()),
    (",a", "a|*.a", ()),
    ("10.0.0.7/8,fd00::1/128", "10.*|[fd00::1]", ()),
    ("*x*,x.example", "*x*|x.example|*.x.example", ()),
]


@pytest.mark.parametrize(("no_proxy", "hosts", "left_out"), JAVA)
def test_a_list_becomes_patterns_of_java(no_proxy, hosts, left_out):
    assert java_non_proxy_hosts(no_proxy) == (hosts, left_out)


def test_the_patterns_reach_what_the_list_means():
    hosts = java_non_proxy_hosts("10.96.0.0/12,.svc,example.com,fd00::1").hosts
    for host in ("10.96.0.1", "10.111.255.255", "a.b.svc", "example.com", "a.example.com", "fd00::1"):
        assert java_bypasses(hosts, host), host
    for host in ("10.112.0.1", "10.95.0.1", "svc", "notexample.com", "fd00::2"):
        assert not java_bypasses(hosts, host), host


@pytest.mark.parametrize(
    ("pattern", "reached", "missed"),
    [
        ("*ample*", ["example.com", "ample", "sample.org"], ["exampl.com"]),
        ("*.example.com", ["a.example.com"], ["example.com", "a.example.com.org"]),
        ("10.*", ["10.1.2.3", "10."], ["110.1.2.3", "1.10.2.3", "10"]),
        ("a*b", ["a*b"], ["ab", "axb"]),
        ("example.com", ["example.com", "EXAMPLE.com"], ["a.example.com"]),
        ("*", ["anything"], []),
        ("", [], ["localhost", "", "a.b"]),
    ],
)
def test_a_star_of_java_counts_at_the_ends_alone(pattern, reached, missed):
    assert [host for host in reached + missed if java_bypasses(pattern, host)] == reached


def test_a_port_counts_where_a_client_reads_one():
    environment = {"HTTP_PROXY": "p", "http_proxy": "p", "NO_PROXY": "a:81", "no_proxy": "a:81"}
    for port, verdict in ((81, Verdict.DIRECT), (82, Verdict.PROXIED), (None, Verdict.PROXIED)):
        assert reaches(Client.GO, environment, "a", port) is verdict
    assert reaches(Client.GO, {**environment, "NO_PROXY": "a:80"}, "a") is Verdict.DIRECT


@pytest.mark.parametrize(
    ("client", "no_proxy", "host", "port", "expected"),
    [
        (Client.REQUESTS, "b, a:81", "a", 81, Verdict.DIRECT),
        (Client.REQUESTS, ".a:81", "x.a", 81, Verdict.DIRECT),
        (Client.REQUESTS, "a:None", "a", None, Verdict.PROXIED),
        (Client.URLLIB, "a", "a", 81, Verdict.DIRECT),
        (Client.URLLIB, ".a", "x.a", 81, Verdict.DIRECT),
        (Client.GO, "*.svc", "a.svc", None, Verdict.DIRECT),
        (Client.GO, "10.0.0.1", "10.0.0.2", None, Verdict.PROXIED),
        (Client.GO, "[fd00::1]:81", "fd00::1", 82, Verdict.PROXIED),
        (Client.CURL, "10.0.0.1/x", "10.0.0.1", None, Verdict.DIRECT),
        (Client.CURL, "10.0.0.1/x", "10.0.0.2", None, Verdict.PROXIED),
        (Client.CURL, "10.0.0.0/8", "11.0.0.1", None, Verdict.PROXIED),
        (Client.HTTPX, "localhost", "a.localhost", None, Verdict.PROXIED),
        (Client.HTTPX, "LOCALHOST", "localhost", None, Verdict.DIRECT),
        (Client.HTTPX, "10.0.0.1", "x.10.0.0.1", None, Verdict.PROXIED),
        (Client.HTTPX, "a@example.com", "example.com", None, Verdict.DIRECT),
    ],
)
def test_a_client_answers_as_its_source_says(client, no_proxy, host, port, expected):
    assert bypasses(client, no_proxy, host, port) is expected


def test_a_network_takes_a_bounded_number_of_patterns():
    assert max(len(java_non_proxy_hosts(f"10.0.0.0/{bits}").hosts.split("|")) for bits in range(33)) == 128
