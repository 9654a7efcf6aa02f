"""What a reflector, a leader and the keeper of certificates know after each step, and the reasons they give."""

import datetime as dt

import pytest

from services.runtime import certs_decide, pki
from services.runtime.cache import decide as reflector
from services.runtime.cache.decide import Listed, ListFailed, Resumed, State, Trouble, WatchEnded
from services.runtime.certs_decide import Step as CertStep
from services.runtime.certs_decide import bundle, decide, issuer, published
from services.runtime.leader_decide import Knowledge, LeaseSpec, Step, Timing, micro_time, pause, step
from tests.unit.runtime.test_certs_decide import DAY, LIVES, NAMES, NOW, decided, fresh, other_pair
from tests.unit.runtime.test_certs_decide import step as certified

# A reflector

WORN = State("5", attempt=3, silent=2, unserved=2, trouble=Trouble.DENIED)


@pytest.mark.parametrize(
    ("before", "outcome", "after"),
    [
        (WORN, Listed("9"), State("9", attempt=3)),
        (WORN, Resumed(), WORN),
        (WORN, Resumed(changed=True), State("5", silent=2, trouble=Trouble.DENIED)),
        (WORN, ListFailed(Trouble.UNSERVED, populated=True), State(None, 4, 2, 3, Trouble.UNSERVED)),
        (WORN, ListFailed(Trouble.OVERLOADED, populated=True), State(None, 4, 2, 0, Trouble.OVERLOADED)),
        (State("5", silent=2), WatchEnded("7", delivered=True), State("7")),
        (State("5"), WatchEnded("7", delivered=False), State("7", attempt=1, silent=1)),
        (
            State("5", silent=reflector.SILENT_LIMIT - 1),
            WatchEnded("7", delivered=False),
            State(None, attempt=1),
        ),
        (State("5"), WatchEnded("7", delivered=True, trouble=Trouble.EXPIRED), State(None, 1, trouble=Trouble.EXPIRED)),
        (
            State("5", attempt=1),
            WatchEnded("7", delivered=False, trouble=Trouble.EXPIRED),
            State(None, 2, 1, trouble=Trouble.EXPIRED),
        ),
        (
            State("5"),
            WatchEnded("7", delivered=True, trouble=Trouble.UNREACHABLE),
            State("7", 1, trouble=Trouble.UNREACHABLE),
        ),
    ],
)
def test_a_reflector_knows_where_it_stands_after(before, outcome, after):
    assert reflector.step(before, outcome, 0.5)[0] == after


def test_a_watch_that_opens_ends_the_trouble_alone():
    assert reflector.opened(WORN) == State("5", attempt=3, silent=2, unserved=2)
    assert reflector.opened(State("5", attempt=3)) == State("5", attempt=3)


def test_any_version_before_the_last_is_a_history_that_was_rewound():
    assert [reflector.rewound("2", version) for version in ("0", "1", "2", "3")] == [False, True, False, False]


# A leader

OTHERS, OURS = LeaseSpec(holder_identity="other"), LeaseSpec(holder_identity="me", lease_duration_seconds=15)
KNOWN = Knowledge("me", Timing())


def test_what_is_read_and_written_of_the_lease_is_known_with_its_time():
    read = KNOWN.found(OTHERS, "7", 5.0)
    assert read == Knowledge("me", Timing(), OTHERS, "7", 5.0, current=True)
    assert read.found(OTHERS, "7", 9.0) == read, "since when it has been so is what counts"
    assert read.found(OTHERS, "8", 9.0).since == 9.0
    wrote = read.unsure().wrote(OURS, "8", 11.0)
    assert wrote == Knowledge("me", Timing(), OURS, "8", 11.0, current=True, renewed=11.0)
    assert step(wrote, 11.0) is Step.RENEW


@pytest.mark.parametrize(
    ("known", "seen", "lost"),
    [
        (KNOWN, OTHERS, False),
        (KNOWN, None, False),
        (KNOWN.wrote(OURS, "7", 1.0), OURS, False),
        (KNOWN.wrote(OURS, "7", 1.0), None, False),
        (KNOWN.wrote(OURS, "7", 1.0), OTHERS, True),
        (KNOWN.wrote(OURS, "7", 1.0), LeaseSpec(), True),
        (KNOWN.wrote(OURS, "7", 1.0).resigned(), OTHERS, False),
        (KNOWN.wrote(OURS, "7", 1.0).found(OTHERS, "8", 2.0), OURS, True),
    ],
)
def test_a_leader_that_finds_another_holder_has_lost_for_good(known, seen, lost):
    assert known.found(seen, "9", 3.0).lost is lost


def test_who_resigns_leads_no_more_and_knows_the_rest():
    wrote = KNOWN.wrote(OURS, "7", 1.0)
    assert wrote.resigned() == Knowledge("me", Timing(), OURS, "7", 1.0, current=True)


