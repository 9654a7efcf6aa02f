"""What holds of every decision about any pod under any presets."""

import json

import jsonpatch
from hypothesis import given
from hypothesis import strategies as st

from services.podpreset import api
from services.podpreset.decide import decide, decide_with_edits
from services.podpreset.decision import Outcome
from services.podpreset.explain import Fate
from services.podpreset.patch import edited
from services.podpreset.world import World
from services.proxyenv import lists, names
from tests.support import podpreset_strategies as some
from tests.support.podpresets import NAMESPACE, admit, container_of, env_of, review

APPLIED = {Outcome.PATCHED, Outcome.UNCHANGED}


def world(presets):
    return World.build(presets, {NAMESPACE: {}}, some.FACTS)


def containers_of(body):
    spec = body["spec"]
    return [c for which in ("containers", "initContainers") for c in spec.get(which) or ()]


def windows(body):
    return body["spec"].get("os", {}).get("name") == "windows"


def with_defaults(body):
    """The pod as the API server hands it on: defaults filled in, empty lists and maps gone."""
    text = json.dumps(body)
    text = text.replace('"configMap": {', '"configMap": {"defaultMode": 420, ')
    text = text.replace('"projected": {', '"projected": {"defaultMode": 420, ')
    text = text.replace('"fieldRef": {', '"fieldRef": {"apiVersion": "v1", ')
    filled = json.loads(text)
    for container in containers_of(filled):
        for entry in container.get("env") or ():
            if entry.get("value") == "":
                del entry["value"]
    return filled


@given(some.preset_sets(), some.pods())
def test_a_second_pass_yields_no_patch(presets, before):
    decision, after = admit(before, world(presets))
    if decision.outcome in APPLIED:
        again, unchanged = admit(with_defaults(after), world(presets))
        assert again.patch == ()
        assert again.outcome is Outcome.UNCHANGED
        assert unchanged == with_defaults(after)


@given(some.preset_sets(), some.pods())
def test_the_patch_makes_what_the_merge_makes(presets, before):
    decision, edits = decide_with_edits(review(before), world(presets))
    patched = jsonpatch.apply_patch(before, json.loads(json.dumps(decision.patch)))
    assert patched == edited(before, edits)


@given(some.preset_sets(), some.pods())
def test_a_pod_that_is_not_to_be_changed_stays_as_it_came(presets, before):
    decision, after = admit(before, world(presets))
    if decision.outcome is not Outcome.PATCHED:
        assert decision.patch == ()
        assert after == before
    assert decision.allowed == (decision.outcome is not Outcome.REJECTED)
    assert bool(decision.message) == (decision.outcome is Outcome.REJECTED)


@given(some.preset_sets(force=False), some.pods())
def test_nothing_of_the_users_is_lost_reordered_or_repeated(presets, before):
    _, after = admit(before, world(presets))
    known = {"env", "envFrom", "volumeMounts"}
    for was, now in zip(containers_of(before), containers_of(after), strict=True):
        assert {k: v for k, v in was.items() if k not in known} == {k: v for k, v in now.items() if k not in known}
        env_is_kept(was.get("env") or [], now.get("env") or [], ignore_case=windows(before))
        sources, mounts = was.get("envFrom") or [], was.get("volumeMounts") or []
        assert (now.get("envFrom") or [])[len(now.get("envFrom") or []) - len(sources) :] == sources
        assert (now.get("volumeMounts") or [])[: len(mounts)] == mounts
    volumes = before["spec"].get("volumes") or []
    assert (after["spec"].get("volumes") or [])[: len(volumes)] == volumes
    parts = {"volumes", "containers", "initContainers"}
    assert {k: v for k, v in before["spec"].items() if k not in parts} == {
        k: v for k, v in after["spec"].items() if k not in parts
    }
    metadata_is_kept(before.get("metadata") or {}, after.get("metadata") or {})


def env_is_kept(was, now, *, ignore_case):
    mine = iter(now)
    for entry in was:
        kept = next((found for found in mine if found["name"] == entry["name"]), None)
        assert kept is not None, "an entry is gone or moved"
        assert {k: v for k, v in kept.items() if k != "value"} == {k: v for k, v in entry.items() if k != "value"}
        value, before = kept.get("value", ""), entry.get("value", "")
        if value != before:
            items = lists.split(before)
            assert value == "*" or lists.split(value)[: len(items)] == items
    for name in {entry["name"] for entry in now}:
        same = [found for found in (was, now) for found in [[e for e in found if e["name"] == name]]]
        assert len(same[1]) == max(len(same[0]), 1)
    if ignore_case:
        added = [entry["name"].lower() for entry in now if entry["name"] not in {old["name"] for old in was}]
        assert len(set(added)) == len(added)
        assert not set(added) & {entry["name"].lower() for entry in was}


