"""Presets of one layer, and what a narrower one takes over: values, lists, and where values come from."""

import pytest

from services.podpreset.decision import Outcome
from services.podpreset.explain import Fate
from tests.support.podpresets import admit, cluster_preset, container, env, env_of, pod, preset, var, world
from tests.unit.podpreset.test_explain import explained

SOURCE, OTHER = ({"secretKeyRef": {"name": "s", "key": key}} for key in ("k", "other"))


def many(text, strategy="append", **metadata):
    return var("LIST", text, type="multi", merge_strategy=strategy, **metadata)


def given(source):
    return {"name": "A", "valueFrom": source}


def pair(one, two):
    """Two presets of one layer, in the order in which they are applied."""
    return preset("a", env=[one]), preset("b", env=[two])


@pytest.mark.parametrize(
    ("one", "two", "together", "done", "givers"),
    [
        (many("x,y"), many("y,z"), "x,y,z", "appended", "aab"),
        (many("x,y"), many("y,z", "prepend"), "y,z,x", "prepended", "aba"),
        (many("x,y"), many("y", "prepend"), "x,y", "prepended", "aa"),
        (many("x,y", "prepend"), many("z"), "x,y,z", "appended", "aab"),
        (many("x,y"), many("y,x"), "x,y", "appended", "aa"),
        (many("x,y"), many("X, y"), "x,y", "agreed", "aa"),
        (many("x,y", "replace"), many("x , y", "replace"), "x,y", "agreed", "aa"),
    ],
)
def test_two_lists_of_one_layer_are_one(one, two, together, done, givers):
    presets = pair(one, two)
    decision, after = admit(pod(), world(*presets))
    assert (env_of(after), decision.conflicts, decision.warnings) == ([("LIST", together)], (), ())
    row = explained(pod(), *presets)["app", "env", "LIST"]
    assert [step.action for step in row.steps] == ["set", done]
    named = [f"PodPreset team/{giver}" for giver in givers]
    assert row.givers == tuple(zip(together.split(","), named, strict=True))


@pytest.mark.parametrize(
    ("one", "two", "stays"),
    [
        (many("x"), many("y", "replace"), "x"),
        (many("x,y", "replace"), many("y,x", "replace"), "x,y"),
        (many("x"), var("LIST", "x,y"), "x"),
        (var("LIST", "x"), many("x,y"), "x"),
        (var("LIST", "x"), var("LIST", "y"), "x"),
        (given(SOURCE), given(OTHER), SOURCE),
        (given(SOURCE), var("A", ""), SOURCE),
        (var("A", ""), given(SOURCE), ""),
    ],
)
def test_two_values_of_one_layer_that_differ_are_a_conflict_and_the_first_stays(one, two, stays):
    decision, after = admit(pod(), world(*pair(one, two)))
    assert [value for _, value in env_of(after)] == [stays]
    (conflict,) = decision.conflicts
    assert (str(conflict.preset), conflict.item) == ("PodPreset team/b", f"env {one['name']}")


@pytest.mark.parametrize("one", [var("A", "1"), var("A", ""), given(SOURCE), many("x,y")])
def test_two_presets_that_say_the_same_agree(one):
    decision, _ = admit(pod(), world(*pair(one, one)))
    assert decision.conflicts == ()
    assert [step.action for step in explained(pod(), *pair(one, one))["app", "env", one["name"]].steps][1:] == [
        "agreed"
    ]


@pytest.mark.parametrize(("one", "two"), [(var("LIST", "x"), many("x")), (many("x"), var("LIST", "x"))])
def test_a_single_value_and_a_list_of_it_agree(one, two):
    decision, after = admit(pod(), world(*pair(one, two)))
    assert (decision.conflicts, env_of(after)) == ((), [("LIST", "x")])


OLD = {"conflictPolicy": "SkipAll"}


@pytest.mark.parametrize(
    ("first", "second", "outcome"),
    [({}, {}, Outcome.PATCHED), (OLD, {}, Outcome.LEFT), ({}, OLD, Outcome.LEFT), (OLD, OLD, Outcome.LEFT)],
)
def test_one_of_two_that_agree_is_enough_to_want_the_pod_as_it_came(first, second, outcome):
    presets = [preset("a", env=env(A="1"), **first), preset("b", env=env(A="1"), **second)]
    decision, _ = admit(pod(container(env=env(A="2"))), world(*presets))
    assert decision.outcome is outcome
    wanted = [name for name, own in (("a", first), ("b", second)) if own][:1]
    assert [conflict.preset.name for conflict in decision.conflicts] == wanted


