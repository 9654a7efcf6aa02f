"""The load of a bench run: a pool, claims of both kinds in turn, who creates and deletes them, and who watches them.

Responsible for: feeding whoever is measured the same way every time, and noting when each claim was first seen, was
bound and was gone, as one watch of each kind shows it.
Invariants: nothing here depends on who serves the claims. Times are of one clock (`time.perf_counter`, seconds).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from msgspec import Struct

from services.ipam import api
from services.runtime.kube.errors import Gone
from services.runtime.kube.objects import KubeObject, ObjectMeta, WatchEvent, decoder, raw
from tools.progress import say

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

    from services.runtime.kube.resource import Resource
    from services.runtime.kube.transport import Client

T = TypeVar("T")

NAMESPACE = "bench"
POOL = "bench"
SUBNET = "10.0.0.0/8"
FEEDERS = 8
"""Requests that the creator has under way at a time."""
STALL_SECONDS = 60.0
REPORT_SECONDS = 10.0
CLAIMS: tuple[Resource, Resource] = (api.IP_CLAIMS, api.CAPI_CLAIMS[0])
ADDRESSES: tuple[Resource, Resource] = (api.IP_ADDRESSES, api.CAPI_ADDRESSES[0])


class BenchError(Exception):
    """Something is incorrect or stuck: the bench ends with a failure."""


class _Meta(Struct, gc=False):
    name: str
    deletionTimestamp: str | None = None  # noqa: N815 - the field carries its wire name


class _Named(Struct, gc=False):
    name: str


class _Status(Struct, gc=False):
    address: _Named | None = None
    addressRef: _Named | None = None  # noqa: N815 - the field carries its wire name


class _Row(Struct, gc=False):
    """What a watch row of a claim is read for."""

    metadata: _Meta
    status: _Status | None = None


class Claim(NamedTuple):
    """A claim to create."""

    resource: Resource
    obj: KubeObject

    @property
    def name(self) -> str:
        return self.obj.metadata.name


def manifests() -> list[dict[str, object]]:
    """Namespace and pool that every run begins with."""
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        {
            "apiVersion": api.IP_POOLS.api_version,
            "kind": api.IP_POOLS.kind,
            "metadata": {"name": POOL, "namespace": NAMESPACE},
            "spec": {"namePrefix": POOL, "pools": [{"subnet": SUBNET}]},
        },
    ]


def claims(prefix: str, count: int) -> list[Claim]:
    """Claims `prefix`-0 to `prefix`-(count - 1), IPClaim and IPAddressClaim in turn."""
    specs = (
        raw({"pool": {"name": POOL}}),
        raw({"poolRef": {"apiGroup": api.METAL3_GROUP, "kind": api.IP_POOLS.kind, "name": POOL}}),
    )
    made = []
    for number in range(count):
        resource, spec = CLAIMS[number % 2], specs[number % 2]
        meta = ObjectMeta(name=f"{prefix}-{number}", namespace=NAMESPACE)
        obj = KubeObject(apiVersion=resource.api_version, kind=resource.kind, metadata=meta, spec=spec)
        made.append(Claim(resource, obj))
    return made


async def each(
    items: Iterable[T], work: Callable[[T], Awaitable[object]], *, pace: float | None = None, width: int = FEEDERS
) -> None:
    """Do the work for each item in order, `width` at a time; with `pace`, for no more than so many a second."""
    started, waiting = time.perf_counter(), enumerate(items)

    async def worker() -> None:
        for number, item in waiting:
            if pace is not None:
                await asyncio.sleep(max(0.0, started + number / pace - time.perf_counter()))
            await work(item)

    async with asyncio.TaskGroup() as group:
        for _ in range(width):
            group.create_task(worker())


async def create(client: Client, wanted: Iterable[Claim], pace: float | None = None) -> None:
    """Create claims in order, as fast as the server answers `FEEDERS` at a time, or at most `pace` a second."""
    await each(wanted, lambda claim: client.create(claim.resource, claim.obj), pace=pace)


async def delete(client: Client, wanted: Iterable[Claim]) -> None:
    """Delete claims in order, `FEEDERS` at a time."""
    await each(wanted, lambda claim: client.delete(claim.resource, claim.name, NAMESPACE))


async def follow(client: Client, resource: Resource, version: str, note: Callable[[WatchEvent], None]) -> None:
    """Tell `note` each change after a version, for ever.

    The server ends watches when it takes a definition over anew, which on a busy machine is a while after its start,
    and those of slow readers; what is missed then is told from a list, but for what was deleted meanwhile.
    """
    while True:
        with contextlib.suppress(Gone):
            events = client.watch(resource, NAMESPACE, resource_version=version, timeout_seconds=7200)
            async with aclosing(events):
                async for event in events:
                    if event.type != "BOOKMARK":
                        note(event)
        found = await client.list(resource, NAMESPACE)
        for obj in found.items:
            note(WatchEvent("MODIFIED", raw(obj)))
        version = found.resource_version


class Observer:
    """When each claim was first `seen`, `bound`, marked for deletion (`leaving`) and `gone`."""

    def __init__(self, client: Client, alive: Callable[[], object]) -> None:
        """`alive` raises when what is measured has died."""
        self._client = client
        self._alive = alive
        self._changed = asyncio.Event()
        self.seen: dict[str, float] = {}
        self.bound: dict[str, float] = {}
        self.leaving: dict[str, float] = {}
        self.gone: dict[str, float] = {}

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[Observer]:
        """Watch both kinds for the body of the `with`."""
        async with asyncio.TaskGroup() as group:
            tasks = []
            for resource in CLAIMS:
                version = (await self._client.list(resource, NAMESPACE)).resource_version
                tasks.append(group.create_task(self._watch(resource, version)))
            yield self
            for task in tasks:
                task.cancel()

    async def _watch(self, resource: Resource, version: str) -> None:
        await follow(self._client, resource, version, self._note)

    def _note(self, event: WatchEvent) -> None:
        now = time.perf_counter()
        row = decoder(_Row).decode(event.object)
        name = row.metadata.name
        if event.type == "DELETED":
            self.gone[name] = now
        else:
            self.seen.setdefault(name, now)
            if row.metadata.deletionTimestamp is not None:
                self.leaving.setdefault(name, now)
            if row.status is not None and (row.status.address is not None or row.status.addressRef is not None):
                self.bound.setdefault(name, now)
        self._changed.set()

    async def wait(self, what: dict[str, float], names: Iterable[str], verb: str) -> None:
        """Return once every name is in `what`, one of the four; BenchError when nothing changes for a minute."""
        missing = set(names)
        total, progress, reported = len(missing), time.perf_counter(), time.perf_counter()
        while missing := {name for name in missing if name not in what}:
            self._changed.clear()
            try:
                async with asyncio.timeout(1.0):
                    await self._changed.wait()
                progress = time.perf_counter()
            except TimeoutError:
                pass
            self._alive()
            now = time.perf_counter()
            if now - progress > STALL_SECONDS:
                shown = ", ".join(sorted(missing)[:5])
                raise BenchError(
                    f"nothing happened for {STALL_SECONDS:.0f} s: {len(missing)} not {verb} yet: {shown} ..."
                )
            if now - reported > REPORT_SECONDS:
                reported = now
                say(f"    {total - len(missing):,} of {total:,} claims {verb}")
            await asyncio.sleep(0.02)
