"""One pod, created as a dry run, to see whether the API server asks the webhook about it.

Invariants: nothing is stored. The pod is one that every Pod Security Standard and quota lets in. With failurePolicy
Ignore a webhook that does not answer is no error, so what tells is its mark on a pod that a preset is for; where no
preset is for a plain pod, the API server's own count of webhooks that it went on without.
Must not know: what the answer means.
Source: Kubernetes docs, "Dynamic Admission Control"; API server metric apiserver_admission_webhook_fail_open_count.
"""

from __future__ import annotations

import copy
import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from services.doctor import objects
from services.doctor.seen import NOT_ASKED, Trial, Unread
from services.podpreset.api import HASH_ANNOTATION
from services.podpreset.cli import whatif
from services.podpreset.cli.workloads import Workload
from services.podpreset.decision import Outcome
from services.proxyenv.complete import Facts
from services.runtime.kube.errors import ApiError, BadRequest, Forbidden, Invalid, NotFound, ServerError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from services.doctor.reader import Reader
    from services.doctor.seen import Hook
    from services.podpreset.cli.live import Cluster
    from services.podpreset.world import World
    from services.runtime.kube.objects import KubeObject

_SYSTEM = frozenset({"kube-system", "kube-public"})
_LOOKED_AT = 200
"""Namespaces in which a preset is looked for."""
_FAIL_OPEN = re.compile(r"^apiserver_admission_webhook_fail_open_count\{([^}]*)\} ([0-9.e+]+)$", re.MULTILINE)
_CONTAINER = {
    "name": "doctor",
    "image": "registry.k8s.io/pause:3.10",
    "resources": {
        "requests": {"cpu": "1m", "memory": "4Mi"},
        "limits": {"cpu": "10m", "memory": "16Mi"},
    },
    "securityContext": {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    },
}
_POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "groundwork-doctor", "labels": {"app.kubernetes.io/managed-by": "groundwork-doctor"}},
    "spec": {
        "containers": [_CONTAINER],
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
    },
}


class Place(NamedTuple):
    """Where the pod is tried, and the preset that gives it something; "" when none does."""

    namespace: str
    preset: str = ""


async def attempt(
    reader: Reader, cluster: Cluster, hooks: Sequence[Hook], untouched: Collection[str]
) -> Trial | Unread:
    """Try a pod that the webhook is asked about; NOT_ASKED where its selectors and flags leave none."""

    async def choose() -> Place | None:
        presets, namespaces = await cluster.presets(), await cluster.namespaces()
        passed = objects.unasked(hooks, namespaces).union(untouched)
        return choice(whatif.world(presets, namespaces, Facts(), passed), namespaces, passed)

    place = await reader.attempt("presets and namespaces", choose)
    if place is None or not objects.asked(hooks, _POD):
        return NOT_ASKED
    if isinstance(place, Unread):
        return place

    async def send() -> Trial:
        before = None if place.preset else await _failed_open(reader, hooks)
        trial = await _send(reader, place)
        after = None if before is None else await _failed_open(reader, hooks)
        return trial if before is None or after is None else trial._replace(failed_open=after - before)

    return await reader.attempt("pods (dry run)", send)


def choice(world: World, namespaces: Iterable[KubeObject], untouched: Collection[str] = ()) -> Place | None:
    """Choose a namespace in which a preset is for the pod; any other where there is none; None if all are passed."""
    passed = _SYSTEM.union(untouched)
    names = [obj.metadata.name for obj in namespaces if obj.metadata.name not in passed and not obj.deleting]
    for name in names[:_LOOKED_AT]:
        admitted = whatif.admit(Workload("Pod", name, "groundwork-doctor", pod(name)), world)
        if admitted.decision.outcome is Outcome.PATCHED:
            return Place(name, str(admitted.decision.applied[0]))
    if not names:
        return None
    return Place("default" if "default" in names else names[0])


def pod(namespace: str) -> dict[str, Any]:
    """Return the pod."""
    made = copy.deepcopy(_POD)
    made["metadata"]["namespace"] = namespace  # type: ignore[index]  # a dict, as it stands above
    return made


async def _send(reader: Reader, place: Place) -> Trial:
    try:
        answer = await reader.client.raw(
            "POST",
            f"/api/v1/namespaces/{place.namespace}/pods?dryRun=All",
            body=json.dumps(pod(place.namespace)).encode(),
            headers={"Content-Type": "application/json"},
        )
    except (Forbidden, BadRequest, Invalid, ServerError) as error:
        if isinstance(error, Forbidden) and "cannot create resource" in error.message:
            raise  # a right that the user lacks, not an answer about the pod
        return Trial(place.namespace, place.preset, marked=False, refused=error.message, failed_open=None)
    marks = json.loads(answer)["metadata"].get("annotations") or {}
    return Trial(place.namespace, place.preset, marked=HASH_ANNOTATION in marks, refused="", failed_open=None)


async def _failed_open(reader: Reader, hooks: Sequence[Hook]) -> int | None:
    """How often the API server has gone on without one of the webhooks; None when it does not say."""
    try:
        text = (await reader.client.raw("GET", "/metrics", headers={"Accept": "text/plain"})).decode()
    except (Forbidden, NotFound, ApiError):
        return None
    return counted(text, {hook.name for hook in hooks})


def counted(text: str, names: set[str]) -> int:
    """Sum the metric over the webhooks of these names."""
    labels = {f'name="{name}"' for name in names}
    return sum(int(float(value)) for found, value in _FAIL_OPEN.findall(text) if labels & set(found.split(",")))
