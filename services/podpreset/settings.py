"""What the pod preset webhook can be told on its command line."""

from __future__ import annotations

import dataclasses
import ipaddress
from typing import Annotated, ClassVar, Final

from services.proxyenv.complete import METADATA_ADDRESS
from services.runtime.flags import Parser
from services.runtime.settings import Flag, WebhookSettings, boolean, duration, namespace, text

__all__ = ["PodPresetSettings"]


def _parse_cidr(value: str) -> str:
    return str(ipaddress.ip_network(value))


_CIDR: Final = Parser(_parse_cidr, "a CIDR without host bits, such as 10.96.0.0/12")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PodPresetSettings(WebhookSettings):
    """Settings of services.podpreset."""

    program: ClassVar[str] = "groundwork-podpreset"

    service_cidr: Annotated[
        tuple[str, ...],
        Flag("range of Services (default: the cluster's ServiceCIDRs)", _CIDR, "CIDR", repeatable=True),
    ] = ()
    pod_cidr: Annotated[
        tuple[str, ...],
        Flag("range of pods (default: what Nodes have in spec.podCIDRs)", _CIDR, "CIDR", repeatable=True),
    ] = ()
    api_server: Annotated[
        tuple[str, ...],
        Flag(
            "address or name of the API server (default: the Service kubernetes and what is behind it)",
            text,
            "HOST",
            repeatable=True,
        ),
    ] = ()
    metadata_address: Annotated[
        tuple[str, ...], Flag("address or name of the cloud's instance metadata", text, "HOST", repeatable=True)
    ] = (METADATA_ADDRESS,)
    untouched_namespace: Annotated[
        tuple[str, ...],
        Flag(
            "leave the pods of this namespace alone, as those of kube-system and of the service's own",
            namespace,
            "NS",
            repeatable=True,
        ),
    ] = ("kube-node-lease",)
    count_pods: Annotated[
        bool, Flag("watch pods, their metadata alone, to count in a preset's status those that carry it", boolean)
    ] = True
    status_period: Annotated[
        float, Flag("how old the counts and conflicts in a preset's status may be", duration, "TIME")
    ] = 10.0
