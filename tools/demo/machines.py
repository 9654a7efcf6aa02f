"""The machine controller: a VSphereMachine becomes a VM in a simulated vCenter, with its address and its guestinfo.

The simulator is govmomi's. What it cannot do is boot: the demo reports the address of the guest as VMware Tools would.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tools import binaries
from tools.process import Daemon, free_ports
from tools.progress import step

if TYPE_CHECKING:
    from tools.demo.stage import Stage

EXAMPLES = Path("examples") / "machine-controller"
METRICS = ("groundwork_machine_steps_total", "groundwork_machine_phase")


class Simulator:
    """vcsim with its control endpoint; stops with the stage."""

    def __init__(self, stage: Stage) -> None:
        self.port, control = free_ports(2)
        self._control = f"127.0.0.1:{control}"
        daemon = Daemon("vcsim", stage.cluster.folder)
        program = str(binaries.ensure("vcsim")["vcsim"])
        listen = (f"-l=127.0.0.1:{self.port}", f"-control={self._control}")
        daemon.start([program, *listen, "-cluster=1", "-vm=1", "-standalone-host=0"], tethered=True)
        stage.callback(daemon.stop)
        daemon.wait_ready(self._answers, timeout=60.0)

    def _answers(self) -> bool:
        try:
            return bool(self.vms())
        except OSError:
            return False

    @property
    def thumbprint(self) -> str:
        """SHA-256 of the certificate, as vCenter prints it."""
        certificate = ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", self.port)))
        return hashlib.sha256(certificate).digest().hex(":").upper()

    def vms(self) -> dict[str, dict[str, Any]]:
        """VMs by name."""
        return {vm["name"]: vm for vm in self._ask("GET", "/vms")}

    def report(self, vm: str, addresses: dict[str, list[str]]) -> None:
        """Have the tools of a VM report addresses by MAC."""
        self._ask("POST", "/guest", {"vm": vm, "addresses": addresses, "tools": "guestToolsRunning"})

    def _ask(self, method: str, path: str, body: object = None) -> Any:
        connection = http.client.HTTPConnection(self._control, timeout=10)
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None)
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()


def play(stage: Stage) -> None:
    """Show a VM being made, told, seen and destroyed."""
    with step("starting a simulated vCenter"):
        vcenter = Simulator(stage)
    stage.title("No CAPV here: a VSphereMachine that waits for its address, its VM and its cluster's proxy")
    references: dict[str, dict[str, Any]] = {}
    for obj in _objects(vcenter):
        owner = {"VSphereCluster": "Cluster", "VSphereMachine": "Machine"}.get(obj["kind"])
        if owner is not None:
            # What Cluster API's controllers do before anything else happens to an object.
            obj["metadata"]["ownerReferences"] = [{**references[owner], "controller": True}]
        references[obj["kind"]] = stage.create(obj)
    controller = stage.start("services.machine_controller")
    stage.wait("jsonpath={.status.initialization.provisioned}=true", "vspherecluster/lab")
    # In a cluster Cluster API says so once the VSphereCluster does.
    done = '[{"op":"add","path":"/status","value":{"initialization":{"infrastructureProvisioned":true}}}]'
    stage.cluster.kubectl("patch", "cluster", "lab", "--subresource=status", "--type=json", f"--patch={done}")
    stage.wait("jsonpath={.metadata.finalizers}", "vspheremachine/lab-cp-0")
    stage.eventually(lambda: vcenter.vms().get("lab-cp-0", {}).get("power") == "poweredOn", "the VM is powered on")

    stage.title("What the VM is told at its first boot")
    vm = vcenter.vms()["lab-cp-0"]
    told = yaml.safe_load(base64.b64decode(vm["extraConfig"]["guestinfo.metadata"]))
    print(yaml.safe_dump(told, sort_keys=False).rstrip())
    addresses = {
        nic["match"]["macaddress"]: [text.partition("/")[0] for text in nic["addresses"]]
        for nic in told["network"]["ethernets"].values()
    }
    vcenter.report("lab-cp-0", addresses)

    stage.title("The guest reports its address: the machine is ready")
    stage.wait("condition=Ready", "vspheremachine/lab-cp-0")
    stage.kubectl("get", "vspheremachine", "lab-cp-0")
    seen = vcenter.vms()["lab-cp-0"]
    held = ", ".join(text for texts in addresses.values() for text in texts)
    print(f"in vCenter: {seen['name']}, {seen['power']}, {held}")
    controller.metrics(*METRICS)

    stage.title("The machine goes, then its VM, then its address")
    stage.kubectl("delete", "vspheremachine", "lab-cp-0")
    stage.promise("lab-cp-0" not in vcenter.vms(), "the VM is gone from vCenter")
    stage.wait("jsonpath={.status.ipAddresses.used}=0", "ippool/lab")
    stage.kubectl("get", "ippool", "lab")


def _objects(vcenter: Simulator) -> list[dict[str, Any]]:
    text = (EXAMPLES / "lab.yaml").read_text(encoding="utf-8")
    # Comments at the top name the placeholders as well, which YAML drops.
    text = text.replace("VCENTER", f"127.0.0.1:{vcenter.port}").replace("THUMBPRINT", f'"{vcenter.thumbprint}"')
    return list(yaml.safe_load_all(text))
