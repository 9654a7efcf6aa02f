"""What a set of presets comes to, worked out once and kept for the next pod that they match.

Responsible for: the fold of the presets of a pod, and of those of each kind of container in it.
Invariants: a plan depends on its presets, the facts and the letter-case rule alone, so it holds as long as they do; the
number of plans and of containers remembered is bounded, whatever pods come.
Must not know: pods, how presets were chosen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.podpreset import api, marks
from services.podpreset.layers import Effective, fold, fold_volumes
from services.podpreset.selectors import CONTAINER_NAME_LENGTH

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.podpreset.api import PresetKey
    from services.podpreset.compiled import Preset
    from services.proxyenv.complete import Facts

Presets = tuple["Preset", ...]

_PLANS = 2048
_CONTAINERS = 512


def concerned(presets: Presets, containers: Sequence[tuple[str, bool]], *, volumes: bool) -> Presets:
    """Return those of the presets that are for one of the containers, or give the pod a volume that none mounts.

    Of a container its name is given, and whether it is an init container; `volumes` says whether the pod can get any.
    The others must not count: what they say is for containers that this pod does not have.
    """
    if all(preset.selects is None for preset in presets):
        return presets
    return tuple(
        [
            preset
            for preset in presets
            if (selects := preset.selects) is None
            or any(selects(name, is_init) for name, is_init in containers)
            or (volumes and _has_bare_volume(preset))
        ]
    )


class Plan:
    """The fold of the presets that a pod gets something of, given in the order of application."""

    def __init__(self, presets: Presets, facts: Facts, *, ignore_case: bool) -> None:
        self.presets = presets
        self.ignore_case = ignore_case
        self.volumes = fold_volumes(presets)
        self.annotations = {preset.annotation: preset.hash for preset in presets}
        """What a pod that got these presets carries."""
        self.annotations[api.HASH_ANNOTATION] = marks.combined_hash((preset.key, preset.hash) for preset in presets)
        self._facts = facts
        self._selective = any(preset.selects is not None for preset in presets)
        self._by_presets: dict[Presets, Effective] = {}
        self._by_container: dict[tuple[str, bool], Effective] = {}
        self._everywhere = None if self._selective else self._fold(presets)

    def effective(self, container: str, *, is_init: bool) -> Effective:
        """Return what a container of that name gets if it has nothing of its own."""
        if self._everywhere is not None:
            return self._everywhere
        key = (container, is_init)
        found = self._by_container.get(key)
        if found is None:
            chosen = tuple([p for p in self.presets if p.selects is None or p.selects(container, is_init)])
            found = self._by_presets.get(chosen) or self._fold(chosen)
            if len(container) > CONTAINER_NAME_LENGTH:
                return found  # no container is called that: it is not worth the memory
            if len(self._by_container) >= _CONTAINERS:
                self._by_container.clear()
                self._by_presets.clear()
            self._by_container[key] = self._by_presets[chosen] = found
        return found

    def _fold(self, presets: Presets) -> Effective:
        return fold(presets, self.volumes, self._facts, ignore_case=self.ignore_case)


def _has_bare_volume(preset: Preset) -> bool:
    mounted = {mount.volume for mount in preset.mounts}
    return any(volume.name not in mounted for volume in preset.volumes)


class Plans:
    """Plans by presets; those not used for longest are forgotten."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self._plans: dict[tuple[Presets, bool], Plan] = {}

    def plan(self, presets: Presets, *, ignore_case: bool) -> Plan:
        """Return the plan of presets in the order of application."""
        key = (presets, ignore_case)
        found = self._plans.pop(key, None)
        if found is None:
            found = Plan(presets, self.facts, ignore_case=ignore_case)
            if len(self._plans) >= _PLANS:
                del self._plans[next(iter(self._plans))]
        self._plans[key] = found
        return found

    def forget(self, key: PresetKey) -> None:
        """Drop the plans with a preset that has changed or gone: nobody asks for them any more."""
        for presets, ignore_case in [of for of in self._plans if any(preset.key == key for preset in of[0])]:
            del self._plans[presets, ignore_case]
