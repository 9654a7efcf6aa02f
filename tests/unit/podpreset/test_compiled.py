"""One preset alone: what is wrong with it, what is worth a note, what it comes to."""

import pytest

from services.podpreset import api
from services.podpreset.compiled import compile_preset
from services.runtime.kube.objects import KubeObject, ObjectMeta, raw
from tests.support.podpresets import cluster_preset, env, preset, var


def nested(levels):
    value = {}
    for _ in range(levels):
        value = {"a": value}
    return value


V = {"name": "v", "emptyDir": {}}
SECRET = {"secretKeyRef": {"name": "s", "key": "k"}}

PROBLEMS = [
    ({"env": [{"value": "x"}]}, "spec.env[0].name: '', expected a name"),
    ({"env": [{"name": "A", "value": "x", "valueFrom": {}}]}, "spec.env[0]: expected value or valueFrom, not both"),
    ({"env": [var("A", "x", type="list")]}, "spec.env[0].metadata.type: 'list', expected one of single, multi"),
    (
        {"env": [var("A", "x", merge_strategy="merge")]},
        "spec.env[0].metadata.merge_strategy: 'merge', expected one of replace, append, prepend",
    ),
    (
        {"env": [var("A", "x", mergeStrategy="merge")]},
        "spec.env[0].metadata.mergeStrategy: 'merge', expected one of replace, append, prepend",
    ),
    ({"env": [var("A", "x", override="yes")]}, "spec.env[0].metadata.override: 'yes', expected one of force"),
    ({"envFrom": [{"prefix": "x"}]}, "spec.envFrom[0]: expected configMapRef or secretRef"),
    ({"envFrom": [{"configMapRef": "x"}]}, "spec.envFrom[0]: expected configMapRef or secretRef"),
    ({"volumes": [{"emptyDir": {}}]}, "spec.volumes[0].name: expected a name"),
    ({"volumeMounts": [{"mountPath": "/x"}]}, "spec.volumeMounts[0].name: 'None', expected one of spec.volumes"),
    (
        {"volumes": [{"name": "v"}], "volumeMounts": [{"name": "v"}]},
        "spec.volumeMounts[0].mountPath: expected a path",
    ),
    (
        {"noProxy": {"include": [".svc", "svc"]}},
        "spec.noProxy.include: 'svc', expected one of .svc, .cluster.local, service-cidr, pod-cidr,",
    ),
    (
        {"env": env(A="1"), "conflictPolicy": "Ignore"},
        "spec.conflictPolicy: 'Ignore', expected one of SkipVariable, SkipAll, Reject",
    ),
    (
        {"env": env(A="1"), "selector": {"matchExpressions": [{"key": "a", "operator": "Is"}]}},
        "spec.selector.matchExpressions[0].operator: 'Is', expected In, NotIn, Exists or DoesNotExist",
    ),
    ({"noProxy": {"include": []}}, "spec: must specify at least one of env, envFrom, volumes, volumeMounts, caBundle"),
    (
        {"env": [{"name": "A", "valueFrom": {}}]},
        "spec.env[0].valueFrom: nothing, expected one of configMapKeyRef, secretKeyRef, fieldRef",
    ),
    (
        {"env": [{"name": "A", "valueFrom": {"secretKeyRef": {}, "fieldRef": {}}}]},
        "spec.env[0].valueFrom: fieldRef and secretKeyRef, expected one of configMapKeyRef",
    ),
    ({"envFrom": [{"configMapRef": {"name": "A_b"}}]}, "spec.envFrom[0]: 'A_b', expected the name of an object"),
    (
        {"volumes": [{"name": "v", "emptyDir": {}, "secret": {"secretName": "s"}, "metadata": {}}]},
        "spec.volumes[0]: emptyDir and secret, expected one of them",
    ),
    (
        {"volumes": [{"name": "v"}], "volumeMounts": [{"name": "v", "mountPath": "/m", "subPath": "a/../../b"}]},
        "spec.volumeMounts[0].subPath: 'a/../../b', expected a path within the volume",
    ),
    (
        {"env": env(A="1"), "volumes": [{"name": "v", "csi": nested(70)}]},
        "spec: nested too deeply, expected at most 64 levels",
    ),
    (
        {"volumes": [{"name": "v", "emptyDir": {}, "rbd": {}}]},
        "spec.volumes[0]: emptyDir and rbd, expected one of them",
    ),
    (
        {"envFrom": [{"configMapRef": {"name": "a"}, "secretRef": {"name": "b"}}]},
        "spec.envFrom[0]: configMapRef and secretRef, expected one of them",
    ),
    (
        {"volumes": [V], "volumeMounts": [{"name": "v", "mountPath": "/m", "subPathExpr": "/$(A)"}]},
        "spec.volumeMounts[0].subPathExpr: '/$(A)', expected a path within the volume",
    ),
    (
        {"volumes": [V], "volumeMounts": [{"name": "v", "mountPath": "/m", "subPathExpr": "a", "subPath": "a"}]},
        "spec.volumeMounts[0]: subPath and subPathExpr, expected one of them",
    ),
    ({"env": "x"}, "spec: Expected `array`, got `str` - at `$.env`"),
    ({"priority": "high"}, "spec: Expected `int`, got `str` - at `$.priority`"),
]


