"""One allocator for each module, and for each test a tenant with a namespace and a network domain of its own."""

from __future__ import annotations

import pytest

from tests.support.allocator import Allocator
from tests.support.tenant import KINDS, Tenant


@pytest.fixture(scope="module")
def running_allocator(request, cluster, tmp_path_factory):
    """The module's allocator; `ALLOCATOR_FLAGS` of the module are added to its command line."""
    flags = getattr(request.module, "ALLOCATOR_FLAGS", ())
    with Allocator.running(tmp_path_factory.mktemp("allocator"), cluster.kubeconfig, *flags) as allocator:
        yield allocator


@pytest.fixture
def allocator(request, running_allocator):
    """The running allocator; what it logs during a test that fails is shown with it."""
    request.node.log_offset = running_allocator.log_size()
    return running_allocator


@pytest.fixture
async def tenant(allocator, kube):
    """A user of the allocator."""
    return await Tenant.create(kube)


@pytest.fixture(params=KINDS)
def kind(request):
    """Each kind of claim in turn."""
    return request.param
