"""What other webhooks of this kind got wrong, each as a scenario."""

import json

import msgspec
import pytest

from services.podpreset.api import ADMISSION_PREFIX, HASH_ANNOTATION
from services.podpreset.decide import decide
from services.podpreset.decision import Outcome, Skip
from tests.support.podpresets import (
    NAMESPACE,
    admit,
    admitted,
    cluster_preset,
    container,
    container_of,
    env,
    env_of,
    pod,
    preset,
    review,
    var,
    world,
)

SECRET = {"secretKeyRef": {"name": "s", "key": "k"}}


def test_two_matching_presets_are_both_applied():
    after = admitted(pod(), preset("a", env=env(A="1")), preset("b", env=env(B="2")))
    assert env_of(after) == [("A", "1"), ("B", "2")]


def test_only_the_matching_preset_is_applied_when_another_is_listed_last():
    other = preset("z", selector={"matchLabels": {"app": "other"}}, env=env(A="2"))
    decision, after = admit(pod(labels={"app": "mine"}), world(preset("a", env=env(A="1")), other))
    assert env_of(after) == [("A", "1")]
    assert [key.name for key in decision.applied] == ["a"]


def test_env_of_the_container_stays_when_a_preset_has_another_value():
    before = pod(container(env=env(A="mine", B="too"), args=["x"], ports=[{"containerPort": 1}]))
    after = admitted(before, preset(env=env(A="theirs", C="new")))
    assert env_of(after) == [("C", "new"), ("A", "mine"), ("B", "too")]
    app = container_of(after)
    assert (app["args"], app["ports"]) == (["x"], [{"containerPort": 1}])


def test_volumes_of_the_pod_stay_when_a_preset_has_another_of_the_name():
    own = [{"name": "v", "emptyDir": {}}, {"name": "w", "emptyDir": {}}]
    one = preset(
        env=env(A="1"),
        volumes=[{"name": "v", "configMap": {"name": "c"}}],
        volumeMounts=[{"name": "v", "mountPath": "/v"}],
    )
    decision, after = admit(pod(volumes=own), world(one))
    assert after["spec"]["volumes"] == own
    assert "volumeMounts" not in container_of(after)
    assert env_of(after) == [("A", "1")]
    (conflict,) = decision.conflicts
    assert (conflict.item, conflict.rival) == ("volume v", "the pod")


def test_mounts_of_the_container_stay_when_a_preset_wants_the_path():
    own = [{"name": "w", "mountPath": "/v/"}]
    one = preset(
        volumes=[{"name": "v", "emptyDir": {}}],
        volumeMounts=[{"name": "v", "mountPath": "/v"}, {"name": "v", "mountPath": "/free"}],
    )
    before = pod(container(volumeMounts=own), container("other"), volumes=[{"name": "w", "emptyDir": {}}])
    decision, after = admit(before, world(one))
    assert container_of(after)["volumeMounts"] == own
    assert "volumeMounts" not in container_of(after, "other"), "a volume and all its mounts are left out together"
    assert after["spec"]["volumes"] == before["spec"]["volumes"]
    (conflict,) = decision.conflicts
    assert (conflict.item, conflict.rival) == ("volumeMount /v", "container app")


def test_fields_that_the_code_does_not_know_survive():
    sidecar = container("sidecar", restartPolicy="Always", **{"x-new": [1]})
    before = pod(
        container(resizePolicy=[{"resourceName": "cpu", "restartPolicy": "NotRequired"}], **{"x-new": {"a": None}}),
        initContainers=[sidecar],
        resourceClaims=[{"name": "gpu", "resourceClaimName": "g"}],
        **{"x-new": "y"},
    )
    decision, after = admit(before, world(preset(env=env(A="1"))))
    assert {op["op"] for op in decision.patch} == {"add"}
    for body in (after["spec"]["containers"][0], after["spec"]["initContainers"][0]):
        assert body.pop("env") == env(A="1")
    del after["metadata"]["annotations"]
    assert after == before


