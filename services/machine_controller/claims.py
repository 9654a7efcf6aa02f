"""IPAddressClaims of a machine whose devices take addresses from pools: what they look like, and their writes.

Responsible for: names and content of claims, telling how far they are, making them, reading what they got, and giving
them back. Names, label and finalizer are CAPV's, so that either controller finds what the other has made.
Invariants: a claim is made in one write, with the finalizer that keeps its address while the VM may use it; the
finalizer goes only when the caller has confirmed that there is no VM. A claim that is being deleted without it gives no
address any more. A claim of somebody else is never touched.
Must not know: when a claim is needed.
Source: CAPV v1.16 pkg/services/govmomi/ipam; Cluster API book, contract "IPAM provider".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from services.machine_controller import contract
from services.machine_controller.guestinfo.nic import BoundAddress
from services.machine_controller.names import claim_name
from services.machine_controller.phases import Claims
from services.runtime.controller import ReconcileError
from services.runtime.kube.errors import AlreadyExists, NotFound
from services.runtime.kube.objects import (
    KubeObject,
    ObjectKey,
    ObjectMeta,
    OwnerReference,
    has_finalizer,
    raw,
    view,
    without_finalizers,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from services.machine_controller.api import NetworkDevice, PoolRef
    from services.machine_controller.caches import Caches
    from services.runtime.kube.transport import Client

FINALIZER = "vspherevm.infrastructure.cluster.x-k8s.io/ip-claim-protection"
_KIND = "VSphereMachine"


class Wanted(NamedTuple):
    """A claim that a device needs."""

    name: str
    device: int
    pool: PoolRef


def wanted(vm: str, devices: Sequence[NetworkDevice]) -> tuple[Wanted, ...]:
    """Claims of all devices, in their order."""
    return tuple(
        Wanted(claim_name(vm, at, index), at, pool)
        for at, device in enumerate(devices)
        for index, pool in enumerate(device.addresses_from_pools)
    )


def is_of(claim: KubeObject, machine: KubeObject) -> bool:
    """Whether a claim was made for a VSphereMachine; its uid is another one after a move."""
    return any(ref.kind == _KIND and ref.name == machine.metadata.name for ref in claim.metadata.ownerReferences)


def state(machine: KubeObject, wants: Iterable[Wanted], caches: Caches, read: Collection[str]) -> Claims:
    """How far claims are; `read` are those whose address is known."""
    missing, unbound, unread, refusal = [], [], [], ""
    for want in wants:
        claim = caches.stores.claims.get(ObjectKey(machine.metadata.namespace, want.name))
        if claim is None:
            missing.append(want.name)
            continue
        if not is_of(claim, machine):
            missing.append(want.name)
            refusal = f"IPAddressClaim {want.name} exists and is not this machine's: remove it"
            continue
        if claim.deleting and not has_finalizer(claim, FINALIZER):
            # Of a namesake that is gone: whoever comes next may have its address already.
            unbound.append(want.name)
            refusal = f"IPAddressClaim {want.name} is being deleted"
        elif bound(claim) is None:
            unbound.append(want.name)
            refusal = refusal or _refusal(claim)
        elif want.name not in read:
            unread.append(want.name)
    return Claims(tuple(missing), tuple(unbound), tuple(unread), refusal)


def bound(claim: KubeObject) -> str | None:
    """Name of the IPAddress that a claim got."""
    ref = view(claim.status, contract.ClaimStatus).address_ref
    return ref.name if ref is not None and ref.name else None


def _refusal(claim: KubeObject) -> str:
    for condition in view(claim.status, contract.ClaimStatus).conditions:
        if condition.type == "Ready" and condition.status == "False":
            return condition.message or condition.reason
    return ""


class ClaimWriter:
    """See the module."""

    def __init__(self, client: Client, caches: Caches) -> None:
        self._client = client
        self._caches = caches

    async def create(self, machine: KubeObject, cluster: str, wants: Iterable[Wanted]) -> None:
        """Make the claims that are not there."""
        resource = self._caches.served.get("IPAddressClaim")
        if resource is None:
            raise ReconcileError("the server does not know IPAddressClaims, which devices with pools need")
        store = self._caches.stores.claims
        for want in wants:
            if ObjectKey(machine.metadata.namespace, want.name) in store:
                continue
            pool = contract.PoolRef(want.pool.api_group, want.pool.kind, want.pool.name)
            claim = KubeObject(
                apiVersion=resource.api_version,
                kind=resource.kind,
                metadata=ObjectMeta(
                    name=want.name,
                    namespace=machine.metadata.namespace,
                    labels={contract.CLUSTER_NAME_LABEL: cluster},
                    finalizers=(FINALIZER,),
                    ownerReferences=(
                        OwnerReference(machine.apiVersion, machine.kind, machine.metadata.name, machine.metadata.uid),
                    ),
                ),
                spec=raw(contract.ClaimSpec(pool)),
            )
            try:
                made = await self._client.create(resource, claim)
            except AlreadyExists:
                made = await self._client.get(resource, want.name, machine.metadata.namespace)
            store.observe(made)

    async def read(self, machine: KubeObject, names: Iterable[str]) -> dict[str, BoundAddress]:
        """Addresses of bound claims. They never change, so each is read once instead of following all of them."""
        resource = self._caches.served.get("IPAddressClaim")
        addresses = next((r for r in contract.IP_ADDRESSES if resource and r.version == resource.version), None)
        found = {}
        for name in names:
            claim = self._caches.stores.claims.get(ObjectKey(machine.metadata.namespace, name))
            address = bound(claim) if claim is not None else None
            if address is None or addresses is None:
                raise ReconcileError(f"claim {name} has lost its address")
            obj = await self._client.get(addresses, address, machine.metadata.namespace)
            spec = view(obj.spec, contract.AddressSpec)
            found[name] = BoundAddress(spec.address, spec.prefix, spec.gateway or "")
        return found

    async def give_back(self, machine: KubeObject) -> None:
        """End all claims of a machine that has no VM: DELETE, then our finalizer."""
        store = self._caches.stores.claims
        for claim in store.by_index("owner", machine.key):
            resource = next(r for r in contract.IP_ADDRESS_CLAIMS if r.api_version == claim.apiVersion)
            uid = claim.metadata.uid
            try:
                if claim.deleting:
                    left: KubeObject | None = claim
                else:
                    left = await self._client.delete(resource, claim.metadata.name, claim.metadata.namespace, uid=uid)
                if left is None:
                    store.forget(claim.key, uid)
                    continue
                store.observe(left)
                bare = without_finalizers(left, {FINALIZER})
                if bare is not left:
                    store.observe(await self._client.update(resource, bare))
            except NotFound:
                store.forget(claim.key, uid)
