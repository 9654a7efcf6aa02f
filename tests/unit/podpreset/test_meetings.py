"""What is said and patched where presets meet a container, a pod or each other."""

import json

import jsonpatch
import pytest

from services.podpreset.decide import decide_with_edits
from services.podpreset.decision import Outcome
from services.podpreset.edits import Change, Edits
from services.podpreset.explain import Fate
from services.podpreset.patch import Edited, PodEdits, edited
from services.podpreset.selectors import is_object_name
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
    review,
    var,
    world,
)
from tests.unit.podpreset.test_explain import explained

SOURCE = {"secretKeyRef": {"name": "s", "key": "k"}}
OLD = {"conflictPolicy": "SkipAll"}
MOUNTED = {"volumes": [{"name": "v", "emptyDir": {}}], "volumeMounts": [{"name": "v", "mountPath": "/v"}]}


# What is said


@pytest.mark.parametrize(
    ("policy", "outcome", "ending"),
    [("Reject", Outcome.REJECTED, None), ("SkipAll", Outcome.LEFT, "; the pod was left as it came")],
)
def test_every_conflict_that_stops_a_pod_is_told_in_full(policy, outcome, ending):
    presets = [preset(name, conflictPolicy=policy, env=env(A=name, B=name)) for name in "ab"]
    decision, _ = admit(pod(), world(*presets))
    lines = [f"PodPreset team/b: env {name} differs from that of PodPreset team/a" for name in "AB"]
    assert decision.outcome is outcome
    assert decision.audit == {"conflicts": "; ".join(lines)}
    assert [str(conflict) for conflict in decision.conflicts] == lines
    assert decision.warnings == (() if ending is None else tuple(line + ending for line in lines))
    assert decision.message == ("presets conflict: " + "; ".join(lines) if ending is None else "")


def test_an_old_preset_names_what_is_in_its_way():
    decision, _ = admit(pod(container(env=env(http_proxy="1"))), world(preset(env=env(HTTP_PROXY="2"), **OLD)))
    line = "PodPreset team/narrow: env http_proxy differs from that of container app"
    assert decision.warnings == (f"{line}; the pod was left as it came",)
    assert decision.conflicts[0].policy == "SkipAll"


def test_two_spellings_that_differ_are_told_of():
    before = pod(container(env=env(HTTP_PROXY="p", http_proxy="P")))
    decision, _ = admit(before, world(preset(env=env(HTTP_PROXY="x"))))
    assert decision.warnings == ("container app: HTTP_PROXY and http_proxy differ, and stay as they are",)


def test_two_spellings_of_one_list_are_merged_however_they_are_written():
    before = pod(container(env=env(NO_PROXY="a,b", no_proxy="A, b")))
    decision, after = admit(before, world(preset(env=env(NO_PROXY="c"))))
    assert [value for _, value in env_of(after)] == ["a,b,c", "a,b,c"]
    assert decision.warnings == ()


@pytest.mark.parametrize("own", [{"value": "x"}, {"valueFrom": SOURCE}, {}])
def test_a_mirrored_spelling_has_the_row_of_the_other(own):
    before = pod(container(env=[{"name": "http_proxy", **own}]))
    row = explained(before, preset(env=env(HTTP_PROXY="theirs")))["app", "env", "HTTP_PROXY"]
    assert (row.fate, row.value, row.givers) == (
        Fate.MIRRORED,
        own.get("value", own.get("valueFrom", "")),
        (("", "container"),),
    )
    assert [step.action for step in row.steps] == ["set"]
    assert dict(env_of(admit(before, world(preset(env=env(HTTP_PROXY="theirs"))))[1]))["HTTP_PROXY"] == row.value


@pytest.mark.parametrize(
    ("given", "own", "fate"),
    [
        (var("A", ""), [{"name": "A"}], Fate.PRESENT),
        (var("A", "1"), [{"name": "A"}], Fate.OPTED_OUT),
        ({"name": "A", "valueFrom": SOURCE}, env(A=""), Fate.OPTED_OUT),
        (var("A", "a,b", type="multi", merge_strategy="append"), env(A="B,a"), Fate.PRESENT),
        (var("A", "a,b", type="multi", merge_strategy="append", override="force"), env(A="b,a"), Fate.PRESENT),
        (var("A", "a,b", type="multi", merge_strategy="replace", override="force"), env(A="a,b"), Fate.PRESENT),
        (var("A", "a,b", type="multi", merge_strategy="replace", override="force"), env(A="b,a"), Fate.FORCED),
    ],
)
def test_what_becomes_of_a_variable_that_the_container_has(given, own, fate):
    assert explained(pod(container(env=own)), preset(env=[given]))["app", "env", "A"].fate is fate


