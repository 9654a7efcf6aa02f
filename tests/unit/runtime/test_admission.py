"""AdmissionReview v1: what is taken, what is refused, and what an answer looks like on the wire."""

import base64
import json

import msgspec
import pytest

from services.runtime import admission
from services.runtime.admission import AdmissionAnswer, BadReview, decode, encode

REVIEW = {
    "apiVersion": "admission.k8s.io/v1",
    "kind": "AdmissionReview",
    "request": {
        "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "subResource": "ephemeralcontainers",
        "requestKind": {"group": "", "version": "v1", "kind": "Pod"},
        "name": "web",
        "namespace": "shop",
        "operation": "UPDATE",
        "userInfo": {"username": "admin", "groups": ["system:masters"], "extra": {"a": ["b"]}},
        "object": {"kind": "Pod", "metadata": {"name": "web"}, "fieldOfTheFuture": [1.50, {"a": None}]},
        "oldObject": {"kind": "Pod"},
        "dryRun": True,
        "options": {"kind": "UpdateOptions"},
    },
}


def review(**changes):
    return json.dumps({**REVIEW, **changes}).encode()


def request(**changes):
    return review(request={**REVIEW["request"], **changes})


def response(answer, uid="u"):
    body = json.loads(encode(uid, answer))
    assert body["apiVersion"] == "admission.k8s.io/v1"
    assert body["kind"] == "AdmissionReview"
    assert set(body) == {"apiVersion", "kind", "response"}
    return body["response"]


def test_a_review_is_read_with_everything_a_handler_needs():
    found = decode(review())
    assert found.uid == REVIEW["request"]["uid"]
    assert (found.kind.kind, found.resource.resource, found.subResource) == ("Pod", "pods", "ephemeralcontainers")
    assert (found.name, found.namespace, found.operation, found.dryRun) == ("web", "shop", "UPDATE", True)
    assert found.userInfo.username == "admin"
    assert bytes(found.object) == json.dumps(REVIEW["request"]["object"]).encode(), "byte for byte"
    assert json.loads(bytes(found.oldObject)) == {"kind": "Pod"}


def test_a_request_may_lack_everything_but_its_uid():
    found = decode(review(request={"uid": "1"}))
    assert (found.name, found.namespace, found.operation, found.dryRun) == ("", "", "", False)
    assert bytes(found.object) == bytes(found.oldObject) == b""


def test_an_object_that_is_null_counts_as_none():
    found = decode(request(object=None, oldObject=None))
    assert bytes(found.object) == bytes(found.oldObject) == b""


@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON", "application/json; charset=utf-8"])
def test_json_is_taken_with_any_parameters(content_type):
    assert decode(review(), content_type).name == "web"


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/yaml", "application/json-patch+json", "; "])
def test_another_content_type_is_415(content_type):
    with pytest.raises(BadReview) as caught:
        decode(review(), content_type)
    assert caught.value.status == 415


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "the body is empty"),
        (b"no", "no JSON: "),
        (review()[:-1], "no JSON: "),
        (review() + b"x", "no JSON: "),
        (b'{"apiVersion": "\xff\xfe"}', "no JSON: "),
        (b"[" * 100_000, "no "),
        (review(request={"uid": "1", "object": "NESTED"}).replace(b'"NESTED"', b"[" * 100_000), "no JSON: nested"),
        (b"[]", "no AdmissionReview: "),
        (b"null", "no AdmissionReview: "),
        (b"{}", "kind AdmissionReview expected"),
        (review(kind="Pod"), "kind AdmissionReview expected"),
        (review(apiVersion="admission.k8s.io/v1beta1"), "apiVersion admission.k8s.io/v1 expected"),
        (
            json.dumps({"apiVersion": REVIEW["apiVersion"], "kind": REVIEW["kind"]}).encode(),
            "the review has no request",
        ),
        (review(request=None), "the review has no request"),
        (review(request={}), "no AdmissionReview: "),
        (request(uid=""), "the request has no uid"),
        (request(uid=7), "no AdmissionReview: "),
        (request(dryRun="yes"), "no AdmissionReview: "),
        (request(kind="Pod"), "no AdmissionReview: "),
    ],
)
def test_what_is_no_review_is_400_and_says_why(body, reason):
    with pytest.raises(BadReview) as caught:
        decode(body)
    assert caught.value.status == 400
    assert caught.value.reason.startswith(reason)


