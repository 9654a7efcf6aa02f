"""Which presets can be policies, and how their selectors are carried. That a policy does the same as the webhook is
tested on an API server, in tests/integration/test_podpreset_policy.py."""

from __future__ import annotations

import pytest

from services.podpreset.cli import policy
from services.podpreset.compiled import compile_preset
from services.proxyenv.complete import Facts
from services.runtime.kube.objects import KubeObject, decode, encode

ENV = [{"name": "A", "value": "b"}]


def preset(name="p", namespace="", **spec):
    kind = "PodPreset" if namespace else "ClusterPodPreset"
    meta = {"name": name, **({"namespace": namespace} if namespace else {})}
    obj = {"apiVersion": "reach.spectrocloud.com/v1alpha1", "kind": kind, "metadata": meta, "spec": spec}
    return compile_preset(decode(encode(obj), KubeObject))


VOLUME = {"volumes": [{"name": "v", "emptyDir": {}}]}
REFUSED = [
    ({}, ["spec: must specify"]),
    (VOLUME, ["spec.volumes"]),
    ({**VOLUME, "volumeMounts": [{"name": "v", "mountPath": "/v"}]}, ["spec.volumes", "spec.volumeMounts"]),
    ({"caBundle": {"configMap": {"name": "c"}}}, ["spec.caBundle"]),
    ({"env": ENV, "conflictPolicy": "SkipAll"}, ["spec.conflictPolicy: SkipAll"]),
    ({"env": ENV, "conflictPolicy": "Reject"}, ["spec.conflictPolicy: Reject"]),
    ({"noProxy": {"include": [".svc", "pod-cidr", "api-server"]}}, ["spec.noProxy.include: pod-cidr, api-server"]),
]


@pytest.mark.parametrize(("spec", "reasons"), REFUSED)
def test_what_a_policy_cannot_do_is_said_field_by_field(spec, reasons):
    made = policy.export(preset(**spec), [], Facts())
    assert made.objects == ()
    assert len(made.reasons) == len(reasons)
    assert all(reason.startswith(begin) for reason, begin in zip(made.reasons, reasons, strict=True))


PAIRS = [
    # the other preset's variable, its namespace, whether the first can be a policy
    ("A", "", False),
    ("A", "team-a", False),
    ("A", "team-b", True),
    ("B", "team-a", True),
]


@pytest.mark.parametrize(("name", "namespace", "possible"), PAIRS)
def test_presets_that_would_be_merged_cannot_be_policies(name, namespace, possible):
    mine = preset("mine", "team-a", env=ENV)
    other = preset("other", namespace, env=[{"name": name, "value": "c"}])
    made = policy.export(mine, [mine, other], Facts())
    assert bool(made.objects) == possible
    assert possible or made.reasons[0].startswith(f"env A: {other.key} gives it too")


def test_the_spellings_of_a_proxy_variable_are_one_and_completion_counts():
    mine = preset("mine", env=[{"name": "NO_PROXY", "value": "a"}])
    for other in (
        preset("other", env=[{"name": "no_proxy", "value": "b"}]),
        preset("other", noProxy={"include": [".svc"]}),
    ):
        assert policy.export(mine, [mine, other], Facts()).reasons


def test_selectors_become_those_of_the_binding():
    selector = {"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "x", "operator": "Exists"}]}
    spaces = {"matchLabels": {"team": "a"}}
    made, binding = policy.export(preset(env=ENV, selector=selector, namespaceSelector=spaces), [], Facts()).objects
    assert binding["spec"]["policyName"] == made["metadata"]["name"] == "clusterpodpreset-p"
    resources = binding["spec"]["matchResources"]
    assert resources["objectSelector"] == selector
    assert resources["namespaceSelector"]["matchLabels"] == {"team": "a"}
    operators = [(item["key"], item["operator"]) for item in resources["namespaceSelector"]["matchExpressions"]]
    assert operators == [
        ("kubernetes.io/metadata.name", "NotIn"),
        ("podpreset.admission.kubernetes.io/exclude", "NotIn"),
    ]


def test_a_pod_preset_is_for_its_namespace():
    _, binding = policy.export(preset("p", "team-a", env=ENV), [], Facts()).objects
    assert binding["metadata"]["name"] == "podpreset-team-a-p"
    expressions = binding["spec"]["matchResources"]["namespaceSelector"]["matchExpressions"]
    assert {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["team-a"]} in expressions
    assert "objectSelector" not in binding["spec"]["matchResources"]


def test_only_policies_with_proxy_variables_leave_windows_pods_alone():
    for env, left_alone in ((ENV, False), ([{"name": "HTTP_PROXY", "value": "http://p"}], True)):
        made, _ = policy.export(preset(env=env), [], Facts()).objects
        names = [condition["name"] for condition in made["spec"]["matchConditions"]]
        assert ("is-not-for-windows" in names) == left_alone
