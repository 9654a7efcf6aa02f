"""What the allocator can be told on its command line."""

from __future__ import annotations

import dataclasses
from typing import Annotated, ClassVar

from services.runtime.settings import Address, Flag, Settings, address, boolean, host, whole

_LOOPBACK = Address("127.0.0.1", 8081)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class IpamSettings(Settings):
    """Settings of services.ipam."""

    program: ClassVar[str] = "groundwork-ipam"

    workers: Annotated[int, Flag("claims worked on at the same time", whole(1, 1000), "N")] = 16
    sticky_limit: Annotated[
        int, Flag("released addresses that a pool remembers for claims that come back", whole(0, 100_000), "N")
    ] = 1024
    sticky_seconds: Annotated[
        int, Flag("how long a pool remembers a released address", whole(0, 31_536_000), "SECONDS")
    ] = 86_400
    orphan_grace_seconds: Annotated[
        int,
        Flag(
            "how long addresses of a claim that does not exist are kept, as for a restore", whole(0, 86_400), "SECONDS"
        ),
    ] = 60
    web: Annotated[bool, Flag("serve the status page, which is read-only", boolean)] = False
    web_address: Annotated[
        Address,
        Flag(
            "where the status page listens, in plain HTTP (the default is reached by kubectl port-forward)",
            address,
            "HOST:PORT",
        ),
    ] = _LOOPBACK
    web_host: Annotated[
        tuple[str, ...],
        Flag(
            "one more name under which the status page is asked for, as of an ingress; repeatable",
            host,
            "NAME",
            repeatable=True,
        ),
    ] = ()
