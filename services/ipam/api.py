"""The API objects of the allocator as typed views: resources, keys, specs and statuses.

Responsible for: the names, groups and JSON shapes that users and other controllers see. The shapes are metal3's
`ipam.metal3.io/v1alpha1`, Cluster API's `ipam.cluster.x-k8s.io` contract and
Groundwork's own `ipam.groundwork.dev/v1alpha1`.
Invariant: a Struct here has exactly the fields of its CRD in deploy/crds (held by `python -m tools.check_crds`).
Must not know: how anything is allocated, stored or written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from services import clusterapi
from services.runtime.kube.conditions import Condition
from services.runtime.kube.resource import Resource

if TYPE_CHECKING:
    from services.runtime.kube.objects import KubeObject

METAL3_GROUP = "ipam.metal3.io"
OWN_GROUP = "ipam.groundwork.dev"
CAPI_GROUP = clusterapi.IPAM_GROUP

IP_POOLS = Resource(METAL3_GROUP, "v1alpha1", "ippools", "IPPool", namespaced=True)
IP_CLAIMS = Resource(METAL3_GROUP, "v1alpha1", "ipclaims", "IPClaim", namespaced=True)
IP_ADDRESSES = Resource(METAL3_GROUP, "v1alpha1", "ipaddresses", "IPAddress", namespaced=True)
GLOBAL_IP_POOLS = Resource(OWN_GROUP, "v1alpha1", "globalippools", "GlobalIPPool", namespaced=False)
IP_RESERVATIONS = Resource(OWN_GROUP, "v1alpha1", "ipreservations", "IPReservation", namespaced=False)
CAPI_CLAIMS = clusterapi.IP_ADDRESS_CLAIMS
CAPI_ADDRESSES = clusterapi.IP_ADDRESSES
CLUSTERS = clusterapi.CLUSTERS


def claim_resources(kind: str) -> tuple[Resource, ...]:
    """Resources of a kind of claim, the preferred version first."""
    return (IP_CLAIMS,) if kind == IP_CLAIMS.kind else CAPI_CLAIMS


def address_resources(kind: str) -> tuple[Resource, ...]:
    """Resources of the IPAddresses made for a kind of claim, the preferred version first."""
    return (IP_ADDRESSES,) if kind == IP_CLAIMS.kind else CAPI_ADDRESSES


_BY_TYPE = {
    (r.api_version, r.kind): r
    for r in (IP_CLAIMS, IP_ADDRESSES, IP_POOLS, GLOBAL_IP_POOLS, *CAPI_CLAIMS, *CAPI_ADDRESSES)
}


def resource_of(obj: KubeObject) -> Resource:
    """Resource that an object of one of these kinds was read from."""
    return _BY_TYPE[obj.apiVersion, obj.kind]


CLUSTER_NAME_LABEL = clusterapi.CLUSTER_NAME_LABEL
PROVIDER_LABEL = "cluster.x-k8s.io/provider"
PROVIDER_LABEL_VALUE = "ipam-metal3"
PAUSED_ANNOTATION = clusterapi.PAUSED_ANNOTATION
REQUESTED_ADDRESS_ANNOTATION = "ipAddress"

POOL_FINALIZER = "ippool.ipam.metal3.io"
GLOBAL_POOL_FINALIZER = "globalippool.ipam.groundwork.dev/protect"
# The first of each tuple is the one this service sets, metal3's own; the others are those of the in-cluster provider on
# objects that a backup or a migration brought here. All of them are ours to remove once the address is returned.
CLAIM_FINALIZERS = {
    "IPClaim": ("ipclaim.ipam.metal3.io",),
    "IPAddressClaim": ("ipam.metal3.io/ipaddressclaim", "ipam.cluster.x-k8s.io/ReleaseAddress"),
}
ADDRESS_FINALIZERS = {
    "IPClaim": ("ipaddress.ipam.metal3.io",),
    "IPAddressClaim": (
        "ipam.metal3.io/ipaddress",
        "ipam.cluster.x-k8s.io/ProtectAddress",
        "ipam.cluster.x-k8s.io/protect-address",
    ),
}
# Set by the API server for `kubectl delete --cascade=foreground|orphan`; the garbage collector removes them only
# after the IPAddress is gone, so waiting for them would be a deadlock.
GARBAGE_COLLECTOR_FINALIZERS = ("foregroundDeletion", "orphan")

READY = "Ready"
ADDRESS_ALLOCATED = "AddressAllocated"
ALLOCATION_FAILED = "AllocationFailed"
POOL_NOT_READY = "PoolNotReady"
POOL_EXHAUSTED = "PoolExhausted"


class PoolKey(NamedTuple):
    """Identity of a pool: kind `IPPool` or `GlobalIPPool`; namespace is empty for the latter."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        """`IPPool ns/name`, the form used in messages."""
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


class ClaimKey(NamedTuple):
    """Identity of a claim over both kinds: `IPClaim` (metal3) and `IPAddressClaim` (Cluster API)."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        """`IPClaim ns/name`, the form used in messages."""
        return f"{self.kind} {self.namespace}/{self.name}"


class _Api(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel", kw_only=True):
    """Base of the JSON shapes: camelCase names, absent when default."""


class PoolRange(_Api, frozen=True):
    """One entry of `spec.pools`: `start`-`end`, `subnet`, or both; the rest overrides the pool's own."""

    start: str = ""
    end: str = ""
    subnet: str = ""
    prefix: int | None = None
    gateway: str = ""
    dns_servers: tuple[str, ...] = ()


