"""Pods that run with what presets said earlier.

Responsible for: comparing the hash that a running pod carries with the one that a new pod of the same workload would
get, and counting by the workload that a person knows.
Rules: a new pod is made from the template of the workload at the end of the chain of owners, so the comparison is with
that; a pod without a known workload is compared with itself. A pod that is on its way out does not count.
Invariant: what presets do not change does not make a pod stale, whatever else of the template has changed.
Must not know: the cluster.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, NamedTuple

from services.podpreset import api
from services.podpreset.cli.whatif import admit
from services.podpreset.cli.workloads import PODS, top
from services.podpreset.decision import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from services.podpreset.cli.workloads import Owner, Workload
    from services.podpreset.world import World

Json = dict[str, Any]


class Reason(enum.StrEnum):
    """What is wrong with the pods of a workload."""

    OLDER = "older"
    """They have an earlier state, or other presets."""
    WITHOUT = "without"
    """They have nothing of presets that match now."""
    SURPLUS = "surplus"
    """They have something, though no preset matches any more."""
    REFUSED = "refused"
    """A new pod would be refused."""


class RunningPod(NamedTuple):
    """A pod with its controller."""

    workload: Workload
    """The pod itself."""
    owner: Owner | None

    @property
    def carried(self) -> str:
        """The hash of all that presets gave it; empty when they gave nothing."""
        return _hash(self.workload.pod)


class StaleRow(NamedTuple):
    """A workload with stale pods."""

    namespace: str
    kind: str
    name: str
    pods: int
    stale: tuple[str, ...]
    """Names of the stale ones, sorted."""
    reason: Reason


def stale(
    running: Iterable[RunningPod],
    workloads: Mapping[tuple[str, str, str], Workload],
    parents: Mapping[str, Owner],
    snapshot: World,
) -> list[StaleRow]:
    """Return workloads whose pods carry something else than new ones would.

    `workloads` are those with a template by (kind, namespace, name), `parents` the controller of the object with a uid.
    """
    groups: dict[tuple[str, str, str], list[RunningPod]] = {}
    for pod in running:
        owner = top(pod.owner, parents)
        kind, name = (owner.kind, owner.name) if owner else (PODS.kind, pod.workload.name)
        groups.setdefault((pod.workload.namespace, kind, name), []).append(pod)
    rows = []
    for (namespace, kind, name), members in sorted(groups.items()):
        template = workloads.get((kind, namespace, name))
        fresh = None if template is None else _fresh(template, snapshot)
        found = {
            pod.workload.name: reason
            for pod in members
            if (reason := _compare(pod.carried, fresh or _fresh_itself(pod, snapshot)))
        }
        if found:
            first = next(iter(found.values()))
            rows.append(StaleRow(namespace, kind, name, len(members), tuple(sorted(found)), first))
    return rows


class _Fresh(NamedTuple):
    """What a new pod would carry."""

    hash: str
    refused: bool = False


def _compare(carried: str, fresh: _Fresh) -> Reason | None:
    if fresh.refused:
        return Reason.REFUSED
    if carried == fresh.hash:
        return None
    if not fresh.hash:
        return Reason.SURPLUS
    return Reason.OLDER if carried else Reason.WITHOUT


def _fresh(workload: Workload, snapshot: World) -> _Fresh:
    admitted = admit(workload, snapshot)
    outcome = admitted.decision.outcome
    given = outcome in {Outcome.PATCHED, Outcome.UNCHANGED}
    return _Fresh(_hash(admitted.pod) if given else "", refused=outcome is Outcome.REJECTED)


def _fresh_itself(pod: RunningPod, snapshot: World) -> _Fresh:
    """Compare a pod with itself. What presets gave it counts as its own now, so a conflict tells nothing."""
    conflicting = admit(pod.workload, snapshot).decision.outcome in {Outcome.LEFT, Outcome.REJECTED}
    return _Fresh(pod.carried) if conflicting else _fresh(pod.workload, snapshot)


def _hash(pod: Json) -> str:
    return str((pod["metadata"].get("annotations") or {}).get(api.HASH_ANNOTATION, ""))