def test_two_old_presets_with_different_lists_leave_the_pod_as_it_came():
    presets = [preset(name, env=env(NO_PROXY=name), **OLD) for name in "ab"]
    decision, _ = admit(pod(), world(*presets))
    assert decision.outcome is Outcome.LEFT
    assert [conflict.item for conflict in decision.conflicts] == ["env NO_PROXY"]


# A narrower layer


@pytest.mark.parametrize(
    ("wide", "narrow", "own", "value"),
    [
        (given(SOURCE), given(OTHER), [], OTHER),
        (var("A", "1"), given(SOURCE), [], SOURCE),
        (given(SOURCE), var("A", "1"), [], "1"),
        (given(SOURCE), var("A", "x", type="multi", merge_strategy="append"), [], "x"),
        (many("x"), many("y", "replace", override="force"), env(LIST="own"), "y"),
        (many("x"), many("y", "append", override="force"), env(LIST="own"), "own,x,y"),
        (many("x"), many("y", "prepend", override="force"), env(LIST="own"), "y,x,own"),
        (many("x,y"), many("y"), [], "x,y"),
        (many("x,y"), many("y", "prepend"), [], "x,y"),
    ],
)
def test_a_narrower_preset_has_the_last_word(wide, narrow, own, value):
    _, after = admit(pod(container(env=own)), world(cluster_preset(env=[wide]), preset(env=[narrow])))
    assert [found for _, found in env_of(after)] == [value]


def test_an_old_preset_that_replaces_a_wider_value_wants_the_pod_as_it_came():
    presets = cluster_preset(env=env(A="1")), preset(env=env(A="2"), **OLD)
    decision, _ = admit(pod(container(env=env(A="1"))), world(*presets))
    assert decision.outcome is Outcome.LEFT


def test_a_single_value_that_is_added_to_has_its_giver_for_each_item():
    presets = cluster_preset(env=[var("LIST", "x,y")]), preset(env=[many("z")])
    row = explained(pod(), *presets)["app", "env", "LIST"]
    wide, narrow = "ClusterPodPreset wide", "PodPreset team/narrow"
    assert row.givers == (("x", wide), ("y", wide), ("z", narrow))


@pytest.mark.parametrize(
    ("wide", "narrow", "told"),
    [("*", "*", False), ("x,*", "*", True), ("*", "x,*", True), ("x", "*", True), ("*", "x", True)],
)
def test_a_star_is_told_of_where_it_stands_for_other_items(wide, narrow, told):
    decision, after = admit(pod(), world(cluster_preset(env=env(NO_PROXY=wide)), preset(env=env(NO_PROXY=narrow))))
    assert dict(env_of(after))["NO_PROXY"] == "*"
    assert decision.warnings == (("NO_PROXY: * stands for all other items",) if told else ())


# The container's own


def test_an_entry_without_a_value_is_an_empty_one():
    before = pod(container(env=[{"name": "A"}]))
    decision, _ = admit(before, world(preset(env=env(A=""), **OLD)))
    assert decision.conflicts == ()


def test_the_second_spelling_has_a_row_though_the_container_lacks_the_first():
    rows = explained(pod(container(env=env(http_proxy="own"))), preset(env=env(HTTP_PROXY="theirs")))
    assert rows["app", "env", "http_proxy"].fate is Fate.KEPT
    assert (rows["app", "env", "HTTP_PROXY"].fate, rows["app", "env", "HTTP_PROXY"].value) == (Fate.MIRRORED, "own")


@pytest.mark.parametrize("own", [[], env(A="1")])
def test_a_row_shows_where_a_value_comes_from(own):
    forced = {**given(SOURCE), "metadata": {"override": "force"}}
    row = explained(pod(container(env=own)), preset(env=[forced]))["app", "env", "A"]
    assert (row.fate, row.value) == (Fate.FORCED if own else Fate.ADDED, SOURCE)
