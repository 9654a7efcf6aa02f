"""What other webhooks of this kind got wrong, one scenario for each defect, through the API server.

The defects are those of redhat-cop/podpreset-webhook and its forks, and of webhooks that decode pods into types.
"""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess

import jsonpatch
import pytest

from services.podpreset.api import POD_PRESETS
from services.runtime.kube.errors import ApiError
from tests.support import sidecars
from tests.support.kube import eventually
from tests.support.presets import (
    APPLIED,
    CLUSTER_APPLIED,
    EXCLUDE,
    HASH,
    Site,
    applied,
    container,
    env,
    first,
    mounts,
    pod,
    volumes,
)
from tests.support.webhook import Webhook

VOLUME = {"name": "vol", "emptyDir": {}}
MOUNT = {"name": "vol", "mountPath": "/foo"}


def variable(name, value="x"):
    return {"name": name, "value": value}


def patch_of(response):
    return json.loads(base64.b64decode(response["patch"])) if "patch" in response else []


async def test_r1_two_presets_that_match_are_both_applied(site):
    await site.preset("a", env=[variable("A")])
    await site.preset("b", env=[variable("B")])
    made = await site.pod()
    assert env(first(made)) == [("A", "x"), ("B", "x")]
    assert set(applied(made)) == {f"{APPLIED}a", f"{APPLIED}b"}


async def test_r2_a_preset_that_does_not_match_is_not_applied_although_it_is_the_last(site):
    await site.preset("a", selector={"matchLabels": {"app": "web"}}, env=[variable("A")])
    await site.preset("z", selector={"matchLabels": {"app": "db"}}, env=[variable("Z")])
    made = await site.pod({"app": "web"})
    assert env(first(made)) == [("A", "x")]
    assert list(applied(made)) == [f"{APPLIED}a"]


async def test_r3_a_conflict_over_a_variable_costs_the_container_nothing(site):
    await site.preset(env=[variable("A", "preset"), variable("B")])
    own = container(
        env=[variable("A", "mine")],
        envFrom=[{"secretRef": {"name": "mine"}}],
        volumeMounts=[{"name": "mine", "mountPath": "/mine"}],
    )
    made = await site.pod(containers=[own], volumes=[{"name": "mine", "emptyDir": {}}])
    assert env(first(made)) == [("B", "x"), ("A", "mine")]
    assert first(made)["envFrom"] == own["envFrom"]
    assert mounts(first(made)) == [("mine", "/mine")]
    assert volumes(made) == ["mine"]


async def test_r4_a_conflict_over_a_volume_leaves_the_pods_volumes(site):
    await site.preset(volumes=[VOLUME], volumeMounts=[MOUNT], env=[variable("A")])
    own = {"name": "vol", "hostPath": {"path": "/mine", "type": ""}}
    made = await site.pod(volumes=[own])
    assert made["spec"]["volumes"] == [own]
    assert mounts(first(made)) == [], "and the preset's mount of it is not made"
    assert env(first(made)) == [("A", "x")]


async def test_r5_a_conflict_over_a_path_leaves_the_containers_mounts(site):
    await site.preset(volumes=[VOLUME], volumeMounts=[MOUNT, {"name": "vol", "mountPath": "/bar"}])
    made = await site.pod(
        containers=[container(volumeMounts=[{"name": "mine", "mountPath": "/foo"}])],
        volumes=[{"name": "mine", "emptyDir": {}}],
    )
    assert mounts(first(made)) == [("mine", "/foo")]
    assert volumes(made) == ["mine"], "a volume and all its mounts stand or fall together"