def test_a_second_call_yields_no_patch_and_the_same_annotations():
    where = world(
        cluster_preset(env=[var("NO_PROXY", "a"), var("HTTP_PROXY", "p")], caBundle={"configMap": {"name": "ca"}}),
        preset(env=[var("NO_PROXY", "b")], envFrom=[{"configMapRef": {"name": "c"}}]),
    )
    _, once = admit(pod(container(env=env(no_proxy="own"))), where)
    decision, twice = admit(once, where)
    assert decision.outcome is Outcome.UNCHANGED
    assert twice == once
    assert {"clusterpodpreset-wide", "podpreset-narrow"} == {
        key.removeprefix(ADMISSION_PREFIX) for key in once["metadata"]["annotations"] if key != HASH_ANNOTATION
    }


MISSPELLED = {
    "a field": ({"emptyDir": {"medium": "", "sizelimit": "1Gi"}}, {"emptyDir": {}}),
    "a source": ({"hostpath": {"path": "/x"}}, {"emptyDir": {}}),
    "a field in a list": (
        {"projected": {"sources": [{"secret": {"name": "s", "key": "k"}}]}},
        {"projected": {"sources": [{"secret": {"name": "s"}}], "defaultMode": 420}},
    ),
}


@pytest.mark.parametrize("policy", ["SkipVariable", "SkipAll", "Reject"])
@pytest.mark.parametrize("case", MISSPELLED)
def test_what_the_api_server_has_dropped_since_the_first_call_is_no_difference_at_the_second(policy, case):
    given, stored = MISSPELLED[case]
    where = world(
        preset(
            conflictPolicy=policy,
            env=env(A="1"),
            volumes=[{"name": "v", **given}],
            volumeMounts=[{"name": "v", "mountPath": "/v", "readonly": True}],
        )
    )
    _, once = admit(pod(), where)
    once["spec"]["volumes"] = [{"name": "v", **stored}]
    container_of(once)["volumeMounts"] = mounts = [{"name": "v", "mountPath": "/v"}]
    decision, _ = admit(once, where)
    assert (decision.outcome, decision.conflicts) == (Outcome.UNCHANGED, ())
    debugged = {**once, "spec": {**once["spec"], "ephemeralContainers": [container("debug")]}}
    decision, after = admit(debugged, where, old=once, operation="UPDATE", subresource="ephemeralcontainers")
    assert decision.conflicts == ()
    assert container_of(after, "debug")["volumeMounts"] == [{**mounts[0], "readonly": True}]


@pytest.mark.parametrize(
    "own",
    [
        {"emptyDir": {"medium": "Memory"}},
        {"emptyDir": {}},
        {"hostPath": {"path": "/x"}},
        {"hostPath": {"path": "/other", "type": "File"}},
    ],
)
def test_what_the_pod_had_before_the_first_call_still_differs_at_the_second(own):
    where = world(
        preset(
            env=env(A="1"),
            volumes=[{"name": "v", "hostPath": {"path": "/x", "type": "File", "x": 1}}],
            volumeMounts=[{"name": "v", "mountPath": "/v"}],
        )
    )
    first, once = admit(pod(volumes=[{"name": "v", **own}]), where)
    second, twice = admit(once, where)
    assert first.conflicts == second.conflicts != ()
    assert (second.outcome, twice) == (Outcome.UNCHANGED, once)
    assert "volumeMounts" not in container_of(twice)


def test_only_a_sidecar_appended_between_two_calls_is_patched():
    where = world(
        preset(
            env=env(HTTP_PROXY="p"),
            volumes=[{"name": "v", "emptyDir": {}}],
            volumeMounts=[{"name": "v", "mountPath": "/v"}],
        )
    )
    _, once = admit(pod(), where)
    once["spec"]["containers"].append(container("istio-proxy", env=env(A="1")))
    decision, after = admit(once, where)
    assert {op["path"].rsplit("/containers/")[1].split("/")[0] for op in decision.patch} == {"1"}
    assert env_of(after, "istio-proxy") == [("HTTP_PROXY", "p"), ("http_proxy", "p"), ("A", "1")]


def test_the_same_env_from_in_two_presets_is_given_once():
    source = {"configMapRef": {"name": "c"}}
    after = admitted(
        pod(), preset("a", envFrom=[source]), preset("b", envFrom=[dict(source)]), cluster_preset(envFrom=[source])
    )
    assert container_of(after)["envFrom"] == [source]


