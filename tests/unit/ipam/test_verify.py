"""The ledger check: one row for each way in which the objects can contradict each other, and for what is none."""

from __future__ import annotations

import msgspec
import pytest

from services.ipam.cli.verify import check, persistent
from tests.support.ipam_snapshot import address, bound, claim, lock, pool, reservation, snapshot

V6 = "2001:db8::7"


NINE = "IPAddress a/p-10-0-0-9 (ipam.metal3.io)"
LOCK_NINE = "IPReservation default.10.0.0.9"
TWICE = [("DuplicateAddress", "10.0.0.1 in domain default")]


def healthy():
    """Pools and bound claims of both kinds, over namespaces and domains, that must never be reported."""
    wide = [{"start": "10.0.0.1", "end": "10.0.0.99"}, {"start": "2001:db8::1", "end": "2001:db8::ff"}]
    return (
        pool(pools=wide),
        pool("site", "", pools=wide, domain="site2"),
        bound("one", "10.0.0.1"),
        bound("one", "10.0.0.2", kind="IPAddressClaim"),
        bound("far", "10.0.0.3", "b", of="a/p"),
        bound("one", "10.0.0.1", "c", kind="IPAddressClaim", of="global:site", domain="site2"),
        bound("six", V6, kind="IPAddressClaim"),
        reservation("10.0.0.50", description="printer"),
        reservation(
            "10.0.0.51",
            lastClaim={"kind": "IPClaim", "namespace": "a", "name": "left"},
            releasedAt="2026-01-01T00:00:00Z",
            reusableAt="2026-01-01T00:00:00Z",
        ),
        claim("waiting"),
    )


def found(*objects):
    return [(item.kind, item.subject) for item in check(snapshot(*healthy(), *objects)) if not item.information]


def test_a_healthy_system_has_no_discrepancies_and_no_notes():
    assert check(snapshot(*healthy())) == []


def held_twice(second_namespace="b", second_kind="IPClaim", of="a/p"):
    """Two complete claims at one address; the lock can only name one of them."""
    twin = bound("twin", "10.0.0.1", second_namespace, kind=second_kind, of=of)
    return twin[:2]


