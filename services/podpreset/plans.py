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
    from services.podpreset.api import PresetKey
    from services.podpreset.compiled import Preset
    from services.proxyenv.complete import Facts

Presets = tuple["Preset", ...]

_PLANS = 2048
_CONTAINERS = 512


class Plan:
    """The fold of the presets that match a pod, given in the order of application."""

    def __init__(self, presets: Presets, facts: Facts, *, ignore_case: bool) -> None:
        self.presets = presets
        self.ignore_case = ignore_case
        self.volumes = fold_volumes(presets)
        self._facts = facts
        self._selective = any(preset.selects is not None for preset in presets)
        self._by_presets: dict[Presets, Effective] = {}
        self._by_container: dict[tuple[str, bool], Effective] = {}
        self._marks: dict[Presets, dict[str, str]] = {}
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

    def applied(self, effectives: list[Effective]) -> Presets:
        """Return the presets that a pod with these containers gets: those for one of them, or with a bare volume."""
        if not self._selective:
            return self.presets
        chosen = {preset for effective in effectives for preset in effective.presets}
        return tuple([preset for preset in self.presets if preset in chosen or _has_bare_volume(preset)])

    def annotations(self, applied: Presets) -> dict[str, str]:
        """Return what a pod that got these presets carries."""
        found = self._marks.get(applied)
        if found is None:
            found = {preset.annotation: preset.hash for preset in applied}
            found[api.HASH_ANNOTATION] = marks.combined_hash((preset.key, preset.hash) for preset in applied)
            if len(self._marks) >= _CONTAINERS:
                self._marks.clear()
            self._marks[applied] = found
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
