"""For every value of the chart: one that it does not have by default, and what then has to be different.

Responsible for: the table. Rows of one group are rendered together, so that a hundred values cost a few calls of helm;
a row whose value would be in the way of others has a group of its own.
Invariant: what a row looks for must not be there by default.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from tests.support.chart import COMPONENTS, KEYS, NAMESPACE, merged

if TYPE_CHECKING:
    from collections.abc import Mapping

TOGETHER = "together"
LABELS = {"team": "network"}
NOTES = {"note": "of the team"}


class Row(NamedTuple):
    """`given` at `path` makes `holds(rendering)` true; `also` are values without which it would mean nothing."""

    path: str
    given: object
    holds: object
    group: str = TOGETHER
    also: Mapping = MappingProxyType({})


def _every(test):
    """What holds for each service."""
    return lambda r: all(test(r, component) for component in COMPONENTS)


def _has(wanted, found):
    return wanted.items() <= (found or {}).items()


def _notes(kind, name):
    return lambda r: _has(NOTES, (r.find(kind, name) or {"metadata": {}})["metadata"].get("annotations"))


def _labels(kind, name):
    return lambda r: _has(LABELS, (r.find(kind, name) or {"metadata": {}})["metadata"].get("labels"))


def _rule(r, which, *, egress=True):
    policy = r.one("NetworkPolicy", which)
    return [] if policy is None else policy["spec"]["egress" if egress else "ingress"]


def _reaches(component, **rule):
    return lambda r: any(rule.items() <= found.items() for found in _rule(r, component))


def _monitor(**fields):
    def holds(r):
        found = r.one("ServiceMonitor", "ipam")
        return found is not None and _has(fields, found["spec"]["endpoints"][0])

    return holds


def _hook(r):
    return r.find("Pod", "groundwork-test") or {"spec": {"containers": [{"args": []}]}}


def _webhook(r):
    return r.one("MutatingWebhookConfiguration", "podpreset")["webhooks"][0]


def _expressions(r):
    return _webhook(r)["namespaceSelector"]["matchExpressions"]


def _ports(*numbers):
    return [{"port": number, "protocol": "TCP"} for number in numbers]


def _blocks(*cidrs):
    return [{"ipBlock": {"cidr": cidr}} for cidr in cidrs]


_POLICY = {"networkPolicy": {"enabled": True}}
_MONITOR = {"metrics": {"serviceMonitor": {"enabled": True}}}
_WEB = {"ipam": {"web": {"enabled": True, "service": {"enabled": True}}}}
_SCALED = {"podpreset": {"autoscaling": {"enabled": True}}}
_EXPRESSION = {"key": "tier", "operator": "In", "values": ["front"]}

SHARED = {
    "logLevel": ("debug", lambda r, c: "--log-level=debug" in r.args(c)),
    "logFormat": ("text", lambda r, c: "--log-format=text" in r.args(c)),
    "watchNamespaces": (
        ["one", "two"],
        lambda r, c: {f"--watch-namespace={n}" for n in ("one", "two")} <= set(r.args(c)),
    ),
    "strategy": ({"type": "Recreate"}, lambda r, c: _strategy(r, c) == {"type": "Recreate"}),
    "podSecurityContext": ({"runAsUser": 1000}, lambda r, c: r.pod(c)["securityContext"]["runAsUser"] == 1000),
    "securityContext": ({"privileged": False}, lambda r, c: "privileged" in r.container(c)["securityContext"]),
    "nodeSelector": ({"disk": "fast"}, lambda r, c: r.pod(c).get("nodeSelector") == {"disk": "fast"}),
    "tolerations": ([{"operator": "Exists"}], lambda r, c: r.pod(c).get("tolerations") == [{"operator": "Exists"}]),
    "affinity": ({"podAffinity": {}}, lambda r, c: r.pod(c).get("affinity") == {"podAffinity": {}}),
    "topologySpreadConstraints": (
        [{"maxSkew": 3, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule"}],
        lambda r, c: (
            [
                (row["topologyKey"], row["labelSelector"]["matchLabels"]["app.kubernetes.io/component"])
                for row in r.pod(c).get("topologySpreadConstraints", [])
            ]
            == [("rack", c)]
        ),
    ),
    "priorityClassName": ("high", lambda r, c: r.pod(c).get("priorityClassName") == "high"),
    "podAnnotations": (NOTES, lambda r, c: _has(NOTES, r.pod(c)["metadata"].get("annotations"))),
    "podLabels": ({"pod": "ours"}, lambda r, c: _has({"pod": "ours"}, r.pod(c)["metadata"]["labels"])),
    "env": (
        [{"name": "TZ", "value": "UTC"}],
        lambda r, c: r.container(c).get("env") == [{"name": "TZ", "value": "UTC"}],
    ),
    "extraVolumes": (
        [{"name": "more", "emptyDir": {}}],
        lambda r, c: {"name": "more", "emptyDir": {}} in r.pod(c).get("volumes", []),
    ),
    "extraVolumeMounts": (
        [{"name": "more", "mountPath": "/more"}],
        lambda r, c: {"name": "more", "mountPath": "/more"} in r.container(c).get("volumeMounts", []),
    ),
}
"""Values that a service's block may repeat: given, and what holds for a service (rendering, component)."""


