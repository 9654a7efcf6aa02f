"""Claims and addresses of both APIs as one: Cluster API's IPAddressClaim and IPAddress, metal3's IPClaim and IPAddress.

Responsible for: reading them, what a new claim looks like, and every change that is made to one.
Invariants: a claim is made complete in one write: owner, finalizer, labels and all that is needed to know it again
after its status and its owner's uid are lost. A changed copy keeps every field that somebody else set.
Must not know: whether a claim is needed, how objects reach the API server.
Sources: Cluster API book, contract "IPAM provider"; metal3 ip-address-manager api/v1alpha1.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from services.capv_integrator import api
from services.capv_integrator.annotations import IPV4, IPV6, words
from services.capv_integrator.api import PoolRef
from services.capv_integrator.names import ENDPOINT, claim_name
from services.runtime.kube import conditions
from services.runtime.kube.conditions import Condition
from services.runtime.kube.objects import (
    KubeObject,
    ObjectKey,
    ObjectMeta,
    OwnerReference,
    raw,
    view,
    with_finalizer,
    with_status,
)

if TYPE_CHECKING:
    from datetime import datetime

    from services.runtime.kube.resource import Resource

CAPI = "IPAddressClaim"
METAL3 = "IPClaim"
_OLD_STYLE = f"{api.IPAM_GROUP}/v1beta1"
_GLOBAL_KINDS = frozenset(kind for kind, resources in api.POOLS.items() if not resources[0].namespaced)


class OwnerKey(NamedTuple):
    """Identity of what claims are made for: kind VSphereMachine or VSphereCluster."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        """`VSphereMachine ns/name`, the form used in messages."""
        return f"{self.kind} {self.namespace}/{self.name}"


class Address(NamedTuple):
    """An address that a claim got."""

    text: str
    prefix: int | None
    gateway: str = ""
    dns_servers: tuple[str, ...] = ()
    search_domains: tuple[str, ...] = ()

    @property
    def family(self) -> str:
        """`ipv4` or `ipv6`."""
        return IPV6 if ":" in self.text else IPV4

    @property
    def cidr(self) -> str:
        """As CAPV wants it."""
        return f"{self.text}/{self.prefix}"


class Claim(NamedTuple):
    """A claim of ours."""

    obj: KubeObject
    owner: OwnerKey
    place: str
    """Index of the device, or `names.ENDPOINT`."""
    family: str
    pool: PoolRef
    bound: ObjectKey | None
    """The IPAddress that its status names."""
    refusal: Condition | None
    """Its condition Ready, when that says that it is not."""
    address: Address | None = None
    """What the IPAddress says; None until both are known."""

    @property
    def name(self) -> str:
        """Name, in the owner's namespace."""
        return self.obj.metadata.name

    @property
    def held(self) -> bool:
        """Tell whether our finalizer keeps it."""
        return api.CLAIM_FINALIZER in self.obj.metadata.finalizers


class NewClaim(NamedTuple):
    """A claim to be made."""

    kind: str
    place: str
    family: str
    pool: PoolRef


def is_paused(obj: KubeObject) -> bool:
    """Tell whether an object carries Cluster API's pause annotation (its value does not matter)."""
    return api.PAUSED_ANNOTATION in (obj.metadata.annotations or {})


def owner_of(obj: KubeObject) -> OwnerKey | None:
    """What a claim was made for; None when it is not one of ours."""
    kind = (obj.metadata.labels or {}).get(api.OWNER_KIND_LABEL, "")
    name = (obj.metadata.annotations or {}).get(api.OWNER_ANNOTATION, "")
    if kind not in api.OWNERS or not name:
        return None
    return OwnerKey(kind, obj.metadata.namespace, name)


