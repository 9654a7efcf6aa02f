"""Kubernetes objects as plain JSON, read into the values of `seen`; and what is asked about them.

Invariants: pure; what an object lacks is its default, since others' objects may be of any shape that the API takes.
Must not know: where they come from.
"""

from __future__ import annotations

import base64
import binascii
import shlex
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from services.doctor.seen import Hook, Lease, Provider, Service
from services.podpreset.api import LabelSelector
from services.podpreset.selectors import compile_selector
from services.runtime.kube.resource import Resource

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from services.doctor.rights import Question
    from services.podpreset.selectors import Match
    from services.runtime.kube.objects import KubeObject

Json = dict[str, Any]

PART_OF = "app.kubernetes.io/part-of"
COMPONENT = "app.kubernetes.io/component"
PROVIDER = "cluster.x-k8s.io/provider"
GROUNDWORK = "groundwork"
COMPONENTS = ("ipam", "capv-integrator", "podpreset", "machine-controller")
LEFT = ("kube-node-lease",)
"""What the webhook leaves alone besides kube-system and its own namespace, unless it is told."""
WEBHOOK_DOMAIN = "reach.spectrocloud.com"
"""What the names of our webhooks end with."""

DEPLOYMENTS = Resource("apps", "v1", "deployments", "Deployment", namespaced=True)
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease", namespaced=True)
SERVICES = Resource("", "v1", "services", "Service", namespaced=True)
SECRETS = Resource("", "v1", "secrets", "Secret", namespaced=True)
ENDPOINT_SLICES = Resource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", namespaced=True)
MUTATING = Resource(
    "admissionregistration.k8s.io",
    "v1",
    "mutatingwebhookconfigurations",
    "MutatingWebhookConfiguration",
    namespaced=False,
)


def service(obj: Json) -> Service | None:
    """Read a Deployment; None for one that is no service of ours, such as the status page's."""
    meta, spec = obj["metadata"], obj.get("spec") or {}
    component = (meta.get("labels") or {}).get(COMPONENT, "")
    if component not in COMPONENTS:
        return None
    pod = (spec.get("template") or {}).get("spec") or {}
    container: Json = next(iter(pod.get("containers") or ()), {})
    status = obj.get("status") or {}
    trouble = [
        condition.get("message", "")
        for condition in status.get("conditions") or ()
        if (condition.get("type"), condition.get("status"))
        in {("Progressing", "False"), ("ReplicaFailure", "True"), ("Available", "False")}
    ]
    return Service(
        component=component,
        namespace=meta.get("namespace", ""),
        name=meta["name"],
        account=pod.get("serviceAccountName") or "default",
        replicas=spec.get("replicas", 1),
        available=status.get("availableReplicas") or 0,
        trouble="; ".join(filter(None, trouble)),
        flags=_flags(container),
        mounted=_mounted(pod, container),
    )


def _flags(container: Json) -> dict[str, tuple[str, ...]]:
    """Flags of the command line, those that variables stand for below them."""
    found: dict[str, tuple[str, ...]] = {}
    for variable in container.get("env") or ():
        name = str(variable.get("name", ""))
        if name.startswith("GROUNDWORK_") and "value" in variable:
            flag = name.removeprefix("GROUNDWORK_").lower().replace("_", "-")
            found[flag] = tuple(str(variable["value"]).split(","))
    given: dict[str, tuple[str, ...]] = {}
    words = [str(word) for word in (*(container.get("command") or ()), *(container.get("args") or ()))]
    if len(words) == 3 and words[:2] in (["sh", "-c"], ["/bin/sh", "-c"]):  # noqa: PLR2004 - shell, flag and script
        try:
            words = shlex.split(words[2])
        except ValueError:  # a script that is more than words, such as one with an apostrophe in a comment
            words = words[2].split()
    for place, word in enumerate(words):
        if not word.startswith("--"):
            continue
        name, equals, value = word.removeprefix("--").partition("=")
        following = words[place + 1] if place + 1 < len(words) else "--"
        if not equals:
            value = "true" if following.startswith("-") else following
        given[name] = (*given.get(name, ()), value)
    return found | given


def _mounted(pod: Json, container: Json) -> dict[str, str]:
    secrets = {
        volume["name"]: volume["secret"].get("secretName", "")
        for volume in pod.get("volumes") or ()
        if volume.get("secret")
    }
    return {
        mount["mountPath"]: secrets[mount["name"]]
        for mount in container.get("volumeMounts") or ()
        if mount.get("name") in secrets
    }