def metadata_is_kept(was, now):
    assert {k: v for k, v in was.items() if k != "annotations"} == {k: v for k, v in now.items() if k != "annotations"}
    annotations = now.get("annotations") or {}
    assert (was.get("annotations") or {}).items() <= annotations.items()


@given(some.preset_sets(), some.pods())
def test_the_two_letter_cases_are_equal_wherever_one_was_set(presets, before):
    _, after = admit(before, world(presets))
    if windows(before):
        return
    for was, now in zip(containers_of(before), containers_of(after), strict=True):
        old, new = (dict(env_of({"spec": {"containers": [body]}}, body["name"])) for body in (was, now))
        for lower in names.LOWER:
            pair = [new.get(lower), new.get(lower.upper())]
            if pair != [old.get(lower), old.get(lower.upper())]:
                assert pair[0] == pair[1] is not None


@given(some.preset_sets(), some.pods(), st.randoms(use_true_random=False))
def test_the_order_in_which_presets_are_listed_makes_no_difference(presets, before, random):
    shuffled = random.sample(presets, len(presets))
    grown = World.build(facts=some.FACTS)
    for preset in shuffled:
        grown = grown.with_preset(preset)
    decision, _ = admit(before, world(presets))
    assert decide(review(before), world(shuffled)) == decision
    assert decide(review(before), grown.with_namespace(NAMESPACE, {})) == decision


@given(some.preset_sets(), some.pods(), some.containers("late"))
def test_only_a_container_that_was_added_later_is_patched(presets, before, late):
    decision, after = admit(before, world(presets))
    if decision.outcome not in APPLIED:
        return
    at = len(after["spec"]["containers"])
    grown = {**after, "spec": {**after["spec"], "containers": [*after["spec"]["containers"], late]}}
    again, _ = admit(grown, world(presets))
    places = {op["path"] for op in again.patch}
    ours = (f"/spec/containers/{at}/", "/metadata", "/spec/volumes/")
    assert all(place.startswith(ours) for place in places)


@given(some.preset_sets(), some.pods())
def test_every_mount_has_its_volume_and_its_path_alone(presets, before):
    _, after = admit(before, world(presets))
    known = {volume["name"] for volume in after["spec"].get("volumes") or ()}
    for was, now in zip(containers_of(before), containers_of(after), strict=True):
        mine = len(was.get("volumeMounts") or [])
        added = (now.get("volumeMounts") or [])[mine:]
        assert {mount["name"] for mount in added} <= known
        paths = [mount["mountPath"].rstrip("/") for mount in added]
        taken = [mount["mountPath"].rstrip("/") for mount in was.get("volumeMounts") or ()]
        taken += [device["devicePath"] for device in was.get("volumeDevices") or ()]
        assert len(set(paths)) == len(paths)
        assert not set(paths) & set(taken)


@given(some.preset_sets(), some.pods())
def test_a_ca_bundle_comes_with_the_variables_that_name_it(presets, before):
    _, after = admit(before, world(presets))
    for now in containers_of(after):
        named = [entry for entry in now.get("env") or () if "groundwork" in entry.get("value", "")]
        mounted = [mount for mount in now.get("volumeMounts") or () if "groundwork" in mount["name"]]
        assert len(mounted) == bool(named)


@given(some.preset_sets(), some.pods())
def test_no_message_holds_a_value(presets, before):
    decision, _ = admit(before, world(presets))
    said = [*decision.warnings, *decision.audit.values(), decision.message, *map(str, decision.conflicts)]
    assert not [text for text in said if some.SECRET in text]


@given(some.preset_sets(), some.pods())
def test_an_explanation_changes_nothing_and_tells_what_the_pod_ends_with(presets, before):
    rows = []
    decision = decide(review(before), world(presets), rows)
    assert decision == decide(review(before), world(presets))
    if decision.outcome not in APPLIED:
        return
    _, after = admit(before, world(presets))
    for row in rows:
        if row.fate is Fate.UNAVAILABLE:
            assert row.value is None
        elif row.kind == "env" and row.container != "other":
            found = dict(env_of(after, row.container))
            assert found[row.name] == row.value
            if row.fate is Fate.MERGED:
                assert ",".join(item for item, _ in row.givers) == row.value
        if row.kind == "volumeMount" and row.fate is Fate.ADDED and row.container != "other":
            assert row.value in container_of(after, row.container)["volumeMounts"]
        if row.kind == "volume" and row.fate in {Fate.ADDED, Fate.PRESENT}:
            assert row.value in after["spec"]["volumes"]


@given(some.preset_sets(), some.pods())
def test_a_pod_carries_the_presets_that_it_got(presets, before):
    decision, after = admit(before, world(presets))
    annotations = (after.get("metadata") or {}).get("annotations") or {}
    carried = {key for key in annotations if key.startswith(api.ADMISSION_PREFIX)}
    if decision.outcome in APPLIED:
        assert len(carried) == len(decision.applied)
        assert (api.HASH_ANNOTATION in annotations) == bool(decision.applied)
    else:
        assert not carried
