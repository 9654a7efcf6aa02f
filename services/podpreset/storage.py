"""The volumes that presets give a pod, together with their mounts.

Responsible for: that a volume and all mounts of it are given together or not at all: if the pod has another volume of
that name, or one container something else at the path of one mount, none of it is.
Invariant: what the pod has stays. Nothing that is already there is given up, even if a container that came later
refuses the volume.
Must not know: variables, presets beyond what they give.
Source: core/v1 validation of ephemeral containers (no new volumes, no subPath).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from services.podpreset.attachments import check_mounts, conflict_of, is_there, row_of
from services.podpreset.compiled import mount_path
from services.podpreset.explain import Fate
from services.podpreset.layers import volume_label

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from services.podpreset.compiled import Json, Mount, Volume
    from services.podpreset.decision import Conflict
    from services.podpreset.explain import Rows
    from services.podpreset.layers import Effective, Held, Volumes
    from services.podpreset.pods import Container

POD = "the pod"


class Storage(NamedTuple):
    """What a pod lacks, and what it cannot have."""

    volumes: list[Held[Volume]]
    mounts: list[list[Held[Mount]]]
    """For each container, in the order given."""
    withheld: set[str]
    """Names of volumes that are not given, nor any mount of them."""
    conflicts: list[Conflict]


_NOTHING: list[Held[Mount]] = []


def settle(
    own: Sequence[Json],
    volumes: Volumes,
    containers: Sequence[tuple[Container, Effective]],
    annotations: Mapping[str, str],
    *,
    ephemeral: bool = False,
    rows: Rows | None = None,
) -> Storage:
    """Compare volumes with the pod's own and mounts with those of its containers (of the new ephemeral ones alone).

    An ephemeral container gets neither a volume that the pod lacks nor a part of one, and needs none that it does not
    mount: those conflict with nothing.
    """
    if not volumes.held:
        return Storage([], [_NOTHING for _ in containers], set(), [])
    wanted = {held.item.volume for _, effective in containers for held in effective.mounts} | volumes.bare
    parts = _parts(containers) if ephemeral else set()
    if ephemeral:
        wanted -= volumes.bare
    present: dict[str, Json] = {}
    withheld: set[str] = set()
    conflicts: list[Conflict] = []
    for json in own:
        held = volumes.held.get(str(json.get("name")))
        if held is not None:
            name = held.item.name
            present[name] = json
            # What is not given anyway, here or to any ephemeral container, need not agree.
            if name in wanted and name not in parts and not is_there(json, held, annotations):
                withheld.add(name)
                conflicts.append(conflict_of(held, volume_label(name), POD))
    unavailable = (volumes.held.keys() - present.keys()) | parts if ephemeral else set()
    lacking: list[list[Held[Mount]]] = []
    for container, effective in containers:
        check = check_mounts(container, effective, annotations)
        lacking.append(check.lacking)
        refusals = [(volume, conflict) for volume, conflict in check.refused if volume not in unavailable]
        withheld.update(volume for volume, _ in refusals)
        conflicts += [conflict for _, conflict in refusals]
    refused = set(withheld)
    withheld |= unavailable
    given = [held for name, held in volumes.held.items() if name in wanted]
    if rows is not None:
        _explain(rows, given, present, containers, lacking, refused, withheld)
    return Storage(
        [held for held in given if held.item.name not in present and held.item.name not in withheld],
        [[held for held in mounts if held.item.volume not in withheld] for mounts in lacking],
        withheld,
        conflicts,
    )


def _parts(containers: Sequence[tuple[Container, Effective]]) -> set[str]:
    """Return the volumes of which a part is mounted, which an ephemeral container must not do."""
    return {
        held.item.volume
        for _, effective in containers
        for held in effective.mounts
        if held.item.json.get("subPath") or held.item.json.get("subPathExpr")
    }


def _explain(
    rows: Rows,
    given: list[Held[Volume]],
    present: dict[str, Json],
    containers: Sequence[tuple[Container, Effective]],
    lacking: list[list[Held[Mount]]],
    refused: set[str],
    withheld: set[str],
) -> None:
    def fate(volume: str, *, there: bool) -> Fate:
        if volume in refused:
            return Fate.CONFLICT
        if there:
            return Fate.PRESENT
        return Fate.UNAVAILABLE if volume in withheld else Fate.ADDED

    for held in given:
        own = present.get(held.item.name)
        rows.append(row_of("", "volume", held.item.name, fate(held.item.name, there=own is not None), held, own))
    for (container, effective), mounts in zip(containers, lacking, strict=True):
        at = {mount_path(own): own for own in container.volumeMounts or ()}
        missing = {held.item.path for held in mounts}
        for mount in effective.mounts:
            path = mount.item.path
            there = path not in missing
            rows.append(
                row_of(container.name, "volumeMount", path, fate(mount.item.volume, there=there), mount, at.get(path))
            )