def read_claim(obj: KubeObject) -> Claim | None:
    """Read a claim; None when it is not one of ours. Raises msgspec.ValidationError on another shape than its CRD's."""
    owner = owner_of(obj)
    if owner is None:
        return None
    annotations = obj.metadata.annotations or {}
    namespace = obj.metadata.namespace
    status: dict[str, Any] = view(obj.status, dict[str, Any])
    if obj.kind == METAL3:
        ref = view(obj.spec, api.Metal3ClaimSpec).pool
        kind = ref.kind or "IPPool"
        group = ref.api_version.partition("/")[0] or _group(kind)
        pool = PoolRef(group, kind, "" if kind in _GLOBAL_KINDS else ref.namespace or namespace, ref.name)
        bound = view(obj.status, api.Metal3ClaimStatus).address
    else:
        capi = view(obj.spec, api.ClaimSpec).pool_ref
        known = _group(capi.kind) == capi.api_group
        here = namespace if known and capi.kind not in _GLOBAL_KINDS else ""
        pool = PoolRef(capi.api_group, capi.kind, here, capi.name)
        bound = view(obj.status, api.ClaimStatus).address_ref
    return Claim(
        obj,
        owner,
        annotations.get(api.DEVICE_ANNOTATION, ENDPOINT),
        annotations.get(api.FAMILY_ANNOTATION, IPV4),
        pool,
        ObjectKey(bound.namespace or namespace, bound.name) if bound is not None and bound.name else None,
        _refusal(obj, status),
    )


def read_address(obj: KubeObject) -> Address | None:
    """Read an IPAddress of either group; None when it holds no address."""
    spec = view(obj.spec, api.AddressSpec)
    try:
        text = str(ipaddress.ip_address(spec.address))
    except ValueError:
        return None
    return Address(text, spec.prefix, spec.gateway or "", spec.dns_servers or ())


def recorded(owner: KubeObject) -> tuple[str, ...]:
    """Names of the claims whose addresses were written into an owner, as that says itself."""
    return words((owner.metadata.annotations or {}).get(api.CLAIMS_ANNOTATION, ""))


def claim_of_address(obj: KubeObject) -> ObjectKey | None:
    """Key of the claim that an IPAddress was made for."""
    spec = view(obj.spec, api.AddressSpec)
    name = spec.claim_ref.name or spec.claim.name
    return ObjectKey(spec.claim.namespace or obj.metadata.namespace, name) if name else None


def name_of(owner: OwnerKey, new: NewClaim) -> str:
    """Name of a claim to be made."""
    return claim_name(owner.kind, owner.namespace, owner.name, new.place, new.pool)


def new_claim(resource: Resource, owner: KubeObject, cluster: str, new: NewClaim) -> KubeObject:
    """Return a claim as it is created."""
    key = OwnerKey(owner.kind, owner.metadata.namespace, owner.metadata.name)
    annotations = {api.OWNER_ANNOTATION: key.name, api.FAMILY_ANNOTATION: new.family}
    if key.kind == "VSphereMachine":
        annotations[api.DEVICE_ANNOTATION] = new.place
    pool = new.pool
    spec: api.ClaimSpec | api.Metal3ClaimSpec
    if resource.kind == METAL3 and pool.kind == "IPPool":
        spec = api.Metal3ClaimSpec(pool=api.ObjectRef(name=pool.name, namespace=pool.namespace))
    elif resource.kind == METAL3:
        version = f"{pool.group}/{api.POOLS[pool.kind][0].version}"
        spec = api.Metal3ClaimSpec(pool=api.ObjectRef(api_version=version, kind=pool.kind, name=pool.name))
    else:
        ref = api.CapiPoolRef(api_group=pool.group, kind=pool.kind, name=pool.name)
        spec = api.ClaimSpec(cluster_name=cluster, pool_ref=ref)
    meta = ObjectMeta(
        name=name_of(key, new),
        namespace=key.namespace,
        labels=_labels(key, cluster),
        annotations=annotations,
        finalizers=(api.CLAIM_FINALIZER,),
        ownerReferences=(owner_reference(owner),),
    )
    return KubeObject(apiVersion=resource.api_version, kind=resource.kind, metadata=meta, spec=raw(spec))


def owner_reference(owner: KubeObject) -> OwnerReference:
    """Plain, without blockOwnerDeletion: a deletion in the foreground would wait for the claim, which waits for it."""
    return OwnerReference(owner.apiVersion, owner.kind, owner.metadata.name, owner.metadata.uid)


