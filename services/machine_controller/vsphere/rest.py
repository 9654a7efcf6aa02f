"""vCenter's REST endpoint (vAPI): a session of its own, requests in JSON, errors as ours.

Responsible for: signing in and out, one repetition after vCenter forgot the session, and the mapping of errors.
Invariants: the certificate is verified as for SOAP, before anything is sent; every request has a deadline; proxy
settings of the environment are never looked at; messages hold no credential.
Must not know: what is asked for. Reference: vSphere Automation API, com.vmware.cis.session and vapi.std.errors.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import msgspec

from services.machine_controller.vsphere.credentials import Trust, sha256_thumbprint
from services.machine_controller.vsphere.errors import (
    AuthenticationFailed,
    CertificateMismatch,
    DeadlineExceeded,
    DuplicateName,
    NotFound,
    PermissionDenied,
    TaskFailed,
    Unreachable,
    VSphereError,
)
from services.runtime.kube.connector import Connector

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

    from services.machine_controller.vsphere.access import Access

SECONDS: Final = 30.0
_CONNECTIONS: Final = 4
_SIGN_OUT_SECONDS: Final = 5.0
_SESSION: Final = "/rest/com/vmware/cis/session"
_HEADER: Final = "vmware-api-session-id"
_UNAUTHENTICATED: Final = 401
_FORBIDDEN: Final = 403
_NOT_FOUND: Final = 404
_REFUSED: Final = 400
_FAILED: Final = 500


class _Value(msgspec.Struct):
    """The envelope of every answer."""

    value: Any = None
    type: str = ""


class _Pin(aiohttp.Fingerprint):
    """aiohttp's hook that runs after the handshake and before the request, for both kinds of thumbprint."""

    def __init__(self, trust: Trust, server: str) -> None:
        super().__init__(b"\0" * 32)  # the base class insists on a SHA-256, which it is not asked to compare
        self._trust = trust
        self._server = server

    def check(self, transport: asyncio.Transport) -> None:
        """Raise CertificateMismatch unless the peer's certificate has the thumbprint."""
        peer: ssl.SSLObject = transport.get_extra_info("ssl_object")
        certificate = peer.getpeercert(binary_form=True) or b""
        if not self._trust.matches(certificate):
            raise aiohttp.ServerFingerprintMismatch(b"", certificate, self._server, 0)


