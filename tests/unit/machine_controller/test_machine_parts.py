"""Small parts of the machine controller: names, records, credentials, CAPV's Lease, turns at cloning, clones."""

from __future__ import annotations

import base64
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from services.machine_controller import record
from services.machine_controller.api import VSphereMachineSpec
from services.machine_controller.cloning import _check_disks, _check_version, _grows, _snapshot
from services.machine_controller.contract import Secret
from services.machine_controller.credentials import Login, Trouble, read
from services.machine_controller.guard import held
from services.machine_controller.names import claim_name, vm_name
from services.machine_controller.record import Record
from services.machine_controller.settings import CAPV_LEASE, MachineSettings
from services.machine_controller.slots import Slots
from services.machine_controller.vsphere.credentials import Credentials
from services.machine_controller.vsphere.errors import InvalidValue, NotFound
from services.machine_controller.vsphere.values import Disk, Ref, Server, Template
from services.runtime.kube.conditions import micro_timestamp
from services.runtime.kube.objects import KubeObject, ObjectKey, ObjectMeta, raw
from services.runtime.settings import SettingsError

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
KEY = ObjectKey("ns", "vcenter")
GIB = 1 << 30


@pytest.mark.parametrize(
    ("machine", "os", "name"),
    [
        ("prod-md-0-abcde-fghij", "", "prod-md-0-abcde-fghij"),
        ("prod-md-0-abcde-fghij", "Linux", "prod-md-0-abcde-fghij"),
        ("short", "Windows", "short"),
        ("prod-md-0-abcde-fghij", "Windows", "prod-md-0-fghij"),
        ("windows8-abcde-fghij", "Windows", "windows8-fghij"),
    ],
)
def test_a_vm_is_called_like_its_machine_and_shorter_on_windows(machine, os, name):
    assert vm_name(machine, os) == name
    assert claim_name(name, 1, 0) == f"{name}-1-0"


def obj(text, name="m1"):
    return KubeObject(metadata=ObjectMeta(name=name, namespace="ns", annotations={record.ANNOTATION: text}))


def test_a_record_is_read_as_it_was_written():
    noted = Record(of="ns/m1", uuid="u", name="m1", task="Task:t", started=True)
    assert record.read(obj(record.write(noted))) == noted
    assert record.write(None) is None


def test_a_record_of_another_object_or_of_another_shape_counts_for_nothing():
    text = record.write(Record(of="ns/m1", uuid="u"))
    assert record.read(obj(text, name="copy")) is None
    assert not record.damaged(obj(text, name="copy"))
    assert not record.damaged(obj(text))
    for text in ("", "no", "{}", "[]", '{"of": 1}'):
        assert record.read(obj(text)) is None
        assert record.damaged(obj(text)) is bool(text)


@pytest.mark.parametrize(
    ("given_up", "after", "seconds"),
    [
        (None, 60.5, -14.5),
        (None, 80, 5.0),
        (60.5, 60.5, 0.0),
        (60.5, 70, 9.5),
        (0.2, 10, 9.8),
    ],
)
def test_a_clone_without_answer_is_as_old_as_the_end_of_the_wait_for_it(given_up, after, seconds):
    noted = Record(of="ns/m1", uuid="u", since=micro_timestamp(NOW))
    if given_up is not None:
        noted = record.given_up(noted, NOW + timedelta(seconds=given_up))
    assert record.read(obj(record.write(noted))) == noted
    assert record.age(noted, NOW + timedelta(seconds=after)) == pytest.approx(seconds)


def secret(**texts):
    data = {key.replace("_", "."): base64.b64encode(value.encode()).decode() for key, value in texts.items()}
    return Secret(metadata=ObjectMeta(name="vcenter", namespace="ns"), data=data)