class PoolSpec(_Api, frozen=True):
    """Spec of IPPool and GlobalIPPool."""

    name_prefix: str = ""
    cluster_name: str = ""
    pools: tuple[PoolRange, ...] = ()
    pre_allocations: dict[str, str] = msgspec.field(default_factory=dict)
    allocation_strategy: str = "sequential"
    prefix: int | None = None
    gateway: str = ""
    dns_servers: tuple[str, ...] = ()
    excluded_addresses: tuple[str, ...] = ()
    allocate_reserved_addresses: bool = False
    reuse_delay_seconds: int = 0
    domain: str = "default"
    allowed_namespaces: tuple[str, ...] | None = None


class AddressCounts(_Api, frozen=True, omit_defaults=False):
    """`status.ipAddresses` of a pool; every number saturates at 2**63 - 1 and none is ever negative.

    total = used + free + reserved + cooling. `outOfRange` counts addresses held through the pool that its spec no
    longer covers; they are not part of total.
    """

    total: int = 0
    used: int = 0
    free: int = 0
    reserved: int = 0
    cooling: int = 0
    out_of_range: int = 0


class PoolStatus(_Api, frozen=True):
    """Status of IPPool and GlobalIPPool; `lastUpdated`, `indexes` and the three of capacity are metal3's."""

    last_updated: str | None = None
    indexes: dict[str, str] | None = None
    ip_addresses: AddressCounts | None = None
    capacity: int | None = None
    available_ip_count: int | None = msgspec.field(name="availableIPCount", default=None)
    capacity_capped: bool | None = None
    conditions: tuple[Condition, ...] = ()
    observed_generation: int = 0


class ObjectRef(_Api, frozen=True):
    """The fields of core/v1 ObjectReference that are read here."""

    api_version: str = ""
    kind: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""


class IPClaimSpec(_Api, frozen=True):
    """Spec of metal3's IPClaim."""

    pool: ObjectRef = ObjectRef()


class IPClaimStatus(_Api, frozen=True):
    """Status of metal3's IPClaim; `conditions` is this project's addition."""

    address: ObjectRef | None = None
    error_message: str | None = None
    conditions: tuple[Condition, ...] = ()


class IPAddressSpec(_Api, frozen=True):
    """Spec of metal3's IPAddress."""

    claim: ObjectRef = ObjectRef()
    pool: ObjectRef = ObjectRef()
    address: str = ""
    prefix: int | None = None
    gateway: str = ""
    dns_servers: tuple[str, ...] = ()


class CapiPoolRef(_Api, frozen=True):
    """`poolRef` of the Cluster API contract (`apiGroup` is optional in v1beta1 only)."""

    api_group: str = ""
    kind: str = ""
    name: str = ""


class NameRef(_Api, frozen=True):
    """A reference by name alone."""

    name: str = ""


class CapiClaimSpec(_Api, frozen=True):
    """Spec of Cluster API's IPAddressClaim."""

    cluster_name: str = ""
    pool_ref: CapiPoolRef = CapiPoolRef()


class CapiClaimStatus(_Api, frozen=True):
    """The part of IPAddressClaim's status that is the same in v1beta1 and v1beta2."""

    address_ref: NameRef | None = None


class CapiAddressSpec(_Api, frozen=True):
    """Spec of Cluster API's IPAddress."""

    claim_ref: NameRef = NameRef()
    pool_ref: CapiPoolRef = CapiPoolRef()
    address: str = ""
    prefix: int | None = None
    gateway: str = ""


class ReservationPool(_Api, frozen=True):
    """The pool through which an address was taken."""

    kind: str = ""
    namespace: str = ""
    name: str = ""


class ReservationClaim(_Api, frozen=True):
    """The claim that holds an address, or held it last."""

    kind: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""


class ReservationSpec(_Api, frozen=True):
    """Spec of IPReservation, the ledger entry of one address in one domain.

    `claim` set: held. `releasedAt` set: released, kept for `lastClaim` (sticky) and not given to others before
    `reusableAt` (cooling). Neither: reserved by an administrator, never touched by the service.
    """

    domain: str = "default"
    address: str = ""
    pool: ReservationPool | None = None
    claim: ReservationClaim | None = None
    last_claim: ReservationClaim | None = None
    released_at: str | None = None
    reusable_at: str | None = None
    description: str = ""


class ClusterSpec(_Api, frozen=True):
    """The one field of Cluster API's Cluster spec that is read here."""

    paused: bool = False
