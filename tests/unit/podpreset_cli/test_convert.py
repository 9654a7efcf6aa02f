"""PodPresets of other projects as ours: what is carried, and what is said of the rest."""

from __future__ import annotations

import pytest
import yaml

from services.podpreset import api
from services.podpreset.cli.convert import KNOWN, convert, convertible
from services.podpreset.compiled import compile_preset
from services.runtime.kube.objects import KubeObject, decode, encode

SETTINGS = """
apiVersion: settings.k8s.io/v1alpha1
kind: PodPreset
metadata:
  name: allow-database
  namespace: shop
  uid: 0a1b
  resourceVersion: "5"
  creationTimestamp: "2019-01-01T00:00:00Z"
  labels: {team: shop}
  annotations:
    kubectl.kubernetes.io/last-applied-configuration: "{}"
    owner: me
spec:
  selector:
    matchLabels: {role: frontend}
    matchExpressions: [{key: security, operator: In, values: [S2]}]
  env:
    - {name: DB_PORT, value: "6379"}
    - {name: FROM_SECRET, valueFrom: {secretKeyRef: {name: s, key: k}}}
  envFrom:
    - {prefix: pre_, configMapRef: {name: etcd-env-config}}
  volumes:
    - {name: cache, emptyDir: {}}
    - {name: secret, secret: {secretName: config-details}}
  volumeMounts:
    - {mountPath: /cache, name: cache}
"""
CONVERTED = """
apiVersion: reach.spectrocloud.com/v1alpha1
kind: PodPreset
metadata:
  name: allow-database
  namespace: shop
  labels: {team: shop}
  annotations: {owner: me}
spec:
  selector:
    matchLabels: {role: frontend}
    matchExpressions: [{key: security, operator: In, values: [S2]}]
  env:
    - {name: DB_PORT, value: "6379"}
    - {name: FROM_SECRET, valueFrom: {secretKeyRef: {name: s, key: k}}}
  envFrom:
    - {prefix: pre_, configMapRef: {name: etcd-env-config}}
  volumes:
    - {name: cache, emptyDir: {}}
    - {name: secret, secret: {secretName: config-details}}
  volumeMounts:
    - {mountPath: /cache, name: cache}
  conflictPolicy: SkipAll
"""
POD_DEFAULT = """
apiVersion: kubeflow.org/v1alpha1
kind: PodDefault
metadata: {name: add-gcp-secret, namespace: kubeflow}
spec:
  desc: add gcp credential
  selector: {matchLabels: {add-gcp-secret: "true"}}
  env: [{name: GOOGLE_APPLICATION_CREDENTIALS, value: /secret/gcp/key.json}]
  annotations: {a: b}
  labels: {c: d}
  tolerations: [{key: gpu, operator: Exists}]
  serviceAccountName: robot
  automountServiceAccountToken: true
  command: [sh]
  args: [-c]
  sidecars: [{name: side, image: x}]
  initContainers: [{name: first, image: x}]
  imagePullSecrets: [{name: pull}]
  hostNetwork: true
"""


def loaded(text):
    return yaml.safe_load(text)


def preset(api_version, kind, **spec):
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": "p", "namespace": "n"}, "spec": spec}


def test_a_preset_of_kubernetes_keeps_everything_it_says():
    made = convert(loaded(SETTINGS))
    assert made.obj == loaded(CONVERTED)
    assert made.source == "PodPreset.settings.k8s.io shop/allow-database"
    assert made.lost == ()
    assert any("SkipAll" in remark for remark in made.remarks)


def test_what_a_pod_default_does_beyond_presets_is_said_field_by_field():
    made = convert(loaded(POD_DEFAULT))
    assert made.obj["metadata"]["annotations"] == {"kubernetes.io/description": "add gcp credential"}
    assert set(made.obj["spec"]) == {"selector", "env", "conflictPolicy"}
    assert made.obj["spec"]["conflictPolicy"] == "Reject"
    assert [line.partition(":")[0] for line in made.lost] == [
        *("spec.annotations", "spec.labels", "spec.tolerations", "spec.serviceAccountName"),
        *("spec.automountServiceAccountToken", "spec.command", "spec.args", "spec.sidecars", "spec.initContainers"),
        *("spec.imagePullSecrets", "spec.hostNetwork"),
    ]


