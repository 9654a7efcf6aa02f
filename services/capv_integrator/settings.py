"""What the integrator can be told on its command line."""

from __future__ import annotations

import dataclasses
from typing import Annotated, ClassVar

from services.runtime.settings import Flag, Settings, whole


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class IntegratorSettings(Settings):
    """Settings of services.capv_integrator."""

    program: ClassVar[str] = "groundwork-capv-integrator"

    workers: Annotated[int, Flag("machines worked on at the same time", whole(1, 1000), "N")] = 16
    orphan_grace_seconds: Annotated[
        int,
        Flag(
            "how long claims are kept whose VSphereMachine or VSphereCluster was never seen, as during a restore",
            whole(0, 86_400),
            "SECONDS",
        ),
    ] = 60
