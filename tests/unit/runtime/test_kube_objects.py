import gc
import json
import tracemalloc

import msgspec
import pytest

from services.runtime.kube.objects import (
    EMPTY,
    KubeObject,
    ListPage,
    ObjectKey,
    ObjectMeta,
    OwnerReference,
    Raw,
    decode,
    decode_event,
    decode_page,
    encode,
    has_finalizer,
    raw,
    same_json,
    version,
    view,
    with_annotations,
    with_current_owner,
    with_finalizer,
    with_labels,
    with_owner,
    with_spec,
    with_status,
    without_finalizers,
)

OWNER = OwnerReference("v1", "Pod", "web", "uid-1", controller=True)
OTHER = OwnerReference("v1", "Pod", "web-2", "uid-2")


class ConfigMap(KubeObject, frozen=True, kw_only=True):
    data: Raw = EMPTY


class Spec(msgspec.Struct, frozen=True, omit_defaults=True):
    replicas: int = 0
    image: str = ""


def made(name="a", namespace="ns", **meta):
    return KubeObject(apiVersion="v1", kind="Thing", metadata=ObjectMeta(name=name, namespace=namespace, **meta))


@pytest.mark.parametrize(
    ("key", "text"), [(ObjectKey("ns", "a"), "ns/a"), (ObjectKey("", "a"), "a")], ids=["namespaced", "cluster-scoped"]
)
def test_a_key_reads_as_kubectl_shows_it(key, text):
    assert str(key) == text


def test_what_the_type_does_not_know_in_spec_and_status_survives_decoding_and_encoding():
    sent = {
        "apiVersion": "v1",
        "kind": "Thing",
        "metadata": {"name": "a", "finalizers": ["x"], "labels": {"k": "v"}},
        "spec": {"unknown": [1, {"deep": None}], "text": "ü"},
        "status": {"also": 1.5},
    }
    assert json.loads(encode(decode(json.dumps(sent).encode(), KubeObject))) == sent


def test_managed_fields_are_left_out_of_what_is_sent_back():
    body = b'{"metadata":{"name":"a","managedFields":[{"manager":"x"}]}}'
    assert json.loads(encode(decode(body, KubeObject))) == {"metadata": {"name": "a"}}


def test_absent_fields_stay_absent_and_other_top_level_fields_need_a_type_that_names_them():
    body = b'{"metadata":{"name":"a"},"data":{"k":"v"}}'
    assert encode(decode(body, KubeObject)) == b'{"metadata":{"name":"a"}}'
    assert encode(decode(body, ConfigMap)) == body


def test_a_decoded_object_does_not_keep_its_response_alive():
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        page = b'{"items":[{"metadata":{"name":"a"},"spec":{"k":1}},{"metadata":{"name":"b"},"spec":"%s"}]}'
        kept = decode_page(page % (b"x" * 4_000_000), KubeObject).items[0]
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] - before < 1_000_000
    finally:
        tracemalloc.stop()
    assert view(kept.spec, dict) == {"k": 1}


def test_what_repeats_across_objects_is_held_once():
    body = (
        b'{"kind":"Thing","metadata":{"name":"%s","namespace":"a-namespace","labels":{"cluster":"c1"},"finalizers":["f/g"],'
        b'"creationTimestamp":"2026-01-02T03:04:05Z",'
        b'"ownerReferences":[{"apiVersion":"v1","kind":"Pool","name":"p","uid":"u"}]}}'
    )
    one, two = (decode(body % name, KubeObject).metadata for name in (b"one", b"two"))
    for field in ("namespace", "labels", "finalizers", "creationTimestamp"):
        assert getattr(one, field) is getattr(two, field), field
    assert one.ownerReferences[0] is two.ownerReferences[0]


def test_more_unique_owners_than_are_remembered_do_no_harm():
    body = '{"metadata":{"name":"a","ownerReferences":[{"apiVersion":"v1","kind":"Claim","name":"c","uid":"u%d"}]}}'
    decoded = [decode((body % number).encode(), KubeObject) for number in range(9000)]
    assert [obj.metadata.ownerReferences[0].uid for obj in decoded] == [f"u{number}" for number in range(9000)]


