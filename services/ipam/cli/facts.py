"""A snapshot read into plain facts for the ledger check, with the look-ups that its rules need.

Responsible for: reading pools, claims, IPAddresses and IPReservations for `verify`.
Invariants: nothing of the allocator's ledger, caches or object reading is used here, so that a mistake in them cannot
hide itself from the check; addresses are those of the standard library. Objects of other providers' pools are left out.
Must not know: what contradicts what.
"""

from __future__ import annotations

from collections import defaultdict
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import msgspec

from services.ipam import api
from services.ipam.api import ClaimKey, PoolKey
from services.ipam.space import PoolSpace
from services.runtime.kube.objects import view

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

    from services.ipam.cli.snapshot import Snapshot
    from services.runtime.kube.objects import KubeObject

    T = TypeVar("T")
    K = TypeVar("K", bound=Hashable)

Address = IPv4Address | IPv6Address

_METAL3_CLAIM = api.IP_CLAIMS.kind
_CAPI_CLAIM = api.CAPI_CLAIMS[0].kind


class PoolFact(NamedTuple):
    """An IPPool or GlobalIPPool."""

    key: PoolKey
    domain: str
    space: PoolSpace


class ClaimFact(NamedTuple):
    """A claim of either kind."""

    key: ClaimKey
    pool: PoolKey
    named: str
    """Name of the IPAddress that its status names, or ""."""
    deleting: bool
    protected: bool

    @property
    def settled(self) -> bool:
        """Whether the allocator is done with it."""
        return bool(self.named) and not self.deleting


class AddressFact(NamedTuple):
    """An IPAddress of either group."""

    claim: ClaimKey
    name: str
    pool: PoolKey
    ip: Address | None
    text: str
    deleting: bool
    protected: bool

    def __str__(self) -> str:
        group = api.METAL3_GROUP if self.claim.kind == _METAL3_CLAIM else api.CAPI_GROUP
        return f"IPAddress {self.claim.namespace}/{self.name} ({group})"


class EntryFact(NamedTuple):
    """An IPReservation."""

    name: str
    domain: str
    ip: Address | None
    text: str
    claim: ClaimKey | None
    """The holder; None when it is released or an administrator's."""
    released: bool
    pool: PoolKey | None

    def __str__(self) -> str:
        return f"IPReservation {self.name}"


class Books:
    """A snapshot read into facts, with the look-ups that the rules need."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.unreadable: list[tuple[KubeObject, str]] = []
        """Objects that do not have the shape of their definition, and in what way."""
        self.pools = {pool.key: pool for pool in self._read(_pool, snapshot.pools)}
        self.claims = {claim.key: claim for claim in self._read(_claim, snapshot.claims)}
        self.foreign_claims = {_claim_key(obj) for obj in snapshot.claims} - self.claims.keys()
        self.addresses = self._read(_address, snapshot.addresses)
        self.entries = self._read(_entry, snapshot.reservations)
        self.entries_of: dict[tuple[str, Address], list[EntryFact]] = _grouped(
            self.entries, lambda entry: (entry.domain, entry.ip) if entry.ip is not None else None
        )
        self._domain_by_holder = {
            (entry.claim, entry.ip): entry.domain for entry in self.entries if entry.claim is not None
        }
        self.addresses_of: dict[tuple[str, Address], list[AddressFact]] = _grouped(self.addresses, self.place)
        self.by_claim: dict[ClaimKey, list[AddressFact]] = _grouped(self.addresses, lambda address: address.claim)
        self.by_name = {(a.claim.kind, a.claim.namespace, a.name): a for a in self.addresses}
        self.names = {(_claim_kind(obj), obj.metadata.namespace, obj.metadata.name) for obj in snapshot.addresses}
        """Kind of claim, namespace and name of every IPAddress, those of other providers among them."""

    def _read(self, read: Callable[[KubeObject], T | None], objects: Iterable[KubeObject]) -> list[T]:
        facts = []
        for obj in objects:
            try:
                fact = read(obj)
            except msgspec.ValidationError as error:
                self.unreadable.append((obj, str(error)))
                continue
            if fact is not None:
                facts.append(fact)
        return facts

    def place(self, address: AddressFact) -> tuple[str, Address] | None:
        """Domain and address of an IPAddress; where its pool is gone, the domain is the one of its claim's entry."""
        if address.ip is None:
            return None
        pool = self.pools.get(address.pool)
        domain = pool.domain if pool is not None else self._domain_by_holder.get((address.claim, address.ip))
        return (domain, address.ip) if domain is not None else None

    def exists(self, claim: ClaimKey) -> bool:
        """Tell whether there is a claim of that kind and name, be it for a pool of another provider."""
        return claim in self.claims or claim in self.foreign_claims

    def settled(self, claim: ClaimKey) -> bool:
        """Tell whether a claim exists and the allocator is done with it."""
        found = self.claims.get(claim)
        return found is not None and found.settled


# -- reading objects -----------------------------------------------------------------------------------------------


