"""What entries of NO_PROXY are taken for, and who does not understand them."""

from __future__ import annotations

import pytest

from services.proxyenv.clients import Client, Verdict
from services.proxyenv.probes import Form, crashed_by, missed_by, probe

ENTRIES = [
    # entry, form, host, port, clients that miss it
    ("*", Form.EVERYTHING, "host.example", None, ""),
    ("10.96.0.1", Form.ADDRESS, "10.96.0.1", None, ""),
    ("10.96.0.1:81", Form.ADDRESS, "10.96.0.1", 81, "curl Java requests aiohttp"),
    ("10.96.0.0/12", Form.NETWORK, "10.96.0.1", None, "Java urllib httpx aiohttp"),
    ("10.96.0.1/32", Form.NETWORK, "10.96.0.1", None, "Java urllib aiohttp"),
    ("fd00::1", Form.ADDRESS, "fd00::1", None, "Java urllib"),
    ("[fd00::1]", Form.BRACKETS, "fd00::1", None, "curl Go requests httpx aiohttp"),
    ("[fd00::1]:81", Form.BRACKETS, "fd00::1", 81, "curl Java requests httpx aiohttp"),
    ("fd00::/8", Form.NETWORK, "fd00::1", None, "curl Java urllib requests httpx aiohttp"),
    ("10.*", Form.GLOB, "10.1.1.1", None, "curl Go urllib requests httpx aiohttp"),
    ("10.1.*.*", Form.GLOB, "10.1.1.1", None, "curl Go Java urllib requests httpx aiohttp"),
    ("192.168.", Form.PREFIX, "192.168.1.1", None, "curl Go Java urllib requests httpx aiohttp"),
    ("*.example.com", Form.WILDCARD, "host.example.com", None, "curl urllib requests httpx aiohttp"),
    (".Example.com", Form.SUFFIX, "host.example.com", None, "Java"),
    ("mysql", Form.NAME, "mysql", None, ""),
    ("example.com:81", Form.NAME, "example.com", 81, "curl Java aiohttp"),
    ("example.com.", Form.NAME, "example.com", None, "Go Java urllib requests httpx aiohttp"),
    ("a b", Form.BLANK, "", None, ""),
    ("http://example.com", Form.UNKNOWN, "", None, ""),
    ("e*m", Form.UNKNOWN, "", None, ""),
    ("10.0.0.0/33", Form.UNKNOWN, "", None, ""),
    ("[x]", Form.UNKNOWN, "", None, ""),
    (".", Form.UNKNOWN, "", None, ""),
]


@pytest.mark.parametrize(("entry", "form", "host", "port", "missing"), ENTRIES)
def test_an_entry_is_read_and_held_against_every_client(entry, form, host, port, missing):
    read = probe(entry)
    assert (read.form, read.host, read.port) == (form, host, port)
    assert " ".join(missed_by(read)) == missing


@pytest.mark.parametrize(
    ("entry", "form", "host", "port"),
    [
        ("10.96.7.7/12", Form.NETWORK, "10.96.0.1", None),
        ("10.96.0.0/31", Form.NETWORK, "10.96.0.1", None),
        ("10.96.0.0/12:81", Form.NETWORK, "10.96.0.1", 81),
        ("10.*:81", Form.GLOB, "10.1.1.1", 81),
        ("192.168.:81", Form.PREFIX, "192.168.1.1", 81),
        ("[fd00::1", Form.UNKNOWN, "", None),
        ("fd00::1]", Form.UNKNOWN, "", None),
        ("[fd00::1]x", Form.UNKNOWN, "", None),
        ("[x]", Form.UNKNOWN, "", None),
        ("a b", Form.BLANK, "", None),
        ("*", Form.EVERYTHING, "host.example", None),
    ],
)
def test_a_probe_has_the_entry_as_it_is_written_and_a_host_that_it_is_for(entry, form, host, port):
    assert probe(entry)[:4] == (entry, form, host, port)


def test_a_client_that_raises_is_told_from_one_that_does_not_match():
    assert missed_by(probe("fd00::/8"))[Client.HTTPX] is Verdict.CRASH
    assert crashed_by("fd00::/8") == [Client.HTTPX]
    assert crashed_by("fd00::1") == []


def test_only_the_clients_that_matter_are_asked():
    assert missed_by(probe("10.0.0.0/8"), [Client.CURL, Client.GO]) == {}
    assert crashed_by("fd00::/8", [Client.CURL]) == []


def test_a_dot_at_the_end_is_remembered():
    assert probe("example.com.").last_dot
    assert probe(".svc.").last_dot
    assert not probe("svc").last_dot