def test_a_page_without_items_is_an_empty_page():
    page = decode_page(b'{"metadata":{"resourceVersion":"7","continue":"c"},"items":null}', KubeObject)
    assert page == ListPage(page.metadata, None)
    assert (page.metadata.resourceVersion, page.metadata.continue_) == ("7", "c")


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"metadata":{"labels":{"a":1}}}'])
def test_what_is_not_an_object_is_refused(body):
    with pytest.raises(msgspec.DecodeError):
        decode(body, KubeObject)


def nested(levels):
    return '{"a":' * levels + '"{[1"' + "}" * levels


def test_an_object_that_is_nested_too_deeply_to_be_read_is_read_without_what_is_too_deep():
    text = f'{{"metadata":{{"name":"deep"}},"spec":{{"before":[1],"x":{nested(9_000)},"after":2}}}}'
    event = decode_event(f'{{"type":"ADDED","object":{text}}}'.encode())
    listed = decode_page(f'{{"items":[{text},{{"metadata":{{"name":"next"}}}}]}}'.encode(), KubeObject)
    for obj in (decode(text.encode(), KubeObject), decode(event.object, KubeObject), listed.items[0]):
        spec = view(obj.spec, dict)
        assert (obj.metadata.name, spec["before"], spec["after"]) == ("deep", [1], 2)
        assert isinstance(spec["x"]["a"]["a"]["a"], dict)
        assert same_json(obj.spec, raw(spec))
    assert listed.items[1].metadata.name == "next"


def test_an_object_that_is_deep_but_not_too_deep_stays_as_it_is():
    text = f'{{"metadata":{{"name":"deep"}},"spec":{nested(200)}}}'
    assert bytes(decode(text.encode(), KubeObject).spec).decode() == nested(200)


@pytest.mark.parametrize("text", [b"[" * 100_000, b'{"a":' * 100_000, b'{"metadata":{"name":"' + b"[" * 100_000])
def test_what_is_deep_and_cut_off_is_refused_like_anything_that_is_no_object(text):
    with pytest.raises(msgspec.DecodeError):
        decode(text, KubeObject)


@pytest.mark.parametrize(
    ("field", "result"),
    [
        (EMPTY, Spec()),
        (Raw(b""), Spec()),
        (Raw(b"null"), Spec()),
        (Raw(b"{}"), Spec()),
        (Raw(b'{"replicas":2,"unknown":1}'), Spec(2)),
        (raw(Spec(3, "i")), Spec(3, "i")),
        (raw({"image": "i"}), Spec(0, "i")),
    ],
    ids=["absent", "empty", "null", "no fields", "unknown field", "struct", "dict"],
)
def test_a_raw_field_is_read_as_a_type(field, result):
    assert view(field, Spec) == result


def test_a_raw_field_that_does_not_fit_its_type_is_refused():
    with pytest.raises(msgspec.ValidationError):
        view(Raw(b'{"replicas":"two"}'), Spec)


FULL = made(labels={"l": "1", "m": "2"}, annotations={"a": "1"}, finalizers=("f", "g"), ownerReferences=(OWNER,))
FULL = msgspec.structs.replace(FULL, spec=Raw(b'{"replicas": 2, "image": "i"}'), status=Raw(b'{"ready":true}'))


@pytest.mark.parametrize(
    "change",
    [
        lambda obj: with_finalizer(obj, "f"),
        lambda obj: without_finalizers(obj, {"x", "y"}),
        lambda obj: with_owner(obj, OWNER),
        lambda obj: with_current_owner(obj, msgspec.structs.replace(OWNER, controller=None, blockOwnerDeletion=True)),
        lambda obj: with_labels(obj, {"l": "1", "absent": None}),
        lambda obj: with_labels(obj, {}),
        lambda obj: with_annotations(obj, {"a": "1"}),
        lambda obj: with_spec(obj, Spec(2, "i")),
        lambda obj: with_spec(obj, {"image": "i", "replicas": 2}),
        lambda obj: with_status(obj, Raw(b'{ "ready": true }')),
    ],
    ids=lambda change: None,
)
def test_a_helper_with_nothing_to_change_returns_the_object_itself(change):
    assert change(FULL) is FULL


