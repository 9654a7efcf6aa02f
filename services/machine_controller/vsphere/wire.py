"""pyVmomi's SOAP stub over connections of our own: pyVmomi writes and reads the XML, the rest is done here.

Responsible for: TCP and TLS to vCenter, the check of its certificate before the first byte of a request, idle
connections, and counting the calls.
Invariants: each connection is opened and used under the current `Call`, so a deadline ends it. With a thumbprint the
certificate is compared on every connection, whether or not an authority vouches for it (pyVmomi's own stub looks at
the thumbprint only after normal verification failed). A connection that the server closed while it was idle is not
used again: otherwise a call that must not be repeated would fail for a reason that is none. Proxy settings of the
environment are never looked at. An answer is read to its end before it is parsed.
Must not know: sessions, what the calls mean.
"""

from __future__ import annotations

import contextlib
import http
import http.client
import io
import select
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

from services.machine_controller.vsphere import calls
from services.machine_controller.vsphere.credentials import Trust, sha256_thumbprint
from services.machine_controller.vsphere.errors import CertificateMismatch
from services.machine_controller.vsphere.soap import ResponseDeserializer, StubBase
from services.runtime import metrics

if TYPE_CHECKING:
    import ssl
    from collections import Counter

    from services.machine_controller.vsphere.values import Server

# vSphere 6.7: every later vCenter speaks it too, so nothing needs negotiating.
VIM_VERSION = "vim.version.version12"
PBM_VERSION = "pbm.version.version12"

_USER_AGENT = "groundwork-machine-controller"
_COOKIE = "vmware_soap_session"
_IDLE_SECONDS = 60.0
_KEEPALIVE_SECONDS = 30

_CALLS = metrics.counter(
    "groundwork_vcenter_calls_total", "SOAP calls to vCenter by method and outcome.", ("server", "method", "outcome")
)
_SECONDS = metrics.histogram(
    "groundwork_vcenter_call_seconds",
    "Duration of SOAP calls to vCenter, the long poll for updates left out.",
    ("server", "method"),
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
LONG_POLL = "WaitForUpdatesEx"


# Writing and reading XML is done by one thread at a time. Only one can compute anyhow, and where several try, the event
# loop has to wait its turn behind all of them, 5 ms each (sys.getswitchinterval).
_COMPUTING = threading.Lock()


class Connection(http.client.HTTPConnection):
    """An HTTPS connection whose every wait is bounded by the current call."""

    default_port = http.client.HTTPS_PORT

    def __init__(self, server: Server, trust: Trust, context: ssl.SSLContext) -> None:
        super().__init__(server.host, server.port)
        self._server = server
        self._trust = trust
        self._context = context

    def connect(self) -> None:
        """Connect and shake hands; CertificateMismatch before anything was sent to the wrong server."""
        call = calls.current()
        plain = socket.create_connection((self._server.host, self._server.port), timeout=call.remaining())
        try:
            call.use(plain)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_SECONDS)
            secured = self._context.wrap_socket(plain, server_hostname=self._server.host, do_handshake_on_connect=False)
        except BaseException:
            plain.close()
            raise
        try:
            call.use(secured)
            secured.do_handshake()
            self._verify(secured)
        except BaseException:
            secured.close()
            raise
        self.sock = secured

    def _verify(self, secured: ssl.SSLSocket) -> None:
        if not self._trust.thumbprint:
            return
        certificate = secured.getpeercert(binary_form=True) or b""
        if not self._trust.matches(certificate):
            shown = sha256_thumbprint(certificate)
            raise CertificateMismatch(str(self._server), f"its thumbprint is {shown}, not the configured one", shown)

    def closed_by_peer(self) -> bool:
        """Whether an idle connection has been closed, or has bytes that belong to no request."""
        if self.sock is None:
            return True
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        return bool(poll.poll(0))


