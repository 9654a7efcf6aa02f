"""A bundle of trusted certificates: a private path, and variables where they are unset."""

import pytest

from services.podpreset import cabundle
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

FILE = "/etc/groundwork/ca-bundle/ca-bundle.crt"
CONFIG_MAP = {"configMap": {"name": "corporate", "key": "ca.pem"}}
MOUNT = {"name": "groundwork-ca-bundle", "mountPath": "/etc/groundwork/ca-bundle", "readOnly": True}


@pytest.mark.parametrize(
    ("bundle", "source"),
    [
        (CONFIG_MAP, {"configMap": {"name": "corporate", "items": [{"key": "ca.pem", "path": "ca-bundle.crt"}]}}),
        (
            {"configMap": {"name": "corporate"}},
            {"configMap": {"name": "corporate", "items": [{"key": "ca-bundle.crt", "path": "ca-bundle.crt"}]}},
        ),
        (
            {"clusterTrustBundle": {"name": "b"}},
            {"projected": {"sources": [{"clusterTrustBundle": {"name": "b", "path": "ca-bundle.crt"}}]}},
        ),
    ],
)
def test_the_bundle_is_mounted_at_a_path_of_its_own_and_named_by_four_variables(bundle, source):
    after = admitted(pod(), cluster_preset(caBundle=bundle))
    assert after["spec"]["volumes"] == [{"name": "groundwork-ca-bundle", **source}]
    assert container_of(after)["volumeMounts"] == [MOUNT]
    assert env_of(after) == [(name, FILE) for name in cabundle.VARIABLES]


def test_variables_that_are_set_stay():
    before = pod(container(env=env(CURL_CA_BUNDLE="/mine", SSL_CERT_FILE="")))
    wide = cluster_preset(caBundle=CONFIG_MAP, env=env(NODE_EXTRA_CA_CERTS="/preset"))
    assert env_of(admitted(before, wide)) == [
        ("NODE_EXTRA_CA_CERTS", "/preset"),
        ("REQUESTS_CA_BUNDLE", FILE),
        ("CURL_CA_BUNDLE", "/mine"),
        ("SSL_CERT_FILE", ""),
    ]


@pytest.mark.parametrize("policy", ["SkipVariable", "SkipAll", "Reject"])
def test_a_variable_of_the_containers_own_is_no_conflict(policy):
    before = pod(container(env=env(CURL_CA_BUNDLE="/mine")))
    decision, after = admit(before, world(cluster_preset(caBundle=CONFIG_MAP, conflictPolicy=policy)))
    assert decision.outcome is Outcome.PATCHED
    assert dict(env_of(after))["CURL_CA_BUNDLE"] == "/mine"
    assert decision.warnings == ()


@pytest.mark.parametrize(
    "before",
    [
        pod(volumes=[{"name": cabundle.VOLUME, "emptyDir": {}}]),
        pod(container(volumeMounts=[{"name": "own", "mountPath": "/etc/groundwork/ca-bundle/"}])),
    ],
    ids=["the pod has another volume of the name", "a container has something else at the path"],
)
def test_programs_are_not_told_of_a_bundle_that_cannot_be_mounted(before):
    decision, after = admit(before, world(cluster_preset(caBundle=CONFIG_MAP, env=env(A="1"))))
    assert env_of(after) == [("A", "1")]
    assert len(decision.conflicts) == 1
    assert after["spec"].get("volumes") == before["spec"].get("volumes")


def test_the_bundle_of_the_namespace_takes_the_place_of_the_clusters():
    narrow = preset(caBundle={"configMap": {"name": "team"}})
    decision, after = admit(pod(), world(cluster_preset(caBundle=CONFIG_MAP), narrow))
    assert [volume["configMap"]["name"] for volume in after["spec"]["volumes"]] == ["team"]
    assert container_of(after)["volumeMounts"] == [MOUNT]
    assert decision.conflicts == ()


def test_two_bundles_in_a_layer_conflict():
    presets = [preset(name, caBundle={"configMap": {"name": name}}) for name in "ab"]
    decision, after = admit(pod(), world(*presets))
    assert [conflict.item for conflict in decision.conflicts] == ["caBundle"]
    assert [volume["configMap"]["name"] for volume in after["spec"]["volumes"]] == ["a"]


def test_an_ephemeral_container_is_told_of_a_bundle_only_if_the_pod_has_it():
    where = world(cluster_preset(caBundle=CONFIG_MAP))
    request = {"operation": "UPDATE", "subresource": "ephemeralcontainers"}
    with_bundle = admitted(pod(), cluster_preset(caBundle=CONFIG_MAP))
    for old, told in ((with_bundle, True), (pod(), False)):
        new = {**old, "spec": {**old["spec"], "ephemeralContainers": [container("debug")]}}
        decision, after = admit(new, where, old=old, **request)
        assert bool(env_of(after, "debug")) == ("volumeMounts" in container_of(after, "debug")) == told
        assert decision.conflicts == ()
        assert decision.outcome is (Outcome.PATCHED if told else Outcome.UNCHANGED)


def test_on_windows_the_file_is_named_as_windows_does():
    after = admitted(pod(nodeSelector={"kubernetes.io/os": "windows"}), cluster_preset(caBundle=CONFIG_MAP))
    assert dict(env_of(after))["SSL_CERT_FILE"] == r"C:\etc\groundwork\ca-bundle\ca-bundle.crt"
    assert container_of(after)["volumeMounts"] == [MOUNT]


@pytest.mark.parametrize("bundle", [{}, {**CONFIG_MAP, "clusterTrustBundle": {"name": "b"}}])
def test_a_bundle_comes_from_one_place(bundle):
    one = cluster_preset(caBundle=bundle, env=env(A="1"))
    assert one.problems == ("spec.caBundle: expected configMap or clusterTrustBundle, and one of them",)
