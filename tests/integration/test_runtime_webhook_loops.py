"""The webhook server on each event loop that a service may run on: their transports have no class in common."""

import asyncio

import pytest
import uvloop

from services.runtime.admission import AdmissionAnswer
from services.runtime.settings import Address
from services.runtime.webhook import WebhookServer
from tests.support.hooks import Fixed, client, serving


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_review_is_answered_on_every_event_loop(loop):
    async def ask():
        certificate = Fixed()
        server = WebhookServer(Address("127.0.0.1", 0), certificate, {"/allow": lambda _: AdmissionAnswer()})
        review = {
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "request": {"uid": "u", "object": {}},
        }
        async with (
            serving(server),
            client(certificate.bundle) as session,
            session.post(f"https://{server.address}/allow", json=review) as answer,
        ):
            assert (await answer.json())["response"] == {"uid": "u", "allowed": True}

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(ask())
