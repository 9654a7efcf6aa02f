"""The status of a VSphereMachine, put together from what is known."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest

from services.machine_controller.phases import Claims, Say
from services.machine_controller.status import News, texts, unreported, usable, with_news
from services.machine_controller.vsphere.values import Guest, GuestNic, PowerState, Ref, VirtualMachine
from services.runtime.kube.objects import KubeObject, ObjectMeta, raw

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LATER = datetime(2026, 1, 2, 4, 0, 0, tzinfo=UTC)
READY = Say(True, "Provisioned")


def machine(**status):
    return KubeObject(kind="VSphereMachine", metadata=ObjectMeta(name="m1", generation=3), status=raw(status))


def vm(*nics):
    guest = Guest(nics=tuple(GuestNic(mac=mac, addresses=tuple(found), connected=True) for mac, *found in nics))
    return VirtualMachine(ref=Ref("VirtualMachine", "vm-1"), power=PowerState.ON, guest=guest)


def said(obj):
    status = msgspec.json.decode(obj.status)
    return {row["type"]: (row["status"], row["reason"], row["message"]) for row in status["conditions"]}


def test_a_machine_that_is_ready_says_so_and_tells_cluster_api():
    news = News(say=READY, vcenter="", vm=vm(("m1", "10.0.0.5", "fe80::1")), name="m1", first=("10.0.0.5",))
    status = msgspec.json.decode(with_news(machine(), news, NOW).status)
    assert status["initialization"] == {"provisioned": True}
    assert status["addresses"] == [
        {"type": "ExternalIP", "address": "10.0.0.5"},
        {"type": "InternalDNS", "address": "m1"},
    ]
    assert status["network"] == [{"macAddr": "m1", "connected": True, "ipAddrs": ["10.0.0.5", "fe80::1"]}]
    assert said(with_news(machine(), news, NOW)) == {
        "VCenterAvailable": ("True", "Available", ""),
        "VirtualMachineProvisioned": ("True", "Provisioned", ""),
        "Ready": ("True", "Ready", ""),
    }


def test_ready_repeats_why_the_vm_is_not():
    found = said(with_news(machine(), News(say=Say(False, "TaskFailed", "no room")), NOW))
    assert found["Ready"] == ("False", "NotReady", "VirtualMachineProvisioned: TaskFailed: no room")


def test_a_vm_runs_on_without_vcenter_and_is_ready_all_the_same():
    first = with_news(machine(), News(say=READY), NOW)
    found = said(with_news(first, News(vcenter="no answer"), NOW))
    assert found["VCenterAvailable"] == ("False", "VCenterUnreachable", "no answer")
    assert found["Ready"] == ("True", "Ready", "VCenterAvailable: no answer")


def test_what_says_the_same_is_the_same_object_even_for_another_generation():
    first = with_news(machine(), News(say=Say(False, "R", "m"), vcenter=""), NOW)
    again = KubeObject(kind="VSphereMachine", metadata=ObjectMeta(name="m1", generation=9), status=first.status)
    assert with_news(again, News(say=Say(False, "R", "m"), vcenter=""), LATER) is again


def test_conditions_and_fields_of_others_stay():
    other = {"type": "other.example/C", "status": "True", "reason": "R", "message": "", "lastTransitionTime": "t"}
    start = machine(conditions=[other], deprecated={"v1beta1": {}}, initialization={"provisioned": True})
    status = msgspec.json.decode(with_news(start, News(say=Say(False, "PoweredOff", "off")), NOW).status)
    assert status["conditions"][0] == other
    assert status["deprecated"] == {"v1beta1": {}}
    assert status["initialization"] == {"provisioned": True}


def test_paused_is_told_once_it_was_and_taken_back():
    assert with_news(machine(), News(), NOW).status == machine().status
    paused = with_news(machine(), News(paused=True), NOW)
    assert said(paused)["Paused"] == ("True", "Paused", "")
    assert said(with_news(paused, News(), NOW))["Paused"] == ("False", "NotPaused", "")


def test_claims_are_told_where_there_are_any():
    waiting = with_news(machine(), News(claims=Claims(missing=("a",), unbound=("b",))), NOW)
    assert said(waiting)["IPAddressClaimsFulfilled"] == ("False", "WaitingForIPAddress", "without an address: a, b")
    assert said(with_news(waiting, News(claims=Claims()), NOW))["IPAddressClaimsFulfilled"][:2] == ("True", "Fulfilled")


def test_a_vm_that_is_where_it_was_made_says_nothing_until_it_was_elsewhere():
    assert "machine.groundwork.dev/AsPlaced" not in said(with_news(machine(), News(say=READY, drift=()), NOW))
    moved = with_news(machine(), News(say=READY, drift=("it is called x",)), NOW)
    assert said(moved)["machine.groundwork.dev/AsPlaced"] == ("False", "Changed", "it is called x")
    assert said(with_news(moved, News(drift=()), NOW))["machine.groundwork.dev/AsPlaced"][:2] == ("True", "AsMade")


def test_a_vm_that_is_gone_has_no_addresses_and_one_that_reports_nothing_keeps_them():
    first = with_news(machine(), News(say=READY, vm=vm(("m1", "10.0.0.5")), name="m1"), NOW)
    assert "addresses" in msgspec.json.decode(with_news(first, News(vm=vm(), name="m1"), NOW).status)
    assert "addresses" not in msgspec.json.decode(with_news(first, News(gone=True), NOW).status)


@pytest.mark.parametrize(
    ("shared", "reported", "own"),
    [("10.0.0.250", "10.0.0.250", "10.0.0.5"), ("FD00:0:0::0250", "fd00::250", "fd00::5")],
)
def test_the_address_of_the_control_plane_is_no_nodes_own(shared, reported, own):
    news = News(vm=vm(("m1", reported, own)), name="m1", shared=shared)
    status = msgspec.json.decode(with_news(machine(), news, NOW).status)
    assert [row["address"] for row in status["addresses"]] == [own, "m1"]


def test_lists_are_no_longer_than_the_definition_lets_them_be():
    many = [f"10.0.{number // 250}.{number % 250 + 1}" for number in range(400)]
    cards = [(f"m{number}", f"10.9.0.{number + 1}") for number in range(200)]
    news = News(vm=vm(("m", *many), *cards), name="m1", first=(many[300],))
    status = msgspec.json.decode(with_news(machine(), news, NOW).status)
    assert len(status["addresses"]) == len(status["network"]) == len(status["network"][0]["ipAddrs"]) == 128
    assert [row["address"] for row in status["addresses"][:2]] == [many[300], many[0]]
    assert status["addresses"][-1] == {"type": "InternalDNS", "address": "m1"}


@pytest.mark.parametrize(
    ("nics", "static", "dhcp", "fixed", "left"),
    [
        ((("a", "10.0.0.5"),), ("10.0.0.5",), 0, 1, ()),
        ((("a", "192.0.2.1"),), ("10.0.0.5",), 0, 1, ("10.0.0.5",)),
        ((), ("10.0.0.5", "fd00::5"), 0, 1, ("10.0.0.5", "fd00::5")),
        ((("a", "fe80::1"),), (), 1, 0, ("an address",)),
        ((("a", "192.0.2.1"),), (), 1, 0, ()),
        ((("a", "10.0.0.5"),), ("10.0.0.5",), 1, 1, ("addresses on 2 devices, but on 1",)),
        ((("a", "10.0.0.5"), ("b", "192.0.2.1")), ("10.0.0.5",), 1, 1, ()),
        ((("a", "10.0.0.250"),), (), 1, 0, ("an address",)),
        ((), (), 0, 0, ("an address",)),
        ((("a", "192.0.2.1"),), (), 0, 0, ()),
    ],
)
def test_what_the_guest_does_not_report_yet(nics, static, dhcp, fixed, left):
    assert unreported(vm(*nics), static, dhcp, fixed, shared="10.0.0.250") == left


def test_addresses_are_compared_in_their_shortest_form():
    assert texts(["10.0.0.5/24", "fd00:0:0::5/64", "no", "10.0.0.5"]) == ("10.0.0.5", "fd00::5")


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "::1", "fe80::1", "169.254.1.1", "0.0.0.0", "ff02::1", "fe80::1%eth0"]
)
def test_addresses_that_reach_no_node(address):
    assert not usable(address)
