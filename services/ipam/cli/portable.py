"""Objects without what ties them to one cluster, and the YAML stream in which they travel to another.

Responsible for: stripping an object to what another cluster can take, choosing what belongs into an export, writing and
reading the stream.
Invariants: a stream is in the order in which it has to be applied, IPReservations (so that nobody takes the addresses
meanwhile), pools, IPAddresses, claims, so that it is safe in the hands of kubectl too; the same objects give the same
stream. Every IPAddress and every held IPReservation in an export has its claim in it, since the allocator returns
what no claim holds.
Must not know: the API server, the clock, what the target has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import yaml
from msgspec import Raw

from services import output
from services.ipam import api, kinds
from services.ipam.poolobjects import pool_key, read_pool_spec
from services.ipam.slots import Use
from services.ipam.space import PoolSpace, Spans
from services.runtime.kube.objects import KubeObject, ObjectMeta, encode

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from services.ipam.api import ClaimKey, PoolKey
    from services.ipam.cli.snapshot import Snapshot
    from services.runtime.kube.resource import Resource

_RANKS = {"IPReservation": 0, "IPPool": 1, "GlobalIPPool": 1, "IPAddress": 2, "IPClaim": 3, "IPAddressClaim": 3}
_GROUPS = {
    resource.kind: {resource.group}
    for resource in (api.IP_RESERVATIONS, api.IP_POOLS, api.GLOBAL_IP_POOLS, api.IP_CLAIMS, api.CAPI_CLAIMS[0])
} | {"IPAddress": {api.METAL3_GROUP, api.CAPI_GROUP}}
_LOCAL_ANNOTATIONS = {"kubectl.kubernetes.io/last-applied-configuration"}
_REFERENCES = ("claim", "lastClaim", "pool")
_LOCAL_FIELDS = ("uid", "resourceVersion")
_LOADER: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class StreamError(Exception):
    """What was given is no stream of the allocator's objects; the message is one line that says where and why."""


class Identity(NamedTuple):
    """What an object is called, whatever version of its API it is written in."""

    group: str
    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        where = f"{self.namespace}/{self.name}" if self.namespace else self.name
        return f"{self.kind} {where}" if self.kind != "IPAddress" else f"{self.kind} {where} ({self.group})"


def identity(obj: KubeObject) -> Identity:
    """Identity of an object."""
    meta = obj.metadata
    return Identity(obj.apiVersion.partition("/")[0], obj.kind, meta.namespace, meta.name)


def rank(obj: KubeObject) -> int:
    """Place of an object's kind in the order of application, from 0."""
    return _RANKS[obj.kind]


def in_order(objects: Iterable[KubeObject]) -> list[KubeObject]:
    """Objects in the order in which they have to be applied."""
    return sorted(objects, key=lambda obj: (rank(obj), identity(obj)))


def portable(obj: KubeObject) -> KubeObject:
    """An object as another cluster can take it: no status, uid, resourceVersion, managed fields, owners or deletion.

    Finalizers stay, since they say who still uses an address; those of the garbage collector belong to a deletion.
    """
    meta = obj.metadata
    annotations = {key: value for key, value in (meta.annotations or {}).items() if key not in _LOCAL_ANNOTATIONS}
    spec: dict[str, Any] = msgspec.json.decode(obj.spec) if memoryview(obj.spec) else {}
    for field in _REFERENCES:
        reference = spec.get(field)
        if isinstance(reference, dict):
            spec[field] = {key: value for key, value in reference.items() if key not in _LOCAL_FIELDS}
    return KubeObject(
        apiVersion=obj.apiVersion,
        kind=obj.kind,
        metadata=ObjectMeta(
            name=meta.name,
            namespace=meta.namespace,
            labels=meta.labels,
            annotations=annotations or None,
            finalizers=tuple(f for f in meta.finalizers if f not in api.GARBAGE_COLLECTOR_FINALIZERS),
        ),
        spec=Raw(msgspec.json.encode(spec, order="sorted")),  # so that equal objects are equal byte for byte
    )


# -- choosing ------------------------------------------------------------------------------------------------------


class Export(NamedTuple):
    """Portable objects in order, and what the reader of the export should know."""

    objects: list[KubeObject]
    remarks: list[str]


def choose(snapshot: Snapshot, namespaces: Collection[str] = ()) -> Export:
    """Everything, or what claims of some namespaces need: their pools, IPAddresses and reservations.

    Administrators' reservations go along where an exported pool covers them, without namespaces all of them. Released
    reservations stay behind: they belong to no claim.
    """
    remarks: list[str] = []
    claims: dict[ClaimKey, KubeObject] = {}
    needed: set[PoolKey] = set()
    for obj in snapshot.claims:
        claim = kinds.read_claim(obj.kind, obj)
        if claim.pool is None or not _within(obj, namespaces):
            continue
        claims[claim.key] = obj
        needed.add(claim.pool)
        if obj.deleting:
            remarks.append(f"{claim.key} is being deleted: delete its copy too once nobody uses the address")
    addresses = []
    for obj in snapshot.addresses:
        kind = kinds.METAL3 if obj.apiVersion == api.IP_ADDRESSES.api_version else kinds.CAPI
        holding = kinds.read_address(kind, obj)
        if holding is None:
            continue
        if holding.claim in claims:
            addresses.append(obj)
            needed.add(holding.pool)
        elif _within(obj, namespaces):
            remarks.append(f"{identity(obj)} is left out: {holding.claim} does not exist")
    pools = [obj for obj in snapshot.pools if pool_key(obj) in needed or _within(obj, namespaces)]
    remarks += [f"{pool_key(obj)} is being deleted: delete its copy too" for obj in pools if obj.deleting]
    if namespaces:
        outside = (pool_key(obj) for obj in pools if obj.metadata.namespace not in {"", *namespaces})
        remarks += [f"{key} goes along because claims need it" for key in outside]
    reservations = _reservations(snapshot, claims, pools, namespaces, remarks)
    chosen = [portable(obj) for obj in (*reservations, *pools, *addresses, *claims.values())]
    return Export(in_order(chosen), sorted(remarks))


