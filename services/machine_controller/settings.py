"""What the machine controller can be told on its command line."""

from __future__ import annotations

import dataclasses
import re
from typing import Annotated, ClassVar

from services.runtime.flags import Parser
from services.runtime.kube.objects import ObjectKey
from services.runtime.settings import Flag, Settings, boolean, duration, whole

CAPV_LEASE = ObjectKey("capv-system", "capv-controller-manager-runtime")
"""CAPV v1.16 pkg/manager/constants.go."""
_KEY = re.compile(r"([a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?)/([a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?)")


def _parse_key(value: str) -> ObjectKey:
    match = _KEY.fullmatch(value)
    if match is None:
        raise ValueError
    return ObjectKey(match[1], match[2])


_key = Parser(_parse_key, "NAMESPACE/NAME")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MachineSettings(Settings):
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
        Flag(
            "Secret with the vCenter user of clusters that name none (username, password, ca.crt; servers: where it "
            "may be sent for clusters of other namespaces)",
            _key,
            "NS/NAME",
        ),
    ] = None
    insecure_vcenter: Annotated[
        bool, Flag("trust vCenters without a thumbprint or CA, whatever their certificate: for labs", boolean)
    ] = False
    zone_period: Annotated[
        float, Flag("between two looks at a zone that is ready, since vCenter tells of no change", duration, "TIME")
    ] = 300.0
    zone_tags_secret: Annotated[
        ObjectKey | None,
        Flag(
            "Secret with a vCenter user that may make and attach tags, for failure domains that ask by annotation",
            _key,
            "NS/NAME",
        ),
    ] = None
    capv_lease: Annotated[
        ObjectKey, Flag("Lease of CAPV's controllers; the service does not start while it is held", _key, "NS/NAME")
    ] = CAPV_LEASE