PLANTED = {
    "one address held by claims of two namespaces": (
        held_twice(),
        TWICE,
    ),
    "one address held by claims of both kinds": (
        held_twice("a", "IPAddressClaim", "p"),
        TWICE,
    ),
    "one address held through two pools": (
        (pool("other"), held_twice("a", "IPAddressClaim", "other")),
        TWICE,
    ),
    "one address held by two reservations": (
        reservation("10.0.0.1", "one", kind="IPAddressClaim", name="default.10.0.0.01"),
        [
            ("AddressMissing", "IPReservation default.10.0.0.01"),
            ("DuplicateAddress", "10.0.0.1 in domain default"),
            ("ReservationNameWrong", "IPReservation default.10.0.0.01"),
        ],
    ),
    "an IPAddress without a reservation": (
        bound("two", "10.0.0.9")[:2],
        [("ReservationMissing", NINE)],
    ),
    "an IPAddress whose reservation was released": (
        (
            bound("two", "10.0.0.9")[:2],
            reservation("10.0.0.9", releasedAt="2026-01-01T00:00:00Z", lastClaim={"kind": "IPClaim", "name": "two"}),
        ),
        [("ReservationNotHeld", NINE)],
    ),
    "an IPAddress that an administrator has reserved": (
        (bound("two", "10.0.0.9")[:2], reservation("10.0.0.9")),
        [("ReservationNotHeld", NINE)],
    ),
    "a reservation held by an IPClaim that does not exist": (
        reservation("10.0.0.9", "nobody"),
        [("HolderMissing", LOCK_NINE)],
    ),
    "a reservation held by an IPAddressClaim that does not exist": (
        reservation("10.0.0.9", "far", "b", kind="IPAddressClaim"),
        [("HolderMissing", LOCK_NINE)],
    ),
    "a second reservation of a bound claim": (
        reservation("10.0.0.9", "one"),
        [("AddressMissing", LOCK_NINE)],
    ),
    "a reservation in the wrong domain": (
        reservation("10.0.0.2", "one", kind="IPAddressClaim", domain="site2"),
        [("AddressMissing", "IPReservation site2.10.0.0.2")],
    ),
    "a bound claim whose IPAddress is gone": (
        bound("two", "10.0.0.9")[0::2],
        [("AddressMissing", LOCK_NINE), ("NamedAddressMissing", "IPClaim a/two")],
    ),
    "a bound claim that has nothing but its status": (
        bound("two", "10.0.0.9", kind="IPAddressClaim")[0],
        [("NamedAddressMissing", "IPAddressClaim a/two")],
    ),
    "a bound claim whose IPAddress is another provider's": (
        (
            claim("two", kind="IPAddressClaim", named="two"),
            address("two", "two", "10.9.9.9", kind="IPAddressClaim", of="ipam.example.org!p"),
        ),
        [("NamedAddressForeign", "IPAddressClaim a/two")],
    ),
    "a bound claim that names the IPAddress of another": (
        claim("two", named="p-10-0-0-1"),
        [("NamedAddressForeign", "IPClaim a/two")],
    ),
    "an IPAddress whose claim does not exist": (
        bound("two", "10.0.0.9")[1:],
        [
            ("ClaimMissing", NINE),
            ("HolderMissing", LOCK_NINE),
        ],
    ),
    "an IPAddress whose claim exists as the other kind only": (
        (pool("wide", ""), bound("far", "10.0.0.9", "b", kind="IPAddressClaim", of="global:wide")[1]),
        [
            ("ClaimMissing", "IPAddress b/far (ipam.cluster.x-k8s.io)"),
        ],
    ),
    "a claim with two IPAddresses": (
        (address("extra", "one", "10.0.0.9"), reservation("10.0.0.9", "one")),
        [("SeveralAddresses", "IPClaim a/one")],
    ),
    "a reservation and an IPAddress of different claims": (
        (bound("two", "10.0.0.9")[:2], reservation("10.0.0.9", "one")),
        [
            ("HolderDiffers", NINE),
            ("AddressMissing", LOCK_NINE),
        ],
    ),
    "a reservation whose name is of another address": (
        reservation("10.0.0.9", name="default.10.0.0.10"),
        [("ReservationNameWrong", "IPReservation default.10.0.0.10")],
    ),
    "a reservation whose name is of another domain": (
        reservation("10.0.0.9", name="site2.10.0.0.9"),
        [("ReservationNameWrong", "IPReservation site2.10.0.0.9")],
    ),
    "an IPv6 reservation with a short name": (
        reservation("2001:db8::9", name="default.2001-db8--9"),
        [("ReservationNameWrong", "IPReservation default.2001-db8--9")],
    ),
    "a bound claim without our finalizer": (
        (claim("two", named="p-10-0-0-9", protected=False), bound("two", "10.0.0.9")[1:]),
        [("FinalizerMissing", "IPClaim a/two")],
    ),
    "the IPAddress of a bound claim without our finalizer": (
        (bound("two", "10.0.0.9")[0::2], address("p-10-0-0-9", "two", "10.0.0.9", protected=False)),
        [("FinalizerMissing", NINE)],
    ),
    "an IPAddress whose pool does not exist": (
        bound("two", "10.0.0.9", of="gone"),
        [("PoolMissing", "IPAddress a/gone-10-0-0-9 (ipam.metal3.io)")],
    ),
    "an IPAddress of a pool that the claim does not ask for": (
        (pool("other"), claim("two", of="other", named="p-10-0-0-9"), bound("two", "10.0.0.9")[1:]),
        [("PoolDiffers", NINE)],
    ),
    "a reservation counted for another pool than the IPAddress": (
        (pool("other"), bound("two", "10.0.0.9")[:2], reservation("10.0.0.9", "two", of="other")),
        [("ReservationPoolDiffers", LOCK_NINE)],
    ),
    "an IPAddress with something else than an address": (
        (
            claim("two", kind="IPAddressClaim", named="two"),
            address("two", "two", "10.0.0.999", kind="IPAddressClaim"),
        ),
        [("MalformedAddress", "IPAddress a/two (ipam.cluster.x-k8s.io)")],
    ),
    "an IPAddress with an IPv4 address in IPv6 notation": (
        (
            claim("two", kind="IPAddressClaim", named="two"),
            address("two", "two", "::ffff:10.0.0.9", kind="IPAddressClaim"),
        ),
        [("MalformedAddress", "IPAddress a/two (ipam.cluster.x-k8s.io)")],
    ),
    "a reservation with something else than an address": (
        reservation("10.0.0", name="default.10.0.0"),
        [("MalformedReservation", "IPReservation default.10.0.0")],
    ),
    "a claim that cannot be read": (
        msgspec.structs.replace(claim("two"), spec=msgspec.Raw(b'{"pool": 7}')),
        [("Unreadable", "IPClaim a/two")],
    ),
}


@pytest.mark.parametrize(("objects", "expected"), PLANTED.values(), ids=PLANTED)
def test_it_reports(objects, expected):
    assert sorted(found(objects)) == sorted(expected)


