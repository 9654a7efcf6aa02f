"""What pods would get: the webhook's own decision, asked without a webhook.

Responsible for: the snapshot that presets and namespaces come to, the decision about a pod with what it was based on,
and why a preset is not among those that a pod gets.
Invariant: the decision is that of `services.podpreset.decide`; nothing about merging is known here.
Must not know: files, the cluster, how it is shown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from services.podpreset import api, pods
from services.podpreset.cli.workloads import NoPodError
from services.podpreset.compiled import compile_preset
from services.podpreset.decide import CREATE, decide_with_edits
from services.podpreset.decision import Outcome, Review
from services.podpreset.patch import edited
from services.podpreset.world import World

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from services.podpreset.api import PresetKey
    from services.podpreset.cli.workloads import Workload
    from services.podpreset.decision import Decision
    from services.podpreset.explain import Rows
    from services.proxyenv.complete import Facts
    from services.runtime.kube.objects import KubeObject

Json = dict[str, Any]

_GIVEN = frozenset({Outcome.PATCHED, Outcome.UNCHANGED})


class Admitted(NamedTuple):
    """A pod as it would be, and what was done to it."""

    workload: Workload
    decision: Decision
    pod: Json
    rows: Rows


class Passed(NamedTuple):
    """A preset that a pod does not get, and why."""

    preset: PresetKey
    reason: str


def world(
    presets: Iterable[KubeObject], namespaces: Iterable[KubeObject], facts: Facts, untouched: Iterable[str]
) -> World:
    """Return the snapshot that these objects come to."""
    labels = {obj.metadata.name: _labels(obj) for obj in namespaces}
    return World.build([compile_preset(obj) for obj in presets], labels, facts, untouched)


def _labels(namespace: KubeObject) -> dict[str, str]:
    # The API server puts this one on every namespace; in a file it is left out.
    return {**(namespace.metadata.labels or {}), api.NAMESPACE_NAME_LABEL: namespace.metadata.name}


def admit(workload: Workload, snapshot: World) -> Admitted:
    """Decide about a pod. Raises NoPodError."""
    try:
        pod = pods.convert(workload.pod)
    except msgspec.ValidationError as error:
        raise NoPodError(f"{workload}: {error}") from error
    rows: Rows = []
    review = Review(CREATE, "", workload.namespace, pod)
    decision, edits = decide_with_edits(review, snapshot, rows)
    return Admitted(workload, decision, edited(workload.pod, edits), rows)


def passed(admitted: Admitted, snapshot: World) -> Iterator[Passed]:
    """Yield the presets of the pod's namespace and of the cluster that it does not get."""
    if admitted.decision.outcome is Outcome.SKIPPED:
        return
    space = admitted.workload.namespace
    labels = pods.convert(admitted.workload.pod).labels
    for preset in (*snapshot.cluster, *snapshot.by_namespace.get(space, ())):
        if preset.problems:
            yield Passed(preset.key, preset.problems[0])
        elif not preset.matches_namespace(snapshot.labels(space)):
            yield Passed(preset.key, "spec.namespaceSelector does not match")
        elif not preset.matches_pod(labels):
            yield Passed(preset.key, "spec.selector does not match")
        elif admitted.decision.outcome in _GIVEN and preset.key not in admitted.decision.applied:
            yield Passed(preset.key, "spec.containerSelector matches no container")
