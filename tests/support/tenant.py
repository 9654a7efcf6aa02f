"""A user of the allocator: one namespace and one network domain of its own, and the words that scenarios are told in.

Responsible for: making pools and claims with few words, and waiting for the two ends a claim can come to.
Invariant: `bound` accepts nothing but a complete result: status, condition, IPAddress, finalizers, owner and
reservation all name each other.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from typing import TYPE_CHECKING, Any, NamedTuple

from services.ipam import api, intervals, kinds
from services.ipam.api import (
    GLOBAL_IP_POOLS,
    IP_ADDRESSES,
    IP_CLAIMS,
    IP_POOLS,
    IP_RESERVATIONS,
    POOL_NOT_READY,
)
from services.runtime.kube.errors import AlreadyExists
from tests.support.kube import NAMESPACES, eventually, manifest

if TYPE_CHECKING:
    from services.runtime.kube.resource import Resource

CAPI_CLAIMS = api.CAPI_CLAIMS[0]
CAPI_ADDRESSES = api.CAPI_ADDRESSES[0]
CLUSTERS = api.CLUSTERS[0]
METAL3 = "IPClaim"
CAPI = "IPAddressClaim"
KINDS = (METAL3, CAPI)
_BARRIER = "barrier"


class Held(NamedTuple):
    """An address that a claim has: the text of it, the claim and the IPAddress."""

    ip: str
    claim: dict[str, Any]
    address: dict[str, Any]


class Api(NamedTuple):
    """The two resources of a kind of claim."""

    claims: Resource
    addresses: Resource


def entry(block):
    """An entry of `spec.pools` from `first-last`, a CIDR, or itself."""
    if not isinstance(block, str):
        return block
    if "/" in block:
        return {"subnet": block}
    first, _, last = block.partition("-")
    return {"start": first, "end": last or first}


def condition(obj, type_="Ready"):
    """A condition of an object or None; of a v1beta1 claim the one of today's shape if there is one."""
    status = (obj or {}).get("status", {})
    found = status.get("v1beta2", {}).get("conditions") or status.get("conditions", [])
    return next((c for c in found if c["type"] == type_), None)