def test_a_variable_for_the_bundle_is_kept_like_any_other():
    rows = explained(pod(container(env=env(SSL_CERT_FILE="/own"))), preset(caBundle={"configMap": {"name": "c"}}))
    assert rows["app", "env", "SSL_CERT_FILE"].fate is Fate.KEPT


def test_on_windows_a_preset_that_names_the_bundle_in_other_letters_has_the_last_word():
    bundle = {"caBundle": {"configMap": {"name": "c"}}, "env": env(ssl_cert_file="C:\\own")}
    _, after = admit(pod(nodeSelector={"kubernetes.io/os": "windows"}), world(preset(**bundle)))
    assert [value for name, value in env_of(after) if name.upper() == "SSL_CERT_FILE"] == ["C:\\own"]


# Presets that agree, and layers of three


def test_presets_that_give_the_same_volume_mount_and_source_agree_and_the_strictest_policy_counts():
    same = {**MOUNTED, "envFrom": [{"secretRef": {"name": "s"}}]}
    presets = [preset("a", **same), preset("b", **same, conflictPolicy="Reject")]
    decision, after = admit(pod(), world(*presets))
    assert decision.conflicts == ()
    assert [mount["mountPath"] for mount in container_of(after)["volumeMounts"]] == ["/v"]
    refused, _ = admit(pod(volumes=[{"name": "v", "hostPath": {"path": "/"}}]), world(*presets))
    assert refused.outcome is Outcome.REJECTED


def test_a_second_preset_of_the_narrower_layer_meets_the_first_and_not_the_wider_one():
    presets = [
        cluster_preset(env=env(NO_PROXY="w")),
        preset("a", env=env(NO_PROXY="a")),
        preset("b", env=[var("NO_PROXY", "b", merge_strategy="replace")]),
    ]
    decision, after = admit(pod(), world(*presets))
    assert dict(env_of(after))["NO_PROXY"] == "w,a"
    assert [conflict.rival for conflict in decision.conflicts] == ["PodPreset team/a"]


def test_items_keep_their_givers_when_a_narrower_preset_adds_some():
    presets = [cluster_preset("w", env=env(NO_PROXY="x")), cluster_preset("v", env=env(NO_PROXY="y"))]
    row = explained(pod(), *presets, preset(env=env(NO_PROXY="z")))["app", "env", "NO_PROXY"]
    assert [(item, giver.rpartition(" ")[2]) for item, giver in row.givers] == [
        ("y", "v"),
        ("x", "w"),
        ("z", "team/narrow"),
    ]


@pytest.mark.parametrize(
    ("wide", "narrow", "own", "value"),
    [
        (var("A", "x"), var("A", "y", type="multi", merge_strategy="replace"), "own", "own,y"),
        (
            var("A", "x", type="multi", merge_strategy="replace"),
            var("A", "y", type="multi", merge_strategy="append", override="force"),
            "own",
            "own,x,y",
        ),
    ],
)
def test_type_strategy_and_override_are_those_of_the_narrower_preset(wide, narrow, own, value):
    _, after = admit(pod(container(env=env(A=own))), world(cluster_preset(env=[wide]), preset(env=[narrow])))
    assert env_of(after) == [("A", value)]


def test_an_old_preset_that_adds_to_a_wider_list_wants_the_pod_as_it_came():
    presets = cluster_preset(env=env(NO_PROXY="a")), preset(env=env(NO_PROXY="b"), **OLD)
    decision, _ = admit(pod(container(env=env(NO_PROXY="own"))), world(*presets))
    assert decision.outcome is Outcome.LEFT


@pytest.mark.parametrize(("wide", "narrow", "told"), [("a", "x,*", True), ("x,*", "a", False)])
def test_a_list_that_replaces_another_brings_its_own_star(wide, narrow, told):
    presets = cluster_preset(env=env(NO_PROXY=wide)), preset(env=[var("NO_PROXY", narrow, merge_strategy="replace")])
    decision, _ = admit(pod(), world(*presets))
    assert bool(decision.warnings) is told


# What is patched


