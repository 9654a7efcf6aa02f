"""A store that keeps of each object only what the service reads.

Responsible for: keeping the copies of Nodes and Pods small; they are many and large, and little of them matters here.
Invariant: what is kept has the object's name, uid and resourceVersion, so everything else about stores holds.
Must not know: what the objects mean.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from services.runtime.cache.store import Store
from services.runtime.kube.objects import EMPTY, KubeObject

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping

__all__ = ["ReducedStore", "annotations_only", "spec_only"]


class ReducedStore(Store[KubeObject]):
    """Keeps `reduce(obj)` of every object. A write of our own is not expected here."""

    def __init__(
        self,
        name: str,
        reduce: Callable[[KubeObject], KubeObject],
        indexes: Mapping[str, Callable[[KubeObject], Iterable[Hashable]]] | None = None,
    ) -> None:
        super().__init__(name, indexes)
        self._reduce = reduce

    def known(self, obj: KubeObject) -> KubeObject:
        """Return what is kept of `obj`: the rest of a list page is free at once."""
        return super().known(self._reduce(obj))

    def apply(self, type_: str, obj: KubeObject) -> None:
        """Take one event of the watch."""
        super().apply(type_, self._reduce(obj))


def spec_only(obj: KubeObject) -> KubeObject:
    """`obj` with its identity and spec alone."""
    return replace(_bare(obj, {}), status=EMPTY)


def annotations_only(prefix: str) -> Callable[[KubeObject], KubeObject]:
    """Return a function that leaves of an object its identity and the annotations whose key begins with `prefix`."""

    def reduce(obj: KubeObject) -> KubeObject:
        found = {key: value for key, value in (obj.metadata.annotations or {}).items() if key.startswith(prefix)}
        return replace(_bare(obj, found), spec=EMPTY, status=EMPTY)

    return reduce


def _bare(obj: KubeObject, annotations: dict[str, str]) -> KubeObject:
    meta = replace(
        obj.metadata, labels=None, annotations=annotations or None, finalizers=(), ownerReferences=(), selfLink=""
    )
    return replace(obj, metadata=meta)
