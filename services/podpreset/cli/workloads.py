"""The pods that workloads make: templates of Deployments and the like, and who owns a running pod.

Responsible for: which kinds carry a pod template and where; the pod as its controller would send it to the API server;
the workload that a person knows a pod by.
Invariants: the pod of a template is a copy; nothing that was read is changed.
Must not know: presets, files, the API server.
Source: API reference of core/v1, apps/v1 and batch/v1.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, NamedTuple

from services.runtime.kube.resource import Resource

if TYPE_CHECKING:
    from collections.abc import Mapping

Json = dict[str, Any]

PODS = Resource("", "v1", "pods", "Pod", namespaced=True)
REPLICA_SETS = Resource("apps", "v1", "replicasets", "ReplicaSet", namespaced=True)
DEPLOYMENTS = Resource("apps", "v1", "deployments", "Deployment", namespaced=True)
STATEFUL_SETS = Resource("apps", "v1", "statefulsets", "StatefulSet", namespaced=True)
DAEMON_SETS = Resource("apps", "v1", "daemonsets", "DaemonSet", namespaced=True)
JOBS = Resource("batch", "v1", "jobs", "Job", namespaced=True)
CRON_JOBS = Resource("batch", "v1", "cronjobs", "CronJob", namespaced=True)
REPLICATION_CONTROLLERS = Resource("", "v1", "replicationcontrollers", "ReplicationController", namespaced=True)

TEMPLATED = (DEPLOYMENTS, STATEFUL_SETS, DAEMON_SETS, JOBS, CRON_JOBS, REPLICA_SETS, REPLICATION_CONTROLLERS)
"""Kinds that make pods from a template in their spec."""

_TEMPLATE = ("spec", "template")
_PLACES = {resource.kind: _TEMPLATE for resource in TEMPLATED} | {
    CRON_JOBS.kind: ("spec", "jobTemplate", "spec", "template"),
    "PodTemplate": ("template",),
}


class NoPodError(Exception):
    """An object that should hold a pod and does not; the message says which."""


class Workload(NamedTuple):
    """A pod to be, and what makes it."""

    kind: str
    namespace: str
    name: str
    pod: Json
    """apiVersion, kind, metadata and spec."""

    def __str__(self) -> str:
        """`Deployment ns/name`, the form used in messages."""
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


def workload(obj: Json, namespace: str = "") -> Workload | None:
    """Return the pod in an object, None for an object of a kind that makes none.

    `namespace` is where it is taken to be when it says nothing. Raises NoPodError for a template that is none.
    """
    kind = str(obj.get("kind") or "")
    meta = obj.get("metadata")
    meta = meta if isinstance(meta, dict) else {}
    namespace = str(meta.get("namespace") or namespace)
    name = str(meta.get("name") or meta.get("generateName") or "")
    if kind == PODS.kind:
        return Workload(kind, namespace, name, _pod({**obj, "metadata": {**meta, "namespace": namespace}}))
    if kind not in _PLACES:
        return None
    found: Any = obj
    for step in _PLACES[kind]:
        found = found.get(step) if isinstance(found, dict) else None
    if not isinstance(found, dict):
        raise NoPodError(f"{kind} {name}: no {'.'.join(_PLACES[kind])}")
    own = found.get("metadata")
    own = own if isinstance(own, dict) else {}
    pod = {**found, "metadata": {**_generated(own, name), "namespace": namespace}}
    return Workload(kind, namespace, name, _pod(pod))


def _generated(meta: Json, name: str) -> Json:
    kept = {key: value for key, value in meta.items() if key in {"labels", "annotations"} and value}
    return {"generateName": f"{name}-", **kept}


def _pod(data: Json) -> Json:
    meta, spec = data["metadata"], data.get("spec")
    if not isinstance(spec, dict):
        raise NoPodError(f"Pod {meta.get('name') or meta.get('generateName') or ''}: no spec")
    kept = {key: item for key, item in meta.items() if item is not None and item != "" and key != "managedFields"}
    return copy.deepcopy({"apiVersion": "v1", "kind": "Pod", "metadata": kept, "spec": spec})


class Owner(NamedTuple):
    """A controller as an owner reference names it."""

    kind: str
    name: str
    uid: str


def top(owner: Owner | None, parents: Mapping[str, Owner]) -> Owner | None:
    """Return the controller at the end of a pod's chain of owners; `parents` has the controller of each uid."""
    seen: set[str] = set()
    while owner is not None and owner.uid in parents and owner.uid not in seen:
        seen.add(owner.uid)
        owner = parents[owner.uid]
    return owner
