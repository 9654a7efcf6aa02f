"""YAML as users keep it: presets, namespaces and workloads out of any stream of Kubernetes objects.

Responsible for: reading streams and Lists, telling apart what is wanted from what is not, and one line for what is
wrong, with the file and the place of the document in it.
Invariants: pure, text in and values out. An object of a kind that is not looked at is no error: people keep it all in
one file. Of two objects of one name the later counts, as with kubectl apply.
Must not know: the file system, the API server.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import yaml

from services.podpreset import api
from services.podpreset.cli.workloads import NoPodError, Workload, workload
from services.runtime.kube.objects import KubeObject, decode

if TYPE_CHECKING:
    from collections.abc import Iterator

Json = dict[str, Any]

DEFAULT_NAMESPACE = "default"
_LARGEST = 5_000_000
"""Values in a document with its anchors written out; 10 MB of workloads have less than one million."""
_DEEPEST = 128
_PRESETS = {api.CLUSTER_KIND, api.NAMESPACED_KIND}
_LOADER: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class DocumentError(Exception):
    """A stream that cannot be used; the message is one line."""


class _Loader(_LOADER):  # type: ignore[misc]  # C or Python, whichever is there
    """YAML as JSON has it: a date stays the text that it is."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in _LOADER.yaml_implicit_resolvers.items()
}


class Documents:
    """What was read: each kind of thing by its identity, in the order it came."""

    def __init__(self, namespace: str = DEFAULT_NAMESPACE) -> None:
        self._namespace = namespace
        self.presets: dict[tuple[str, str, str], KubeObject] = {}
        self.namespaces: dict[str, KubeObject] = {}
        self.workloads: dict[tuple[str, str, str], Workload] = {}
        self.others: list[str] = []
        """Kinds that were passed over."""

    def add(self, text: str, source: str) -> None:
        """Take the objects of a stream. Raises DocumentError."""
        for where, obj in objects(text, source):
            self._add(obj, where)

    def _add(self, obj: Json, where: str) -> None:
        kind, group = str(obj.get("kind") or ""), str(obj["apiVersion"]).rpartition("/")[0]
        if group == api.GROUP and kind in _PRESETS:
            preset = self._placed(obj) if kind == api.NAMESPACED_KIND else obj
            made = _kube_object(preset, where)
            self.presets[kind, *made.key] = made
        elif group == "" and kind == "Namespace":
            self.namespaces[obj["metadata"].get("name", "")] = _kube_object(obj, where)
        else:
            try:
                found = workload(obj, self._namespace)
            except NoPodError as error:
                raise DocumentError(f"{where}: {error}") from error
            if found is None:
                self.others.append(kind)
            else:
                self.workloads[found.kind, found.namespace, found.name] = found

    def _placed(self, obj: Json) -> Json:
        meta = obj["metadata"]
        return {**obj, "metadata": {**meta, "namespace": meta.get("namespace") or self._namespace}}


def objects(text: str, source: str) -> Iterator[tuple[str, Json]]:
    """Yield the objects of a stream, those in Lists included, each with its place. Raises DocumentError."""
    try:
        documents = list(yaml.load_all(text, Loader=_Loader))
    except yaml.YAMLError as error:
        raise DocumentError(f"{source}: not YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise DocumentError(f"{source}: nested too deeply") from error
    for number, document in enumerate(documents, 1):
        where = f"{source}: document {number}" if len(documents) > 1 else source
        if _weight(document, {}, where) > _LARGEST:
            raise DocumentError(f"{where}: its anchors stand for more than {_LARGEST} values")
        for item in _items(document, where):
            if not isinstance(item, dict) or not item.get("apiVersion") or not item.get("kind"):
                raise DocumentError(f"{where}: no Kubernetes object: apiVersion and kind are needed")
            meta = item.get("metadata")
            if meta is not None and not isinstance(meta, dict):
                raise DocumentError(f"{where}: metadata is no mapping")
            yield where, {**item, "metadata": meta or {}}


def _items(document: Any, where: str) -> Iterator[Any]:
    if document is None:  # what stands between two lines of dashes
        return
    if not (isinstance(document, dict) and str(document.get("kind") or "").endswith("List") and "items" in document):
        yield document
        return
    items = document["items"] or []
    if not isinstance(items, list):
        raise DocumentError(f"{where}: items is no list")
    # Items of a typed list (PodList) carry neither kind nor version.
    kind = str(document["kind"]).removesuffix("List")
    defaults = {"apiVersion": document.get("apiVersion"), "kind": kind} if kind else {}
    for item in items:
        yield from _items({**defaults, **item} if isinstance(item, dict) else item, where)


def _weight(value: Any, known: dict[int, int], where: str, level: int = 0) -> int:
    """Count the values in a document, those behind an anchor each time it is used. Raises DocumentError.

    A few lines of anchors can stand for more than any memory holds, and for something that contains itself.
    """
    if not isinstance(value, dict | list):
        return 1
    found = known.get(id(value))
    if found is None:
        if level > _DEEPEST:
            raise DocumentError(f"{where}: nested too deeply")
        children = value.values() if isinstance(value, dict) else value
        found = known[id(value)] = 1 + sum(_weight(child, known, where, level + 1) for child in children)
    return found


def _kube_object(obj: Json, where: str) -> KubeObject:
    try:
        return decode(json.dumps(obj).encode(), KubeObject)
    except (ValueError, TypeError) as error:  # msgspec's errors are ValueErrors
        raise DocumentError(f"{where}: {error}") from error
