"""Whatever comes in, an admission review ends as an answer or as a refusal with a reason."""

import json
import re

from hypothesis import example, given
from hypothesis import strategies as st

from services.runtime.admission import AdmissionAnswer, BadReview, decode, encode

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FIELDS = ("uid", "kind", "resource", "subResource", "name", "namespace", "operation", "userInfo", "dryRun", "object")
REQUEST = {
    "uid": "u",
    "kind": {"group": "", "version": "v1", "kind": "Pod"},
    "operation": "CREATE",
    "object": {"metadata": {"name": "a"}},
}
REVIEW = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": REQUEST}
KEY = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")


def outcome(body, content_type="application/json"):
    """What a server would send: an answer's bytes, or status and reason."""
    try:
        request = decode(body, content_type)
    except BadReview as error:
        refusal = error
    else:
        refusal = None
    if refusal is not None:
        assert refusal.status in {400, 415}
        assert refusal.reason
        return None
    assert json.loads(encode(request.uid, AdmissionAnswer()))["response"] == {"uid": request.uid, "allowed": True}
    return request


@given(st.binary(), st.text())
def test_any_bytes_are_an_answer_or_a_refusal(body, content_type):
    outcome(body)
    outcome(body, content_type)


@given(st.data())
def test_a_review_with_some_bytes_changed_is_an_answer_or_a_refusal(data):
    body = bytearray(json.dumps(REVIEW).encode())
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(body) - 1))
        body[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
        if not body:
            break
    outcome(body)


@given(st.dictionaries(st.sampled_from(FIELDS), JSON), JSON)
@example({"uid": "u" * 10_000}, None)
def test_a_request_of_any_shape_is_an_answer_or_a_refusal(request, other):
    outcome(json.dumps({**REVIEW, "request": request}).encode())
    outcome(json.dumps({**REVIEW, "request": {**REQUEST, **request}, "other": other}).encode())
    outcome(json.dumps(other).encode())


@given(JSON)
def test_the_object_under_review_survives_byte_for_byte(value):
    text = json.dumps(value)
    found = outcome(json.dumps({**REVIEW, "request": {"uid": "u", "object": 0}}).replace("0", text, 1).encode())
    assert found is not None
    assert bytes(found.object) == (b"" if value is None else text.encode())


@given(
    st.lists(st.text(max_size=400), max_size=40),
    st.dictionaries(st.text(max_size=80), st.text(max_size=20), max_size=6),
    st.integers(-10, 1000),
    st.booleans(),
)
def test_any_answer_is_within_what_the_api_server_takes(warnings, audit, code, allowed):
    answer = AdmissionAnswer(allowed=allowed, warnings=warnings, audit=audit, code=code, message="m")
    response = json.loads(encode("u", answer))["response"]
    shown = response.get("warnings", [])
    assert sum(map(len, shown)) <= 4096
    for text in shown:
        assert 0 < len(text) <= 256
        assert text.isprintable()
    assert all(KEY.fullmatch(key) for key in response.get("auditAnnotations", {}))
    assert ("status" in response) is not allowed
    if not allowed:
        assert 400 <= response["status"]["code"] < 600
