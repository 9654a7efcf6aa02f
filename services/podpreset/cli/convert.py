"""PodPresets of other projects as ours.

Responsible for: `settings.k8s.io/v1alpha1` (Kubernetes until 1.19), `redhatcop.redhat.io/v1alpha1` and its fork
`wzrdtalesscp.wzrdtales.com/v1alpha1`, and Kubeflow's PodDefault. The fields they share have one meaning; where a field,
or what happens on a conflict, has no counterpart it is said.
Invariants: nothing is dropped in silence: what has no counterpart is a note of the object. What was converted passes
the validation of our definitions.
Must not know: files, the cluster.
Sources: kubernetes 1.19 pkg/apis/settings, redhat-cop/podpreset-webhook, kubeflow admission-webhook PodDefault.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from services.podpreset import api
from services.podpreset.compiled import compile_preset, mount_path
from services.podpreset.sameness import same
from services.proxyenv import names
from services.runtime.kube.objects import KubeObject, decode, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Json = dict[str, Any]

SETTINGS = "settings.k8s.io"
REDHAT = "redhatcop.redhat.io"
WZRDTALES = "wzrdtalesscp.wzrdtales.com"
KUBEFLOW = "kubeflow.org"

_SHARED = ("selector", "env", "envFrom", "volumes", "volumeMounts")
_DESCRIPTION = "kubernetes.io/description"
# Written by servers and by kubectl, about the old object.
_LEFT_BEHIND = frozenset({"kubectl.kubernetes.io/last-applied-configuration"})


class _Kind(NamedTuple):
    target: str
    policy: str
    remarks: tuple[str, ...]


_SKIP_ALL = "conflictPolicy SkipAll: a pod with a different value of its own is left as it came, which is what it did"
_EMPTIED = "conflictPolicy SkipVariable: on a conflict its webhook emptied the env and mounts of the container"
_REJECT = "conflictPolicy Reject: a pod with a different value of its own is refused, which is what it did"
_LAST = "PodPresets are applied after it and win; its webhook applied them before"
_SPELLINGS = "proxy variables are set in both letter cases"
_MERGED = "NO_PROXY is merged with what a container has of its own"

_KINDS = {
    (SETTINGS, "PodPreset"): _Kind(api.NAMESPACED_KIND, api.SKIP_ALL, (_SKIP_ALL,)),
    (REDHAT, "PodPreset"): _Kind(api.NAMESPACED_KIND, api.SKIP_VARIABLE, (_EMPTIED,)),
    (WZRDTALES, "PodPreset"): _Kind(api.NAMESPACED_KIND, api.SKIP_VARIABLE, (_EMPTIED,)),
    (WZRDTALES, "ClusterPodPreset"): _Kind(api.CLUSTER_KIND, api.SKIP_VARIABLE, (_EMPTIED, _LAST)),
    (KUBEFLOW, "PodDefault"): _Kind(api.NAMESPACED_KIND, api.REJECT, (_REJECT,)),
}
KNOWN = tuple(f"{kind}.{group}" for group, kind in _KINDS)
"""What can be converted, for messages."""


class Converted(NamedTuple):
    """An object of ours; `lost` says what has no counterpart, `remarks` what means something a little different."""

    obj: Json
    source: str
    lost: tuple[str, ...]
    remarks: tuple[str, ...]


def convertible(obj: Json) -> bool:
    """Whether an object is one of the kinds that are converted."""
    return _kind_key(obj) in _KINDS


def convert(obj: Json) -> Converted:
    """Convert one object, for which `convertible` holds."""
    group, kind = _kind_key(obj)
    known = _KINDS[group, kind]
    given = obj.get("spec")
    spec: Json = {key: value for key, value in (given if isinstance(given, dict) else {}).items() if value}
    lost: list[str] = []
    remarks = list(known.remarks)
    made = {key: spec.pop(key) for key in _SHARED if key in spec}
    # A key that must be unique in ours was a conflict with itself before, so nothing of the preset was applied.
    for field, key in (("env", _name), ("volumes", _name), ("volumeMounts", mount_path)):
        if isinstance(made.get(field), list):
            made[field] = list(_unique(made[field], field, key, lost))
    meta = _metadata(obj.get("metadata") or {}, namespaced=known.target == api.NAMESPACED_KIND)
    description = spec.pop("desc", None)
    if description:
        meta.setdefault("annotations", {})[_DESCRIPTION] = str(description)
    lost += [f"spec.{field}: {_LOST.get(field, 'no counterpart')}" for field in spec]
    remarks += _remarks(made, known.policy)
    made["conflictPolicy"] = known.policy
    result = {"apiVersion": f"{api.GROUP}/{api.VERSION}", "kind": known.target, "metadata": meta, "spec": made}
    lost += compile_preset(_kube_object(result)).problems
    name = f"{meta['namespace']}/{meta['name']}" if meta.get("namespace") else meta.get("name", "")
    return Converted(result, f"{kind}.{group} {name}", tuple(lost), tuple(remarks))


_LOST = {
    "annotations": "presets put no annotations on pods: a MutatingAdmissionPolicy does",
    "labels": "presets put no labels on pods: a MutatingAdmissionPolicy does",
    "tolerations": "presets add no tolerations: the PodTolerationRestriction plugin or a MutatingAdmissionPolicy does",
    "serviceAccountName": "presets do not choose a service account: name it in the pod",
    "automountServiceAccountToken": "presets do not change it: set it on the service account",
    "command": "presets do not change what a container runs",
    "args": "presets do not change what a container runs",
    "sidecars": "presets add no containers",
    "initContainers": "presets add no containers",
    "imagePullSecrets": "presets add none: put them on the service account",
}


def _kind_key(obj: Json) -> tuple[str, str]:
    return str(obj.get("apiVersion") or "").rpartition("/")[0], str(obj.get("kind") or "")


def _kube_object(obj: Json) -> KubeObject:
    return decode(encode(obj), KubeObject)


def _metadata(meta: Json, *, namespaced: bool) -> Json:
    kept = {key: meta[key] for key in ("name", *(("namespace",) if namespaced else ()), "labels") if meta.get(key)}
    annotations = {key: value for key, value in (meta.get("annotations") or {}).items() if key not in _LEFT_BEHIND}
    return {**kept, "annotations": annotations} if annotations else kept


def _remarks(spec: Json, policy: str) -> Iterator[str]:
    families = {names.family(str(item.get("name"))) for item in spec.get("env") or () if isinstance(item, dict)}
    if families != {None} and families:
        yield _SPELLINGS
    if names.NO_PROXY in families and policy != api.SKIP_ALL:
        yield _MERGED


def _name(item: Json) -> str:
    return str(item.get("name") or "")


def _unique(items: Iterable[Any], field: str, key: Callable[[Json], str], lost: list[str]) -> Iterator[Any]:
    seen: dict[str, Any] = {}
    for item in items:
        if not isinstance(item, dict):
            lost.append(f"spec.{field}: an item that is no object")
            continue
        known = seen.setdefault(key(item), item)
        if known is item:
            yield item
        elif not same(known, item):
            lost.append(f"spec.{field}: a second {key(item)} that differs; the first is kept")
