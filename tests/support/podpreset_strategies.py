"""Hypothesis strategies for presets and pods that have something to say about the same things."""

from __future__ import annotations

import itertools

from hypothesis import strategies as st

from services.podpreset import api
from services.proxyenv.complete import NAMES, Facts
from tests.support.podpresets import NAMESPACE, cluster_preset, preset

SECRET = "hunter2"
"""Part of every value but those of lists, to find it where it must not be."""

FACTS = Facts(service_cidrs=("10.96.0.0/12",), pod_cidrs=(), api_server=("10.96.0.1",))

_NAMES = ["HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy", "A", "a", "B", "SSL_CERT_FILE"]
_LISTS = ["x", "X,y", "x,y", "y,x", " z ,x", "x,,", ",", "*", "x,*", "10.0.0.0/8,z"]
_SOURCES = [{"secretKeyRef": {"name": "s", "key": "k"}}, {"fieldRef": {"fieldPath": "metadata.name"}}]
_VALUES = [
    {},
    *[{"value": value} for value in ("", f"http://u:{SECRET}@proxy", f"{SECRET}-1", *_LISTS)],
    *[{"valueFrom": source} for source in _SOURCES],
]
_METADATA = [
    {},
    *[{"type": api.MULTI, "merge_strategy": strategy} for strategy in api.STRATEGIES],
    {"merge_strategy": api.PREPEND},
    {"type": api.SINGLE},
    {"override": api.FORCE},
    {"type": api.MULTI, "merge_strategy": api.PREPEND, "override": api.FORCE},
]
# One draw for each entry rather than one for each of its parts: drawing is what costs the time.
_OWN_ENV = st.sampled_from([{"name": name, **value} for name in _NAMES for value in _VALUES])
_PRESET_ENV = st.sampled_from(
    [
        {"name": name, **value, **({"metadata": metadata} if metadata else {})}
        for name, value, metadata in itertools.product(_NAMES, _VALUES, _METADATA)
    ]
)
_VOLUME_SOURCES = [{"emptyDir": {}}, {"configMap": {"name": "c"}}, {"secret": {"secretName": "t"}}]
_VOLUMES = st.sampled_from([{"name": name, **source} for name in "vw" for source in _VOLUME_SOURCES])
_MOUNTS = st.sampled_from([{"name": name, "mountPath": path} for name in "vw" for path in ("/v", "/w", "/w/", "/x")])
_ENV_FROM = st.sampled_from(
    [
        {"configMapRef": {"name": "c"}},
        {"configMapRef": {"name": "c", "optional": True}},
        {"prefix": "P_", "secretRef": {"name": "s"}},
    ]
)
_UNKNOWN = st.sampled_from([{}, {"x-new": {"a": [None, 1]}}, {"resizePolicy": []}, {"resources": None, "x-new": "y"}])


def _unique_by(key, items):
    return list({item[key]: item for item in items}.values())


_CA = st.sampled_from([{"configMap": {"name": "ca"}}, {"clusterTrustBundle": {"name": "b"}}])
_CONTAINER_SELECTOR = st.fixed_dictionaries(
    {}, optional={"names": st.lists(st.sampled_from(["app", "s*", "?nit"]), max_size=2), "init": st.booleans()}
)


@st.composite
def specs(draw, *, force=True):
    """Spec of a preset that can be applied."""
    env = draw(st.lists(_PRESET_ENV, max_size=5))
    env = [entry for entry in env if force or "override" not in entry.get("metadata", ())]
    volumes = draw(st.lists(_VOLUMES, max_size=2))
    names = {volume["name"] for volume in volumes}
    mounts = draw(st.lists(_MOUNTS, max_size=3)) if names else []
    spec = {
        "env": [*env, {"name": "ALWAYS", "value": "1"}],
        "envFrom": draw(st.lists(_ENV_FROM, max_size=2)),
        "volumes": _unique_by("name", volumes),
        "volumeMounts": _unique_by("mountPath", [mount for mount in mounts if mount["name"] in names]),
        "priority": draw(st.integers(0, 1)),
        "conflictPolicy": draw(st.sampled_from(["SkipVariable"] * 6 + ["SkipAll", "Reject"])),
    }
    for field, values in (
        ("caBundle", _CA),
        ("containerSelector", _CONTAINER_SELECTOR),
        ("noProxy", st.builds(lambda n: {"include": n}, st.lists(st.sampled_from(NAMES), unique=True))),
    ):
        if draw(st.integers(0, 3)) == 0:
            spec[field] = draw(values)
    return spec


@st.composite
def preset_sets(draw, *, force=True, max_size=4):
    """Compiled presets of both kinds with different names."""
    found = []
    for at in range(draw(st.integers(1, max_size))):
        spec = draw(specs(force=force))
        name = f"p{at}"
        found.append(cluster_preset(name, **spec) if draw(st.booleans()) else preset(name, **spec))
    return found


@st.composite
def containers(draw, name):
    """A container in plain JSON, with fields that the code does not know."""
    optional = {
        "env": st.none() | st.lists(_OWN_ENV, max_size=5),
        "envFrom": st.none() | st.lists(_ENV_FROM, max_size=2),
        "volumeMounts": st.none() | st.lists(_MOUNTS, max_size=2).map(lambda found: _unique_by("mountPath", found)),
        "volumeDevices": st.just([{"name": "block", "devicePath": "/v"}]),
    }
    return {"name": name, **draw(_UNKNOWN), **draw(st.fixed_dictionaries({}, optional=optional))}


@st.composite
def pods(draw):
    """A pod in plain JSON: any of its parts may be missing, null or unknown."""
    spec = {**draw(_UNKNOWN), "containers": [draw(containers("app")), *draw(st.lists(containers("other"), max_size=1))]}
    if draw(st.booleans()):
        init = draw(containers("init"))
        sidecar = {**draw(containers("sidecar")), "restartPolicy": "Always"}
        spec["initContainers"] = [init, sidecar]
    spec |= draw(
        st.fixed_dictionaries(
            {},
            optional={
                "volumes": st.none() | st.lists(_VOLUMES, max_size=2).map(lambda found: _unique_by("name", found)),
                "os": st.sampled_from([{"name": "linux"}, {"name": "windows"}]),
            },
        )
    )
    meta = st.fixed_dictionaries(
        {},
        optional={
            "generateName": st.just("p-"),
            "namespace": st.just(NAMESPACE),
            "labels": st.none() | st.just({"app": "x"}),
            "annotations": st.none() | st.dictionaries(st.sampled_from(["a~b/c", "d"]), st.just("e")),
        },
    )
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        **draw(st.just({}) | st.builds(lambda m: {"metadata": m}, meta)),
        "spec": spec,
    }
