"""The metrics of zones."""

from __future__ import annotations

import contextlib

from services.runtime import metrics

READY = metrics.gauge(
    "groundwork_machine_zone_ready",
    "1 for a VSphereDeploymentZone in which machines can be placed, 0 for one in which they cannot.",
    ("zone",),
)
TAG_CHANGES = metrics.counter(
    "groundwork_machine_zone_tag_changes_total",
    "Tag categories created or extended, tags created, and tags attached in vCenter for failure domains.",
)


def forget(zone: str) -> None:
    """Drop what is counted for a zone that is gone."""
    with contextlib.suppress(KeyError):
        READY.remove(zone)
