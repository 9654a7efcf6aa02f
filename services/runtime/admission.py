"""AdmissionReview v1 as values: bytes to a request, an answer to bytes. No server, no clock.

Responsible for: what the API server may send and what it accepts (Kubernetes, "Dynamic Admission Control"; k8s.io/api
admission/v1). The object under review stays raw JSON, so fields that this code does not know survive.

Invariants: `decode` gives a request or raises `BadReview`, whatever the bytes. `encode` gives a review that the API
server takes, whatever an answer's warnings and audit keys look like: they are cut and cleaned here, because one that is
refused would cost the whole answer. No text in it is longer than `TEXT_CHARACTERS`. A patch and its type come together
or not at all.

Must not know: HTTP servers, what a handler decides.
"""
# ruff: noqa: N815 - the fields carry their wire names, as those of services.runtime.kube.objects

from __future__ import annotations

import base64
import re
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import force_setattr

__all__ = [
    "AdmissionAnswer",
    "AdmissionRequest",
    "BadReview",
    "Kind",
    "Resource",
    "UserInfo",
    "decode",
    "encode",
]

API_VERSION: Final = "admission.k8s.io/v1"
KIND: Final = "AdmissionReview"
CONTENT_TYPE: Final = "application/json"

WARNING_CHARACTERS: Final = 256
"""Of one warning; the API server cuts what is longer (apiserver, pkg/endpoints/filters/warning.go)."""
WARNINGS_CHARACTERS: Final = 4096
"""Of all warnings of one answer; the API server drops the rest without a word."""

TEXT_CHARACTERS: Final = 16384
"""Of an audit annotation and of the message of a refusal; nobody limits them, and a log keeps every one."""

_AUDIT_KEY_CHARACTERS: Final = 63
_AUDIT_KEY_BAD: Final = re.compile(r"[^A-Za-z0-9_.-]+")
_EMPTY: Final = Raw()
_DENIED: Final = 403
_FAILED: Final = 500
_CODES: Final = range(400, 600)


