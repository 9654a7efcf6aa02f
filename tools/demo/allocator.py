"""The allocator: claims of both kinds bound, refused with a reason, and returned."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tools.demo.stage import Stage

EXAMPLES = Path("examples") / "ipam"
METRICS = ("groundwork_ipam_allocations_total", "groundwork_ipam_refusals_total", "groundwork_ipam_pool_addresses")


def play(stage: Stage) -> None:
    """Show claims being served, refused and returned."""
    stage.title("The allocator")
    allocator = stage.start("services.ipam")

    stage.title("A pool and claims of both kinds")
    stage.kubectl("apply", "-f", str(EXAMPLES / "pool.yaml"), "-f", str(EXAMPLES / "claims.yaml"))
    stage.wait("condition=Ready", "ipclaim/worker-0", "ipclaim/vip")
    stage.wait("condition=Ready", "ipaddressclaim/control-plane-0")
    stage.wait("jsonpath={.status.ipAddresses.used}=3", "ippool/machines")
    stage.kubectl("get", "ippools,ipclaims,ipaddresses.ipam.metal3.io,ipaddresses.ipam.cluster.x-k8s.io")

    stage.title(
        "control-plane-1 asked for an address that the pool excludes: it says so, and gets it once the pool allows it"
    )
    stage.wait("condition=Ready=False", "ipaddressclaim/control-plane-1")
    message = "jsonpath={.status.conditions[0].reason}: {.status.conditions[0].message}"
    stage.kubectl("get", "ipaddressclaim", "control-plane-1", "-o", message)
    allow = '{"spec":{"excludedAddresses":["10.20.30.20-10.20.30.21"]}}'
    stage.kubectl("patch", "ippool", "machines", "--type=merge", "-p", allow)
    stage.wait("condition=Ready", "ipaddressclaim/control-plane-1")

    stage.title("A claim goes and its address comes back: it cools for a minute, and worker-0 would get it again")
    stage.kubectl("delete", "ipclaim", "worker-0", "--wait=true")
    stage.wait("jsonpath={.status.ipAddresses.cooling}=1", "ippool/machines")
    stage.kubectl("get", "ipreservations")
    stage.kubectl("get", "ippools", "-o", "wide")

    stage.title("What Prometheus sees")
    allocator.metrics(*METRICS)
