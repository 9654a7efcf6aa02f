"""Reading pool objects of the kinds that are known: numbers, family, DNS servers, and whom they are for.

Responsible for: each provider's shape of spec and status, and a book of what was read.
Invariant: an object that does not have its CRD's shape is read as one that offers nothing, never raised.
Must not know: who looks for a pool.
Sources: metal3 ip-address-manager api/v1alpha1, cluster-api-ipam-provider-in-cluster api/v1alpha2, deploy/crds.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from services.capv_integrator import api
from services.capv_integrator.annotations import IPV4, IPV6, words
from services.capv_integrator.api import PoolRef
from services.runtime.kube.objects import view

if TYPE_CHECKING:
    from services.runtime.kube.objects import KubeObject

SELECTORS = (api.NETWORK_KEY, api.FAILURE_DOMAIN_KEY, api.CLUSTER_KEY)


class _Range(msgspec.Struct, frozen=True, rename="camel"):
    start: str | None = None
    end: str | None = None
    subnet: str | None = None
    dns_servers: tuple[str, ...] | None = None


class _Spec(msgspec.Struct, frozen=True, rename="camel"):
    """Of all known kinds: `pools` is metal3's and our own, `addresses` the in-cluster provider's."""

    pools: tuple[_Range, ...] | None = None
    addresses: tuple[str, ...] | None = None
    dns_servers: tuple[str, ...] | None = None
    allowed_namespaces: tuple[str, ...] | None = None


class _Counts(msgspec.Struct, frozen=True):
    free: int | None = None
    cooling: int = 0


class _Status(msgspec.Struct, frozen=True, rename="camel"):
    ip_addresses: _Counts | None = None
    available_ip_count: int | None = msgspec.field(name="availableIPCount", default=None)


class Pool(NamedTuple):
    """A pool, as far as choosing it needs to know."""

    ref: PoolRef
    family: str
    free: int | None
    """Addresses that can be had at once; None when the provider does not say."""
    available: int | None
    """With those that can be had when nothing else is left (cooling ones of our own allocator)."""
    allowed_namespaces: tuple[str, ...] | None
    labels: dict[str, str]
    selectors: dict[str, tuple[str, ...]]
    """Values of those of the three selector keys that the pool carries."""
    obj: KubeObject

    @property
    def usable(self) -> bool:
        """Tell whether it may be chosen at all: one that is being deleted is no place for a new claim."""
        return not self.obj.deleting

    def serves(self, namespace: str) -> bool:
        """Tell whether claims of a namespace may name it."""
        if self.ref.namespace == namespace:
            return True
        allowed = self.allowed_namespaces
        if allowed is None:
            return not self.ref.namespace
        return "*" in allowed or namespace in allowed


class PoolBook:
    """All pools, by namespace; "" holds those of cluster scope."""

    def __init__(self) -> None:
        self._pools: dict[str, dict[PoolRef, Pool]] = {}

    def get(self, ref: PoolRef) -> Pool | None:
        """Pool by identity."""
        return self._pools.get(ref.namespace, {}).get(ref)

    def of(self, *namespaces: str) -> tuple[Pool, ...]:
        """Pools of some namespaces."""
        return tuple(pool for namespace in namespaces for pool in self._pools.get(namespace, {}).values())

    def put(self, pool: Pool) -> None:
        """Add a pool, or replace what was known of it."""
        self._pools.setdefault(pool.ref.namespace, {})[pool.ref] = pool

    def remove(self, ref: PoolRef) -> None:
        """Forget a pool."""
        of_namespace = self._pools.get(ref.namespace, {})
        of_namespace.pop(ref, None)
        if not of_namespace:
            self._pools.pop(ref.namespace, None)


def pool_ref(obj: KubeObject) -> PoolRef:
    """Identity of a pool object."""
    return PoolRef(obj.apiVersion.partition("/")[0], obj.kind, obj.metadata.namespace, obj.metadata.name)


def read_pool(obj: KubeObject) -> Pool:
    """Read a pool object."""
    spec = _spec(obj)
    free, available = _counts(obj)
    labels = obj.metadata.labels or {}
    annotations = obj.metadata.annotations or {}
    selectors = {}
    for key in SELECTORS:
        values = (*((labels[key],) if key in labels else ()), *words(annotations.get(key, "")))
        if values:
            selectors[key] = values
    return Pool(pool_ref(obj), _family(spec), free, available, spec.allowed_namespaces, labels, selectors, obj)


def dns_servers(pool: Pool, address: str) -> tuple[str, ...]:
    """DNS servers that a pool gives with an address: those of the range it is in, else the pool's own."""
    spec = _spec(pool.obj)
    for item in spec.pools or ():
        if item.dns_servers and _covers(item, address):
            return item.dns_servers
    return spec.dns_servers or ()


def search_domains(obj: KubeObject) -> tuple[str, ...]:
    """Search domains that an object's annotations give, the old integrator's key included."""
    annotations = obj.metadata.annotations or {}
    for key in (api.SEARCH_DOMAINS_ANNOTATION, api.OLD_SEARCH_DOMAINS_ANNOTATION):
        found = words(annotations.get(key, ""))
        if found:
            return found
    return ()


def _spec(obj: KubeObject) -> _Spec:
    try:
        return view(obj.spec, _Spec)
    except msgspec.ValidationError:
        return _Spec()


def _counts(obj: KubeObject) -> tuple[int | None, int | None]:
    try:
        status = view(obj.status, _Status)
    except msgspec.ValidationError:
        return None, None
    counts = status.ip_addresses
    if counts is not None and counts.free is not None:
        return counts.free, counts.free + counts.cooling
    return status.available_ip_count, status.available_ip_count


def _family(spec: _Spec) -> str:
    """Family of the first address; a pool of both families counts as what it gives first."""
    first = next((r.start or r.subnet or "" for r in spec.pools or ()), "") or next(iter(spec.addresses or ()), "")
    return IPV6 if ":" in first else IPV4


def _covers(item: _Range, address: str) -> bool:
    """Tell whether a range covers an address; a missing bound is the subnet's."""
    try:
        at = ipaddress.ip_address(address)
        if item.subnet is not None and at not in ipaddress.ip_network(item.subnet, strict=False):
            return False
        if item.start is None and item.subnet is None:
            return False
        low = ipaddress.ip_address(item.start) if item.start is not None else at
        high = ipaddress.ip_address(item.end) if item.end is not None else at
    except ValueError:
        return False
    return low.version == at.version == high.version and int(low) <= int(at) <= int(high)