def test_credentials_are_read_and_never_shown():
    found = read(KEY, secret(username="u ", password="p w\n", ca_crt="PEM"))
    assert found == Login(Credentials("u", "p w"), "PEM")
    named = read(KEY, secret(username="u", password="p", servers="vc.example, VC2.example:8443\n[2001:db8::1]"))
    assert named.servers == (Server("vc.example"), Server("vc2.example", 8443), Server("2001:db8::1"))
    assert "p w" not in repr(found)
    assert "p w" not in repr(secret(password="p w"))


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (None, "no Secret ns/vcenter"),
        (secret(username="u"), "no username and password"),
        (secret(username="u", password=""), "no username and password"),
        (
            Secret(metadata=ObjectMeta(), data={"username": "dQ==", "password": base64.b64encode(b"\xff").decode()}),
            "no text",
        ),
        (secret(username="u", password="p", servers="vc:x"), "key servers: invalid server: 'x' is no port"),
    ],
)
def test_a_secret_that_cannot_be_used_says_why(given, text):
    found = read(KEY, given)
    assert isinstance(found, Trouble)
    assert text in found.message


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        ({}, False),
        ({"holderIdentity": "", "renewTime": "2026-01-02T03:04:00.000000Z"}, False),
        ({"holderIdentity": "capv"}, True),
        ({"holderIdentity": "capv", "renewTime": "2026-01-02T03:04:00.000000Z"}, True),
        ({"holderIdentity": "capv", "renewTime": "2026-01-02T03:00:00.000000Z"}, False),
        ({"holderIdentity": "capv", "renewTime": "2026-01-02T03:00:00.000000Z", "leaseDurationSeconds": 3600}, True),
    ],
)
def test_a_lease_is_held_while_its_holder_may_be_alive(spec, wanted):
    assert held(KubeObject(metadata=ObjectMeta(), spec=raw(spec)), NOW) is wanted
    assert held(KubeObject(metadata=ObjectMeta(), spec=raw(spec)), NOW + timedelta(days=1)) is (
        spec == {"holderIdentity": "capv"}
    )


def test_clones_take_turns_in_the_order_in_which_they_asked():
    woken = []
    slots = Slots(2, woken.append)
    server = Server("vc")
    keys = [ObjectKey("ns", f"m{i}") for i in range(5)]
    for key in keys[:2]:
        assert slots.free(server, key)
        slots.take(server, key)
    assert slots.free(server, keys[0])  # it has its turn
    for key in keys[2:]:
        assert not slots.free(server, key)
        slots.wait(server, key)
    assert slots.free(Server("other"), keys[4])
    slots.give(keys[3])  # it waits no more
    slots.give(keys[0])
    slots.give(keys[0])
    assert woken == [keys[2]]
    slots.take(server, keys[2])
    slots.give(keys[1])
    assert woken == [keys[2], keys[4]]


def test_a_turn_that_is_not_taken_is_passed_on():
    woken = []
    slots = Slots(1, woken.append)
    server = Server("vc")
    first, second, third, fourth = (ObjectKey("ns", name) for name in "abcd")
    slots.take(server, first)
    for key in (second, third, fourth):
        slots.wait(server, key)
    slots.give(first)
    assert woken == [second]
    slots.settle(first)
    assert woken == [second]
    slots.settle(second)  # it was paused meanwhile, say
    assert woken == [second, third]
    slots.take(server, third)
    slots.settle(third)
    assert woken == [second, third]
    slots.give(third)
    assert woken == [second, third, fourth]


def test_a_clone_that_runs_already_has_its_turn_whatever_the_limit():
    slots = Slots(1, lambda _: None)
    for name in ("a", "b"):
        slots.take(Server("vc"), ObjectKey("ns", name))
    slots.give(ObjectKey("ns", "a"))
    assert not slots.free(Server("vc"), ObjectKey("ns", "c"))
    slots.give(ObjectKey("ns", "b"))
    assert slots.free(Server("vc"), ObjectKey("ns", "c"))


SNAPSHOT = Ref("VirtualMachineSnapshot", "s-1")
OLDER = Ref("VirtualMachineSnapshot", "s-0")
TEMPLATE = Template(
    ref=Ref("VirtualMachine", "vm-t"),
    name="t",
    path="/dc/vm/t",
    snapshot=SNAPSHOT,
    snapshots=(("old", OLDER), ("new", SNAPSHOT)),
    disks=(Disk(2000, "disk", 10 * GIB),),
)
PLAIN = Template(ref=TEMPLATE.ref, name="t", disks=TEMPLATE.disks)
TWO_DISKS = replace(TEMPLATE, disks=(*TEMPLATE.disks, Disk(2001, "disk", 50 * GIB)))
DISKLESS = replace(TEMPLATE, disks=())


