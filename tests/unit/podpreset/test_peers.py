"""What other injectors are tested for, by the names of their tests, where it has a counterpart here."""

import pytest

from services.podpreset.api import ADMISSION_PREFIX, HASH_ANNOTATION
from services.podpreset.decision import Outcome
from tests.support.podpresets import (
    admit,
    admitted,
    cluster_preset,
    container,
    container_of,
    env,
    env_of,
    pod,
    preset,
    world,
)

PROXY = env(HTTP_PROXY="http://proxy:3128", HTTPS_PROXY="http://proxy:3128", NO_PROXY="localhost")
BOTH_CASES = [(spelling, entry["value"]) for entry in PROXY for spelling in (entry["name"], entry["name"].lower())]


# kubeflow/dashboard, admission-webhook: TestMergeMapBad, TestMergeMapGood, TestApplyPodDefaultsOnPod
@pytest.mark.parametrize(
    "carried",
    [{"mine": "1"}, {}, {f"{ADMISSION_PREFIX}podpreset-narrow": "another"}],
    ids=["add", "nothing", "conflicting"],
)
def test_annotations_are_added_to_those_of_the_pod(carried):
    after = admitted(pod(annotations=carried), preset("narrow", env=env(A="1")))
    assert after["metadata"]["annotations"].keys() == {
        *carried,
        f"{ADMISSION_PREFIX}podpreset-narrow",
        HASH_ANNOTATION,
    }


def test_annotations_that_are_right_already_need_no_operation():
    where = world(preset(env=env(A="1")))
    annotations = admit(pod(), where)[1]["metadata"]["annotations"]
    decision, _ = admit(pod(annotations=annotations), where)
    assert [op["path"] for op in decision.patch] == ["/spec/containers/0/env"]


def test_tolerations_of_the_pod_stay():
    tolerations = [{"key": "gpu", "operator": "Exists"}]
    assert admitted(pod(tolerations=tolerations), preset(env=env(A="1")))["spec"]["tolerations"] == tolerations


# vmware-tanzu/cert-injection-webhook
OPTED_IN = {"selector": {"matchLabels": {"inject": "yes"}}}


@pytest.mark.parametrize("labels", [{"inject": "yes"}, {"inject": "yes", "other": "x"}])
def test_env_on_all_containers_of_labelled_pods(labels):
    before = pod(container("app"), container("other"), labels=labels, initContainers=[container("init")])
    after = admitted(before, cluster_preset(env=PROXY, **OPTED_IN))
    assert [env_of(after, name) for name in ("app", "other", "init")] == [BOTH_CASES] * 3


@pytest.mark.parametrize("labels", [None, {}, {"inject": "no"}])
def test_nothing_for_pods_without_the_label(labels):
    decision, after = admit(pod(labels=labels), world(cluster_preset(env=PROXY, **OPTED_IN)))
    assert decision.outcome is Outcome.UNMATCHED
    assert after == pod(labels=labels)


def test_env_and_certificates_together():
    after = admitted(pod(), cluster_preset(env=PROXY, caBundle={"configMap": {"name": "ca"}}))
    assert env_of(after)[: len(BOTH_CASES)] == BOTH_CASES
    assert len(env_of(after)) == len(BOTH_CASES) + 4
    assert len(container_of(after)["volumeMounts"]) == len(after["spec"]["volumes"]) == 1


@pytest.mark.parametrize(
    "spec",
    [
        {"os": {"name": "windows"}},
        {"nodeSelector": {"kubernetes.io/os": "windows"}},
        {"nodeSelector": {"beta.kubernetes.io/os": "windows"}},
    ],
)
def test_windows_pods_get_one_spelling(spec):
    after = admitted(pod(**spec), cluster_preset(env=PROXY))
    assert env_of(after) == [(entry["name"], entry["value"]) for entry in PROXY]


@pytest.mark.parametrize(
    "spec", [{"os": {"name": "linux"}, "nodeSelector": {"kubernetes.io/os": "windows"}}, {"nodeSelector": {"a": "b"}}]
)
def test_other_pods_get_both_spellings(spec):
    assert env_of(admitted(pod(**spec), cluster_preset(env=PROXY))) == BOTH_CASES


# indeedeng/cluster-preset: Test_PatchPod_empty, Test_PatchEnvVar, Test_ReloadingConfig
def test_an_empty_pod_gets_nothing_for_its_containers():
    body = {"metadata": {}, "spec": {}}
    decision, _ = admit(body, world(cluster_preset(env=env(A="1"))))
    assert [op["path"] for op in decision.patch] == ["/metadata/annotations"]


def test_of_a_variable_that_a_preset_has_twice_the_first_is_given():
    one = cluster_preset(env=[*env(A="first"), *env(A="second")])
    assert env_of(admitted(pod(), one)) == [("A", "first")]


def test_a_changed_preset_counts_from_the_next_pod_on():
    where = world(cluster_preset(env=env(A="1")))
    assert env_of(admit(pod(), where)[1]) == [("A", "1")]
    where = where.with_preset(cluster_preset(env=env(A="2")))
    assert env_of(admit(pod(), where)[1]) == [("A", "2")]


# hmcts/k8s-env-injector: TestMutationRequired, TestAddEnv
@pytest.mark.parametrize(("labels", "required"), [({"inject": "yes"}, True), ({"inject": "no"}, False), ({}, False)])
def test_a_label_of_the_namespace_asks_for_the_variables(labels, required):
    one = cluster_preset(env=env(A="1"), namespaceSelector={"matchLabels": {"inject": "yes"}})
    decision, _ = admit(pod(), world(one, labels=labels))
    assert (decision.outcome is Outcome.PATCHED) == required


def test_variables_are_added_before_those_of_the_container_so_that_references_expand():
    after = admitted(pod(container(env=env(URL="$(HOST)/x"))), cluster_preset(env=env(HOST="h")))
    assert env_of(after) == [("HOST", "h"), ("URL", "$(HOST)/x")]
