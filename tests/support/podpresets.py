"""Presets, pods and reviews for the tests of the webhook's pure part, and what a patch makes of a pod."""

from __future__ import annotations

import json

import jsonpatch

from services.podpreset import pods
from services.podpreset.api import CLUSTER_KIND, NAMESPACED_KIND
from services.podpreset.compiled import compile_preset
from services.podpreset.decide import decide
from services.podpreset.decision import Review
from services.podpreset.world import World
from services.runtime.kube.objects import KubeObject, ObjectMeta, raw

NAMESPACE = "team"


def cluster_preset(name="wide", **spec):
    """A ClusterPodPreset; fields of the spec as in YAML."""
    meta = ObjectMeta(name=name, resourceVersion="7")
    return compile_preset(KubeObject(kind=CLUSTER_KIND, metadata=meta, spec=raw(spec)))


def preset(name="narrow", namespace=NAMESPACE, **spec):
    """A PodPreset; fields of the spec as in YAML."""
    meta = ObjectMeta(name=name, namespace=namespace, resourceVersion="7")
    return compile_preset(KubeObject(kind=NAMESPACED_KIND, metadata=meta, spec=raw(spec)))


def var(name, value="", **metadata):
    """An item of a preset's env; `metadata` as in YAML."""
    return {"name": name, "value": value, **({"metadata": metadata} if metadata else {})}


def env(**variables):
    """An env in the order given."""
    return [{"name": name, "value": value} for name, value in variables.items()]


def container(name="app", **fields):
    return {"name": name, "image": "example.com/app:1", **fields}


def pod(*containers, labels=None, annotations=None, **spec):
    """A Pod with these containers, or one named `app` that has nothing."""
    meta = {"name": "p", "namespace": NAMESPACE}
    meta |= {key: value for key, value in (("labels", labels), ("annotations", annotations)) if value is not None}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": meta,
        "spec": {"containers": list(containers or [container()]), **spec},
    }


def world(*presets, labels=None, **kwargs):
    """A World with these presets and the namespace `team`."""
    return World.build(presets, {NAMESPACE: labels or {}}, **kwargs)


def review(body, *, namespace=NAMESPACE, operation="CREATE", subresource="", old=None):
    """A review as the server makes it, of a pod in plain JSON."""
    return Review(operation, subresource, namespace, read(body), read(old))


def read(body):
    return None if body is None else pods.read(json.dumps(body).encode())


def admit(body, where, **request):
    """The decision, and the pod after its patch; checks that the patch keeps to the rules."""
    decision = decide(review(body, **request), where)
    patch = json.loads(json.dumps(decision.patch))
    assert {op["op"] for op in patch} <= {"add", "replace", "test"}
    # A copy through JSON: generated pods may hold one dict in two places, and a patch would change both.
    return decision, jsonpatch.apply_patch(json.loads(json.dumps(body)), patch, in_place=True) if patch else body


def admitted(body, *presets, **kwargs):
    """The pod after admission under these presets."""
    return admit(body, world(*presets, **kwargs))[1]


def env_of(body, name="app"):
    """The env of a container as pairs; a valueFrom is shown as it is."""
    found = container_of(body, name)
    return [(entry["name"], entry.get("valueFrom", entry.get("value", ""))) for entry in found.get("env") or ()]


def container_of(body, name="app"):
    lists = ("containers", "initContainers", "ephemeralContainers")
    return next(c for which in lists for c in body["spec"].get(which) or () if c["name"] == name)