@pytest.mark.parametrize(
    ("change", "field", "value"),
    [
        (lambda obj: with_finalizer(obj, "h"), "finalizers", ("f", "g", "h")),
        (lambda obj: without_finalizers(obj, {"f", "x"}), "finalizers", ("g",)),
        (lambda obj: with_owner(obj, OTHER), "ownerReferences", (OWNER, OTHER)),
        (
            lambda obj: with_owner(obj, msgspec.structs.replace(OWNER, controller=None)),
            "ownerReferences",
            (OwnerReference("v1", "Pod", "web", "uid-1"),),
        ),
        (
            lambda obj: with_current_owner(obj, OwnerReference("apps/v1", "Pod", "web", "uid-1")),
            "ownerReferences",
            (msgspec.structs.replace(OWNER, apiVersion="apps/v1"),),
        ),
        (
            lambda obj: with_current_owner(obj, msgspec.structs.replace(OTHER, controller=True)),
            "ownerReferences",
            (OWNER, msgspec.structs.replace(OTHER, controller=False)),
        ),
        (lambda obj: with_labels(obj, {"l": "9", "n": "3"}), "labels", {"l": "9", "m": "2", "n": "3"}),
        (lambda obj: with_labels(obj, {"l": None, "m": None}), "labels", None),
        (lambda obj: with_annotations(obj, {"a": None, "b": "2"}), "annotations", {"b": "2"}),
    ],
)
def test_a_helper_changes_one_field_of_a_copy(change, field, value):
    before = encode(FULL)
    changed = change(FULL)
    assert getattr(changed.metadata, field) == value
    assert msgspec.structs.replace(changed.metadata, **{field: getattr(FULL.metadata, field)}) == FULL.metadata
    assert encode(FULL) == before


def test_spec_and_status_are_set_from_structs_dicts_and_raw():
    obj = with_status(with_spec(made(), Spec(1)), {"ready": False})
    assert json.loads(encode(obj))["spec"] == {"replicas": 1}
    assert json.loads(encode(obj))["status"] == {"ready": False}
    assert "spec" not in json.loads(encode(with_spec(obj, Raw(b""))))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (b'{"a":1,"b":2}', b'{"b": 2, "a": 1}', True),
        (b'{"a":1}', b'{"a":2}', False),
        (b"", b"", True),
        (b"", b"{}", False),
        (b"", b"null", False),
        (b"null", b"{}", False),
        (b"[1,2]", b"[2,1]", False),
    ],
)
def test_raw_fields_are_compared_by_what_they_say(one, other, same):
    assert same_json(Raw(one), Raw(other)) is same
    assert same_json(Raw(other), Raw(one)) is same


@pytest.mark.parametrize(
    ("meta", "deleting", "finalized"),
    [
        ({}, False, False),
        ({"deletionTimestamp": "t"}, True, True),
        ({"deletionTimestamp": "t", "deletionGracePeriodSeconds": 0}, True, True),
        ({"deletionTimestamp": "t", "deletionGracePeriodSeconds": 30}, True, False),
        ({"deletionTimestamp": "t", "deletionGracePeriodSeconds": 0, "finalizers": ("f",)}, True, False),
    ],
)
def test_an_object_knows_how_far_its_deletion_is(meta, deleting, finalized):
    assert (made(**meta).deleting, made(**meta).finalized) == (deleting, finalized)


def test_has_finalizer_looks_for_the_whole_word():
    assert has_finalizer(FULL, "f")
    assert not has_finalizer(made(finalizers=("foo",)), "f")


@pytest.mark.parametrize(("text", "number"), [("17", 17), ("", 0), ("abc", 0), ("-1", 0), ("1.5", 0)])
def test_a_resource_version_is_a_number_or_zero(text, number):
    assert version(text) == number