def test_who_is_not_sure_of_the_lease_does_not_sleep_for_it():
    unsure = KNOWN.found(LeaseSpec(holder_identity="other", lease_duration_seconds=1), "7", 10.0).unsure()
    assert pause(unsure, 10.5, 0.0) == 2.0


def test_a_time_of_another_zone_is_written_in_utc():
    zone = dt.timezone(dt.timedelta(hours=5, minutes=30))
    assert micro_time(dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=zone)) == "2026-01-01T21:34:05.000000Z"


def test_a_timing_that_lets_two_lead_is_refused_in_full():
    with pytest.raises(ValueError, match=r"^leader election needs lease duration > renew deadline > retry period > 0,"):
        Timing(lease_duration=5.0)


# Certificates


def reason(data, now=NOW, **more):
    found = decided(data, now, **more)
    return found.step, found.reason


def test_each_step_says_why():
    data = fresh()
    found = decide(None, NOW, (), NAMES, LIVES)
    assert (found.step, found.reason) == (CertStep.CREATE, "there is no Secret")
    assert reason(data) == (CertStep.WAIT, "")
    assert reason(data, NOW + 20 * DAY) == (CertStep.RENEW, "two thirds of the certificate's life are over")
    assert reason(data, NOW + 300 * DAY) == (CertStep.REPLACE, "the CA has expired")
    assert reason(data, bundles=(frozenset(),)) == (CertStep.PUBLISH, "a webhook does not publish our CAs")
    more = (*NAMES, "b.ns.svc", "a.ns.svc")
    assert reason(data, names=more) == (CertStep.RENEW, "the certificate is not for a.ns.svc, b.ns.svc")


def test_what_is_wrong_with_a_secret_is_the_reason():
    data = fresh()
    authority, leaf = other_pair()
    foreign = {**data, "tls.crt": leaf.certificate, "tls.key": leaf.key}
    assert reason(foreign) == (CertStep.RENEW, "the certificate is not from the CA")
    for name, step_ in (("ca.crt", CertStep.REPLACE), ("tls.crt", CertStep.RENEW)):
        broken = {**data, name: b"no PEM"}
        assert reason(broken) == (step_, certs_decide._read(broken).problems[name])
    assert authority.certificate not in data.values()


def test_the_next_ca_says_why_it_comes_and_when_it_is_used():
    now = NOW + 200 * DAY
    data = certified(CertStep.RENEW, fresh(), now)
    assert reason(data, now) == (CertStep.PREPARE, "two thirds of the CA's life are over")
    data = certified(CertStep.PREPARE, data, now)
    assert decided(data, now).at == now + LIVES.overlap
    assert reason(data, now + LIVES.overlap) == (CertStep.PROMOTE, "the next CA is published")


def test_a_ca_is_of_no_use_from_the_moment_it_ends():
    data, end = fresh(), NOW + 300 * DAY
    assert decided(data, end).step is CertStep.REPLACE
    assert bundle(data, end) == b""
    replaced = certified(CertStep.REPLACE, data, end)
    assert replaced[certs_decide.OLD_CRT] == b""


def test_cas_are_named_by_their_label_and_those_that_were_in_use_stay_published():
    now = NOW + DAY
    data = certified(CertStep.PREPARE, fresh(), NOW)
    made, _ = other_pair()
    replaced = certified(CertStep.REPLACE, {**data, "ca.key": b""}, now, remembered=made.certificate)
    fingerprints = set(published([bundle(replaced, now)])[0])
    known = [pki.read(text).fingerprint for text in (data["ca.crt"], data[certs_decide.NEXT_CRT], made.certificate)]
    assert set(known) < fingerprints
    assert len(fingerprints) == 4
    for text in (replaced["ca.crt"], data[certs_decide.NEXT_CRT]):
        assert "test" in pki.read(text).parsed.subject.rfc4514_string()


def test_the_issuer_is_known_of_a_secret_that_has_both():
    data = fresh()
    assert issuer(data) == pki.read(data["ca.crt"]).fingerprint
    for name in ("ca.crt", "tls.crt"):
        assert issuer({**data, name: b""}) is None


def test_a_ca_for_a_leaf_and_a_leaf_for_a_ca_are_told_apart():
    data = fresh()
    swapped = {**data, "ca.crt": data["tls.crt"], "ca.key": data["tls.key"]}
    assert reason(swapped) == (CertStep.REPLACE, "ca.crt cannot be used: it is no CA")
    swapped = {**data, "tls.crt": data["ca.crt"], "tls.key": data["ca.key"]}
    assert reason(swapped) == (CertStep.RENEW, "tls.crt cannot be used: it is a CA")


def test_cas_that_were_old_before_a_promotion_stay_published_after_it():
    older, _ = other_pair()
    data = certified(CertStep.PREPARE, {**fresh(), certs_decide.OLD_CRT: older.certificate}, NOW)
    promoted = certified(CertStep.PROMOTE, data, NOW)
    texts = data["ca.crt"], data[certs_decide.NEXT_CRT], older.certificate
    assert published([bundle(promoted, NOW)]) == (frozenset(pki.read(text).fingerprint for text in texts),)
