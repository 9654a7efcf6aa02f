"""Exported policies on a real API server: a container gets the very env that the webhook would give it."""

from __future__ import annotations

import json

import pytest

from services.podpreset import pods
from services.podpreset.cli import policy
from services.podpreset.compiled import compile_preset
from services.podpreset.decide import CREATE, decide_with_edits
from services.podpreset.decision import Review
from services.podpreset.patch import edited
from services.podpreset.world import World
from services.proxyenv.complete import Facts
from services.runtime.kube.errors import NotFound
from services.runtime.kube.objects import KubeObject, decode, encode
from services.runtime.kube.resource import Resource
from tests.support.kube import eventually

POLICIES = Resource(
    "admissionregistration.k8s.io", "v1", "mutatingadmissionpolicies", "MutatingAdmissionPolicy", namespaced=False
)
BINDINGS = Resource(
    "admissionregistration.k8s.io",
    "v1",
    "mutatingadmissionpolicybindings",
    "MutatingAdmissionPolicyBinding",
    namespaced=False,
)
FACTS = Facts(service_cidrs=("10.96.0.0/12",))
FIELD = {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}


def env(**values):
    return [{"name": name, "value": value} for name, value in values.items()]


def variable(name, value, **metadata):
    return {"name": name, "value": value, "metadata": metadata}


