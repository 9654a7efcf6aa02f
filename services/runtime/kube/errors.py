"""What can go wrong with a call to the API server, as types: mapped once, where the response is read.

Responsible for: turning an HTTP status and a meta/v1 Status body into one exception type that callers can match on.
Invariant: an ApiError means that the server answered, so the outcome is known; a ConnectionFailed means that it is not
known whether a write was carried out. Messages are cut, since an object in them may hold something secret.
Must not know: who asked, or whether it is worth another try.
"""
# ruff: noqa: N818 - the names are the reasons of meta/v1 Status, which readers know

from __future__ import annotations

from typing import Any

import msgspec

MESSAGE_LIMIT = 512
RETRY_AFTER_LIMIT = 120.0
"""Seconds, at most, that an answer may ask to wait: a proxy in maintenance names hours, and is back in minutes."""


class KubeError(Exception):
    """Base of everything a Client raises."""


class ConfigError(KubeError):
    """No usable kubeconfig or in-cluster configuration; the message says what was tried."""


class NotLeader(KubeError):
    """A write was refused before it was sent, because this process may no longer be the leader."""


class ConnectionFailed(KubeError):
    """The network failed: the request may or may not have been carried out."""


class RequestTimeout(ConnectionFailed):
    """No answer in time: the request may or may not have been carried out."""


class Unreadable(ConnectionFailed):
    """What answered is no API server, such as a proxy with a page of its own: the request may have been carried out."""


class ApiError(KubeError):
    """The server answered with an error.

    `status` is the HTTP code, `reason` the machine-readable word of the Status body ("" when there was none),
    `retry_after` seconds the server asks to wait, RETRY_AFTER_LIMIT at most, `details` the Status body's details
    (causes, kind, name).
    """

    def __init__(
        self,
        status: int,
        reason: str = "",
        message: str = "",
        retry_after: float | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        self.status = status
        self.reason = reason
        self.message = message if len(message) <= MESSAGE_LIMIT else message[: MESSAGE_LIMIT - 3] + "..."
        self.retry_after = retry_after
        self.details = details or {}
        super().__init__(f"{status} {reason}: {self.message}" if reason else f"{status}: {self.message}")

    def has_cause(self, reason: str) -> bool:
        """Whether the details name `reason` among their causes."""
        causes = self.details.get("causes") or ()
        return any(isinstance(cause, dict) and cause.get("reason") == reason for cause in causes)


class BadRequest(ApiError):
    """400: the request itself is malformed; repeating it is pointless."""


class Unauthorized(ApiError):
    """401: the credentials were refused, fresh ones too."""


class Forbidden(ApiError):
    """403: RBAC, an admission plugin or a quota refuses."""

    @property
    def namespace_terminating(self) -> bool:
        """Whether the reason is that the namespace is being deleted, so that nothing can be created in it any more."""
        return self.has_cause("NamespaceTerminating")


class NotFound(ApiError):
    """404: the object, or the whole resource, does not exist."""

    def is_of(self, name: str) -> bool:
        """Whether it is the object of that name that does not exist.

        If it is the resource, that says nothing of its objects: a definition may be served again with all of them.
        """
        return bool(self.details.get("name") == name)


class MethodNotAllowed(ApiError):
    """405: the resource does not offer this verb."""


class AlreadyExists(ApiError):
    """409 with reason AlreadyExists: the name is taken."""


class Conflict(ApiError):
    """409 otherwise: the resourceVersion, the uid or the owner of a field is not the one the request expected."""


class Gone(ApiError):
    """410: the resourceVersion or continue token is older than what the server still remembers."""


class Invalid(ApiError):
    """422: the object does not pass validation."""


class TooManyRequests(ApiError):
    """429: the server sheds load; `retry_after` says how long to wait."""


class ServerError(ApiError):
    """5xx: the server or something in front of it failed; a write may have been carried out all the same.

    Redirects too, which an API server does not send for its objects: to the login page of what stands in front of it.
    """


_BY_STATUS: dict[int, type[ApiError]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    405: MethodNotAllowed,
    409: Conflict,
    410: Gone,
    422: Invalid,
    429: TooManyRequests,
}


class _Status(msgspec.Struct):
    """meta/v1 Status; the error rows of a watch are one too."""

    reason: str | None = None
    message: str | None = None
    code: int | None = None
    details: dict[str, Any] | None = None


_decoder = msgspec.json.Decoder(_Status)


def from_status(http_status: int, body: bytes | msgspec.Raw, retry_after: str | None = None) -> ApiError:
    """Map an answer to its exception; `retry_after` is the header's value, seconds.

    `http_status` 0 takes the code from the body (an error row of a watch, which comes with HTTP 200). A body that is
    not a Status (a proxy's page) becomes the message.
    """
    try:
        status = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        status = _Status(message=bytes(body)[: MESSAGE_LIMIT * 4].decode("utf-8", "replace").strip())
    code = http_status or status.code or 500
    reason = status.reason or ""
    wait = _seconds(retry_after)
    if wait is None and status.details:
        wait = _seconds(status.details.get("retryAfterSeconds"))
    return _type(code, reason)(code, reason, status.message or "", wait, status.details)


def _type(code: int, reason: str) -> type[ApiError]:
    if reason == "AlreadyExists":
        return AlreadyExists
    if reason == "Expired":
        return Gone
    if code >= 500 or code < 400:  # noqa: PLR2004 - the classes of HTTP codes
        return ServerError
    return _BY_STATUS.get(code, ApiError)


def _seconds(value: object) -> float | None:
    """Seconds of a Retry-After, cut; dates are not used by the API server and count as absent, zero as well."""
    try:
        seconds = float(value) if isinstance(value, str | int | float) else 0.0
    except ValueError:
        return None
    return min(seconds, RETRY_AFTER_LIMIT) if 0 < seconds < float("inf") else None