class BadReview(Exception):  # noqa: N818 - a verdict on the input, as the reasons in kube.errors
    """The request is no review; `status` is the HTTP code to answer with, `reason` a line for whoever sent it."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"{status}: {reason}")
        self.status = status
        self.reason = reason


class Kind(Struct, frozen=True, gc=False):
    """meta/v1 GroupVersionKind."""

    group: str = ""
    version: str = ""
    kind: str = ""


class Resource(Struct, frozen=True, gc=False):
    """meta/v1 GroupVersionResource."""

    group: str = ""
    version: str = ""
    resource: str = ""


class UserInfo(Struct, frozen=True, gc=False):
    """authentication/v1 UserInfo; who sends the request that is reviewed."""

    username: str = ""


class AdmissionRequest(Struct, frozen=True, kw_only=True, gc=False):
    """admission/v1 AdmissionRequest. `object` and `oldObject` are raw JSON, empty where the operation has none.

    `name` is empty while the server has yet to generate it. `namespace` is that of the request: an object under review
    may lack its own. The raw fields point into the body that was decoded.
    """

    uid: str
    kind: Kind = Kind()
    resource: Resource = Resource()
    subResource: str = ""
    name: str = ""
    namespace: str = ""
    operation: str = ""
    userInfo: UserInfo = UserInfo()
    dryRun: bool = False
    object: Raw = _EMPTY
    oldObject: Raw = _EMPTY


class AdmissionAnswer(Struct, frozen=True, gc=False):
    """What a handler decides.

    `patch` is a list of RFC 6902 operations whose values may be `Raw`; none and an empty list mean the same. A refusal
    (`allowed` false) never carries one. `warnings` are shown to the user by kubectl, without a prefix. `audit` becomes
    audit annotations. `code` (400 to 599, else 403) and `message` explain a refusal.
    """

    allowed: bool = True
    patch: list[dict[str, Any]] | None = None
    warnings: tuple[str, ...] | list[str] = ()
    audit: dict[str, str] = {}
    code: int = 0
    message: str = ""

    @classmethod
    def failure(cls, message: str, *, allowed: bool) -> AdmissionAnswer:
        """Return the answer of a handler that failed: untouched with a warning, or refused with code 500."""
        if allowed:
            return cls(warnings=(message,))
        return cls(allowed=False, code=_FAILED, message=message)


class _Review(Struct, frozen=True, gc=False):
    apiVersion: str = ""
    kind: str = ""
    request: AdmissionRequest | None = None


class _Status(Struct, frozen=True, gc=False):
    code: int
    message: str


class _Response(Struct, frozen=True, omit_defaults=True, gc=False):
    uid: str
    allowed: bool
    status: _Status | None = None
    patchType: str = ""
    patch: str = ""
    warnings: list[str] = []
    auditAnnotations: dict[str, str] = {}


class _Answer(Struct, frozen=True, gc=False):
    response: _Response
    apiVersion: str = API_VERSION
    kind: str = KIND


_decode_review: Final = msgspec.json.Decoder(_Review).decode
_encode: Final = msgspec.json.Encoder().encode


def decode(body: bytes | bytearray | memoryview, content_type: str = CONTENT_TYPE) -> AdmissionRequest:
    """Return the request of a review. `content_type` is the header's value, parameters included.

    Raises `BadReview`: 415 for another content type, 400 for anything that is no AdmissionReview v1 with a request and
    its uid.
    """
    if content_type.partition(";")[0].strip().lower() != CONTENT_TYPE:
        raise BadReview(415, f"content type {CONTENT_TYPE} expected")
    if not body:
        raise BadReview(400, "the body is empty")
    try:
        review = _decode_review(body)
    except msgspec.ValidationError as error:
        raise BadReview(400, f"no {KIND}: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadReview(400, f"no JSON: {error}") from error
    except RecursionError as error:
        raise BadReview(400, "no JSON: nested too deeply") from error
    if review.kind != KIND:
        raise BadReview(400, f"kind {KIND} expected")
    if review.apiVersion != API_VERSION:
        raise BadReview(400, f"apiVersion {API_VERSION} expected")
    request = review.request
    if request is None:
        raise BadReview(400, "the review has no request")
    if not request.uid:
        raise BadReview(400, "the request has no uid")
    for field in ("object", "oldObject"):
        if bytes(getattr(request, field)) == b"null":
            force_setattr(request, field, _EMPTY)  # legal on a frozen value: nobody else knows it yet
    return request


def encode(uid: str, answer: AdmissionAnswer) -> bytes:
    """Return the review that answers request `uid`, as JSON.

    Raises what msgspec raises (TypeError, ValueError) for a patch that is no JSON.
    """
    patch = base64.b64encode(_encode(answer.patch)).decode() if answer.patch and answer.allowed else ""
    return _encode(
        _Answer(
            _Response(
                uid=uid,
                allowed=answer.allowed,
                status=None if answer.allowed else _status(answer),
                patchType="JSONPatch" if patch else "",
                patch=patch,
                warnings=fit_warnings(answer.warnings) if answer.warnings else [],
                auditAnnotations=_fit_audit(answer.audit) if answer.audit else {},
            )
        )
    )


def _status(answer: AdmissionAnswer) -> _Status:
    return _Status(
        code=answer.code if answer.code in _CODES else _DENIED, message=_cut(answer.message, TEXT_CHARACTERS)
    )


def fit_warnings(warnings: tuple[str, ...] | list[str]) -> list[str]:
    """Return the warnings as the API server passes them on: printable, and within both limits.

    What does not fit is counted in a last one: "... and 3 more".
    """
    cleaned = [text for text in map(_fit_warning, warnings) if text]
    if sum(map(len, cleaned)) <= WARNINGS_CHARACTERS:
        return cleaned
    room = WARNINGS_CHARACTERS - len(f"... and {len(cleaned)} more")
    kept = 0
    for text in cleaned:
        room -= len(text)
        if room < 0:
            break
        kept += 1
    return [*cleaned[:kept], f"... and {len(cleaned) - kept} more"]


def _fit_warning(text: str) -> str:
    """One line without control characters, which an HTTP header cannot carry, and without the prefix clients add."""
    # Each character is looked at, which takes seconds for what is to be cut to a line anyway.
    start = text[: 4 * WARNING_CHARACTERS]
    line = " ".join("".join(mark if mark.isprintable() else " " for mark in start).split())
    line = line.removeprefix("Warning:").lstrip()
    return _cut(line, WARNING_CHARACTERS)


def _fit_audit(audit: dict[str, str]) -> dict[str, str]:
    """Give the annotations keys that are valid after `<webhook name>/`; one without any valid character is dropped."""
    fitted = {}
    for key, value in audit.items():
        name = _AUDIT_KEY_BAD.sub("-", key).strip("-_.")[:_AUDIT_KEY_CHARACTERS].rstrip("-_.")
        if name:
            fitted[name] = _cut(value, TEXT_CHARACTERS)
    return fitted


def _cut(text: str, length: int) -> str:
    """Return a text, ending in dots where it is too long."""
    return text if len(text) <= length else f"{text[: length - 3]}..."
