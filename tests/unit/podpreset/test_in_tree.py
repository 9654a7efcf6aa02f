"""What the PodPreset of Kubernetes 1.6 to 1.19 was tested for, by the names of its tests; conflictPolicy is SkipAll."""

import itertools

import pytest

from services.podpreset.api import ADMISSION_PREFIX, SKIP_ALL
from services.podpreset.compiled import source_key
from services.podpreset.decision import Outcome, Skip
from services.podpreset.sameness import same
from tests.support.podpresets import admit, admitted, container, container_of, env, pod, preset, world

LABELS = {"security": "S2"}
FIXTURE = {
    "conflictPolicy": SKIP_ALL,
    "selector": {"matchExpressions": [{"key": "security", "operator": "In", "values": ["S2"]}]},
    "env": env(abc="value", ABC="value2"),
    "envFrom": [{"configMapRef": {"name": "abc"}, "prefix": "pre_"}],
    "volumes": [{"name": "vol", "emptyDir": {}}],
    "volumeMounts": [{"name": "vol", "mountPath": "/foo"}],
}

BOTH_SPELLINGS = env(NO_PROXY="a,*", no_proxy="a,*")

# Each row: what presets give, what the pod has, what it ends with; None for a conflict.
ENV = {
    "empty original": (env(abc="value", ABC="value2"), [], env(abc="value", ABC="value2")),
    "good merge": (env(abc="value"), env(BLAH="other"), env(abc="value", BLAH="other")),
    "conflict": (env(abc="value", ABC="value2"), env(abc="a different value"), None),
    "one is exact same": (env(abc="value", x="y"), env(abc="value"), env(x="y", abc="value")),
    "an empty value differs": (env(abc="value"), env(abc=""), None),
    "no value is the empty value": (env(abc=""), [{"name": "abc"}], [{"name": "abc"}]),
    **{
        f"a list as it is written, {text!r}": (
            env(NO_PROXY=text),
            env(NO_PROXY=text),
            env(NO_PROXY=text, no_proxy=text),
        )
        for text in ("a,b", "a, b", "a,b,", "a,*", "a,A", ",", "")
    },
    "a list as another spelling of it is written": (env(no_proxy="a,*"), env(NO_PROXY="a,*"), BOTH_SPELLINGS),
    "a list that is written in both spellings": (BOTH_SPELLINGS, BOTH_SPELLINGS, BOTH_SPELLINGS),
    "the same list in other words": (env(NO_PROXY="a,b"), env(NO_PROXY="A, b"), env(NO_PROXY="A, b", no_proxy="A, b")),
    "a list of other items": (env(NO_PROXY="a, b"), env(NO_PROXY="a, c"), None),
    "a list in another order": (env(NO_PROXY="a, b"), env(NO_PROXY="b, a"), None),
    "a single value with blanks": (env(abc="a, b"), env(abc="a,b"), None),
}


def source(name, prefix=None):
    return {"configMapRef": {"name": name}, **({"prefix": prefix} if prefix else {})}


ENV_FROM = {
    "empty original": ([source("abc", "pre_")], [], [source("abc", "pre_")]),
    "good merge": ([source("abc", "pre_")], [source("other")], [source("abc", "pre_"), source("other")]),
    "one is exact same": ([source("abc", "pre_")], [source("abc", "pre_")], [source("abc", "pre_")]),
}


def mount(name, path, **more):
    return {"name": name, "mountPath": path, **more}


def volume(name, config_map="c"):
    return {"name": name, "configMap": {"name": config_map}}


MOUNTS = {
    "empty original": ([mount("v", "/a")], [], [mount("v", "/a")]),
    "good merge": ([mount("v", "/a")], [mount("own", "/b")], [mount("own", "/b"), mount("v", "/a")]),
    "conflict (same name, other path)": ([mount("v", "/a")], [mount("v", "/b")], None),
    "conflict on mount path": ([mount("v", "/a")], [mount("own", "/a")], None),
    "conflict on how it is mounted": ([mount("v", "/a")], [mount("v", "/a", readOnly=True)], None),
    "one is exact same": ([mount("v", "/a")], [mount("v", "/a")], [mount("v", "/a")]),
}
VOLUMES = {
    "empty original": ([volume("v")], [], [volume("v")]),
    "good merge": ([volume("v")], [volume("own")], [volume("own"), volume("v")]),
    "conflict": ([volume("v")], [volume("v", "other")], None),
    "one is exact same": ([volume("v"), volume("w")], [volume("v")], [volume("v"), volume("w")]),
}


def cases(table):
    return [pytest.param(*row, id=name) for name, row in table.items()]


@pytest.mark.parametrize(("given", "own", "merged"), cases(ENV))
def test_merge_env(given, own, merged):
    before = pod(container(env=own))
    decision, after = admit(before, world(preset(env=given, conflictPolicy=SKIP_ALL)))
    assert container_of(after)["env"] == (own if merged is None else merged)
    assert (decision.outcome is Outcome.LEFT) == (merged is None)


@pytest.mark.parametrize(("given", "own", "merged"), cases(ENV_FROM))
def test_merge_env_from(given, own, merged):
    after = admitted(pod(container(envFrom=own)), preset(envFrom=given, conflictPolicy=SKIP_ALL))
    assert container_of(after)["envFrom"] == merged


