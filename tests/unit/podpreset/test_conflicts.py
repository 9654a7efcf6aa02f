"""How conflicts are added to a status."""

from __future__ import annotations

from services.podpreset.api import PresetStatus, SeenConflict
from services.podpreset.conflicts import LAST_CONFLICTS, added


def seen(message, time="2026-01-01T00:00:00Z", count=1, pod="pod"):
    return SeenConflict(message=message, namespace="ns", pod=pod, last_time=time, count=count)


def test_a_first_conflict_is_counted_and_shown():
    assert added(PresetStatus(), 3, [seen("a", count=3)]) == PresetStatus(
        conflicts=3, last_conflicts=(seen("a", count=3),)
    )


def test_a_kind_that_is_known_comes_to_the_front_and_counts_on():
    before = PresetStatus(conflicts=5, last_conflicts=(seen("b", "2026-01-01T00:00:02Z"), seen("a", count=4)))
    after = added(before, 2, [seen("a", "2026-01-01T00:00:03Z", 2, pod="new")])
    assert after.conflicts == 7
    assert after.last_conflicts == (seen("a", "2026-01-01T00:00:03Z", 6, pod="new"), before.last_conflicts[0])


def test_the_oldest_kinds_are_forgotten_and_still_counted():
    status = PresetStatus()
    for second in range(2 * LAST_CONFLICTS):
        status = added(status, 1, [seen(f"m{second}", f"2026-01-01T00:00:{second:02}Z")])
    assert status.conflicts == 2 * LAST_CONFLICTS
    assert [conflict.message for conflict in status.last_conflicts] == [
        f"m{second}" for second in reversed(range(LAST_CONFLICTS, 2 * LAST_CONFLICTS))
    ]
