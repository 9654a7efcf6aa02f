"""Dashboards about addresses: the pools, and the claims on them."""

from __future__ import annotations

from tools.dashboards.model import Dashboard, Panel, Variable, quantiles, rate, stat

_POOL = '{namespace=~"$namespace", pool=~"$pool"}'
_FREE = 'groundwork_ipam_pool_addresses{namespace=~"$namespace", pool=~"$pool", state="free"}'
_POOL_LEGEND = "{{pool_kind}} {{namespace}}/{{pool}}"


def addresses(state: str) -> str:
    """Addresses of the chosen pools in a state, from whichever replica leads."""
    where = f'{{namespace=~"$namespace", pool=~"$pool", state="{state}"}}'
    return f"max by (pool_kind, namespace, pool) (groundwork_ipam_pool_addresses{where})"


POOLS = Dashboard(
    "pools",
    "Groundwork: pools and their fill",
    "How full the pools are, which of them run out, and who waits.",
    (
        Variable("namespace", "groundwork_ipam_pool_addresses", "namespace"),
        Variable("pool", 'groundwork_ipam_pool_addresses{namespace=~"$namespace"}', "pool"),
    ),
    (
        stat("Pools", "Pools that the allocator serves.", f"count({addresses('total')})"),
        stat(
            "Addresses held",
            "Share of all addresses of the pools that claims hold.",
            f"sum({addresses('used')}) / sum({addresses('total')})",
            "percentunit",
        ),
        stat(
            "Claims waiting",
            "Claims for which no address is free.",
            f"sum(max by (pool_kind, namespace, pool) (groundwork_ipam_claims_waiting{_POOL}))",
        ),
        stat(
            "Addresses held twice",
            "Anything but 0 is for somebody to look at: run `groundwork ipam verify`.",
            f"sum(max by (pool_kind, namespace, pool) (groundwork_ipam_address_conflicts{_POOL}))",
        ),
        Panel(
            "Fill",
            "Share of each pool that is held.",
            [(f"{addresses('used')} / {addresses('total')}", _POOL_LEGEND)],
            "percentunit",
        ),
        Panel(
            "Left",
            "Addresses that can be given: free ones, and cooling ones, which are given when nothing else is left.",
            [(f"{addresses('free')} + {addresses('cooling')}", _POOL_LEGEND)],
        ),
        Panel(
            "Left in a week, if it goes on as today",
            "What is left of each pool in seven days at the pace of the last day. Below 0 it will be exhausted.",
            [
                (
                    f"max by (pool_kind, namespace, pool) (predict_linear({_FREE}[1d], 7 * 86400))",
                    _POOL_LEGEND,
                )
            ],
        ),
        Panel(
            "Addresses by state",
            "Of all chosen pools. Reserved ones are administrators', cooling ones were returned and keep their claim's "
            "name for a while, and those out of range are held although the pool does not give them any more.",
            [
                (f"sum({addresses(state)})", state.replace("_", " "))
                for state in ("used", "free", "reserved", "cooling", "out_of_range")
            ],
            stacked=True,
        ),
        Panel(
            "Claims waiting, by pool",
            "They are served the oldest first as soon as there is an address.",
            [(f"max by (pool_kind, namespace, pool) (groundwork_ipam_claims_waiting{_POOL})", _POOL_LEGEND)],
        ),
        Panel(
            "Given and returned",
            "Addresses for each second, by kind of claim.",
            [
                (expression, f"{what} {legend}")
                for what, metric in (
                    ("given", "groundwork_ipam_allocations_total"),
                    ("returned", "groundwork_ipam_releases_total"),
                )
                for expression, legend in rate(metric, "kind")
            ],
            "ops",
        ),
    ),
)

CLAIMS = Dashboard(
    "claims",
    "Groundwork: claims and how long they take",
    "From a claim to its address, and what is in the way.",
    (),
    (
        Panel(
            "From claim to address",
            "The API server tells when a claim was made in whole seconds, so what is below one second is not seen.",
            quantiles("groundwork_ipam_bind_seconds", shares=(0.5, 0.9, 0.99)),
            "s",
        ),
        Panel(
            "From waiting to address, for CAPV",
            "From the first sight of a machine or cluster that waits to its address being written.",
            quantiles("groundwork_capv_integrator_write_seconds", "kind", shares=(0.5, 0.9, 0.99)),
            "s",
        ),
        Panel("Addresses given", "By kind of claim.", rate("groundwork_ipam_allocations_total", "kind"), "ops"),
        Panel(
            "Refusals",
            "Claims that were told why they get no address now. docs/tasks/troubleshoot.md explains each reason.",
            rate("groundwork_ipam_refusals_total", "kind, reason"),
            "ops",
        ),
        Panel(
            "Lost races",
            "Addresses that another writer reserved first; the next one was taken. Many mean that two allocators work.",
            rate("groundwork_ipam_lost_races_total", ""),
            "ops",
        ),
        Panel(
            "Repairs",
            "Leftovers of crashes and of deletions by force that were put right.",
            rate("groundwork_ipam_repairs_total", "what"),
            "ops",
        ),
        Panel(
            "The integrator's claims",
            "Claims that it made, adopted or released.",
            rate("groundwork_capv_integrator_claims_total", "kind, what"),
            "ops",
        ),
        Panel(
            "Work for each claim",
            "Time in the allocator's hands once a claim's turn has come.",
            quantiles("controller_runtime_reconcile_time_seconds", "controller", '{controller=~"ipam-.+"}'),
            "s",
        ),
    ),
)
