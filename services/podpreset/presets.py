"""The local copies of presets and namespaces, and the snapshot of them that a review is decided on.

Responsible for: one store per resource; compiling a preset when its spec changes and only then; the current `World`.
Invariants: the World agrees with the stores whenever it is asked for, and one that was given out never changes. What a
change costs does not grow with the number of reviews, nor a review with the number of changes that were no change: a
status that was written, a label of a namespace that was not. A preset that cannot be applied does not stop the others.
Must not know: pods, the API server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from services.podpreset import metrics
from services.podpreset.api import (
    CLUSTER_KIND,
    CLUSTER_POD_PRESETS,
    NAMESPACED_KIND,
    POD_PRESETS,
    PresetKey,
    PresetStatus,
)
from services.podpreset.compiled import compile_preset
from services.podpreset.world import World
from services.proxyenv.complete import Facts
from services.runtime import log
from services.runtime.cache.store import Store
from services.runtime.kube.objects import KubeObject, ObjectKey, same_json, view
from services.runtime.kube.resource import Resource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from services.podpreset.compiled import Preset

__all__ = ["NAMESPACES", "RESOURCES", "Caches", "read_status"]

RESOURCES: Mapping[str, Resource] = {CLUSTER_KIND: CLUSTER_POD_PRESETS, NAMESPACED_KIND: POD_PRESETS}
NAMESPACES = Resource("", "v1", "namespaces", "Namespace", namespaced=False)

_ONE_BY_ONE = 64
"""Changes of the World that are made one by one; of more it is built anew, since each of them copies a part of it."""
_LOG = log.get("podpreset.presets")


def read_status(obj: KubeObject) -> PresetStatus:
    """Return the status of a preset; one that somebody has written by hand and cannot be read counts as none."""
    try:
        return view(obj.status, PresetStatus)
    except msgspec.MsgspecError:
        return PresetStatus()


class Caches:
    """Stores, what is made of them, and who is told.

    `changed` is called with the key of a preset that came, changed its spec or went. Pods of the `untouched` namespaces
    are left alone.
    """

    def __init__(self, changed: Callable[[PresetKey], None], untouched: Iterable[str] = ()) -> None:
        self.presets = {kind: Store[KubeObject](kind) for kind in RESOURCES}
        self.namespaces = Store[KubeObject]("Namespace")
        self._changed = changed
        self._untouched = tuple(untouched)
        self._compiled: dict[PresetKey, Preset] = {}
        self._by_annotation: dict[tuple[str, str], PresetKey] = {}
        self._facts = Facts()
        self._world: World | None = None
        self._pending: list[Callable[[World], World]] = []
        for store in self.presets.values():
            store.subscribe(self._preset_changed)
        self.namespaces.subscribe(self._namespace_changed)
        for kind in RESOURCES:
            for ready in (True, False):
                metrics.PRESETS.labels(kind, str(ready).lower()).set_function(self._counter(kind, usable=ready))

    def get(self, key: PresetKey) -> KubeObject | None:
        """Return the object of a preset."""
        return self.presets[key.kind].get(ObjectKey(key.namespace, key.name))

    def compiled(self, key: PresetKey) -> Preset | None:
        """Return a preset as it is applied."""
        return self._compiled.get(key)

    def all(self) -> list[PresetKey]:
        """Return the keys of all presets."""
        return list(self._compiled)

    def carried_by(self, annotation: str, namespace: str) -> PresetKey | None:
        """Return which preset an annotation of a pod is about; the namespace is empty for a ClusterPodPreset."""
        return self._by_annotation.get((annotation, namespace))

    def observe(self, obj: KubeObject) -> None:
        """Make a write of our own visible at once."""
        self.presets[obj.kind].observe(obj)

    @property
    def facts(self) -> Facts:
        """What is known of the cluster."""
        return self._facts

    def set_facts(self, facts: Facts) -> None:
        """Take what is known of the cluster from now on."""
        self._facts = facts
        self._change(lambda world: world.with_facts(facts))
        for key, preset in self._compiled.items():
            if preset.include:
                self._changed(key)

    @property
    def world(self) -> World:
        """The snapshot of this moment."""
        world, pending = self._world, self._pending
        if world is None or len(pending) > _ONE_BY_ONE:
            namespaces = {obj.metadata.name: obj.metadata.labels or {} for obj in self.namespaces.values()}
            world = World.build(self._compiled.values(), namespaces, self._facts, self._untouched)
        else:
            for change in pending:
                world = change(world)
        if pending:
            self._pending = []
        self._world = world
        return world

    def _change(self, change: Callable[[World], World]) -> None:
        if self._world is None or len(self._pending) > _ONE_BY_ONE:
            return  # it will be built anew anyway
        self._pending.append(change)

    def _preset_changed(self, old: KubeObject | None, new: KubeObject | None) -> None:
        obj = new if new is not None else old
        assert obj is not None, "a change is of something"
        key = PresetKey(obj.kind, obj.metadata.namespace, obj.metadata.name)
        if new is None:
            gone = self._compiled.pop(key)
            self._by_annotation.pop((gone.annotation, key.namespace), None)
            self._change(lambda world: world.without_preset(key))
            _forget(key)
        elif old is None or not same_json(old.spec, new.spec):
            preset = self._compiled[key] = compile_preset(new)
            self._by_annotation[preset.annotation, key.namespace] = key
            self._change(lambda world: world.with_preset(preset))
            if preset.problems:
                _LOG.warning("A preset cannot be applied", preset=str(key), problems=list(preset.problems))
        else:
            return
        self._changed(key)

    def _namespace_changed(self, old: KubeObject | None, new: KubeObject | None) -> None:
        if new is None:
            assert old is not None, "a change is of something"
            name = old.metadata.name
            self._change(lambda world: world.without_namespace(name))
        elif old is None or old.metadata.labels != new.metadata.labels:
            name, labels = new.metadata.name, new.metadata.labels or {}
            self._change(lambda world: world.with_namespace(name, labels))

    def _counter(self, kind: str, *, usable: bool) -> Callable[[], float]:
        return lambda: sum(key.kind == kind and p.usable is usable for key, p in self._compiled.items())


def _forget(key: PresetKey) -> None:
    """Drop the series of a preset that is gone."""
    for metric in (metrics.INJECTIONS, metrics.CONFLICTS):
        try:
            metric.remove(*key)
        except KeyError:
            continue