def test_a_patch_makes_what_the_edits_make():
    given = preset(
        **MOUNTED,
        env=[var("A", "1", override="force"), *env(NO_PROXY="n", B="2", HTTPS_PROXY="p")],
        envFrom=[{"configMapRef": {"name": "c"}}],
    )
    forced = preset("source", env=[{"name": "S", "valueFrom": SOURCE, "metadata": {"override": "force"}}])
    own = container(env=[*env(A="0", S="1", no_proxy="o", https_proxy="q"), {"name": "E"}])
    lists = {"envFrom": [{"secretRef": {"name": "s"}}], "volumeMounts": [{"name": "w", "mountPath": "/w"}]}
    for body in (
        pod(),
        pod(own, {**own, **lists, "name": "more"}, volumes=[{"name": "w", "emptyDir": {}}], annotations={"k": "v"}),
        pod(container(), initContainers=[own], annotations={}),
        pod(labels={"a": "b"}, volumes=[]),
    ):
        kept = json.dumps(body)
        before = json.loads(kept)
        decision, edits = decide_with_edits(review(before), world(given, forced))
        assert decision.outcome is Outcome.PATCHED
        made = edited(before, edits)
        assert made == jsonpatch.apply_patch(before, json.loads(json.dumps(decision.patch)))
        assert json.dumps(before) == kept
        assert admit(made, world(given, forced))[0].outcome is Outcome.UNCHANGED
    decision, edits = decide_with_edits(review(before, operation="DELETE"), world(given))
    assert edited(before, edits) is before


@pytest.mark.parametrize(
    ("edits", "found"),
    [
        (PodEdits(volumes=[{"name": "v"}]), {"volumes": [{"name": "v"}]}),
        (PodEdits(annotations={"k": "v"}), {}),
        (
            PodEdits([Edited("containers", 0, None, Edits(changes=[Change(0, "A", "2", False, True)]))]),
            {"containers": [container(env=env(A="2"))]},
        ),
        (
            PodEdits([Edited("containers", 0, None, Edits(after=[(0, {"name": "B"})]))]),
            {"containers": [container(env=[*env(A="1"), {"name": "B"}])]},
        ),
    ],
    ids=["volumes", "annotations", "a change", "an entry behind"],
)
def test_each_kind_of_edit_is_made_without_the_others(edits, found):
    before = pod(container(env=env(A="1")))
    after = edited(before, edits)
    assert after["spec"] == {**before["spec"], **found}
    assert after["metadata"].get("annotations", {}) == edits.annotations


def test_an_entry_that_is_empty_either_way_is_not_written():
    before = pod(container(env=[{"name": "HTTP_PROXY"}, *env(http_proxy="x")]))
    decision, _ = admit(before, world(preset(env=[var("HTTP_PROXY", "", override="force")])))
    changed = [op["path"] for op in decision.patch if op["path"].startswith("/spec") and op["op"] != "test"]
    assert changed == ["/spec/containers/0/env/1/value"]


@pytest.mark.parametrize(("length", "valid"), [(253, True), (254, False)])
def test_a_name_of_an_object_is_at_most_253_characters_long(length, valid):
    assert is_object_name("a" * length) is valid


# Letter case, names that the cluster knows, and what is left out


WINDOWS = {"nodeSelector": {"kubernetes.io/os": "windows"}}


@pytest.mark.parametrize("policy", ["SkipVariable", "SkipAll", "Reject"])
@pytest.mark.parametrize(
    ("wide", "given", "ends", "warnings"),
    [
        ({}, {"Foo": "1", "FOO": "2"}, "1", ["PodPreset team/narrow: FOO is Foo on Windows, which is set before it"]),
        ({}, {"Foo": "1", "FOO": "1"}, "1", []),
        (
            {"Foo": "0"},
            {"Foo": "1", "FOO": "2"},
            "1",
            ["PodPreset team/narrow: FOO is Foo on Windows, which is set before it"],
        ),
    ],
)
def test_on_windows_the_first_of_two_names_of_one_preset_counts(policy, wide, given, ends, warnings):
    presets = [preset(conflictPolicy=policy, env=env(**given))]
    presets += [cluster_preset(env=env(**wide))] if wide else []
    decision, after = admit(pod(**WINDOWS), world(*presets))
    assert decision.conflicts == ()
    assert env_of(after) == [("Foo", ends)]
    assert list(decision.warnings) == warnings
    assert len(env_of(admitted(pod(), *presets))) == 2
    assert admit(after, world(*presets))[0].outcome is Outcome.UNCHANGED


def test_on_windows_letter_case_makes_no_other_variable():
    presets = [preset("a", env=env(Path="1", Other="o")), preset("b", env=env(PATH="2"))]
    decision, after = admit(pod(**WINDOWS), world(*presets))
    assert env_of(after) == [("Path", "1"), ("Other", "o")]
    assert [conflict.item for conflict in decision.conflicts] == ["env Path"]
    _, after = admit(pod(container(env=env(pATH="own")), **WINDOWS), world(preset(env=env(Path="1"))))
    assert env_of(after) == [("pATH", "own")]
    assert env_of(admitted(pod(container(env=env(pATH="own"))), preset(env=env(Path="1")))) == [
        ("Path", "1"),
        ("pATH", "own"),
    ]


