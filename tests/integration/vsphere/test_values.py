"""Values at the edge: addresses of servers, references, thumbprints, and errors that stay short."""

from __future__ import annotations

import pytest

from services.machine_controller.vsphere.credentials import Credentials, Trust
from services.machine_controller.vsphere.errors import MESSAGE_LIMIT, Ambiguous, InvalidValue, NotFound, TaskFailed
from services.machine_controller.vsphere.values import ExtraConfig, Ref, Server


@pytest.mark.parametrize(
    ("text", "host", "port", "shown"),
    [
        ("vc.example.com", "vc.example.com", 443, "vc.example.com"),
        ("VC.example.com:8989", "vc.example.com", 8989, "vc.example.com:8989"),
        ("https://vc.example.com/sdk", "vc.example.com", 443, "vc.example.com"),
        ("https://vc.example.com:443/", "vc.example.com", 443, "vc.example.com"),
        ("192.0.2.7:444", "192.0.2.7", 444, "192.0.2.7:444"),
        ("[2001:db8::1]:444", "2001:db8::1", 444, "[2001:db8::1]:444"),
        ("2001:db8::1", "2001:db8::1", 443, "[2001:db8::1]"),
    ],
)
def test_a_server_is_read_in_every_usual_form(text, host, port, shown):
    server = Server.parse(text)
    assert (server.host, server.port, str(server)) == (host, port, shown)


@pytest.mark.parametrize("text", ["", "vc:0", "vc:70000", "vc:x", "user:secret@vc", "http://vc"])
def test_what_is_no_server_is_refused_without_being_repeated(text):
    with pytest.raises(InvalidValue) as caught:
        Server.parse(text)
    assert "secret" not in str(caught.value)


def test_a_reference_survives_its_text():
    reference = Ref("VirtualMachine", "vm-42")
    assert Ref.parse(str(reference)) == reference
    for text in ("", "vm-42", "VirtualMachine:", ":vm-42"):
        with pytest.raises(InvalidValue):
            Ref.parse(text)


@pytest.mark.parametrize("thumbprint", ["ab:cd", "zz" * 20, "ab" * 64])
def test_a_thumbprint_of_another_kind_is_refused(thumbprint):
    with pytest.raises(InvalidValue):
        Trust(thumbprint=thumbprint)


def test_a_thumbprint_may_be_written_with_colons_and_in_capitals():
    assert Trust(thumbprint="AB:" * 19 + "AB").digits() == "ab" * 20


def test_a_ca_that_is_no_pem_is_refused():
    with pytest.raises(InvalidValue):
        Trust(ca="nonsense").context()


def test_secrets_are_in_no_text_of_their_values():
    shown = f"{Credentials('user', 'canary')} {Credentials('user', 'canary')!r} {ExtraConfig({'key': 'canary'})!r}"
    assert "canary" not in shown
    assert "user" in shown
    assert "key" in shown


def test_long_lists_of_names_are_cut():
    error = NotFound("network", "x", where="DC0", nearby=[f"network-{i:03}" for i in range(100)])
    assert str(error).endswith("network-007 and 92 more")
    assert len(error.nearby) == 100
    assert str(Ambiguous("VM", "x", ["b", "a"])) == "VM 'x' is ambiguous; it may be: a, b"
    assert len(str(TaskFailed("Fault", "y" * 5000))) == MESSAGE_LIMIT
