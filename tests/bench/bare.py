"""The bare writer: the least that serving claims can cost over this project's transport.

Learns of claims by a plain watch and makes the same four writes for each as the allocator (finalizer, IPReservation,
IPAddress, status), with as many workers and with no logic: addresses are counted up, nothing is looked up, checked,
retried or remembered. What the allocator needs more than this is the price of being one.

    python -m tests.bench.bare --kubeconfig PATH --bind-address HOST:PORT [--workers N] [--uvloop | --no-uvloop]
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import itertools
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from msgspec.structs import replace

from services.ipam import api
from services.runtime.health import HealthServer
from services.runtime.kube import config
from services.runtime.kube.objects import KubeObject, ObjectMeta, OwnerReference, decode, raw, with_finalizer
from services.runtime.kube.transport import Client
from services.runtime.settings import address as parse_address
from tests.bench.load import ADDRESSES, CLAIMS, NAMESPACE, POOL

if TYPE_CHECKING:
    from services.runtime.kube.resource import Resource

_FIRST = int(ipaddress.IPv4Address("10.0.0.1"))


class Writer:
    """A queue of claims and the workers that serve it."""

    def __init__(self, client: Client, pool: KubeObject) -> None:
        self._client = client
        self._pool = pool
        self._queue: asyncio.Queue[tuple[int, KubeObject]] = asyncio.Queue()
        self._next = itertools.count(_FIRST)

    async def watch(self, kind: int, version: str) -> None:
        """Queue each claim of one of the two kinds when it is added."""
        events = self._client.watch(CLAIMS[kind], NAMESPACE, resource_version=version, timeout_seconds=7200)
        async for event in events:
            if event.type == "ADDED":
                self._queue.put_nowait((kind, decode(event.object, KubeObject)))

    async def work(self) -> None:
        """Serve claims forever."""
        while True:
            kind, claim = await self._queue.get()
            await self._serve(kind, claim)

    async def _serve(self, kind: int, claim: KubeObject) -> None:
        client, resource, addresses = self._client, CLAIMS[kind], ADDRESSES[kind]
        at = str(ipaddress.IPv4Address(next(self._next)))
        claim = await client.update(resource, with_finalizer(claim, api.CLAIM_FINALIZERS[resource.kind][0]))
        meta = claim.metadata
        await client.create(api.IP_RESERVATIONS, _reservation(resource, meta, at))
        name = meta.name if kind else f"{POOL}-{at.replace('.', '-')}"
        address = _address(resource, addresses, meta, self._pool, name, at)
        await client.create(addresses, address)
        await client.update_status(resource, replace(claim, status=raw(_status(kind, claim, name, at))))


def _reservation(resource: Resource, claim: ObjectMeta, at: str) -> KubeObject:
    spec = {
        "domain": "default",
        "address": at,
        "pool": {"kind": api.IP_POOLS.kind, "namespace": NAMESPACE, "name": POOL},
        "claim": {"kind": resource.kind, "namespace": NAMESPACE, "name": claim.name, "uid": claim.uid},
    }
    reservations = api.IP_RESERVATIONS
    meta = ObjectMeta(name=f"default.{at}")
    return KubeObject(apiVersion=reservations.api_version, kind=reservations.kind, metadata=meta, spec=raw(spec))


def _address(
    claims: Resource, addresses: Resource, claim: ObjectMeta, pool: KubeObject, name: str, at: str
) -> KubeObject:
    capi = claims is CLAIMS[1]
    block = True if capi else None
    owners = (
        OwnerReference(
            apiVersion=claims.api_version,
            kind=claims.kind,
            name=claim.name,
            uid=claim.uid,
            controller=block,
            blockOwnerDeletion=block,
        ),
        OwnerReference(
            apiVersion=pool.apiVersion,
            kind=pool.kind,
            name=POOL,
            uid=pool.metadata.uid,
            controller=False if capi else None,
            blockOwnerDeletion=block,
        ),
    )
    meta = ObjectMeta(
        name=name,
        namespace=NAMESPACE,
        finalizers=(api.ADDRESS_FINALIZERS[claims.kind][0],),
        ownerReferences=owners,
    )
    refs = (
        {
            "claimRef": {"name": claim.name},
            "poolRef": {"apiGroup": api.METAL3_GROUP, "kind": pool.kind, "name": POOL},
        }
        if capi
        else {"claim": {"name": claim.name, "namespace": NAMESPACE}, "pool": {"name": POOL, "namespace": NAMESPACE}}
    )
    spec = raw({**refs, "address": at, "prefix": 8})
    return KubeObject(apiVersion=addresses.api_version, kind=addresses.kind, metadata=meta, spec=spec)


def _status(kind: int, claim: KubeObject, name: str, at: str) -> dict[str, object]:
    condition = {
        "type": api.READY,
        "status": "True",
        "reason": api.ADDRESS_ALLOCATED,
        "message": f"{at} from IPPool {NAMESPACE}/{POOL}",
        "lastTransitionTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "observedGeneration": claim.metadata.generation,
    }
    named = {"addressRef": {"name": name}} if kind else {"address": {"name": name, "namespace": NAMESPACE}}
    return {**named, "conditions": [condition]}


async def serve(kubeconfig: str, listen: str, workers: int) -> None:
    """Serve claims until killed."""
    async with Client(await config.load(kubeconfig), user_agent="groundwork-bare") as client:
        writer = Writer(client, await client.get(api.IP_POOLS, POOL, NAMESPACE))
        versions = [(await client.list(resource, NAMESPACE)).resource_version for resource in CLAIMS]
        await HealthServer(parse_address.parse(listen)).start()
        async with asyncio.TaskGroup() as group:
            for kind, version in enumerate(versions):
                group.create_task(writer.watch(kind, version))
            for _ in range(workers):
                group.create_task(writer.work())


def main() -> None:
    """Read the arguments and serve."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bare")
    parser.add_argument("--kubeconfig", required=True)
    parser.add_argument("--bind-address", required=True)
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--uvloop", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()
    factory = None
    if options.uvloop:
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(serve(options.kubeconfig, options.bind_address, options.workers))


if __name__ == "__main__":
    main()