# A field of a pod with a value of another shape than Kubernetes knows: what has it, that value, what is wrong with it.
SHAPES = [
    ("env", {"name": "A", "valueFrom": {"fieldRef": "metadata.name"}}, "valueFrom.fieldRef: Expected `object`"),
    ("env", {"name": "A", "valueFrom": {"secretKeyRef": None}}, "valueFrom.secretKeyRef: Expected `object`"),
    (
        "env",
        {"name": "A", "valueFrom": {"secretKeyRef": {"name": "s"}}},
        "valueFrom.secretKeyRef: Object missing required field `key`",
    ),
    (
        "env",
        {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "c", "key": 1}}},
        "valueFrom.configMapKeyRef.key: Expected `str`, got `int`",
    ),
    (
        "env",
        {"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "one"}}},
        "valueFrom.resourceFieldRef.divisor: Expected `str` matching",
    ),
    ("envFrom", {"configMapRef": {"name": "c"}, "prefix": "A="}, "prefix: Expected `str` matching"),
    ("envFrom", {"configMapRef": {"name": "c"}, "prefix": 1}, "prefix: Expected `str | null`, got `int`"),
    ("envFrom", {"secretRef": {"name": "c", "optional": "true"}}, "secretRef.optional: Expected `bool"),
    ("volumes", {"name": "v", "hostPath": "/etc/ssl"}, "hostPath: Expected `object | null`, got `str`"),
    ("volumes", {"name": "v", "hostPath": {}}, "hostPath: Object missing required field `path`"),
    ("volumes", {"name": "v", "hostPath": {"path": "/a", "type": "Dir"}}, "hostPath.type: Invalid enum value 'Dir'"),
    ("volumes", {"name": "v", "emptyDir": {"sizeLimit": "1 GB"}}, "emptyDir.sizeLimit: Expected `str` matching"),
    (
        "volumes",
        {"name": "v", "secret": {"secretName": "s", "defaultMode": "0644"}},
        "secret.defaultMode: Expected `int",
    ),
    ("volumes", {"name": "v", "configMap": {"name": ""}}, "configMap.name: Expected `str` of length >= 1"),
    (
        "volumes",
        {"name": "v", "projected": {"sources": [{"secret": {"name": "s", "items": [{"key": "k"}]}}]}},
        "projected.sources[0].secret.items[0]: Object missing required field `path`",
    ),
    ("volumes", {"name": "v", "rbd": []}, "rbd: Expected `object | null`, got `array`"),
    ("volumeMounts", {"readOnly": "true"}, "readOnly: Expected `bool | null`, got `str`"),
    ("volumeMounts", {"subPath": 1}, "subPath: Expected `str | null`, got `int`"),
    ("volumeMounts", {"mountPropagation": True}, "mountPropagation: Expected `str | null`, got `bool`"),
    ("volumeMounts", {"recursiveReadOnly": "yes"}, "recursiveReadOnly: Invalid enum value 'yes'"),
    ("volumeMounts", {"mountPath": ["/m"]}, "mountPath: Expected `str`, got `array`"),
]


@pytest.mark.parametrize(("field", "value", "problem"), SHAPES)
def test_what_the_api_server_could_not_read_in_a_pod_is_a_problem(field, value, problem):
    given = {field: [value]}
    if field == "volumeMounts":
        given = {"volumes": [V], field: [{"name": "v", "mountPath": "/m", **value}]}
    one = preset(**given)
    (found,) = one.problems
    assert found.startswith(f"spec.{field}[0].{problem}")
    assert not one.matches_pod({})


@pytest.mark.parametrize(
    "given",
    [
        {"volumes": [{"name": "v", "hostPath": {"path": "/a", "type": None, "x-new": 1}, "x-new": {"a": [1]}}]},
        {"volumes": [{"name": "v", "emptyDir": {"sizeLimit": 1073741824}}]},
        {"volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1.5Gi", "medium": ""}, "hostPath": None}]},
        {"volumes": [{"name": "v", "projected": {"sources": [{"oracle": 1}], "defaultMode": 0}}]},
        {"volumes": [V], "volumeMounts": [{"name": "v", "mountPath": "/v", "readOnly": None, "x-new": True}]},
        {"envFrom": [{"secretRef": {"name": "s", "x-new": 1}, "prefix": None}]},
        {"envFrom": [{"secretRef": {"name": "s"}, "prefix": "1.a b"}]},
        {"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name", "x-new": 1}}}]},
    ],
)
def test_what_kubernetes_takes_is_none_nor_what_only_a_later_one_knows(given):
    one = preset(**given)
    assert (one.problems, one.notes) == ((), ())


@pytest.mark.parametrize(("spec", "problem"), PROBLEMS)
def test_a_problem_names_the_field_its_value_and_what_was_expected(spec, problem):
    one = preset(**spec)
    (found,) = one.problems
    assert found.startswith(problem)
    assert not one.usable
    assert not one.matches_pod({})


def test_a_problem_of_the_namespace_selector_is_told_too():
    one = cluster_preset(env=env(A="1"), namespaceSelector={"matchLabels": {"a": "-"}})
    assert one.problems == ("spec.namespaceSelector.matchLabels[a]: '-', expected a label value",)


NOTES = [
    (
        {"env": [{"name": "A", "valueFrom": {"newKeyRef": {}}}]},
        "secretKeyRef, fieldRef, resourceFieldRef, fileKeyRef; pods may be refused for it",
    ),
    (
        {"env": [var("A", "x", type="single", merge_strategy="append")]},
        "a single value replaces, append needs type multi",
    ),
    (
        {"env": [{"name": "A", "valueFrom": SECRET, "metadata": {"type": "multi"}}]},
        "a valueFrom cannot be merged, it replaces",
    ),
    (
        {"env": [{"name": "no_proxy", "valueFrom": SECRET}], "noProxy": {"include": [".svc"]}},
        "NO_PROXY has a valueFrom, to which nothing can be added",
    ),
    ({"env": env(NO_PROXY="a,*")}, "* stands for all other items, and is given alone"),
    ({"volumes": [V, {"name": "v", "configMap": {"name": "c"}}]}, "v was there before, which is the one used"),
    (
        {
            "volumes": [V],
            "volumeMounts": [{"name": "v", "mountPath": "/a"}, {"name": "v", "mountPath": "/a/"}],
        },
        "/a was there before, which is the one used",
    ),
    ({"volumes": [{"name": "v"}]}, "spec.volumes[0]: no source that is known, so pods may get an empty directory"),
    (
        {"volumes": [{"name": "v", "hostpath": {"path": "/"}}]},
        "no source that is known, so pods may get an empty directory",
    ),
]


@pytest.mark.parametrize(("spec", "note"), NOTES)
def test_what_works_but_may_surprise_is_noted(spec, note):
    one = preset(**spec)
    assert one.usable
    (found,) = one.notes
    assert found.endswith(note)


def test_a_no_proxy_from_a_secret_needs_no_note():
    assert preset(env=[{"name": "NO_PROXY", "valueFrom": SECRET}]).notes == ()


def test_metadata_of_volumes_and_mounts_is_not_for_pods():
    meta = {"metadata": {"merge_strategy": "replace"}}
    one = preset(
        volumes=[{"name": "v", "emptyDir": {}, "x-new": 1, **meta}],
        volumeMounts=[{"name": "v", "mountPath": "/v", **meta}],
        envFrom=[{"configMapRef": {"name": "c"}, **meta}],
    )
    assert [volume.json for volume in one.volumes] == [{"name": "v", "emptyDir": {}, "x-new": 1}]
    assert [mount.json for mount in one.mounts] == [{"name": "v", "mountPath": "/v"}]
    assert [source.json for source in one.sources] == [{"configMapRef": {"name": "c"}}]


@pytest.mark.parametrize(
    ("metadata", "replaces"),
    [(None, True), ({}, True), ({"mergeStrategy": "replace"}, True), ({"merge_strategy": "append"}, False)],
)
def test_a_volume_takes_the_place_of_a_broader_one_unless_it_says_otherwise(metadata, replaces):
    one = preset(volumes=[{"name": "v", "metadata": metadata}])
    assert [volume.replaces for volume in one.volumes] == [replaces]


def test_an_object_is_compiled_under_its_kind_and_name():
    obj = KubeObject(
        kind=api.NAMESPACED_KIND, metadata=ObjectMeta(name="a", namespace="b"), spec=raw({"env": env(A="1")})
    )
    one = compile_preset(obj)
    assert str(one.key) == "PodPreset b/a"
    assert repr(one) == "<PodPreset b/a>"
    assert str(cluster_preset("c", env=env(A="1")).key) == "ClusterPodPreset c"
