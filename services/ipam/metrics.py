"""The allocator's own metrics; docs/reference/metrics.md is made from this and the runtime's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.runtime import metrics
from services.runtime.kube.conditions import parse_timestamp

if TYPE_CHECKING:
    from datetime import datetime

ALLOCATIONS = metrics.counter("groundwork_ipam_allocations_total", "Claims that got an address.", ("kind",))
RELEASES = metrics.counter("groundwork_ipam_releases_total", "Claims that returned their address.", ("kind",))
REFUSALS = metrics.counter(
    "groundwork_ipam_refusals_total", "Claims that were told why they get no address now.", ("kind", "reason")
)
LOST_RACES = metrics.counter(
    "groundwork_ipam_lost_races_total", "Reservations that another writer made first; the next address was taken."
)
REPAIRS = metrics.counter(
    "groundwork_ipam_repairs_total",
    "Leftovers of crashes or forced deletions that were put right.",
    ("what",),
    known=(("surplus address",), ("claim gone",)),
)
ADDRESSES = metrics.gauge(
    "groundwork_ipam_pool_addresses",
    "Addresses of a pool by state: total, used, free, reserved, cooling, out_of_range.",
    ("pool_kind", "namespace", "pool", "state"),
)
WAITING = metrics.gauge(
    "groundwork_ipam_claims_waiting", "Claims that wait for a free address.", ("pool_kind", "namespace", "pool")
)
CONFLICTS = metrics.gauge(
    "groundwork_ipam_address_conflicts",
    "Addresses that two claims hold, found in adopted objects.",
    ("pool_kind", "namespace", "pool"),
)
BIND_SECONDS = metrics.histogram(
    "groundwork_ipam_bind_seconds",
    "From the creation of a claim (whole seconds) to the address in its status.",
    buckets=(1, 2, 5, 10, 30, 60, 300, 900, 3600),
)
STATES = ("total", "used", "free", "reserved", "cooling", "out_of_range")


def observe_bind(created: str, now: datetime) -> None:
    """Record how long a claim waited; `created` is its creationTimestamp."""
    BIND_SECONDS.observe(max(0.0, (now - parse_timestamp(created)).total_seconds()))
