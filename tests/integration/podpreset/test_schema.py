"""What the API server itself accepts and refuses: the rules of the CustomResourceDefinitions, no webhook running."""

from __future__ import annotations

import asyncio

import pytest

from services.podpreset.api import CLUSTER_POD_PRESETS, POD_PRESETS
from services.runtime.kube.errors import BadRequest, Invalid
from tests.support.kube import manifest

BOTH = pytest.mark.parametrize("resource", [CLUSTER_POD_PRESETS, POD_PRESETS], ids=["ClusterPodPreset", "PodPreset"])
DEFAULTS = {"conflictPolicy": "SkipVariable", "priority": 0}


@pytest.fixture
def make(kube, namespace):
    """Try to make a preset: nothing is stored, so ClusterPodPresets of tests do not meet."""

    async def make(resource, spec, name="preset"):
        where = namespace if resource.namespaced else ""
        path = resource.path(where) + "?dryRun=All&fieldValidation=Strict"
        return await kube._send("POST", path, manifest(resource, name, where, spec))

    return make


# What reach's own documentation shows, and what the PodPreset that Kubernetes had was documented with.
FOREIGN = {
    "reach": {
        "selector": {"matchLabels": {"spectrocloud.com/connection": "proxy"}},
        "env": [
            {
                "name": "HTTP_PROXY",
                "value": "http://10.0.0.1:3128",
                "metadata": {"merge_strategy": "replace", "type": "single"},
            },
            {
                "name": "NO_PROXY",
                "value": ".svc,10.0.0.0/8",
                "metadata": {"merge_strategy": "append", "type": "multi"},
            },
        ],
        "volumes": [
            {
                "name": "host-ca",
                "hostPath": {"path": "/etc/ssl/certs/ca-certificates.crt", "type": "File"},
                "metadata": {"merge_strategy": "replace"},
            }
        ],
        "volumeMounts": [
            {
                "name": "host-ca",
                "mountPath": "/etc/ssl/certs/ca-certificates.crt",
                "metadata": {"merge_strategy": "replace"},
            }
        ],
    },
    "settings.k8s.io": {
        "selector": {"matchLabels": {"role": "frontend"}},
        "env": [
            {"name": "DB_PORT", "value": "6379"},
            {"name": "duplicate_key", "value": "FROM_ENV"},
            {"name": "expansion", "value": "$(REPLACE_ME)"},
            {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
        ],
        "envFrom": [{"configMapRef": {"name": "etcd-env-config"}}, {"prefix": "p_", "secretRef": {"name": "s"}}],
        "volumeMounts": [
            {"mountPath": "/cache", "name": "cache-volume"},
            {"mountPath": "/etc/app/config.json", "readOnly": True, "name": "secret-volume", "subPath": "config.json"},
        ],
        "volumes": [
            {"name": "cache-volume", "emptyDir": {}},
            {"name": "secret-volume", "secret": {"secretName": "config-details"}},
        ],
    },
    "a source of a later Kubernetes": {
        "volumes": [{"name": "v", "holographic": {"size": [1, {"a": None}]}}],
        "volumeMounts": [{"name": "v", "mountPath": "/v", "polarity": "reversed"}],
        "env": [{"name": "A", "valueFrom": {"oracleRef": {"question": "?"}}}],
    },
    "fields of a later Kubernetes": {
        "volumes": [{"name": "v", "emptyDir": {"colour": {"a": [1]}}, "hostPath": None}],
        "volumeMounts": [{"name": "v", "mountPath": "/v", "readOnly": None}],
        "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name", "depth": [1]}}}],
    },
}


@BOTH
@pytest.mark.parametrize("spec", FOREIGN)
async def test_a_preset_of_another_project_is_accepted_and_kept_as_written(make, resource, spec):
    made = await make(resource, FOREIGN[spec])
    assert made["spec"] == {**DEFAULTS, **FOREIGN[spec]}


