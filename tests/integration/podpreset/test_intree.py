"""What the PodPreset that Kubernetes had until 1.20 was tested for, by the names of its tests, through the API server.

Its objects are used as they were, with `conflictPolicy: SkipAll`, which is its way with conflicts. Where it appended
variables to those of a container, ours come first.
"""

from __future__ import annotations

import pytest

from tests.support.presets import APPLIED, EXCLUDE, MIRROR, Site, applied, container, env, first, mounts, pod, volumes

LABELS = {"security": "S2"}
SELECTOR = {"matchExpressions": [{"key": "security", "operator": "In", "values": ["S2"]}]}
ENV = [{"name": "abc", "value": "value"}, {"name": "ABC", "value": "value2"}]
VOLUME = {"name": "vol", "emptyDir": {}}
MOUNT = {"name": "vol", "mountPath": "/foo"}
ENV_FROM = [{"configMapRef": {"name": "abc"}}, {"prefix": "pre_", "configMapRef": {"name": "abc"}}]
GIVEN = {"env": ENV, "volumes": [VOLUME], "volumeMounts": [MOUNT], "envFrom": ENV_FROM}


async def given(site, **spec):
    """One preset for pods labelled S2."""
    return await site.preset("hello", selector=SELECTOR, conflictPolicy="SkipAll", **(spec or GIVEN))


def untouched(obj):
    return not applied(obj) and env(first(obj)) == [] and volumes(obj) == []


@pytest.mark.parametrize(
    ("own", "outcome"),
    [
        pytest.param([], [("abc", "value"), ("ABC", "value2")], id="empty original"),
        pytest.param(
            [{"name": "other", "value": "x"}],
            [("abc", "value"), ("ABC", "value2"), ("other", "x")],
            id="good merge",
        ),
        pytest.param([{"name": "abc", "value": "mine"}], None, id="conflict"),
        pytest.param(
            [{"name": "abc", "value": "value"}, {"name": "other", "value": "x"}],
            [("ABC", "value2"), ("abc", "value"), ("other", "x")],
            id="one is exact same",
        ),
    ],
)
async def test_merge_env(site, own, outcome):
    await given(site, env=ENV)
    made = await site.pod(LABELS, containers=[container(env=own)])
    if outcome is None:
        assert env(first(made)) == [(var["name"], var["value"]) for var in own]
        assert not applied(made)
    else:
        assert env(first(made)) == outcome
        assert list(applied(made)) == [f"{APPLIED}hello"]


@pytest.mark.parametrize(
    ("own", "outcome"),
    [
        pytest.param([], ENV_FROM, id="empty original"),
        pytest.param(
            [{"prefix": "theirs_", "configMapRef": {"name": "theirs"}}],
            [*ENV_FROM, {"prefix": "theirs_", "configMapRef": {"name": "theirs"}}],
            id="good merge",
        ),
        pytest.param([ENV_FROM[1]], [ENV_FROM[0], ENV_FROM[1]], id="one is exact same"),
        pytest.param([{"configMapRef": {"name": "abc", "optional": True}}], None, id="conflict"),
    ],
)
async def test_merge_env_from(site, own, outcome):
    await given(site, envFrom=ENV_FROM)
    made = await site.pod(LABELS, containers=[container(envFrom=own)])
    assert first(made).get("envFrom", []) == (own if outcome is None else outcome)
    assert bool(applied(made)) is (outcome is not None)


OTHER = {"name": "other", "emptyDir": {}}


@pytest.mark.parametrize(
    ("own_volumes", "own_mounts", "outcome"),
    [
        pytest.param([], [], [("vol", "/foo")], id="empty original"),
        pytest.param(
            [OTHER], [{"name": "other", "mountPath": "/x"}], [("other", "/x"), ("vol", "/foo")], id="good merge"
        ),
        pytest.param([OTHER], [{"name": "other", "mountPath": "/foo"}], None, id="conflict on mount path"),
        pytest.param([VOLUME], [MOUNT], [("vol", "/foo")], id="one is exact same"),
        pytest.param([VOLUME], [{**MOUNT, "readOnly": True}], None, id="conflict"),
    ],
)
async def test_merge_volume_mounts(site, own_volumes, own_mounts, outcome):
    await given(site, volumes=[VOLUME], volumeMounts=[MOUNT])
    made = await site.pod(LABELS, containers=[container(volumeMounts=own_mounts)], volumes=own_volumes)
    if outcome is None:
        assert mounts(first(made)) == [(mount["name"], mount["mountPath"]) for mount in own_mounts]
        assert volumes(made) == [volume["name"] for volume in own_volumes]
        assert not applied(made)
    else:
        assert mounts(first(made)) == outcome
        assert applied(made)


