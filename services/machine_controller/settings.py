"""What the machine controller can be told on its command line."""

from __future__ import annotations

import dataclasses
from typing import Annotated, ClassVar

from services.machine_controller.zones.settings import ZoneSettings, secret
from services.runtime.flags import Parser
from services.runtime.kube.objects import ObjectKey
from services.runtime.settings import Flag, boolean, whole

lease = Parser(secret.parse, "NAMESPACE/NAME of a Lease")
CAPV_LEASE = ObjectKey("capv-system", "capv-controller-manager-runtime")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MachineSettings(ZoneSettings):
    """Settings of services.machine_controller."""

    program: ClassVar[str] = "groundwork-machine-controller"

    workers: Annotated[int, Flag("machines worked on at the same time", whole(1, 1000), "N")] = 16
    all: Annotated[
        bool,
        Flag(
            "take every VSphereMachine and VSphereCluster, not those alone with the label "
            "machine.groundwork.dev/managed=true",
            boolean,
        ),
    ] = False
    clones: Annotated[int, Flag("clones that run at the same time in one vCenter", whole(1, 1000), "N")] = 16
    vcenter_threads: Annotated[
        int, Flag("calls at the same time to one vCenter with one identity", whole(1, 64), "N")
    ] = 4
    identity_secret: Annotated[
        ObjectKey | None,
        Flag("Secret with the vCenter user of clusters that name none (username, password, ca.crt)", secret, "NS/NAME"),
    ] = None
    insecure_vcenter: Annotated[
        bool, Flag("trust vCenters without a thumbprint or CA, whatever their certificate: for labs", boolean)
    ] = False
    capv_lease: Annotated[
        ObjectKey, Flag("Lease of CAPV's controllers; the service does not start while it is held", lease, "NS/NAME")
    ] = CAPV_LEASE
