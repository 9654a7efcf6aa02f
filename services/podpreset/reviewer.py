"""The handler of the webhook: a request in, an answer out, and what is counted on the way.

Responsible for: reading the pod out of a request, asking `decide`, and passing on what it says.
Invariants: it never waits, and reads one snapshot per request. What is no pod is admitted untouched. A dry run gets the
same answer and leaves no trace but in metrics.
Must not know: HTTP, how presets are applied.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from services.podpreset import metrics, pods
from services.podpreset.decide import UPDATE, decide
from services.podpreset.decision import Outcome, Review, Skip
from services.runtime.admission import AdmissionAnswer

if TYPE_CHECKING:
    from services.podpreset.conflicts import ConflictReporter
    from services.podpreset.decision import Decision
    from services.podpreset.presets import Caches
    from services.runtime.admission import AdmissionRequest

__all__ = ["Reviewer"]

_PODS = ("", "pods")
_FATES = {Outcome.LEFT: "; the pod was left as it came", Outcome.REJECTED: "; the pod was refused"}
_encode = msgspec.json.Encoder().encode


class Reviewer:
    """Answers requests for pods; `reporter` is None in a process that must not write."""

    def __init__(self, caches: Caches, reporter: ConflictReporter | None) -> None:
        self._caches = caches
        self._reporter = reporter
        self._outcomes = {outcome: metrics.PODS.labels(outcome.value).inc for outcome in Outcome}
        self._skips = {skip: metrics.SKIPS.labels(skip.value).inc for skip in Skip}

    def __call__(self, request: AdmissionRequest) -> AdmissionAnswer:
        """Answer one request. Raises msgspec.MsgspecError when the pod cannot be read."""
        if (request.resource.group, request.resource.resource) != _PODS:
            return AdmissionAnswer()
        pod = pods.read(request.object) if memoryview(request.object) else None
        old = pods.read(request.oldObject) if request.operation == UPDATE and memoryview(request.oldObject) else None
        review = Review(request.operation, request.subResource, request.namespace, pod, old)
        decision = decide(review, self._caches.world)
        self._count(decision)
        if decision.conflicts:
            self._conflicted(request, review, decision)
        return AdmissionAnswer(
            allowed=decision.allowed,
            patch=list(decision.patch),
            warnings=decision.warnings,
            audit=decision.audit,
            message=decision.message,
        )

    def _count(self, decision: Decision) -> None:
        self._outcomes[decision.outcome]()
        if decision.skip is not None:
            self._skips[decision.skip]()
        if decision.patch:
            metrics.PATCH_BYTES.observe(len(_encode(decision.patch)))
            for key in decision.applied:
                metrics.INJECTIONS.labels(*key).inc()

    def _conflicted(self, request: AdmissionRequest, review: Review, decision: Decision) -> None:
        fate = _FATES.get(decision.outcome, "")
        meta = review.pod.metadata if review.pod is not None else None
        pod = (meta and (meta.name or meta.generateName)) or request.name
        for preset, count in Counter(conflict.preset for conflict in decision.conflicts).items():
            metrics.CONFLICTS.labels(*preset).inc(count)
        if self._reporter is not None and not request.dryRun:
            for conflict in decision.conflicts:
                message = f"{conflict.item} differs from that of {conflict.rival}{fate}"
                self._reporter.record(conflict.preset, message, request.namespace, pod)
