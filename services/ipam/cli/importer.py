"""Carrying out an import: creating what the plan says, in its order, and looking whether it is still there afterwards.

Responsible for: the writes of `groundwork ipam import`, their pace, and what becomes of them when the target changes
meanwhile.
Invariants: what others made is never changed or deleted. First every address is kept by a placeholder, which no
allocator gives away or returns, however long the import takes; then come the pools; then, some claims at a time,
placeholder to IPReservation -> IPAddress -> claim, faster than an allocator returns what has no claim. An object whose
companion could not be created is not created either. A repeated import goes on where the last one ended.
Must not know: why an object is refused by the plan.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from msgspec.structs import replace

from services.ipam import api
from services.ipam.cli.importplan import (
    IMPORT_ANNOTATION,
    Step,
    Verdict,
    cascade,
    differs,
    is_placeholder,
    placeholder,
    plan,
)
from services.ipam.cli.portable import identity
from services.runtime.kube.errors import (
    AlreadyExists,
    ApiError,
    Conflict,
    ConnectionFailed,
    Forbidden,
    NotFound,
    ServerError,
    TooManyRequests,
)
from services.runtime.kube.objects import KubeObject, ObjectMeta, encode, with_annotations
from services.runtime.kube.resource import Resource

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from services.console import Progress
    from services.ipam.api import ClaimKey
    from services.ipam.cli.snapshot import Snapshot
    from services.runtime.clock import Clock
    from services.runtime.kube.transport import Client

NAMESPACES = Resource("", "v1", "namespaces", "Namespace", namespaced=False)
WRITERS = 32
ATTEMPTS = 6
BACKOFF_SECONDS = 0.5
FIRST_BATCH = 64
SMALLEST_BATCH, LARGEST_BATCH = 16, 4096
BATCH_SECONDS = 10.0
"""Claims are brought over in batches of about this long, much less than an allocator's grace for addresses without a
claim, which is a minute by default."""
CLAIM_PAUSE_SECONDS = 1.0
"""Between the last IPAddress of a batch and the first claim: a running allocator learns of them by separate watches,
and adopts an IPAddress of another name than it would give only if it knows it when it sees the claim."""
_LOST = (
    "it is gone again: somebody deleted it, or the allocator returned it because its claim took longer to come than "
    "--orphan-grace-seconds; look at the claim, and import again"
)
_RESERVATION = api.IP_RESERVATIONS.kind
_ADDRESS = api.IP_ADDRESSES.kind
_POOLS = {api.IP_POOLS.kind, api.GLOBAL_IP_POOLS.kind}
_CLAIMS = set(api.CLAIM_FINALIZERS)


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
        with contextlib.suppress(AlreadyExists):
            await client.create(NAMESPACES, obj)


def confirm(steps: Sequence[Step], target: Snapshot) -> list[Step]:
    """Steps of an import, refused where the object is not in the target any more or not as it should be."""
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


def next_size(size: int, seconds: float) -> int:
    """Claims in the next batch after one of `size` took `seconds`: for about BATCH_SECONDS, at most twice as many."""
    wanted = size * BATCH_SECONDS / max(seconds, CLAIM_PAUSE_SECONDS)
    return int(min(max(wanted, SMALLEST_BATCH), 2 * size, LARGEST_BATCH))


class Importer:
    """One import into one target, by `run` or by `rehearse`.

    Both raise ConnectionFailed, TooManyRequests or ServerError when the API server stays away; what was created until
    then stays.
    """

    def __init__(self, client: Client, clock: Clock, progress: Progress, steps: Sequence[Step]) -> None:
        self._client = client
        self._clock = clock
        self._progress = progress
        self._steps = list(steps)
        self._placeholders: dict[int, KubeObject] = {}
        """By place in `_steps`, as the server has them."""

    async def rehearse(self, absent: Iterable[str]) -> list[Step]:
        """Let the API server check every object and store none; what is in `absent` namespaces it cannot check."""
        skipped = set(absent)
        places = [n for n in self._pending() if self._steps[n].obj.metadata.namespace not in skipped]
        self._progress.step("checking objects", len(places))
        await self._each(places, lambda place: self._create(self._steps[place], dry_run=True))
        return self._steps

    async def run(self) -> list[Step]:
        """Create what is to be created and return the steps as they came out."""
        reservations = self._pending({_RESERVATION})
        self._progress.step("keeping addresses", len(reservations))
        await self._each(reservations, self._keep)
        pools = self._pending(_POOLS)
        self._progress.step("creating pools", len(pools))
        await self._each(pools, lambda place: self._create(self._steps[place]))
        places: dict[ClaimKey, list[int]] = {}
        for place in self._pending():
            claim = self._steps[place].claim
            if claim is not None:
                places.setdefault(claim, []).append(place)
        self._progress.step("creating claims and their addresses", sum(map(len, places.values())))
        claims, size = sorted(places), FIRST_BATCH
        while claims:
            batch, claims = claims[:size], claims[size:]
            begun = self._clock.monotonic()
            await self._bring({place for claim in batch for place in places[claim]})
            size = next_size(size, self._clock.monotonic() - begun)
        await self._tidy()
        return self._steps

    async def _bring(self, batch: set[int]) -> None:
        """Bring over some claims with all that is theirs."""
        await self._each(self._pending({_RESERVATION}, batch), self._hold)
        await self._each(self._pending({_ADDRESS}, batch), lambda place: self._create(self._steps[place]))
        claims = self._pending(_CLAIMS, batch)
        if claims:
            await self._clock.sleep(CLAIM_PAUSE_SECONDS)
        await self._each(claims, lambda place: self._create(self._steps[place]))

    def _pending(self, kinds: set[str] | None = None, among: set[int] | None = None) -> list[int]:
        """Places of the steps that are to be created."""
        return [
            place
            for place, step in enumerate(self._steps)
            if step.verdict is Verdict.CREATE
            and (kinds is None or step.obj.kind in kinds)
            and (among is None or place in among)
        ]

    async def _each(self, places: Sequence[int], work: Callable[[int], Awaitable[Step]]) -> None:
        """Do the work of some steps, several at a time, then refuse what cannot go on without those that failed."""
        waiting = iter(places)

        async def worker() -> None:
            for place in waiting:
                self._steps[place] = await work(place)
                self._progress.advance()

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(WRITERS, len(places))):
                    group.create_task(worker())
        except* (ApiError, ConnectionFailed) as failed:
            raise _first(failed) from None
        self._steps = cascade(self._steps)

    # One object

    async def _create(self, step: Step, *, dry_run: bool = False) -> Step:
        """Create an object as it is in the stream."""
        assert step.resource is not None
        resource, obj = step.resource, step.obj

        async def send() -> Step:
            if dry_run:
                path = f"{resource.path(obj.metadata.namespace)}?dryRun=All"
                try:
                    await self._client.raw("POST", path, body=encode(obj))
                except AlreadyExists:
                    if not await self._kept_before(step):
                        raise
            else:
                await self._client.create(resource, obj)
            return step

        return await self._patiently(step, send)

    async def _kept_before(self, step: Step) -> bool:
        """Whether an import that was interrupted has left the placeholder of a reservation."""
        if step.obj.kind != _RESERVATION or step.claim is None:
            return False
        return is_placeholder(await self._client.get(api.IP_RESERVATIONS, step.obj.metadata.name), step.claim)

    async def _keep(self, place: int) -> Step:
        """Create an administrator's reservation, or the placeholder of one that a claim will hold."""
        step = self._steps[place]
        claim = step.claim
        if claim is None:
            return await self._create(step)

        async def send() -> Step:
            wanted = placeholder(step.obj, claim)
            try:
                kept = await self._client.create(api.IP_RESERVATIONS, wanted)
            except AlreadyExists:
                kept = await self._client.get(api.IP_RESERVATIONS, wanted.metadata.name)
                if not is_placeholder(kept, claim):
                    raise
            self._placeholders[place] = kept
            return step

        done = await self._patiently(step, send)
        whole = done.verdict is Verdict.CREATE and place not in self._placeholders
        return done._replace(verdict=Verdict.UNCHANGED) if whole else done

    async def _hold(self, place: int) -> Step:
        """Make a placeholder the reservation that its claim holds."""
        step = self._steps[place]
        claim = step.claim
        assert claim is not None

        async def send() -> Step:
            for _ in range(ATTEMPTS):
                kept = self._placeholders[place]
                held = with_annotations(replace(kept, spec=step.obj.spec), {IMPORT_ANNOTATION: None})
                try:
                    await self._client.update(api.IP_RESERVATIONS, held)
                except Conflict:
                    fresh = await self._client.get(api.IP_RESERVATIONS, kept.metadata.name)
                    if not is_placeholder(fresh, claim):
                        raise
                    self._placeholders[place] = fresh  # somebody has given it a label, say
                else:
                    return step
            return step.refused("somebody else changes it all the time")

        done = await self._patiently(step, send)
        if done.verdict is Verdict.REFUSED:
            return done  # its placeholder is tidied away
        del self._placeholders[place]
        return step  # also if an attempt whose answer was lost has written it

    async def _patiently(self, step: Step, send: Callable[[], Awaitable[Step]]) -> Step:
        """Send until there is an answer; an object that is there already is compared."""
        for attempt in range(ATTEMPTS):
            try:
                return await send()
            except (AlreadyExists, Conflict):
                found = await self._compare(step)
                if found is None:
                    continue
                return step if attempt and found.verdict is Verdict.UNCHANGED else found
            except (TooManyRequests, ServerError, ConnectionFailed) as error:
                if attempt == ATTEMPTS - 1:
                    raise
                asked = error.retry_after if isinstance(error, ApiError) else None
                await self._clock.sleep(asked or BACKOFF_SECONDS * 2**attempt)
            except ApiError as error:
                return step.refused(f"the API server refuses it: {' '.join(error.message.split())}")
        return step.refused("somebody else creates and deletes it at the same time")

    async def _compare(self, step: Step) -> Step | None:
        """Unchanged or refused by what the target has; None when it has nothing any more."""
        assert step.resource is not None
        meta = step.obj.metadata
        try:
            existing = await self._client.get(step.resource, meta.name, meta.namespace)
        except NotFound:
            return None
        reason = differs(step.obj, existing)
        return step.refused(reason) if reason else step._replace(verdict=Verdict.UNCHANGED)

    async def _tidy(self) -> None:
        """Delete the placeholders of claims that were refused after all."""
        for kept in self._placeholders.values():
            meta = kept.metadata
            with contextlib.suppress(NotFound, Conflict, Forbidden):
                await self._client.delete(
                    api.IP_RESERVATIONS, meta.name, uid=meta.uid, resource_version=meta.resourceVersion
                )
        self._placeholders.clear()


def _first(group: BaseExceptionGroup[ApiError | ConnectionFailed]) -> ApiError | ConnectionFailed:
    for error in group.exceptions:
        return _first(error) if isinstance(error, BaseExceptionGroup) else error
    raise AssertionError("unreachable: a group is never empty")