async def test_r6_nothing_that_the_webhook_does_not_know_is_lost(webhook, site):
    await site.preset(env=[variable("A")])
    made = pod(
        labels={"a": "b"},
        initContainers=[container("sidecar", restartPolicy="Always")],
        containers=[
            container(
                resizePolicy=[{"resourceName": "cpu", "restartPolicy": "NotRequired"}],
                resources={"claims": [{"name": "gpu"}]},
            )
        ],
        resourceClaims=[{"name": "gpu", "resourceClaimName": "gpu"}],
        schedulingGates=[{"name": "example.com/later"}],
    )
    created = await site.create(made)
    assert created["spec"]["initContainers"][0]["restartPolicy"] == "Always"
    assert env(created["spec"]["initContainers"][0]) == [("A", "x")]
    for field in ("resizePolicy", "resources"):
        assert first(created)[field] == first(made)[field]
    assert created["spec"]["resourceClaims"] == made["spec"]["resourceClaims"]
    # The API server itself drops what it does not know; a newer one would pass it on.
    made["spec"]["x-new"] = {"deep": [1, None]}
    made["spec"]["containers"][0]["x-new"] = 1.5
    patch = patch_of(webhook.review(made, namespace=site.namespace))
    assert {operation["op"] for operation in patch} <= {"add", "replace", "test"}
    after = jsonpatch.apply_patch(made, patch)
    assert after["spec"]["x-new"] == {"deep": [1, None]}
    assert after["spec"]["containers"][0]["x-new"] == 1.5


async def test_r7_a_second_call_changes_nothing(webhook, site):
    await site.preset(
        env=[variable("HTTP_PROXY"), variable("NO_PROXY", "a,b")],
        volumes=[VOLUME],
        volumeMounts=[MOUNT],
        envFrom=[{"configMapRef": {"name": "c"}}],
        caBundle={"configMap": {"name": "ca"}},
    )
    made = await site.pod(containers=[container(env=[variable("no_proxy", "c")]), container("second")])
    made["metadata"].pop("managedFields", None)
    again = webhook.review(made, namespace=site.namespace)
    assert again["allowed"]
    assert patch_of(again) == []


DEFAULTED = {
    "config": {"configMap": {"name": "c"}},
    "projected": {
        "projected": {
            "sources": [
                {"secret": {"name": "s"}},
                {"downwardAPI": {"items": [{"path": "n", "fieldRef": {"fieldPath": "metadata.name"}}]}},
            ]
        }
    },
    "claim": {
        "ephemeral": {
            "volumeClaimTemplate": {
                "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1024Mi"}}}
            }
        }
    },
    "image": {"image": {"reference": "registry.invalid/x:1"}},
    "memory": {"emptyDir": {"sizeLimit": "1024Mi", "medium": "Memory"}},
    "path": {"hostPath": {"path": "/x"}},
    "iscsi": {"iscsi": {"targetPortal": "192.0.2.1", "iqn": "iqn.2020-01.example:b", "lun": 0}},
    "rbd": {"rbd": {"monitors": ["a"], "image": "i"}},
    "azure": {"azureDisk": {"diskName": "a", "diskURI": "https://blob.invalid/x"}},
    "scale": {
        "scaleIO": {"gateway": "https://x.invalid", "system": "s", "secretRef": {"name": "n"}, "volumeName": "v"}
    },
    "nothing": {},
    "misspelled-source": {"hostpath": {"path": "/x"}},
    "misspelled-field": {"projected": {"sources": [{"secret": {"name": "s", "key": "k"}}]}},
}


async def test_r7_what_the_api_server_fills_in_is_no_difference_on_a_second_call(site, webhook):
    references = [
        {"name": "FIELD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "RESOURCE", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
    ]
    given = [{"name": name, **source} for name, source in DEFAULTED.items()]
    at = [{"name": name, "mountPath": f"/{name}"} for name in DEFAULTED]
    await site.preset(conflictPolicy="Reject", env=references, volumes=given, volumeMounts=at)
    made = await site.pod()
    assert applied(made)
    again = await asyncio.to_thread(webhook.review, made, namespace=site.namespace)
    assert again["allowed"], again
    assert "patch" not in again
    assert "warnings" not in again


async def test_r8_of_a_pod_that_got_a_sidecar_since_only_the_sidecar_is_changed(webhook, site):
    await site.preset(env=[variable("A")])
    made = await site.pod()
    made["spec"]["containers"].append(container("late"))
    patch = patch_of(webhook.review(made, namespace=site.namespace))
    assert patch
    assert all(operation["path"].startswith("/spec/containers/1/") for operation in patch)


async def test_r8_a_sidecar_that_another_webhook_adds_later_gets_the_preset_too(cluster, scope, site, tmp_path):
    await site.preset(env=[variable("A")])
    with sidecars.injected(cluster, tmp_path, scope):
        made = await eventually(site.pod, lambda made: len(made["spec"]["containers"]) == 2)
        assert [one["name"] for one in made["spec"]["containers"]] == ["app", sidecars.NAME]
        assert all(env(one) == [("A", "x")] for one in made["spec"]["containers"])


async def test_r9_the_same_env_from_of_two_presets_is_added_once(site):
    source = {"configMapRef": {"name": "shared"}}
    await site.preset("a", envFrom=[source])
    await site.preset("b", envFrom=[source])
    assert first(await site.pod())["envFrom"] == [source]


async def test_r10_a_pod_without_namespace_name_annotations_and_env_gets_all_of_it(site):
    await site.preset(env=[variable("A")], volumes=[VOLUME], volumeMounts=[MOUNT])
    bare = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "bare-"},
        "spec": {"containers": [container()]},
    }
    made = await site.create(bare)
    assert made["metadata"]["name"].startswith("bare-")
    assert env(first(made)) == [("A", "x")]
    assert mounts(first(made)) == [("vol", "/foo")]
    assert applied(made)
    assert made["metadata"]["annotations"][HASH]


