"""Who signs in, and how the server is known to be the right one.

Responsible for: the values that name an identity's user and password and the trust in a server's certificate.
Invariants: a password appears in no repr, no message and no log; verification is on unless `insecure` is set
explicitly. A thumbprint is compared with the certificate that the server shows, whoever signed it.
Must not know: where the values come from.
"""

from __future__ import annotations

import errno
import hashlib
import hmac
import ssl
from typing import Any

import msgspec

from services.machine_controller.vsphere.errors import InvalidValue

_SHA1_DIGITS = 40
_SHA256_DIGITS = 64


class _Socket(ssl.SSLSocket):
    """A TLS socket that is closed when its peer has gone before the handshake.

    Making one begins with the question who the peer is. The standard library answers a reset then with an exception
    that leaves the socket open and to nobody.
    """

    def getpeername(self) -> Any:
        try:
            return super().getpeername()
        except OSError as error:
            self.close()
            raise ConnectionResetError(errno.ECONNRESET, "the peer went before the handshake") from error


class Credentials(msgspec.Struct, frozen=True):
    """User name ("administrator@vsphere.local") and password."""

    username: str
    password: str

    def __repr__(self) -> str:
        return f"Credentials({self.username!r}, ***)"

    __str__ = __repr__


class Trust(msgspec.Struct, frozen=True):
    """How the server's certificate is verified.

    `thumbprint`: SHA-1 or SHA-256 of the certificate in hexadecimal, with or without colons; it decides alone.
    `ca`: PEM certificates of the authorities to trust instead of the system's.
    `insecure`: no verification at all; it cannot be combined with the others.
    """

    thumbprint: str = ""
    ca: str = ""
    insecure: bool = False

    def __post_init__(self) -> None:
        if self.insecure and (self.thumbprint or self.ca):
            raise InvalidValue("trust", "insecure together with a thumbprint or a CA")
        if self.thumbprint:
            digits = self.digits()
            if len(digits) not in (_SHA1_DIGITS, _SHA256_DIGITS) or not set(digits) <= set("0123456789abcdef"):
                raise InvalidValue("thumbprint", "it is neither a SHA-1 nor a SHA-256 in hexadecimal")

    def digits(self) -> str:
        """Return the thumbprint as lower-case hexadecimal digits."""
        return self.thumbprint.replace(":", "").replace(" ", "").lower()

    def matches(self, certificate: bytes) -> bool:
        """Whether the thumbprint is that of a DER certificate."""
        expected = self.digits()
        if len(expected) == _SHA1_DIGITS:
            actual = hashlib.sha1(certificate, usedforsecurity=False).hexdigest()
        else:
            actual = hashlib.sha256(certificate).hexdigest()
        return hmac.compare_digest(actual, expected)

    def context(self) -> ssl.SSLContext:
        """Make the TLS context for connections to the server; InvalidValue for a CA that cannot be read."""
        try:
            context = ssl.create_default_context(cadata=self.ca or None)
        except ssl.SSLError as error:
            raise InvalidValue("CA", "no PEM certificates") from error
        context.sslsocket_class = _Socket
        if self.insecure or self.thumbprint:
            # With a thumbprint the certificate itself is compared after the handshake, before anything is sent.
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def sha256_thumbprint(certificate: bytes) -> str:
    """SHA-256 of a DER certificate as vCenter and govc print it: pairs of upper-case digits between colons."""
    return hashlib.sha256(certificate).digest().hex(":").upper()