def _pool(obj: KubeObject) -> PoolFact:
    spec = view(obj.spec, api.PoolSpec)
    key = PoolKey(obj.kind, obj.metadata.namespace, obj.metadata.name)
    return PoolFact(key, spec.domain, PoolSpace(spec))


def _claim_key(obj: KubeObject) -> ClaimKey:
    return ClaimKey(obj.kind, obj.metadata.namespace, obj.metadata.name)


def _claim(obj: KubeObject) -> ClaimFact | None:
    """Facts of a claim; None when it asks for another provider's pool."""
    meta, key = obj.metadata, _claim_key(obj)
    ref: api.ObjectRef | api.NameRef | None
    if key.kind == _METAL3_CLAIM:
        pool = _metal3_pool(view(obj.spec, api.IPClaimSpec).pool, meta.namespace)
        ref = view(obj.status, api.IPClaimStatus).address
    else:
        pool = _capi_pool(view(obj.spec, api.CapiClaimSpec).pool_ref, meta.namespace)
        ref = view(obj.status, api.CapiClaimStatus).address_ref
    if pool is None:
        return None
    protected = not set(api.CLAIM_FINALIZERS[key.kind]).isdisjoint(meta.finalizers)
    return ClaimFact(key, pool, ref.name if ref is not None else "", obj.deleting, protected)


def _claim_kind(address: KubeObject) -> str:
    """Kind of the claims that IPAddresses of a group are made for."""
    return _METAL3_CLAIM if address.apiVersion.partition("/")[0] == api.METAL3_GROUP else _CAPI_CLAIM


def _address(obj: KubeObject) -> AddressFact | None:
    """Facts of an IPAddress; None when it is of another provider's pool."""
    meta = obj.metadata
    if _claim_kind(obj) == _METAL3_CLAIM:
        spec = view(obj.spec, api.IPAddressSpec)
        claim = ClaimKey(_METAL3_CLAIM, meta.namespace, spec.claim.name)
        pool, text = _metal3_pool(spec.pool, meta.namespace), spec.address
    else:
        capi = view(obj.spec, api.CapiAddressSpec)
        claim = ClaimKey(_CAPI_CLAIM, meta.namespace, capi.claim_ref.name)
        pool, text = _capi_pool(capi.pool_ref, meta.namespace), capi.address
    if pool is None:
        return None
    protected = not set(api.ADDRESS_FINALIZERS[claim.kind]).isdisjoint(meta.finalizers)
    return AddressFact(claim, meta.name, pool, _ip(text), text, obj.deleting, protected)


def _entry(obj: KubeObject) -> EntryFact:
    spec = view(obj.spec, api.ReservationSpec)
    claim, pool = spec.claim, spec.pool
    return EntryFact(
        name=obj.metadata.name,
        domain=spec.domain,
        ip=_ip(spec.address),
        text=spec.address,
        claim=ClaimKey(claim.kind, claim.namespace, claim.name) if claim is not None else None,
        released=spec.released_at is not None,
        pool=PoolKey(pool.kind, pool.namespace, pool.name) if pool is not None else None,
    )


def entry_name(domain: str, ip: Address) -> str:
    """Name that locks an address: IPv4 as it is, IPv6 in full with dashes for colons."""
    return f"{domain}.{ip}" if ip.version == 4 else f"{domain}.{ip.exploded.replace(':', '-')}"  # noqa: PLR2004 - IPv4


def _ip(text: str) -> Address | None:
    try:
        ip = ip_address(text)
    except ValueError:
        return None
    if isinstance(ip, IPv6Address) and (ip.scope_id or ip.ipv4_mapped is not None):
        return None
    return ip


def point(ip: Address) -> int:
    """Number by which a PoolSpace knows an address: IPv6 lies above 2**128."""
    return int(ip) if ip.version == 4 else (1 << 128) + int(ip)  # noqa: PLR2004 - IPv4


def _metal3_pool(ref: api.ObjectRef, namespace: str) -> PoolKey | None:
    group = ref.api_version.partition("/")[0]
    if ref.kind == api.GLOBAL_IP_POOLS.kind:
        return PoolKey(ref.kind, "", ref.name) if group in {"", api.OWN_GROUP} else None
    known = ref.kind in {"", api.IP_POOLS.kind} and group in {"", api.METAL3_GROUP}
    return PoolKey(api.IP_POOLS.kind, ref.namespace or namespace, ref.name) if known else None


def _capi_pool(ref: api.CapiPoolRef, namespace: str) -> PoolKey | None:
    if (ref.api_group, ref.kind) == (api.METAL3_GROUP, api.IP_POOLS.kind):
        return PoolKey(ref.kind, namespace, ref.name)
    if (ref.api_group, ref.kind) == (api.OWN_GROUP, api.GLOBAL_IP_POOLS.kind):
        return PoolKey(ref.kind, "", ref.name)
    return None


def _grouped(items: Iterable[T], key: Callable[[T], K | None]) -> dict[K, list[T]]:
    groups: dict[K, list[T]] = defaultdict(list)
    for item in items:
        group = key(item)
        if group is not None:
            groups[group].append(item)
    return dict(groups)
