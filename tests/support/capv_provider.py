"""Another IPAM provider than ours, by Cluster API's contract: binds IPAddressClaims of one kind of pool.

Responsible for: what the in-cluster provider does with a claim: finalizer, IPAddress owned by the claim, addressRef;
no condition Ready, as that provider sets none. The pool may be an object with counts in its status, or nothing at all.
Source: Cluster API book, contract "IPAM provider"; cluster-api-ipam-provider-in-cluster pkg/ipamutil/reconciler.go.
"""

from __future__ import annotations

from services.runtime.kube.errors import NotFound
from services.runtime.kube.objects import (
    KubeObject,
    ObjectMeta,
    OwnerReference,
    raw,
    with_finalizer,
    with_status,
    without_finalizers,
)
from services.runtime.kube.resource import Resource
from tests.support.capv_parts import IPAM, Parts, content

RELEASE = "ipam.cluster.x-k8s.io/ReleaseAddress"
IN_CLUSTER_POOLS = Resource(IPAM, "v1alpha2", "inclusterippools", "InClusterIPPool", namespaced=True)


def definition(kind="InClusterIPPool", scope="Namespaced"):
    """A CRD of one of its pools, as far as anybody here looks at one."""
    schema = {
        "type": "object",
        "properties": {
            "spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        },
    }
    names = {"kind": kind, "plural": f"{kind.lower()}s", "singular": kind.lower()}
    version = {
        "name": "v1alpha2",
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": schema},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{names['plural']}.{IPAM}",
            "annotations": {"api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/cluster-api"},
        },
        "spec": {"group": IPAM, "names": names, "scope": scope, "versions": [version]},
    }


class Provider(Parts):
    """Serves pools of one kind: `free` is pool name -> addresses that are left."""

    def __init__(self, client, namespaces, versions, kind, free):
        super().__init__(client, namespaces)
        self.versions = versions
        self.kind = kind
        self.free = {name: list(addresses) for name, addresses in free.items()}
        self.claims = self.follow(versions.claims)
        queue = self.control("provider", self.reconcile, workers=1)
        self.claims.subscribe(lambda old, new: queue((new or old).key))

    async def reconcile(self, key):
        claim = self.claims.get(key)
        if claim is None:
            return
        ref = content(claim.spec)["poolRef"]
        if ref["kind"] != self.kind:
            return
        if claim.deleting:
            await self._release(claim, ref["name"])
        elif not content(claim.status).get("addressRef") and self.free.get(ref["name"]):
            await self._bind(claim, ref)

    async def _bind(self, claim, ref):
        claim = await self.client.update(self.versions.claims, with_finalizer(claim, RELEASE))
        self.claims.observe(claim)
        resource = self.versions.addresses
        owner = OwnerReference(claim.apiVersion, claim.kind, claim.metadata.name, claim.metadata.uid, controller=True)
        meta = ObjectMeta(name=claim.metadata.name, namespace=claim.metadata.namespace, ownerReferences=(owner,))
        spec = {
            "address": self.free[ref["name"]].pop(0),
            "prefix": 24,
            "gateway": "10.0.0.1",
            "claimRef": {"name": claim.metadata.name},
            "poolRef": ref,
        }
        made = KubeObject(apiVersion=resource.api_version, kind=resource.kind, metadata=meta, spec=raw(spec))
        await self.client.create(resource, made)
        status = {**content(claim.status), "addressRef": {"name": claim.metadata.name}}
        self.claims.observe(await self.client.update_status(self.versions.claims, with_status(claim, status)))

    async def _release(self, claim, pool):
        if RELEASE not in claim.metadata.finalizers or any("integrator" in f for f in claim.metadata.finalizers):
            return  # the real one releases at once; ours is to go first, so that this shows whether it does
        resource = self.versions.addresses
        try:
            address = await self.client.get(resource, claim.metadata.name, claim.metadata.namespace)
            await self.client.delete(resource, claim.metadata.name, claim.metadata.namespace)
            self.free.setdefault(pool, []).append(content(address.spec)["address"])
        except NotFound:
            pass
        self.claims.observe(await self.client.update(self.versions.claims, without_finalizers(claim, {RELEASE})))
