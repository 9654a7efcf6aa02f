"""vCenter's credentials that a service holds for clusters of other namespaces, and clusters that mean no good."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

from services.machine_controller import api
from services.machine_controller.credentials import Identities
from services.runtime import metrics
from services.runtime.clock import SystemClock
from services.runtime.kube.objects import ObjectKey
from tests.support.hooks import Fixed
from tests.support.kube import NAMESPACES, eventually, manifest
from tests.support.machine_site import SECRETS, condition, unique


@asynccontextmanager
async def planted():
    """A TLS server of the tenant's own; yields its address, its thumbprint and what connects to it."""
    certificate = Fixed()
    seen = []

    async def serve(_, writer):
        seen.append(writer.get_extra_info("peername"))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=certificate.context)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}", certificate.fingerprint, seen


async def test_credentials_lent_to_a_tenant_are_not_sent_to_a_server_of_the_tenant_s_own(start_site, kube, sim):
    lender = unique("lender")
    await kube.create(NAMESPACES, manifest(NAMESPACES, lender))
    site = await start_site(identity_secret=ObjectKey(lender, "vcenter"))
    own, site.namespace = site.namespace, lender
    await site.identity()
    site.namespace = own

    async def says(name, text):
        return await eventually(
            lambda: kube.get(api.VSPHERE_CLUSTERS, name, own),
            lambda obj: text in ((condition(obj, "VCenterAvailable") or {}).get("message") or ""),
        )

    async with planted() as (server, thumbprint, seen):
        await site.cluster("mallory", identityRef=None, server=server, thumbprint=thumbprint)
        await says("mallory", "it has none")
        await site.kube.patch(SECRETS, "vcenter", lender, stringData={"servers": f"vcenter.example {sim.server}"})
        await says("mallory", f"is not for vCenter {server}")
        assert seen == []
    await site.cluster("honest", identityRef=None)
    await eventually(
        lambda: kube.get(api.VSPHERE_CLUSTERS, "honest", own),
        lambda obj: (condition(obj, "VCenterAvailable") or {}).get("status") == "True",
    )


async def test_a_secret_that_no_cluster_names_any_more_is_not_in_the_metrics(kube, namespace):
    key, told = ObjectKey(namespace, "vcenter"), asyncio.Event()
    identities = Identities(kube.client, SystemClock(), lambda _: told.set())

    def shown():
        return [line for line in metrics.render()[0].decode().splitlines() if str(key) in line]

    async with asyncio.TaskGroup() as group:
        running = group.create_task(identities.run())
        assert identities.get(key) is None
        await told.wait()
        assert shown()
        identities.drop(key)
        assert shown() == []
        await asyncio.sleep(0.1)
        assert shown() == []
        running.cancel()
