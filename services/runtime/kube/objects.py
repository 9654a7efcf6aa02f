"""Kubernetes objects as immutable values, and the pure helpers that make a changed copy.

Responsible for: decoding and encoding objects so that a PUT loses nothing this code does not know (spec and status stay
raw JSON), and for keeping a hundred thousand of them small in memory.
Invariants: an object is never changed after it was decoded; two objects may share a dict or tuple, so nobody may mutate
one; a helper that has nothing to change returns the very object it was given, so `is` tells whether a write is needed.
Must not know: HTTP, time, stores.
"""
# ruff: noqa: N815 - the fields carry their wire names, so that no renaming is needed in between

from __future__ import annotations

import sys
from functools import cache
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import force_setattr, replace

from services.runtime.kube.nesting import shallow

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

T = TypeVar("T")
Obj = TypeVar("Obj", bound="KubeObject")
K = TypeVar("K")

EMPTY = Raw()
"""The raw value of an absent field. `omit_defaults` compares identity: another empty Raw is written as nothing."""

_NULL = b"null"
_SHARED_LIMIT = 4096


class ObjectKey(NamedTuple):
    """Identity of an object within its resource; `namespace` is empty for a cluster-scoped one."""

    namespace: str
    name: str

    def __str__(self) -> str:
        """`namespace/name`, or `name` alone when cluster-scoped."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


class OwnerReference(Struct, frozen=True, omit_defaults=True, gc=False):
    """meta/v1 OwnerReference."""

    apiVersion: str
    kind: str
    name: str
    uid: str
    controller: bool | None = None
    blockOwnerDeletion: bool | None = None


class ObjectMeta(Struct, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """meta/v1 ObjectMeta without managedFields, which the server keeps when a PUT leaves them out."""

    name: str = ""
    generateName: str = ""
    namespace: str = ""
    uid: str = ""
    resourceVersion: str = ""
    generation: int = 0
    creationTimestamp: str | None = None
    deletionTimestamp: str | None = None
    deletionGracePeriodSeconds: int | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    finalizers: tuple[str, ...] = ()
    ownerReferences: tuple[OwnerReference, ...] = ()
    selfLink: str = ""


class KubeObject(Struct, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """Any object with metadata, spec and status. Subclass it to keep other top-level fields, e.g. `data: Raw = EMPTY`.

    A top-level field that the type does not name is lost on PUT.
    """

    apiVersion: str = ""
    kind: str = ""
    metadata: ObjectMeta
    spec: Raw = EMPTY
    status: Raw = EMPTY

    @property
    def key(self) -> ObjectKey:
        """Namespace and name."""
        return ObjectKey(self.metadata.namespace, self.metadata.name)

    @property
    def deleting(self) -> bool:
        """Whether a deletion was requested and waits for finalizers."""
        return self.metadata.deletionTimestamp is not None

    @property
    def finalized(self) -> bool:
        """Whether a deletion was requested and nothing holds it up: the write that led here removed the object."""
        meta = self.metadata
        return meta.deletionTimestamp is not None and not meta.finalizers and not meta.deletionGracePeriodSeconds


class ListMeta(Struct, frozen=True, gc=False):
    """meta/v1 ListMeta."""

    resourceVersion: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class ListPage(Struct, Generic[T], frozen=True):
    """One page of a list as the server sends it. Items of a typed list carry neither apiVersion nor kind."""

    metadata: ListMeta = ListMeta()
    items: list[T] | None = None


class ObjectList(Struct, Generic[T], frozen=True):
    """A complete list: its items and the resourceVersion at which they were all current."""

    items: list[T]
    resource_version: str


class WatchEvent(Struct, frozen=True, gc=False):
    """One line of a watch: type ADDED, MODIFIED, DELETED or BOOKMARK; ERROR never leaves the transport."""

    type: str
    object: Raw


# -- decoding ------------------------------------------------------------------------------------------------------


def _build_decoder(type_: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(type_)


decoder: Callable[[Any], msgspec.json.Decoder[Any]] = cache(_build_decoder)
"""The decoder of a type, built once: building costs more than decoding."""


def decode(data: bytes | Raw, type_: type[Obj]) -> Obj:
    """Decode one object from JSON. Raises msgspec.ValidationError or DecodeError when it does not fit.

    Raw fields are copied, so that a small object does not keep the response it came in alive. What nobody's decoder can
    follow, as it is nested too deeply, is left out: see `services.runtime.kube.nesting`.
    """
    return compact(_decoded(data, type_))


def decode_event(line: bytes) -> WatchEvent:
    """Decode one line of a watch; errors as in `decode`."""
    return _decoded(line, WatchEvent)


def _decoded(data: bytes | Raw, type_: type[T]) -> T:
    read: Callable[[bytes | Raw], T] = decoder(type_).decode
    try:
        return read(data)
    except RecursionError:
        pass
    try:
        return read(shallow(bytes(data)))
    except RecursionError as error:
        raise msgspec.DecodeError("nested too deeply, and cut off") from error


def decode_page(data: bytes, type_: type[Obj]) -> ListPage[Obj]:
    """Decode one page of a list; errors as in `decode`."""
    page: ListPage[Obj] = _decoded(data, ListPage[type_])  # type: ignore[valid-type]  # a runtime parameter
    for item in page.items or ():
        compact(item)
    return page


_shared: dict[Any, Any] = {}


def _share(value: K) -> K:
    """Return one instance for equal hashable values; bounded, since some of them are unique."""
    found = _shared.get(value)
    if found is not None:
        return found  # type: ignore[no-any-return]  # the cache maps a value to an equal one
    if len(_shared) >= _SHARED_LIMIT:
        _shared.clear()
    _shared[value] = value
    return value


@cache
def _raw_fields(type_: type[Struct]) -> tuple[str, ...]:
    """Names of the fields that may hold a Raw, those inherited included."""
    return tuple(f.name for f in msgspec.structs.fields(type_) if f.type is Raw)


def compact(obj: Obj) -> Obj:
    """Release the buffer a freshly decoded object points into and share what repeats across objects. Returns `obj`.

    Legal on a frozen value because the object is not known to anyone else yet, and because it stays equal to itself.
    """
    meta = obj.metadata
    intern = sys.intern
    force_setattr(obj, "apiVersion", intern(obj.apiVersion))
    force_setattr(obj, "kind", intern(obj.kind))
    for name in _raw_fields(type(obj)):
        value = getattr(obj, name)
        if value is not EMPTY:
            force_setattr(obj, name, value.copy())
    force_setattr(meta, "namespace", intern(meta.namespace))
    if meta.creationTimestamp is not None:  # objects made in one go share their second
        force_setattr(meta, "creationTimestamp", _share(meta.creationTimestamp))
    if meta.finalizers:
        force_setattr(meta, "finalizers", _share(meta.finalizers))
    if meta.ownerReferences:
        force_setattr(meta, "ownerReferences", tuple([_share_owner(ref) for ref in meta.ownerReferences]))
    if meta.labels:
        force_setattr(meta, "labels", _share_labels(meta.labels))
    return obj


def _share_owner(ref: OwnerReference) -> OwnerReference:
    """Return one reference for all that an owner of many has; of a unique one at least the words are shared."""
    found: OwnerReference | None = _shared.get(ref)
    if found is not None:
        return found
    force_setattr(ref, "apiVersion", sys.intern(ref.apiVersion))
    force_setattr(ref, "kind", sys.intern(ref.kind))
    return _share(ref)


def _share_labels(labels: dict[str, str]) -> dict[str, str]:
    """Return one dict for equal labels: the members of a cluster or pool carry the same ones."""
    items = tuple(labels.items())
    found: dict[str, str] | None = _shared.get(items)
    if found is not None:
        return found
    if len(_shared) >= _SHARED_LIMIT:
        _shared.clear()
    _shared[items] = labels
    return labels


def encode(value: Any) -> bytes:
    """JSON bytes of an object, a Struct or plain data."""
    return msgspec.json.encode(value)


def raw(value: Any) -> Raw:
    """Encode a Struct or plain data into a raw field."""
    return Raw(msgspec.json.encode(value))


def view(data: Raw, type_: type[T]) -> T:
    """Decode a raw field into `type_`; an absent or null field gives `type_()`. Raises msgspec.ValidationError."""
    if data is EMPTY:
        return type_()
    content = memoryview(data)
    if not content or content == _NULL:
        return type_()
    return _decoded(data, type_)


def version(resource_version: str) -> int:
    """Return a resourceVersion as a number that can be compared within one resource; 0 when it is not one.

    Source: Kubernetes API concepts, "resource versions": a decimal integer for everything stored in etcd.
    """
    return int(resource_version) if resource_version.isdecimal() else 0


# -- changed copies ------------------------------------------------------------------------------------------------


def has_finalizer(obj: KubeObject, finalizer: str) -> bool:
    """Whether `obj` carries `finalizer`."""
    return finalizer in obj.metadata.finalizers


def with_finalizer(obj: Obj, finalizer: str) -> Obj:
    """`obj` with `finalizer` as the last of its finalizers, unless it has it."""
    if finalizer in obj.metadata.finalizers:
        return obj
    return _with_meta(obj, finalizers=(*obj.metadata.finalizers, finalizer))


def without_finalizers(obj: Obj, finalizers: Collection[str]) -> Obj:
    """`obj` without any of `finalizers`; the others keep their order."""
    kept = tuple([f for f in obj.metadata.finalizers if f not in finalizers])
    return obj if len(kept) == len(obj.metadata.finalizers) else _with_meta(obj, finalizers=kept)


def with_owner(obj: Obj, owner: OwnerReference) -> Obj:
    """`obj` with `owner` among its owner references; one with the same uid is replaced in its place."""
    refs = obj.metadata.ownerReferences
    if owner in refs:
        return obj
    if any(ref.uid == owner.uid for ref in refs):
        return _with_meta(obj, ownerReferences=tuple([owner if ref.uid == owner.uid else ref for ref in refs]))
    return _with_meta(obj, ownerReferences=(*refs, owner))


def with_current_owner(obj: Obj, owner: OwnerReference) -> Obj:
    """Like `with_owner`, but of one with the same uid only the apiVersion is renewed.

    What else it says may be somebody else's. A version that is not served any more is one that the garbage collector
    cannot look up, and so deletes nothing by. An object may have one controller: `owner` is none if there is another.
    """
    refs = obj.metadata.ownerReferences
    known = next((ref for ref in refs if ref.uid == owner.uid), None)
    if known is not None:
        return with_owner(obj, replace(known, apiVersion=owner.apiVersion))
    if owner.controller and any(ref.controller for ref in refs):
        owner = replace(owner, controller=False)
    return with_owner(obj, owner)


def with_labels(obj: Obj, changes: Mapping[str, str | None]) -> Obj:
    """`obj` with labels set, or removed where the value is None."""
    merged = _merged(obj.metadata.labels, changes)
    return obj if merged is obj.metadata.labels else _with_meta(obj, labels=merged)


def with_annotations(obj: Obj, changes: Mapping[str, str | None]) -> Obj:
    """`obj` with annotations set, or removed where the value is None."""
    merged = _merged(obj.metadata.annotations, changes)
    return obj if merged is obj.metadata.annotations else _with_meta(obj, annotations=merged)


def with_spec(obj: Obj, spec: Any) -> Obj:
    """`obj` with another spec (a Struct, plain data or Raw), unless it says the same as JSON."""
    new = _as_raw(spec)
    return obj if same_json(obj.spec, new) else replace(obj, spec=new)


def with_status(obj: Obj, status: Any) -> Obj:
    """`obj` with another status (a Struct, plain data or Raw), unless it says the same as JSON."""
    new = _as_raw(status)
    return obj if same_json(obj.status, new) else replace(obj, status=new)


def same_json(one: Raw, other: Raw) -> bool:
    """Whether two raw fields say the same, whatever the order of their keys; absent, null and {} differ."""
    if one is other or memoryview(one) == memoryview(other):
        return True
    if not memoryview(one) or not memoryview(other):
        return False
    return bool(msgspec.json.decode(one) == msgspec.json.decode(other))


def _as_raw(value: Any) -> Raw:
    if not isinstance(value, Raw):
        return raw(value)
    return value if memoryview(value) else EMPTY


def _merged(current: dict[str, str] | None, changes: Mapping[str, str | None]) -> dict[str, str] | None:
    have = current or {}
    if all(have.get(key) == value for key, value in changes.items()):
        return current
    merged = {key: value for key, value in {**have, **changes}.items() if value is not None}
    return merged or None


def _with_meta(obj: Obj, **changes: Any) -> Obj:
    make: Callable[..., ObjectMeta] = replace
    return replace(obj, metadata=make(obj.metadata, **changes))
