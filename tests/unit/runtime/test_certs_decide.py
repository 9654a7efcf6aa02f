"""The life of self-made certificates, step by step: what is decided, and that no client is ever left behind."""

import datetime as dt

import pytest
from cryptography import x509

from services.runtime import certs_decide, pki
from services.runtime.certs_decide import Lifetimes, Step, bundle, carried_out, decide, issuer, published

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
LIVES = Lifetimes(authority=300 * DAY, leaf=30 * DAY, overlap=dt.timedelta(minutes=5))
NAMES = ("hook.ns.svc", "127.0.0.1")


def step(wanted, data, now, names=NAMES, **more):
    return carried_out(wanted, data, now, names, LIVES, label="test", **more)


def fresh(now=NOW):
    return step(Step.CREATE, None, now)


def shown(data, now=NOW):
    """What the configuration publishes once it is up to date."""
    return published([bundle(data, now)])


def decided(data, now=NOW, bundles="up to date", names=NAMES):
    return decide(data, now, shown(data, now) if bundles == "up to date" else bundles, names, LIVES)


def other_pair():
    made = pki.make_authority("other", NOW, 300 * DAY)
    return made, pki.issue(made, NAMES, NOW, 30 * DAY)


def test_without_a_secret_one_is_made():
    assert decide(None, NOW, (), NAMES, LIVES).step is Step.CREATE


def test_what_is_made_serves_its_names_and_is_trusted_by_its_bundle():
    data = fresh()
    leaf, authority = pki.read(data["tls.crt"]), pki.read(data["ca.crt"])
    assert leaf.names == set(NAMES)
    assert leaf.issued_by(authority)
    assert (leaf.authority, authority.authority) == (False, True)
    assert pki.read(bundle(data, NOW)) == authority
    assert issuer(data) == authority.fingerprint
    assert leaf.not_after == NOW + 30 * DAY
    usage = leaf.parsed.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]


HOUR = dt.timedelta(hours=1)


def test_what_was_made_while_the_clock_was_ahead_is_made_again_and_what_signed_it_stays_published():
    ahead = fresh(NOW + HOUR)
    found = decided(ahead)
    assert (found.step, found.reason) == (Step.REPLACE, "the CA is not valid yet: a clock was ahead when it was made")
    mended = step(Step.REPLACE, ahead, NOW)
    assert decided(mended).step is Step.WAIT
    assert pki.read(mended["tls.crt"]).valid(NOW)
    assert ahead["ca.crt"].strip() in bundle(mended, NOW)


def test_a_leaf_alone_that_was_made_while_the_clock_was_ahead_is_signed_again():
    ahead = step(Step.RENEW, fresh(), NOW + HOUR)
    found = decided(ahead)
    assert (found.step, found.reason) == (
        Step.RENEW,
        "the certificate is not valid yet: a clock was ahead when it was made",
    )
    assert decided(step(Step.RENEW, ahead, NOW)).step is Step.WAIT


def test_a_next_ca_that_was_made_while_the_clock_was_ahead_is_not_signed_with():
    data = step(Step.PREPARE, fresh(), NOW + HOUR)
    assert decided(data).step is Step.WAIT
    del data["ca.crt"]
    assert decided(data).step is Step.REPLACE
    assert decided(data, NOW + HOUR).step is Step.PROMOTE


@pytest.mark.parametrize(("ahead", "valid"), [(0, True), (300, True), (301, False)])
def test_clocks_may_differ_by_five_minutes(ahead, valid):
    made = pki.read(fresh(NOW + dt.timedelta(seconds=ahead))["tls.crt"])
    assert made.valid(NOW) is valid
    assert not made.valid(made.not_after)


def test_what_is_made_and_published_waits_for_the_leaf_to_grow_old():
    found = decided(fresh())
    assert found.step is Step.WAIT
    assert found.at == NOW + 20 * DAY


def test_a_next_ca_that_cannot_be_used_is_no_reason_to_look_again():
    old = pki.make_authority("next", NOW - 20 * DAY, 10 * DAY)
    found = decided(fresh() | {"next-ca.crt": old.certificate, "next-ca.key": old.key})
    assert (found.step, found.at) == (Step.WAIT, NOW + 20 * DAY)


def test_between_two_renewals_it_is_the_ca_that_falls_due_where_the_leaf_ends_with_it():
    lives = LIVES._replace(authority=30 * DAY, leaf=300 * DAY)
    data = carried_out(Step.CREATE, None, NOW, NAMES, lives, label="test")
    assert pki.read(data["tls.crt"]).not_after == NOW + 30 * DAY
    found = decide(data, NOW, shown(data), NAMES, lives)
    assert (found.step, found.at) == (Step.WAIT, NOW + 20 * DAY)