PRESETS = {
    "proxy": {
        "env": env(HTTP_PROXY="http://p:3128", NO_PROXY=".svc, localhost,LOCALHOST", PLAIN='quotes " \\ $(X)\n'),
        "noProxy": {"include": [".cluster.local", "metadata", "service-cidr"]},
    },
    "prepend-by-force": {
        "env": [
            variable("NO_PROXY", "a,b", type="multi", merge_strategy="prepend", override="force"),
            variable("HTTPS_PROXY", "http://q", override="force"),
            {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
        ]
    },
    "append-by-force": {"env": [variable("no_proxy", "a,b", type="multi", merge_strategy="append", override="force")]},
    "replace-by-force": {
        "env": [
            variable("NO_PROXY", "a,b", type="multi", merge_strategy="replace", override="force"),
            variable("LIST", "*,b", type="multi", merge_strategy="append"),
        ]
    },
    "value-from-by-force": {
        "env": [
            {"name": "http_proxy", "valueFrom": FIELD, "metadata": {"override": "force"}},
            variable("no_proxy", "*"),
            variable("LIST", "c", type="multi"),
        ]
    },
    "some-containers": {
        "env": env(PLAIN="b"),
        "envFrom": [{"configMapRef": {"name": "c"}}, {"prefix": "p_", "secretRef": {"name": "s", "optional": True}}],
        "containerSelector": {"names": ["app*"], "init": False},
    },
}
OWN = [
    None,
    [],
    env(X="1"),
    env(NO_PROXY="own , Localhost", X="$(PLAIN)"),
    env(X="y", no_proxy="own", Z="z"),
    env(NO_PROXY="own", no_proxy="own"),
    env(NO_PROXY="own", no_proxy="OWN ,"),
    env(NO_PROXY="a", no_proxy="b"),
    env(NO_PROXY=""),
    env(NO_PROXY="", no_proxy="x"),
    [{"name": "NO_PROXY"}],
    [{"name": "NO_PROXY", "valueFrom": FIELD}],
    [{"name": "no_proxy", "valueFrom": FIELD}, {"name": "NO_PROXY", "value": "x"}],
    [*env(NO_PROXY="x"), *env(NO_PROXY="y")],
    env(NO_PROXY="a,*"),
    env(no_proxy="*"),
    env(NO_PROXY="a,b"),
    env(NO_PROXY="b,c,A"),
    env(NO_PROXY=" , a ,", no_proxy="a"),
    env(NO_PROXY=".svc,localhost,.cluster.local,169.254.169.254,10.96.0.0/12"),
    env(HTTP_PROXY="http://own"),
    env(http_proxy="http://own", X="y"),
    [*env(HTTP_PROXY="u"), *env(HTTP_PROXY="v")],
    env(https_proxy="", HTTP_PROXY=""),
    [{"name": "HTTPS_PROXY", "valueFrom": FIELD}],
    env(PLAIN="own", TOKEN="own", LIST="b , c"),
    env(LIST="*"),
    env(LIST=""),
]


def pod(own, name="p"):
    containers = [{"name": "app", "image": "x"}, {"name": "other", "image": "x", "envFrom": [source("c")]}]
    inits = [{"name": "app-side", "image": "x", "restartPolicy": "Always"}, {"name": "app-init", "image": "x"}]
    for container in (containers[0], *inits):
        if own is not None:
            container["env"] = own
    spec = {"containers": containers, "initContainers": inits}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def source(name):
    return {"configMapRef": {"name": name, "optional": True}}


def compiled(name, spec, namespace):
    obj = {"apiVersion": "reach.spectrocloud.com/v1alpha1", "kind": "PodPreset", "spec": spec}
    return compile_preset(decode(encode({**obj, "metadata": {"name": name, "namespace": namespace}}), KubeObject))


def by_the_webhook(preset, obj, namespace):
    world = World.build([preset], {}, FACTS)
    _, edits = decide_with_edits(Review(CREATE, "", namespace, pods.convert(obj)), world)
    return edited(obj, edits)


def environment(obj):
    """What the containers of a pod have. The API server leaves out an empty value, and an empty list."""
    return {
        container["name"]: (
            [{key: part for key, part in entry.items() if part != ""} for entry in container.get("env") or ()],
            container.get("envFrom") or [],
        )
        for field in ("containers", "initContainers")
        for container in obj["spec"][field]
    }


@pytest.fixture
async def applied(kube, namespace):
    """Exports a preset and has it in force; it is removed when the test is over."""
    names = []

    async def apply(name, spec, labels=None):
        preset = compiled(name, spec, namespace)
        made = policy.export(preset, [preset], FACTS)
        assert made.reasons == ()
        for resource, obj in zip((POLICIES, BINDINGS), made.objects, strict=True):
            await kube.create(resource, obj)
            names.append((resource, obj["metadata"]["name"]))
        key = preset.annotation

        async def mark():
            probe = pod([])
            probe["metadata"]["labels"] = labels or {}
            return (await created(kube, namespace, probe))["metadata"].get("annotations", {}).get(key)

        await eventually(mark, lambda value: value == preset.hash)
        return preset

    yield apply
    for resource, name in names:
        try:
            await kube.delete(resource, name)
        except NotFound:
            continue


async def created(kube, namespace, obj):
    """The pod that would be created."""
    body = json.dumps(obj).encode()
    headers = {"Content-Type": "application/json"}
    path = f"/api/v1/namespaces/{namespace}/pods?dryRun=All"
    return json.loads(await kube.client.raw("POST", path, body=body, headers=headers))


@pytest.mark.parametrize("name", PRESETS)
async def test_a_policy_gives_the_env_that_the_webhook_gives(kube, namespace, applied, name):
    preset = await applied(name, PRESETS[name])
    for own in OWN:
        got = await created(kube, namespace, pod(own))
        assert environment(got) == environment(by_the_webhook(preset, pod(own), namespace)), own
        assert got["metadata"]["annotations"][preset.annotation] == preset.hash


async def test_a_second_pass_changes_nothing(kube, namespace, applied):
    await applied("proxy", PRESETS["proxy"])
    once = await created(kube, namespace, pod(env(no_proxy="own")))
    again = {**pod([]), "metadata": {"name": "p", "annotations": once["metadata"]["annotations"]}, "spec": once["spec"]}
    assert environment(await created(kube, namespace, again)) == environment(once)


async def test_pods_that_are_not_to_be_touched_are_not(kube, namespace, applied):
    spec = {**PRESETS["proxy"], "selector": {"matchLabels": {"app": "web"}}}
    preset = await applied("selective", spec, {"app": "web"})
    mine = {"labels": {"app": "web"}}
    excluded = {**mine, "annotations": {"podpreset.admission.kubernetes.io/exclude": "true"}}
    windows = {"os": {"name": "windows"}}
    cases = [({}, {}, False), (mine, {}, True), (excluded, {}, False), (mine, windows, False)]
    for meta, more, touched in cases:
        obj = pod([])
        obj = {**obj, "metadata": {**obj["metadata"], **meta}, "spec": {**obj["spec"], **more}}
        got = await created(kube, namespace, obj)
        assert (preset.annotation in got["metadata"].get("annotations", {})) == touched, (meta, more)
        assert environment(got) == environment(by_the_webhook(preset, obj, namespace) if touched else obj)


async def test_a_large_pod_is_within_what_expressions_may_cost(kube, namespace, applied):
    preset = await applied("proxy", PRESETS["proxy"])
    own = [
        *env(**{f"VARIABLE_{at}": "x" for at in range(60)}),
        *env(NO_PROXY=",".join(f"host-{at}" for at in range(40))),
    ]
    obj = pod([])
    obj["spec"]["containers"] = [{"name": f"c{at}", "image": "x", "env": own} for at in range(60)]
    got = await created(kube, namespace, obj)
    assert environment(got) == environment(by_the_webhook(preset, obj, namespace))
