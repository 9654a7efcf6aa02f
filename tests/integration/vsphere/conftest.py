"""One simulated vCenter for all tests of this folder, a connection to it for each, and nothing left over."""

from __future__ import annotations

import uuid

import pytest

from services.machine_controller.vsphere.values import CloneSpec, NetworkDevice
from services.machine_controller.vsphere.vcenter import VCenters
from tests.support.vcenter import Vcsim
from tools import binaries


def pytest_collection_finish(session):
    # Built here, with its progress shown, rather than in a fixture, where a time limit would end it.
    if not session.config.option.collectonly and any("vcsim" in item.fixturenames for item in session.items):
        with session.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
            binaries.ensure("vcsim")


@pytest.fixture(scope="session")
def vcsim():
    with Vcsim.running(cluster=2) as running:
        yield running


@pytest.fixture
def sim(vcsim):
    """The shared vCenter without rules, with its first password, and statistics from zero."""
    vcsim.reset()
    vcsim.forget_stats()
    yield vcsim
    vcsim.reset()


@pytest.fixture
async def vcenters():
    async with VCenters() as connections:
        yield connections


@pytest.fixture
def vc(sim, vcenters):
    """A connection with the right credentials that verifies the certificate by its authority."""
    return vcenters.get(sim.server, "test/credentials", sim.credentials, sim.trust)


@pytest.fixture
def name():
    """A name that no other VM has."""
    return f"vm-{uuid.uuid4().hex[:10]}"


@pytest.fixture
def spec_for(vc):
    """Makes the spec of a clone of DC0_C0_RP0_VM0 into DC0's VM folder, with one card on DC0_DVPG0."""

    async def make(name, **changes):
        datacenter = await vc.inventory.datacenter("DC0")
        cluster = await vc.inventory.cluster(datacenter, "DC0_C0")
        template = await vc.inventory.template(datacenter, "DC0_C0_RP1_VM0")
        values = {
            "name": name,
            "template": template.ref,
            "folder": (await vc.inventory.folder(datacenter)).ref,
            "pool": cluster.root_pool,
            "instance_uuid": str(uuid.uuid4()),
            "datastore": (await vc.inventory.datastore(datacenter, "LocalDS_0")).ref,
            "networks": (NetworkDevice(await vc.inventory.network(datacenter, "DC0_DVPG0")),),
        }
        return CloneSpec(**values | changes)

    return make


@pytest.fixture
def made(vc, spec_for):
    """Clones a VM and returns it once it exists."""

    async def make(name, **changes):
        task = await vc.watch.finished(await vc.vms.clone(await spec_for(name, **changes)))
        assert task.error is None, task.error
        return await vc.vms.get(task.result)

    return make