@pytest.mark.parametrize("bundles", [(frozenset(),), (frozenset({"foreign"}),)])
def test_a_webhook_without_our_ca_gets_it(bundles):
    assert decided(fresh(), bundles=bundles).step is Step.PUBLISH


def test_every_webhook_of_the_configuration_counts():
    data = fresh()
    assert decided(data, bundles=(*shown(data), frozenset())).step is Step.PUBLISH
    assert decided(data, bundles=shown(data) * 3).step is Step.WAIT


def test_without_a_configuration_nothing_is_published():
    assert decided(fresh(), bundles=None).step is Step.WAIT


def test_a_foreign_ca_beside_ours_is_taken_out():
    data = fresh()
    assert decided(data, bundles=(shown(data)[0] | {"foreign"},)).step is Step.PUBLISH


@pytest.mark.parametrize("text", [b"", b"no PEM", b"-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----\n"])
def test_a_bundle_that_cannot_be_read_publishes_nothing(text):
    assert published([text]) == (frozenset(),)


@pytest.mark.parametrize(("days", "wanted"), [(19.9, Step.WAIT), (20, Step.RENEW), (31, Step.RENEW)])
def test_the_leaf_is_renewed_at_two_thirds_of_its_life(days, wanted):
    assert decided(fresh(), NOW + days * DAY).step is wanted


def test_a_renewal_changes_the_leaf_alone():
    before = fresh()
    after = step(Step.RENEW, before, NOW + 20 * DAY)
    assert {name for name in after if after[name] != before[name]} == {"tls.crt", "tls.key"}
    assert issuer(after) == issuer(before)
    assert decided(after, NOW + 20 * DAY).step is Step.WAIT


def test_names_that_are_missing_are_added_and_those_of_other_replicas_kept_until_the_leaf_is_old():
    data = step(Step.RENEW, fresh(), NOW, names=("mine.ns.svc",))
    assert pki.read(data["tls.crt"]).names == {*NAMES, "mine.ns.svc"}
    assert decided(data).step is Step.WAIT
    assert decided(data, names=("mine.ns.svc",)).step is Step.WAIT
    later = NOW + 20 * DAY
    assert pki.read(step(Step.RENEW, data, later, names=("mine.ns.svc",))["tls.crt"]).names == {"mine.ns.svc"}


def test_a_missing_name_is_a_reason_to_renew():
    found = decided(fresh(), names=(*NAMES, "more.ns.svc"))
    assert found.step is Step.RENEW
    assert found.reason == "the certificate is not for more.ns.svc"


def test_a_ca_is_followed_by_another_without_a_moment_in_which_a_client_trusts_the_wrong_one():
    """The whole rotation, with the set that clients trust looked at after each step."""
    data, now = fresh(), NOW
    first = issuer(data)
    now += 200 * DAY
    data = step(Step.RENEW, data, now)
    trusted = shown(data, now)

    assert decide(data, now, trusted, NAMES, LIVES).step is Step.PREPARE
    data = step(Step.PREPARE, data, now)
    second = pki.read(data["next-ca.crt"]).fingerprint
    assert issuer(data) == first
    assert issuer(data) in trusted[0]

    # It is not signed with before it is published, however long that takes.
    found = decide(data, now + DAY, trusted, NAMES, LIVES)
    assert found.step is Step.PUBLISH
    trusted = shown(data, now)
    assert trusted[0] == {first, second}

    # Nor before every API server has had the time to see that.
    found = decide(data, now + dt.timedelta(minutes=4), trusted, NAMES, LIVES)
    assert (found.step, found.at) == (Step.WAIT, now + dt.timedelta(minutes=5))
    now += dt.timedelta(minutes=5)
    assert decide(data, now, trusted, NAMES, LIVES).step is Step.PROMOTE
    data = step(Step.PROMOTE, data, now)
    assert issuer(data) == second
    assert issuer(data) in trusted[0]
    assert {"next-ca.crt", "next-ca.key"}.isdisjoint(data)

    # A replica that serves the old leaf still is trusted as well.
    found = decide(data, now, trusted, NAMES, LIVES)
    assert found.step is Step.WAIT
    assert shown(data, now) == trusted

    # The old CA goes when it has expired, not before.
    while found.step is not Step.PUBLISH:
        now = found.at
        found = decide(data, now, trusted, NAMES, LIVES)
        if found.step is Step.RENEW:
            data = step(Step.RENEW, data, now)
            found = decide(data, now, trusted, NAMES, LIVES)
    assert now == NOW + 300 * DAY
    assert shown(data, now) == (frozenset({second}),)


