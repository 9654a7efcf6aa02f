"""The two kinds of claim as one: reading them, and writing what each of them expects to find.

Responsible for: every difference between metal3's IPClaim/IPAddress and Cluster API's IPAddressClaim/IPAddress
(references, names, owner references, status), so that the rest of the service knows claims only.
Invariant: whatever is written keeps every field that somebody else set.
Must not know: which address a claim gets, or how objects reach the API server.
Sources: metal3 ip-address-manager api/v1alpha1; Cluster API book, contract "IPAM provider".
"""

from __future__ import annotations

import functools
import hashlib
import re
import sys
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, TypeVar

import msgspec

from services.ipam import api, intervals
from services.ipam.api import ClaimKey, PoolKey
from services.ipam.slots import Holding, Reservation, Use
from services.runtime.kube import conditions
from services.runtime.kube.conditions import Condition
from services.runtime.kube.objects import (
    KubeObject,
    ObjectMeta,
    OwnerReference,
    raw,
    view,
    with_current_owner,
    with_status,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from services.ipam.space import Range

P = ParamSpec("P")
R = TypeVar("R")

METAL3 = "IPClaim"
CAPI = "IPAddressClaim"
_CAPI_V1BETA1 = f"{api.CAPI_GROUP}/v1beta1"
_NAME_HASH_LENGTH = 8
_MESSAGE_LIMIT = 1024
"""Characters of a refusal in a status; the API server takes 32,768, an Event 1,024 bytes."""
_OBJECT_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_OBJECT_NAME_LENGTH = 253

# A hundred thousand reservations and addresses name a handful of pools: they share its key.
_pool_key = functools.lru_cache(maxsize=1024)(PoolKey)


class Claim(NamedTuple):
    """A claim of either kind, as far as deciding about it needs to know."""

    key: ClaimKey
    obj: KubeObject
    pool: PoolKey | None
    """None when it asks for a pool of another provider."""
    cluster: str
    """Name of the Cluster (same namespace) that it belongs to, or ""."""
    requested: str | None
    """Value of the `ipAddress` annotation."""
    bound: str
    """Name of the IPAddress that its status names, or ""."""
    paused: bool

    @property
    def protected(self) -> bool:
        """Tell whether it carries a finalizer of ours."""
        return any(f in self.obj.metadata.finalizers for f in api.CLAIM_FINALIZERS[self.key.kind])

    @property
    def stray(self) -> bool:
        """Tell whether it waits for metal3, which put its finalizer on claims of other providers' pools too.

        metal3 matches a pool by name alone; once this service runs in its place, nobody else would remove that.
        """
        first = api.CLAIM_FINALIZERS[self.key.kind][0]
        return self.pool is None and self.obj.deleting and first in self.obj.metadata.finalizers

    @property
    def foreign_finalizers(self) -> tuple[str, ...]:
        """Finalizers of others who still use the address, the garbage collector's not among them."""
        own = api.CLAIM_FINALIZERS[self.key.kind]
        return tuple(
            f for f in self.obj.metadata.finalizers if f not in own and f not in api.GARBAGE_COLLECTOR_FINALIZERS
        )


def is_paused(obj: KubeObject) -> bool:
    """Tell whether the object carries Cluster API's pause annotation (its value does not matter)."""
    return api.PAUSED_ANNOTATION in (obj.metadata.annotations or {})


def _latest(read: Callable[P, R]) -> Callable[P, R]:
    """Remember the latest object read, the last argument: indexes, handler and queue read the same one in a row.

    Objects never change, so the very same one reads the same. Saves more than a quarter of taking over a list.
    """
    known: tuple[object, Any] = (None, None)

    @functools.wraps(read)
    def remembering(*args: P.args, **kwargs: P.kwargs) -> R:
        nonlocal known
        if args[-1] is not known[0]:
            known = (args[-1], read(*args, **kwargs))
        result: R = known[1]
        return result

    return remembering


@_latest
def read_claim(kind: str, obj: KubeObject) -> Claim:
    """Read a claim. Raises msgspec.ValidationError when the object does not have its CRD's shape."""
    meta = obj.metadata
    cluster = (meta.labels or {}).get(api.CLUSTER_NAME_LABEL, "")
    bound = ""
    if kind == METAL3:
        pool = _metal3_pool(view(obj.spec, api.IPClaimSpec).pool, meta.namespace)
        address = view(obj.status, api.IPClaimStatus).address
        bound = address.name if address is not None else ""
    else:
        spec = view(obj.spec, api.CapiClaimSpec)
        pool = _capi_pool(spec.pool_ref, meta.namespace)
        cluster = spec.cluster_name or cluster
        ref = view(obj.status, api.CapiClaimStatus).address_ref
        bound = ref.name if ref is not None else ""
    requested = (meta.annotations or {}).get(api.REQUESTED_ADDRESS_ANNOTATION)
    return Claim(ClaimKey(kind, meta.namespace, meta.name), obj, pool, cluster, requested, bound, is_paused(obj))


@_latest
def read_address(kind: str, obj: KubeObject) -> Holding | None:
    """Read an IPAddress made for claims of `kind`; None when its pool is another provider's or its address is none."""
    meta = obj.metadata
    if kind == METAL3:
        spec = view(obj.spec, api.IPAddressSpec)
        pool = _metal3_pool(spec.pool, meta.namespace)
        claim, address = spec.claim.name, spec.address
    else:
        capi = view(obj.spec, api.CapiAddressSpec)
        pool = _capi_pool(capi.pool_ref, meta.namespace)
        claim, address = capi.claim_ref.name, capi.address
    if pool is None:
        return None
    try:
        at = intervals.point(address)
    except ValueError:
        return None
    return Holding(kind, meta.namespace, meta.name, ClaimKey(kind, meta.namespace, claim), pool, at)


def _metal3_pool(ref: api.ObjectRef, namespace: str) -> PoolKey | None:
    group = ref.api_version.partition("/")[0]
    if ref.kind == api.GLOBAL_IP_POOLS.kind and group in {"", api.OWN_GROUP}:
        return _pool_key(api.GLOBAL_IP_POOLS.kind, "", ref.name)
    if ref.kind in {"", api.IP_POOLS.kind} and group in {"", api.METAL3_GROUP}:
        return _pool_key(api.IP_POOLS.kind, ref.namespace or namespace, ref.name)
    return None


def _capi_pool(ref: api.CapiPoolRef, namespace: str) -> PoolKey | None:
    match ref.api_group, ref.kind:
        case api.METAL3_GROUP, api.IP_POOLS.kind:
            return _pool_key(ref.kind, namespace, ref.name)
        case api.OWN_GROUP, api.GLOBAL_IP_POOLS.kind:
            return _pool_key(ref.kind, "", ref.name)
        case _:
            return None


def pool_group(pool: PoolKey) -> str:
    """API group of a pool's kind."""
    return api.METAL3_GROUP if pool.kind == api.IP_POOLS.kind else api.OWN_GROUP


def address_names(key: ClaimKey, pool: PoolKey, name_prefix: str, domain: str, at: int) -> tuple[str, ...]:
    """Names for a new IPAddress of a claim out of a pool, the first that is not another's to be used.

    Cluster API wants the claim's name. metal3 uses `<namePrefix>-<address>` with dashes for dots and colons, which two
    domains or two kinds of pool in one namespace can share; the second name tells them apart.
    """
    if key.kind == CAPI:
        return (key.name,)
    written = intervals.text(at)
    name = f"{name_prefix}-{written.replace('.', '-').replace(':', '-')}".rstrip("-")
    digest = hashlib.sha256(f"{domain}/{pool}/{written}".encode()).hexdigest()[:_NAME_HASH_LENGTH]
    return (name, f"{name}-{digest}")


def is_object_name(name: str) -> bool:
    """Tell whether the API server accepts a name (RFC 1123 subdomain)."""
    return len(name) <= _OBJECT_NAME_LENGTH and _OBJECT_NAME.fullmatch(name) is not None


def new_address(claim: Claim, pool: KubeObject, span: Range | None, at: int, name: str) -> KubeObject:
    """IPAddress for a claim. `span` gives prefix, gateway and DNS servers; None when no range covers the address."""
    assert claim.pool is not None
    address = intervals.text(at)
    prefix, gateway, servers = (span.prefix, span.gateway, span.dns_servers) if span else (None, "", ())
    spec: api.IPAddressSpec | api.CapiAddressSpec
    if claim.key.kind == METAL3:
        namespace = claim.pool.namespace
        pool_ref = (
            api.ObjectRef(name=claim.pool.name, namespace=namespace)
            if claim.pool.kind == api.IP_POOLS.kind
            else api.ObjectRef(api_version=pool.apiVersion, kind=claim.pool.kind, name=claim.pool.name)
        )
        spec = api.IPAddressSpec(
            claim=api.ObjectRef(name=claim.key.name, namespace=claim.key.namespace),
            pool=pool_ref,
            address=address,
            prefix=prefix,
            gateway=gateway,
            dns_servers=servers,
        )
    else:
        spec = api.CapiAddressSpec(
            claim_ref=api.NameRef(name=claim.key.name),
            pool_ref=api.CapiPoolRef(api_group=pool_group(claim.pool), kind=claim.pool.kind, name=claim.pool.name),
            address=address,
            prefix=prefix,
            gateway=gateway,
        )
    labels = dict(claim.obj.metadata.labels or {})
    if claim.cluster:
        labels.setdefault(api.CLUSTER_NAME_LABEL, claim.cluster)
    group_version = claim.obj.apiVersion
    obj = KubeObject(
        apiVersion=group_version,
        kind="IPAddress",
        metadata=ObjectMeta(namespace=claim.key.namespace, name=name, labels=labels or None),
        spec=raw(spec),
    )
    return completed_address(claim, pool, obj)


def completed_address(claim: Claim, pool: KubeObject, obj: KubeObject) -> KubeObject:
    """`obj` with the finalizer and owner references of this claim's IPAddress; the same object when it has them.

    References to an earlier incarnation of the claim or the pool (after a restore) are replaced.
    """
    block = True if claim.key.kind == CAPI else None
    owners = [
        OwnerReference(
            apiVersion=claim.obj.apiVersion,
            kind=claim.key.kind,
            name=claim.key.name,
            uid=claim.obj.metadata.uid,
            controller=block,
            blockOwnerDeletion=block,
        )
    ]
    # An owner in another namespace would make the garbage collector delete the address.
    if pool.metadata.namespace in {"", claim.key.namespace}:
        owners.append(
            OwnerReference(
                apiVersion=pool.apiVersion,
                kind=pool.kind,
                name=pool.metadata.name,
                uid=pool.metadata.uid,
                controller=False if block else None,
                blockOwnerDeletion=block,
            )
        )
    finalizers = obj.metadata.finalizers
    if not any(f in finalizers for f in api.ADDRESS_FINALIZERS[claim.key.kind]):
        finalizers = (*finalizers, api.ADDRESS_FINALIZERS[claim.key.kind][0])
    stale = {(o.kind, o.name): o.uid for o in owners}
    kept = tuple(ref for ref in obj.metadata.ownerReferences if stale.get((ref.kind, ref.name), ref.uid) == ref.uid)
    if finalizers is not obj.metadata.finalizers or kept != obj.metadata.ownerReferences:
        meta = msgspec.structs.replace(obj.metadata, finalizers=finalizers, ownerReferences=kept)
        obj = msgspec.structs.replace(obj, metadata=meta)
    for owner in owners:
        obj = with_current_owner(obj, owner)
    return obj


def bound(claim: Claim, address: KubeObject, at: int, now: datetime) -> KubeObject:
    """The claim with a status that names its IPAddress; the same object when it does already."""
    message = f"{intervals.text(at)} from {claim.pool}"
    changes: dict[str, Any]
    if claim.key.kind == METAL3:
        ref = {"name": address.metadata.name, "namespace": address.metadata.namespace}
        changes = {"address": ref, "errorMessage": None}
    else:
        changes = {"addressRef": {"name": address.metadata.name}}
    return _with_ready(claim, changes, Condition("Ready", conditions.TRUE, api.ADDRESS_ALLOCATED, message), now)


def refused(claim: Claim, reason: str, message: str, now: datetime, *, told: bool = False) -> KubeObject:
    """The claim with a status that says why it has no address; the same object when it does already.

    `told`: it goes on naming the IPAddress that it was told of, which is kept for it.
    """
    if len(message) > _MESSAGE_LIMIT:
        message = (
            f"{message[: _MESSAGE_LIMIT - 3]}..."  # it may quote an annotation, which is what somebody wants it to be
        )
    changes: dict[str, Any] = {}
    if claim.key.kind == METAL3:
        # metal3's consumers take it for a failure of the machine, and metal3 has none while a pool is not ready.
        changes = {"errorMessage": None if reason == api.POOL_NOT_READY else message}
        if not told:
            changes["address"] = None
    elif claim.bound and not told:
        changes = {"addressRef": None}
    return _with_ready(claim, changes, Condition("Ready", conditions.FALSE, reason, message), now)


def ready(claim: Claim) -> Condition | None:
    """The claim's Ready condition as it stands."""
    return _ready_of(view(claim.obj.status, dict[str, Any]), old_style=claim.obj.apiVersion == _CAPI_V1BETA1)


def says_bound(claim: Claim) -> bool:
    """Tell whether the claim's status has nothing to say but that it has an address."""
    found = ready(claim)
    told = claim.key.kind == METAL3 and view(claim.obj.status, api.IPClaimStatus).error_message is not None
    return found is not None and found.status == conditions.TRUE and not told


def _ready_of(status: dict[str, Any], *, old_style: bool) -> Condition | None:
    today = status.get("v1beta2") or {} if old_style else status
    found = conditions.find(_conditions(today), api.READY)
    # A Cluster API before 1.9 keeps the conditions of the old shape alone.
    return found or (conditions.find(_conditions(status), api.READY) if old_style else None)


def _conditions(status: dict[str, Any]) -> tuple[Condition, ...]:
    return msgspec.convert(status.get("conditions") or [], tuple[Condition, ...], strict=False)


def _with_ready(claim: Claim, changes: dict[str, Any], ready_now: Condition, now: datetime) -> KubeObject:
    status: dict[str, Any] = view(claim.obj.status, dict[str, Any])
    ready_now = msgspec.structs.replace(ready_now, observedGeneration=claim.obj.metadata.generation)
    if claim.obj.apiVersion == _CAPI_V1BETA1:
        _set_old_ready(status, ready_now, now)
    else:
        status["conditions"] = conditions.plain(conditions.set_condition(_conditions(status), ready_now, now))
    for name, value in changes.items():
        if value is None:
            status.pop(name, None)
        else:
            status[name] = value
    return with_status(claim.obj, status)


def _set_old_ready(status: dict[str, Any], ready_now: Condition, now: datetime) -> None:
    """Set the condition in both shapes of v1beta1, which keeps today's under `v1beta2` since Cluster API 1.9."""
    before = _ready_of(status, old_style=True)
    same = before is not None and before.status == ready_now.status
    since = before.lastTransitionTime if same and before is not None else None
    legacy: dict[str, Any] = {"type": api.READY, "status": ready_now.status, "message": ready_now.message}
    legacy["lastTransitionTime"] = since or conditions.timestamp(now)
    if ready_now.status == conditions.FALSE:
        legacy |= {"reason": ready_now.reason, "severity": "Error"}
    others = [c for c in status.get("conditions") or [] if c.get("type") != api.READY]
    dropped = "v1beta2" not in status and legacy in (status.get("conditions") or [])
    status["conditions"] = [*others, legacy]
    if dropped:
        return  # by the server, to which it is unknown: writing it again would never end
    today = dict(status.get("v1beta2") or {})
    stamped = msgspec.structs.replace(ready_now, lastTransitionTime=legacy["lastTransitionTime"])
    kept = [c for c in _conditions(today) if c.type != api.READY]
    today["conditions"] = conditions.plain([*kept, stamped])
    status["v1beta2"] = today


def reservation_name(domain: str, at: int) -> str:
    """Name of the IPReservation of an address: the lock. One to one with domain and address.

    `<domain>.<IPv4>`, or for IPv6 all 32 digits with dashes between the groups, since a name may hold no colon and no
    empty group.
    """
    if not intervals.is_v6(at):
        return f"{domain}.{intervals.text(at)}"
    digits = f"{at - intervals.V6_BASE:032x}"
    return f"{domain}.{'-'.join(digits[i : i + 4] for i in range(0, 32, 4))}"


@_latest
def read_reservation(obj: KubeObject) -> tuple[str, int, Reservation] | None:
    """`(domain, point, reservation)` of an IPReservation; None when its address is not one.

    A description is an administrator's: it turns what a claim released into an administrator's reservation. So does
    whatever this service would not have written, a kind of claim it does not serve or a time that is none: somebody
    wants the address kept.
    """
    spec = view(obj.spec, api.ReservationSpec)
    try:
        at = intervals.point(spec.address)
    except ValueError:
        return None
    known = spec.pool is not None and spec.pool.kind in {api.IP_POOLS.kind, api.GLOBAL_IP_POOLS.kind}
    pool = _pool_key(spec.pool.kind, spec.pool.namespace, spec.pool.name) if spec.pool is not None and known else None
    if spec.claim is not None and spec.claim.kind in api.CLAIM_FINALIZERS:
        return spec.domain, at, Reservation(obj.metadata.name, Use.HELD, _claim_key(spec.claim), pool)
    until = _released_until(spec)
    if until is not None:
        last = _claim_key(spec.last_claim) if spec.last_claim else None
        return spec.domain, at, Reservation(obj.metadata.name, Use.RELEASED, last, pool, until)
    return spec.domain, at, Reservation(obj.metadata.name, Use.ADMIN, None, pool)


def _released_until(spec: api.ReservationSpec) -> float | None:
    """When others may have a released address, in Unix seconds; None when it is not one that a claim released."""
    if spec.claim is not None or spec.released_at is None or spec.description:
        return None
    try:
        return conditions.parse_timestamp(spec.reusable_at or spec.released_at).timestamp()
    except ValueError:
        return None


def _claim_key(ref: api.ReservationClaim) -> ClaimKey:
    return ClaimKey(sys.intern(ref.kind), sys.intern(ref.namespace), ref.name)


def held_spec(claim: Claim, domain: str, at: int) -> api.ReservationSpec:
    """Spec of an IPReservation that a claim holds."""
    assert claim.pool is not None
    return api.ReservationSpec(
        domain=domain,
        address=intervals.text(at),
        pool=api.ReservationPool(kind=claim.pool.kind, namespace=claim.pool.namespace, name=claim.pool.name),
        claim=api.ReservationClaim(
            kind=claim.key.kind, namespace=claim.key.namespace, name=claim.key.name, uid=claim.obj.metadata.uid
        ),
    )


def released_spec(spec: api.ReservationSpec, delay: int, now: datetime) -> api.ReservationSpec:
    """Spec of a held IPReservation after its claim let go of it; `delay` is the pool's reuse delay in seconds."""
    until = conditions.parse_timestamp(conditions.timestamp(now)).timestamp() + delay
    return msgspec.structs.replace(
        spec,
        claim=None,
        last_claim=spec.claim,
        released_at=conditions.timestamp(now),
        reusable_at=conditions.timestamp(now.fromtimestamp(until, tz=now.tzinfo)),
    )
