"""Whose credentials are kept: those that a VSphereCluster names, and no others."""

from __future__ import annotations

import asyncio

import pytest

from services.machine_controller.caches import Caches
from services.machine_controller.connections import Connections
from services.machine_controller.credentials import Identities, Login
from services.machine_controller.vsphere.credentials import Credentials
from services.machine_controller.vsphere.values import Server
from services.machine_controller.vsphere.vcenter import VCenters
from services.runtime.kube.objects import KubeObject, ObjectKey, ObjectMeta, raw

OLD, NEW = ObjectKey("team", "old"), ObjectKey("team", "new")


def cluster(name, secret, version=1):
    meta = ObjectMeta(name=name, namespace="team", uid=name, resourceVersion=str(version))
    return KubeObject(metadata=meta, spec=raw({"identityRef": {"kind": "Secret", "name": secret}}))


def test_a_secret_is_unused_once_the_last_cluster_that_names_it_is_gone_or_names_another():
    unused = []
    caches = Caches(lambda _: None, lambda _: None, unused.append)
    caches.subscribe()
    store = caches.stores.clusters
    store.apply("ADDED", cluster("a", "old"))
    store.apply("ADDED", cluster("b", "old", 2))
    store.apply("DELETED", cluster("a", "old", 3))
    assert unused == []
    store.apply("MODIFIED", cluster("b", "new", 4))
    assert unused == [OLD]
    store.apply("DELETED", cluster("b", "new", 5))
    assert unused == [OLD, NEW]


class Signed:
    """Stands for the Secrets and for the connections: notes which are there."""

    def __init__(self):
        self.open = {}
        self.read = set()

    def known(self, server, name):
        return self.open.get((server, name))

    def get(self, key, *connection):
        if not connection:
            self.read.add(key)
            return Login(Credentials("user", "word"))
        return self.open.setdefault((key, connection[0]), object())

    async def forget(self, server, name):
        del self.open[server, name]

    def drop(self, key):
        self.read.discard(key)


async def test_what_a_secret_was_used_for_is_closed_and_nothing_else():
    signed = Signed()
    connections = Connections(signed, vcenters=signed)
    for key, server, thumbprint in ((OLD, "vc1", ""), (OLD, "vc2", "AA"), (NEW, "vc1", "")):
        connections.of(key, server, thumbprint)
    connections.drop(OLD)
    await asyncio.sleep(0)
    assert (signed.read, list(signed.open)) == ({NEW}, [(Server("vc1"), str(NEW))])
    assert connections.of(OLD, "vc1").vcenter is not None


class Held:
    """Secrets, each of which holds the same."""

    def __init__(self, password="first", **login):
        self.login = Login(Credentials("user", password), **login)

    def get(self, _key):
        return self.login


PINS = "AA" * 32, "BB" * 32


def named(name, namespace="team"):
    ref = {"kind": "Secret", "name": "old"} if namespace == "team" else None
    spec = {"identityRef": ref} if ref else {}
    return KubeObject(metadata=ObjectMeta(name=name, namespace=namespace, uid=name), spec=raw(spec))


async def closed(vcenter):
    """Whether a connection ends within a few turns."""
    for _ in range(20):
        await asyncio.sleep(0)
    return vcenter._session._closed


async def test_a_connection_is_closed_once_its_last_user_asks_for_another_one():
    async with VCenters() as vcenters:
        connections = Connections(Held(), vcenters=vcenters)
        first = connections.get(named("a"), "vc", PINS[0], user="a").vcenter
        assert connections.get(named("b"), "vc", PINS[0], user="b").vcenter is first
        second = connections.get(named("a"), "vc", PINS[1], user="a").vcenter
        assert second is not first
        assert not await closed(first)
        connections.get(named("b"), "other", PINS[0], user="b")
        assert await closed(first)
        assert not await closed(second)
        assert connections.get(named("b"), "vc", PINS[0], user="b").vcenter is not first
        connections.release("a")
        assert await closed(second)


async def test_a_connection_is_closed_when_its_last_user_may_have_none_any_more():
    async with VCenters() as vcenters:
        connections = Connections(Held(), vcenters=vcenters)
        vcenter = connections.get(named("a"), "vc", user="a").vcenter
        assert connections.get(None, "vc", user="a").trouble
        assert await closed(vcenter)


async def test_one_that_is_asked_for_while_it_is_being_closed_is_a_new_one():
    async with VCenters() as vcenters:
        connections = Connections(Held(), vcenters=vcenters)
        old = connections.get(named("a"), "vc", user="a").vcenter
        connections.release("a")
        new = connections.get(named("b"), "vc", user="b").vcenter
        assert new is not old
        assert await closed(old)
        assert not await closed(new)


async def test_another_password_reaches_every_connection_of_its_secret():
    async with VCenters() as vcenters:
        held = Held()
        connections = Connections(held, vcenters=vcenters)
        found = [connections.get(named("a"), server, pin).vcenter for server in ("vc1", "vc2") for pin in ("", *PINS)]
        other = connections.of(NEW, "vc1").vcenter
        held.login = Held("second").login
        connections.renew(OLD)
        assert [vcenter._access.credentials.password for vcenter in found] == ["second"] * 6
        assert other._access.credentials.password == "first"


@pytest.mark.parametrize(
    ("namespace", "before", "after"),
    [("team", ("vc",), ("else",)), ("guests", ("vc",), ()), ("guests", ("vc",), ("else",))],
)
async def test_another_password_reaches_no_server_that_its_secret_is_not_for_any_more(namespace, before, after):
    async with VCenters() as vcenters:
        held = Held(servers=tuple(map(Server, before)))
        connections = Connections(held, default=OLD, vcenters=vcenters)
        vcenter = connections.get(named("a", namespace), "vc", user="a").vcenter
        held.login = Held("second", servers=tuple(map(Server, after))).login
        connections.renew(OLD)
        assert await closed(vcenter)
        assert vcenter._access.credentials.password == "first"


async def test_a_secret_that_was_dropped_is_followed_anew_when_it_is_asked_for_again():
    identities = Identities(None, None, lambda _: None)
    identities.drop(OLD)
    assert identities.get(OLD) is None
    first = identities._followed[OLD]
    identities.drop(OLD)
    assert identities.get(OLD) is None
    assert identities._followed[OLD] is not first