class Rest:
    """Requests to the REST endpoint of one server as one identity. Bound to the running event loop."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._server = str(access.server)
        self._http: aiohttp.ClientSession | None = None
        self._token = ""
        self._signing_in = asyncio.Lock()
        self._connecting = asyncio.Lock()
        self._closed = False
        self._closing: set[asyncio.Task[None]] = set()
        access.on_replaced(self._replaced)

    async def get(self, path: str) -> Any:
        """Return the value at a path below /rest."""
        return await self._call("GET", path)

    async def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Send a body and return the value of the answer."""
        return await self._call("POST", path, body)

    async def patch(self, path: str, body: Mapping[str, Any]) -> Any:
        """Change what is at a path."""
        return await self._call("PATCH", path, body)

    async def delete(self, path: str) -> None:
        """Delete what is at a path."""
        await self._call("DELETE", path)

    async def aclose(self) -> None:
        """Sign out and close the connections."""
        self._closed = True
        if self._http is not None:
            http, token, self._http, self._token = self._http, self._token, None, ""
            await self._end(http, token)
        if self._closing:
            await asyncio.wait(self._closing)

    async def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        token = await self._signed_in("")
        status, answer = await self._send(method, path, body, token)
        if status == _UNAUTHENTICATED:
            status, answer = await self._send(method, path, body, await self._signed_in(token))
        if status >= _REFUSED:
            raise _error(status, answer, method, path, self._server)
        return answer.value

    async def _signed_in(self, stale: str) -> str:
        """Return a session's token; a fresh one when the present one is `stale`."""
        async with self._signing_in:
            if self._token and self._token != stale:
                return self._token
            self._token = ""
            self._access.check()
            credentials = self._access.credentials
            basic = base64.b64encode(f"{credentials.username}:{credentials.password}".encode()).decode()
            status, answer = await self._exchange("POST", _SESSION, None, {"Authorization": f"Basic {basic}"})
            if status == _UNAUTHENTICATED:
                refusal = AuthenticationFailed(self._server, credentials.username)
                self._access.refused(credentials, refusal)
                raise refusal
            if status >= _REFUSED or not isinstance(answer.value, str):
                raise _error(status, answer, "POST", _SESSION, self._server)
            self._access.accepted()
            self._token = answer.value
            return self._token

    async def _send(self, method: str, path: str, body: Mapping[str, Any] | None, token: str) -> tuple[int, _Value]:
        return await self._exchange(method, f"/rest{path}", body, {_HEADER: token})

    async def _exchange(
        self, method: str, path: str, body: Mapping[str, Any] | None, headers: Mapping[str, str]
    ) -> tuple[int, _Value]:
        if self._closed:
            raise Unreachable(self._server, "the connection is closed")
        http = await self._connected()
        data = msgspec.json.encode(body) if body is not None else None
        sent = {**headers, "Content-Type": "application/json", "Accept": "application/json"}
        url = f"https://{self._host()}{path}"
        try:
            async with http.request(method, url, data=data, headers=sent, allow_redirects=False) as response:
                content = await response.read()
                return response.status, _decoded(content)
        except aiohttp.ServerFingerprintMismatch as error:
            shown = sha256_thumbprint(error.got)
            message = f"its thumbprint is {shown}, not the configured one"
            raise CertificateMismatch(self._server, message, shown) from None
        except aiohttp.ClientConnectorCertificateError as error:
            reason = getattr(error.certificate_error, "verify_message", "") or "verification failed"
            raise CertificateMismatch(self._server, reason) from None
        except TimeoutError:
            raise DeadlineExceeded(self._server, f"{method} {path.partition('?')[0]}", SECONDS) from None
        except aiohttp.ClientError as error:
            refused = isinstance(error, aiohttp.ClientConnectorError)
            raise Unreachable(self._server, str(error) or type(error).__name__, outcome_unknown=not refused) from None

    def _host(self) -> str:
        server = self._access.server
        host = f"[{server.host}]" if ":" in server.host else server.host
        return f"{host}:{server.port}"

    async def _connected(self) -> aiohttp.ClientSession:
        async with self._connecting:
            while self._http is None:
                trust = self._access.trust
                if trust.thumbprint:
                    verification: ssl.SSLContext | aiohttp.Fingerprint = _Pin(trust, self._server)
                else:
                    verification = await asyncio.to_thread(self._access.context, trust)
                if self._closed:  # meanwhile: nobody would close what is made now
                    raise Unreachable(self._server, "the connection is closed")
                if trust == self._access.trust:  # else it was replaced meanwhile
                    self._http = _client(verification)
            return self._http

    def _replaced(self) -> None:
        if self._http is not None:
            http, token, self._http, self._token = self._http, self._token, None, ""
            task = asyncio.create_task(self._end(http, token))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def _end(self, http: aiohttp.ClientSession, token: str) -> None:
        try:
            if token:
                limit = aiohttp.ClientTimeout(total=_SIGN_OUT_SECONDS)
                url = f"https://{self._host()}{_SESSION}"
                # Best effort: a session that cannot be ended expires.
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    async with http.delete(url, headers={_HEADER: token}, timeout=limit) as response:
                        await response.read()
        finally:
            await http.close()


def _client(verification: ssl.SSLContext | aiohttp.Fingerprint) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=Connector(ssl=verification, limit=_CONNECTIONS),
        timeout=aiohttp.ClientTimeout(total=SECONDS),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
    )


def _decoded(content: bytes) -> _Value:
    try:
        return msgspec.json.decode(content, type=_Value) if content else _Value()
    except msgspec.DecodeError:
        return _Value()


def _error(status: int, answer: _Value, method: str, path: str, server: str) -> VSphereError:
    kind = answer.type.rpartition(".")[2]
    message = _message(answer.value)
    what = path.partition("?")[0]
    if status == _UNAUTHENTICATED:
        return Unreachable(server, "it forgets sessions right after signing in")
    if status == _FORBIDDEN or kind == "unauthorized":
        return PermissionDenied("", what, message)
    if status == _NOT_FOUND or kind == "not_found":
        return NotFound("REST object", what.rpartition("/")[2].removeprefix("id:"))
    if kind == "already_exists":
        return DuplicateName(message or what)
    if status >= _FAILED:
        return Unreachable(server, f"HTTP {status} to {method} {what}", outcome_unknown=True)
    return TaskFailed(kind or f"HTTP {status}", message or f"{method} {what}")


def _message(value: Any) -> str:
    """The texts of a vapi.std.errors body."""
    messages = value.get("messages") if isinstance(value, dict) else None
    texts = [m.get("default_message", "") for m in messages or () if isinstance(m, dict)]
    return "; ".join(text for text in texts if text)
