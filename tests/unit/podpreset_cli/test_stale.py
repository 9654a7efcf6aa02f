"""Which running pods carry something else than new ones would."""

from __future__ import annotations

import pytest

from services.podpreset.cli.stale import Reason, RunningPod, stale
from services.podpreset.cli.whatif import admit, world
from services.podpreset.cli.workloads import Owner, workload
from services.proxyenv.complete import Facts
from services.runtime.kube.objects import KubeObject, decode, encode

NAMESPACE = "shop"


def snapshot(**env):
    presets = []
    if env:
        policy = env.pop("policy", "SkipVariable")
        spec = {"env": [{"name": name, "value": value} for name, value in env.items()], "conflictPolicy": policy}
        spec["selector"] = {"matchLabels": {"app": "web"}}
        obj = {"apiVersion": "reach.spectrocloud.com/v1alpha1", "kind": "ClusterPodPreset", "metadata": {"name": "p"}}
        presets.append(decode(encode({**obj, "spec": spec}), KubeObject))
    return world(presets, [], Facts(), ())


def deployment(name="web", app="web", **env):
    containers = [{"name": "c", "env": [{"name": key, "value": value} for key, value in env.items()]}]
    template = {"metadata": {"labels": {"app": app}}, "spec": {"containers": containers}}
    meta = {"name": name, "namespace": NAMESPACE}
    return workload({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": {"template": template}})


def running(made_by, then, name="web-1", owner=True):
    """A pod that was made from a workload when the presets were those of `then`."""
    pod = admit(made_by, then).pod
    obj = {**pod, "metadata": {**pod["metadata"], "name": name}}
    return RunningPod(workload(obj), Owner("ReplicaSet", "web-abc", "u1") if owner else None)


PARENTS = {"u1": Owner("Deployment", "web", "u2")}
V1, V2, NONE = snapshot(A="1"), snapshot(A="2"), snapshot()


def rows(pods, now, *workloads):
    templates = {(item.kind, item.namespace, item.name): item for item in workloads}
    found = stale(pods, templates, PARENTS, now)
    return [(f"{row.kind} {row.name}", row.pods, row.stale, row.reason) for row in found]


CASES = [
    ("nothing has changed", V1, V1, None),
    ("the preset says something else", V1, V2, Reason.OLDER),
    ("the preset came later", NONE, V1, Reason.WITHOUT),
    ("the preset is gone", V1, NONE, Reason.SURPLUS),
    ("there never was one", NONE, NONE, None),
]


@pytest.mark.parametrize("owner", [True, False])
@pytest.mark.parametrize(("then", "now", "reason"), [row[1:] for row in CASES], ids=[row[0] for row in CASES])
def test_a_pod_is_stale_when_a_new_one_would_carry_something_else(then, now, reason, owner):
    pods = [running(deployment(), then, owner=owner)]
    who = "Deployment web" if owner else "Pod web-1"
    assert rows(pods, now, deployment()) == ([] if reason is None else [(who, 1, ("web-1",), reason)])


def test_pods_are_counted_by_the_workload_that_a_person_knows():
    pods = [running(deployment(), V1, "web-2"), running(deployment(), V2, "web-3"), running(deployment(), V1, "web-1")]
    assert rows(pods, V2, deployment()) == [("Deployment web", 3, ("web-1", "web-2"), Reason.OLDER)]


def test_a_change_of_the_template_that_presets_do_not_touch_is_no_staleness():
    assert rows([running(deployment(B="x"), V1)], V1, deployment(B="y")) == []


def test_a_template_that_presets_do_not_match_any_more_is_noticed():
    assert rows([running(deployment(), V1)], V1, deployment(app="other")) == [
        ("Deployment web", 1, ("web-1",), Reason.SURPLUS)
    ]


def test_a_workload_whose_new_pods_would_be_refused_is_noticed():
    obj = {"apiVersion": "reach.spectrocloud.com/v1alpha1", "kind": "ClusterPodPreset", "metadata": {"name": "p"}}
    spec = {"conflictPolicy": "Reject", "envFrom": [{"configMapRef": {"name": "c", "optional": True}}]}
    strict = world([decode(encode({**obj, "spec": spec}), KubeObject)], [], Facts(), ())
    template = deployment()
    template.pod["spec"]["containers"][0]["envFrom"] = [{"configMapRef": {"name": "c"}}]
    assert rows([running(template, NONE)], strict, template) == [("Deployment web", 1, ("web-1",), Reason.REFUSED)]


def test_a_pod_that_presets_leave_as_it_comes_is_not_stale():
    strict, template = snapshot(A="1", policy="SkipAll"), deployment(A="mine")
    assert rows([running(template, strict)], strict, template) == []


def test_what_presets_gave_a_pod_alone_is_no_conflict_with_their_new_state():
    pods = [running(deployment(), snapshot(A="1", policy="SkipAll"), owner=False)]
    assert rows(pods, snapshot(A="2", policy="SkipAll")) == []