@pytest.mark.parametrize(
    ("metadata", "fields"),
    [
        ({"generateName": "p-"}, {}),
        ({"generateName": "p-", "annotations": None, "labels": None}, {"env": None, "envFrom": None}),
        ({"annotations": {}}, {"env": [], "envFrom": [], "volumeMounts": []}),
        (None, {}),
    ],
)
def test_parents_that_are_absent_are_created(metadata, fields):
    before = pod(container(**fields))
    before["metadata"] = metadata
    if metadata is None:
        del before["metadata"]
    one = preset(
        env=env(A="1"),
        envFrom=[{"configMapRef": {"name": "c"}}],
        volumes=[{"name": "v", "emptyDir": {}}],
        volumeMounts=[{"name": "v", "mountPath": "/v"}],
    )
    _, after = admit(before, world(one))
    app = container_of(after)
    assert (len(app["env"]), len(app["envFrom"]), len(app["volumeMounts"])) == (1, 1, 1)
    assert len(after["spec"]["volumes"]) == 1
    assert len(after["metadata"]["annotations"]) == 2


@pytest.mark.parametrize(
    ("selector", "labels", "matches"),
    [
        (None, None, True),
        ({}, None, True),
        ({}, {"a": "b"}, True),
        ({"matchLabels": {"a": "b"}}, None, False),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["b"]}]}, None, True),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["b"]}]}, {"a": "b"}, False),
        ({"matchExpressions": [{"key": "a", "operator": "Exists"}]}, {"a": ""}, True),
        ({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, {"a": ""}, False),
    ],
)
def test_a_preset_is_for_the_pods_of_its_namespace_that_its_selector_selects(selector, labels, matches):
    spec = {"env": env(A="1"), **({} if selector is None else {"selector": selector})}
    decision, _ = admit(pod(labels=labels), world(preset(**spec), preset("other", "elsewhere", env=env(B="2"))))
    assert [key.name for key in decision.applied] == (["narrow"] if matches else [])


@pytest.mark.parametrize("make", [preset, cluster_preset])
def test_a_long_name_of_a_preset_gives_a_key_that_the_api_server_takes(make):
    names = ["x" * 253, "x" * 252 + "y"]
    after = admitted(pod(), *[make(name, env=env(**{f"A{at}": "1"})) for at, name in enumerate(names)])
    keys = [key.removeprefix(ADMISSION_PREFIX) for key in after["metadata"]["annotations"] if key != HASH_ANNOTATION]
    assert len(keys) == 2
    assert all(len(key) <= 63 for key in keys)


@pytest.mark.parametrize(
    ("value", "skipped"), [("true", True), ("True", False), ("1", False), ("yes", False), ("", False), (" true", False)]
)
def test_only_exactly_true_excludes_a_pod_or_a_namespace(value, skipped):
    mark = {f"{ADMISSION_PREFIX}exclude": value}
    by_pod, _ = admit(pod(annotations=mark), world(preset(env=env(A="1"))))
    by_namespace, _ = admit(pod(), world(preset(env=env(A="1")), labels=mark))
    by_label_of_the_pod, _ = admit(pod(labels=mark), world(preset(env=env(A="1"))))
    assert (by_pod.skip is Skip.EXCLUDED_POD) == skipped
    assert (by_namespace.skip is Skip.EXCLUDED_NAMESPACE) == skipped
    assert by_label_of_the_pod.skip is None


@pytest.mark.parametrize("namespace", ["kube-system", "groundwork-system"])
def test_system_namespaces_are_left_alone(namespace):
    where = world(cluster_preset(env=env(A="1")), untouched=["groundwork-system"])
    decision, _ = admit(pod(), where, namespace=namespace)
    assert decision.skip is Skip.SYSTEM_NAMESPACE


def test_one_review_sees_one_state_of_the_presets():
    before = world(preset("a", env=env(A="1")))
    after = before.without_preset(preset("a").key).with_preset(preset("b", env=env(B="2")))
    assert env_of(admit(pod(), before)[1]) == [("A", "1")]
    assert env_of(admit(pod(), after)[1]) == [("B", "2")]


def test_a_value_from_is_never_touched_nor_are_names_that_a_pod_repeats_repeated_again():
    own = [{"name": "A", "valueFrom": SECRET}, *env(NO_PROXY="x"), *env(NO_PROXY="y"), *env(no_proxy="y")]
    before = pod(container(env=own))
    decision, after = admit(before, world(preset(env=[var("A", "1", override="force"), var("NO_PROXY", "z")])))
    assert container_of(after)["env"] == own
    assert decision.warnings == ("container app: NO_PROXY is set more than once, and stays as it is",)


