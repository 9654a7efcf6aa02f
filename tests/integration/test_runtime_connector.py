"""Connections that are given up half-way, on a real API server."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

from services.runtime.kube import config
from services.runtime.kube.errors import KubeError
from services.runtime.kube.transport import Client
from tests.support.waiting import until


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


async def give_up(kubeconfig, rng):
    """Close a client while connections are being opened, and while answers are on their way."""
    async with Client(await config.load(str(kubeconfig))) as client:
        asked = [asyncio.create_task(client.raw("GET", "/version")) for _ in range(6)]
        await asyncio.sleep(rng.uniform(0, 0.05))
        for task in asked[:4]:
            task.cancel()
        await asyncio.sleep(0)
    for result in await asyncio.gather(*asked, return_exceptions=True):
        assert isinstance(result, bytes | KubeError | asyncio.CancelledError)


async def test_a_client_that_is_closed_leaves_no_connection_whatever_was_given_up_at_which_moment(cluster):
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    await give_up(cluster.kubeconfig, rng)  # what is opened once and kept, such as a thread's pipe
    before = open_files()
    for _ in range(60):
        await give_up(cluster.kubeconfig, rng)
    await until(lambda: open_files() <= before)
