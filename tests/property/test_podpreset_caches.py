"""The snapshot that reviews are decided on is that of the objects there are, however it was arrived at."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from services.podpreset.presets import Caches
from services.proxyenv.complete import Facts
from services.runtime.kube.objects import KubeObject, decode

KINDS = ("ClusterPodPreset", "PodPreset")
NAMESPACES = ("one", "two")
LABELS = ({}, {"a": "b"}, {"a": "c"})

selectors = st.sampled_from([{}, {"matchLabels": {"a": "b"}}, {"matchLabels": {"not a label": "x"}}])
presets = st.tuples(
    st.just("preset"),
    st.sampled_from(KINDS),
    st.sampled_from(NAMESPACES),
    st.sampled_from(("p", "q", "r")),
    st.fixed_dictionaries({"selector": selectors, "priority": st.integers(-1, 1), "namespaceSelector": selectors})
    | st.none(),
)
namespaces = st.tuples(st.just("namespace"), st.sampled_from(NAMESPACES), st.sampled_from(LABELS) | st.none())
facts = st.tuples(st.just("facts"), st.sampled_from(["10.0.0.0/8", "10.96.0.0/12"]))
looks = st.just(("look",))
steps = st.lists(presets | namespaces | facts | looks, max_size=30)


def made(kind, name, version, namespace="", labels=None, spec=None):
    meta = {"name": name, "uid": f"{kind}/{namespace}/{name}", "resourceVersion": str(version), "labels": labels or {}}
    if namespace:
        meta["namespace"] = namespace
    return decode(json.dumps({"kind": kind, "metadata": meta, "spec": spec or {}}).encode(), KubeObject)


def seen(world):
    return {
        (namespace, number): [str(preset.key) for preset in world.matching(namespace, labels)]
        for namespace in NAMESPACES
        for number, labels in enumerate(LABELS)
    }


@given(steps, st.booleans())
def test_a_world_that_was_changed_step_by_step_is_the_one_that_is_made_at_once(taken, patient):
    changed = []
    caches = Caches(changed.append)
    if not patient:
        assert not any(seen(caches.world).values())
    for version, (what, *rest) in enumerate(taken, start=1):
        if what == "look":
            seen(caches.world)
        elif what == "facts":
            caches.set_facts(Facts(service_cidrs=tuple(rest)))
        elif what == "namespace":
            name, labels = rest
            obj = made("Namespace", name, version, labels=labels)
            caches.namespaces.apply("DELETED" if labels is None else "MODIFIED", obj)
        else:
            kind, namespace, name, spec = rest
            where = namespace if kind == "PodPreset" else ""
            given_spec = None if spec is None else {**spec, "env": [{"name": "A", "value": "x"}]}
            if given_spec is not None and where:
                del given_spec["namespaceSelector"]
            obj = made(kind, name, version, where, spec=given_spec)
            caches.presets[kind].apply("DELETED" if spec is None else "MODIFIED", obj)
    fresh = Caches(lambda _: None)
    fresh.set_facts(caches.facts)
    fresh.namespaces.replace(caches.namespaces.values(), "1")
    for kind, store in caches.presets.items():
        fresh.presets[kind].replace(store.values(), "1")
    assert seen(caches.world) == seen(fresh.world)
    assert caches.world.facts == fresh.world.facts
    assert caches.world is caches.world
    assert set(caches.all()) == set(fresh.all()) <= set(changed)


@given(st.integers(0, 200))
def test_a_world_that_was_given_out_never_changes(count):
    caches = Caches(lambda _: None)
    caches.presets["PodPreset"].apply(
        "ADDED", made("PodPreset", "p", 1, "one", spec={"env": [{"name": "A", "value": "x"}]})
    )
    world = caches.world
    before = seen(world)
    for number in range(count):
        caches.presets["PodPreset"].apply(
            "ADDED", made("PodPreset", f"p{number}", number + 2, "one", spec={"env": [{"name": "A", "value": "x"}]})
        )
    assert seen(world) == before
    assert len(seen(caches.world)["one", 0]) == count + 1