def test_a_list_from_a_secret_is_told_of_as_it_cannot_be_merged():
    before = pod(container(env=[{"name": "NO_PROXY", "valueFrom": SECRET}]))
    decision, after = admit(before, world(preset(env=env(NO_PROXY="z"))))
    assert env_of(after) == [("NO_PROXY", SECRET), ("no_proxy", SECRET)]
    assert decision.warnings == ("container app: NO_PROXY has a valueFrom, with which nothing can be merged",)


def test_hundreds_of_containers_under_fifty_presets_get_one_item_each():
    presets = [preset(f"p{at:02}", env=[var(f"V{at:02}", "x"), var("NO_PROXY", f"h{at:02}")]) for at in range(50)]
    before = pod(*[container(f"c{at}", env=env(NO_PROXY="own")) for at in range(300)])
    decision, after = admit(before, world(*presets))
    assert decision.outcome is Outcome.PATCHED
    wanted = ",".join(["own", *[f"h{at:02}" for at in range(50)]])
    assert all(dict(env_of(after, f"c{at}"))["NO_PROXY"] == wanted for at in range(300))
    assert all(len(env_of(after, f"c{at}")) == 52 for at in range(300))
    # The API server takes objects of 3 MB; what the presets give is about 1 MB, and its patch about twice that.
    assert len(msgspec.json.encode(decision.patch)) < 3 * 2**20


def test_a_pod_of_a_megabyte_gets_a_patch_of_the_size_of_what_is_added():
    before = pod(container(args=["x" * 2**20]))
    decision, after = admit(before, world(preset(env=env(A="1"))))
    assert after["spec"]["containers"][0]["args"] == before["spec"]["containers"][0]["args"]
    assert len(json.dumps(decision.patch)) < 1000


# -- ephemeral containers ------------------------------------------------------------------------------------------

EPHEMERAL = {"operation": "UPDATE", "subresource": "ephemeralcontainers"}
MOUNTED = {"volumes": [{"name": "v", "emptyDir": {}}], "volumeMounts": [{"name": "v", "mountPath": "/v"}]}


def test_only_a_new_ephemeral_container_is_changed():
    old = pod(ephemeralContainers=[container("first")])
    new = pod(ephemeralContainers=[container("first"), container("second", env=env(A="mine"))])
    where = world(preset(env=env(A="1", B="2")))
    decision, after = admit(new, where, old=old, **EPHEMERAL)
    assert env_of(after, "second") == [("B", "2"), ("A", "mine")]
    assert "env" not in container_of(after, "first")
    assert "env" not in container_of(after, "app")
    assert "annotations" not in after["metadata"]
    assert {op["path"].split("/")[3] for op in decision.patch} == {"1"}


def test_an_ephemeral_container_counts_as_an_ordinary_one():
    new = pod(ephemeralContainers=[container("debug")])
    one = preset(env=env(A="1"), containerSelector={"init": False})
    assert env_of(admit(new, world(one), old=pod(), **EPHEMERAL)[1], "debug") == [("A", "1")]


@pytest.mark.parametrize(("present", "mounted"), [(True, True), (False, False)])
def test_an_ephemeral_container_mounts_what_the_pod_has_as_no_volume_can_be_added(present, mounted):
    volumes = MOUNTED["volumes"] if present else []
    new = pod(ephemeralContainers=[container("debug")], volumes=volumes)
    decision, after = admit(new, world(preset(env=env(A="1"), **MOUNTED)), old=pod(volumes=volumes), **EPHEMERAL)
    assert ("volumeMounts" in container_of(after, "debug")) == mounted
    assert after["spec"]["volumes"] == volumes
    assert env_of(after, "debug") == [("A", "1")]
    assert decision.conflicts == ()


OTHER = [{"name": "v", "secret": {"secretName": "mine"}}]
PART = {"name": "v", "mountPath": "/v", "subPath": "x"}


