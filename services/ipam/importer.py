"""Carrying out an import: creating what the plan says, in its order, and looking whether it is still there afterwards.

Responsible for: the writes of `groundwork ipam import`, their pace, and what becomes of them when the target changes
meanwhile.
Invariants: objects are only created, never changed or deleted. One kind is finished before the next begins, and an
object whose companion could not be created is not created either. A repeated import goes on where the last one ended.
Must not know: why an object is refused by the plan.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from services.ipam.importplan import Step, Verdict, cascade, differs, plan
from services.ipam.portable import identity, rank
from services.runtime.kube.errors import (
    AlreadyExists,
    ApiError,
    ConnectionFailed,
    NotFound,
    ServerError,
    TooManyRequests,
)
from services.runtime.kube.objects import KubeObject, ObjectMeta, encode
from services.runtime.kube.resource import Resource

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from services.console import Progress
    from services.ipam.snapshot import Snapshot
    from services.runtime.clock import Clock
    from services.runtime.kube.transport import Client

NAMESPACES = Resource("", "v1", "namespaces", "Namespace", namespaced=False)
WRITERS = 32
ATTEMPTS = 6
BACKOFF_SECONDS = 0.5
CLAIM_PAUSE_SECONDS = 1.0
"""Between the last IPAddress and the first claim: a running allocator learns of them by separate watches, and adopts
the IPAddress of a claim under the name it has only if it knows it when it sees the claim."""
_CLAIM_RANK = 3
_LOST = (
    "it is gone again: the allocator returned it because its claim took too long to come (--orphan-grace-seconds), or "
    "somebody deleted it; stop the allocator and import again"
)


async def missing_namespaces(client: Client, steps: Iterable[Step]) -> list[str]:
    """Namespaces that objects to be created need and the target does not have."""
    needed = {step.obj.metadata.namespace for step in steps if step.verdict is Verdict.CREATE} - {""}
    missing = []
    for name in sorted(needed):
        try:
            await client.get(NAMESPACES, name)
        except NotFound:
            missing.append(name)
    return missing


async def create_namespaces(client: Client, names: Iterable[str]) -> None:
    """Create namespaces; one that came meanwhile is as good."""
    for name in names:
        obj = KubeObject(apiVersion="v1", kind=NAMESPACES.kind, metadata=ObjectMeta(name=name))
        try:
            await client.create(NAMESPACES, obj)
        except AlreadyExists:
            continue


class Importer:
    """Carries plans out. With `dry_run` the API server checks every object and stores none."""

    def __init__(self, client: Client, clock: Clock, progress: Progress, *, dry_run: bool) -> None:
        self._client = client
        self._clock = clock
        self._progress = progress
        self._dry_run = dry_run

    async def run(self, steps: Sequence[Step], unchecked: Iterable[str] = ()) -> list[Step]:
        """Create what is to be created and return the steps as they came out.

        `unchecked` are namespaces that do not exist, for a dry run, which leaves out what is in them.
        Raises ConnectionFailed, TooManyRequests or ServerError when the API server stays away; what was created until
        then stays.
        """
        skipped = set(unchecked)
        results = list(steps)
        for current in sorted({rank(step.obj) for step in steps}):
            places = [
                place
                for place, step in enumerate(results)
                if step.verdict is Verdict.CREATE
                and rank(step.obj) == current
                and step.obj.metadata.namespace not in skipped
            ]
            if not places:
                continue
            if current == _CLAIM_RANK and not self._dry_run:
                await self._clock.sleep(CLAIM_PAUSE_SECONDS)
            self._progress.step(f"creating {results[places[0]].obj.kind}s", len(places))
            await self._create_all(results, places)
            results = cascade(results)
        return results

    def confirm(self, steps: Sequence[Step], target: Snapshot) -> list[Step]:
        """Steps of a run, refused where the object is not in the target any more or not as it should be."""
        kept = [step.obj for step in steps if step.verdict is not Verdict.REFUSED]
        now = {identity(step.obj): step for step in plan(kept, target)}
        confirmed = []
        for step in steps:
            found = now.get(identity(step.obj))
            if found is None or found.verdict is Verdict.UNCHANGED:
                confirmed.append(step)
            else:
                confirmed.append(step.refused(found.reason or _LOST))
        return confirmed

    async def _create_all(self, results: list[Step], places: Sequence[int]) -> None:
        waiting = iter(places)

        async def write() -> None:
            for place in waiting:
                results[place] = await self._create(results[place])
                self._progress.advance()

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(WRITERS, len(places))):
                    group.create_task(write())
        except* (ApiError, ConnectionFailed) as failed:
            raise _first(failed) from None

    async def _create(self, step: Step) -> Step:
        assert step.resource is not None
        for attempt in range(ATTEMPTS):
            try:
                await self._send(step.obj, step.resource)
            except AlreadyExists:
                # Somebody else's, or our own of an attempt whose answer was lost.
                meta = step.obj.metadata
                try:
                    existing = await self._client.get(step.resource, meta.name, meta.namespace)
                except NotFound:
                    continue
                reason = differs(step.obj, existing)
                if reason:
                    return step.refused(reason)
                return step if attempt else step._replace(verdict=Verdict.UNCHANGED)
            except (TooManyRequests, ServerError, ConnectionFailed) as error:
                if attempt == ATTEMPTS - 1:
                    raise
                asked = error.retry_after if isinstance(error, ApiError) else None
                await self._clock.sleep(asked or BACKOFF_SECONDS * 2**attempt)
            except ApiError as error:
                return step.refused(f"the API server refuses it: {' '.join(error.message.split())}")
            else:
                return step
        return step.refused("it comes and goes: somebody else creates and deletes it at the same time")

    async def _send(self, obj: KubeObject, resource: Resource) -> None:
        if self._dry_run:
            path = f"{resource.path(obj.metadata.namespace)}?dryRun=All"
            await self._client.raw("POST", path, body=encode(obj))
        else:
            await self._client.create(resource, obj)


def _first(group: BaseExceptionGroup[ApiError | ConnectionFailed]) -> ApiError | ConnectionFailed:
    for error in group.exceptions:
        return _first(error) if isinstance(error, BaseExceptionGroup) else error
    raise AssertionError("unreachable: a group is never empty")
