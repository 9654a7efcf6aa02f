"""Everything that bears on a review, as one value that never changes.

Responsible for: presets by scope and namespace, labels of namespaces, what is known of the cluster; and for finding the
presets of a pod by looking at those of its namespace and the cluster-scoped ones alone.
Invariants: a review reads one `World`, so a change in the meantime cannot show half; the order in which presets were
given does not matter; a change copies what holds the changed thing and shares all else, plans included.
Must not know: where objects come from, what is done to pods.
"""

from __future__ import annotations

import bisect
from typing import TYPE_CHECKING

from services.podpreset import api
from services.podpreset.plans import Plan, Plans, Presets
from services.proxyenv.complete import Facts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from services.podpreset.api import PresetKey
    from services.podpreset.compiled import Preset
    from services.podpreset.selectors import Labels

KUBE_SYSTEM = "kube-system"


class World:
    """An immutable snapshot. `World()` has no presets; the other methods make changed copies."""

    __slots__ = ("_candidates", "_plans", "by_namespace", "cluster", "namespaces", "untouched")

    def __init__(
        self,
        *,
        cluster: Presets = (),
        by_namespace: Mapping[str, Presets] | None = None,
        namespaces: Mapping[str, Labels] | None = None,
        untouched: frozenset[str] = frozenset({KUBE_SYSTEM}),
        plans: Plans | None = None,
    ) -> None:
        self.cluster = cluster
        """ClusterPodPresets in the order of application."""
        self.by_namespace = by_namespace or {}
        """PodPresets in the order of application; no namespace without any."""
        self.namespaces = namespaces or {}
        """Labels of namespaces."""
        self.untouched = untouched
        """Namespaces whose pods are left alone."""
        self._plans = plans or Plans(Facts())
        self._candidates: dict[str, Presets] = {}

    @classmethod
    def build(
        cls,
        presets: Iterable[Preset] = (),
        namespaces: Mapping[str, Labels] | None = None,
        facts: Facts | None = None,
        untouched: Iterable[str] = (),
    ) -> World:
        """Make a World of many things at once; kube-system is untouched in any case."""
        by_namespace: dict[str, list[Preset]] = {}
        for preset in presets:
            by_namespace.setdefault(preset.key.namespace, []).append(preset)
        ordered = {name: tuple(sorted(found, key=_order)) for name, found in by_namespace.items()}
        return cls(
            cluster=ordered.pop("", ()),
            by_namespace=ordered,
            namespaces=dict(namespaces or {}),
            untouched=frozenset({KUBE_SYSTEM, *untouched}),
            plans=Plans(facts or Facts()),
        )

    # -- reading ---------------------------------------------------------------------------------------------------

    @property
    def facts(self) -> Facts:
        """What is known of the cluster."""
        return self._plans.facts

    def presets(self) -> Iterator[Preset]:
        """Yield every preset."""
        yield from self.cluster
        for presets in self.by_namespace.values():
            yield from presets

    def labels(self, namespace: str) -> Labels:
        """Return the labels of a namespace; of one not seen yet, the one label that every namespace has."""
        found = self.namespaces.get(namespace)
        return {api.NAMESPACE_NAME_LABEL: namespace} if found is None else found

    def matching(self, namespace: str, labels: Labels) -> Presets:
        """Return the presets for a pod with these labels, in the order of application."""
        candidates = self._candidates.get(namespace)
        if candidates is None:
            own = self.labels(namespace)
            wide = [preset for preset in self.cluster if preset.usable and preset.matches_namespace(own)]
            narrow = [preset for preset in self.by_namespace.get(namespace, ()) if preset.usable]
            candidates = (*wide, *narrow)
            if namespace in self.namespaces:  # whoever can connect can make names up, and must not fill the memory
                self._candidates[namespace] = candidates
        return tuple([preset for preset in candidates if preset.matches_pod(labels)])

    def plan(self, presets: Presets, *, windows: bool) -> Plan:
        """Return what presets, as `matching` gives them, come to."""
        return self._plans.plan(presets, ignore_case=windows)

    # -- changing --------------------------------------------------------------------------------------------------

    def with_preset(self, preset: Preset) -> World:
        """Return a World with a preset added, or put in the place of the one with its key."""
        return self._with(preset.key, preset)

    def without_preset(self, key: PresetKey) -> World:
        """Return a World without a preset, whether it was there or not."""
        return self._with(key, None)

    def with_namespace(self, name: str, labels: Labels) -> World:
        """Return a World with the labels of a namespace."""
        return self._copy(namespaces={**self.namespaces, name: labels})

    def without_namespace(self, name: str) -> World:
        """Return a World without a namespace."""
        return self._copy(namespaces={other: labels for other, labels in self.namespaces.items() if other != name})

    def with_facts(self, facts: Facts) -> World:
        """Return a World in which something else is known of the cluster."""
        return self if facts == self.facts else self._copy(plans=Plans(facts))

    def _with(self, key: PresetKey, preset: Preset | None) -> World:
        before = self.by_namespace.get(key.namespace, ()) if key.namespace else self.cluster
        after = [other for other in before if other.key != key]
        if preset is not None:
            bisect.insort(after, preset, key=_order)
        presets = tuple(after)
        self._plans.forget(key)
        if not key.namespace:
            return self._copy(cluster=presets)
        by_namespace = {**self.by_namespace, key.namespace: presets}
        if not presets:
            del by_namespace[key.namespace]
        return self._copy(by_namespace=by_namespace)

    def _copy(
        self,
        *,
        cluster: Presets | None = None,
        by_namespace: Mapping[str, Presets] | None = None,
        namespaces: Mapping[str, Labels] | None = None,
        plans: Plans | None = None,
    ) -> World:
        return World(
            cluster=self.cluster if cluster is None else cluster,
            by_namespace=self.by_namespace if by_namespace is None else by_namespace,
            namespaces=self.namespaces if namespaces is None else namespaces,
            untouched=self.untouched,
            plans=plans or self._plans,
        )


def _order(preset: Preset) -> tuple[bool, int, str]:
    return preset.order