def _strategy(r, component):
    return r.one("Deployment", component)["spec"]["strategy"]


def _of_service(key):
    name = KEYS[key]
    full = f"groundwork-{name}"
    unlimited = {"requests": {"cpu": "7m"}, "limits": {"memory": "77Mi"}}
    account = "serviceAccount"
    budget = "podDisruptionBudget"
    disabled = key == "machineController"
    return [
        Row(f"{key}.enabled", disabled, lambda r: (r.one("Deployment", name) is not None) is disabled, f"{key} apart"),
        Row(f"{key}.replicaCount", 1, lambda r: _replicas(r, name) == 1, "one replica"),
        Row(f"{key}.resources.requests.cpu", "7m", lambda r: _resources(r, name) == unlimited),
        Row(f"{key}.resources.requests.memory", None, lambda r: _resources(r, name) == unlimited),
        Row(f"{key}.resources.limits.memory", "77Mi", lambda r: _resources(r, name) == unlimited),
        Row(f"{key}.{budget}.enabled", False, lambda r: r.one("PodDisruptionBudget", name) is None, "no budget"),
        Row(f"{key}.{budget}.minAvailable", "50%", lambda r: _budget(r, name) == {"minAvailable": "50%"}, "a share"),
        Row(f"{key}.{budget}.maxUnavailable", 0, lambda r: _budget(r, name) == {"maxUnavailable": 0}),
        Row(
            f"{key}.{account}.create",
            False,
            lambda r: r.one("ServiceAccount", name) is None and r.pod(name)["serviceAccountName"] == f"their-{name}",
            "their account",
            {key: {account: {"name": f"their-{name}"}}},
        ),
        Row(
            f"{key}.{account}.name",
            f"our-{name}",
            lambda r: (
                {
                    r.pod(name)["serviceAccountName"],
                    (r.find("RoleBinding", full) or {"subjects": [{"name": "none"}]})["subjects"][0]["name"],
                    *(o["metadata"]["name"] for o in r.of("ServiceAccount") if o["metadata"]["name"] == f"our-{name}"),
                }
                == {f"our-{name}"}
            ),
        ),
        Row(f"{key}.{account}.annotations", NOTES, _notes("ServiceAccount", f"our-{name}")),
        Row(
            f"{key}.{account}.automount",
            False,
            lambda r: (
                r.pod(name)["automountServiceAccountToken"] is False
                and r.get("ServiceAccount", f"our-{name}")["automountServiceAccountToken"] is False
            ),
        ),
        Row(f"{key}.extraArgs", ["--workers=7"], lambda r: r.args(name)[-1:] == ["--workers=7"]),
    ]


