"""One webhook for each module, registered for the namespaces of that module alone."""

from __future__ import annotations

import uuid

import pytest

from tests.support.presets import Site
from tests.support.webhook import Webhook


@pytest.fixture(scope="module")
def running_webhook(request, cluster, tmp_path_factory):
    """The module's webhook; `WEBHOOK_FLAGS` of the module are added to its command line."""
    flags = getattr(request.module, "WEBHOOK_FLAGS", ())
    with Webhook.running(tmp_path_factory.mktemp("webhook"), cluster.kubeconfig, *flags) as webhook:
        yield webhook


@pytest.fixture(scope="module")
def scope(cluster, running_webhook):
    """Label value of the namespaces whose pods the running webhook is asked about."""
    scope = uuid.uuid4().hex[:8]
    with running_webhook.registered(cluster, scope):
        yield scope


@pytest.fixture
def webhook(request, running_webhook):
    """The running webhook; what it logs during a test that fails is shown with it."""
    request.node.log_offset = running_webhook.log_size()
    return running_webhook


@pytest.fixture
async def site(webhook, scope, kube):
    """A namespace whose pods the webhook is asked about."""
    async with Site.made(kube, scope) as site:
        yield site