@pytest.mark.parametrize(
    ("selector", "labels", "selected"),
    [
        ({}, {}, True),
        ({}, {"a": "b"}, True),
        ({"matchLabels": {"a": "b"}}, {}, False),
        ({"matchLabels": {"a": "b"}}, {"a": "b", "c": "d"}, True),
        ({"matchLabels": {"a": "b", "c": "d"}}, {"a": "b"}, False),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["b", "c"]}]}, {"a": "c"}, True),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["b"]}]}, {"a": "b"}, False),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["b"]}]}, {}, True),
        ({"matchExpressions": [{"key": "a", "operator": "Exists"}]}, {"a": ""}, True),
        ({"matchExpressions": [{"key": "a", "operator": "Exists"}]}, {}, False),
        ({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, {"a": ""}, False),
        ({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, {"b": ""}, True),
    ],
)
async def test_r11_a_selector_selects_as_label_selectors_do(site, selector, labels, selected):
    await site.preset(selector=selector, env=[variable("A")])
    assert bool(applied(await site.pod(labels))) is selected


async def test_r11_a_preset_is_for_pods_of_its_own_namespace(kube, scope, site):
    async with Site.made(kube, scope) as elsewhere:
        await elsewhere.preset(env=[variable("A")])
        assert not applied(await site.pod())
        assert applied(await elsewhere.pod())


async def test_r11_a_cluster_preset_is_for_the_namespaces_that_it_selects(kube, scope, site):
    async with Site.made(kube, scope, team="one") as one, Site.made(kube, scope, team="two") as two:
        # Both namespaces have to be known, which the status of a preset in each shows.
        for known in (one, two):
            await known.preset("known", selector={"matchLabels": {"no": "pod"}}, env=[variable("K")])
        key = f"{CLUSTER_APPLIED}team-{one.id}"
        await one.cluster_preset("team", namespaceSelector={"matchLabels": {"team": "one"}}, env=[variable("A")])
        await eventually(one.pod, lambda made: key in applied(made))
        assert key not in applied(await two.pod())
        assert key not in applied(await site.pod())


async def test_r12_a_preset_with_the_longest_name_does_not_stop_pods(site):
    long = await site.cluster_preset(f"{'a' * 100}-{site.id}-{'b' * 100}", env=[variable("A")])
    other = await site.cluster_preset(f"{'a' * 100}-{site.id}-{'c' * 100}", env=[variable("B")])
    made = await site.pod()
    assert env(first(made)) == [("A", "x"), ("B", "x")]
    assert len(applied(made)) == 2
    assert len(long["metadata"]["name"]) == len(other["metadata"]["name"]) > 200


async def test_r12b_a_key_that_does_not_fit_its_certificate_changes_nothing_but_a_metric(cluster, kube, tmp_path):
    with Webhook.running(tmp_path, cluster.kubeconfig) as webhook, webhook.registered(cluster, "r12b") as namespace:
        site = Site(kube, namespace)
        await site.preset(env=[variable("A")])
        right = tmp_path / "tls"
        shutil.copy(tmp_path / "pki" / "ca.key", right / "tls.key")
        await eventually(lambda: _metric(webhook, "groundwork_webhook_certificate_rejected"))
        assert applied(await site.pod())
        shutil.copy(tmp_path / "pki" / "webhook.key", right / "tls.key")
        await eventually(lambda: _metric(webhook, "groundwork_webhook_certificate_rejected"), lambda value: not value)
        await kube.delete(POD_PRESETS, "preset", namespace)


