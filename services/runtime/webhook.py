"""The TLS server that the API server asks about objects: reviews in, answers out.

Responsible for: the HTTP side of a review (path, method, size, time), calling the handler of a path, the configured
answer when one fails, staying on after SIGTERM until nobody sends any more, the metrics; and, in `add_webhook`, putting
server and certificates together from the settings.

Invariants: handlers are plain functions, so none can wait: what they need is in memory. Whatever happens in one, the
API server gets an answer in time. Memory for bodies is bounded however many clients send. After SIGTERM every request
is answered, and its response asks the client to connect elsewhere (`Connection: close`): the API server goes on using
connections that it has, whatever the Service's endpoints say.

Must not know: what is reviewed, presets, pods.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeVar

from aiohttp import web

from services.runtime import admission, log, metrics
from services.runtime.admission import AdmissionAnswer, AdmissionRequest, BadReview
from services.runtime.certs import MountedCertificates, ServedCertificate
from services.runtime.certs_managed import ManagedCertificates
from services.runtime.clock import Clock, SystemClock
from services.runtime.listener import Limits, Listener, bind
from services.runtime.settings import Address, SettingsError, WebhookSettings

if TYPE_CHECKING:
    import socket
    import ssl

    from services.runtime.main import Service

__all__ = ["Certificates", "Handler", "WebhookServer", "add_webhook"]

WebhookS = TypeVar("WebhookS", bound=WebhookSettings)

Handler = Callable[[AdmissionRequest], AdmissionAnswer]
"""Decides one request. Synchronous: no I/O, a few milliseconds at most. An exception gives the failure answer."""

MAX_BODY: Final = 8 * 1024 * 1024
"""Bytes. A review holds an object twice on UPDATE, and the API server takes objects of up to 3 MiB."""
DRAIN_SECONDS: Final = 8.0
"""Longer than it takes until a Service sends nobody here any more."""

_BODY_SECONDS: Final = 10.0
_CLOSE_SECONDS: Final = 5.0
_BUFFERED_BODIES: Final = 8
_JSON: Final = {"Content-Type": admission.CONTENT_TYPE}
_LOG: Final = log.get("webhook")

_REQUESTS = metrics.counter(
    "groundwork_webhook_requests_total",
    "Requests by path and result: allowed, patched, denied, bad (no review), error (the handler failed).",
    ("path", "result"),
)
_SECONDS = metrics.histogram(
    "groundwork_webhook_request_duration_seconds",
    "Time from the last byte of a review to its answer; what the network takes is not in it.",
    ("path",),
    buckets=(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 3.0),
)
_IN_FLIGHT = metrics.gauge("groundwork_webhook_requests_in_flight", "Requests that are being received or answered.")
_ERRORS = metrics.counter(
    "groundwork_webhook_errors_total",
    "Reviews whose handler failed; they got the configured failure answer.",
    ("path",),
)


class Certificates(Protocol):
    """Where the server's certificate comes from."""

    @property
    def context(self) -> ssl.SSLContext | None:
        """The TLS context of the next handshake; None while there is no certificate that could be served."""

    def check(self) -> bool | str:
        """Tell whether there is a valid one: for readiness."""

    async def wait_loaded(self) -> None:
        """Return once there is one."""


class _Path:
    """A handler with its metrics, bound once."""

    def __init__(self, path: str, handler: Handler) -> None:
        self.path = path
        self.handle = handler
        self.count = {
            result: _REQUESTS.labels(path, result).inc for result in ("allowed", "patched", "denied", "bad", "error")
        }
        self.observe = _SECONDS.labels(path).observe
        self.count_error = _ERRORS.labels(path).inc


