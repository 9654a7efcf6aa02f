"""Which way requests to one host go."""

from __future__ import annotations

import pytest

from services.podpreset.cli import routes
from services.podpreset.cli.routes import Destination, parse_destination
from services.podpreset.cli.whatif import admit, world
from services.podpreset.cli.workloads import workload
from services.proxyenv.clients import Client, Verdict
from services.proxyenv.complete import Facts

DESTINATIONS = [
    ("example.com", Destination("http", "example.com", None)),
    ("example.com:81", Destination("http", "example.com", 81)),
    ("https://example.com", Destination("https", "example.com", None)),
    ("https://example.com:81/", Destination("https", "example.com", 81)),
    ("fd00::1", Destination("http", "fd00::1", None)),
    ("[fd00::1]", Destination("http", "fd00::1", None)),
    ("https://[fd00::1]:81", Destination("https", "fd00::1", 81)),
]


@pytest.mark.parametrize(("text", "expected"), DESTINATIONS)
def test_a_host_is_read(text, expected):
    assert parse_destination(text) == expected


@pytest.mark.parametrize("text", ["", "a b", "http://", "ftp://a", "a/b", "a:x", "a:70000", "u@a", "a,b"])
def test_what_is_no_host_is_refused(text):
    with pytest.raises(ValueError, match="is no host"):
        parse_destination(text)


def containers(env, to):
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "c", "env": env}]},
    }
    found = admit(workload(pod, "ns"), world([], [], Facts(), ()))
    ((where, ways),) = routes.of_containers(found, to, tuple(Client))
    assert where == "Pod ns/p: container c"
    return ways


HTTP = Destination("http", "example.com", None)


def test_without_a_proxy_everything_is_direct():
    assert set(containers([], HTTP).values()) == {Verdict.DIRECT}
    https_alone = [{"name": "HTTPS_PROXY", "value": "http://p"}]
    assert set(containers(https_alone, HTTP).values()) == {Verdict.DIRECT}


def test_a_container_goes_the_way_of_the_spelling_that_its_client_reads():
    upper = [{"name": "HTTP_PROXY", "value": "http://p"}, {"name": "NO_PROXY", "value": "x"}]
    ways = containers(upper, HTTP)
    assert ways[Client.CURL] is Verdict.DIRECT  # it does not read HTTP_PROXY
    assert {ways[client] for client in Client if client is not Client.CURL} == {Verdict.PROXIED}


def test_java_is_given_the_list_in_its_own_form():
    env = [{"name": "HTTP_PROXY", "value": "http://p"}, {"name": "NO_PROXY", "value": "example.com"}]
    assert containers(env, HTTP)[Client.JAVA] is Verdict.DIRECT
    assert routes.of_list("10.0.0.0/8", Destination("http", "10.1.1.1", None), [Client.JAVA]) == {
        Client.JAVA: Verdict.DIRECT
    }


def test_what_comes_from_elsewhere_is_not_seen():
    env = [{"name": "http_proxy", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]
    assert set(containers(env, HTTP).values()) == {Verdict.DIRECT}


def test_clients_disagree_where_their_ways_differ_or_one_has_none():
    direct, proxied, crash = ({Client.GO: verdict} for verdict in Verdict)
    assert not routes.disagree([direct, proxied])
    assert routes.disagree([direct, {**direct, Client.CURL: Verdict.PROXIED}])
    assert routes.disagree([crash])
