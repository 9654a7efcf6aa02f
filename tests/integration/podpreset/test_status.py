"""What presets say of themselves: readiness, pods, conflicts, columns, events."""

from __future__ import annotations

import asyncio

import pytest

from services.podpreset.api import CLUSTER_POD_PRESETS, POD_PRESETS, PresetStatus
from services.runtime.kube.errors import ApiError
from services.runtime.kube.objects import view
from tests.support.kube import eventually
from tests.support.presets import PODS, Site, applied, container, env, first, ready
from tests.support.waiting import blocking_until

A = [{"name": "A", "value": "x"}]
BAD = {"matchLabels": {"not a label": "x"}}


async def status_of(site, name="preset"):
    return (await site.kube.get(POD_PRESETS, name, site.namespace)).get("status", {})


async def reaches(site, name="preset", **wanted):
    """Wait until fields of a preset's status have these values."""
    return await eventually(lambda: status_of(site, name), lambda status: wanted.items() <= (status or {}).items())


async def test_a_good_preset_is_ready(site):
    made = await site.preset(env=A)
    (condition,) = made["status"]["conditions"]
    assert (condition["type"], condition["status"], condition["reason"]) == ("Ready", "True", "PresetReady")
    assert condition["message"] == ""
    assert condition["observedGeneration"] == made["metadata"]["generation"]


async def test_a_preset_that_cannot_be_applied_says_why_and_stops_no_other(site):
    bad = await site.preset("bad", selector=BAD, env=A)
    await site.preset("good", env=[{"name": "B", "value": "x"}])
    condition = ready(bad)
    assert (condition["status"], condition["reason"]) == ("False", "InvalidSpec")
    assert condition["message"] == "spec.selector.matchLabels: 'not a label', expected a label key"
    assert env(first(await site.pod())) == [("B", "x")]
    mended = await site.change(bad, selector={"matchLabels": None})
    assert ready(mended)["status"] == "True"
    assert env(first(await site.pod())) == [("A", "x"), ("B", "x")]
    events = await eventually(lambda: site.kube.events(mended), lambda found: len(found) == 2)
    assert [(event["type"], event["reason"]) for event in events] == [
        ("Warning", "InvalidSpec"),
        ("Normal", "PresetReady"),
    ]
    assert "not a label" in events[0]["note"]


# What the definitions let pass and the API server would refuse every pod for.
UNREADABLE = {
    "path": {"volumes": [{"name": "v", "hostPath": {"path": 5}}]},
    "mode": {"volumes": [{"name": "v", "secret": {"secretName": "s", "defaultMode": "0644"}}]},
    "size": {"volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1 GB"}}]},
    "projected": {"volumes": [{"name": "v", "projected": {"sources": {"secret": {"name": "s"}}}}]},
    "divisor": {"env": [{"name": "R", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "x"}}}]},
    "mount": {
        "volumes": [{"name": "v", "emptyDir": {}}],
        "volumeMounts": [{"name": "v", "mountPath": "/v", "mountPropagation": "Shared"}],
    },
}


@pytest.mark.parametrize("case", UNREADABLE)
async def test_a_preset_that_pods_would_be_refused_for_is_not_applied(site, case):
    condition = ready(await site.preset(**UNREADABLE[case]))
    assert (condition["status"], condition["reason"]) == ("False", "InvalidSpec")
    made = await site.pod()
    assert applied(made) == {}
    given = {key: value for key, value in UNREADABLE[case].items() if key == "volumes"}
    mount = UNREADABLE[case].get("volumeMounts", [])
    with pytest.raises(ApiError):
        await site.pod(containers=[container(env=UNREADABLE[case].get("env", []), volumeMounts=mount)], **given)