@pytest.mark.parametrize(
    ("own", "outcome"),
    [
        pytest.param([], ["vol"], id="empty original"),
        pytest.param([OTHER], ["other", "vol"], id="good merge"),
        pytest.param([{"name": "vol", "hostPath": {"path": "/x"}}], None, id="conflict"),
        pytest.param([VOLUME], ["vol"], id="one is exact same"),
    ],
)
async def test_merge_volumes(site, own, outcome):
    await given(site, volumes=[VOLUME], volumeMounts=[MOUNT])
    made = await site.pod(LABELS, volumes=own)
    assert volumes(made) == ([volume["name"] for volume in own] if outcome is None else outcome)
    assert mounts(first(made)) == ([("vol", "/foo")] if outcome else [])


async def test_admit_conflict_with_different_namespace_should_do_nothing(kube, scope, site):
    async with Site.made(kube, scope) as elsewhere:
        await given(elsewhere, env=[{"name": "abc", "value": "theirs"}])
        made = await site.pod(LABELS, containers=[container(env=[{"name": "abc", "value": "mine"}])])
        assert env(first(made)) == [("abc", "mine")]
        assert not applied(made)


async def test_admit_conflict_with_non_matching_labels_should_not_error(site):
    await given(site)
    made = await site.pod({"security": "S3"}, containers=[container(env=[{"name": "abc", "value": "mine"}])])
    assert env(first(made)) == [("abc", "mine")]
    assert not applied(made)


async def test_admit_conflict_should_not_modify_pod(site):
    await given(site)
    await site.preset("second", selector=SELECTOR, env=[{"name": "more", "value": "x"}])
    made = await site.pod(LABELS, containers=[container(env=[{"name": "abc", "value": "mine"}])])
    assert env(first(made)) == [("abc", "mine")], "one conflict, and no preset at all is applied"
    assert volumes(made) == []
    assert not applied(made)


async def test_admit(site):
    await given(site)
    made = await site.pod(LABELS)
    assert env(first(made)) == [("abc", "value"), ("ABC", "value2")], "letter case tells two variables apart"
    assert first(made)["envFrom"] == ENV_FROM
    assert mounts(first(made)) == [("vol", "/foo")]
    assert made["spec"]["volumes"] == [VOLUME]
    assert list(applied(made)) == [f"{APPLIED}hello"]


async def test_admit_mirror_pod(webhook, site):
    await given(site)
    # A user cannot make one through the API server, which does not ask about them either.
    answer = webhook.review(pod(labels=LABELS, annotations={MIRROR: "hash"}), namespace=site.namespace)
    assert answer["allowed"]
    assert "patch" not in answer
    assert answer["auditAnnotations"] == {"skipped": "mirror"}
    assert "patch" in webhook.review(pod(labels=LABELS), namespace=site.namespace)


async def test_exclusion_no_admit(site):
    await given(site)
    assert untouched(await site.pod(LABELS, {EXCLUDE: "true"}))


async def test_admit_empty_pod_namespace(site):
    await given(site)
    made = pod("empty", LABELS)
    assert "namespace" not in made["metadata"]
    assert applied(await site.create(made))


async def test_should_create_a_pod_preset(site):
    await given(site, env=[{"name": "abc", "value": "value"}], volumes=[VOLUME], volumeMounts=[MOUNT])
    made = await site.pod(LABELS, initContainers=[container("init")])
    assert env(first(made)) == [("abc", "value")]
    assert env(made["spec"]["initContainers"][0]) == [("abc", "value")]
    assert mounts(made["spec"]["initContainers"][0]) == [("vol", "/foo")]
    assert list(applied(made)) == [f"{APPLIED}hello"]


async def test_should_not_modify_the_pod_on_conflict(site):
    await given(site, env=[{"name": "abc", "value": "value"}], volumes=[VOLUME], volumeMounts=[MOUNT])
    made = await site.pod(LABELS, initContainers=[container("init", env=[{"name": "abc", "value": "value2"}])])
    assert untouched(made)
    assert env(made["spec"]["initContainers"][0]) == [("abc", "value2")]
