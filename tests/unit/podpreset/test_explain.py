"""Who gave what: the rows behind `groundwork podpreset explain`."""

import pytest

from services.podpreset.decide import decide
from services.podpreset.explain import Fate
from tests.support.podpresets import cluster_preset, container, env, pod, preset, review, var, world

WIDE = "ClusterPodPreset wide"
NARROW = "PodPreset team/narrow"
SOURCE = {"secretKeyRef": {"name": "s", "key": "k"}}


def explained(body, *presets, **request):
    rows = []
    decide(review(body, **request), world(*presets), rows)
    return {(row.container, row.kind, row.name): row for row in rows}


def test_each_item_of_a_list_names_its_giver_and_each_preset_what_it_did():
    rows = explained(
        pod(container(env=env(NO_PROXY="own"))),
        cluster_preset(env=env(NO_PROXY="a,b")),
        preset(env=[var("NO_PROXY", "B,c", type="multi", merge_strategy="prepend")]),
    )
    row = rows["app", "env", "NO_PROXY"]
    assert row.fate is Fate.MERGED
    assert row.value == "own,B,c,a"
    assert row.givers == (("own", "container"), ("B", WIDE), ("c", NARROW), ("a", WIDE))
    assert [(str(step.preset), step.action) for step in row.steps] == [(WIDE, "set"), (NARROW, "prepended")]
    assert rows["app", "env", "no_proxy"].fate is Fate.MIRRORED


@pytest.mark.parametrize(
    ("given", "own", "fate", "value", "givers"),
    [
        (var("A", "1"), None, Fate.ADDED, "1", (("", NARROW),)),
        (var("A", "1"), var("A", "1"), Fate.PRESENT, "1", (("", "container"),)),
        (var("A", "1"), var("A", "2"), Fate.KEPT, "2", (("", "container"),)),
        (var("A", "1"), var("A", ""), Fate.OPTED_OUT, "", (("", "container"),)),
        (var("A", "1"), {"name": "A", "valueFrom": SOURCE}, Fate.DYNAMIC, SOURCE, (("", "container"),)),
        (var("A", "1", override="force"), var("A", "1"), Fate.PRESENT, "1", (("", "container"),)),
        (var("A", "1", override="force"), var("A", "2"), Fate.FORCED, "1", (("", NARROW),)),
        (
            var("A", "p,q", type="multi", override="force", merge_strategy="prepend"),
            var("A", "c,p"),
            Fate.FORCED,
            "p,q,c",
            (("p", "container"), ("q", NARROW), ("c", "container")),
        ),
    ],
)
def test_the_fate_of_a_variable_tells_what_happened(given, own, fate, value, givers):
    before = pod(container(env=[] if own is None else [own]))
    row = explained(before, preset(env=[given]))["app", "env", "A"]
    assert (row.fate, row.value, row.givers) == (fate, value, givers)


def test_a_variable_set_twice_or_in_two_ways_is_told_of():
    before = pod(container(env=[*env(A="1"), *env(A="2"), *env(HTTP_PROXY="x", http_proxy="y")]))
    rows = explained(before, preset(env=env(A="3", HTTP_PROXY="z")))
    assert (rows["app", "env", "A"].fate, rows["app", "env", "A"].value) == (Fate.REPEATED, "2")
    assert rows["app", "env", "http_proxy"].fate is Fate.DIFFERING


def test_presets_that_were_overruled_are_named_in_the_steps():
    presets = [
        cluster_preset(env=env(A="0")),
        preset("a", env=env(A="1")),
        preset("b", env=env(A="2")),
        preset("c", env=env(A="1")),
    ]
    row = explained(pod(), *presets)["app", "env", "A"]
    assert [(step.preset.name, step.action) for step in row.steps] == [
        ("wide", "set"),
        ("a", "replaced"),
        ("b", "conflicted"),
        ("c", "agreed"),
    ]
    assert row.givers == (("", "PodPreset team/a"),)


def test_a_variable_that_is_in_the_way_of_an_old_preset_is_a_conflict():
    row = explained(pod(container(env=env(A="1"))), preset(env=env(A="2"), conflictPolicy="SkipAll"))["app", "env", "A"]
    assert row.fate is Fate.CONFLICT


MOUNTED = {"volumes": [{"name": "v", "emptyDir": {}}], "volumeMounts": [{"name": "v", "mountPath": "/v"}]}


@pytest.mark.parametrize(
    ("own", "volume", "mount"),
    [
        ({}, Fate.ADDED, Fate.ADDED),
        ({"volumes": MOUNTED["volumes"]}, Fate.PRESENT, Fate.ADDED),
        ({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}, Fate.CONFLICT, Fate.CONFLICT),
    ],
)
def test_volumes_and_mounts_have_rows_too(own, volume, mount):
    rows = explained(pod(**own), preset(**MOUNTED))
    assert rows["", "volume", "v"].fate is volume
    assert rows["app", "volumeMount", "/v"].fate is mount


def test_what_an_ephemeral_container_cannot_have_is_told_of():
    body = pod(ephemeralContainers=[container("debug")])
    one = preset(**MOUNTED, caBundle={"configMap": {"name": "c"}})
    rows = explained(body, one, old=pod(), operation="UPDATE", subresource="ephemeralcontainers")
    assert rows["debug", "volumeMount", "/v"].fate is Fate.UNAVAILABLE
    assert rows["", "volume", "v"].fate is Fate.UNAVAILABLE
    assert rows["debug", "env", "SSL_CERT_FILE"].fate is Fate.UNAVAILABLE


def test_env_from_have_rows_too():
    given = [{"configMapRef": {"name": "a"}}, {"secretRef": {"name": "b"}}, {"secretRef": {"name": "c"}}]
    own = [{"secretRef": {"name": "b"}}, {"secretRef": {"name": "c", "optional": True}}]
    rows = explained(pod(container(envFrom=own)), preset(envFrom=given))
    fates = {name: row.fate for (_, _, name), row in rows.items()}
    assert fates == {"ConfigMap a": Fate.ADDED, "Secret b": Fate.PRESENT, "Secret c": Fate.CONFLICT}
    assert rows["app", "envFrom", "ConfigMap a"].givers == (("", NARROW),)
    assert rows["app", "envFrom", "Secret c"].value == own[1]