async def _metric(webhook, name):
    return webhook.metric(name)


@pytest.mark.parametrize(("value", "excluded"), [("true", True), ("True", False), ("1", False), ("", False)])
async def test_r13_a_pod_is_excluded_by_exactly_true(site, value, excluded):
    await site.preset(env=[variable("A")])
    assert bool(applied(await site.pod(annotations={EXCLUDE: value}))) is not excluded


async def test_r13_a_namespace_is_excluded_by_its_label(webhook, kube, scope):
    async with Site.made(kube, scope, **{EXCLUDE: "true"}) as site:
        await site.preset(env=[variable("A")])
        assert not applied(await site.pod())
        # Asked all the same, say by a configuration of somebody's own, the webhook leaves it alone too.
        answer = await eventually(
            lambda: _review(webhook, site.namespace), lambda answer: "skipped" in answer.get("auditAnnotations", {})
        )
        assert answer["auditAnnotations"] == {"skipped": "excluded-namespace"}
        assert "patch" not in answer


async def _review(webhook, namespace):
    return webhook.review(pod(), namespace=namespace)


async def test_r13_pods_of_kube_system_are_left_alone(webhook, site):
    await site.cluster_preset(namespaceSelector={}, selector={"matchLabels": {"only": site.id}}, env=[variable("A")])
    labelled = pod(labels={"only": site.id})
    assert patch_of(webhook.review(labelled, namespace=site.namespace))
    for namespace in ("kube-system", "kube-node-lease"):
        answer = webhook.review(labelled, namespace=namespace)
        assert answer["auditAnnotations"] == {"skipped": "system-namespace"}
        assert "patch" not in answer


async def test_r14_a_dry_run_gets_the_same_and_leaves_nothing(site):
    await site.preset("a", env=[variable("A", "1")])
    await site.preset("b", env=[variable("A", "2")])
    made = pod("same")
    dry = await site.create(made, dryRun="All")
    real = await site.create(made)
    assert dry["spec"]["containers"] == real["spec"]["containers"]
    assert applied(dry) == applied(real)
    conflicted = await eventually(
        lambda: site.kube.get(POD_PRESETS, "b", site.namespace), lambda obj: obj["status"].get("conflicts")
    )
    assert conflicted["status"]["conflicts"] == 1, "the one of the dry run is not counted"


async def test_r15_pods_are_made_while_a_preset_changes_and_each_gets_one_state_of_it(site):
    made = await site.preset(env=[variable("A", "0"), variable("B", "0")])
    stop = asyncio.Event()
    seen = []

    async def create():
        while not stop.is_set():
            seen.append(dict(env(first(await site.pod()))))

    creators = [asyncio.create_task(create()) for _ in range(4)]
    for state in range(1, 4):
        made = await site.change(made, env=[variable("A", str(state)), variable("B", str(state))])
    stop.set()
    await asyncio.gather(*creators)
    assert seen
    assert all(found["A"] == found["B"] for found in seen)
    assert env(first(await site.pod())) == [("A", "3"), ("B", "3")]


async def test_r15_a_preset_that_is_deleted_is_given_no_more(site):
    await site.preset(env=[variable("A")])
    assert applied(await site.pod())
    await site.kube.delete(POD_PRESETS, "preset", site.namespace)
    await eventually(site.pod, lambda made: not applied(made))


async def test_r16_a_value_from_elsewhere_is_not_touched(site):
    await site.preset(env=[variable("NO_PROXY", "a,b"), variable("B", "preset")])
    elsewhere = {"secretKeyRef": {"name": "s", "key": "k"}}
    own = [{"name": "NO_PROXY", "valueFrom": elsewhere}, {"name": "B", "valueFrom": elsewhere}]
    made = await site.pod(containers=[container(env=own)])
    assert env(first(made)) == [("NO_PROXY", elsewhere), ("no_proxy", elsewhere), ("B", elsewhere)]


async def test_r16_a_name_that_the_pod_has_twice_does_not_get_a_third(site):
    await site.preset(env=[variable("A", "preset")])
    made = await site.pod(containers=[container(env=[variable("A", "1"), variable("A", "2")])])
    assert env(first(made)) == [("A", "1"), ("A", "2")]


