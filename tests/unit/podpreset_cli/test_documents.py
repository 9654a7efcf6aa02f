"""Streams of YAML: what is taken out of them."""

from __future__ import annotations

import json

import pytest

from services.podpreset.cli.documents import DocumentError, Documents
from services.podpreset.cli.workloads import Owner, top


def read(text, namespace="default"):
    documents = Documents(namespace)
    documents.add(text, "all.yaml")
    return documents


TEMPLATE = {"metadata": {"labels": {"app": "x"}, "name": "ignored"}, "spec": {"containers": [{"name": "c"}]}}
KINDS = [
    ("apps/v1", "Deployment", {"template": TEMPLATE}),
    ("apps/v1", "StatefulSet", {"template": TEMPLATE}),
    ("apps/v1", "DaemonSet", {"template": TEMPLATE}),
    ("apps/v1", "ReplicaSet", {"template": TEMPLATE}),
    ("v1", "ReplicationController", {"template": TEMPLATE}),
    ("batch/v1", "Job", {"template": TEMPLATE}),
    ("batch/v1", "CronJob", {"jobTemplate": {"spec": {"template": TEMPLATE}}}),
]


@pytest.mark.parametrize(("api_version", "kind", "spec"), KINDS)
def test_every_kind_that_makes_pods_gives_the_pod_it_makes(api_version, kind, spec):
    obj = {"apiVersion": api_version, "kind": kind, "metadata": {"name": "w", "namespace": "n"}, "spec": spec}
    (found,) = read(json.dumps(obj)).workloads.values()
    assert str(found) == f"{kind} n/w"
    assert found.pod == {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "w-", "labels": {"app": "x"}, "namespace": "n"},
        "spec": {"containers": [{"name": "c"}]},
    }


def test_a_pod_template_object_counts_too():
    obj = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "w"}, "template": TEMPLATE}
    (found,) = read(json.dumps(obj), "ns").workloads.values()
    assert (found.namespace, found.pod["spec"]) == ("ns", TEMPLATE["spec"])


def test_what_was_read_shares_nothing_with_what_is_given():
    documents = read("{kind: Pod, apiVersion: v1, metadata: {name: p}, spec: {containers: [{name: c}]}}")
    (found,) = documents.workloads.values()
    found.pod["spec"]["containers"].append({})
    assert found.pod["metadata"] == {"name": "p", "namespace": "default"}


LIST = """
kind: List
apiVersion: v1
items:
  - {kind: Namespace, apiVersion: v1, metadata: {name: a, labels: {x: "y"}}}
  - {kind: Pod, apiVersion: v1, metadata: {name: p}, spec: {}}
---
---
# nothing but a comment
---
kind: PodList
apiVersion: v1
items: [{metadata: {name: q}, spec: {}}]
---
{kind: PodList, apiVersion: v1, items: null}
---
{kind: ConfigMap, apiVersion: v1}
"""


def test_lists_are_taken_apart_and_other_kinds_passed_over():
    documents = read(LIST)
    assert list(documents.namespaces) == ["a"]
    assert [name for _, _, name in documents.workloads] == ["p", "q"]
    assert documents.others == ["ConfigMap"]


def test_a_list_in_a_list_is_taken_apart_too():
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {}}
    inner = {"apiVersion": "v1", "kind": "List", "items": [pod]}
    documents = read(json.dumps({"apiVersion": "v1", "kind": "List", "items": [inner, None]}))
    assert [name for _, _, name in documents.workloads] == ["p"]


BOMB = "{apiVersion: v1, kind: ConfigMap, data: ["
BOMB += ", ".join(["&a0 [x]", *[f"&a{at} [{', '.join([f'*a{at - 1}'] * 10)}]" for at in range(1, 10)]]) + "]}"
UNUSABLE = {
    "items that are none": ("{kind: List, apiVersion: v1, items: 5}", "items is no list"),
    "a tab": ("a:\n\tb: 1", "not YAML"),
    "a Python object": ("!!python/object/apply:os.getcwd []", "not YAML"),
    "anchors without end": (BOMB, "its anchors stand for more than 5000000 values"),
    "an anchor within itself": ("{apiVersion: v1, kind: ConfigMap, data: &a {b: *a}}", "nested too deeply"),
    "deep lists": ("{apiVersion: v1, kind: ConfigMap, data: " + "[" * 200 + "]" * 200 + "}", "nested too deeply"),
    "lists as deep as no parser goes": ("[" * 5000 + "]" * 5000, "nested too deeply"),
    "a number that JSON has not": (
        "{apiVersion: reach.spectrocloud.com/v1alpha1, kind: PodPreset, spec: {priority: .inf}}",
        "JSON is malformed",
    ),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_what_cannot_be_used_is_said_in_one_line(case):
    text, message = UNUSABLE[case]
    with pytest.raises(DocumentError, match=r"^all\.yaml: ") as caught:
        read(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_anchors_are_written_out():
    documents = read("{apiVersion: v1, kind: Pod, metadata: {name: p, labels: &a {x: y}, annotations: *a}, spec: {}}")
    (found,) = documents.workloads.values()
    assert found.pod["metadata"]["annotations"] == {"x": "y"}


def test_the_later_of_two_objects_of_one_name_counts():
    meta = {"apiVersion": "reach.spectrocloud.com/v1alpha1", "kind": "PodPreset", "metadata": {"name": "p"}}
    documents = read("\n---\n".join(json.dumps({**meta, "spec": {"priority": number}}) for number in (1, 2)))
    (preset,) = documents.presets.values()
    assert preset.metadata.namespace == "default"
    assert b"2" in bytes(preset.spec)


def test_a_preset_of_another_group_is_not_ours():
    documents = read("{kind: PodPreset, apiVersion: settings.k8s.io/v1alpha1, metadata: {name: p}, spec: {}}")
    assert not documents.presets
    assert documents.others == ["PodPreset"]


def test_a_date_stays_the_text_that_it_is():
    documents = read("{kind: Pod, apiVersion: v1, metadata: {name: p}, spec: {hostname: 2026-01-02}}")
    (found,) = documents.workloads.values()
    assert found.pod["spec"]["hostname"] == "2026-01-02"


def test_the_place_of_a_broken_document_is_named():
    with pytest.raises(DocumentError, match=r"all\.yaml: document 2: no Kubernetes object"):
        read("{kind: ConfigMap, apiVersion: v1}\n---\n[]")
    with pytest.raises(DocumentError, match=r"all\.yaml: Expected `str`"):
        read("{kind: Namespace, apiVersion: v1, metadata: {name: 5}}")


def test_the_chain_of_owners_is_followed_to_its_end():
    replica_set, deployment = Owner("ReplicaSet", "w-1", "u1"), Owner("Deployment", "w", "u2")
    assert top(replica_set, {"u1": deployment}) == deployment
    assert top(deployment, {"u1": deployment}) == deployment
    assert top(None, {}) is None
    circle = {"u1": deployment, "u2": replica_set}
    assert top(replica_set, circle) in {replica_set, deployment}
