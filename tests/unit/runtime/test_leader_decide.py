from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest

from services.runtime.leader_decide import (
    Knowledge,
    LeaseSpec,
    Step,
    Timing,
    call_limit,
    claim,
    micro_time,
    pause,
    release,
    step,
    valid_for,
)

WALL = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
STAMP = "2026-01-02T03:04:05.000678Z"
TIMING = Timing()


def lease(holder="other", duration=15, **rest):
    return LeaseSpec(holder_identity=holder, lease_duration_seconds=duration, **rest)


def knowledge(**fields):
    return Knowledge("me", TIMING, **fields)


def standby(spec, since=100.0):
    """A process that has just read the Lease, and first saw it like this at `since`."""
    return knowledge(spec=spec, version="7", since=since, current=True)


def leader(renewed=100.0, **fields):
    return knowledge(**{"spec": lease("me"), "version": "7", "current": True, "renewed": renewed} | fields)


@pytest.mark.parametrize(
    ("known", "now", "expected"),
    [
        (knowledge(), 0, Step.READ),
        (standby(lease()).unsure(), 1000, Step.READ),
        (standby(None), 100, Step.CREATE),
        # Somebody else's: free when it has been seen unchanged for longer than its own duration.
        (standby(lease()), 100, Step.WAIT),
        (standby(lease()), 115, Step.WAIT),
        (standby(lease()), 115.001, Step.TAKE),
        (standby(lease(duration=60)), 159, Step.WAIT),
        (standby(lease(duration=1)), 101.1, Step.TAKE),
        (standby(lease(duration=None)), 114, Step.WAIT),
        (standby(lease(duration=None)), 116, Step.TAKE),
        # The times in it are for people: neither an old nor a future one says anything.
        (standby(lease(renew_time="1970-01-01T00:00:00.000000Z")), 101, Step.WAIT),
        (standby(lease(renew_time="2999-01-01T00:00:00.000000Z")), 116, Step.TAKE),
        # Released.
        (standby(lease(holder="", duration=1)), 100, Step.TAKE),
        (standby(lease(holder=None)), 100, Step.TAKE),
        (standby(LeaseSpec()), 100, Step.TAKE),
        # Ours although no answer said so: a write whose answer was lost.
        (standby(lease("me")), 100, Step.RENEW),
        # Leading.
        (leader(), 100, Step.RENEW),
        (leader(), 109.999, Step.RENEW),
        (leader().unsure(), 109.999, Step.READ),
        (leader(), 110, Step.LOST),
        (leader().unsure(), 110, Step.LOST),
        (leader().found(None, "", 101), 101, Step.CREATE),
        (leader().found(lease("other"), "8", 101), 101, Step.LOST),
        (leader().found(lease(""), "8", 101), 101, Step.LOST),
        (leader().found(lease("me"), "8", 101), 101, Step.RENEW),
    ],
)
def test_what_to_do_follows_from_what_is_known(known, now, expected):
    assert step(known, now) is expected


def test_what_is_lost_stays_lost():
    known = leader().found(lease("other"), "8", 101).found(lease("me"), "9", 102)
    assert step(known, 102) is Step.LOST
    assert valid_for(known, 102) == 0


@pytest.mark.parametrize(
    ("known", "now", "seconds"),
    [
        (knowledge(), 0, 0),
        (standby(lease("me")), 100, 0),
        (leader(), 100, 10),
        (leader(), 109.5, 0.5),
        (leader(), 120, -10),
        (leader().resigned(), 100, 0),
        (leader(lost=True), 100, 0),
    ],
)
def test_leadership_is_valid_for_the_renew_deadline_after_the_last_renewal_was_sent(known, now, seconds):
    assert valid_for(known, now) == pytest.approx(seconds)


def test_the_time_of_a_lease_runs_from_when_this_version_was_first_seen():
    known = knowledge().found(lease(), "7", 50).found(lease(), "7", 60)
    assert known.since == 50
    renewed = known.found(lease(), "8", 62)
    assert renewed.since == 62, "a holder whose clock stands still renews all the same"


def test_a_renewal_counts_from_before_it_was_sent():
    known = leader(renewed=100.0).wrote(lease("me"), "8", 105.0)
    assert (known.renewed, known.version, known.current) == (105.0, "8", True)