FULL = {
    "selector": {"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]},
    "containerSelector": {"names": ["app-*", "w?b"], "init": False},
    "priority": -5,
    "conflictPolicy": "Reject",
    "env": [{"name": "NO_PROXY", "value": "", "metadata": {"mergeStrategy": "prepend", "override": "force"}}],
    "caBundle": {"clusterTrustBundle": {"name": "example.com:trust"}},
    "noProxy": {"include": [".svc", ".cluster.local", "service-cidr", "pod-cidr", "api-server", "metadata"]},
}


@BOTH
async def test_every_field_of_ours_is_accepted(make, resource):
    assert (await make(resource, FULL))["spec"] == FULL


async def test_only_a_cluster_preset_selects_namespaces(make):
    spec = {**FULL, "namespaceSelector": {"matchLabels": {"team": "a"}}}
    assert (await make(CLUSTER_POD_PRESETS, spec))["spec"] == spec
    with pytest.raises(BadRequest, match="unknown field"):
        await make(POD_PRESETS, spec)


A = {"name": "A", "value": "x"}
V = {"name": "v", "emptyDir": {}}
REFUSED = {
    "nothing": ({}, "spec", "must specify at least one of"),
    "empty lists": ({"env": [], "volumes": []}, "spec", "must specify at least one of"),
    "completion with nothing": ({"noProxy": {"include": []}}, "spec", "must specify at least one of"),
    "a name with a blank": ({"env": [{"name": "a b"}]}, "spec.env[0].name", "should match"),
    "a name with =": ({"env": [{"name": "a=b"}]}, "spec.env[0].name", "should match"),
    "a name of dots": ({"env": [{"name": "..a"}]}, "spec.env[0].name", "must not be '.'"),
    "no name": ({"env": [{"value": "x"}]}, "spec.env[0].name", "Required value"),
    "a name twice": ({"env": [A, A]}, "spec.env[1]", "Duplicate value"),
    "two values": ({"env": [{**A, "valueFrom": {"x": {}}}]}, "spec.env[0]", "takes value or valueFrom, not both"),
    "a value from nothing": (
        {"env": [{"name": "A", "valueFrom": {}}]},
        "spec.env[0].valueFrom",
        "at least 1 properties",
    ),
    "a value from two things": (
        {"env": [{"name": "A", "valueFrom": {"fieldRef": {}, "secretKeyRef": {}}}]},
        "spec.env[0].valueFrom",
        "Too many: 2",
    ),
    "a source that cannot exist": (
        {"envFrom": [{"configMapRef": {"name": "A_b"}}]},
        "spec.envFrom[0].configMapRef.name",
        "should match",
    ),
    "single, appended": (
        {"env": [{**A, "metadata": {"type": "single", "merge_strategy": "append"}}]},
        "spec.env[0].metadata",
        "a single value can only be replaced",
    ),
    "single, prepended in the other spelling": (
        {"env": [{**A, "metadata": {"type": "single", "mergeStrategy": "prepend"}}]},
        "spec.env[0].metadata",
        "a single value can only be replaced",
    ),
    "two spellings that differ": (
        {"env": [{**A, "metadata": {"merge_strategy": "append", "mergeStrategy": "prepend"}}]},
        "spec.env[0].metadata",
        "must agree",
    ),
    "a reference that is merged": (
        {"env": [{"name": "A", "valueFrom": {"x": 1}, "metadata": {"merge_strategy": "append"}}]},
        "spec.env[0].metadata",
        "only literal values can be merged",
    ),
    "a reference of type multi": (
        {"env": [{"name": "A", "valueFrom": {"x": 1}, "metadata": {"type": "multi"}}]},
        "spec.env[0].metadata",
        "only literal values can be merged",
    ),
    "an unknown type": (
        {"env": [{**A, "metadata": {"type": "many"}}]},
        "spec.env[0].metadata.type",
        "supported values",
    ),
    "a mount of no volume": (
        {"volumeMounts": [{"name": "v", "mountPath": "/v"}]},
        "spec.volumeMounts",
        "must be that of one of spec.volumes",
    ),
    "a mount of another volume": (
        {"volumes": [V], "volumeMounts": [{"name": "w", "mountPath": "/v"}]},
        "spec.volumeMounts",
        "must be that of one of spec.volumes",
    ),
    "two mounts at a path": (
        {"volumes": [V], "volumeMounts": [{"name": "v", "mountPath": "/v"}, {"name": "v", "mountPath": "/v"}]},
        "spec.volumeMounts[1]",
        "Duplicate value",
    ),
    "a value from a name": (
        {"env": [{"name": "A", "valueFrom": {"fieldRef": "metadata.name"}}]},
        "spec.env[0].valueFrom.fieldRef",
        "must be of type object",
    ),
    "a value from a Secret without a key": (
        {"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s"}}}]},
        "spec.env[0].valueFrom.secretKeyRef.key",
        "Required value",
    ),
    "a prefix of no name": (
        {"envFrom": [{"configMapRef": {"name": "a"}, "prefix": "A="}]},
        "spec.envFrom[0].prefix",
        "should match",
    ),
    "a volume from a path that is a text": (
        {"volumes": [{"name": "v", "hostPath": "/etc/ssl"}]},
        "spec.volumes[0].hostPath",
        "must be of type object",
    ),
    "a mount whose readOnly is a text": (
        {"volumes": [V], "volumeMounts": [{"name": "v", "mountPath": "/v", "readOnly": "true"}]},
        "spec.volumeMounts[0].readOnly",
        "must be of type boolean",
    ),
    "a volume twice": ({"volumes": [V, V]}, "spec.volumes[1]", "Duplicate value"),
    "a volume of a bad name": ({"volumes": [{"name": "A"}]}, "spec.volumes[0].name", "should match"),
    "a source of nothing": ({"envFrom": [{"prefix": "x"}]}, "spec.envFrom[0]", "configMapRef or secretRef"),
    "a source of both": (
        {"envFrom": [{"configMapRef": {"name": "a"}, "secretRef": {"name": "b"}}]},
        "spec.envFrom[0]",
        "configMapRef or secretRef",
    ),
    "certificates from nowhere": ({"caBundle": {}}, "spec.caBundle", "configMap or clusterTrustBundle"),
    "certificates from both": (
        {"caBundle": {"configMap": {"name": "a"}, "clusterTrustBundle": {"name": "b"}}},
        "spec.caBundle",
        "configMap or clusterTrustBundle",
    ),
    "an unknown entry": ({"noProxy": {"include": ["everything"]}}, "spec.noProxy.include[0]", "supported values"),
    "an entry twice": ({"noProxy": {"include": [".svc", ".svc"]}}, "spec.noProxy.include[1]", "Duplicate value"),
    "an unknown policy": ({"env": [A], "conflictPolicy": "Panic"}, "spec.conflictPolicy", "supported values"),
    "a name of no container": (
        {"env": [A], "containerSelector": {"names": ["App"]}},
        "spec.containerSelector.names[0]",
        "should match",
    ),
    "a selector without values": (
        {"env": [A], "selector": {"matchExpressions": [{"key": "a", "operator": "In"}]}},
        "spec.selector.matchExpressions[0]",
        "In and NotIn need values",
    ),
    "a selector with values too many": (
        {"env": [A], "selector": {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}},
        "spec.selector.matchExpressions[0]",
        "In and NotIn need values",
    ),
    "variables without end": (
        {"env": [{"name": f"A{number}"} for number in range(257)]},
        "spec.env",
        "must have at most 256 items",
    ),
}


@BOTH
@pytest.mark.parametrize("case", REFUSED)
async def test_what_cannot_work_is_refused_by_field_and_reason(make, resource, case):
    spec, field, text = REFUSED[case]
    with pytest.raises(Invalid) as caught:
        await make(resource, spec)
    causes = [(cause["field"], cause["message"]) for cause in caught.value.details["causes"]]
    assert any(where == field and text in message for where, message in causes), causes


async def test_the_status_is_not_set_with_the_spec(make):
    made = await make(POD_PRESETS, {"env": [A]})
    assert "status" not in made


async def test_the_names_that_kubectl_knows(cluster):
    listed = cluster.kubectl("api-resources", "--api-group=reach.spectrocloud.com", "--no-headers")
    rows = [line.split() for line in listed.splitlines()]
    assert [row[:2] + row[3:] for row in rows] == [
        ["clusterpodpresets", "cpp", "false", "ClusterPodPreset"],
        ["podpresets", "podp", "true", "PodPreset"],
    ]
    explained = await asyncio.to_thread(cluster.kubectl, "explain", "podpreset.spec.env.metadata.merge_strategy")
    assert "append its items after it" in " ".join(explained.split())