def provider(obj: Json) -> Provider:
    """Read a Deployment of Cluster API or of a provider."""
    meta = obj["metadata"]
    containers: Sequence[Json] = ((obj["spec"].get("template") or {}).get("spec") or {}).get("containers") or ({},)
    main = next((each for each in containers if each.get("name") == "manager"), containers[0])
    return Provider(
        label=(meta.get("labels") or {}).get(PROVIDER, ""),
        namespace=meta.get("namespace", ""),
        name=meta["name"],
        image=main.get("image", ""),
        available=(obj.get("status") or {}).get("availableReplicas") or 0,
    )


def lease_of(found: Service) -> tuple[str, str]:
    """Return namespace and name of the Lease of a service."""
    return found.flag("lease-namespace") or found.namespace, f"groundwork-{found.component}"


def lease(obj: Json) -> Lease:
    """Read a Lease."""
    spec = obj.get("spec") or {}
    return Lease(
        namespace=obj["metadata"]["namespace"],
        name=obj["metadata"]["name"],
        holder=spec.get("holderIdentity") or "",
        renewed=datetime.fromisoformat(spec["renewTime"]) if spec.get("renewTime") else None,
    )


def review(question: Question, user: str, namespace: str) -> Json:
    """Return a SubjectAccessReview of a service account."""
    plural, _, subresource = question.resource.partition("/")
    attributes = {
        "verb": question.verb,
        "group": question.group,
        "resource": plural,
        "subresource": subresource,
        "namespace": question.namespace,
        "name": question.name,
    }
    groups = ["system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"]
    return {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": user, "groups": groups, "resourceAttributes": {k: v for k, v in attributes.items() if v}},
    }


def hooks(obj: Json) -> Iterator[Hook]:
    """Yield the webhooks of ours in a configuration; what is behind their Services is not known yet."""
    for each in obj.get("webhooks") or ():
        if not str(each["name"]).endswith(WEBHOOK_DOMAIN):
            continue
        client = each.get("clientConfig") or {}
        named = client.get("service")
        yield Hook(
            configuration=obj["metadata"]["name"],
            name=each["name"],
            policy=each.get("failurePolicy", "Fail"),
            bundle=_decoded(client.get("caBundle") or ""),
            service=(named["namespace"], named["name"]) if named else None,
            endpoint=None,
            namespaces=_selector(each, "namespaceSelector"),
            pods=_selector(each, "objectSelector"),
        )


def _selector(webhook: Json, field: str) -> Match:
    return compile_selector(msgspec.convert(webhook.get(field), LabelSelector | None), field).match


def unasked(found: Sequence[Hook], namespaces: Iterable[KubeObject]) -> set[str]:
    """Return the namespaces whose pods are sent to none of the webhooks; nothing is known where there is no webhook."""
    labels = {obj.metadata.name: obj.metadata.labels or {} for obj in namespaces}
    return {name for name, own in labels.items() if found and not any(hook.namespaces(own) for hook in found)}


def asked(found: Sequence[Hook], pod: Json) -> bool:
    """Tell whether a pod is sent, as far as its labels go; as above where there is no webhook."""
    labels = pod["metadata"].get("labels") or {}
    return not found or any(hook.pods(labels) for hook in found)


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return b""


def ready(slices: Sequence[Json]) -> int:
    """Count the addresses of EndpointSlices that are ready; not said means that they are."""
    endpoints = [endpoint for each in slices for endpoint in each.get("endpoints") or ()]
    return sum((endpoint.get("conditions") or {}).get("ready") is not False for endpoint in endpoints)


def secret_of(found: Service) -> tuple[str, str]:
    """Return namespace and name of the Secret with the certificate that a webhook serves; no name when not known."""
    own = found.flag("cert-secret")
    if own:
        return found.flag("lease-namespace") or found.namespace, own
    return found.namespace, _under(found.flag("cert-dir"), found.mounted)


def untouched(found: Iterable[Service]) -> tuple[str, ...]:
    """Return the namespaces that the webhook leaves alone besides kube-system; the defaults where it is not found."""
    webhooks = [each for each in found if each.component == "podpreset"]
    names = [name for each in webhooks for name in (*each.flags.get("untouched-namespace", LEFT), each.namespace)]
    return tuple(dict.fromkeys(names or (*LEFT, "groundwork-system")))


def _under(path: str, mounted: Mapping[str, str]) -> str:
    return mounted.get(path.rstrip("/"), "") if path else ""