KINDS = [
    ("settings.k8s.io/v1alpha1", "PodPreset", "PodPreset", "SkipAll"),
    ("redhatcop.redhat.io/v1alpha1", "PodPreset", "PodPreset", "SkipVariable"),
    ("wzrdtalesscp.wzrdtales.com/v1alpha1", "PodPreset", "PodPreset", "SkipVariable"),
    ("wzrdtalesscp.wzrdtales.com/v1alpha1", "ClusterPodPreset", "ClusterPodPreset", "SkipVariable"),
    ("kubeflow.org/v1alpha1", "PodDefault", "PodPreset", "Reject"),
]


@pytest.mark.parametrize(("api_version", "kind", "target", "policy"), KINDS)
def test_every_known_kind_becomes_a_usable_preset(api_version, kind, target, policy):
    obj = preset(api_version, kind, env=[{"name": "A", "value": "b"}])
    assert convertible(obj)
    made = convert(obj).obj
    assert (made["kind"], made["spec"]["conflictPolicy"]) == (target, policy)
    assert ("namespace" in made["metadata"]) == (target == api.NAMESPACED_KIND)
    assert compile_preset(decode(encode(made), KubeObject)).usable


def test_all_that_can_be_converted_is_named():
    assert [name.partition(".")[2] for name in KNOWN] == [row[0].partition("/")[0] for row in KINDS]


@pytest.mark.parametrize("api_version", ["reach.spectrocloud.com/v1alpha1", "v1", "other.example/v1"])
def test_other_objects_are_not_converted(api_version):
    assert not convertible(preset(api_version, "PodPreset"))


LOSSES = [
    ({}, "must specify at least one"),
    (
        {"env": [{"name": "A", "value": "b"}, {"name": "A", "value": "c"}]},
        "spec.env: a second A that differs; the first is kept",
    ),
    (
        {
            "volumes": [{"name": "v", "emptyDir": {}}],
            "volumeMounts": [{"name": "v", "mountPath": "/a"}, {"name": "v", "mountPath": "/a", "subPath": "x"}],
        },
        "spec.volumeMounts: a second /a",
    ),
    ({"volumeMounts": [{"name": "v", "mountPath": "/a"}]}, "spec.volumeMounts[0].name: 'v'"),
    ({"env": ["A=b"]}, "spec.env: an item that is no object"),
    ({"env": [{"name": "A", "value": 5}]}, "Expected `str | null`, got `int`"),
]


@pytest.mark.parametrize(("spec", "lost"), LOSSES)
def test_what_our_definition_would_refuse_is_said(spec, lost):
    made = convert(preset("settings.k8s.io/v1alpha1", "PodPreset", **spec))
    assert lost in " ".join(made.lost)


def test_what_is_said_twice_in_the_same_words_is_kept_once():
    same = {"name": "A", "value": "b"}
    made = convert(preset("settings.k8s.io/v1alpha1", "PodPreset", env=[same, dict(same)]))
    assert made.obj["spec"]["env"] == [same]
    assert made.lost == ()


REMARKS = [
    ("settings.k8s.io/v1alpha1", "NO_PROXY", ["both letter cases"]),
    ("redhatcop.redhat.io/v1alpha1", "no_proxy", ["both letter cases", "NO_PROXY is merged"]),
    ("redhatcop.redhat.io/v1alpha1", "A", []),
]


@pytest.mark.parametrize(("api_version", "name", "expected"), REMARKS)
def test_a_proxy_variable_means_a_little_more_than_before(api_version, name, expected):
    _, *remarks = convert(preset(api_version, "PodPreset", env=[{"name": name, "value": "x"}])).remarks
    assert len(remarks) == len(expected)
    assert all(part in remark for part, remark in zip(expected, remarks, strict=True))
