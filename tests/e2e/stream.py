"""A steady stream of pods and claims, as a busy cluster has it while we are being replaced.

Responsible for: asking without pause, and keeping count of what was answered and how. Invariants: a pod is only ever
asked about (dry run), so that admissions are measured and not the node; a refused request is never asked again.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from contextlib import asynccontextmanager

from services.ipam.api import IP_ADDRESSES, IP_CLAIMS
from services.runtime.kube.errors import KubeError
from tests.support.kube import eventually, manifest
from tests.support.presets import PODS, env, pod

_PAUSE_SECONDS = 0.02
_AT_A_TIME = 3
_CLAIM_PAUSE_SECONDS = 0.3
_KEPT_CLAIMS = 20
"""Claims of the stream at any time; older ones are deleted, so that addresses are also returned."""


class Pods:
    """Pods that are asked for, and what became of them; `variable` is what a preset gives each of them."""

    def __init__(self, kube, namespace, variable):
        self._kube = kube
        self._path = f"{PODS.path(namespace)}?dryRun=All"
        self._variable = variable
        self.answered = 0
        self.refused = []

    async def _ask(self, name):
        body = json.dumps(pod(name)).encode()
        try:
            answer = await self._kube.client.raw(
                "POST", self._path, body=body, headers={"Content-Type": "application/json"}, timeout=60.0
            )
        except KubeError as error:
            self.refused.append(str(error))
            return
        (container,) = json.loads(answer)["spec"]["containers"]
        if self._variable not in dict(env(container)):
            self.refused.append("admitted without what the preset gives")
        self.answered += 1

    async def _run(self, worker):
        for number in itertools.count():
            await self._ask(f"asked-{worker}-{number}")
            await asyncio.sleep(_PAUSE_SECONDS)

    @asynccontextmanager
    async def running(self):
        async with _tasks(*(self._run(worker) for worker in range(_AT_A_TIME))):
            await self.more(20)
            yield self
            await self.more(20)

    async def more(self, count):
        """Wait until that many more were answered."""

        async def asked():
            return self.answered + len(self.refused)

        goal = await asked() + count
        await eventually(asked, lambda number: number >= goal)

    def __str__(self):
        return f"{len(self.refused)} of {self.answered + len(self.refused)} admissions refused"


class Claims:
    """IPClaims of one pool that come and go; `addresses` are those of the claims that there are, by name."""

    def __init__(self, kube, namespace, pool):
        self._kube = kube
        self._namespace = namespace
        self._pool = pool
        self._names = []
        self.made = 0
        self.returned = 0

    async def _run(self):
        for number in itertools.count():
            name = f"stream-{number}"
            spec = {"pool": {"name": self._pool}}
            await self._kube.create(IP_CLAIMS, manifest(IP_CLAIMS, name, self._namespace, spec))
            self._names.append(name)
            self.made += 1
            if len(self._names) > _KEPT_CLAIMS:
                await self._kube.delete(IP_CLAIMS, self._names.pop(0), self._namespace)
                self.returned += 1
            await asyncio.sleep(_CLAIM_PAUSE_SECONDS)

    @asynccontextmanager
    async def running(self):
        async with _tasks(self._run()):
            yield self

    async def addresses(self):
        """Wait until every claim that there is has its address; name: (name of the IPAddress, address)."""
        return {name: await bound(self._kube, self._namespace, name) for name in self._names}


@asynccontextmanager
async def _tasks(*coroutines):
    """Run them for the body of the `async with`; one that fails fails it."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(coroutine) for coroutine in coroutines]
        yield
        for task in tasks:
            task.cancel()


async def bound(kube, namespace, name):
    """Wait until a claim of metal3's has its address; (name of the IPAddress, address)."""

    async def address():
        claim = await kube.get(IP_CLAIMS, name, namespace)
        return claim.get("status", {}).get("address")

    reference = await eventually(address, within=120.0)
    found = await kube.get(IP_ADDRESSES, reference["name"], namespace)
    return reference["name"], found["spec"]["address"]
