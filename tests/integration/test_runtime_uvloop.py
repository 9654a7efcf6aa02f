"""The webhook server on uvloop, which processes run on where it is installed; the other tests run on asyncio's loop."""

import asyncio
import json

import uvloop

from services.runtime.settings import Address
from services.runtime.webhook import WebhookServer
from tests.support.hooks import Fixed, client, serving
from tests.support.toy_webhook import annotate


async def answered():
    """The response of a review, asked for over TLS; the server is closed in between."""
    certificate = Fixed()
    content = {"uid": "1", "operation": "CREATE", "namespace": "ns", "object": {"metadata": {}}}
    webhook = WebhookServer(Address("127.0.0.1", 0), certificate, {"/annotate": annotate})
    review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": content}
    async with (
        serving(webhook) as server,
        client(certificate.bundle) as session,
        session.post(f"https://127.0.0.1:{server.address.port}/annotate", json=review) as response,
    ):
        return json.loads(await response.read())["response"]


def test_reviews_are_answered_on_uvloop():
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(answered())["uid"] == "1"
