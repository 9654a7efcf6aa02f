"""The webhook's certificate: from a mounted folder, or made and rotated by the service itself.

Responsible for: the TLS context of the next handshake, and noticing that there is something newer.

Invariants: what is served has been loaded completely, certificate and key, into a context of its own that then takes
the place of the last one. A pair that does not fit, is unreadable or has expired changes nothing: the last one goes on
being served and the failure shows in a metric, a log line and, once that one has expired, in readiness. (Loading into
the context in use would break it when the pair does not fit, and would leave the old pair in it when the kind of key
changes.) Private keys are in memory only and in no log.

Must not know: what is served with it.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import ssl
from typing import TYPE_CHECKING, Final

from services.runtime import log, metrics, pki
from services.runtime.certs_decide import TLS_CRT, TLS_KEY
from services.runtime.pki import Pair, PkiError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from services.runtime.clock import Clock

__all__ = ["CertificateError", "MountedCertificates", "ServedCertificate", "secret_pair", "tls_context"]

LOOK_SECONDS: Final = 2.0
"""Between two looks at a mounted folder; a look is two stat calls."""

_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"  # for TLS 1.2: forward secrecy and AEAD, as Mozilla's "intermediate"
_LOG: Final = log.get("certs")
_EXPIRY = metrics.gauge(
    "groundwork_webhook_certificate_expiry_timestamp_seconds", "When the served certificate expires; NaN without one."
)
_EXPIRY.set(float("nan"))
_LOADS = metrics.counter(
    "groundwork_webhook_certificate_loads_total", "Certificates that were taken (loaded) or not (failed).", ("result",)
)
_REJECTED = metrics.gauge(
    "groundwork_webhook_certificate_rejected",
    "1 while the newest certificate cannot be used and an older one is served.",
)


class CertificateError(Exception):
    """A pair cannot be served; says why, never with key material."""


def tls_context(pair: Pair) -> ssl.SSLContext:
    """Return a server's context for a pair: TLS 1.2 and later, HTTP/1.1. Raises `CertificateError`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    # OpenSSL wants a file. This one exists in memory, so a read-only root and a key that must touch no disk are fine.
    with os.fdopen(os.memfd_create("pair"), "wb") as file:
        file.write(pair.certificate + b"\n" + pair.key)
        file.flush()
        try:
            context.load_cert_chain(f"/proc/self/fd/{file.fileno()}", password=_no_password)
        except (ssl.SSLError, OSError, ValueError) as error:
            raise CertificateError(f"certificate and key cannot be loaded: {_why(error)}") from None
    return context


def _no_password() -> str:
    """Without this, OpenSSL would ask for it on the terminal and wait."""
    raise ValueError("the key is encrypted")


def _why(error: Exception) -> str:
    return (error.reason if isinstance(error, ssl.SSLError) else None) or str(error) or type(error).__name__


class ServedCertificate:
    """The pair in use: what a `WebhookServer` takes as its certificates. Sources derive from it and call `take`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._context: ssl.SSLContext | None = None
        self._certificate: pki.Certificate | None = None
        self._loaded = asyncio.Event()
        self._problem = ""

    @property
    def context(self) -> ssl.SSLContext | None:
        """The context of the next handshake; None before the first certificate.

        An expired one is shown all the same: its error message tells the other side more than no answer would.
        """
        return self._context

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the served certificate, "" before the first."""
        return self._certificate.fingerprint if self._certificate else ""

    @property
    def valid(self) -> bool:
        """Whether there is one that clients accept now."""
        return self._certificate is not None and self._certificate.valid(self._clock.now())

    def check(self) -> bool | str:
        """Tell whether there is a certificate that clients can accept: for readiness."""
        if self.valid:
            return True
        problem = f": {self._problem}" if self._problem else ""
        if self._certificate is None:
            return f"no certificate{problem}"
        expired = self._certificate.not_after <= self._clock.now()
        return f"the certificate {'has expired' if expired else 'is not valid yet'}{problem}"

    async def wait_loaded(self) -> None:
        """Return once there is a certificate."""
        await self._loaded.wait()

    def take(self, pair: Pair) -> bool:
        """Serve a pair from now on, if it can be; return whether it is served."""
        try:
            certificate = pki.read(pair.certificate)
            if certificate.fingerprint == self.fingerprint:
                # Its key may be another one (the old certificate again beside a new key): that is not served.
                if not pki.matches(certificate, pair.key):
                    self.reject("certificate and key do not belong together")
                    return False
                self._accepted()
                return True
            if certificate.not_after <= self._clock.now():
                self.reject(f"the certificate has expired at {certificate.not_after:%Y-%m-%dT%H:%M:%SZ}")
                return False
            context = tls_context(pair)
        except (PkiError, CertificateError) as error:
            self.reject(str(error))
            return False
        self._context, self._certificate = context, certificate
        self._accepted()
        self._loaded.set()
        _LOADS.labels("loaded").inc()
        _EXPIRY.set(certificate.not_after.timestamp())
        _LOG.info(
            "Serving a certificate",
            names=sorted(certificate.names),
            expires=certificate.not_after.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            fingerprint=certificate.fingerprint[:16],
        )
        return True

    def reject(self, problem: str) -> None:
        """Say that what is offered cannot be used; the same problem once."""
        if problem != self._problem:
            self._problem = problem
            _LOADS.labels("failed").inc()
            _REJECTED.set(1)
            serving = self._certificate is not None
            _LOG.warning("A certificate cannot be used", problem=problem, still_serving_the_last_one=serving)

    def _accepted(self) -> None:
        self._problem = ""
        _REJECTED.set(0)


class MountedCertificates(ServedCertificate):
    """`tls.crt` and `tls.key` in a folder, as Kubernetes mounts a Secret or as somebody writes them."""

    def __init__(self, folder: Path, clock: Clock, *, look_seconds: float = LOOK_SECONDS) -> None:
        super().__init__(clock)
        self._folder = folder
        self._look_seconds = look_seconds
        self._seen: object = None

    async def run(self) -> None:
        """Look for changes until cancelled."""
        while True:
            self.look()
            await self._clock.sleep(self._look_seconds)

    def look(self) -> None:
        """Load the pair if it is another than last time, or if it could not be used then."""
        try:
            # The kubelet switches all files of a volume at once, by pointing `..data` to another folder: both files
            # have to be read through one reading of that link.
            data = self._folder / "..data"
            folder = data.resolve(strict=True) if data.is_symlink() else self._folder
            stamp = (folder, *map(_stamp, (folder / TLS_CRT, folder / TLS_KEY)))
            if stamp == self._seen and not self._problem:
                return
            pair = Pair((folder / TLS_CRT).read_bytes(), (folder / TLS_KEY).read_bytes())
        except OSError as error:
            self.reject(f"{error.filename or self._folder}: {error.strerror}")
            return
        self._seen = stamp
        self.take(pair)


def _stamp(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_ino, status.st_mtime_ns, status.st_size


def secret_pair(data: Mapping[str, bytes]) -> Pair:
    """Return the served pair of a Secret's data; empty texts where there is none."""
    return Pair(data.get(TLS_CRT, b""), data.get(TLS_KEY, b""))
