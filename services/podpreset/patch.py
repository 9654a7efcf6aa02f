"""Edits as an RFC 6902 patch.

Responsible for: the smallest list of operations that makes the edits: `add` of single items, `replace` of a value after
a `test` that it is the right one, parents only where they are missing. Nothing is removed, no list is written anew, so
what is not known here survives.
Invariants: the operations, applied in order, give what `edited` gives; their values are shared, so nobody changes them.
Must not know: presets.
Source: RFC 6902 (JSON Patch), RFC 6901 (JSON Pointer).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec import Struct

from services.podpreset import edits as container_edits
from services.podpreset.edits import Edits, Json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from services.podpreset.decision import Op
    from services.podpreset.pods import Container, Pod


class Edited(NamedTuple):
    """A container with its edits: `/spec/<list>/<at>`."""

    list: str
    at: int
    container: Container
    edits: Edits


class PodEdits(Struct):
    """What is done to a pod."""

    containers: list[Edited] = []
    volumes: list[Json] = []
    """Put behind its volumes."""
    annotations: dict[str, str] = {}
    """Set, and not what they are already."""


def operations(pod: Pod, edits: PodEdits) -> list[Op]:
    """Return the operations that make the edits."""
    found: list[Op] = []
    if edits.annotations:
        found += _annotations(pod, edits.annotations)
    assert pod.spec is not None, "a pod without a spec has nothing to edit"
    _append(found, "/spec/volumes", pod.spec.volumes, edits.volumes)
    for edited in edits.containers:
        _container(found, f"/spec/{edited.list}/{edited.at}", edited.container, edited.edits)
    return found


def _annotations(pod: Pod, annotations: Mapping[str, str]) -> list[Op]:
    meta = pod.metadata
    if meta is None:
        return [_add("/metadata", {"annotations": annotations})]
    if meta.annotations is None:
        return [_add("/metadata/annotations", annotations)]
    return [
        {
            "op": "replace" if key in meta.annotations else "add",
            "path": f"/metadata/annotations/{escaped(key)}",
            "value": value,
        }
        for key, value in annotations.items()
    ]


def _container(found: list[Op], path: str, container: Container, edits: Edits) -> None:
    env = f"{path}/env"
    for change in edits.changes:
        entry = f"{env}/{change.at}"
        found.append({"op": "test", "path": f"{entry}/name", "value": change.name})
        where = entry if change.whole else f"{entry}/value"
        found.append({"op": "replace" if change.had_value else "add", "path": where, "value": change.json})
    # From the last to the first, so that the positions before stay what they are.
    for at, entry_json in sorted(edits.after, key=lambda item: item[0], reverse=True):
        found.append(_add(f"{env}/{at + 1}", entry_json))
    _prepend(found, env, container.env, edits.first)
    _prepend(found, f"{path}/envFrom", container.envFrom, edits.sources)
    _append(found, f"{path}/volumeMounts", container.volumeMounts, edits.mounts)


def _prepend(found: list[Op], path: str, present: Sequence[Any] | None, items: Sequence[Json]) -> None:
    if items and not present:
        found.append(_add(path, list(items)))
    else:
        found += [_add(f"{path}/{at}", item) for at, item in enumerate(items)]


def _append(found: list[Op], path: str, present: Sequence[Any] | None, items: Sequence[Json]) -> None:
    if items and not present:
        found.append(_add(path, list(items)))
    else:
        found += [_add(f"{path}/-", item) for item in items]


def _add(path: str, value: Any) -> Op:
    return {"op": "add", "path": path, "value": value}


def escaped(key: str) -> str:
    """Return a key as a JSON Pointer names it."""
    return key.replace("~", "~0").replace("/", "~1")


# -- the same without a patch --------------------------------------------------------------------------------------


def edited(pod: Json, edits: PodEdits) -> Json:
    """Return a pod in plain JSON with the edits made; the given one stays as it is."""
    if not (edits.containers or edits.volumes or edits.annotations):
        return pod
    spec = dict(pod["spec"])
    if edits.volumes:
        spec["volumes"] = [*(spec.get("volumes") or ()), *edits.volumes]
    for item in edits.containers:
        containers = list(spec[item.list])
        containers[item.at] = container_edits.apply(containers[item.at], item.edits)
        spec[item.list] = containers
    result = {**pod, "spec": spec}
    if edits.annotations:
        meta = pod.get("metadata") or {}
        result["metadata"] = {**meta, "annotations": {**(meta.get("annotations") or {}), **edits.annotations}}
    return result
