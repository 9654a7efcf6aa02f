"""Annotations that record presets: keys, hashes, when they are written."""

import re

import pytest

from services.podpreset.api import ADMISSION_PREFIX, CLUSTER_KIND, HASH_ANNOTATION, NAMESPACED_KIND, PresetKey
from services.podpreset.decision import Outcome
from services.podpreset.marks import annotation_key
from tests.support.podpresets import admit, admitted, cluster_preset, env, pod, preset, world

QUALIFIED = re.compile(r"podpreset\.admission\.kubernetes\.io/[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")


@pytest.mark.parametrize(
    ("kind", "name", "key"),
    [
        (NAMESPACED_KIND, "hello", "podpreset-hello"),
        (CLUSTER_KIND, "hello", "clusterpodpreset-hello"),
        (NAMESPACED_KIND, "x" * 53, "podpreset-" + "x" * 53),
        (CLUSTER_KIND, "x" * 46, "clusterpodpreset-" + "x" * 46),
    ],
)
def test_a_key_holds_the_name_as_long_as_it_fits(kind, name, key):
    assert annotation_key(PresetKey(kind, "", name)) == ADMISSION_PREFIX + key


@pytest.mark.parametrize("kind", [NAMESPACED_KIND, CLUSTER_KIND])
@pytest.mark.parametrize("length", [47, 54, 63, 253])
@pytest.mark.parametrize("unit", ["x", "x.", "x-"])
def test_a_longer_name_is_cut_and_hashed_into_a_valid_key(kind, length, unit):
    names = [(unit * 253)[: length - 1] + last for last in "ab"]
    keys = {annotation_key(PresetKey(kind, "", name)) for name in names}
    assert len(keys) == 2
    assert all(QUALIFIED.fullmatch(key) for key in keys)


def test_a_preset_of_the_cluster_and_one_of_the_namespace_may_have_one_name():
    after = admitted(pod(), cluster_preset("same", env=env(A="1")), preset("same", env=env(B="1")))
    assert len(after["metadata"]["annotations"]) == 3


def test_a_hash_depends_on_what_a_preset_gives_alone():
    base = {"env": env(A="1"), "volumes": [{"name": "v", "emptyDir": {}}]}
    same = [
        preset("other", "elsewhere", **base),
        preset(priority=0, conflictPolicy="SkipVariable", **base),
        preset(conflictPolicy="Reject", selector={"matchLabels": {"a": "b"}}, **base),
        cluster_preset(namespaceSelector={"matchLabels": {"a": "b"}}, **base),
        preset(volumes=[{"emptyDir": {}, "name": "v"}], env=env(A="1")),
    ]
    different = [
        preset(**{**base, "env": env(A="2")}),
        preset(priority=1, **base),
        preset(containerSelector={"names": ["a"]}, **base),
        preset(noProxy={"include": [".svc"]}, **base),
    ]
    assert {one.hash for one in same} == {preset(**base).hash}
    assert len({one.hash for one in different} | {preset(**base).hash}) == len(different) + 1


def test_the_hash_of_all_tells_of_a_preset_that_came_went_or_changed():
    one, two = preset("a", env=env(A="1")), preset("b", env=env(B="1"))
    states = [[one], [two], [one, two], [preset("a", env=env(A="2")), two]]
    hashes = [admitted(pod(), *presets)["metadata"]["annotations"][HASH_ANNOTATION] for presets in states]
    assert len(set(hashes)) == len(states)


def test_annotations_of_the_users_stay_and_outdated_ones_of_ours_are_replaced():
    outdated = {f"{ADMISSION_PREFIX}podpreset-narrow": "7", HASH_ANNOTATION: "0", "mine/a~b": "c"}
    decision, after = admit(pod(annotations=outdated), world(preset(env=env(A="1"))))
    ops = {op["path"]: op["op"] for op in decision.patch if "metadata" in op["path"]}
    assert set(ops.values()) == {"replace"}
    assert set(ops) == {
        "/metadata/annotations/podpreset.admission.kubernetes.io~1podpreset-narrow",
        "/metadata/annotations/podpreset.groundwork.dev~1hash",
    }
    assert after["metadata"]["annotations"]["mine/a~b"] == "c"


def test_a_pod_that_has_everything_is_marked_nonetheless():
    decision, after = admit(pod({"name": "app", "env": env(A="1")}), world(preset(env=env(A="1"))))
    assert decision.outcome is Outcome.PATCHED
    assert len(after["metadata"]["annotations"]) == 2
    assert len(decision.patch) == 1
