"""X.509 for a webhook: an authority of its own, the certificates it issues, and what a PEM text says.

Responsible for: making keys and certificates that Go's crypto/tls accepts (subject alternative names, EKU serverAuth),
and reading those of others without trusting them to be well-formed.

Invariants: nothing here reads a clock or a file. A private key leaves this module as PEM bytes only and is in no text
of an exception. Keys are ECDSA P-256: every TLS 1.2 client takes them and a handshake costs a tenth of RSA's.

Must not know: where certificates are kept or served.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
from typing import TYPE_CHECKING, Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from collections.abc import Collection

    from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes

__all__ = ["Certificate", "Pair", "PkiError", "issue", "join", "make_authority", "matches", "read", "read_all"]

BACKDATE: Final = dt.timedelta(minutes=5)
"""How far before its making a certificate begins: clocks of nodes differ."""

_BEGIN: Final = b"-----BEGIN CERTIFICATE-----"
_END: Final = b"-----END CERTIFICATE-----"
_COMMON_NAME_CHARACTERS: Final = 64


class PkiError(Exception):
    """A text is no certificate or key that can be used; says why, never with key material."""


class Pair(NamedTuple):
    """A certificate and its private key, PEM both."""

    certificate: bytes
    key: bytes


class Certificate(NamedTuple):
    """What there is to know of a certificate."""

    pem: bytes
    fingerprint: str
    """SHA-256 in hex."""
    made: dt.datetime
    """When it was made, if `BACKDATE` was observed: of others' certificates this is off by minutes."""
    not_after: dt.datetime
    names: frozenset[str]
    """DNS names and IP addresses it is for."""
    authority: bool
    parsed: x509.Certificate

    def valid(self, now: dt.datetime) -> bool:
        """Whether clients take it: it has begun, which one made by a clock that was ahead has not, and not ended."""
        return self.made - BACKDATE <= now < self.not_after

    def issued_by(self, other: Certificate) -> bool:
        """Whether `other`'s key has signed it."""
        try:
            self.parsed.verify_directly_issued_by(other.parsed)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            return False
        return True


def make_authority(name: str, now: dt.datetime, life: dt.timedelta) -> Pair:
    """Make a certificate authority that signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    serial = x509.random_serial_number()
    # Each authority has a name of its own: where two are in one bundle, their messages can be told apart.
    subject = _name(f"{name}-ca-{serial % 0xFFFFFFFF:08x}")
    usage = _usage(signs_certificates=True)
    certificate = (
        _builder(subject, subject, key, serial, now, now + life)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    return _pair(certificate, key)


def issue(authority: Pair, names: Collection[str], now: dt.datetime, life: dt.timedelta) -> Pair:
    """Make a server's certificate for DNS names and IP addresses, not valid beyond its authority's.

    Raises `PkiError` when the authority cannot be used or a name is none.
    """
    issuer = read(authority.certificate)
    signing = _load_key(authority.key)
    key = ec.generate_private_key(ec.SECP256R1())
    try:
        alternatives = [_general_name(name) for name in dict.fromkeys(names)]
    except ValueError as error:
        raise PkiError(f"a name of the certificate cannot be used: {error}") from error
    subject = _name(next(iter(names), "webhook"))
    end = min(now + life, issuer.not_after)
    certificate = (
        _builder(subject, issuer.parsed.subject, key, x509.random_serial_number(), now, end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.parsed.public_key()),  # type: ignore[arg-type]  # an authority's key signs
            critical=False,
        )
        .sign(signing, hashes.SHA256())
    )
    return _pair(certificate, key)


def read(pem: bytes) -> Certificate:
    """Read the first certificate of a text. Raises `PkiError`."""
    start = pem.find(_BEGIN)
    end = pem.find(_END, start)
    if start < 0 or end < 0:
        raise PkiError("no certificate")
    text = pem[start : end + len(_END)] + b"\n"
    try:
        parsed = x509.load_pem_x509_certificate(text)
        names = _names(parsed)
        authority = _is_authority(parsed)
        return Certificate(
            pem=text,
            fingerprint=parsed.fingerprint(hashes.SHA256()).hex(),
            made=parsed.not_valid_before_utc + BACKDATE,
            not_after=parsed.not_valid_after_utc,
            names=names,
            authority=authority,
            parsed=parsed,
        )
    except (ValueError, UnsupportedAlgorithm, x509.DuplicateExtension) as error:
        raise PkiError(f"no certificate that can be read: {error}") from error


def read_all(pem: bytes) -> list[Certificate]:
    """Read every certificate of a bundle, in order. Raises `PkiError` when one cannot be read."""
    found = []
    rest = pem
    while _BEGIN in rest:
        _, _, rest = rest.partition(_BEGIN)
        found.append(read(_BEGIN + rest))
    return found


def join(certificates: Collection[Certificate]) -> bytes:
    """Return a bundle: each certificate once, in order."""
    return b"".join(dict.fromkeys(certificate.pem for certificate in certificates))


def matches(certificate: Certificate, key: bytes) -> bool:
    """Whether a private key belongs to the certificate. Raises `PkiError` when it is no key."""
    return _public(_load_key(key).public_key()) == _public(certificate.parsed.public_key())


def _names(parsed: x509.Certificate) -> frozenset[str]:
    try:
        found = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return frozenset()
    addresses = found.get_values_for_type(x509.IPAddress)
    return frozenset((*found.get_values_for_type(x509.DNSName), *map(str, addresses)))


def _is_authority(parsed: x509.Certificate) -> bool:
    try:
        return parsed.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[-_COMMON_NAME_CHARACTERS:])])


def _public(key: object) -> bytes:
    encoded: bytes = key.public_bytes(  # type: ignore[attr-defined]  # every public key has it
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return encoded


def _load_key(pem: bytes) -> CertificateIssuerPrivateKeyTypes:
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        # What the library says of a text may quote it; its type tells enough (TypeError: it is encrypted).
        raise PkiError(f"no private key that can be used ({type(error).__name__})") from None
    return key  # type: ignore[return-value]  # one of another kind fails where it is to sign


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    serial: int,
    now: dt.datetime,
    end: dt.datetime,
) -> x509.CertificateBuilder:
    public = key.public_key()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(serial)
        .not_valid_before(now - BACKDATE)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _pair(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Pair:
    return Pair(
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )
