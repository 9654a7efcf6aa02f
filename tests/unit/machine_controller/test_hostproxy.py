"""Proxy settings: what is read, how it is made safe to quote, and what NO_PROXY is completed with."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

import pytest

from services.machine_controller import hostscript
from services.machine_controller.guestinfo.problems import InvalidError
from services.machine_controller.hostproxy import HostProxy
from services.proxyenv.complete import Facts
from services.proxyenv.host import HostFacts, complete_host, for_login_shells

FACTS = HostFacts(
    cluster=Facts(
        service_cidrs=("10.96.0.0/12", "fd00:96::/112"), pod_cidrs=("192.168.0.0/16",), api_server=("10.96.0.1",)
    ),
    node_networks=("10.20.30.0/24", "fd00:20::/64"),
    endpoint=("10.20.30.9",),
    vcenter=("vcenter.example",),
)


def problems(**values):
    with pytest.raises(InvalidError) as caught:
        HostProxy.read(values)
    return [(problem.field, problem.value) for problem in caught.value.problems], str(caught.value)


@pytest.mark.parametrize(
    "values",
    [
        {"httpProxy": "proxy:1", "httpsProxy": "proxy:2", "noProxy": "a, b,,A"},
        {"HTTP_PROXY": "http://proxy:1", "HTTPS_PROXY": "http://proxy:2/", "NO_PROXY": "a,b"},
        {"http_proxy": "HTTP://proxy:1", "https_proxy": "proxy:2", "no_proxy": "a,b", "other": "x"},
        {"http-proxy": "proxy:1", "https-proxy": "proxy:2", "no-proxy": "a,b"},
    ],
)
def test_settings_are_read_under_the_names_that_people_use(values):
    assert HostProxy.read(values) == HostProxy("http://proxy:1", "http://proxy:2", ("a", "b"))


@pytest.mark.parametrize(
    ("user", "password"),
    [("u", "p"), ("us'er", 'p"a$HOME`id`\\n;&|*!'), ("dom\\u", "p@ss/w:rd#?"), ("ü", "%zz% "), ("u", "%{x}${y}")],
)
def test_a_password_of_any_characters_is_the_same_to_who_decodes_the_url(user, password):
    proxy = HostProxy.read({"httpProxy": f"http://{user}:{password}@proxy.example:3128"})
    parts = urlsplit(proxy.http)
    assert (unquote(parts.username), unquote(parts.password)) == (user, password)
    assert (parts.hostname, parts.port) == ("proxy.example", 3128)
    assert set(proxy.http) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~%:/@")


def test_what_is_encoded_already_stays_as_it_is():
    assert HostProxy.read({"httpProxy": "http://u:p%40ss%2f@proxy:1"}).http == "http://u:p%40ss%2f@proxy:1"


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "http://proxy:port",
        "http://proxy:0",
        "http://proxy:65536",
        "socks5://hunter2@proxy:1",
        "http://hunter2@proxy/path",
        "http://pro xy:1",
        "http://u:hunter2\n@proxy:1",
        "http://u:hunter2@pr$oxy",
    ],
)
def test_a_url_that_cannot_be_used_is_told_without_it(url):
    found, text = problems(httpsProxy=url)
    assert found == [("httpsProxy", "(not shown)")]
    assert "hunter2" not in text
    assert "proxy:1" not in text.replace("proxy.example", "")


@pytest.mark.parametrize("item", ["a b", "$(id)", "a;b", "'", 'a"b', "a\\b"])
def test_an_entry_of_no_proxy_that_is_no_host_is_refused(item):
    assert problems(noProxy=f"ok,{item}")[0] == [("noProxy", item)]


@pytest.mark.parametrize("text", ["not PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"])
def test_what_is_no_certificate_is_refused(text):
    found, _ = problems(caBundle=text)
    assert [field for field, _ in found] == ["caBundle"]


def test_no_proxy_is_completed_with_all_that_nodes_reach_directly():
    proxy = HostProxy.read({"httpProxy": "proxy:1", "noProxy": ".corp,10.96.0.0/12"}).completed(FACTS)
    assert proxy.no_proxy == (
        "localhost",
        "127.0.0.1",
        "::1",
        ".corp",
        "10.96.0.0/12",
        ".svc",
        ".cluster.local",
        "fd00:96::/112",
        "192.168.0.0/16",
        "10.96.0.1",
        "169.254.169.254",
        "10.20.30.0/24",
        "fd00:20::/64",
        "10.20.30.9",
        "vcenter.example",
    )


def test_without_a_proxy_there_is_nothing_to_complete():
    assert HostProxy().completed(FACTS) == HostProxy()
    assert HostProxy(no_proxy=("a",)).variables() == {}


def test_what_is_not_known_is_told():
    assert complete_host(HostFacts()).missing == (
        "service-cidr",
        "pod-cidr",
        "api-server",
        "node-network",
        "control-plane-endpoint",
        "vcenter",
    )
    assert complete_host(FACTS).missing == ()


def test_everything_stays_everything():
    assert complete_host(FACTS, ("*",)).entries == ("*",)


def test_login_shells_get_no_entry_that_makes_programs_fail():
    assert for_login_shells(("a", "fd00::/8", "[fd00::1]", "::1", "10.0.0.0/8")) == ("a", "::1", "10.0.0.0/8")


def test_both_spellings_are_set_to_the_same():
    variables = HostProxy("http://p:1", "", ("a", "fd00::/8")).variables()
    assert variables == {
        "HTTP_PROXY": "http://p:1",
        "http_proxy": "http://p:1",
        "NO_PROXY": "a,fd00::/8",
        "no_proxy": "a,fd00::/8",
    }
    assert HostProxy("http://p:1", "", ("a", "fd00::/8")).variables(login=True)["no_proxy"] == "a"


def test_user_name_and_password_are_in_no_repr():
    proxy = HostProxy.read({"httpProxy": "http://user:hunter2@proxy:1", "noProxy": "a"})
    assert repr(proxy) == "HostProxy(http='http://***@proxy:1', https='', no_proxy=('a',), 0 certificates)"
    assert proxy.secret
    assert not HostProxy.read({"httpProxy": "proxy:1"}).secret


def test_with_nothing_to_set_up_there_is_no_script_and_no_unit():
    assert hostscript.host_script(HostProxy(no_proxy=("a",))) == ""
    assert hostscript.ignition_parts(HostProxy()) == ([], [])


def test_ignition_gets_drop_ins_and_a_unit_that_runs_the_script_before_what_needs_it():
    proxy = HostProxy.read({"httpProxy": "http://u:p%25@proxy:1"})
    (file,), units = hostscript.ignition_parts(proxy)
    assert (file.path, file.mode, file.content) == (hostscript.SCRIPT_PATH, 0o700, hostscript.host_script(proxy))
    unit, *others = units
    assert f"ExecStart=/bin/sh {file.path}" in unit.content
    before = next(line for line in unit.content.splitlines() if line.startswith("Before="))
    assert {"containerd.service", "kubelet.service", "kubeadm.service"} <= set(before.removeprefix("Before=").split())
    assert {other.name for other in others} == {f"{name}.service" for name in hostscript.SERVICES}
    assert 'Environment="HTTP_PROXY=http://u:p%%25@proxy:1"' in others[0].drop_ins[0].content


@pytest.mark.parametrize(
    ("item", "line"),
    [("a.example", True), ("10.0.0.1", True), ("10.0.0.0/8", False), (".svc", False), ("*", False), ("::1", False)],
)
def test_apt_is_told_of_hosts_and_of_nothing_that_it_cannot_match(item, line):
    text = hostscript.apt_settings(HostProxy("http://p:1", "", (item, "b")))
    assert (f'Acquire::http::Proxy::{item} "DIRECT";' in text) is line