async def test_a_preset_that_is_nested_more_deeply_than_anybody_can_read_stops_no_other(webhook, site):
    body = '{"apiVersion":"reach.spectrocloud.com/v1alpha1","kind":"PodPreset","metadata":{"name":"deep"},"spec":%s}'
    deep = '{"a":' * 5_000 + "1" + "}" * 5_000
    spec = f'{{"env":[{{"name":"A","valueFrom":{deep}}}]}}'
    path, headers = POD_PRESETS.path(site.namespace), {"Content-Type": "application/json"}
    await site.kube.client.raw("POST", path, body=(body % spec).encode(), headers=headers)

    async def conditions():
        return view((await site.kube.client.get(POD_PRESETS, "deep", site.namespace)).status, PresetStatus).conditions

    (condition,) = await eventually(conditions)
    assert condition.message == "spec: nested too deeply, expected at most 64 levels"
    await site.preset("good", env=[{"name": "B", "value": "x"}])
    assert env(first(await site.pod())) == [("B", "x")]
    await asyncio.to_thread(webhook.restart)
    assert env(first(await site.pod())) == [("B", "x")]
    await site.kube.client.delete(POD_PRESETS, "deep", site.namespace)
    await asyncio.to_thread(blocking_until, lambda: not webhook.metric("groundwork_podpreset_presets", ready="false"))


async def test_a_message_is_cut_to_what_a_status_may_hold(site):
    labels = {f"no label {'x' * 5000} {at}": "x" for at in range(20)}
    preset = await site.preset(selector={"matchLabels": labels}, env=A)
    assert ready(preset)["status"] == "False"


async def test_a_pod_with_a_name_that_none_can_have_keeps_no_conflict_out_of_the_status(site):
    await site.preset("a", env=A)
    await site.preset("b", env=[{"name": "A", "value": "y"}])
    with pytest.raises(ApiError):
        await site.pod(name="x" * 300)
    await site.pod(name="good")
    await reaches(site, "b", conflicts=2)


async def test_pods_that_carry_a_preset_are_counted_as_they_come_and_go(site):
    preset = await site.preset(env=A)
    pods = [await site.pod() for _ in range(3)]
    await reaches(site, injectedPods=3, stalePods=0)
    await site.kube.delete(PODS, pods[0]["metadata"]["name"], site.namespace)
    await reaches(site, injectedPods=2, stalePods=0)
    await site.change(preset, env=[{"name": "A", "value": "y"}])
    await reaches(site, injectedPods=2, stalePods=2)
    await site.pod()
    await reaches(site, injectedPods=3, stalePods=2)