class Stub(StubBase):  # type: ignore[misc] # taken as untyped
    """A SOAP endpoint of one vCenter: /sdk, or /pbm with the session of the former."""

    def __init__(
        self,
        server: Server,
        trust: Trust,
        *,
        context: ssl.SSLContext,
        calls_made: Counter[str],
        path: str = "/sdk",
        version: str = VIM_VERSION,
        session_id: str = "",
    ) -> None:
        super().__init__(
            host=server.host,
            port=server.port,
            path=path,
            version=version,
            requestContext={"vcSessionCookie": session_id} if session_id else None,
        )
        self._server = server
        self._trust = trust
        self._context = context
        self._calls_made = calls_made
        self._idle: list[tuple[Connection, float]] = []
        self._idle_lock = threading.Lock()
        self._closed = False

    def __repr__(self) -> str:
        return f"Stub({self._server}{self.path})"  # the base class has the session's cookie in its attributes

    def sibling(self, path: str, version: str) -> Stub:
        """Make a stub for another endpoint of the server, with this one's session."""
        return Stub(
            self._server,
            self._trust,
            context=self._context,
            calls_made=self._calls_made,
            path=path,
            version=version,
            session_id=self.GetSessionId() or "",
        )

    def InvokeMethod(self, mo: Any, info: Any, args: Any, *_: Any) -> Any:  # noqa: N802 - pyVmomi's name
        """Carry a call out: return its result or raise its fault."""
        method = info.wsdlName
        server = str(self._server)
        began = time.monotonic()
        outcome = "error"
        with self._idle_lock:
            self._calls_made[method] += 1
        try:
            answer = self._invoke(mo, info, args)
            outcome = "success"
        finally:
            _CALLS.labels(server, method, outcome).inc()
            if method != LONG_POLL:
                _SECONDS.labels(server, method).observe(time.monotonic() - began)
        return answer

    def _invoke(self, mo: Any, info: Any, args: Any) -> Any:
        with _COMPUTING:
            request = self.SerializeRequest(mo, info, args)
        status, body = self._exchange(request)
        with _COMPUTING:
            answer = ResponseDeserializer(self).Deserialize(io.BytesIO(body), info.result)
        if status == http.HTTPStatus.OK:
            return answer
        if not isinstance(answer, Exception):
            raise http.client.HTTPException(f"HTTP {status} without a fault")
        raise answer

    def _exchange(self, request: bytes) -> tuple[int, bytes]:
        headers = {
            "Content-Type": "text/xml; charset=UTF-8",
            "Cookie": self.cookie,
            "SOAPAction": self.versionId,
            "User-Agent": _USER_AGENT,
        }
        connection = self.GetConnection()
        try:
            connection.request("POST", self.path, request, headers)
            # Closed whatever happens: of a connection that ends with its answer the response is the last owner.
            with connection.getresponse() as response:
                body = response.read()
        except BaseException:
            connection.close()
            self.DropConnections()  # the others are probably broken as well
            raise
        self._take_cookie(response.getheader("Set-Cookie") or "")
        self.ReturnConnection(connection)
        if response.status not in (http.HTTPStatus.OK, http.HTTPStatus.INTERNAL_SERVER_ERROR):
            raise http.client.HTTPException(f"HTTP {response.status} {response.reason}")
        return response.status, body

    def _take_cookie(self, header: str) -> None:
        name, _, value = header.partition(";")[0].partition("=")
        if name.strip() == _COOKIE:
            self.SetSessionId(value.strip().strip('"'))

    def GetConnection(self) -> Connection:  # noqa: N802 - pyVmomi's name
        """Take an idle connection that still lives, or open one."""
        call = calls.current()
        while (connection := self._take_idle()) is not None:
            if not connection.closed_by_peer():
                try:
                    call.use(connection.sock)
                except calls.GivenUpError:
                    connection.close()
                    raise
                call.sent = True
                return connection
            connection.close()
        connection = Connection(self._server, self._trust, self._context)
        connection.connect()
        call.sent = True
        return connection

    def ReturnConnection(self, conn: Connection) -> None:  # noqa: N802 - pyVmomi's name
        """Keep a connection for the next call."""
        calls.current().release()
        with self._idle_lock:
            if not self._closed and conn.sock is not None:
                self._idle.append((conn, time.monotonic()))
                return
        conn.close()

    def DropConnections(self) -> None:  # noqa: N802 - pyVmomi's name
        """Close what is idle."""
        with self._idle_lock:
            idle, self._idle = self._idle, []
        for connection, _ in idle:
            connection.close()

    def close(self) -> None:
        """Close what is idle, and from now on what comes back."""
        self._closed = True
        self.DropConnections()

    def _take_idle(self) -> Connection | None:
        oldest = time.monotonic() - _IDLE_SECONDS
        with self._idle_lock:
            stale = [connection for connection, since in self._idle if since < oldest]
            self._idle = [(connection, since) for connection, since in self._idle if since >= oldest]
            found = self._idle.pop()[0] if self._idle else None
        for connection in stale:
            with contextlib.suppress(OSError):
                connection.close()
        return found
