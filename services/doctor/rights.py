"""What each service may do, as questions about its ServiceAccount.

Invariant: what is listed here is what the chart gives, which a test holds it to, but for what only API servers with
OwnerReferencesPermissionEnforcement ask for.
Must not know: who asks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from services.doctor.seen import Service

_READ = ("list", "watch")
_OWN = ("get", "list", "watch", "create", "update", "delete")
_CAPV = "infrastructure.cluster.x-k8s.io"
_CAPI = "cluster.x-k8s.io"
_IPAM = "ipam.cluster.x-k8s.io"
_METAL3 = "ipam.metal3.io"
_GROUNDWORK = "ipam.groundwork.dev"
_PRESETS = "reach.spectrocloud.com"

CLUSTER_SCOPED = frozenset(
    {
        *("customresourcedefinitions", "globalippools", "ipreservations", "clusterpodpresets", "namespaces", "nodes"),
        *(
            "servicecidrs",
            "globalinclusterippools",
            "mutatingwebhookconfigurations",
            "vspheredeploymentzones",
            "vspherefailuredomains",
        ),
    }
)


class Rule(NamedTuple):
    """Verbs on resources of a group, on one object where a name is given."""

    group: str
    resources: tuple[str, ...]
    verbs: tuple[str, ...]
    name: str = ""


class Question(NamedTuple):
    """One right; an empty namespace means everywhere."""

    verb: str
    group: str
    resource: str
    """`plural` or `plural/subresource`."""
    namespace: str = ""
    name: str = ""

    def __str__(self) -> str:
        """`update ipclaims.ipam.metal3.io/status in site-a`."""
        plural, slash, subresource = self.resource.partition("/")
        whole = f"{plural}.{self.group}" if self.group else plural
        named = f" {self.name}" if self.name else ""
        where = f" in {self.namespace}" if self.namespace else ""
        return f"{self.verb} {whole}{slash}{subresource}{named}{where}"


_COMMON = (
    Rule("apiextensions.k8s.io", ("customresourcedefinitions",), _READ),
    Rule("events.k8s.io", ("events",), ("create", "patch")),
)
RULES: dict[str, tuple[Rule, ...]] = {
    "ipam": (
        Rule(_METAL3, ("ippools",), (*_READ, "update")),
        Rule(_GROUNDWORK, ("globalippools",), (*_READ, "update")),
        Rule(_METAL3, ("ippools/status", "ipclaims/status"), ("update",)),
        Rule(_GROUNDWORK, ("globalippools/status",), ("update",)),
        Rule(_METAL3, ("ipclaims",), ("get", *_READ, "update")),
        Rule(_IPAM, ("ipaddressclaims",), ("get", *_READ, "update")),
        Rule(_IPAM, ("ipaddressclaims/status",), ("update",)),
        Rule(_METAL3, ("ipaddresses",), _OWN),
        Rule(_IPAM, ("ipaddresses",), _OWN),
        Rule(_GROUNDWORK, ("ipreservations",), _OWN),
        Rule(_CAPI, ("clusters",), _READ),
    ),
    "capv-integrator": (
        Rule(_CAPV, ("vspheremachines", "vsphereclusters"), ("get", *_READ, "patch")),
        Rule(_CAPV, ("vspheremachines/status", "vsphereclusters/status"), ("patch",)),
        Rule(_CAPV, ("vspherevms", "vspheremachinetemplates"), _READ),
        Rule(_CAPI, ("machines", "clusters"), _READ),
        Rule(_IPAM, ("ipaddressclaims",), _OWN),
        Rule(_METAL3, ("ipclaims",), _OWN),
        Rule(_IPAM, ("ipaddressclaims/status",), ("update",)),
        Rule(_METAL3, ("ipclaims/status",), ("update",)),
        Rule(_IPAM, ("ipaddresses", "inclusterippools", "globalinclusterippools"), _READ),
        Rule(_METAL3, ("ipaddresses", "ippools"), _READ),
        Rule(_GROUNDWORK, ("globalippools",), _READ),
    ),
    "podpreset": (
        Rule(_PRESETS, ("clusterpodpresets", "podpresets"), _READ),
        Rule(_PRESETS, ("clusterpodpresets/status", "podpresets/status"), ("patch",)),
        Rule("", ("namespaces", "nodes", "pods"), _READ),
        Rule("", ("services",), _READ, "kubernetes"),
        Rule("discovery.k8s.io", ("endpointslices",), _READ),
        Rule("networking.k8s.io", ("servicecidrs",), _READ),
    ),
    "machine-controller": (
        Rule(_CAPV, ("vspheremachines",), (*_READ, "update", "patch")),
        Rule(_CAPV, ("vsphereclusters", "vspheredeploymentzones"), (*_READ, "update")),
        Rule(_CAPV, ("vspheremachines/status", "vsphereclusters/status", "vspheredeploymentzones/status"), ("update",)),
        Rule(_CAPV, ("vspherefailuredomains",), ("get", *_READ, "update", "delete")),
        Rule(_CAPI, ("machines", "clusters"), _READ),
        Rule(_IPAM, ("ipaddressclaims",), _OWN),
        Rule(_IPAM, ("ipaddresses",), ("get",)),
        Rule("", ("secrets",), ("get", *_READ)),
        Rule("", ("configmaps",), ("get",)),
        Rule("coordination.k8s.io", ("leases",), ("get",), "capv-controller-manager-runtime"),
    ),
}
"""Rights in every namespace that a service watches, and on what belongs to none."""


def questions(service: Service) -> Iterator[Question]:
    """Yield what a service has to be allowed, with the flags that it is given."""
    spaces = service.flags.get("watch-namespace") or service.flags.get("namespace") or ("",)
    for rule in (*RULES.get(service.component, ()), *_COMMON):
        for resource in rule.resources:
            scoped = resource.partition("/")[0] not in CLUSTER_SCOPED
            for space in spaces if scoped else ("",):
                for verb in rule.verbs:
                    yield Question(verb, rule.group, resource, space, rule.name)
    leading = service.flag("lease-namespace") or service.namespace
    if service.elects:
        for verb in ("get", "create", "update"):
            yield Question(verb, "coordination.k8s.io", "leases", leading)
    secret = service.flag("cert-secret")
    if secret:
        yield Question("create", "", "secrets", leading)
        for verb in ("get", "list", "watch", "update"):
            yield Question(verb, "", "secrets", leading, secret)
    configuration = service.flag("webhook-configuration")
    if secret and configuration:
        for verb in ("list", "watch", "patch"):
            yield Question(verb, "admissionregistration.k8s.io", "mutatingwebhookconfigurations", "", configuration)