async def test_r17_a_pod_of_300_containers_gets_50_presets(site):
    async with asyncio.TaskGroup() as group:
        for number in range(49):
            group.create_task(site.preset(f"p{number:02}", env=[variable(f"V{number:02}"), variable("NO_PROXY", "x")]))
    await site.preset("p99", volumes=[VOLUME], volumeMounts=[MOUNT], env=[variable("NO_PROXY", ",".join("abcdef"))])
    made = await site.pod(containers=[container(f"c{number}") for number in range(300)])
    for one in made["spec"]["containers"]:
        assert len(env(one)) == 51
        assert mounts(one) == [("vol", "/foo")]
    assert len(applied(made)) == 50


async def test_r17_a_pod_near_the_largest_that_the_api_server_takes(site):
    await site.preset(env=[variable("A")])
    made = await site.pod(containers=[container(env=[variable(f"BIG{number}", "x" * 100_000) for number in range(10)])])
    assert env(first(made))[0] == ("A", "x")
    assert len(env(first(made))) == 11


async def test_r18_of_ephemeral_containers_the_new_one_alone_is_changed(site):
    made = await site.pod()
    name = made["metadata"]["name"]
    old = await site.debug(name, container("old"))
    assert env(old["spec"]["ephemeralContainers"][0]) == []
    await site.preset(env=[variable("A")], volumes=[VOLUME], volumeMounts=[MOUNT])
    new = await site.debug(name, container("new"))
    before, after = new["spec"]["ephemeralContainers"]
    assert env(before) == []
    assert env(after) == [("A", "x")]
    assert mounts(after) == [], "a pod that runs cannot get the volume"
    assert env(first(new)) == []
    assert new["metadata"].get("annotations") == made["metadata"].get("annotations")


async def test_r18_an_ephemeral_container_gets_the_mounts_of_volumes_that_the_pod_has(site):
    await site.preset(volumes=[VOLUME], volumeMounts=[MOUNT])
    made = await site.pod()
    new = await site.debug(made["metadata"]["name"], container("debug"))
    assert mounts(new["spec"]["ephemeralContainers"][0]) == [("vol", "/foo")]


async def test_conflicts_are_shown_to_who_creates_the_pod(cluster, site):
    await site.preset("a", env=[variable("A", "secret-one")])
    await site.preset("b", env=[variable("A", "secret-two")])
    command = [str(cluster._kubectl), f"--kubeconfig={cluster.kubeconfig}", "apply", f"--namespace={site.namespace}"]
    done = await asyncio.to_thread(
        subprocess.run, [*command, "-f", "-"], input=json.dumps(pod()), capture_output=True, text=True, check=True
    )
    assert (
        f"Warning: PodPreset {site.namespace}/b: env A differs from that of PodPreset {site.namespace}/a" in done.stderr
    )
    assert "secret" not in done.stderr


async def test_a_preset_that_rejects_says_why(site):
    await site.preset("a", env=[variable("A", "secret-one")])
    await site.preset("b", conflictPolicy="Reject", env=[variable("A", "secret-two")])
    with pytest.raises(ApiError) as caught:
        await site.pod()
    assert caught.value.status == 403
    assert f"PodPreset {site.namespace}/b: env A differs from that of PodPreset {site.namespace}/a" in str(caught.value)
    assert "secret" not in str(caught.value)


async def test_pods_of_a_workload_are_given_presets_by_their_template(site):
    await site.preset(selector={"matchLabels": {"app": "web"}}, env=[variable("A")])
    owner = {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "name": "web-1",
        "uid": "00000000-0000-0000-0000-000000000001",
        "controller": True,
        "blockOwnerDeletion": True,
    }
    made = pod(labels={"app": "web", "pod-template-hash": "1"})
    made["metadata"] = {"generateName": "web-1-", "labels": made["metadata"]["labels"], "ownerReferences": [owner]}
    pods = await asyncio.gather(*(site.create(made) for _ in range(3)))
    assert len({one["metadata"]["name"] for one in pods}) == 3
    assert all(env(first(one)) == [("A", "x")] for one in pods)
    assert all(one["metadata"]["ownerReferences"] == [owner] for one in pods)
