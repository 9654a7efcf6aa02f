"""An API server with CAPV's definitions, and a world for each test."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.support import audit, capv_admission
from tests.support.capv_world import World
from tests.support.kube import Kube
from tools import capi

ROOT = Path(__file__).resolve().parents[3]
DEFINITIONS = ("machines.cluster.x-k8s.io", "infrastructure.cluster.x-k8s.io")
KINDS = {"VSphereMachine", "VSphereVM", "VSphereCluster", "VSphereMachineTemplate", "Machine"}


def definitions():
    """CRDs of CAPV and of Machine, both versions served."""
    return [crd for crd in capi.crds(*DEFINITIONS) if crd["spec"]["names"]["kind"] in KINDS]


@pytest.fixture(scope="session")
def capv_cluster(control_plane):
    """A cluster of these tests' own, with CAPV's definitions and what its webhooks refuse."""
    with audit.audited() as running:
        found = definitions()
        running.install_crds(ROOT / "deploy" / "crds", *capi.crds(), *found)
        machine = next(crd for crd in found if crd["spec"]["names"]["kind"] == "VSphereMachine")
        running.apply(*capv_admission.policies(machine))
        yield running


@pytest.fixture
async def start_world(capv_cluster):
    """Starts worlds, and holds at the end that each is sound."""
    async with AsyncExitStack() as stack:
        worlds = []

        async def start(*, within=capv_cluster, **options):
            kube = await stack.enter_async_context(Kube.connect(within.kubeconfig))
            world = await stack.enter_async_context(World.start(kube, within.kubeconfig, **options))
            worlds.append(world)
            return world

        yield start
        for world in worlds:
            await world.sound()


@pytest.fixture
async def world(start_world):
    """One namespace, no garbage collector."""
    return await start_world()
