"""The API server as its users see it: plain dicts in and out over the services' own transport, and patience.

Responsible for: the verbs that a user or another controller would use, and `eventually`, the only way tests wait.
Invariants: nothing here knows an allocator; a condition that never comes true fails with what was seen last.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlencode

from services.runtime.kube import config
from services.runtime.kube.errors import ConnectionFailed, NotFound, ServerError, TooManyRequests
from services.runtime.kube.resource import EVENTS, Resource
from services.runtime.kube.transport import Client, PatchKind

NAMESPACES = Resource("", "v1", "namespaces", "Namespace", namespaced=False)
PATIENCE_SECONDS = 60.0
_POLL_SECONDS = (0.01, 0.2)


async def eventually(look, holds=bool, *, within=PATIENCE_SECONDS):
    """Ask `look` (an async function) until `holds` its answer, and return that; what does not exist counts as None.

    A server that cannot answer now, because it sheds load or has just started, is asked again.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    pause, longest = _POLL_SECONDS
    while True:
        try:
            seen = await look()
        except (TooManyRequests, ServerError, ConnectionFailed) as error:
            if loop.time() > deadline:
                raise
            seen = str(error)
        except NotFound:
            if holds(seen := None):
                return seen
        else:
            if holds(seen):
                return seen
        if loop.time() > deadline:
            raise AssertionError(f"did not come true in {within:g} s; last seen: {_shown(seen)}")
        await asyncio.sleep(pause)
        pause = min(longest, pause * 1.5)


def _shown(seen):
    """What was seen, without the book-keeping that nobody looks for."""

    def without(value):
        if isinstance(value, dict):
            return {key: without(item) for key, item in value.items() if key != "managedFields"}
        return [without(item) for item in value] if isinstance(value, list | tuple) else value

    return json.dumps(without(seen), indent=1, default=str)


def manifest(resource, name, namespace="", spec=None, **metadata):
    """An object as a user writes it; `metadata` are further fields of metadata."""
    meta = {"name": name, **metadata}
    if namespace:
        meta["namespace"] = namespace
    obj = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": meta}
    return obj if spec is None else {**obj, "spec": spec}


class Kube:
    """One API server. Errors are those of services.runtime.kube.errors."""

    def __init__(self, client):
        self.client = client

    @classmethod
    @asynccontextmanager
    async def connect(cls, kubeconfig):
        async with Client(await config.load(str(kubeconfig)), user_agent="tests") as client:
            yield cls(client)

    async def get(self, resource, name, namespace=""):
        return json.loads(await self.client.raw("GET", resource.path(namespace, name)))

    async def find(self, resource, name, namespace=""):
        """Like `get`, but None when there is no such object."""
        try:
            return await self.get(resource, name, namespace)
        except NotFound:
            return None

    async def list(self, resource, namespace=""):
        return json.loads(await self.client.raw("GET", resource.path(namespace)))["items"]

    async def create(self, resource, obj):
        namespace = obj["metadata"].get("namespace", "")
        return await self._send("POST", resource.path(namespace), obj)

    async def patch(self, resource, name, namespace="", **changes):
        """JSON merge patch: None removes a field."""
        return await self._send("PATCH", resource.path(namespace, name), changes, PatchKind.MERGE)

    async def annotate(self, resource, name, namespace="", **annotations):
        return await self.patch(resource, name, namespace, metadata={"annotations": annotations})

    async def set_status(self, resource, name, namespace, status):
        """Replace the whole status, whatever it was; None removes it."""
        change = [{"op": "remove", "path": "/status"}]
        if status is not None:
            change = [{"op": "add", "path": "/status", "value": status}]
        return await self._send("PATCH", resource.path(namespace, name, "status"), change, PatchKind.JSON)

    async def set_finalizers(self, resource, name, namespace, *finalizers):
        """Replace all finalizers: with none given, what somebody does who forces a deletion."""
        return await self.patch(resource, name, namespace, metadata={"finalizers": list(finalizers) or None})

    async def delete(self, resource, name, namespace="", *, propagation=None):
        """Ask for deletion; that is over at once unless a finalizer holds it up."""
        query = f"?{urlencode({'propagationPolicy': propagation})}" if propagation else ""
        return await self._send("DELETE", resource.path(namespace, name) + query)

    async def gone(self, resource, name, namespace=""):
        """Wait until there is no such object."""
        await eventually(lambda: self.find(resource, name, namespace), lambda obj: obj is None)

    async def force_delete(self, resource, name, namespace=""):
        """Delete an object and strip the finalizers that others rely on."""
        await self.delete(resource, name, namespace)
        if await self.find(resource, name, namespace) is not None:
            with suppress(NotFound):  # who finalises it was faster
                await self.set_finalizers(resource, name, namespace)
        await self.gone(resource, name, namespace)

    async def events(self, obj):
        """Events about an object, oldest first."""
        found = await self.list(EVENTS, obj["metadata"].get("namespace", "default"))
        about = [event for event in found if event["regarding"].get("uid") == obj["metadata"]["uid"]]
        return sorted(about, key=lambda event: event["eventTime"])

    async def _send(self, method, path, content=None, kind=None):
        body = None if content is None else json.dumps(content).encode()
        headers = {"Content-Type": kind.value if kind else "application/json"}
        return json.loads(await self.client.raw(method, path, body=body, headers=headers))