def test_env_from_merge_key_tells_sources_apart_exactly_by_prefix_config_map_and_secret():
    parts = itertools.product([None, "", "p_"], [None, "a", "b"], [None, "a", "b"])
    sources = [
        {
            **({} if prefix is None else {"prefix": prefix}),
            **({} if config_map is None else {"configMapRef": {"name": config_map}}),
            **({} if secret is None else {"secretRef": {"name": secret, "optional": True}}),
        }
        for prefix, config_map, secret in parts
    ]
    for one, other in itertools.combinations(sources, 2):
        assert (source_key(one) == source_key(other)) == same(one, other)


@pytest.mark.parametrize(("given", "own", "merged"), cases(MOUNTS))
def test_merge_volume_mounts(given, own, merged):
    before = pod(container(volumeMounts=own), volumes=[volume("v"), volume("own")])
    one = preset(volumes=[volume("v")], volumeMounts=given, conflictPolicy=SKIP_ALL)
    decision, after = admit(before, world(one))
    assert container_of(after)["volumeMounts"] == (own if merged is None else merged)
    assert (decision.outcome is Outcome.LEFT) == (merged is None)


@pytest.mark.parametrize(("given", "own", "merged"), cases(VOLUMES))
def test_merge_volumes(given, own, merged):
    decision, after = admit(pod(volumes=own), world(preset(volumes=given, conflictPolicy=SKIP_ALL)))
    assert after["spec"]["volumes"] == (own if merged is None else merged)
    assert (decision.outcome is Outcome.LEFT) == (merged is None)


CONFLICTING = pod(container(env=env(abc="a different value", ABC="value2")), labels=LABELS)


def test_admit_conflict_with_different_namespace_should_do_nothing():
    decision, after = admit(CONFLICTING, world(preset("hello", "other", **FIXTURE)))
    assert decision.outcome is Outcome.UNMATCHED
    assert after == CONFLICTING
    assert decision.warnings == ()


def test_admit_conflict_with_non_matching_labels_should_not_error():
    elsewhere = {**FIXTURE, "selector": {"matchLabels": {"security": "S1"}}}
    decision, after = admit(CONFLICTING, world(preset(**elsewhere)))
    assert decision.outcome is Outcome.UNMATCHED
    assert after == CONFLICTING


def test_admit_conflict_should_not_modify_pod():
    harmless = {**FIXTURE, "env": env(other="x")}
    decision, after = admit(CONFLICTING, world(preset("hello", **FIXTURE), preset("second", **harmless)))
    assert decision.outcome is Outcome.LEFT
    assert decision.allowed
    assert after == CONFLICTING
    (warning,) = decision.warnings
    assert "env abc" in warning
    assert "left as it came" in warning


def test_admit():
    after = admitted(pod(labels=LABELS), preset("hello", **FIXTURE))
    app = container_of(after)
    assert app["env"] == FIXTURE["env"]
    assert app["envFrom"] == FIXTURE["envFrom"]
    assert app["volumeMounts"] == FIXTURE["volumeMounts"]
    assert after["spec"]["volumes"] == FIXTURE["volumes"]
    assert f"{ADMISSION_PREFIX}podpreset-hello" in after["metadata"]["annotations"]


def test_admit_mirror_pod():
    mirror = pod(labels=LABELS, annotations={"kubernetes.io/config.mirror": ""})
    decision, after = admit(mirror, world(preset(**FIXTURE)))
    assert decision.skip is Skip.MIRROR
    assert after == mirror


def test_exclusion_no_admit():
    excluded = pod(labels=LABELS, annotations={f"{ADMISSION_PREFIX}exclude": "true"})
    decision, after = admit(excluded, world(preset(**FIXTURE)))
    assert decision.skip is Skip.EXCLUDED_POD
    assert after == excluded


def test_admit_empty_pod_namespace():
    nameless = pod(labels=LABELS)
    del nameless["metadata"]["namespace"]
    decision, _ = admit(nameless, world(preset(**FIXTURE)))
    assert decision.outcome is Outcome.PATCHED


def test_should_create_a_pod_preset():
    before = pod(labels=LABELS, initContainers=[container("init")])
    after = admitted(before, preset("hello", **FIXTURE))
    assert container_of(after, "init")["env"] == container_of(after, "app")["env"] == FIXTURE["env"]
    assert f"{ADMISSION_PREFIX}podpreset-hello" in after["metadata"]["annotations"]


def test_should_not_modify_the_pod_on_conflict():
    before = pod(container(), labels=LABELS, initContainers=[container("init", env=env(abc="mine"))])
    decision, after = admit(before, world(preset("hello", **FIXTURE)))
    assert decision.outcome is Outcome.LEFT
    assert after == before


VALIDATION = {
    "TestValidateEmptyPodPreset": ({}, ["spec: must specify at least one of"]),
    "TestValidateEmptyPodPresetItems": (
        {"selector": {"matchLabels": {"a": "b"}}, "env": [], "envFrom": [], "volumes": [], "volumeMounts": []},
        ["spec: must specify at least one of"],
    ),
    "TestValidatePodPresets": (FIXTURE, []),
    "TestValidatePodPresetsiVolumeMountError": (
        {"volumes": [volume("vol")], "volumeMounts": [mount("other", "/foo")]},
        ["spec.volumeMounts[0].name: 'other', expected one of spec.volumes"],
    ),
}


@pytest.mark.parametrize(("spec", "problems"), cases(VALIDATION))
def test_validation(spec, problems):
    found = preset(**spec)
    assert len(found.problems) == len(problems)
    assert all(text.startswith(start) for text, start in zip(found.problems, problems, strict=True))
    assert found.usable == (not problems)