def test_a_ca_is_not_signed_with_while_one_webhook_lacks_it():
    data = step(Step.PREPARE, fresh(), NOW)
    later = NOW + dt.timedelta(hours=1)
    assert decided(data, later).step is Step.PROMOTE
    for bundles in [(*shown(data), frozenset()), published([data["ca.crt"]]), published([data["next-ca.crt"]])]:
        assert decided(data, later, bundles=bundles).step is Step.PUBLISH


def test_a_leaf_is_renewed_even_if_nothing_can_be_published():
    later = NOW + 21 * DAY
    assert decided(fresh(), later, bundles=(frozenset(),)).step is Step.RENEW


def test_a_leaf_that_ends_with_its_ca_is_not_renewed_again_and_again():
    now = NOW + 295 * DAY
    data = step(Step.PREPARE, step(Step.RENEW, fresh(), now), now)
    assert pki.read(data["tls.crt"]).not_after == NOW + 300 * DAY
    assert decided(data, NOW + 299 * DAY, bundles=(frozenset(),)).step is Step.PUBLISH


def test_an_expired_ca_gives_way_to_the_next_one_or_else_to_a_new_one():
    now = NOW + 301 * DAY
    assert decided(fresh(), now).step is Step.REPLACE
    data = step(Step.PREPARE, fresh(), NOW + 250 * DAY)
    assert decided(data, now, bundles=(frozenset(),)).step is Step.PROMOTE
    assert pki.read(bundle(step(Step.PROMOTE, data, now), now)).pem == data["next-ca.crt"]


def broken(name, value):
    return {**fresh(), name: value}


OTHER_CA, OTHER_LEAF = other_pair()


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        ({}, Step.REPLACE),
        (broken("ca.crt", b""), Step.REPLACE),
        (broken("ca.crt", b"no PEM"), Step.REPLACE),
        (broken("ca.crt", OTHER_CA.certificate), Step.REPLACE),
        (broken("ca.key", b""), Step.REPLACE),
        (broken("ca.key", OTHER_CA.key), Step.REPLACE),
        ({**fresh(), "ca.crt": OTHER_LEAF.certificate, "ca.key": OTHER_LEAF.key}, Step.REPLACE),
        (broken("tls.crt", b""), Step.RENEW),
        (broken("tls.key", b"-----BEGIN PRIVATE KEY-----\nAA\n-----END PRIVATE KEY-----\n"), Step.RENEW),
        (broken("tls.key", OTHER_LEAF.key), Step.RENEW),
        ({**fresh(), "tls.crt": OTHER_LEAF.certificate, "tls.key": OTHER_LEAF.key}, Step.RENEW),
        ({**fresh(), "tls.crt": OTHER_CA.certificate, "tls.key": OTHER_CA.key}, Step.RENEW),
        ({**fresh(), "ca.crt": OTHER_CA.certificate, "ca.key": OTHER_CA.key}, Step.RENEW),
        (broken("old-ca.crt", b"-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----\n"), Step.WAIT),
        (broken("next-ca.crt", b"no PEM"), Step.WAIT),
        (broken("note", b"somebody's own"), Step.WAIT),
    ],
)
def test_a_secret_that_was_tampered_with_is_repaired_in_one_step(data, wanted):
    found = decided(data)
    assert found.step is wanted
    assert "PRIVATE KEY" not in found.reason
    if wanted is not Step.WAIT:
        assert found.reason
        repaired = step(wanted, data, NOW)
        assert decided(repaired).step is Step.WAIT
        assert repaired.get("note") == data.get("note")


def test_a_ca_that_lost_its_key_stays_published_beside_the_one_that_replaces_it():
    before = fresh()
    after = step(Step.REPLACE, {**before, "ca.key": b""}, NOW)
    assert certs_decide.published([bundle(after, NOW)])[0] == {issuer(before), issuer(after)}


def test_a_secret_that_was_deleted_is_made_anew_with_the_cas_that_replicas_still_serve():
    before = fresh()
    after = step(Step.CREATE, None, NOW, remembered=bundle(before, NOW))
    assert issuer(after) != issuer(before)
    assert shown(after)[0] == {issuer(before), issuer(after)}


def test_names_that_no_certificate_can_have_are_an_error_that_says_so():
    with pytest.raises(pki.PkiError, match="a name of the certificate cannot be used"):
        step(Step.CREATE, None, NOW, names=("ü.svc",))


def test_waiting_is_no_step_to_carry_out():
    with pytest.raises(ValueError, match="WAIT"):
        step(Step.WAIT, fresh(), NOW)