IN_WORK = {
    "a claim that has its reservation but no IPAddress yet": (claim("two"), reservation("10.0.0.9", "two")),
    "a claim that has its IPAddress but no status yet": (claim("two"), bound("two", "10.0.0.9")[1:]),
    "an adopted IPAddress that is not reserved yet": (claim("two"), bound("two", "10.0.0.9")[1]),
    "a claim without our finalizer that has no address yet": claim("two", protected=False),
    "a claim being deleted whose IPAddress is gone": (
        claim("two", named="p-10-0-0-9", deleting=True),
        reservation("10.0.0.9", "two"),
    ),
    "a claim being deleted that has returned everything": claim("two", named="p-10-0-0-9", deleting=True),
    "an IPAddress being deleted whose claim is gone": (address("p-10-0-0-9", "two", "10.0.0.9", deleting=True),),
    "a surplus IPAddress on its way out": (
        address("extra", "one", "10.0.0.9", deleting=True),
        reservation("10.0.0.9", "one"),
    ),
    "a claim and IPAddress of another provider": (
        claim("else", kind="IPAddressClaim", of="ipam.example.org!p", named="else"),
        address("else", "else", "10.0.0.1", kind="IPAddressClaim", of="ipam.example.org!p"),
    ),
    "an IPv6 address written in another way": (
        claim("two", kind="IPAddressClaim", named="two"),
        address("two", "two", "2001:0DB8::0009", kind="IPAddressClaim"),
        reservation("2001:db8::9", "two", kind="IPAddressClaim"),
    ),
    "the same address in two domains": (bound("two", "10.0.0.2", of="global:site", domain="site2"),),
    "a claim of a pool in another group's version": msgspec.structs.replace(
        claim("old", kind="IPAddressClaim"), apiVersion="ipam.cluster.x-k8s.io/v1beta1"
    ),
}


@pytest.mark.parametrize("objects", IN_WORK.values(), ids=IN_WORK)
def test_it_does_not_report(objects):
    assert found(*objects if isinstance(objects, tuple) else (objects,)) == []


@pytest.mark.parametrize(
    ("at", "why"),
    [("10.0.0.200", "outside the pool's ranges"), ("10.0.0.90", "excludedAddresses"), ("10.0.0.1", "gateway")],
)
def test_an_address_outside_its_pool_is_a_note(at, why):
    (item,) = check(snapshot(pool(gateway="10.0.0.1", excludedAddresses=["10.0.0.90"]), bound("out", at)))
    assert item.information
    assert item.kind == "OutOfRange"
    assert why in item.wrong


def test_a_duplicate_names_every_holder_and_where_it_says_so():
    (item,) = check(snapshot(pool(), bound("one", "10.0.0.1"), held_twice()))
    assert item.wrong == (
        "held by IPClaim a/one (IPAddress a/p-10-0-0-1 (ipam.metal3.io), IPReservation default.10.0.0.1) "
        "and by IPClaim b/twin (IPAddress b/p-10-0-0-1 (ipam.metal3.io))"
    )
    assert item.namespaces == {"a", "b"}


def test_a_duplicate_of_a_deleted_pool_is_found_through_its_reservation():
    orphan = bound("two", "10.0.0.1", "b", of="b/gone")[:2]
    kinds = {item.kind for item in check(snapshot(orphan, reservation("10.0.0.1", "two", "b", of="b/gone")))}
    assert kinds == {"PoolMissing"}
    (duplicate,) = [
        item
        for item in check(
            snapshot(pool(), bound("one", "10.0.0.1")[:2], orphan, reservation("10.0.0.1", "two", "b", of="b/gone"))
        )
        if item.kind == "DuplicateAddress"
    ]
    assert duplicate.subject == "10.0.0.1 in domain default"


def test_every_discrepancy_says_what_to_do_in_one_line():
    for objects, _ in PLANTED.values():
        for item in check(snapshot(*healthy(), objects)):
            assert item.wrong
            assert item.action
            assert "\n" not in item.wrong + item.action


def test_only_what_is_found_twice_counts():
    first = check(snapshot(pool(), reservation("10.0.0.9", "nobody"), bound("two", "10.0.0.8")[:2]))
    second = check(snapshot(pool(), reservation("10.0.0.9", "another"), bound("two", "10.0.0.8")[:2]))
    assert [item.kind for item in first] == ["HolderMissing", "ReservationMissing"]
    assert [item.kind for item in persistent(first, second)] == ["ReservationMissing"]


def test_the_name_of_a_lock_is_what_the_allocator_calls_it():
    from ipaddress import ip_address

    from services.ipam import intervals, kinds
    from services.ipam.cli.facts import entry_name

    for at in ("10.0.0.1", "255.255.255.255", V6, "::", "fe80::1:2"):
        assert entry_name("d", ip_address(at)) == kinds.reservation_name("d", intervals.point(at)) == lock("d", at)
