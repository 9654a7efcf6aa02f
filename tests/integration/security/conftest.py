"""The API server as tenants see it, and one allocator for each module."""

from __future__ import annotations

import pytest

from tests.support.allocator import Allocator
from tests.support.tenant import KINDS, Tenant


@pytest.fixture(scope="module")
def allocator(cluster, tmp_path_factory):
    """The module's allocator."""
    folder = tmp_path_factory.mktemp("allocator")
    with Allocator.running(folder, cluster.kubeconfig, "--log-level=debug") as running:
        yield running


@pytest.fixture
async def victim(allocator, kube):
    """Somebody who has nothing to fear."""
    return await Tenant.create(kube)


@pytest.fixture
async def mallory(victim):
    """Somebody of another namespace on the same network."""
    return await victim.neighbour()


@pytest.fixture(params=KINDS)
def kind(request):
    """Each kind of claim in turn."""
    return request.param