def _within(obj: KubeObject, namespaces: Collection[str]) -> bool:
    return not namespaces or obj.metadata.namespace in namespaces


def _reservations(
    snapshot: Snapshot,
    claims: Collection[ClaimKey],
    pools: Iterable[KubeObject],
    namespaces: Collection[str],
    remarks: list[str],
) -> Iterator[KubeObject]:
    specs = [read_pool_spec(obj)[0] for obj in pools]
    covers = [(spec.domain, Spans(PoolSpace(spec).spans)) for spec in specs]
    for obj in snapshot.reservations:
        read = kinds.read_reservation(obj)
        if read is None:
            continue
        domain, at, reservation = read
        match reservation.use:
            case Use.HELD if reservation.claim in claims:
                yield obj
            case Use.HELD if not namespaces or (reservation.claim and reservation.claim.namespace in namespaces):
                remarks.append(f"{identity(obj)} is left out: {reservation.claim} does not exist")
            case Use.ADMIN if not namespaces or any(domain == name and at in spans for name, spans in covers):
                yield obj
            case _:
                pass


# -- the stream ----------------------------------------------------------------------------------------------------


def write(objects: Iterable[KubeObject], remarks: Iterable[str] = ()) -> Iterator[str]:
    """The stream in pieces: remarks as comments, then one document for each object."""
    yield "".join(f"# {remark}\n" for remark in remarks)
    for obj in objects:
        plain: dict[str, Any] = msgspec.json.decode(encode(obj))
        text: str = yaml.dump(plain, Dumper=output.Dumper, sort_keys=True, default_flow_style=False, allow_unicode=True)
        yield f"---\n{text}"


def read(text: str) -> list[KubeObject]:
    """Portable objects of a stream, in order. Raises StreamError.

    Takes what `write` wrote, and `kubectl get -o yaml` of the same kinds, Lists included; released reservations are
    left out. An object that comes twice has to say the same both times.
    """
    try:
        documents = list(yaml.load_all(text, Loader=_LOADER))
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date that there is not
        raise StreamError(f"not YAML: {' '.join(str(error).split())}") from error
    found: dict[Identity, KubeObject] = {}
    for number, document in enumerate(documents, 1):
        items = document.get("items") or [] if isinstance(document, dict) and _is_list(document) else [document]
        if not isinstance(items, list):
            raise StreamError(f"document {number}: items has to be a list")
        for item in items:
            obj = _read_object(f"document {number}", item)
            if obj is None:
                continue
            known = found.setdefault(identity(obj), obj)
            if known != obj:
                raise StreamError(f"document {number}: {identity(obj)} comes twice and differs")
    return in_order(found.values())


def _is_list(document: dict[str, Any]) -> bool:
    return str(document.get("kind", "")).endswith("List")


def _read_object(where: str, item: Any) -> KubeObject | None:
    if item is None:
        return None
    try:
        obj: KubeObject = msgspec.json.decode(encode(item), type=KubeObject)
        if obj.apiVersion.partition("/")[0] not in _GROUPS.get(obj.kind, ()):
            raise StreamError(
                f"{where}: {obj.kind or 'an object'} of {obj.apiVersion or 'no API'} is not the allocator's"
            )
        obj = portable(obj)
        spec = msgspec.json.decode(obj.spec, type=spec_type(obj))
    except (TypeError, RecursionError, msgspec.ValidationError) as error:
        raise StreamError(f"{where}: {error}") from error
    namespaced = obj.kind not in {api.GLOBAL_IP_POOLS.kind, api.IP_RESERVATIONS.kind}
    if not obj.metadata.name or namespaced != bool(obj.metadata.namespace):
        needs = "a name and a namespace" if namespaced else "a name and no namespace"
        raise StreamError(f"{where}: {obj.kind} {obj.key} needs {needs}")
    if isinstance(spec, api.ReservationSpec) and spec.released_at is not None:
        return None
    return obj


def spec_type(obj: KubeObject) -> type[msgspec.Struct]:
    """Type of an object's spec."""
    group = obj.apiVersion.partition("/")[0]
    if obj.kind == "IPAddress":
        return api.IPAddressSpec if group == api.METAL3_GROUP else api.CapiAddressSpec
    types: dict[str, type[msgspec.Struct]] = {
        "IPReservation": api.ReservationSpec,
        "IPClaim": api.IPClaimSpec,
        "IPAddressClaim": api.CapiClaimSpec,
    }
    return types.get(obj.kind, api.PoolSpec)


def resource_for(obj: KubeObject, capi_version: str) -> Resource | None:
    """Resource under which a server takes an object; None when it serves no Cluster API IPAM API and needs to."""
    if obj.kind == api.CAPI_CLAIMS[0].kind:
        candidates = api.CAPI_CLAIMS
    elif obj.apiVersion.partition("/")[0] == api.CAPI_GROUP:
        candidates = api.CAPI_ADDRESSES
    else:
        return next(r for r in _FIXED if r.kind == obj.kind)
    return next((resource for resource in candidates if resource.version == capi_version), None)


_FIXED = (api.IP_RESERVATIONS, api.IP_POOLS, api.GLOBAL_IP_POOLS, api.IP_ADDRESSES, api.IP_CLAIMS)
