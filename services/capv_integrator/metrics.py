"""The integrator's own metrics; docs/reference/metrics.md is made from this and the runtime's."""

from __future__ import annotations

from services.runtime import metrics

WAITING = metrics.gauge(
    "groundwork_capv_integrator_waiting_machines", "VSphereMachines with a device that waits for a static address."
)
WAITING_CLUSTERS = metrics.gauge(
    "groundwork_capv_integrator_waiting_clusters", "VSphereClusters that wait for a control-plane endpoint."
)
NOT_SERVED = metrics.gauge(
    "groundwork_capv_integrator_not_served",
    "VSphereMachines and VSphereClusters that wait, by what for.",
    ("kind", "reason"),
)
WRITE_SECONDS = metrics.histogram(
    "groundwork_capv_integrator_write_seconds",
    "From the first sight of a VSphereMachine or VSphereCluster that waits, or from CAPV's own word for it, to its "
    "address being written.",
    ("kind",),
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300, 900, 3600),
)
STALE = metrics.counter(
    "groundwork_capv_integrator_stale_writes_total",
    "Writes that the API server refused because somebody else changed the object first; they were computed anew.",
    ("kind",),
    known=(("VSphereMachine",), ("VSphereCluster",)),
)
CLAIMS = metrics.counter(
    "groundwork_capv_integrator_claims_total", "Claims that were created, adopted or released.", ("kind", "what")
)
