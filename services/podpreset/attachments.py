"""The envFrom and mounts that presets give, compared with those that one container has itself.

Responsible for: what the container lacks, and what it refuses because it has something else in that place.
Invariants: what the container has stays; merging once more changes nothing. Injected envFrom come first: of two that
have a name the last counts, and that has to be the container's own.
Must not know: other containers, the pod's volumes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from services.podpreset import api, explain
from services.podpreset.compiled import mount_path, source_key
from services.podpreset.decision import Conflict, rival_of
from services.podpreset.explain import Fate, Row
from services.podpreset.sameness import kept, same

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from services.podpreset.compiled import Json, Mount, Volume
    from services.podpreset.edits import Edits
    from services.podpreset.explain import Rows
    from services.podpreset.layers import Effective, Held
    from services.podpreset.pods import Container


def merge_sources(container: Container, effective: Effective, edits: Edits, rows: Rows | None = None) -> None:
    """Merge envFrom. One with the key of the container's own is left out; if it differs, that is a conflict."""
    if not effective.sources:
        return
    owned = {source_key(source): source for source in container.envFrom or ()}
    added = []
    for held in effective.sources:
        source = held.item
        own = owned.get(source.key)
        if own is None:
            fate = Fate.ADDED
            added.append(source.json)
        elif same(own, source.json):
            fate = Fate.PRESENT
        else:
            fate = Fate.CONFLICT
            edits.conflicts.append(conflict_of(held, f"envFrom {source.label}", rival_of(container.name)))
        if rows is not None:
            rows.append(row_of(container.name, "envFrom", source.label, fate, held, own))
    edits.sources = added


def conflict_of(held: Held[Any], item: str, rival: str) -> Conflict:
    """Return the conflict of a thing with something else, for the strictest of the presets that give it."""
    strictest = max(held.owners, key=lambda owner: api.CONFLICT_POLICIES.index(owner.policy))
    return Conflict(strictest.key, item, rival, strictest.policy)


def row_of(container: str, kind: str, name: str, fate: Fate, held: Held[Any], own: Json | None) -> Row:
    """Return the row of an object. An own one that is equal came with the pod, wherever from."""
    value = held.item.json if own is None else own
    givers = [str(owner.key) for owner in held.owners] if own is None else [explain.CONTAINER]
    return Row(container, kind, name, fate, value, tuple(("", giver) for giver in givers))


def is_there(own: Json, held: Held[Volume] | Held[Mount], annotations: Mapping[str, str]) -> bool:
    """Whether an own volume or mount of a pod with these annotations is the one that presets give.

    Once the pod carries one of the presets in its present state, what the API server has dropped since is no
    difference. Before that it is: the pod's author wrote something else.
    """
    item = held.item
    if same(own, item.json):
        return True
    carried = any(annotations.get(owner.annotation) == owner.hash for owner in held.owners)
    return carried and same(own, kept(item.json, item.known, own))


# -- mounts --------------------------------------------------------------------------------------------------------


class MountCheck(NamedTuple):
    """What of the mounts a container lacks, and the volumes it refuses with the conflict of each."""

    lacking: list[Held[Mount]]
    refused: list[tuple[str, Conflict]]


def check_mounts(container: Container, effective: Effective, annotations: Mapping[str, str]) -> MountCheck:
    """Compare mounts with the container's own; `annotations` are the pod's.

    A mount is the container's already if one at its path is equal. Any other mount or device there refuses the volume,
    and so does, for a preset with SkipAll as for the old PodPreset, a mount of the volume at another path.
    """
    mounts = effective.mounts
    if not mounts:
        return MountCheck([], [])
    if not container.volumeMounts and not container.volumeDevices:
        return MountCheck(list(mounts), [])
    owned = {mount_path(mount): mount for mount in container.volumeMounts or ()}
    devices = {text for device in container.volumeDevices or () for text in (device.devicePath, device.name)}
    lacking: list[Held[Mount]] = []
    refused: list[tuple[str, Conflict]] = []
    for held in mounts:
        mount = held.item
        own = owned.get(mount.path)
        if own is not None and is_there(own, held, annotations):
            continue
        taken = own is not None or mount.path in devices or mount.volume in devices
        strict = any(owner.policy == api.SKIP_ALL for owner in held.owners)
        if taken or (strict and _mounted_elsewhere(mount, owned.values(), mounts)):
            refused.append((mount.volume, conflict_of(held, f"volumeMount {mount.path}", rival_of(container.name))))
        else:
            lacking.append(held)
    return MountCheck(lacking, refused)


def _mounted_elsewhere(mount: Mount, owned: Iterable[Json], mounts: Iterable[Held[Mount]]) -> bool:
    """Whether the container mounts the volume where no preset does."""
    paths = {held.item.path for held in mounts if held.item.volume == mount.volume}
    return any(own.get("name") == mount.volume and mount_path(own) not in paths for own in owned)