@pytest.mark.parametrize("policy", ["SkipVariable", "SkipAll", "Reject"])
@pytest.mark.parametrize(
    ("mounts", "volumes", "own"),
    [
        ([], OTHER, []),
        ([PART], OTHER, []),
        ([PART], OTHER, [{"name": "v", "mountPath": "/v"}]),
        (MOUNTED["volumeMounts"], [{"name": "w", "emptyDir": {}}], [{"name": "w", "mountPath": "/v"}]),
    ],
    ids=["bare", "a part", "a part where it mounts another", "a volume that the pod lacks where it mounts another"],
)
def test_a_volume_that_an_ephemeral_container_would_not_get_anyway_is_no_conflict(policy, mounts, volumes, own):
    new = pod(ephemeralContainers=[container("debug", volumeMounts=own)], volumes=volumes)
    one = preset(conflictPolicy=policy, env=env(A="1"), volumes=MOUNTED["volumes"], volumeMounts=mounts)
    decision, after = admit(new, world(one), old=pod(volumes=volumes), **EPHEMERAL)
    assert decision.conflicts == ()
    assert env_of(after, "debug") == [("A", "1")]
    assert container_of(after, "debug")["volumeMounts"] == own


@pytest.mark.parametrize("policy", ["SkipVariable", "SkipAll", "Reject"])
def test_presets_need_not_agree_on_a_volume_that_no_container_mounts_for_an_ephemeral_one(policy):
    new = pod(ephemeralContainers=[container("debug")])
    ones = [preset("a", env=env(A="1"), volumes=MOUNTED["volumes"]), preset("b", conflictPolicy=policy, volumes=OTHER)]
    decision, after = admit(new, world(*ones), old=pod(), **EPHEMERAL)
    assert decision.conflicts == ()
    assert env_of(after, "debug") == [("A", "1")]
    assert admit(pod(), world(*ones))[0].conflicts


@pytest.mark.parametrize(
    ("policy", "outcome"),
    [("SkipVariable", Outcome.PATCHED), ("SkipAll", Outcome.LEFT), ("Reject", Outcome.REJECTED)],
)
def test_a_volume_that_an_ephemeral_container_would_mount_has_to_be_the_pods(policy, outcome):
    new = pod(ephemeralContainers=[container("debug")], volumes=OTHER)
    one = preset(conflictPolicy=policy, env=env(A="1"), **MOUNTED)
    decision, after = admit(new, world(one), old=pod(volumes=OTHER), **EPHEMERAL)
    assert decision.outcome is outcome
    assert "volumeMounts" not in container_of(after, "debug")


def test_an_update_without_a_new_ephemeral_container_is_none_of_a_presets_business():
    same = pod(ephemeralContainers=[container("first")])
    presets = [
        preset(name, conflictPolicy="Reject", volumes=[{"name": "v", "secret": {"secretName": name}}]) for name in "ab"
    ]
    decision, _ = admit(same, world(*presets), old=same, **EPHEMERAL)
    assert decision.outcome is Outcome.UNCHANGED


def test_an_ephemeral_container_gets_no_mount_of_a_part():
    parts = {**MOUNTED, "volumeMounts": [{"name": "v", "mountPath": "/v", "subPath": "x"}]}
    new = pod(ephemeralContainers=[container("debug")], volumes=MOUNTED["volumes"])
    decision, _ = admit(new, world(preset(**parts)), old=pod(volumes=MOUNTED["volumes"]), **EPHEMERAL)
    assert decision.outcome is Outcome.UNCHANGED


@pytest.mark.parametrize(
    ("operation", "subresource"),
    [
        ("UPDATE", ""),
        ("DELETE", ""),
        ("CONNECT", "exec"),
        ("CREATE", "binding"),
        ("UPDATE", "status"),
        ("UPDATE", "resize"),
    ],
)
def test_other_operations_are_left_alone(operation, subresource):
    decision, _ = admit(pod(), world(preset(env=env(A="1"))), operation=operation, subresource=subresource)
    assert decision.skip is Skip.OPERATION


def test_an_operation_without_an_object_is_left_alone():
    decision = decide(review(None, namespace=NAMESPACE), world(preset(env=env(A="1"))))
    assert decision.skip is Skip.OPERATION


def test_a_pod_without_a_spec_is_left_alone():
    decision, _ = admit({"metadata": {}}, world(preset(env=env(A="1"))))
    assert decision.outcome is Outcome.UNMATCHED
