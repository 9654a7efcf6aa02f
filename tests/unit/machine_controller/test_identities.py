"""Whose credentials are kept: those that a VSphereCluster names, and no others."""

from __future__ import annotations

import asyncio

from services.machine_controller.caches import Caches
from services.machine_controller.connections import Connections
from services.machine_controller.credentials import Identities, Login
from services.machine_controller.vsphere.credentials import Credentials
from services.machine_controller.vsphere.values import Server
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


async def test_a_secret_that_was_dropped_is_followed_anew_when_it_is_asked_for_again():
    identities = Identities(None, None, lambda _: None)
    identities.drop(OLD)
    assert identities.get(OLD) is None
    first = identities._followed[OLD]
    identities.drop(OLD)
    assert identities.get(OLD) is None
    assert identities._followed[OLD] is not first