class WebhookServer:
    """Serves handlers by path: run `run` until cancelled, after `drain` on a stop."""

    def __init__(
        self,
        address: Address,
        certificates: Certificates,
        paths: Mapping[str, Handler],
        *,
        max_body: int = MAX_BODY,
        on_error: Literal["allow", "deny"] = "allow",
        drain_seconds: float = DRAIN_SECONDS,
        body_seconds: float = _BODY_SECONDS,
        limits: Limits | None = None,
        sock: socket.socket | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Make a server; nothing listens before `run`.

        `max_body` in bytes. `on_error` is the answer when a handler fails. `drain_seconds`: how long to go on serving
        after a stop. `body_seconds`: what a client may take to send a body. `sock` is a bound socket to serve in place
        of `address`, for processes that share it.
        """
        self._bind_to = address
        self._certificates = certificates
        self._paths = {path: _Path(path, handler) for path, handler in paths.items()}
        self._max_body = max_body
        self._failure_allows = on_error == "allow"
        self._drain_seconds = drain_seconds
        self._body_seconds = body_seconds
        self._sock = sock
        self._clock = clock or SystemClock()
        self._listener = Listener(self._respond, lambda: certificates.context, limits or Limits())
        self._buffered = 0
        self.address: Address | None = None
        """Where it listens, once it does."""

    def check(self) -> bool | str:
        """Tell whether requests can be served: for readiness."""
        if self.address is None:
            loaded = self._certificates.check()
            return "not listening" if loaded is True else loaded
        return self._certificates.check()

    async def run(self) -> None:
        """Listen as soon as there is a certificate, and serve until cancelled. Raises `ListenError`."""
        await self._certificates.wait_loaded()
        sock = self._sock or bind(self._bind_to)
        self.address = Address(*sock.getsockname()[:2])
        self._listener.start(sock)
        _LOG.info("Serving reviews", address=str(self.address), paths=sorted(self._paths))
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await self._listener.abort()

    async def drain(self) -> None:
        """Go on serving for the configured time, every response asking the client to go; then close.

        To be called when the process is to stop; a readiness check that fails from then on makes that known.
        """
        self._listener.closing = True
        if self.address is None:
            return
        _LOG.info("Going on serving until nobody sends any more", seconds=self._drain_seconds)
        await self._clock.sleep(self._drain_seconds)
        await self._listener.close(_CLOSE_SECONDS)
        _LOG.info("Closed the webhook")

    # -- a request -----------------------------------------------------------------------------------------------------

    async def _respond(self, request: web.BaseRequest) -> web.Response:
        path = self._paths.get(request.path)
        if path is None:
            return web.Response(status=404, text=f"no webhook at this path: {', '.join(sorted(self._paths))}\n")
        if request.method != "POST":
            return web.Response(status=405, text="POST expected\n", headers={"Allow": "POST"})
        _IN_FLIGHT.inc()
        try:
            body = await self._body(request)
            return web.Response(body=self._review(path, body, request.headers.get("Content-Type", "")), headers=_JSON)
        except BadReview as error:
            path.count["bad"]()
            _LOG.info("Refused a request that is no review", path=path.path, status=error.status, reason=error.reason)
            response = web.Response(status=error.status, text=f"{error.reason}\n")
            response.force_close()
            return response
        finally:
            _IN_FLIGHT.dec()

    def _review(self, path: _Path, body: bytearray, content_type: str) -> bytes:
        """Decode, decide and encode; raises BadReview and nothing else."""
        started = time.perf_counter()
        request = admission.decode(body, content_type)
        try:
            answer = path.handle(request)
            content = admission.encode(request.uid, answer)
            result = "denied" if not answer.allowed else "patched" if answer.patch else "allowed"
        except Exception as error:  # noqa: BLE001 - whatever a handler does, the API server waits for an answer
            path.count_error()
            result = "error"
            _LOG.exception(
                "A review failed, answering as configured for failures",
                path=path.path,
                uid=request.uid,
                namespace=request.namespace,
                name=request.name,
                allowed=self._failure_allows,
                error=error,
            )
            failure = AdmissionAnswer.failure(
                f"webhook {path.path} failed with an internal error", allowed=self._failure_allows
            )
            content = admission.encode(request.uid, failure)
        path.count[result]()
        path.observe(time.perf_counter() - started)
        return content

    async def _body(self, request: web.BaseRequest) -> bytearray:
        """Read the body; raises BadReview when it is too large, too slow, compressed or breaks off."""
        if request.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise BadReview(415, "a body without Content-Encoding expected")
        expected = request.content_length or 0
        if expected > self._max_body:
            raise BadReview(413, f"the body has {expected} bytes, at most {self._max_body} are read")
        body = bytearray()
        try:
            async with asyncio.timeout(self._body_seconds):
                while chunk := await request.content.readany():
                    self._buffered += len(chunk)
                    body += chunk
                    if len(body) > self._max_body:
                        raise BadReview(413, f"the body has more than {self._max_body} bytes")
                    if self._buffered > _BUFFERED_BODIES * self._max_body:
                        raise BadReview(503, "too many large bodies at a time")
        except TimeoutError:
            raise BadReview(408, f"the body did not come within {self._body_seconds:g} seconds") from None
        except (ConnectionError, web.RequestPayloadError):
            raise BadReview(400, "the body breaks off") from None
        finally:
            self._buffered -= len(body)
        return body


def add_webhook(service: Service[WebhookS], paths: Mapping[str, Handler]) -> WebhookServer:
    """Add a webhook with its certificates to a service, as its settings say, and return it.

    It listens once all caches of the service are synced: until then the API server goes by its failurePolicy. Raises
    `SettingsError` when the settings name no certificate.
    """
    settings, manager = service.settings, service.manager
    certificates: ServedCertificate
    if settings.cert_dir is not None:
        mounted = MountedCertificates(Path(settings.cert_dir), service.clock)
        manager.add_runnable("certificates", mounted.run, needs_leader=False, needs_caches=False)
        certificates = mounted
    else:
        managed = _managed(service)
        for reflector in managed.reflectors:
            manager.add_reflector(reflector)
        manager.add_runnable("certificates", managed.run, needs_leader=False)
        certificates = managed
    server = WebhookServer(
        settings.webhook_address,
        certificates,
        paths,
        max_body=settings.max_body_bytes,
        on_error="deny" if settings.failure_answer == "deny" else "allow",
        drain_seconds=settings.drain_seconds,
        sock=service.listener,
        clock=service.clock,
    )
    manager.add_runnable("webhook", server.run, needs_leader=False)
    manager.add_drain("webhook", server.drain)
    manager.add_readiness("webhook", server.check)
    return server


def _managed(service: Service[WebhookS]) -> ManagedCertificates:
    settings = service.settings
    if settings.cert_secret is None:
        raise SettingsError("a webhook needs --cert-dir, or --cert-secret for certificates of its own")
    names = list(settings.cert_name)
    if settings.webhook_service is not None:
        inside = f"{settings.webhook_service}.{service.namespace}.svc"
        names = [inside, f"{inside}.cluster.local", *names]
    if not names:
        raise SettingsError("--cert-secret needs --webhook-service or --cert-name: what the certificate is for")
    return ManagedCertificates(
        service.unguarded,
        namespace=service.namespace,
        secret=settings.cert_secret,
        configuration=settings.webhook_configuration,
        names=names,
        label=settings.program,
        clock=service.clock,
        writes=service.first,
    )
