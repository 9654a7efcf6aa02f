"""The integrator: a VSphereCluster without a VIP and a VSphereMachine without an address get theirs.

CAPV itself does not run here. Its CustomResourceDefinitions are its own, the objects are what it and Cluster API make.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tools import capi
from tools.progress import step

if TYPE_CHECKING:
    from tools.demo.stage import Stage

EXAMPLES = Path("examples") / "capv"
METRICS = ("groundwork_capv_integrator_waiting", "groundwork_capv_integrator_claims_total")


def play(stage: Stage) -> None:
    """Show what waits, and what it gets."""
    with step("installing the CRDs of CAPV and of Cluster API's Machine"):
        stage.cluster.install_crds(*capi.crds("infrastructure.cluster.x-k8s.io", "machines.cluster.x-k8s.io"))
    stage.title("A cluster without DHCP: CAPV waits for the machine's address, the control plane for its VIP")
    stage.kubectl("apply", "-f", str(EXAMPLES / "pools.yaml"))
    cluster, vsphere_cluster, machine, vsphere_machine = _objects()
    _own(vsphere_cluster, stage.create(cluster))
    stage.create(vsphere_cluster)
    _own(vsphere_machine, stage.create(machine))
    stage.create(vsphere_machine)
    devices = ("get", "vspheremachine", "prod-cp-0", "-o", "jsonpath={.spec.network.devices}{'\\n'}")
    endpoint = ("get", "vspherecluster", "prod", "-o", "jsonpath={.spec.controlPlaneEndpoint}{'\\n'}")
    stage.kubectl(*devices)
    stage.kubectl(*endpoint)

    stage.title("The integrator claims addresses and writes them where CAPV reads them")
    integrator = stage.start("services.capv_integrator")
    stage.wait("jsonpath={.spec.network.devices[0].ipAddrs}", "vspheremachine/prod-cp-0")
    stage.wait("jsonpath={.spec.controlPlaneEndpoint.host}", "vspherecluster/prod")
    stage.kubectl(*devices)
    stage.kubectl(*endpoint)
    stage.kubectl("get", "ipaddressclaims", "-l", "cluster.x-k8s.io/cluster-name=prod")

    stage.title("The machine goes, and its address goes back to the pool; the VIP stays the cluster's")
    stage.kubectl("delete", "vspheremachine", "prod-cp-0")
    stage.wait("jsonpath={.status.ipAddresses.used}=0", "ippool/vlan-7")
    stage.kubectl("get", "ippools")
    integrator.metrics(*METRICS)


def _objects() -> list[dict[str, Any]]:
    """Objects of examples/capv/cluster.yaml, in its order."""
    return list(yaml.safe_load_all((EXAMPLES / "cluster.yaml").read_text(encoding="utf-8")))


def _own(obj: dict[str, Any], owner: dict[str, Any]) -> None:
    """Do what Cluster API's controllers do before anything else happens to an object."""
    obj["metadata"]["ownerReferences"] = [{**owner, "controller": True}]
