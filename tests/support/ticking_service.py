"""A small service on the runtime, for tests that start, stop and kill whole processes.

It follows the ConfigMaps of one namespace, writes a growing number and its own name into the one called `ticker` while
it leads, and answers a ConfigMap with a `sleep` label by sleeping for that long and then marking it as done.
"""

import asyncio
import dataclasses
import os
import sys
from typing import ClassVar

from msgspec.structs import replace

from services.runtime import log, main
from services.runtime.cache.reflector import Reflector
from services.runtime.cache.store import Store
from services.runtime.controller import Controller, Result
from services.runtime.kube.errors import NotLeader
from services.runtime.kube.objects import KubeObject, ObjectKey, with_annotations
from services.runtime.kube.resource import Resource
from services.runtime.settings import Settings

CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap", namespaced=True)
TICK_SECONDS = 0.05
LOG = log.get("ticking")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TickingSettings(Settings):
    program: ClassVar[str] = "ticking"


class Ticker:
    def __init__(self, service, store):
        self.client = service.client
        self.store = store
        self.manager = service.manager

    async def reconcile(self, key):
        found = self.store.get(key)
        if found is None:
            return None
        if key.name == "ticker":
            return await self.tick(found)
        if found.metadata.labels and "sleep" in found.metadata.labels:
            await self.sleep(found)
        return None

    async def tick(self, found):
        count = int((found.metadata.annotations or {}).get("count", "0")) + 1
        marks = {"count": str(count), "writer": str(os.getpid())}
        self.store.observe(await self.client.update(CONFIG_MAPS, with_annotations(found, marks)))
        return Result(requeue_after=TICK_SECONDS)

    async def sleep(self, found):
        if "done" in (found.metadata.annotations or {}):
            return
        LOG.info("Sleeping")
        await asyncio.sleep(float(found.metadata.labels["sleep"]))
        await self.client.update(CONFIG_MAPS, with_annotations(found, {"done": "yes"}))

    async def try_without_leadership(self):
        """Say once whether a write without the Lease is refused, and where the health server listens."""
        while self.manager.address is None:  # noqa: ASYNC110 - a test program
            await asyncio.sleep(0.001)
        LOG.info("Listening", port=self.manager.address.port)
        try:
            await self.client.update(CONFIG_MAPS, replace(next(iter(self.store.values()))))
        except NotLeader:
            LOG.info("Refused a write")


async def build(service):
    (namespace,) = service.settings.watch_namespace
    store = Store("configmaps")
    service.manager.add_reflector(
        Reflector(service.unguarded, CONFIG_MAPS, store, namespace=namespace, as_=KubeObject, clock=service.clock)
    )
    ticker = Ticker(service, store)
    controller = Controller("ticker", ticker.reconcile, workers=service.settings.workers, clock=service.clock)

    def changed(old, new):
        controller.queue.add(ObjectKey(namespace, (new or old).metadata.name))

    store.subscribe(changed)
    service.manager.add_controller(controller)
    service.manager.add_runnable("trial", ticker.try_without_leadership, needs_leader=False)


if __name__ == "__main__":
    sys.exit(main.run(TickingSettings, build))
