"""vCenters that take connections and never answer, which anybody who may write a VSphereCluster can name."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from services.machine_controller import api
from services.machine_controller.vsphere import session
from tests.support.kube import eventually
from tests.support.machine_site import VERSIONS, condition

MANY = 24


@asynccontextmanager
async def hanging(count):
    """Servers that hang until the end of the `with`, as `host:port`."""
    end = asyncio.Event()

    async def hang(_reader, writer):
        await end.wait()
        writer.close()

    listener = await asyncio.start_server(hang, [f"127.0.0.{number}" for number in range(2, count + 2)], 0)
    try:
        yield ["{}:{}".format(*each.getsockname()) for each in listener.sockets]
    finally:
        end.set()
        listener.close()


@pytest.fixture
def patient(monkeypatch):
    """Nobody gives up signing in before the test is over."""
    monkeypatch.setattr(session, "CALL_SECONDS", 600.0)


async def available(site, name):
    obj = await site.kube.get(api.VSPHERE_CLUSTERS, name, site.namespace)
    return (condition(obj, "VCenterAvailable") or {}).get("status")


@pytest.mark.usefixtures("patient")
async def test_clusters_whose_vcenter_hangs_hold_up_neither_others_nor_their_own_end(start_site):
    site = await start_site()
    await site.identity()
    async with hanging(MANY) as servers:
        for number, server in enumerate(servers):
            await site.cluster(f"bad-{number}", server=server)
        await site.cluster("good")
        await eventually(lambda: available(site, "good"), lambda status: status == "True")
        await site.kube.delete(VERSIONS.clusters, "bad-0", site.namespace)
        await site.kube.gone(api.VSPHERE_CLUSTERS, "bad-0", site.namespace)
        assert {await available(site, f"bad-{number}") for number in range(1, MANY)} == {None}
    await site.kube.gone(VERSIONS.clusters, "bad-0", site.namespace)


@pytest.mark.usefixtures("patient")
async def test_machines_whose_vcenter_hangs_hold_up_no_others(start_site):
    site = await start_site(workers=2)
    await site.identity()
    await site.tenant.pool("nodes", "10.0.0.10-10.0.0.49", gateway="10.0.0.1")
    await site.cluster()
    bad = [f"bad-{number}" for number in range(6)]
    async with hanging(2) as servers:
        for number, name in enumerate(bad):
            await site.machine(name, server=servers[number % 2])
        await site.machine("good")
        await site.provisioned("good")
        await site.delete(*bad)
        await site.gone(*bad)
    await site.delete("good")
    await site.gone("good")
    await site.empty()