def test_an_answer_that_changes_nothing_is_the_uid_and_allowed():
    assert response(AdmissionAnswer(), uid="some-uid") == {"uid": "some-uid", "allowed": True}


def test_an_empty_patch_is_no_patch():
    assert response(AdmissionAnswer(patch=[])) == {"uid": "u", "allowed": True}


def test_a_patch_comes_as_base64_with_its_type():
    operations = [{"op": "add", "path": "/metadata/labels/a~1b", "value": "ü"}]
    found = response(AdmissionAnswer(patch=operations))
    assert found["patchType"] == "JSONPatch"
    assert json.loads(base64.b64decode(found["patch"])) == operations


def test_a_patch_may_hold_raw_json():
    value = msgspec.Raw(b'{"name":"A","value":"1.50"}')
    found = response(AdmissionAnswer(patch=[{"op": "add", "path": "/a", "value": value}]))
    assert b'"value":{"name":"A","value":"1.50"}' in base64.b64decode(found["patch"])


def test_a_refusal_says_why_and_carries_no_patch():
    found = response(AdmissionAnswer(allowed=False, patch=[{"op": "add"}], code=422, message="no"))
    assert found == {"uid": "u", "allowed": False, "status": {"code": 422, "message": "no"}}


@pytest.mark.parametrize("code", [0, 200, 399, 600])
def test_a_refusal_with_a_code_that_is_no_error_is_403(code):
    assert response(AdmissionAnswer(allowed=False, code=code))["status"]["code"] == 403


def test_a_failure_is_allowed_with_a_warning_or_refused_with_500():
    assert response(AdmissionAnswer.failure("it broke", allowed=True)) == {
        "uid": "u",
        "allowed": True,
        "warnings": ["it broke"],
    }
    assert response(AdmissionAnswer.failure("it broke", allowed=False)) == {
        "uid": "u",
        "allowed": False,
        "status": {"code": 500, "message": "it broke"},
    }


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (["plain"], ["plain"]),
        (["Warning: plain"], ["plain"]),
        (["two\nlines\tand\x00more"], ["two lines and more"]),
        (["", "  ", "\n"], []),
        (["x" * 256], ["x" * 256]),
        (["x" * 257], ["x" * 253 + "..."]),
        (["ü" * 300], ["ü" * 253 + "..."]),
        ([f"{'x' * 9} {' ' * 2**20}"], ["x" * 9]),
        (["x" * 256] * 16, ["x" * 256] * 16),
        (["x" * 256] * 17, [*["x" * 256] * 15, "... and 2 more"]),
        (["x" * 256] * 20, [*["x" * 256] * 15, "... and 5 more"]),
    ],
)
def test_warnings_are_one_line_each_and_within_the_limits(given, shown):
    assert response(AdmissionAnswer(warnings=given)).get("warnings", []) == shown
    assert sum(map(len, shown)) <= admission.WARNINGS_CHARACTERS


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("applied", "applied"),
        ("applied.presets_2-3", "applied.presets_2-3"),
        ("team/preset", "team-preset"),
        ("-preset-", "preset"),
        ("a" * 80, "a" * 63),
        ("a" * 62 + "..." + "b", "a" * 62),
        ("préset", "pr-set"),
    ],
)
def test_audit_keys_are_made_valid(key, name):
    assert response(AdmissionAnswer(audit={key: "value"}))["auditAnnotations"] == {name: "value"}


def test_an_audit_key_without_any_valid_character_is_dropped():
    assert "auditAnnotations" not in response(AdmissionAnswer(audit={"//": "value"}))


def test_no_text_of_an_answer_is_longer_than_people_and_logs_can_take():
    long = "x" * 2**20
    refused = response(AdmissionAnswer(allowed=False, audit={"conflicts": long}, message=long, warnings=[long]))
    for text in (refused["auditAnnotations"]["conflicts"], refused["status"]["message"]):
        assert len(text) == admission.TEXT_CHARACTERS
        assert text.endswith("x...")
    assert len(refused["warnings"][0]) == admission.WARNING_CHARACTERS