def adopted(claim: Claim, owner: KubeObject) -> KubeObject:
    """The claim with our finalizer and its owner as it is now; the same object when it has both.

    A reference to an earlier incarnation of the owner (after a restore) or of an older API version is replaced. Nothing
    can be added to the finalizers of an object that is being deleted.
    """
    obj = claim.obj if claim.obj.deleting else with_finalizer(claim.obj, api.CLAIM_FINALIZER)
    wanted = owner_reference(owner)
    refs = obj.metadata.ownerReferences
    others = tuple(ref for ref in refs if (ref.kind, ref.name) != (wanted.kind, wanted.name))
    mine = tuple(ref for ref in refs if ref not in others)
    if len(mine) == 1 and (mine[0].uid, mine[0].apiVersion) == (wanted.uid, wanted.apiVersion):
        return obj
    meta = msgspec.structs.replace(obj.metadata, ownerReferences=(*others, wanted))
    return msgspec.structs.replace(obj, metadata=meta)


def written(claim: Claim, message: str, now: datetime) -> KubeObject:
    """The claim with a condition that says where its address stands; the same object when it has it."""
    new = Condition(api.CLAIM_CONDITION, conditions.TRUE, "AddressWritten", message)
    status: dict[str, Any] = view(claim.obj.status, dict[str, Any])
    return with_status(claim.obj, set_condition(status, new, now, old_style=claim.obj.apiVersion == _OLD_STYLE))


def says_written(claim: Claim) -> bool:
    """Tell whether the claim has that condition."""
    status: dict[str, Any] = view(claim.obj.status, dict[str, Any])
    return any(c.get("type") == api.CLAIM_CONDITION and c.get("status") == "True" for c in _conditions(status))


def set_condition(status: dict[str, Any], new: Condition, now: datetime, *, old_style: bool) -> dict[str, Any]:
    """Return a status with a condition set; conditions of others stay as they are.

    `old_style`: Cluster API's own type of condition, which v1beta1 has: no observedGeneration, a severity where the
    status is False, no reason where it is True.
    """
    before = next((c for c in _conditions(status) if c.get("type") == new.type), None)
    same = before is not None and before.get("status") == new.status
    since = before.get("lastTransitionTime") if same and before is not None else conditions.timestamp(now)
    row: dict[str, Any] = {"type": new.type, "status": new.status, "lastTransitionTime": since}
    if not old_style:
        row |= {"reason": new.reason, "message": new.message}
        if new.observedGeneration:
            row["observedGeneration"] = new.observedGeneration
    elif new.status == conditions.FALSE:
        row |= {"reason": new.reason, "severity": "Warning", "message": new.message}
    elif new.message:
        row["message"] = new.message
    rows = [row if c is before else c for c in _conditions(status)]
    return {**status, "conditions": rows if before is not None else [*rows, row]}


def _conditions(status: dict[str, Any]) -> list[dict[str, Any]]:
    return status.get("conditions") or []


def _refusal(obj: KubeObject, status: dict[str, Any]) -> Condition | None:
    """Read Ready when it is not True; metal3 itself has an error message instead."""
    modern = status.get("v1beta2") or {} if obj.apiVersion == _OLD_STYLE else status
    rows = [*_conditions(modern), *_conditions(status)]
    found = next((c for c in rows if c.get("type") == api.READY), None)
    if found is not None and found.get("status") == conditions.FALSE:
        return Condition(api.READY, conditions.FALSE, found.get("reason") or "", found.get("message") or "")
    message = status.get("errorMessage")
    if found is None and message:
        return Condition(api.READY, conditions.FALSE, "AllocationFailed", str(message))
    return None


def _group(kind: str) -> str:
    return api.POOLS[kind][0].group if kind in api.POOLS else ""


def _labels(owner: OwnerKey, cluster: str) -> dict[str, str]:
    labels = {api.OWNER_KIND_LABEL: owner.kind, api.MOVE_LABEL: ""}
    return labels | {api.CLUSTER_NAME_LABEL: cluster} if cluster else labels