class Tenant:
    """`capi` is the served version of Cluster API's IPAM, newest by default."""

    def __init__(self, kube, namespace, domain, *, capi=api.CAPI_CLAIMS[0].version):
        self.kube = kube
        self.namespace = namespace
        self.domain = domain
        versions = [r.version for r in api.CAPI_CLAIMS]
        self._api = {
            METAL3: Api(IP_CLAIMS, IP_ADDRESSES),
            CAPI: Api(api.CAPI_CLAIMS[versions.index(capi)], api.CAPI_ADDRESSES[versions.index(capi)]),
        }

    @classmethod
    async def create(cls, kube, **options):
        """A tenant in a new namespace."""
        name = f"test-{uuid.uuid4().hex[:10]}"
        await kube.create(NAMESPACES, manifest(NAMESPACES, name))
        return cls(kube, name, name, **options)

    async def neighbour(self):
        """Another namespace in the same domain."""
        other = await Tenant.create(self.kube)
        other.domain = self.domain
        return other

    def api(self, kind):
        """The resources of a kind of claim."""
        return self._api[kind]

    # Pools

    async def pool(self, name, *blocks, resource=IP_POOLS, metadata=None, **spec):
        """Make a pool of blocks; prefix and domain are set unless given. A global pool gets a name of its own."""
        entries = [entry(block) for block in blocks]
        length = 64 if any(":" in e.get("start", e.get("subnet", "")) for e in entries) else 24
        filled = {
            "namePrefix": name,
            "prefix": length,
            "domain": self.domain,
            "pools": entries,
            **spec,
        }
        filled = {key: value for key, value in filled.items() if value is not None}
        where = self.namespace if resource.namespaced else ""
        return await self.kube.create(resource, manifest(resource, name, where, filled, **(metadata or {})))

    async def pool_object(self, name="pool", resource=IP_POOLS):
        return await self.kube.get(resource, name, self.namespace if resource.namespaced else "")

    async def pool_shows(self, holds, name="pool", resource=IP_POOLS):
        """Wait until a pool's object is as `holds` wants it, and return it."""
        return await eventually(lambda: self.pool_object(name, resource), lambda obj: obj is not None and holds(obj))

    async def counts(self, name="pool", resource=IP_POOLS, **wanted):
        """Wait until a pool's counts have these values, and return all of them."""

        def right(obj):
            shown = obj.get("status", {}).get("ipAddresses", {})
            return wanted.items() <= shown.items()

        return (await self.pool_shows(right, name, resource))["status"]["ipAddresses"]

    async def indexes(self, wanted, name="pool", resource=IP_POOLS):
        """Wait until a pool shows these addresses by claim name, and return it."""
        return await self.pool_shows(lambda obj: obj.get("status", {}).get("indexes") == wanted, name, resource)

    async def pool_condition(self, type_, status, name="pool", resource=IP_POOLS):
        """Wait until a pool's condition has a status, and return it."""
        obj = await self.pool_shows(lambda obj: (condition(obj, type_) or {}).get("status") == status, name, resource)
        return condition(obj, type_)

    async def change_pool(self, name="pool", resource=IP_POOLS, **spec):
        return await self.kube.patch(resource, name, self.namespace if resource.namespaced else "", spec=spec)

    # Claims

    def claim_manifest(self, name, pool="pool", kind=METAL3, pool_kind="IPPool", spec=None, **metadata):
        """A claim as its consumers write it."""
        if kind == METAL3:
            ref = {"name": pool}
            if pool_kind == GLOBAL_IP_POOLS.kind:
                ref = {"apiVersion": GLOBAL_IP_POOLS.api_version, "kind": pool_kind, "name": pool}
            return manifest(IP_CLAIMS, name, self.namespace, {"pool": ref, **(spec or {})}, **metadata)
        group = api.METAL3_GROUP if pool_kind == IP_POOLS.kind else api.OWN_GROUP
        filled = {"poolRef": {"apiGroup": group, "kind": pool_kind, "name": pool}, **(spec or {})}
        return manifest(self.api(CAPI).claims, name, self.namespace, filled, **metadata)

    async def claim(self, name, pool="pool", kind=METAL3, **details):
        """Make a claim; see `claim_manifest`."""
        return await self.kube.create(self.api(kind).claims, self.claim_manifest(name, pool, kind, **details))

    async def claim_object(self, name, kind=METAL3):
        return await self.kube.get(self.api(kind).claims, name, self.namespace)

    async def bound(self, name, kind=METAL3):
        """Wait until a claim has an address and everything about it is complete."""
        return await eventually(lambda: self._held(name, kind), lambda held: isinstance(held, Held))

    async def give(self, name, pool="pool", kind=METAL3, **details):
        """Make a claim and return the address it got."""
        await self.claim(name, pool, kind, **details)
        return (await self.bound(name, kind)).ip

    async def refused(self, name, reason, kind=METAL3, text=""):
        """Wait until a claim is refused for a reason, with `text` in the message; return the message."""

        def right(obj):
            ready = condition(obj)
            return (
                ready is not None
                and (ready["status"], ready["reason"]) == ("False", reason)
                and text in ready["message"]
            )

        obj = await eventually(lambda: self.claim_object(name, kind), right)
        message = condition(obj)["message"]
        assert self.named_address(obj) is None
        if kind == METAL3:
            assert obj["status"].get("errorMessage") == (None if reason == POOL_NOT_READY else message)
        return message

    async def all_bound(self, *kinds):
        """Wait until every claim of the kinds has an address; return the addresses.

        Asks for lists, since hundreds of `bound` would be load of their own; holds that none was given twice and that
        claims, IPAddresses and reservations are equal in number.
        """
        ips = []
        for kind in kinds:
            claims = await eventually(
                lambda kind=kind: self.kube.list(self.api(kind).claims, self.namespace),
                lambda claims: all((condition(claim) or {}).get("status") == "True" for claim in claims),
            )
            made = {a["metadata"]["name"]: a["spec"]["address"] for a in await self.addresses(kind)}
            ips += [made.pop(self.named_address(claim)) for claim in claims]
            assert made == {}, f"no {kind} names these"
        assert len(set(ips)) == len(ips)
        assert sorted(ips) == await self.held()
        return ips

    async def delete_claim(self, name, kind=METAL3, **options):
        return await self.kube.delete(self.api(kind).claims, name, self.namespace, **options)

    async def claim_gone(self, name, kind=METAL3):
        await self.kube.gone(self.api(kind).claims, name, self.namespace)

    async def release(self, name, kind=METAL3):
        """Delete a claim and wait until it is gone."""
        await self.delete_claim(name, kind)
        await self.claim_gone(name, kind)

    def named_address(self, claim):
        """Name of the IPAddress in a claim's status, or None."""
        status = claim.get("status", {})
        return (status.get("address") or status.get("addressRef") or {}).get("name")

    async def _held(self, name, kind):
        """A Held when everything fits together, else what does not, for the failure's text."""
        claim = await self.claim_object(name, kind)
        named = self.named_address(claim)
        ready = condition(claim)
        if not named or ready is None or ready["status"] != "True":
            return claim
        address = await self.kube.get(self.api(kind).addresses, named, self.namespace)
        spec, meta = address["spec"], address["metadata"]
        ref = spec["claim"] if kind == METAL3 else spec["claimRef"]
        owners = [o["uid"] for o in meta.get("ownerReferences", [])]
        reserved = await self.kube.find(IP_RESERVATIONS, self.reservation_name(spec["address"]))
        holder = ((reserved or {}).get("spec", {}).get("claim")) or {}
        complete = (
            ref["name"] == name
            and ready.get("reason", "AddressAllocated") == "AddressAllocated"  # v1beta1 gave reasons for trouble only
            and claim["metadata"]["uid"] in owners
            and any(f in api.ADDRESS_FINALIZERS[kind] for f in meta.get("finalizers", []))
            and any(f in api.CLAIM_FINALIZERS[kind] for f in claim["metadata"].get("finalizers", []))
            and (holder.get("kind"), holder.get("namespace"), holder.get("name")) == (kind, self.namespace, name)
        )
        return Held(spec["address"], claim, address) if complete else [claim, address, reserved]

    # What is taken

    async def reservations(self):
        """IPReservations of the domain."""
        return [r for r in await self.kube.list(IP_RESERVATIONS) if r["spec"]["domain"] == self.domain]

    async def held(self):
        """Addresses that claims hold in the domain, according to the reservations, sorted."""
        return sorted(r["spec"]["address"] for r in await self.reservations() if "claim" in r["spec"])

    async def nothing_held(self):
        """Wait until no claim holds an address in the domain."""
        await eventually(self.held, lambda held: held == [])

    async def addresses(self, kind=METAL3):
        return await self.kube.list(self.api(kind).addresses, self.namespace)

    def address_manifest(self, name, claim, ip, pool="pool", kind=METAL3, **metadata):
        """An IPAddress as a backup or another provider left it."""
        if kind == METAL3:
            spec = {
                "address": ip,
                "prefix": 24,
                "claim": {"name": claim, "namespace": self.namespace},
                "pool": {"name": pool},
            }
        else:
            pool_ref = {"apiGroup": api.METAL3_GROUP, "kind": "IPPool", "name": pool}
            spec = {"address": ip, "prefix": 24, "claimRef": {"name": claim}, "poolRef": pool_ref}
        return manifest(self.api(kind).addresses, name, self.namespace, spec, **metadata)

    async def reserve(self, ip, **spec):
        """An administrator's IPReservation."""
        spec = {"domain": self.domain, "address": ip, **spec}
        return await self.kube.create(IP_RESERVATIONS, manifest(IP_RESERVATIONS, self.reservation_name(ip), "", spec))

    def reservation_name(self, ip):
        """Name of the IPReservation of an address."""
        return kinds.reservation_name(self.domain, intervals.point(ip))

    # Clusters

    async def cluster(self, name, *, paused=False, **metadata):
        """Make a Cluster."""
        spec = {
            "paused": paused,
            "infrastructureRef": {"apiGroup": "infrastructure.cluster.x-k8s.io", "kind": "X", "name": "x"},
        }
        return await self.kube.create(CLUSTERS, manifest(CLUSTERS, name, self.namespace, spec, **metadata))

    # Waiting for nothing

    async def settled(self):
        """Return once the allocator has looked at everything written before: what it left alone, it leaves alone.

        Watches keep order within a resource and queues are first in, first out. So when a claim of each kind, whose
        pool and Cluster were made just now, has been served, all earlier changes of claims, pools and Clusters were
        seen.
        """
        await settled(self.kube)


async def settled(kube):
    """See Tenant.settled."""
    with contextlib.suppress(AlreadyExists):
        await kube.create(NAMESPACES, manifest(NAMESPACES, _BARRIER))
    barrier = Tenant(kube, _BARRIER, f"{_BARRIER}-{uuid.uuid4().hex[:10]}")
    name = barrier.domain
    labels = {api.CLUSTER_NAME_LABEL: name}
    await barrier.cluster(name)
    await barrier.pool(name, "192.0.2.0/29")
    await asyncio.gather(*(barrier.claim(name, name, kind, labels=labels) for kind in KINDS))
    await asyncio.gather(*(barrier.bound(name, kind) for kind in KINDS))
    await barrier.pool_condition("Ready", "True", name)
