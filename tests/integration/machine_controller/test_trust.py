"""A vCenter that is trusted by its thumbprint alone, whichever way its address is written."""

from __future__ import annotations

import base64

import pytest

from tests.support.kube import manifest
from tests.support.machine_site import SECRETS
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
