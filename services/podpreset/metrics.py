"""The webhook's own metrics; docs/reference/metrics.md is made from this and the runtime's.

Labels never hold what a client chooses freely: presets are made by administrators and tenants, pods are not named.
"""

from __future__ import annotations

from services.runtime import metrics

PODS = metrics.counter(
    "groundwork_podpreset_pods_total",
    "Pods by what became of them: skipped, unmatched, unchanged, patched, left (SkipAll), rejected; also of dry runs.",
    ("outcome",),
)
INJECTIONS = metrics.counter(
    "groundwork_podpreset_injections_total",
    "Pods that a preset was given to; also of dry runs.",
    ("kind", "namespace", "preset"),
)
CONFLICTS = metrics.counter(
    "groundwork_podpreset_conflicts_total",
    "What a preset could not give because something else differs; also of dry runs.",
    ("kind", "namespace", "preset"),
)
SKIPS = metrics.counter("groundwork_podpreset_skips_total", "Pods that were not looked at, by why.", ("reason",))
PATCH_BYTES = metrics.histogram(
    "groundwork_podpreset_patch_bytes",
    "Size of the JSON patches.",
    buckets=(256, 1024, 4096, 16_384, 65_536, 262_144, 1_048_576),
)
PRESETS = metrics.gauge(
    "groundwork_podpreset_presets", "Presets by kind and by whether they can be applied.", ("kind", "ready")
)
CACHE_AGE = metrics.gauge(
    "groundwork_podpreset_cache_age_seconds",
    "Time since the API server was last heard of: what presets and namespaces are known may be as old.",
    ("resource",),
)