def test_a_list_of_names_that_the_cluster_knows_comes_once_and_after_what_is_written():
    included = {"noProxy": {"include": [".svc"]}}
    row = explained(pod(), preset(env=env(NO_PROXY="a"), **included))["app", "env", "NO_PROXY"]
    assert (row.value, [step.action for step in row.steps]) == ("a,.svc", ["set"])
    row = explained(pod(), cluster_preset(env=env(NO_PROXY="a")), preset(**included))["app", "env", "NO_PROXY"]
    assert (row.value, [step.action for step in row.steps]) == ("a,.svc", ["set", "appended"])
    assert env_of(admitted(pod(**WINDOWS), preset(**included))) == [("NO_PROXY", ".svc")]
    dynamic = {"name": "NO_PROXY", "valueFrom": SOURCE}
    assert dict(env_of(admitted(pod(), preset(env=[dynamic], **included))))["NO_PROXY"] == SOURCE
    single = var("NO_PROXY", "a, b", type="single")
    assert dict(env_of(admitted(pod(), preset(env=[single]))))["NO_PROXY"] == "a, b"


@pytest.mark.parametrize("strict", ["a", "b"])
@pytest.mark.parametrize(
    "own",
    [
        {"volumes": [{"name": "v", "hostPath": {"path": "/"}}]},
        {"containers": [container(volumeMounts=[{"name": "w", "mountPath": "/v"}])]},
        {"containers": [container(envFrom=[{"secretRef": {"name": "s", "optional": True}}])]},
    ],
    ids=["volume", "mount", "source"],
)
def test_of_presets_that_agree_the_strictest_policy_counts_whichever_is_first(strict, own):
    same = {**MOUNTED, "envFrom": [{"secretRef": {"name": "s"}}]}
    presets = [preset(n, **same, conflictPolicy="Reject" if n == strict else "SkipVariable") for n in "ab"]
    body = pod()
    body["spec"] |= own
    assert admit(body, world(*presets))[0].outcome is Outcome.REJECTED


def test_a_volume_that_is_lost_takes_no_other_along():
    two = {
        "volumes": [{"name": "v", "hostPath": {"path": "/"}}, {"name": "w", "emptyDir": {}}],
        "volumeMounts": [{"name": "v", "mountPath": "/lost"}, {"name": "w", "mountPath": "/w"}],
    }
    decision, after = admit(pod(), world(preset("a", **MOUNTED), preset("b", **two)))
    assert [mount["mountPath"] for mount in container_of(after)["volumeMounts"]] == ["/v", "/w"]
    assert [conflict.item for conflict in decision.conflicts] == ["volume v"]


def test_each_container_has_conflicts_of_its_own():
    def one(name, container, variable):
        return preset(name, env=env(**{variable: name}), containerSelector={"names": [container]})

    presets = [one("a", "x", "A"), one("b", "x", "A"), one("c", "y", "B"), one("d", "y", "B")]
    decision, _ = admit(pod(container("x"), container("y")), world(*presets))
    assert [conflict.item for conflict in decision.conflicts] == ["env A", "env B"]
    assert decision.audit["conflicts"] == "; ".join(map(str, decision.conflicts))


def test_conflicts_beyond_the_thirty_second_are_counted():
    presets = [preset(name, env=env(**{f"V{n}": name for n in range(35)})) for name in "ab"]
    decision, _ = admit(pod(), world(*presets))
    assert len(decision.conflicts) == 35
    assert decision.warnings[31:] == (
        "PodPreset team/b: env V31 differs from that of PodPreset team/a; it was left out",
        "3 more conflicts; it was left out",
    )


def test_presets_that_give_nothing_are_not_in_the_audit_log():
    decision, _ = admit(pod(), world(preset(env=env(A="1"), containerSelector={"names": ["other"]})))
    assert (decision.applied, decision.audit) == ((), {})


def test_a_pod_that_is_skipped_says_why():
    decision, _ = admit(pod(), world(preset(env=env(A="1"))), operation="DELETE")
    assert (decision.outcome, decision.audit) == (Outcome.SKIPPED, {"skipped": decision.skip.value})


@pytest.mark.parametrize("old", [None, {}])
def test_all_ephemeral_containers_are_new_where_nothing_is_known_of_before(old):
    body = pod(ephemeralContainers=[container("debug")])
    before = None if old is None else {"metadata": {"name": "p"}}
    _, after = admit(
        body, world(preset(env=env(A="1"))), operation="UPDATE", subresource="ephemeralcontainers", old=before
    )
    assert env_of(after, "debug") == [("A", "1")]


def test_a_star_in_the_list_of_one_preset_is_told_of():
    decision, _ = admit(pod(), world(preset(env=env(NO_PROXY="a,*"))))
    assert decision.warnings == ("NO_PROXY: * stands for all other items",)
