"""Whether a series of samples stays flat: the robust slope over the time that was watched, against a bound.

Invariants: pure. A single outlier, a sawtooth or noise does not count as growth; growth that goes on does, however
slow, once it exceeds the bound within the time watched.
"""

from __future__ import annotations

import statistics
from typing import NamedTuple

_MOST_POINTS = 200


class Bound(NamedTuple):
    """How much may come on top during the time watched: `absolute`, and `share` of the median."""

    absolute: float
    share: float


BOUNDS = {
    "rss_mib": Bound(4.0, 0.05),
    "fds": Bound(4.0, 0.1),
    "tasks": Bound(4.0, 0.1),
    "queued": Bound(3.0, 0.0),
}
"""By what is sampled of each process."""


def growth(samples):
    """What came on top from the first sample to the last, by the median of all slopes (Theil-Sen).

    `samples` are `(seconds, value)`, at least two. `scipy` is not worth a dependency: a few hundred points will do.
    """
    step = max(1, len(samples) // _MOST_POINTS)
    points = samples[::step]
    slopes = [
        (value - before) / (at - began)
        for number, (began, before) in enumerate(points)
        for at, value in points[number + 1 :]
        if at > began
    ]
    return statistics.median(slopes) * (samples[-1][0] - samples[0][0])


def verdict(samples, bound):
    """`(growth, what may come on top)`; it is flat when the first is not above the second."""
    allowed = bound.absolute + bound.share * statistics.median(value for _, value in samples)
    return growth(samples), allowed
