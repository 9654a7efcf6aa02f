"""A namespace whose pods the webhook is asked about, and what administrators and tenants do there.

Responsible for: making presets and pods through the API server, and waiting until the webhook knows a preset.
Invariants: a ClusterPodPreset made here is for this namespace alone, whatever else it selects, and goes with the test;
so tests that share an API server do not see each other's.
"""

from __future__ import annotations

import json
import uuid
from contextlib import asynccontextmanager
from urllib.parse import urlencode

from services.podpreset.api import CLUSTER_POD_PRESETS, POD_PRESETS
from services.runtime.kube.resource import Resource
from tests.support.kube import NAMESPACES, eventually, manifest
from tests.support.webhook import SCOPE_LABEL

PODS = Resource("", "v1", "pods", "Pod", namespaced=True)
NAME_LABEL = "kubernetes.io/metadata.name"
APPLIED = "podpreset.admission.kubernetes.io/podpreset-"
CLUSTER_APPLIED = "podpreset.admission.kubernetes.io/clusterpodpreset-"
EXCLUDE = "podpreset.admission.kubernetes.io/exclude"
HASH = "podpreset.groundwork.dev/hash"
MIRROR = "kubernetes.io/config.mirror"


def container(name="app", **fields):
    return {"name": name, "image": "registry.invalid/image", **fields}


def pod(name="pod", labels=None, annotations=None, *, containers=None, **spec):
    """A pod as a user writes it; one container unless told otherwise."""
    meta = {"name": name}
    if labels:
        meta["labels"] = labels
    if annotations:
        meta["annotations"] = annotations
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": meta,
        "spec": {"containers": containers or [container()], **spec},
    }


def env(one):
    """Environment of a container in order, as (name, value); what comes from elsewhere is shown as that."""
    return [(var["name"], var.get("value", var.get("valueFrom"))) for var in one.get("env", [])]


def first(obj):
    """The first container of a pod."""
    return obj["spec"]["containers"][0]


def mounts(one):
    """Mounts of a container but for those that a ServiceAccount brings, as (volume, path)."""
    return [(mount["name"], mount["mountPath"]) for mount in one.get("volumeMounts", [])]


def volumes(obj):
    """Names of a pod's volumes in order."""
    return [volume["name"] for volume in obj["spec"].get("volumes", [])]


def applied(obj):
    """What a pod carries that begins as our annotations do: everything we ever write about presets."""
    return {
        key: value
        for key, value in (obj["metadata"].get("annotations") or {}).items()
        if key.startswith((APPLIED, CLUSTER_APPLIED))
    }


def ready(preset):
    """The condition Ready of a preset for the spec it has now; None while there is none."""
    status = preset.get("status", {})
    if status.get("observedGeneration") != preset["metadata"]["generation"]:
        return None
    return next((c for c in status.get("conditions", []) if c["type"] == "Ready"), None)


class Site:
    """One namespace; `id` is in the names of what it makes that is cluster-scoped."""

    def __init__(self, kube, namespace):
        self.kube = kube
        self.namespace = namespace
        self.id = namespace.rpartition("-")[2]
        self._made = []

    @classmethod
    @asynccontextmanager
    async def made(cls, kube, scope, **labels):
        """A site in a new namespace that the webhook of `scope` is asked about."""
        namespace = f"site-{uuid.uuid4().hex[:10]}"
        own = {SCOPE_LABEL: scope, **labels}
        await kube.create(NAMESPACES, manifest(NAMESPACES, namespace, labels=own))
        site = cls(kube, namespace)
        try:
            yield site
        finally:
            for resource, name, where in site._made:
                if await kube.find(resource, name, where) is not None:
                    await kube.delete(resource, name, where)

    async def cluster_preset(self, name="base", *, wait=True, **spec):
        """Make a ClusterPodPreset for this namespace; its name is made unique unless it is long already."""
        name = name if len(name) > 60 else f"{name}-{self.id}"
        here = {"matchLabels": {NAME_LABEL: self.namespace}}
        return await self._make(CLUSTER_POD_PRESETS, name, "", {"namespaceSelector": here, **spec}, wait=wait)

    async def preset(self, name="preset", *, wait=True, **spec):
        """Make a PodPreset."""
        return await self._make(POD_PRESETS, name, self.namespace, spec, wait=wait)

    async def _make(self, resource, name, namespace, spec, *, wait):
        made = await self.kube.create(resource, manifest(resource, name, namespace, spec))
        self._made.append((resource, name, namespace))
        return await self.known(made) if wait else made

    async def known(self, preset):
        """Wait until the webhook has told whether it can apply the preset as it is now; that is the last it does."""
        resource = CLUSTER_POD_PRESETS if preset["kind"] == "ClusterPodPreset" else POD_PRESETS
        meta = preset["metadata"]
        return await eventually(lambda: self.kube.get(resource, meta["name"], meta.get("namespace", "")), ready)

    async def change(self, preset, **spec):
        """Change fields of a preset's spec and wait until the webhook knows."""
        resource = CLUSTER_POD_PRESETS if preset["kind"] == "ClusterPodPreset" else POD_PRESETS
        meta = preset["metadata"]
        changed = await self.kube.patch(resource, meta["name"], meta.get("namespace", ""), spec=spec)
        return await self.known(changed)

    async def create(self, obj, **query):
        """Create a pod as it is and return what the API server made of it."""
        path = PODS.path(self.namespace) + (f"?{urlencode(query)}" if query else "")
        return await self.kube._send("POST", path, obj)

    async def pod(self, labels=None, annotations=None, *, name="", containers=None, **spec):
        """Create a pod of a new name and return it."""
        made = pod(name or f"pod-{uuid.uuid4().hex[:8]}", labels, annotations, containers=containers, **spec)
        return await self.create(made)

    async def debug(self, name, *added):
        """Add ephemeral containers to a pod, as `kubectl debug` does; the pod then."""
        found = await self.kube.get(PODS, name, self.namespace)
        found["spec"]["ephemeralContainers"] = [*found["spec"].get("ephemeralContainers", []), *added]
        path = PODS.path(self.namespace, name, "ephemeralcontainers")
        return json.loads(
            await self.kube.client.raw(
                "PUT", path, body=json.dumps(found).encode(), headers={"Content-Type": "application/json"}
            )
        )
