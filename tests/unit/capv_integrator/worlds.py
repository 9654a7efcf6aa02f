"""A site as the integrator sees it, without an API server: stores filled by hand, and plans carried out on them.

Responsible for: objects in few words, what the watches would show, and a provider that binds claims when told to.
"""

from __future__ import annotations

import itertools
import json

import jsonpatch

from services.capv_integrator import api, claimobjects, patches
from services.capv_integrator.caches import CLUSTER, MACHINE, Caches
from services.capv_integrator.claimobjects import OwnerKey, name_of
from services.capv_integrator.decide import decide
from services.capv_integrator.gather import gather
from services.runtime.kube.objects import KubeObject, ObjectKey, decode, encode

NS = "ns"
NET = [{"networkName": "net-a"}]
METAL3_POOL = api.POOLS["IPPool"][0]


def plain(obj):
    return json.loads(encode(obj))


def names(claims):
    return [claim.name for claim in claims]


class Site:
    """One namespace with the Cluster c1; `version` is that of Cluster API and CAPV."""

    def __init__(self, kinds=tuple(api.CLAIMS), version="v1beta2"):
        self.queued = []
        self.unserved = set()
        self.version = version
        self.caches = Caches(self.queued.append, lambda: self.unserved)
        self.caches.subscribe()
        for kind in kinds:
            served = [r for r in api.CLAIMS[kind] if r.version in {version, "v1alpha1"}]
            self.caches.serves(kind, served[0])
        self._versions = itertools.count(1)
        self._uids = itertools.count(1)
        self.cluster()
        self.queued.clear()

    # Objects

    def put(self, kind, name, *, group=api.INFRASTRUCTURE_GROUP, version="", namespace=NS, store=None, **fields):
        """Show an object, new or changed; what is not given stays as it was but for spec and status."""
        store = store if store is not None else self.store(kind)
        before = store.get(ObjectKey(namespace, name))
        meta = {"name": name, "namespace": namespace, "uid": f"u{next(self._uids)}", **fields.pop("metadata", {})}
        if before is not None:
            meta = {**plain(before)["metadata"], **meta, "uid": meta.get("uid_", before.metadata.uid)}
        meta["resourceVersion"] = str(next(self._versions))
        obj = {"apiVersion": f"{group}/{version or self.version}", "kind": kind, "metadata": meta, **fields}
        obj = decode(json.dumps(obj).encode(), KubeObject)
        store.apply("ADDED" if before is None else "MODIFIED", obj)
        return obj

    def change(self, obj, **fields):
        """Show an object with other fields, e.g. `spec` or `metadata` (merged)."""
        old = plain(obj)
        meta = {**old["metadata"], **fields.pop("metadata", {}), "resourceVersion": str(next(self._versions))}
        new = decode(json.dumps({**old, **fields, "metadata": meta}).encode(), KubeObject)
        self.store(obj.kind, obj.apiVersion).apply("MODIFIED", new)
        return new

    def remove(self, obj):
        """Show that an object is gone."""
        self.store(obj.kind, obj.apiVersion).apply("DELETED", self.change(obj))

    def store(self, kind, api_version=""):
        stores = self.caches.stores
        single = {
            "VSphereVM": stores.vms,
            "VSphereMachineTemplate": stores.templates,
            "Machine": stores.machines,
            "Cluster": stores.clusters,
        }
        if kind == "IPAddress":
            return stores.addresses["IPClaim" if api_version.startswith(api.METAL3_GROUP) else "IPAddressClaim"]
        return {**single, **stores.owners, **stores.claims, **stores.pools}[kind]

    def cluster(self, name="c1", **spec):
        return self.put("Cluster", name, group=api.CLUSTER_GROUP, spec=spec)

    def machine(self, devices=NET, name="m1", *, failure_domain=None, metadata=None, **status):
        """Make a Machine and its VSphereMachine; `metadata` is that of the latter."""
        labels = {api.CLUSTER_NAME_LABEL: "c1"}
        spec = {"clusterName": "c1", **({"failureDomain": failure_domain} if failure_domain else {})}
        self.put("Machine", name, group=api.CLUSTER_GROUP, spec=spec, metadata={"labels": labels})
        owner = {"apiVersion": f"{api.CLUSTER_GROUP}/{self.version}", "kind": "Machine", "name": name, "uid": "m"}
        meta = {"ownerReferences": [owner], **(metadata or {})}
        return self.put(MACHINE, name, spec={"template": "t", "network": {"devices": devices}}, metadata=meta, **status)

    def vm(self, devices, name="m1"):
        owner = {"apiVersion": f"{api.INFRASTRUCTURE_GROUP}/{self.version}", "kind": MACHINE, "name": name, "uid": "v"}
        return self.put(
            "VSphereVM", name, spec={"network": {"devices": devices}}, metadata={"ownerReferences": [owner]}
        )

    def vsphere_cluster(self, name="c1", *, metadata=None, **endpoint):
        owner = {"apiVersion": f"{api.CLUSTER_GROUP}/{self.version}", "kind": "Cluster", "name": name, "uid": "c"}
        spec = {"server": "v", **({"controlPlaneEndpoint": endpoint} if endpoint else {})}
        return self.put(CLUSTER, name, spec=spec, metadata={"ownerReferences": [owner], **(metadata or {})})

    def pool(self, name="pool", *, kind="IPPool", first="10.0.0.10", free=5, labels=None, namespace=NS, **more):
        """Make a pool for the network net-a unless `labels` say otherwise; `more` are metadata and fields of spec."""
        resource = api.POOLS[kind][0]
        spec = {"pools": [{"start": first, "end": first}]}
        if kind.endswith("InClusterIPPool") or kind == "InClusterIPPool":
            spec = {"addresses": [first]}
        meta = {"labels": {api.NETWORK_KEY: "net-a"} if labels is None else labels}
        meta |= {key: more.pop(key) for key in ("annotations", "deletionTimestamp") if key in more}
        return self.put(
            kind,
            name,
            group=resource.group,
            version=resource.version,
            namespace=namespace if resource.namespaced else "",
            spec={**spec, **more},
            status={} if free is None else {"ipAddresses": {"free": free}},
            metadata=meta,
        )

    # What is planned, and carrying it out

    def world(self, kind=MACHINE, name="m1", **known):
        return gather(self.caches, OwnerKey(kind, NS, name), **known)

    def plan(self, kind=MACHINE, name="m1", **known):
        return decide(self.world(kind, name, **known), self.caches.taken)

    def claims(self, kind=MACHINE, name="m1"):
        return self.caches.claims_of(OwnerKey(kind, NS, name))

    def carry_out(self, plan, kind=MACHINE, name="m1"):
        """Do what a plan says, as the reconciler would; returns whether that was anything."""
        world = self.world(kind, name)
        for claim in plan.adopt:
            self.change(claimobjects.adopted(claim, world.owner))
        for new in plan.create:
            self.create(world.owner, new)
        if plan.answers:
            if kind == MACHINE:
                answers = {int(place): claims for place, claims in plan.answers}
                operations = patches.machine_patch(world.owner, world.devices, answers, world.search_domains)
            else:
                operations = patches.cluster_patch(world.owner, plan.answers[0][1][0])
            self.patch(world.owner, operations)
        for claim in plan.release:
            self.remove(claim.obj)
        return bool(plan.adopt or plan.create or plan.answers or plan.release)

    def create(self, owner, new):
        resource = self.caches.served[new.kind]
        made = claimobjects.new_claim(resource, owner, "c1", new)
        obj = plain(made)
        group, _, version = obj["apiVersion"].partition("/")
        return self.put(
            obj["kind"], made.metadata.name, group=group, version=version, spec=obj["spec"], metadata=obj["metadata"]
        )

    def patch(self, obj, operations):
        return self.change(obj, **jsonpatch.apply_patch(plain(obj), operations))

    def serve(self, kind=MACHINE, name="m1"):
        """Plan and carry out once."""
        self.carry_out(self.plan(kind, name), kind, name)

    def bind(self, claim, address, prefix=24, **spec):
        """Let the provider bind a claim."""
        group = claim.obj.apiVersion.partition("/")[0]
        metal3 = claim.obj.kind == "IPClaim"
        version = "v1alpha1" if metal3 else self.version
        ref = {"claim": {"name": claim.name, "namespace": NS}} if metal3 else {"claimRef": {"name": claim.name}}
        spec = {"address": address, **({} if prefix is None else {"prefix": prefix}), **ref, **spec}
        store = self.caches.stores.addresses[claim.obj.kind]
        self.put("IPAddress", f"a-{claim.name}", group=group, version=version, store=store, spec=spec)
        field = "address" if metal3 else "addressRef"
        self.change(claim.obj, status={field: {"name": f"a-{claim.name}"}})

    def refuse(self, claim, reason="PoolExhausted", message="no free address"):
        """Let the provider say that a claim gets nothing now."""
        row = {"type": "Ready", "status": "False", "reason": reason, "message": message}
        self.change(claim.obj, status={"conditions": [{**row, "lastTransitionTime": "2026-01-01T00:00:00Z"}]})

    def only_claim(self, kind=MACHINE, name="m1"):
        (claim,) = self.claims(kind, name)
        return claim

    def devices(self, name="m1"):
        return api.devices_of(self.store(MACHINE).get(ObjectKey(NS, name)))

    def name_of(self, new, kind=MACHINE, owner="m1"):
        return name_of(OwnerKey(kind, NS, owner), new)
