"""Webhooks as the API server sees them: configurations, load through it, clients without it, and a Service's job.

Invariant: what is counted as refused is every request whose answer is not the webhook's, whatever the reason.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime as dt
import json
import ssl
import uuid

import aiohttp

from services.runtime import pki
from services.runtime.certs import ServedCertificate
from services.runtime.certs_managed import CONFIGURATIONS
from services.runtime.clock import SystemClock
from services.runtime.kube.errors import KubeError
from services.runtime.kube.resource import Resource
from tests.support.kube import manifest
from tests.support.toy_webhook import NOTE
from tests.support.waiting import until

CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap", namespaced=True)


def configuration(name, namespace, port, *, bundle=b"", hooks=1, timeout=5, policy="Fail", path="/annotate"):
    """A MutatingWebhookConfiguration for the ConfigMaps of one namespace."""
    return {
        **manifest(CONFIGURATIONS, name),
        "webhooks": [
            {
                "name": f"hook-{number}.groundwork.test",
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "failurePolicy": policy,
                "timeoutSeconds": timeout,
                "clientConfig": {
                    "url": f"https://127.0.0.1:{port}{path}",
                    **({"caBundle": base64.b64encode(bundle).decode()} if bundle else {}),
                },
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
                "rules": [
                    {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}
                ],
            }
            for number in range(hooks)
        ],
    }


@contextlib.asynccontextmanager
async def configured(kube, wanted):
    """Have a configuration for the body of the `async with`: a leftover would be in the way of other tests."""
    await kube.create(CONFIGURATIONS, wanted)
    try:
        yield wanted["metadata"]["name"]
    finally:
        await kube.delete(CONFIGURATIONS, wanted["metadata"]["name"])


async def review(kube, namespace, **labels):
    """Let the API server review a ConfigMap without storing it; return it as it would be."""
    obj = manifest(CONFIG_MAPS, f"a-{uuid.uuid4().hex[:8]}", namespace, labels=labels)
    path = f"{CONFIG_MAPS.path(namespace)}?dryRun=All"
    headers = {"Content-Type": "application/json"}
    return json.loads(await kube.client.raw("POST", path, body=json.dumps(obj).encode(), headers=headers))


def noted(obj):
    """The process id that the webhook noted, None when it was not asked."""
    return obj["metadata"].get("annotations", {}).get(NOTE)


class Load:
    """Reviews through the API server, several at a time, for as long as the `async with` lasts."""

    def __init__(self, kube, namespace, at_a_time=8):
        self.kube = kube
        self.namespace = namespace
        self.at_a_time = at_a_time
        self.answered = 0
        self.refused = []

    async def __aenter__(self):
        self._tasks = [asyncio.create_task(self._ask()) for _ in range(self.at_a_time)]
        return self

    async def __aexit__(self, *_):
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _ask(self):
        while True:
            try:
                found = await review(self.kube, self.namespace)
            except KubeError as error:
                self.refused.append(str(error))
            else:
                if noted(found) is None:
                    self.refused.append("admitted without the webhook")
                self.answered += 1

    async def more(self, count):
        """Wait until that many more were answered."""
        goal = self.answered + count
        while self.answered < goal:
            assert not self.refused, self.refused[:3]
            await asyncio.sleep(0.01)


class Balancer:
    """What a Service does: hands new connections to the backends that are ready; connections that exist stay."""

    def __init__(self):
        self.backends = []
        self._next = 0
        self._pumps = set()

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self._server.close()
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    async def _connected(self, reader, writer):
        task = asyncio.current_task()
        self._pumps.add(task)
        task.add_done_callback(self._pumps.discard)
        self._next += 1
        try:
            port = self.backends[self._next % len(self.backends)]
            other_reader, other_writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._pump(reader, other_writer))
                    group.create_task(self._pump(other_reader, writer))
            finally:
                other_writer.close()
        except* (OSError, ZeroDivisionError):
            pass  # nobody serves: the connection ends, as a Service without endpoints ends it
        finally:
            writer.close()

    async def _pump(self, reader, writer):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()


class Fixed(ServedCertificate):
    """A certificate for 127.0.0.1 that never changes; `bundle` is what clients trust it by."""

    def __init__(self):
        super().__init__(SystemClock())
        now = self._clock.now()
        authority = pki.make_authority("tests", now, dt.timedelta(days=1))
        self.bundle = authority.certificate
        assert self.take(pki.issue(authority, ["127.0.0.1", "localhost"], now, dt.timedelta(days=1)))


def trusting(bundle):
    """A client's TLS context."""
    return ssl.create_default_context(cadata=bundle.decode())


@contextlib.asynccontextmanager
async def serving(server):
    """Run a WebhookServer for the body of the `async with`."""
    task = asyncio.create_task(server.run())
    try:
        await until(lambda: server.address is not None or task.done(), step=0.005)
        if task.done():
            task.result()
        yield server
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@contextlib.asynccontextmanager
async def client(bundle, **options):
    """An HTTP client that trusts a bundle."""
    connector = aiohttp.TCPConnector(ssl=trusting(bundle), **options)
    async with aiohttp.ClientSession(connector=connector) as session:
        yield session