def test_a_write_without_an_answer_changes_nothing_but_that_a_read_must_follow():
    assert leader().unsure() == leader(current=False)


@pytest.mark.parametrize(
    ("known", "acquired", "transitions"),
    [
        (standby(None), STAMP, 0),
        (standby(lease("other", acquire_time="old", lease_transitions=4)), STAMP, 5),
        (standby(lease("", lease_transitions=4)), STAMP, 5),
        (standby(lease("other")), STAMP, 1),
        (leader(spec=lease("me", acquire_time="old", lease_transitions=4)), "old", 4),
        (leader(spec=lease("me", lease_transitions=4)), STAMP, 4),
        (leader(spec=None), STAMP, 0),
    ],
)
def test_a_claim_keeps_the_acquire_time_and_counts_changes_of_the_holder(known, acquired, transitions):
    spec = claim(known, WALL)
    assert spec == LeaseSpec(
        holder_identity="me",
        lease_duration_seconds=15,
        acquire_time=acquired,
        renew_time=STAMP,
        lease_transitions=transitions,
    )


def test_what_others_wrote_into_the_lease_is_kept():
    known = standby(lease(strategy="OldestEmulationVersion", preferred_holder="x"))
    for spec in (claim(known, WALL), release(known, WALL)):
        assert (spec.strategy, spec.preferred_holder) == ("OldestEmulationVersion", "x")


@pytest.mark.parametrize(("duration", "written"), [(15.0, 15), (3.5, 4), (0.4, 1)])
def test_a_duration_is_written_as_whole_seconds_and_never_shorter(duration, written):
    timing = Timing(duration, duration / 2, duration / 8)
    assert claim(Knowledge("me", timing), WALL).lease_duration_seconds == written


def test_a_release_is_what_client_go_writes():
    known = leader(spec=lease("me", acquire_time="old", renew_time="old", lease_transitions=4))
    encoded = msgspec.json.decode(msgspec.json.encode(release(known, WALL)))
    assert encoded == {
        "holderIdentity": "",
        "leaseDurationSeconds": 1,
        "acquireTime": STAMP,
        "renewTime": STAMP,
        "leaseTransitions": 4,
    }


@pytest.mark.parametrize(
    ("wall", "text"),
    [
        (WALL, STAMP),
        (datetime(2026, 1, 1, tzinfo=UTC), "2026-01-01T00:00:00.000000Z"),
        (datetime(2026, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))), "2026-01-01T00:00:00.000000Z"),
    ],
)
def test_a_micro_time_is_utc_with_six_digits(wall, text):
    assert micro_time(wall) == text


@pytest.mark.parametrize("seconds", [(10, 10, 2), (15, 2, 2), (15, 10, 0), (15, 10, -1), (5, 10, 2)])
def test_timings_under_which_two_could_lead_are_refused(seconds):
    with pytest.raises(ValueError, match="lease duration > renew deadline > retry period > 0"):
        Timing(*seconds)


@pytest.mark.parametrize(
    ("known", "now", "seconds"),
    [
        (knowledge(), 0, 5),
        (standby(lease()), 100, 5),
        (leader(), 100, 5),
        (leader(), 104, 5),
        (leader(), 107, 3),
        (leader(), 111, 0),
    ],
)
def test_a_call_ends_before_the_leadership_does(known, now, seconds):
    assert call_limit(known, now) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("known", "now", "spread", "seconds"),
    [
        (leader(), 100, 0.0, 2),
        (leader(), 100, 1.0, 1),
        (leader(), 109, 0.0, 1),
        (leader(), 111, 0.0, 0),
        (knowledge(), 0, 0.0, 2),
        (knowledge(), 0, 1.0, 1),
        (standby(lease()), 100, 0.0, 2),
        (standby(lease()), 114, 0.0, 1.01),
        (standby(lease()), 115.005, 0.0, 0.01),
        (standby(lease("")), 100, 0.0, 2),
    ],
)
def test_a_pause_is_at_most_the_retry_period_and_ends_when_the_lease_does(known, now, spread, seconds):
    assert pause(known, now, spread) == pytest.approx(seconds)
