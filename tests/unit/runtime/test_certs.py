"""Certificates from a folder: what is served while files change under it, in every half-done state."""

import datetime as dt
import math
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from services.runtime import certs, metrics, pki
from services.runtime.certs import MountedCertificates
from services.runtime.clock import SystemClock
from services.runtime.pki import Pair

NOW = SystemClock().now()
DAY = dt.timedelta(days=1)
CA = pki.make_authority("test", NOW - 10 * DAY, 100 * DAY)


def pair(*, made=NOW, life=DAY):
    return pki.issue(CA, ["hook.ns.svc"], made, life)


@pytest.fixture
def folder(tmp_path):
    return tmp_path


@pytest.fixture
def mounted(folder):
    return MountedCertificates(folder, SystemClock())


def put(folder, wanted):
    (folder / "tls.crt").write_bytes(wanted.certificate)
    (folder / "tls.key").write_bytes(wanted.key)


def mount(folder, wanted):
    """What the kubelet does: a new folder for the version, then one rename of the link to it."""
    version = folder / f"..{len(list(folder.iterdir()))}"
    version.mkdir()
    put(version, wanted)
    (folder / "..new").symlink_to(version.name)
    (folder / "..new").replace(folder / "..data")
    for name in ("tls.crt", "tls.key"):
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")


def shown(context):
    """The certificate that a client gets in a handshake through memory."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (client.wrap_bio(to_client, to_server), context.wrap_bio(to_server, to_client, server_side=True))
    for _ in range(3):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return ssl.DER_cert_to_PEM_cert(ends[0].getpeercert(binary_form=True)).encode()


def rejected():
    return metrics.REGISTRY.get_sample_value("groundwork_webhook_certificate_rejected")


def test_without_files_nothing_is_served_and_readiness_says_why(mounted, folder):
    mounted.look()
    assert mounted.context is None
    assert mounted.check() == f"no certificate: {folder}/tls.crt: No such file or directory"


def test_a_pair_is_served_and_a_new_one_takes_its_place(mounted, folder):
    first, second = pair(), pair()
    put(folder, first)
    mounted.look()
    assert mounted.check() is True
    assert shown(mounted.context) == first.certificate
    put(folder, second)
    mounted.look()
    assert shown(mounted.context) == second.certificate
    expiry = metrics.REGISTRY.get_sample_value("groundwork_webhook_certificate_expiry_timestamp_seconds")
    assert math.isclose(expiry, pki.read(second.certificate).not_after.timestamp())


def test_files_that_did_not_change_are_not_loaded_again(mounted, folder):
    put(folder, pair())
    mounted.look()
    context = mounted.context
    mounted.look()
    assert mounted.context is context


@pytest.mark.parametrize("first_file", ["tls.crt", "tls.key"])
def test_a_half_rotated_pair_keeps_the_old_one_serving_until_the_other_half_comes(mounted, folder, first_file):
    old, new = pair(), pair()
    put(folder, old)
    mounted.look()
    content = {"tls.crt": new.certificate, "tls.key": new.key}
    (folder / first_file).write_bytes(content.pop(first_file))
    for _ in range(3):
        mounted.look()
        assert shown(mounted.context) == old.certificate
        assert mounted.check() is True, "what is served is as good as before"
        assert rejected() == 1
    ((name, text),) = content.items()
    (folder / name).write_bytes(text)
    mounted.look()
    assert shown(mounted.context) == new.certificate
    assert rejected() == 0


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({"tls.crt": b""}, "no certificate"),
        (
            {"tls.crt": b"-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----\n"},
            "no certificate that can be read",
        ),
        ({"tls.key": b"half a k"}, "no private key that can be used"),
        ({"tls.key": CA.key}, "certificate and key do not belong together"),
        ({"tls.crt": pair(made=NOW - 2 * DAY).certificate}, "the certificate has expired at "),
        ({"tls.crt": CA.certificate}, "certificate and key cannot be loaded"),
    ],
)
def test_what_cannot_be_served_changes_nothing_and_is_said_once(mounted, folder, caplog, files, problem):
    old = pair()
    put(folder, old)
    mounted.look()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    mounted.look()
    mounted.look()
    assert shown(mounted.context) == old.certificate
    (record,) = [record for record in caplog.records if record.message == "A certificate cannot be used"]
    assert record.groundwork_fields["problem"].startswith(problem)
    (folder / "tls.crt").unlink()
    mounted.look()
    assert shown(mounted.context) == old.certificate


def test_readiness_fails_once_the_served_certificate_has_expired(folder):
    class Late(SystemClock):
        ahead = dt.timedelta()

        def now(self):
            return super().now() + self.ahead

    clock = Late()
    mounted = MountedCertificates(folder, clock)
    put(folder, pair())
    mounted.look()
    clock.ahead = 2 * DAY
    assert mounted.check() == "the certificate has expired"
    (folder / "tls.key").write_bytes(b"")
    mounted.look()
    assert mounted.check().startswith("the certificate has expired: ")


def test_both_files_of_a_mounted_secret_come_from_one_version(mounted, folder):
    first, second = pair(), pair()
    mount(folder, first)
    mounted.look()
    assert shown(mounted.context) == first.certificate
    mount(folder, second)
    mounted.look()
    assert shown(mounted.context) == second.certificate


def test_a_key_of_another_kind_takes_the_place_of_the_old_one_for_every_client(mounted, folder):
    """One context can hold a pair of each kind: the old one would be shown to clients that prefer its kind."""
    put(folder, pair())
    mounted.look()
    key = rsa.generate_private_key(65537, 2048)
    leaf = pki.read(pair().certificate)
    authority_key = serialization.load_pem_private_key(CA.key, None)
    made = (
        x509.CertificateBuilder(leaf.parsed.issuer, leaf.parsed.subject, key.public_key(), 7)
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + DAY)
        .sign(authority_key, hashes.SHA256())
    )
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    put(folder, Pair(made.public_bytes(serialization.Encoding.PEM), text))
    mounted.look()
    assert shown(mounted.context) == made.public_bytes(serialization.Encoding.PEM)


def test_an_encrypted_key_is_refused_and_nobody_is_asked_for_its_password(mounted, folder):
    wanted = pair()
    key = serialization.load_pem_private_key(wanted.key, None)
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret")
    )
    with pytest.raises(certs.CertificateError, match="the key is encrypted"):
        certs.tls_context(Pair(wanted.certificate, text))
    put(folder, Pair(wanted.certificate, text))
    mounted.look()
    assert mounted.context is None
    assert "the key is encrypted" in mounted.check()


def test_no_key_is_ever_in_a_log(mounted, folder, caplog):
    caplog.set_level("DEBUG")
    for wanted in (pair(), Pair(pair().certificate, pair().key), Pair(pair().key, pair().certificate)):
        put(folder, wanted)
        mounted.look()
    text = caplog.text + "".join(str(vars(record)) for record in caplog.records)
    assert "PRIVATE KEY" not in text
    assert "Serving a certificate" in text
