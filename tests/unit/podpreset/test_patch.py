"""The operations themselves: few, single, guarded, in an order in which positions hold."""

import json

import jsonpatch
import pytest

from services.podpreset.patch import escaped
from tests.support.podpresets import admit, container, env, pod, preset, var, world


def operations(body, *presets):
    decision, _ = admit(body, world(*presets))
    return [op for op in decision.patch if not op["path"].startswith("/metadata")]


def test_an_absent_list_is_added_whole():
    assert operations(pod(), preset(env=env(A="1", B="2"))) == [
        {"op": "add", "path": "/spec/containers/0/env", "value": env(A="1", B="2")}
    ]


def test_items_are_put_before_those_of_a_list_one_by_one():
    before = pod(container(env=env(X="0"), envFrom=[{"secretRef": {"name": "s"}}]))
    one = preset(env=env(A="1", B="2"), envFrom=[{"configMapRef": {"name": "c"}}])
    assert operations(before, one) == [
        {"op": "add", "path": "/spec/containers/0/env/0", "value": {"name": "A", "value": "1"}},
        {"op": "add", "path": "/spec/containers/0/env/1", "value": {"name": "B", "value": "2"}},
        {"op": "add", "path": "/spec/containers/0/envFrom/0", "value": {"configMapRef": {"name": "c"}}},
    ]


def test_volumes_and_mounts_are_put_behind_those_of_a_list():
    before = pod(container(volumeMounts=[{"name": "w", "mountPath": "/w"}]), volumes=[{"name": "w", "emptyDir": {}}])
    one = preset(volumes=[{"name": "v", "emptyDir": {}}], volumeMounts=[{"name": "v", "mountPath": "/v"}])
    assert operations(before, one) == [
        {"op": "add", "path": "/spec/volumes/-", "value": {"name": "v", "emptyDir": {}}},
        {"op": "add", "path": "/spec/containers/0/volumeMounts/-", "value": {"name": "v", "mountPath": "/v"}},
    ]


def test_a_value_is_replaced_after_a_test_of_its_name_and_mirrored_behind_it():
    before = pod(container(env=env(A="1", no_proxy="x", B="2")))
    assert operations(before, preset(env=env(C="3", NO_PROXY="y"))) == [
        {"op": "test", "path": "/spec/containers/0/env/1/name", "value": "no_proxy"},
        {"op": "replace", "path": "/spec/containers/0/env/1/value", "value": "x,y"},
        {"op": "add", "path": "/spec/containers/0/env/2", "value": {"name": "NO_PROXY", "value": "x,y"}},
        {"op": "add", "path": "/spec/containers/0/env/0", "value": {"name": "C", "value": "3"}},
    ]


def test_a_value_that_is_absent_is_added():
    before = pod(container(env=[{"name": "A"}]))
    assert operations(before, preset(env=[var("A", "1", override="force")])) == [
        {"op": "test", "path": "/spec/containers/0/env/0/name", "value": "A"},
        {"op": "add", "path": "/spec/containers/0/env/0/value", "value": "1"},
    ]


def test_an_entry_that_is_right_already_is_not_replaced_with_the_other():
    before = pod(container(env=env(HTTP_PROXY="p", http_proxy="c")))
    assert operations(before, preset(env=[var("HTTP_PROXY", "p", override="force")])) == [
        {"op": "test", "path": "/spec/containers/0/env/1/name", "value": "http_proxy"},
        {"op": "replace", "path": "/spec/containers/0/env/1/value", "value": "p"},
    ]


def test_an_entry_is_replaced_whole_where_a_forced_value_comes_from_elsewhere():
    source = {"secretKeyRef": {"name": "s", "key": "k"}}
    before = pod(container(env=env(http_proxy="x", A="1")))
    one = preset(env=[{"name": "HTTP_PROXY", "valueFrom": source, "metadata": {"override": "force"}}])
    decision, after = admit(before, world(one))
    assert after["spec"]["containers"][0]["env"] == [
        {"name": "http_proxy", "valueFrom": source},
        {"name": "HTTP_PROXY", "valueFrom": source},
        {"name": "A", "value": "1"},
    ]
    assert admit(after, world(one))[0].patch == ()
    assert [op["op"] for op in decision.patch if "containers" in op["path"]] == ["test", "replace", "add"]


def test_positions_hold_when_several_entries_of_one_container_are_edited():
    own = env(no_proxy="x", A="1", HTTP_PROXY="p", B="2", https_proxy="q")
    one = preset(env=env(NO_PROXY="y", http_proxy="r", HTTPS_PROXY="s", C="3", D="4"))
    _, after = admit(pod(container(env=own)), world(one))
    assert [entry["name"] for entry in after["spec"]["containers"][0]["env"]] == [
        *("C", "D"),
        *("no_proxy", "NO_PROXY", "A", "HTTP_PROXY", "http_proxy", "B", "https_proxy", "HTTPS_PROXY"),
    ]


def test_a_pod_with_everything_gets_no_operation():
    where = world(preset(env=env(A="1")))
    _, after = admit(pod(), where)
    assert admit(after, where)[0].patch == ()


def test_shared_values_survive_whatever_is_done_to_a_patched_pod():
    one = preset(
        env=env(A="1"), volumes=[{"name": "v", "emptyDir": {}}], volumeMounts=[{"name": "v", "mountPath": "/v"}]
    )
    where = world(one)
    first = json.dumps(admit(pod(), where)[0].patch)
    _, after = admit(pod(), where)
    after["spec"]["containers"][0]["env"].clear()
    after["spec"]["volumes"].clear()
    assert json.dumps(admit(pod(), where)[0].patch) == first


@pytest.mark.parametrize(("key", "pointer"), [("a/b", "a~1b"), ("a~b", "a~0b"), ("~1", "~01"), ("a", "a")])
def test_a_key_is_escaped_as_a_json_pointer_needs_it(key, pointer):
    assert escaped(key) == pointer
    assert jsonpatch.apply_patch({}, [{"op": "add", "path": f"/{pointer}", "value": 1}]) == {key: 1}