async def test_pods_of_every_namespace_count_for_a_cluster_preset_and_namesakes_do_not(kube, scope, site):
    async with Site.made(kube, scope) as other:
        both = [site.namespace, other.namespace]
        selector = {"matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "In", "values": both}]}
        wide = await site.cluster_preset("wide", namespaceSelector=selector, env=A)
        name = wide["metadata"]["name"]
        await site.preset(name, selector={"matchLabels": {"no": "pod"}}, env=A)
        await site.pod()
        await other.pod()
        await eventually(
            lambda: site.kube.get(CLUSTER_POD_PRESETS, name), lambda obj: obj["status"]["injectedPods"] == 2
        )
        assert (await status_of(site, name))["injectedPods"] == 0


async def test_a_change_of_selectors_makes_no_pod_stale(site):
    preset = await site.preset(env=A)
    await site.pod()
    await reaches(site, injectedPods=1)
    await site.change(preset, selector={"matchLabels": {"a": "b"}})
    await reaches(site, injectedPods=1, stalePods=0)


async def test_conflicts_are_told_by_kind_with_the_latest_pod_and_without_values(site):
    await site.preset("a", env=[{"name": "A", "value": "secret-one"}])
    volumes = [{"name": "v", "emptyDir": {}}]
    await site.preset("b", env=[{"name": "A", "value": "secret-two"}], volumes=volumes)
    await site.pod(name="one")
    await reaches(site, "b", conflicts=1)
    await site.pod(name="two", volumes=[{"name": "v", "hostPath": {"path": "/x"}}])
    status = await reaches(site, "b", conflicts=3)
    told = {conflict["message"]: conflict for conflict in status["lastConflicts"]}
    assert set(told) == {
        f"env A differs from that of PodPreset {site.namespace}/a",
        "volume v differs from that of the pod",
    }
    about_a = told[f"env A differs from that of PodPreset {site.namespace}/a"]
    assert (about_a["count"], about_a["pod"], about_a["namespace"]) == (2, "two", site.namespace)
    assert "secret" not in str(status)
    assert (await status_of(site, "a"))["conflicts"] == 0, "the first by name was given"


async def test_a_pod_that_is_left_or_refused_is_told_as_that(site):
    await site.preset("a", conflictPolicy="SkipAll", env=[{"name": "A", "value": "x"}])
    own = [container(env=[{"name": "A", "value": "mine"}])]
    assert not applied(await site.pod(containers=own))
    status = await reaches(site, "a", conflicts=1)
    (conflict,) = status["lastConflicts"]
    assert conflict["message"] == "env A differs from that of container app; the pod was left as it came"


async def test_conflicts_and_counts_are_written_side_by_side(site):
    await site.preset("a", env=A)
    await site.preset("b", env=[{"name": "A", "value": "y"}, {"name": "B", "value": "x"}])
    await asyncio.gather(*(site.pod() for _ in range(20)))
    status = await reaches(site, "b", conflicts=20, injectedPods=20)
    assert ready({"metadata": {"generation": 1}, "status": status})["status"] == "True"
    assert [conflict["count"] for conflict in status["lastConflicts"]] == [20]


async def test_the_columns_of_kubectl_show_it(cluster, site):
    await site.preset("a", priority=3, env=A)
    await site.preset("b", priority=3, selector={"matchLabels": {"app": "web"}}, env=[{"name": "A", "value": "y"}])
    await site.pod({"app": "web"})
    await reaches(site, "a", injectedPods=1)
    await reaches(site, "b", injectedPods=1, conflicts=1)
    listed = await asyncio.to_thread(cluster.kubectl, "get", "podpresets", f"--namespace={site.namespace}")
    head, *rows = [line.split() for line in listed.splitlines()]
    assert head == ["NAME", "PRIORITY", "PODS", "CONFLICTS", "READY", "AGE"]
    shown = [dict(zip(head, row, strict=False)) for row in rows]
    assert [(row["NAME"], row["PRIORITY"], row["PODS"]) for row in shown] == [("a", "3", "1"), ("b", "3", "1")]
    assert (shown[1]["CONFLICTS"], shown[1]["READY"]) == ("1", "True")
    wide = await asyncio.to_thread(cluster.kubectl, "get", "podp", "-o=wide", f"--namespace={site.namespace}")
    assert '{"matchLabels":{"app":"web"}}' in wide
    assert "PresetReady" in wide


async def test_a_status_that_somebody_has_spoiled_is_written_anew(site):
    made = await site.preset(env=A)
    await site.kube.set_status(POD_PRESETS, "preset", site.namespace, {"observedGeneration": 0, "injectedPods": 7})
    changed = await site.change(made, priority=1)
    assert ready(changed)["status"] == "True"
    await reaches(site, injectedPods=0)


@pytest.mark.parametrize("dry", [True, False])
async def test_metrics_count_by_preset_and_go_with_it(webhook, site, dry):
    labels = {"kind": "PodPreset", "namespace": site.namespace, "preset": "preset"}
    await site.preset(env=A)
    made = await site.pod()
    assert webhook.metric("groundwork_podpreset_injections_total", **labels) == 1
    if dry:
        await site.create(made | {"metadata": {"name": "dry"}}, dryRun="All")
        assert webhook.metric("groundwork_podpreset_injections_total", **labels) == 2
    await site.kube.delete(POD_PRESETS, "preset", site.namespace)

    async def counted():
        return webhook.metric("groundwork_podpreset_injections_total", **labels)

    await eventually(counted, lambda value: value == 0)


async def test_metrics_tell_of_presets_outcomes_and_age(webhook, site):
    await site.preset("bad", selector=BAD, env=A)
    await site.preset("good", env=A)
    await site.pod()
    assert webhook.metric("groundwork_podpreset_presets", kind="PodPreset", ready="false") == 1
    assert webhook.metric("groundwork_podpreset_presets", kind="PodPreset", ready="true") >= 1
    assert webhook.metric("groundwork_podpreset_pods_total", outcome="patched") >= 1
    assert webhook.metric("groundwork_podpreset_patch_bytes_count") >= 1
    assert 0 <= webhook.metric("groundwork_podpreset_cache_age_seconds", resource="PodPreset") < 120
