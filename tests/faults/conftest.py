"""Fault tests run on a cluster of their own, since they leave it in odd states and count what is in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.kube import Kube
from tools import capi
from tools.cluster import Cluster

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def own_cluster(control_plane):
    with Cluster.temporary() as running:
        running.install_crds(ROOT / "deploy" / "crds", *capi.crds())
        yield running


@pytest.fixture
async def kube(own_cluster):
    async with Kube.connect(own_cluster.kubeconfig) as connected:
        yield connected
