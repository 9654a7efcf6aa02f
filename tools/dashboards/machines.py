"""Dashboards about machines: those that wait, and what vCenter is asked for them."""

from __future__ import annotations

from tools.dashboards.model import Dashboard, Panel, Variable, quantiles, rate, stat

MACHINES = Dashboard(
    "machines",
    "Groundwork: machines that wait",
    "Machines and clusters that wait for an address, and the ways of machines that are made without CAPV.",
    (),
    (
        stat(
            "Machines waiting (CAPV)",
            "VSphereMachines with a device that waits for a static address.",
            "max(groundwork_capv_integrator_waiting_machines)",
        ),
        stat(
            "Clusters waiting (CAPV)",
            "VSphereClusters that wait for a control-plane endpoint.",
            "max(groundwork_capv_integrator_waiting_clusters)",
        ),
        stat(
            "Machines provisioned",
            "VSphereMachines of the machine controller that are up.",
            'max(groundwork_machine_phase{phase="Provisioned"})',
        ),
        stat("Clones running", "Of all vCenters.", "sum(max by (server) (groundwork_machine_clones_running))"),
        Panel(
            "What CAPV's machines and clusters wait for",
            "docs/reference/conditions.md explains the reasons.",
            [("max by (kind, reason) (groundwork_capv_integrator_not_served)", "{{kind}} {{reason}}")],
            stacked=True,
        ),
        Panel(
            "Machines by phase",
            "Reasons of VirtualMachineProvisioned.",
            [("max by (phase) (groundwork_machine_phase)", "{{phase}}")],
            stacked=True,
        ),
        Panel(
            "From VSphereMachine to guest",
            "Until the guest has reported the addresses that it was assigned.",
            quantiles("groundwork_machine_provision_seconds", shares=(0.5, 0.9, 0.99)),
            "s",
        ),
        Panel("Steps", "Of the machine controller.", rate("groundwork_machine_steps_total", "step, result"), "ops"),
        Panel(
            "Changes by others",
            "VMs that were powered off, removed or moved by somebody else.",
            [("sum by (what) (increase(groundwork_machine_unexpected_total[1h]))", "{{what}}")],
        ),
        Panel(
            "Zones",
            "1 for a zone in which machines can be placed, 0 for one in which they cannot.",
            [("min by (zone) (groundwork_machine_zone_ready)", "{{zone}}")],
        ),
        Panel(
            "Tags changed in vCenter",
            "Categories and tags that were made, and tags that were attached, for failure domains.",
            rate("groundwork_machine_zone_tag_changes_total", ""),
            "ops",
        ),
        Panel(
            "Writes that came too late",
            "Somebody else had changed the object; the write was computed anew.",
            rate("groundwork_capv_integrator_stale_writes_total", "kind"),
            "ops",
        ),
    ),
)

_SERVER = '{server=~"$server"}'

VCENTER = Dashboard(
    "vcenter",
    "Groundwork: calls to vCenter",
    "How much the machine controller asks of each vCenter, and how it answers.",
    (Variable("server", "groundwork_vcenter_calls_total", "server"),),
    (
        Panel("Calls", "By method.", rate("groundwork_vcenter_calls_total", "server, method", _SERVER), "ops"),
        Panel(
            "Calls that failed",
            "By method; a fault of vCenter counts as well as no answer.",
            rate("groundwork_vcenter_calls_total", "server, method", '{server=~"$server", outcome!="success"}'),
            "ops",
        ),
        Panel(
            "Duration",
            "The long poll for updates is not in it.",
            quantiles("groundwork_vcenter_call_seconds", "server", _SERVER, shares=(0.5, 0.9, 0.99)),
            "s",
        ),
        Panel(
            "Slowest methods",
            "99 % of the calls of each method are faster.",
            [
                (expression, "{{method}}")
                for expression, _ in quantiles("groundwork_vcenter_call_seconds", "method", _SERVER, shares=(0.99,))
            ],
            "s",
        ),
        Panel("Sign-ins", "By outcome.", rate("groundwork_vcenter_logins_total", "server, outcome", _SERVER), "ops"),
        Panel(
            "Long poll started anew",
            "After sessions that ended and connections that were lost.",
            rate("groundwork_vcenter_watch_restarts_total", "server", _SERVER),
            "ops",
        ),
        Panel(
            "Changes delivered",
            "By type of object.",
            rate("groundwork_vcenter_watch_updates_total", "server, type", _SERVER),
            "ops",
        ),
        Panel(
            "Clones running",
            "Bounded by --clones.",
            [(f"max by (server) (groundwork_machine_clones_running{_SERVER})", "{{server}}")],
        ),
    ),
)
