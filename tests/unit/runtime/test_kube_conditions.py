from datetime import UTC, datetime, timedelta, timezone

import pytest

from services.runtime.kube.conditions import (
    Condition,
    find,
    is_true,
    micro_timestamp,
    parse_timestamp,
    set_condition,
    timestamp,
)

NOW = datetime(2026, 5, 4, 3, 2, 1, 6, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
READY = Condition("Ready", "True", "Bound", "all good", "2026-05-04T03:02:01Z", 3)
OTHER = Condition("Other", "False", "No", "", "2026-01-01T00:00:00Z")


@pytest.mark.parametrize(
    ("before", "given", "since"),
    [
        ((), Condition("Ready", "True"), LATER),
        ((READY,), Condition("Ready", "True", "Bound", "another message"), NOW),
        ((READY,), Condition("Ready", "True", "AnotherReason", "all good", None, 4), NOW),
        ((READY,), Condition("Ready", "False", "Bound", "all good"), LATER),
        ((Condition("Ready", "True"),), Condition("Ready", "True", "Bound"), LATER),
        ((READY,), Condition("Ready", "Unknown", lastTransitionTime="2020-01-01T00:00:00Z"), LATER),
    ],
    ids=["new", "message", "reason and generation", "status", "no time yet", "time given"],
)
def test_the_transition_time_changes_only_with_the_status(before, given, since):
    condition = find(set_condition(before, given, LATER), "Ready")
    assert condition.lastTransitionTime == timestamp(since)
    assert (condition.status, condition.reason, condition.message) == (given.status, given.reason, given.message)
    assert condition.observedGeneration == given.observedGeneration


@pytest.mark.parametrize("kind", [list, tuple])
def test_the_same_condition_again_changes_nothing(kind):
    conditions = kind([OTHER, READY])
    again = Condition("Ready", "True", "Bound", "all good", None, 3)
    assert set_condition(conditions, again, LATER) is conditions


@pytest.mark.parametrize("kind", [list, tuple])
def test_a_condition_keeps_its_place_and_others_are_left_alone(kind):
    conditions = kind([READY, OTHER])
    changed = set_condition(conditions, Condition("Ready", "False"), LATER)
    assert [condition.type for condition in changed] == ["Ready", "Other"]
    assert changed[1] is OTHER
    assert type(changed) is kind
    assert conditions == kind([READY, OTHER])
    assert [condition.type for condition in set_condition(conditions, Condition("New", "True"), NOW)][-1] == "New"


def test_only_a_condition_that_is_there_and_true_is_true():
    conditions = [READY, OTHER]
    assert is_true(conditions, "Ready")
    assert not is_true(conditions, "Other")
    assert not is_true(conditions, "Absent")
    assert find(conditions, "Absent") is None


def test_timestamps_are_utc_in_the_two_forms_of_the_api():
    moment = NOW.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert timestamp(moment) == "2026-05-04T03:02:01Z"
    assert micro_timestamp(moment) == "2026-05-04T03:02:01.000006Z"


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-05-04T03:02:01.000006Z", NOW),
        ("2026-05-04T03:02:01Z", NOW.replace(microsecond=0)),
        ("2026-05-04T08:32:01+05:30", NOW.replace(microsecond=0)),
    ],
)
def test_a_timestamp_is_read_back(text, moment):
    assert parse_timestamp(text) == moment
    assert parse_timestamp(text).tzinfo is UTC


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2026-05-04T03:02:01", "2026-13-04T03:02:01Z", "9999-12-31T23:59:59-14:00"]
)
def test_what_is_no_timestamp_is_refused(text):
    with pytest.raises(ValueError, match=r"time zone|isoformat|month must be|out of range"):
        parse_timestamp(text)
