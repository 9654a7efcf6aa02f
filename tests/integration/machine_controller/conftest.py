"""CAPV's definitions on the session's API server, one simulated vCenter, and a site for each test."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest

from tests.support import capv_admission
from tests.support.kube import Kube
from tests.support.machine_site import Site
from tests.support.vcenter import Vcsim
from tools import binaries, capi

DEFINITIONS = ("machines.cluster.x-k8s.io", "infrastructure.cluster.x-k8s.io")
KINDS = {
    "VSphereMachine",
    "VSphereVM",
    "VSphereCluster",
    "VSphereMachineTemplate",
    "VSphereDeploymentZone",
    "VSphereFailureDomain",
    "Machine",
}


def pytest_collection_finish(session):
    # Built here, with its progress shown, rather than in a fixture, where a time limit would end it.
    if not session.config.option.collectonly and any("vcsim" in item.fixturenames for item in session.items):
        with session.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
            binaries.ensure("vcsim")


@pytest.fixture(scope="session")
def capv_cluster(cluster):
    """The session's cluster with CAPV's definitions, and what its webhooks refuse."""
    found = [crd for crd in capi.crds(*DEFINITIONS) if crd["spec"]["names"]["kind"] in KINDS]
    cluster.install_crds(*found)
    machine = next(crd for crd in found if crd["spec"]["names"]["kind"] == "VSphereMachine")
    cluster.apply(*capv_admission.policies(machine))
    return cluster


@pytest.fixture(scope="session")
def vcsim():
    with Vcsim.running(cluster=1) as running:
        yield running


@pytest.fixture
def sim(vcsim):
    """The shared vCenter without rules, with its first password."""
    vcsim.reset()
    yield vcsim
    vcsim.reset()


@pytest.fixture
async def kube(capv_cluster):
    async with Kube.connect(capv_cluster.kubeconfig) as connected:
        yield connected


@pytest.fixture
async def start_site(capv_cluster, kube, sim):
    """Starts sites; what is left of one at the end of a test fails it, unless the test says that it knows."""
    async with AsyncExitStack() as stack:
        sites = []

        async def start(**settings):
            site = await stack.enter_async_context(Site.start(kube, capv_cluster.kubeconfig, sim, **settings))
            sites.append(site)
            return site

        yield start
        for site in sites:
            await site.sound()


@pytest.fixture
async def site(start_site):
    """A site with credentials, a pool of 40 addresses and the cluster `prod`."""
    found = await start_site()
    await found.identity()
    await found.tenant.pool("nodes", "10.0.0.10-10.0.0.49", gateway="10.0.0.1", dnsServers=["10.0.0.2"])
    await found.cluster()
    return found
