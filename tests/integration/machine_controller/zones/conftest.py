"""An API server whose VSphere kinds are our own definitions, a vCenter with two clusters, and a world for each test."""

from __future__ import annotations

import uuid

import pytest

from services.machine_controller.vsphere import inventory
from tests.conftest import ROOT
from tests.support import audit
from tests.support.vcenter import Vcsim
from tests.support.zones import World
from tools import capi


@pytest.fixture(scope="session")
def zone_cluster(control_plane):
    """An API server of these tests' own: zones are cluster-scoped, and here the group is served by our definitions."""
    with audit.audited() as running:
        definitions = capi.crds("machines.cluster.x-k8s.io", "clusters.cluster.x-k8s.io")
        running.install_crds(ROOT / "deploy" / "crds" / "infrastructure", *definitions)
        yield running


@pytest.fixture(scope="session")
def vcsim():
    with Vcsim.running(cluster=2, vm=0) as running:
        yield running


@pytest.fixture
def sim(vcsim):
    yield vcsim
    vcsim.reset()


@pytest.fixture
def start(zone_cluster, sim, monkeypatch):
    """Starts a world. What vCenter said is not kept, so that tests need not wait until it is asked again."""
    monkeypatch.setattr(inventory, "CACHE_SECONDS", 0.0)
    name = f"zones-{uuid.uuid4().hex[:10]}"
    zone_cluster.kubectl("create", "namespace", name)
    return lambda **settings: World.start(zone_cluster, name, sim, **settings)


@pytest.fixture
async def world(start):
    async with start() as running:
        yield running
