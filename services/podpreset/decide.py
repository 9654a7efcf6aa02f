"""What is to be done about one pod: a pure function from a review and a snapshot to a decision.

Responsible for: which pods are touched at all, which containers of them, what a conflict leads to, and what is said
about it.
Invariants: what the decision leaves out stays as it came; deciding again on the outcome gives no patch; no message
holds a value. A volume and all mounts of it are given together or not at all.
Must not know: the API server, stores, the clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from services.podpreset import api, pods
from services.podpreset.attachments import merge_sources
from services.podpreset.decision import Decision, Outcome, Skip
from services.podpreset.edits import Edits
from services.podpreset.layers import volume_label
from services.podpreset.patch import Edited, PodEdits, operations
from services.podpreset.plans import concerned
from services.podpreset.storage import settle
from services.podpreset.variables import merge_env

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from services.podpreset.decision import Conflict, Op, Review
    from services.podpreset.explain import Rows
    from services.podpreset.layers import Effective
    from services.podpreset.plans import Plan
    from services.podpreset.pods import Container, Pod, PodSpec
    from services.podpreset.world import World

CREATE = "CREATE"
UPDATE = "UPDATE"
EPHEMERAL = "ephemeralcontainers"

_TOLD = 32
"""Conflicts that are told one by one: of more, nobody sees the text, and hundreds of containers make thousands."""
_UNMATCHED = Decision(Outcome.UNMATCHED)


class _Place(NamedTuple):
    """A container that may get something, and where it is."""

    list: str
    at: int
    container: Container
    is_init: bool


class _Target(NamedTuple):
    """A container that may get something, and what that is."""

    list: str
    at: int
    container: Container
    effective: Effective


def decide(review: Review, world: World, rows: Rows | None = None) -> Decision:
    """Return the decision; what was done with each thing that presets give is added to `rows`, if given."""
    return decide_with_edits(review, world, rows)[0]


def decide_with_edits(review: Review, world: World, rows: Rows | None = None) -> tuple[Decision, PodEdits]:
    """Return the decision, and its patch as edits."""
    pod, namespace = review.pod, review.namespace
    skip = _skip(review, world)
    if skip is not None:
        return Decision(Outcome.SKIPPED, skip=skip, audit={"skipped": skip.value}), PodEdits()
    assert pod is not None, "an operation on no pod is skipped"
    presets = world.matching(namespace, pod.labels)
    if not presets or pod.spec is None:
        return _UNMATCHED, PodEdits()
    ephemeral = review.subresource == EPHEMERAL
    places = list(_ephemeral_places(pod.spec, review.old) if ephemeral else _places(pod.spec))
    if ephemeral and not places:
        return Decision(Outcome.UNCHANGED), PodEdits()
    named = [(place.container.name, place.is_init) for place in places]
    presets = concerned(presets, named, volumes=not ephemeral)
    if not presets:
        return _UNMATCHED, PodEdits()
    plan = world.plan(presets, windows=pod.windows)
    return _Case(pod, pod.spec, plan, places, rows, ephemeral=ephemeral).decide()


def _skip(review: Review, world: World) -> Skip | None:
    """Say why a pod is not to be touched, None when it may be."""
    created = review.operation == CREATE and not review.subresource
    debugged = review.operation == UPDATE and review.subresource == EPHEMERAL
    pod = review.pod
    if pod is None or not (created or debugged):
        return Skip.OPERATION
    annotations = pod.annotations
    if api.MIRROR_ANNOTATION in annotations:
        return Skip.MIRROR
    if review.namespace in world.untouched:
        return Skip.SYSTEM_NAMESPACE
    if world.labels(review.namespace).get(api.EXCLUDE) == api.EXCLUDE_VALUE:
        return Skip.EXCLUDED_NAMESPACE
    if annotations.get(api.EXCLUDE) == api.EXCLUDE_VALUE:
        return Skip.EXCLUDED_POD
    return None


def _places(spec: PodSpec) -> Iterator[_Place]:
    """Yield the containers of a pod that is created."""
    for at, container in enumerate(spec.containers or ()):
        yield _Place("containers", at, container, is_init=False)
    for at, container in enumerate(spec.initContainers or ()):
        # A native sidecar runs beside the containers for as long as they do.
        yield _Place("initContainers", at, container, is_init=container.restartPolicy != pods.ALWAYS)


def _ephemeral_places(spec: PodSpec, old: Pod | None) -> Iterator[_Place]:
    """Yield the ephemeral containers that are new: the others cannot be changed."""
    before = old.spec.ephemeralContainers if old is not None and old.spec is not None else None
    known = {container.name for container in before or ()}
    for at, container in enumerate(spec.ephemeralContainers or ()):
        if container.name not in known:
            yield _Place("ephemeralContainers", at, container, is_init=False)


class _Case:
    """One pod that presets match, and those of its containers that may get something."""

    def __init__(
        self, pod: Pod, spec: PodSpec, plan: Plan, places: list[_Place], rows: Rows | None, *, ephemeral: bool
    ) -> None:
        self.pod = pod
        self.spec = spec
        self.plan = plan
        self.rows = rows
        self.ephemeral = ephemeral
        self.targets = [
            _Target(list_, at, container, plan.effective(container.name, is_init=is_init))
            for list_, at, container, is_init in places
        ]
        # A running pod gets no volume, so that presets need not agree on one that no container mounts.
        idle = {volume_label(name) for name in plan.volumes.bare} if ephemeral else ()
        about = [conflict for conflict in plan.volumes.conflicts if conflict.item not in idle]
        self.conflicts: dict[Conflict, None] = dict.fromkeys(about)
        self.warnings: dict[str, None] = {}

    def decide(self) -> tuple[Decision, PodEdits]:
        """Return the decision and its patch as edits."""
        plan = self.plan
        effectives = [target.effective for target in self.targets]
        for effective in {id(effective): effective for effective in effectives}.values():
            self._tell(effective.conflicts, effective.warnings)
        storage = settle(
            self.spec.volumes or (),
            plan.volumes,
            [(target.container, target.effective) for target in self.targets],
            self.pod.annotations,
            ephemeral=self.ephemeral,
            rows=self.rows,
        )
        self._tell(storage.conflicts)
        containers = []
        for target, mounts in zip(self.targets, storage.mounts, strict=True):
            edits = self._edit(target, storage.withheld)
            edits.mounts = [held.item.json for held in mounts]
            if edits:
                containers.append(Edited(target.list, target.at, target.container, edits))
        stopped = self._stopped() if self.conflicts else None
        if stopped is not None:
            return stopped, PodEdits()
        pod_edits = PodEdits(containers)
        if not self.ephemeral:
            pod_edits.volumes = [held.item.json for held in storage.volumes]
            carried = self.pod.annotations
            marks = plan.annotations
            pod_edits.annotations = {key: value for key, value in marks.items() if carried.get(key) != value}
        return self._decision(operations(self.pod, pod_edits)), pod_edits

    def _edit(self, target: _Target, withheld: set[str]) -> Edits:
        edits = Edits()
        merge_env(
            target.container,
            target.effective,
            edits,
            withheld=withheld,
            ignore_case=self.plan.ignore_case,
            rows=self.rows,
        )
        merge_sources(target.container, target.effective, edits, self.rows)
        self._tell(edits.conflicts, edits.warnings)
        return edits

    def _tell(self, conflicts: Iterable[Conflict], warnings: Iterable[str] = ()) -> None:
        """Remember each conflict and warning once, in the order in which they were found."""
        self.conflicts.update(dict.fromkeys(conflicts))
        self.warnings.update(dict.fromkeys(warnings))

    def _stopped(self) -> Decision | None:
        """Return the answer if one of the conflicts concerns the whole pod."""
        told = tuple(self.conflicts)
        policies = {conflict.policy for conflict in told}
        lines = _lines(told)
        said = "; ".join(lines)
        audit = {"conflicts": said}
        if api.REJECT in policies:
            return Decision(Outcome.REJECTED, conflicts=told, audit=audit, message=f"presets conflict: {said}")
        if api.SKIP_ALL in policies:
            warnings = tuple([f"{line}; the pod was left as it came" for line in lines])
            return Decision(Outcome.LEFT, conflicts=told, warnings=warnings, audit=audit)
        return None

    def _decision(self, patch: list[Op]) -> Decision:
        keys = tuple([preset.key for preset in self.plan.presets])
        audit = {"applied": ", ".join(map(str, keys))}
        lines = _lines(tuple(self.conflicts))
        if lines:
            audit["conflicts"] = "; ".join(lines)
        return Decision(
            Outcome.PATCHED if patch else Outcome.UNCHANGED,
            patch=tuple(patch),
            applied=keys,
            conflicts=tuple(self.conflicts),
            warnings=(*[f"{line}; it was left out" for line in lines], *self.warnings),
            audit=audit,
        )


def _lines(conflicts: tuple[Conflict, ...]) -> list[str]:
    """Return the conflicts as lines for people; those beyond a number are counted in the last."""
    lines = [str(conflict) for conflict in conflicts[:_TOLD]]
    more = len(conflicts) - len(lines)
    return [*lines, f"{more} more conflicts"] if more else lines
