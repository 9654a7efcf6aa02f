"""What a VM is seen as, from the properties that vCenter delivers."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest

from services.machine_controller.status import News, unreported, with_news
from services.machine_controller.vsphere import views
from services.machine_controller.vsphere.soap import vim
from services.machine_controller.vsphere.values import GuestNic, Ref
from services.runtime.kube.objects import KubeObject, ObjectMeta, raw

CARD, SECOND, BRIDGE = "00:50:56:AA:BB:01", "00:50:56:AA:BB:02", "BE:EF:00:00:00:01"


def vm(*nics):
    """A VM whose guest reports interfaces: MAC, device key (-1: no card of the VM), addresses."""
    net = [
        vim.vm.GuestInfo.NicInfo(macAddress=mac, deviceConfigId=key, connected=True, ipAddress=addresses)
        for mac, key, *addresses in nics
    ]
    return views.virtual_machine(Ref("VirtualMachine", "vm-1"), {"guest.net": net})


@pytest.mark.parametrize(
    ("nics", "seen"),
    [
        ([(CARD, 4000, "10.0.0.5")], [("10.0.0.5",)]),
        ([(CARD, 4000, "10.0.0.5"), (BRIDGE, -1, "10.244.0.1")], [("10.0.0.5",)]),
        ([(BRIDGE, -1, "10.244.0.1"), (CARD, 4000)], [()]),
        ([("", -1, "10.96.0.1", "10.96.0.10")], []),
        ([(CARD, 4000, "10.0.0.5"), (SECOND, 4001, "10.1.0.5")], [("10.0.0.5",), ("10.1.0.5",)]),
        ([(CARD, 4000, "FE80:0::1%eth0", "no address", "", "10.0.0.5", "10.0.0.5")], [("fe80::1", "10.0.0.5")]),
    ],
)
def test_only_cards_of_the_vm_are_seen_of_a_guests_interfaces(nics, seen):
    assert [nic.addresses for nic in vm(*nics).guest.nics] == seen


def test_a_card_is_seen_with_its_mac_in_lower_case():
    assert vm((CARD, 4000, "10.0.0.5")).guest.nics == (GuestNic(CARD.lower(), ("10.0.0.5",), connected=True),)


GUEST_ONLY = [
    (BRIDGE, -1, "10.244.0.1"),
    ("be:ef:00:00:00:02", -1, "10.96.0.1", "10.96.0.10"),  # kube-ipvs0, with every Service
]


@pytest.mark.parametrize("dhcp", [1, 2])
def test_addresses_that_the_guest_alone_has_make_no_machine_ready(dhcp):
    cards = [(CARD, 4000, "fe80::1"), (SECOND, 4001)]
    assert unreported(vm(*cards, *GUEST_ONLY), (), dhcp, 0) == unreported(vm(*cards), (), dhcp, 0) != ()


def test_the_status_has_nothing_of_interfaces_that_the_guest_alone_has():
    obj = KubeObject(kind="VSphereMachine", metadata=ObjectMeta(name="m1"), status=raw({}))
    news = News(vm=vm((CARD, 4000, "10.0.0.5"), *GUEST_ONLY), name="m1")
    status = msgspec.json.decode(with_news(obj, news, datetime(2026, 1, 2, tzinfo=UTC)).status)
    assert [row["address"] for row in status["addresses"]] == ["10.0.0.5", "m1"]
    assert [row["macAddr"] for row in status["network"]] == [CARD.lower()]
