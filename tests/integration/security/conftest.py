"""The API server as tenants see it, and one allocator for each module."""

from __future__ import annotations

import pytest

from tests.support.allocator import Allocator
from tests.support.kube import Kube
from tests.support.tenant import KINDS, Tenant


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    allocator = getattr(item, "funcargs", {}).get("allocator")
    if report.failed and allocator is not None:
        report.sections.append(("allocator", allocator.shown(0)))
    return report


@pytest.fixture(scope="module")
def allocator(cluster, tmp_path_factory):
    """The module's allocator."""
    folder = tmp_path_factory.mktemp("allocator")
    with Allocator.running(folder, cluster.kubeconfig, "--log-level=debug") as running:
        yield running


@pytest.fixture
async def kube(cluster):
    """The API server, as an administrator."""
    async with Kube.connect(cluster.kubeconfig) as kube:
        yield kube


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
