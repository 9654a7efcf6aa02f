"""Nothing is let go on the word of a cache: a reconciler with stores that are wrong, on a real API server."""

from __future__ import annotations

import json
import uuid

import pytest

from services.capv_integrator import api, claimobjects
from services.capv_integrator.caches import MACHINE, Caches
from services.capv_integrator.claimobjects import NewClaim, OwnerKey
from services.capv_integrator.claims import ClaimWriter
from services.capv_integrator.reconciler import Reconciler
from services.capv_integrator.reports import Reporter
from services.capv_integrator.waitinglist import WaitingList
from services.runtime.clock import SystemClock
from services.runtime.controller import ReconcileError
from services.runtime.kube.errors import AlreadyExists, Conflict
from services.runtime.kube.events import EventRecorder
from services.runtime.kube.objects import KubeObject, decode
from tests.support.kube import NAMESPACES, Kube, manifest

VSPHERE_MACHINES = api.VSPHERE_MACHINES[0]
MACHINES, CLUSTERS = api.MACHINES[0], api.CLUSTERS[0]
CLAIMS = api.IP_ADDRESS_CLAIMS[0]
STATIC = {"networkName": "net-a"}
POOL = api.PoolRef(api.METAL3_GROUP, "IPPool", "", "pool")


class Stale:
    """A machine m1 with a claim, and a reconciler whose stores hold what they are told."""

    def __init__(self, kube, namespace):
        self.kube, self.namespace = kube, namespace
        self.key = OwnerKey(MACHINE, namespace, "m1")
        clock, waiting = SystemClock(), WaitingList()
        self.caches = Caches(lambda key: None, waiting.keys)
        self.caches.subscribe()
        self.caches.serves(MACHINE, VSPHERE_MACHINES)
        self.caches.serves("IPAddressClaim", CLAIMS)
        events = EventRecorder(kube.client, "tests", clock)
        self.marks = []
        self.reconciler = Reconciler(
            kube.client,
            self.caches,
            ClaimWriter(kube.client, self.caches, clock),
            Reporter(kube.client, self.caches, waiting, events, clock),
            clock,
            queue_mark=self.marks.append,
            orphan_grace=0,
        )

    async def begin(self, *devices, **metadata):
        for resource, store in ((MACHINES, self.caches.stores.machines), (CLUSTERS, self.caches.stores.clusters)):
            obj = manifest(resource, "c1", self.namespace, {"clusterName": "c1"}, resourceVersion="1", uid="x")
            store.apply("ADDED", decode(json.dumps(obj).encode(), KubeObject))
        owner = {"apiVersion": MACHINES.api_version, "kind": "Machine", "name": "c1", "uid": "x"}
        spec = {"template": "t", "network": {"devices": list(devices)}}
        obj = manifest(VSPHERE_MACHINES, "m1", self.namespace, spec, ownerReferences=[owner], **metadata)
        machine = self.show(await self.kube.create(VSPHERE_MACHINES, obj))
        pool = POOL._replace(namespace=self.namespace)
        claim = claimobjects.new_claim(CLAIMS, machine, "c1", NewClaim("IPAddressClaim", "0", "ipv4", pool))
        made = await self.kube.client.create(CLAIMS, claim)
        self.caches.stores.claims["IPAddressClaim"].apply("ADDED", made)
        self.claim = made.metadata.name
        return machine

    def show(self, obj, type_="ADDED"):
        obj = obj if isinstance(obj, KubeObject) else decode(json.dumps(obj).encode(), KubeObject)
        self.caches.stores.owners[MACHINE].apply(type_, obj)
        return obj

    async def claim_is_held(self):
        found = await self.kube.find(CLAIMS, self.claim, self.namespace)
        return found is not None and found["metadata"]["finalizers"] == [api.CLAIM_FINALIZER]


@pytest.fixture
async def stale(capv_cluster):
    namespace = f"stale-{uuid.uuid4().hex[:10]}"
    async with Kube.connect(capv_cluster.kubeconfig) as kube:
        await kube.create(NAMESPACES, manifest(NAMESPACES, namespace))
        yield Stale(kube, namespace)


async def test_a_machine_that_the_watch_lost_keeps_its_claim(stale):
    machine = await stale.begin({**STATIC, "ipAddrs": ["10.0.0.10/24"]})
    stale.show(machine, "DELETED")
    with pytest.raises(ReconcileError, match="watch says that it is gone"):
        await stale.reconciler.reconcile(stale.key)
    assert await stale.claim_is_held()


async def test_a_machine_that_changed_since_the_cache_saw_it_is_seen_anew(stale):
    machine = await stale.begin({**STATIC, "dhcp4": True}, annotations={"a": "b"})
    addressed = {"network": {"devices": [{**STATIC, "ipAddrs": ["10.0.0.10/24"]}]}}
    note = {"annotations": {api.CLAIMS_ANNOTATION: stale.claim}}
    await stale.kube.patch(VSPHERE_MACHINES, "m1", stale.namespace, spec=addressed, metadata=note)
    await stale.reconciler.reconcile(stale.key)
    assert await stale.claim_is_held()
    seen = stale.caches.stores.owners[MACHINE].get(machine.key)
    assert seen.metadata.annotations[api.CLAIMS_ANNOTATION] == stale.claim


