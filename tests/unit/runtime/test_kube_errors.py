import json

import pytest

from services.runtime.kube import errors
from services.runtime.kube.errors import MESSAGE_LIMIT, RETRY_AFTER_LIMIT, from_status


def status(code, reason="", message="m", **details):
    body = {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message}
    return json.dumps(body | ({"details": details} if details else {})).encode()


@pytest.mark.parametrize(
    ("code", "reason", "type_"),
    [
        (400, "BadRequest", errors.BadRequest),
        (401, "Unauthorized", errors.Unauthorized),
        (403, "Forbidden", errors.Forbidden),
        (404, "NotFound", errors.NotFound),
        (405, "MethodNotAllowed", errors.MethodNotAllowed),
        (409, "AlreadyExists", errors.AlreadyExists),
        (409, "Conflict", errors.Conflict),
        (410, "Expired", errors.Gone),
        (410, "Gone", errors.Gone),
        (422, "Invalid", errors.Invalid),
        (429, "TooManyRequests", errors.TooManyRequests),
        (500, "InternalError", errors.ServerError),
        (503, "ServiceUnavailable", errors.ServerError),
        (504, "Timeout", errors.ServerError),
        (418, "", errors.ApiError),
        (302, "", errors.ServerError),
    ],
)
def test_each_answer_has_its_type(code, reason, type_):
    error = from_status(code, status(code, reason))
    assert type(error) is type_
    assert (error.status, error.reason, error.message) == (code, reason, "m")


def test_an_error_row_of_a_watch_carries_its_code_in_the_body():
    error = from_status(0, status(410, "Expired", "too old resource version: 1 (2)"))
    assert type(error) is errors.Gone
    assert error.status == 410


@pytest.mark.parametrize("body", [b"upstream connect error\n", b"", b"[]", b'{"code":"x"}', b"\xff\xfe"])
def test_a_body_that_is_no_status_is_the_message(body):
    error = from_status(503, body)
    assert type(error) is errors.ServerError
    assert error.message == body.decode("utf-8", "replace").strip()


def test_a_long_message_is_cut():
    for error in (from_status(422, status(422, "Invalid", "x" * 10_000)), from_status(502, b"x" * 10_000)):
        assert len(error.message) == MESSAGE_LIMIT
        assert error.message.endswith("...")
        assert len(str(error)) < MESSAGE_LIMIT + 40


@pytest.mark.parametrize(
    ("header", "details", "seconds"),
    [
        ("3", {}, 3.0),
        (None, {"retryAfterSeconds": 7}, 7.0),
        ("2", {"retryAfterSeconds": 7}, 2.0),
        ("3600", {}, RETRY_AFTER_LIMIT),
        (None, {"retryAfterSeconds": 3600}, RETRY_AFTER_LIMIT),
        ("0", {}, None),
        ("-1", {}, None),
        ("inf", {}, None),
        ("Wed, 21 Oct 2026 07:28:00 GMT", {}, None),
        (None, {}, None),
    ],
)
@pytest.mark.parametrize("code", [429, 503])
def test_how_long_the_server_asks_to_wait_is_known(code, header, details, seconds):
    assert from_status(code, status(code, "", **details), header).retry_after == seconds


@pytest.mark.parametrize(
    ("causes", "terminating"),
    [
        ([{"reason": "NamespaceTerminating", "field": "metadata.namespace"}], True),
        ([{"reason": "Other"}, {"reason": "NamespaceTerminating"}], True),
        ([{"reason": "Other"}], False),
        (["odd"], False),
        (None, False),
    ],
)
def test_a_refusal_because_the_namespace_is_going_away_is_told_apart(causes, terminating):
    assert from_status(403, status(403, "Forbidden", causes=causes)).namespace_terminating is terminating


def test_a_timeout_is_a_connection_failure_and_neither_is_an_answer():
    assert issubclass(errors.RequestTimeout, errors.ConnectionFailed)
    assert not issubclass(errors.ConnectionFailed, errors.ApiError)
    assert issubclass(errors.ApiError, errors.KubeError)
    assert issubclass(errors.NotLeader, errors.KubeError)


def test_what_does_not_exist_is_told_apart_from_what_is_not_served():
    gone = from_status(404, status(404, "NotFound", name="one", kind="pools"))
    assert gone.is_of("one")
    assert not gone.is_of("two")
    assert not from_status(404, b"404 page not found\n").is_of("one")
