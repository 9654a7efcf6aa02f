"""What whoever may write a pod or a preset could do to everybody else's."""

from __future__ import annotations

import msgspec
import pytest

from services.podpreset.api import POD_PRESETS, PresetKey
from services.podpreset.conflicts import ConflictReporter
from services.podpreset.presets import Caches
from services.podpreset.reviewer import Reviewer
from services.podpreset.status import readiness
from services.proxyenv.complete import Facts
from services.runtime.admission import AdmissionRequest, Resource
from services.runtime.clock import SystemClock
from services.runtime.kube.objects import raw
from tests.support.podpresets import NAMESPACE, admit, container, pod, preset, world

POLICIES = pytest.mark.parametrize("policy", ["SkipVariable", "SkipAll", "Reject"])
KEY = PresetKey(POD_PRESETS.kind, NAMESPACE, "p")


def mounted(at):
    return {"volumes": [{"name": f"v{at}"}], "volumeMounts": [{"name": f"v{at}", "mountPath": f"/m{at}"}]}


@POLICIES
def test_what_is_said_of_a_pod_that_conflicts_a_thousand_times_stays_short(policy):
    presets = [preset(f"p{at}", conflictPolicy=policy, **mounted(at)) for at in range(10)]
    own = [{"name": "own", "mountPath": f"/m{at}"} for at in range(10)]
    body = pod(*[container(f"c{at}", volumeMounts=own) for at in range(100)])
    decision, _ = admit(body, world(*presets))
    assert len(decision.conflicts) == 1000
    for text in (decision.message, *decision.warnings, *decision.audit.values()):
        assert len(text) < 8000
    assert len(decision.warnings) <= 40
    assert "968 more conflicts" in decision.audit["conflicts"]


@POLICIES
@pytest.mark.parametrize("what", ["mounts", "sources", "lists"])
def test_a_name_of_a_megabyte_is_in_nothing_that_is_said_of_its_container(policy, what):
    """A review comes before the API server looks at names."""
    given = {
        "mounts": {
            "volumes": [{"name": f"v{at}"} for at in range(40)],
            "volumeMounts": [{"name": f"v{at}", "mountPath": f"/m{at}"} for at in range(40)],
        },
        "sources": {"envFrom": [{"configMapRef": {"name": f"c{at}"}} for at in range(40)]},
        "lists": {"env": [{"name": f"A{at}", "value": "x", "metadata": {"type": "multi"}} for at in range(40)]},
    }
    own = {
        "volumeMounts": [{"name": "own", "mountPath": f"/m{at}"} for at in range(40)],
        "envFrom": [{"configMapRef": {"name": f"c{at}", "optional": True}} for at in range(40)],
        "env": [{"name": f"A{at}", "value": value} for at in range(40) for value in "yz"],
    }
    body = pod(container("c" * 2**20, **own))
    decision, _ = admit(body, world(preset(conflictPolicy=policy, **given[what])))
    texts = [decision.message, *decision.warnings, *decision.audit.values()]
    assert all(len(text) < 20_000 for text in texts)
    assert any(f"container {'c' * 63}" in text and "c" * 64 not in text for text in texts)
    assert all(len(conflict.rival) < 100 for conflict in decision.conflicts)


def test_a_preset_with_countless_mistakes_has_a_message_of_some_lines():
    labels = {f"no label {at} {'x' * 1000}": "x" for at in range(64)}
    condition = readiness(preset(env=[{"name": "A"}], selector={"matchLabels": labels}), Facts())
    assert condition.message.startswith("spec.selector.matchLabels: 'no label 0 x")
    assert condition.message.endswith("...")
    assert len(condition.message) == 4096


def test_a_conflict_is_remembered_with_names_as_long_as_a_status_may_hold():
    caches = Caches(lambda _: None)
    reporter = ConflictReporter(None, caches, SystemClock(), period=1.0)
    reporter.record(KEY, "m" * 5000, "n" * 5000, "p" * 5000)
    (seen,) = reporter._pending[KEY].seen.values()
    assert (len(seen.message), len(seen.namespace), len(seen.pod)) == (1024, 63, 253)


@pytest.mark.parametrize(
    "body",
    [
        [],
        {"metadata": 1},
        {"spec": {"containers": [None]}},
        {"spec": {"containers": [{"name": None}]}},
        {"spec": {"containers": [{"env": [None]}]}},
        {"spec": {"volumes": [1]}},
        {"metadata": {"annotations": {"a": 1}}},
        {"spec": {"containers": [{"volumeDevices": "x"}]}},
    ],
)
def test_an_object_that_is_no_pod_is_told_from_one_that_is(body):
    """The server answers as configured for failures; nothing of it is guessed."""
    review = Reviewer(Caches(lambda _: None), None)
    request = AdmissionRequest(
        uid="u", resource=Resource("", "v1", "pods"), namespace=NAMESPACE, operation="CREATE", object=raw(body)
    )
    with pytest.raises(msgspec.ValidationError):
        review(request)


@pytest.mark.parametrize("absent", [None, []])
def test_lists_that_are_null_are_as_good_as_absent(absent):
    given = preset(
        env=[{"name": "A", "value": "x"}],
        envFrom=[{"configMapRef": {"name": "c"}}],
        volumes=[{"name": "v"}],
        volumeMounts=[{"name": "v", "mountPath": "/v"}],
    )
    empty = dict.fromkeys(("env", "envFrom", "volumeMounts", "volumeDevices"), absent)
    body = pod(container(**empty), volumes=absent, initContainers=absent, ephemeralContainers=absent)
    body["metadata"] |= {"annotations": None, "labels": None}
    _, after = admit(body, world(given))
    (one,) = after["spec"]["containers"]
    assert one["env"] == [{"name": "A", "value": "x"}]
    assert one["envFrom"] == [{"configMapRef": {"name": "c"}}]
    assert one["volumeMounts"] == [{"name": "v", "mountPath": "/v"}]
    assert after["spec"]["volumes"] == [{"name": "v"}]
    assert admit(after, world(given))[0].patch == ()


def test_metadata_of_a_volume_that_is_no_text_is_no_strategy():
    for strategy in ([], [1], {"a": 1}, 5):
        one = preset(volumes=[{"name": "v", "metadata": {"merge_strategy": strategy}}])
        assert one.problems == ()
