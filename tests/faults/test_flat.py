"""What the soak calls flat, and what it does not."""

from __future__ import annotations

import random

import pytest

from tests.faults import flat, soak

RSS = flat.BOUNDS["rss_mib"]


def series(value, count=120):
    return [(3.0 * number, value(number)) for number in range(count)]


@pytest.mark.parametrize(
    ("value", "is_flat"),
    [
        (lambda n: 60.0, True),
        (lambda n: 60.0 + random.Random(n).uniform(-3, 3), True),
        (lambda n: 60.0 + n % 20, True),  # a sawtooth: garbage that is collected
        (lambda n: 60.0 if n != 60 else 300.0, True),
        (lambda n: 60.0 + n * 0.01, True),
        (lambda n: 60.0 + n * 0.1, False),  # 12 MiB in six minutes
        (lambda n: 60.0 + n * 0.1 + random.Random(n).uniform(-3, 3), False),
        (lambda n: 60.0 + n * 0.2 + n % 20, False),
        (lambda n: 90.0 - n * 0.1, True),
    ],
)
def test_growth_that_goes_on_is_told_from_noise(value, is_flat):
    grown, allowed = flat.verdict(series(value), RSS)
    assert (grown <= allowed) is is_flat


def test_what_has_grown_in_a_process_is_named():
    def one(number, leaked):
        return {"rss_mib": 50.0, "fds": 20 + leaked * number // 4, "tasks": 30, "queued": 0.0}

    samples = {
        "sound": [(at, one(at, 0)) for at in range(100)],
        "leaks": [(at, one(at, 1)) for at in range(100)],
    }
    (line,) = soak.grown(soak.judged(samples, 10))
    assert line.startswith("fds of leaks grew by 22")


def test_what_fills_in_the_beginning_does_not_count():
    samples = {"one": [(at, {"rss_mib": min(100.0, at * 5.0), "fds": 9, "tasks": 9, "queued": 0}) for at in range(100)]}
    assert soak.grown(soak.judged(samples, 30)) == []
