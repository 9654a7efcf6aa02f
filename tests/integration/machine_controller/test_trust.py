"""How a vCenter is trusted, and for how long anybody is signed in there."""

from __future__ import annotations

import base64

import pytest

from services.machine_controller import api
from tests.support.kube import eventually, manifest
from tests.support.machine_site import SECRETS, VERSIONS, condition
from tests.support.vcenter import PASSWORD, USER


@pytest.fixture
async def pinned(start_site):
    """A site whose Secret has no authority for vCenter's certificate."""
    site = await start_site()
    data = {
        key: base64.b64encode(value.encode()).decode() for key, value in (("username", USER), ("password", PASSWORD))
    }
    await site.kube.create(SECRETS, {**manifest(SECRETS, "vcenter", site.namespace), "data": data})
    await site.tenant.pool("nodes", "10.0.0.10-10.0.0.49", gateway="10.0.0.1")
    return site


async def test_a_machine_is_made_and_deleted_where_a_thumbprint_alone_vouches_for_a_server_written_as_url(pinned, sim):
    site = pinned
    await site.cluster(server=f"https://{sim.server}/sdk", thumbprint=sim.thumbprint())
    await site.machine("m1")
    await site.provisioned("m1")
    await site.delete("m1")
    await site.gone("m1")
    await site.empty()


async def test_a_secret_that_no_cluster_names_any_more_is_signed_out_with_and_can_come_back(start_site, sim):
    site = await start_site()
    await site.identity()

    async def made(name):
        await site.cluster(name)
        await eventually(
            lambda: site.kube.get(api.VSPHERE_CLUSTERS, name, site.namespace),
            lambda obj: (condition(obj, "VCenterAvailable") or {}).get("status") == "True",
        )

    async def ended(name):
        await site.kube.delete(VERSIONS.clusters, name, site.namespace)
        await site.kube.gone(api.VSPHERE_CLUSTERS, name, site.namespace)

    async def sessions():
        return sim.stats()["sessions"]

    await made("first")
    await made("second")
    await ended("first")
    assert await sessions() == 1
    await ended("second")
    await eventually(sessions, lambda count: count == 0)
    await made("third")
    assert await sessions() == 1
    await ended("third")
    await eventually(sessions, lambda count: count == 0)