@pytest.mark.parametrize(
    ("fields", "template", "wanted"),
    [
        ({}, TEMPLATE, SNAPSHOT),
        ({}, PLAIN, None),
        ({"clone_mode": "linkedClone"}, PLAIN, None),
        ({"clone_mode": "fullClone"}, TEMPLATE, None),
        ({"snapshot": "old"}, TEMPLATE, OLDER),
        ({"disk_gib": 20}, TEMPLATE, None),
        ({"disk_gib": 10}, TEMPLATE, SNAPSHOT),
        ({"disk_gib": 20, "clone_mode": "linkedClone"}, TEMPLATE, SNAPSHOT),
        ({"additional_disks_gib": (50,)}, TWO_DISKS, SNAPSHOT),
        ({"additional_disks_gib": (100,)}, TWO_DISKS, None),
        ({"additional_disks_gib": (100,), "clone_mode": "linkedClone"}, TWO_DISKS, SNAPSHOT),
    ],
)
def test_a_clone_is_linked_where_it_may_be(fields, template, wanted):
    spec = VSphereMachineSpec(**fields)
    assert _snapshot(spec, template) == wanted
    assert _grows(spec, template) is (fields.get("disk_gib", 0) > 10 or 100 in fields.get("additional_disks_gib", ()))


@pytest.mark.parametrize(
    ("sizes", "template", "message"),
    [
        ((), PLAIN, None),
        ((100,), TWO_DISKS, None),
        ((100,), TEMPLATE, "additionalDisksGiB: 1 given, at most 0 expected: .* /dc/vm/t"),
        ((100, 7), TWO_DISKS, "additionalDisksGiB: 2 given, at most 1 expected: .* /dc/vm/t"),
        ((1,), DISKLESS, "additionalDisksGiB: 1 given, at most 0 expected: .* /dc/vm/t"),
    ],
)
def test_there_are_no_more_sizes_than_disks_of_the_template(sizes, template, message):
    spec = VSphereMachineSpec(additional_disks_gib=sizes)
    with pytest.raises(InvalidValue, match=message) if message else nullcontext():
        _check_disks(spec, template)


@pytest.mark.parametrize(
    ("wanted", "template", "message"),
    [
        ("", "vmx-13", None),
        ("vmx-13", "vmx-13", None),
        ("vmx-9", "vmx-13", None),  # as numbers, not as texts
        ("vmx-19", "vmx-13", "hardwareVersion: vmx-19 is more than the template's: /dc/vm/t has vmx-13"),
        ("vmx-19", "vmx-9", "hardwareVersion: vmx-19 is more than the template's: /dc/vm/t has vmx-9"),
        ("vmx-19", "", "hardwareVersion: vmx-19 .* /dc/vm/t has an unknown one"),
    ],
)
def test_a_hardware_version_is_one_that_the_template_has_reached(wanted, template, message):
    with pytest.raises(InvalidValue, match=message) if message else nullcontext():
        _check_version(VSphereMachineSpec(hardware_version=wanted), replace(TEMPLATE, hardware_version=template))


def test_a_snapshot_that_is_named_must_be_there():
    with pytest.raises(NotFound, match=r"'none'.*new, old"):
        _snapshot(VSphereMachineSpec(snapshot="none"), TEMPLATE)


def test_settings_name_secrets_and_leases_by_namespace():
    settings = MachineSettings.parse(["--identity-secret=ns/vcenter", "--capv-lease=a/b", "--all"], {})
    assert (settings.identity_secret, settings.capv_lease, settings.all) == (KEY, ObjectKey("a", "b"), True)
    assert MachineSettings.parse([], {}).capv_lease == CAPV_LEASE
    with pytest.raises(SettingsError, match="NAMESPACE/NAME"):
        MachineSettings.parse(["--identity-secret=vcenter"], {})