async def test_while_the_definition_is_not_served_nobody_is_gone(stale):
    machine = await stale.begin(STATIC)
    stale.show(machine, "DELETED")
    for _ in range(3):
        stale.caches.serves(MACHINE, None)
    assert await stale.reconciler.reconcile(stale.key) is None
    assert await stale.claim_is_held()


async def test_an_answer_that_the_resource_is_unknown_is_no_word_about_the_machine(stale):
    machine = await stale.begin(STATIC)
    stale.show(machine, "DELETED")
    unknown = type(VSPHERE_MACHINES)(api.INFRASTRUCTURE_GROUP, "v9", "vspheremachines", MACHINE, namespaced=True)
    stale.caches.serves(MACHINE, unknown)
    with pytest.raises(ReconcileError, match="cannot be looked for"):
        await stale.reconciler.reconcile(stale.key)
    assert await stale.claim_is_held()


async def test_a_machine_that_is_gone_without_the_watch_telling_gives_its_claim_back(stale):
    await stale.begin({**STATIC, "dhcp4": True})
    await stale.kube.force_delete(VSPHERE_MACHINES, "m1", stale.namespace)
    await stale.reconciler.reconcile(stale.key)
    assert await stale.kube.find(CLAIMS, stale.claim, stale.namespace) is None
    assert stale.caches.witnessed == set()


async def test_a_claim_that_the_collector_deleted_needs_only_our_finalizer_to_go(stale):
    machine = await stale.begin(STATIC)
    await stale.kube.delete(CLAIMS, stale.claim, stale.namespace)
    assert await stale.claim_is_held()
    deleted = await stale.kube.client.get(CLAIMS, stale.claim, stale.namespace)
    stale.caches.stores.claims["IPAddressClaim"].apply("MODIFIED", deleted)
    await stale.kube.force_delete(VSPHERE_MACHINES, "m1", stale.namespace)
    stale.show(machine, "DELETED")
    await stale.reconciler.reconcile(stale.key)
    assert await stale.kube.find(CLAIMS, stale.claim, stale.namespace) is None


async def test_a_claim_of_our_name_that_is_somebody_else_s_is_left_alone(stale):
    machine = await stale.begin(STATIC)
    writer = ClaimWriter(stale.kube.client, stale.caches, SystemClock())
    new = NewClaim("IPAddressClaim", "1", "ipv4", POOL._replace(namespace=stale.namespace))
    name = claimobjects.name_of(stale.key, new)
    spec = {"poolRef": {"apiGroup": "example.org", "kind": "Net", "name": "p"}}
    theirs = await stale.kube.create(CLAIMS, manifest(CLAIMS, name, stale.namespace, spec))
    refusal = await writer.create(machine, "c1", new)
    assert refusal.reason == "ClaimNameTaken"
    now = await stale.kube.get(CLAIMS, name, stale.namespace)
    assert now["metadata"]["resourceVersion"] == theirs["metadata"]["resourceVersion"]


async def test_a_claim_of_ours_that_the_store_does_not_have_yet_is_taken_over(stale):
    machine = await stale.begin(STATIC)
    writer = ClaimWriter(stale.kube.client, stale.caches, SystemClock())
    new = NewClaim("IPAddressClaim", "1", "ipv4", POOL._replace(namespace=stale.namespace))
    first = await stale.kube.client.create(CLAIMS, claimobjects.new_claim(CLAIMS, machine, "c1", new))
    with pytest.raises(AlreadyExists):
        await stale.kube.client.create(CLAIMS, claimobjects.new_claim(CLAIMS, machine, "c1", new))
    assert await writer.create(machine, "c1", new) is None
    assert stale.caches.stores.claims["IPAddressClaim"].get(first.key).metadata.uid == first.metadata.uid
    await stale.kube.patch(
        CLAIMS, first.metadata.name, stale.namespace, metadata={"labels": {api.OWNER_KIND_LABEL: None}}
    )
    assert await writer.create(machine, "c1", new) is None
    now = await stale.kube.get(CLAIMS, first.metadata.name, stale.namespace)
    assert now["metadata"]["labels"][api.OWNER_KIND_LABEL] == MACHINE


async def test_a_claim_that_changed_meanwhile_is_not_ended_as_unneeded(stale):
    await stale.begin({**STATIC, "dhcp4": True})
    await stale.kube.annotate(CLAIMS, stale.claim, stale.namespace, touched="by the provider")
    with pytest.raises(Conflict):
        await stale.reconciler.reconcile(stale.key)
    assert await stale.claim_is_held()
