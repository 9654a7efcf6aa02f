"""ConfigMaps as the objects that the runtime is tested with, a client to write them, and patience."""

from __future__ import annotations

import asyncio
import contextlib
import time

from services.runtime.kube import config
from services.runtime.kube.objects import EMPTY, KubeObject, ObjectMeta, Raw, raw
from services.runtime.kube.resource import Resource
from services.runtime.kube.transport import Client

CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap", namespaced=True)
NAMESPACES = Resource("", "v1", "namespaces", "Namespace", namespaced=False)


class ConfigMap(KubeObject, frozen=True, kw_only=True):
    data: Raw = EMPTY


def config_map(name, namespace, *, data=None, **meta):
    return ConfigMap(
        apiVersion="v1",
        kind="ConfigMap",
        metadata=ObjectMeta(name=name, namespace=namespace, **meta),
        data=EMPTY if data is None else raw(data),
    )


@contextlib.asynccontextmanager
async def connected(kubeconfig, **options):
    async with Client(await config.load(kubeconfig), **options) as client:
        yield client


async def eventually(check, seconds=30.0, every=0.05):
    """Return what `check` returns as soon as that is true; fail with its last answer after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        answer = check()
        if asyncio.iscoroutine(answer):
            answer = await answer
        if answer:
            return answer
        assert time.monotonic() < deadline, f"not within {seconds} s: {answer!r}"
        await asyncio.sleep(every)


@contextlib.asynccontextmanager
async def running(*coroutines):
    """Run beside the body; an error in one of them ends the test."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(coroutine) for coroutine in coroutines]
        try:
            yield tasks
        finally:
            for task in tasks:
                task.cancel()