def _replicas(r, component):
    return r.one("Deployment", component)["spec"].get("replicas")


def _resources(r, component):
    return r.container(component)["resources"]


def _budget(r, component):
    found = r.one("PodDisruptionBudget", component)
    return found and {name: value for name, value in found["spec"].items() if name != "selector"}


ROWS = [
    Row(
        "image.repository", "example.org/gw", _every(lambda r, c: r.container(c)["image"].startswith("example.org/gw"))
    ),
    Row("image.tag", "v9", _every(lambda r, c: r.container(c)["image"].endswith(":v9"))),
    Row(
        "image.digest",
        f"sha256:{'a' * 64}",
        _every(lambda r, c: r.container(c)["image"] == f"groundwork@sha256:{'a' * 64}"),
        "digest",
        {"image": {"tag": "v9"}},
    ),
    Row("image.pullPolicy", "Always", _every(lambda r, c: r.container(c)["imagePullPolicy"] == "Always")),
    Row(
        "imagePullSecrets",
        [{"name": "pull"}],
        _every(lambda r, c: r.pod(c).get("imagePullSecrets") == [{"name": "pull"}]),
    ),
    Row(
        "nameOverride",
        "other",
        lambda r: (
            {o["metadata"]["labels"]["app.kubernetes.io/name"] for o in r.objects} == {"other"}
            and r.find("Deployment", "groundwork-other-ipam") is not None
        ),
        "name",
    ),
    Row("fullnameOverride", "short", lambda r: r.find("Deployment", "short-ipam") is not None, "full name"),
    Row(
        "namespaceOverride",
        "elsewhere",
        lambda r: (
            {o["metadata"]["namespace"] for o in r.objects if "namespace" in o["metadata"]}
            == {"elsewhere", "groundwork-test"}
            and _webhook(r)["clientConfig"]["service"]["namespace"] == "elsewhere"
            and "elsewhere" in _expressions(r)[0]["values"]
        ),
        "namespace",
    ),
    Row("commonLabels", LABELS, lambda r: all(_has(LABELS, o["metadata"]["labels"]) for o in r.objects), "labels"),
    Row("crds.enabled", False, lambda r: not r.of("CustomResourceDefinition"), "no definitions"),
    Row(
        "crds.keep",
        False,
        lambda r: (
            not any("helm.sh/resource-policy" in o["metadata"]["annotations"] for o in r.of("CustomResourceDefinition"))
        ),
        "forgotten definitions",
    ),
    Row("rbac.create", False, lambda r: not r.of("ClusterRole") and not r.one("RoleBinding", "ipam"), "no rights"),
    Row(
        "rbac.aggregateClusterRoles",
        False,
        lambda r: not [o for o in r.of("ClusterRole") if o["metadata"]["name"] == "groundwork-view"],
    ),
    Row(
        "rbac.aggregatePools",
        True,
        lambda r: bool([o for o in r.of("ClusterRole") if o["metadata"]["name"] == "groundwork-admin"]),
        "shared",
    ),
    *(
        Row(name, given, _every(holds), "shared")
        for name, (given, holds) in SHARED.items()
        if name not in {"strategy", "podSecurityContext", "securityContext"}
    ),
    Row("strategy.type", "Recreate", _every(lambda r, c: _strategy(r, c) == {"type": "Recreate"}), "strategy"),
    Row(
        "strategy.rollingUpdate.maxUnavailable",
        1,
        _every(lambda r, c: _strategy(r, c)["rollingUpdate"]["maxUnavailable"] == 1),
    ),
    Row("strategy.rollingUpdate.maxSurge", 2, _every(lambda r, c: _strategy(r, c)["rollingUpdate"]["maxSurge"] == 2)),
    *(
        Row(
            f"podSecurityContext.{name}",
            given,
            _every(lambda r, c, name=name, given=given: r.pod(c)["securityContext"][name] == given),
        )
        for name, given in (("runAsNonRoot", False), ("runAsUser", 7), ("runAsGroup", 8), ("fsGroup", 9))
    ),
    Row(
        "podSecurityContext.seccompProfile.type",
        "Unconfined",
        _every(lambda r, c: r.pod(c)["securityContext"]["seccompProfile"] == {"type": "Unconfined"}),
    ),
    *(
        Row(
            f"securityContext.{name}",
            given,
            _every(lambda r, c, name=name, given=given: r.container(c)["securityContext"][name] is given),
        )
        for name, given in (("allowPrivilegeEscalation", True), ("readOnlyRootFilesystem", False))
    ),
    Row(
        "securityContext.capabilities.drop",
        ["NET_RAW"],
        _every(lambda r, c: r.container(c)["securityContext"]["capabilities"] == {"drop": ["NET_RAW"]}),
    ),
    # metrics
    Row(
        "metrics.enabled",
        False,
        lambda r: not any("metrics" in o["metadata"]["name"] for o in r.of("Service")),
        "unseen",
    ),
    Row(
        "metrics.service.port",
        9090,
        _every(lambda r, c: r.get("Service", f"groundwork-{c}-metrics")["spec"]["ports"][0]["port"] == 9090),
    ),
    Row("metrics.service.labels", LABELS, _every(lambda r, c: _labels("Service", f"groundwork-{c}-metrics")(r))),
    Row("metrics.service.annotations", NOTES, _every(lambda r, c: _notes("Service", f"groundwork-{c}-metrics")(r))),
    Row("metrics.serviceMonitor.enabled", True, _every(lambda r, c: r.one("ServiceMonitor", c) is not None)),
    Row(
        "metrics.serviceMonitor.namespace",
        "monitoring",
        _every(
            lambda r, c: (
                r.one("ServiceMonitor", c) and r.one("ServiceMonitor", c)["metadata"]["namespace"] == "monitoring"
            )
        ),
        also=_MONITOR,
    ),
    Row("metrics.serviceMonitor.interval", "15s", _monitor(interval="15s"), also=_MONITOR),
    Row("metrics.serviceMonitor.scrapeTimeout", "5s", _monitor(scrapeTimeout="5s"), also=_MONITOR),
    Row("metrics.serviceMonitor.labels", LABELS, _labels("ServiceMonitor", "groundwork-ipam"), also=_MONITOR),
    Row("metrics.serviceMonitor.annotations", NOTES, _notes("ServiceMonitor", "groundwork-ipam"), also=_MONITOR),
    *(
        Row(
            f"metrics.serviceMonitor.{name}",
            [{"action": "keep"}],
            _monitor(**{name: [{"action": "keep"}]}),
            also=_MONITOR,
        )
        for name in ("relabelings", "metricRelabelings")
    ),
    # network policies
    Row("networkPolicy.enabled", True, _every(lambda r, c: r.one("NetworkPolicy", c) is not None)),
    Row(
        "networkPolicy.metricsFrom",
        [{"podSelector": {}}],
        _every(lambda r, c: [rule.get("from") for rule in _rule(r, c, egress=False)][:1] == [[{"podSelector": {}}]]),
        also=_POLICY,
    ),
    Row(
        "networkPolicy.webFrom",
        [{"podSelector": {}}],
        lambda r: (
            [rule.get("from") for rule in _rule(r, "ipam", egress=False) if rule["ports"] == _ports(8081)]
            == [[{"podSelector": {}}]]
        ),
        also=merged(_POLICY, _WEB),
    ),
    Row(
        "networkPolicy.apiServer.cidrs",
        ["10.0.0.1/32"],
        _every(lambda r, c: _reaches(c, to=_blocks("10.0.0.1/32"))(r)),
        also=_POLICY,
    ),
    Row("networkPolicy.apiServer.ports", [7443], _every(lambda r, c: _reaches(c, ports=_ports(7443))(r)), also=_POLICY),
    Row(
        "networkPolicy.vCenter.cidrs",
        ["10.9.0.0/16"],
        lambda r: [c for c in COMPONENTS if _reaches(c, to=_blocks("10.9.0.0/16"))(r)] == ["machine-controller"],
        also=_POLICY,
    ),
    Row(
        "networkPolicy.vCenter.ports",
        [8989],
        lambda r: [c for c in COMPONENTS if _reaches(c, ports=_ports(8989))(r)] == ["machine-controller"],
        also=_POLICY,
    ),
    Row(
        "networkPolicy.extraEgress",
        [{"ports": _ports(3128)}],
        _every(lambda r, c: _reaches(c, ports=_ports(3128))(r)),
        also=_POLICY,
    ),
    Row(
        "extraObjects",
        [
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "{{ .Release.Name }}-more", "labels": LABELS},
            },
            "{apiVersion: v1, kind: ConfigMap, metadata: {name: text, labels: {team: network}}}",
        ],
        lambda r: r.find("ConfigMap", "groundwork-more") is not None and r.find("ConfigMap", "text") is not None,
    ),
    # the test hook
    Row("helmTest.enabled", False, lambda r: not r.of("Pod"), "no hook"),
    Row("helmTest.timeoutSeconds", 9, lambda r: "--timeout=9" in _hook(r)["spec"]["containers"][0]["args"]),
    Row("helmTest.namespaceLabels", LABELS, _labels("Namespace", "groundwork-test")),
    *(
        Row(
            f"helmTest.resources.{name}",
            "99Mi",
            lambda r, name=name: _at(_hook(r)["spec"]["containers"][0]["resources"], name) == "99Mi",
        )
        for name in ("requests.cpu", "requests.memory", "limits.memory")
    ),
    # services
    *(row for key in KEYS for row in _of_service(key)),
    Row("ipam.web.enabled", True, lambda r: "--web" in r.args("ipam") and not _web_service(r), "page"),
    Row("ipam.web.hosts", ["ipam.example.org"], lambda r: "--web-host=ipam.example.org" in r.args("ipam"), also=_WEB),
    Row(
        "ipam.web.service.enabled",
        True,
        lambda r: (
            "--web-address=:8081" in r.args("ipam")
            and {"name": "web", "containerPort": 8081} in r.container("ipam")["ports"]
            and [port["targetPort"] for port in _web_service(r)] == ["web"]
        ),
        also=_WEB,
    ),
    Row("ipam.web.service.port", 8082, lambda r: [port["port"] for port in _web_service(r)] == [8082], also=_WEB),
    Row("ipam.web.service.annotations", NOTES, _notes("Service", "groundwork-ipam-web"), also=_WEB),
    Row("podpreset.processes", 3, lambda r: "--processes=3" in r.args("podpreset")),
    Row(
        "podpreset.drainSeconds",
        20,
        lambda r: (
            "--drain-seconds=20" in r.args("podpreset") and r.pod("podpreset")["terminationGracePeriodSeconds"] == 42
        ),
    ),
    Row(
        "podpreset.autoscaling.enabled",
        True,
        lambda r: _replicas(r, "podpreset") is None and r.one("HorizontalPodAutoscaler", "podpreset") is not None,
        "scaled",
    ),
    *(
        Row(
            f"podpreset.autoscaling.{name}",
            given,
            lambda r, name=name, given=given: (
                (r.one("HorizontalPodAutoscaler", "podpreset") or {"spec": {}})["spec"].get(name) == given
            ),
            "scaled",
            _SCALED,
        )
        for name, given in (("minReplicas", 3), ("maxReplicas", 9))
    ),
    Row(
        "podpreset.autoscaling.targetCPUUtilizationPercentage",
        55,
        lambda r: any(
            metric["resource"]["target"]["averageUtilization"] == 55
            for obj in r.of("HorizontalPodAutoscaler")
            for metric in obj["spec"]["metrics"]
        ),
        "scaled",
        _SCALED,
    ),
    Row(
        "podpreset.webhook.failurePolicy",
        "Fail",
        lambda r: _webhook(r)["failurePolicy"] == "Fail" and "--failure-answer=deny" in r.args("podpreset"),
    ),
    Row("podpreset.webhook.timeoutSeconds", 7, lambda r: _webhook(r)["timeoutSeconds"] == 7),
    Row(
        "podpreset.webhook.excludedNamespaces",
        ["cattle-system"],
        lambda r: (
            _expressions(r)[0]["values"] == ["kube-system", "kube-node-lease", NAMESPACE, "cattle-system"]
            and [argument for argument in r.args("podpreset") if argument.startswith("--untouched-namespace")]
            == ["--untouched-namespace=kube-node-lease", "--untouched-namespace=cattle-system"]
        ),
    ),
    Row(
        "podpreset.webhook.namespaceSelector",
        {"matchLabels": LABELS, "matchExpressions": [_EXPRESSION]},
        lambda r: (
            _webhook(r)["namespaceSelector"].get("matchLabels") == LABELS
            and _expressions(r)[-1] == _EXPRESSION
            and _expressions(r)[0]["operator"] == "NotIn"
        ),
    ),
    Row(
        "podpreset.webhook.objectSelector",
        {"matchLabels": LABELS},
        lambda r: _webhook(r).get("objectSelector") == {"matchLabels": LABELS},
    ),
    Row(
        "podpreset.webhook.certManager.enabled",
        True,
        lambda r: (
            "--cert-dir=/certificates" in r.args("podpreset")
            and not any(argument.startswith("--cert-secret") for argument in r.args("podpreset"))
            and _notes_of_webhook(r)
            == {"cert-manager.io/inject-ca-from": f"{NAMESPACE}/groundwork-podpreset-certificates"}
            and not [rule for rule in r.one("Role", "podpreset")["rules"] if rule["resources"] == ["secrets"]]
            and _issued_by_a_ca(r)
        ),
        "cert-manager",
    ),
    Row(
        "podpreset.webhook.certManager.issuerRef",
        {"group": "cert-manager.io", "kind": "ClusterIssuer", "name": "site"},
        lambda r: [o["spec"]["issuerRef"]["name"] for o in r.of("Certificate")] == ["site"] and not r.of("Issuer"),
        also={"podpreset": {"webhook": {"certManager": {"enabled": True}}}},
    ),
    Row(
        "machineController.crds.enabled",
        False,
        lambda r: (
            not [o for o in r.of("CustomResourceDefinition") if o["spec"]["group"] == "infrastructure.cluster.x-k8s.io"]
        ),
        "CAPV's definitions",
    ),
    Row("machineController.all", True, lambda r: "--all" in r.args("machine-controller")),
]


def _web_service(r):
    """Ports of the Service of the status page, [] when it is not there."""
    found = r.find("Service", "groundwork-ipam-web")
    return found["spec"]["ports"] if found else []


def _notes_of_webhook(r):
    return r.one("MutatingWebhookConfiguration", "podpreset")["metadata"].get("annotations")


def _issued_by_a_ca(r):
    """Whether the CA that signs the webhook's certificate outlives it: its own issuer, and a key that stays."""
    issuers = {o["metadata"]["name"]: o["spec"] for o in r.of("Issuer")}
    certificates = {o["metadata"]["name"]: o["spec"] for o in r.of("Certificate")}
    name = "groundwork-podpreset-certificates"
    leaf, ca = certificates[name], certificates[f"{name}-ca"]
    return (
        issuers[leaf["issuerRef"]["name"]] == {"ca": {"secretName": ca["secretName"]}}
        and issuers[ca["issuerRef"]["name"]] == {"selfSigned": {}}
        and ca["isCA"]
        and ca["privateKey"]["rotationPolicy"] == "Never"
        and ca["secretName"] != leaf["secretName"]
    )


def _at(value, path):
    for name in path.split("."):
        value = value.get(name)
    return value
