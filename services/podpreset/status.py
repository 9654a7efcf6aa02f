"""What a preset says of itself: whether it can be applied, and how many pods carry it.

Responsible for: `observedGeneration`, `injectedPods`, `stalePods` and the condition Ready in the status of both kinds,
and an Event when Ready changes. One process writes them, the leader.
Invariants: numbers are counted from the annotations of the pods that exist, so they are the same whichever replica gave
a pod its preset, survive restarts, and go down when pods go. Readiness is told as soon as a spec changes; numbers at
most every few seconds, and only when they differ. Conflicts are left alone: see `services.podpreset.conflicts`.
Must not know: how presets are applied.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from services.podpreset.api import (
    ADMISSION_PREFIX,
    APPLIED_PREFIXES,
    CLUSTER_KIND,
    NAMESPACED_KIND,
    READY,
    PresetKey,
)
from services.podpreset.presets import RESOURCES, read_status
from services.podpreset.reduced import ReducedStore, annotations_only
from services.proxyenv import lists, names
from services.proxyenv.complete import complete
from services.runtime.kube import conditions
from services.runtime.kube.conditions import FALSE, TRUE, Condition
from services.runtime.kube.resource import Resource
from services.runtime.kube.transport import PatchKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from services.podpreset.compiled import Preset
    from services.podpreset.presets import Caches
    from services.proxyenv.complete import Facts
    from services.runtime.clock import Clock
    from services.runtime.kube.events import EventRecorder
    from services.runtime.kube.objects import KubeObject
    from services.runtime.kube.transport import Client

__all__ = ["PODS", "CarriedPresets", "StatusReconciler", "readiness"]

PODS = Resource("", "v1", "pods", "Pod", namespaced=True)
PRESET_READY = "PresetReady"
INVALID_SPEC = "InvalidSpec"
_CARRIES = "carries"
_MESSAGE = 4096
"""Characters of a condition's message; the definition takes more."""


class CarriedPresets:
    """Counts pods by the annotations of presets; `changed` gets the annotation's key and namespace, "" for all."""

    def __init__(self, changed: Callable[[str, str], None]) -> None:
        self.store = ReducedStore("Pod", annotations_only(ADMISSION_PREFIX), {_CARRIES: _carried})
        self._changed = changed
        self.store.subscribe(self._pod_changed)

    def count(self, preset: Preset) -> tuple[int, int] | None:
        """Return how many pods carry a preset, and how many of those another state of it; None while unknown."""
        if not self.store.synced:
            return None
        scope = (preset.annotation, preset.key.namespace)
        carried = len(self.store.keys(_CARRIES, scope))
        return carried, carried - len(self.store.keys(_CARRIES, (*scope, preset.hash)))

    def _pod_changed(self, old: KubeObject | None, new: KubeObject | None) -> None:
        before, after = ({*_carried(obj)} if obj is not None else set() for obj in (old, new))
        for annotation, namespace in {(value[0], value[1]) for value in before ^ after}:
            self._changed(annotation, namespace)


def _carried(pod: KubeObject) -> Iterator[tuple[str, ...]]:
    """Yield, for each preset that a pod carries, its annotation and namespace, and the same with its state."""
    of_cluster = ADMISSION_PREFIX + APPLIED_PREFIXES[CLUSTER_KIND]
    of_namespace = ADMISSION_PREFIX + APPLIED_PREFIXES[NAMESPACED_KIND]
    for key, value in (pod.metadata.annotations or {}).items():
        if key.startswith(of_cluster):
            scope = (key, "")
        elif key.startswith(of_namespace):
            scope = (key, pod.metadata.namespace)
        else:
            continue
        yield scope
        yield (*scope, value)


def readiness(preset: Preset, facts: Facts) -> Condition:
    """Return the condition of a preset. One that works but needs its author's attention is ready with a message."""
    if preset.problems:
        return Condition(READY, FALSE, INVALID_SPEC, _joined(preset.problems))
    found = complete(preset.include, facts)
    notes = [f"spec.noProxy.include: nothing is known of {name}, see the flags" for name in found.missing]
    return Condition(READY, TRUE, PRESET_READY, _joined([*preset.notes, *notes, *_list_notes(preset, found.entries)]))


def _list_notes(preset: Preset, entries: lists.Items) -> Iterator[str]:
    """Yield what some clients cannot read in the NO_PROXY that a preset gives: the first item, and how many more."""
    written = next((one for one in preset.variables if names.is_no_proxy(one.name)), None)
    if written is not None:
        if written.value_from is not None:
            return
        entries = (*lists.split(written.value), *entries)
    wrong = lists.problems(lists.join(lists.collapsed(entries)))
    if wrong:
        more = f", and {len(wrong) - 1} more like that" if len(wrong) > 1 else ""
        yield f"NO_PROXY: {wrong[0]}{more}"


def _joined(sentences: Iterable[str]) -> str:
    """Return one message, cut to what people read; it may quote names of any number and length."""
    message = "; ".join(sentences)
    return message if len(message) <= _MESSAGE else f"{message[: _MESSAGE - 3]}..."


class StatusReconciler:
    """Keeps the status of one preset true."""

    def __init__(
        self, client: Client, caches: Caches, carried: CarriedPresets, events: EventRecorder, clock: Clock
    ) -> None:
        self._client = client
        self._caches = caches
        self._carried = carried
        self._events = events
        self._clock = clock

    async def reconcile(self, key: PresetKey) -> None:
        """Write what differs."""
        obj, preset = self._caches.get(key), self._caches.compiled(key)
        if obj is None or preset is None:
            return
        status = read_status(obj)
        injected, stale = self._carried.count(preset) or (status.injected_pods, status.stale_pods)
        condition = readiness(preset, self._caches.facts)
        generation = obj.metadata.generation
        stamped = Condition(
            condition.type, condition.status, condition.reason, condition.message, observedGeneration=generation
        )
        after = conditions.set_condition(status.conditions, stamped, self._clock.now())
        wanted = (generation, injected, stale)
        if after is status.conditions and wanted == (
            status.observed_generation,
            status.injected_pods,
            status.stale_pods,
        ):
            return
        body: dict[str, Any] = {
            "observedGeneration": generation,
            "injectedPods": injected,
            "stalePods": stale,
            "conditions": conditions.plain(after),
        }
        answer = await self._client.patch(
            RESOURCES[key.kind], key.name, key.namespace, {"status": body}, kind=PatchKind.MERGE, subresource="status"
        )
        self._caches.observe(answer)
        self._announce(obj, conditions.find(status.conditions, READY), condition)

    def _announce(self, obj: KubeObject, before: Condition | None, after: Condition) -> None:
        """Tell transitions as Events; the first good state of a new preset is none."""
        if before is not None and (before.status, before.reason) == (after.status, after.reason):
            return
        if after.status == FALSE:
            self._events.event(obj, "Warning", after.reason, after.message, action="Apply")
        elif before is not None:
            self._events.event(obj, "Normal", after.reason, "applied again", action="Apply")
