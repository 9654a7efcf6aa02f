"""The snapshot: changes make another one, and a review looks at its own namespace alone."""

import itertools
import weakref

from services.podpreset.plans import Plan
from services.podpreset.world import World
from services.proxyenv.complete import Facts
from tests.support.podpresets import cluster_preset, env, preset

A = env(A="1")


def names(presets):
    return [one.key.name for one in presets]


def test_a_world_starts_empty():
    empty = World()
    assert list(empty.presets()) == []
    assert empty.matching("team", {}) == ()
    assert empty.untouched == {"kube-system"}


def test_a_preset_that_changed_takes_its_own_place():
    before = World.build([preset("a", env=A), preset("b", env=A), preset("c", env=A)])
    after = before.with_preset(preset("b", priority=9, env=A))
    assert names(after.matching("team", {})) == ["a", "c", "b"]
    assert names(before.matching("team", {})) == ["a", "b", "c"]


def test_a_preset_that_went_is_gone_and_its_namespace_with_it():
    one = preset("a", env=A)
    world = World().with_preset(one).with_preset(cluster_preset("w", env=A))
    assert names(world.presets()) == ["w", "a"]
    world = world.without_preset(one.key)
    assert names(world.presets()) == ["w"]
    assert world.by_namespace == {}
    assert world.without_preset(one.key).by_namespace == {}


def test_labels_of_namespaces_come_and_go():
    wide = cluster_preset(env=A, namespaceSelector={"matchLabels": {"tier": "x"}})
    world = World.build([wide], {"team": {"tier": "x"}})
    assert names(world.matching("team", {})) == ["wide"]
    assert names(world.with_namespace("team", {}).matching("team", {})) == []
    assert names(world.without_namespace("team").matching("team", {})) == []
    assert names(world.matching("team", {})) == ["wide"]


def test_a_change_keeps_what_was_folded_for_others():
    world = World.build([preset("a", env=A)])
    plan = world.plan(world.matching("team", {}), windows=False)
    grown = world.with_preset(preset("b", "other", env=A)).with_namespace("x", {})
    assert grown.plan(grown.matching("team", {}), windows=False) is plan
    informed = grown.with_facts(Facts(service_cidrs=("10.0.0.0/8",)))
    assert informed.plan(informed.matching("team", {}), windows=False) is not plan


def test_a_preset_that_changed_is_folded_anew():
    world = World.build([preset("a", env=A)])
    plan = world.plan(world.matching("team", {}), windows=False)
    changed = world.with_preset(preset("a", env=env(A="2")))
    assert changed.plan(changed.matching("team", {}), windows=False) is not plan


def test_a_plan_goes_with_a_preset_in_it_that_changed_or_went():
    one, other = preset("a", env=A), preset("b", env=A)
    world = World.build([one, other])
    both = weakref.ref(world.plan((one, other), windows=False))
    alone = weakref.ref(world.plan((other,), windows=False))
    world = world.with_preset(preset("a", env=env(A="2")))
    assert both() is None
    assert alone() is not None
    world.without_preset(other.key)
    assert alone() is None


def test_presets_of_other_namespaces_are_not_looked_at(monkeypatch):
    elsewhere = [preset("p", f"n{at}", env=A) for at in range(200)]
    looked = []
    for one in elsewhere:
        one.matches_pod = looked.append
    world = World.build([*elsewhere, preset("a", env=A)])
    assert names(world.matching("team", {})) == ["a"]
    assert looked == []


def test_plans_and_what_they_remember_are_bounded(monkeypatch):
    monkeypatch.setattr("services.podpreset.plans._PLANS", 3)
    monkeypatch.setattr("services.podpreset.plans._CONTAINERS", 3)
    presets = [preset(f"p{at}", env=A, containerSelector={"names": [f"*{at}"]}) for at in range(4)]
    world = World.build(presets)
    subsets = [tuple(found) for found in itertools.combinations(presets, 2)]
    for subset in subsets:
        world.plan(subset, windows=False)
    assert len(world._plans._plans) == 3
    first = world.plan(subsets[-3], windows=False)
    world.plan(subsets[0], windows=False)
    assert world.plan(subsets[-3], windows=False) is first, "what was used last stays"
    plan = Plan(tuple(presets), Facts(), ignore_case=False)
    for at in range(20):
        effective = plan.effective(f"c{at}", is_init=False)
        assert names(effective.presets) == ([f"p{at % 10}"] if at % 10 < 4 else [])
    assert len(plan._by_container) <= 3


def test_names_that_are_made_up_are_not_remembered():
    world = World.build([preset("a", env=A, containerSelector={"names": ["x"]})], {"team": {}})
    for at in range(10):
        assert names(world.matching(f"made-up-{at}", {})) == []
        assert names(world.matching("team", {})) == ["a"]
    assert list(world._candidates) == ["team"]
    plan = world.plan(world.matching("team", {}), windows=False)
    for at in range(10):
        assert plan.effective("x" * (70 + at), is_init=False).presets == ()
    assert names(plan.effective("x", is_init=False).presets) == ["a"]
    assert list(plan._by_container) == [("x", False)]
