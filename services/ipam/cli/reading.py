"""Reading a snapshot from the API server, each resource once.

Responsible for: finding out what is served, and listing all of it in the order that `Snapshot` promises.
Must not know: what the objects mean.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.console import UnusableError
from services.ipam import api
from services.ipam.cli.snapshot import Snapshot

if TYPE_CHECKING:
    from services.console import Progress
    from services.runtime.kube.discovery import Discovery
    from services.runtime.kube.objects import KubeObject
    from services.runtime.kube.resource import Resource
    from services.runtime.kube.transport import Client


async def take(client: Client, discovery: Discovery, progress: Progress, *, claims: bool = True) -> Snapshot:
    """Read everything; `claims` may be left out. Raises UnusableError when the allocator's definitions are missing."""
    progress.step("asking what the cluster serves")
    required = (api.IP_POOLS, api.GLOBAL_IP_POOLS, api.IP_CLAIMS, api.IP_ADDRESSES, api.IP_RESERVATIONS)
    missing = [str(resource) for resource in required if await discovery.pick((resource,)) is None]
    if missing:
        raise UnusableError(f"the cluster does not serve {', '.join(missing)}: kubectl apply -f deploy/crds")
    capi_claims, capi_addresses = await discovery.pick(api.CAPI_CLAIMS), await discovery.pick(api.CAPI_ADDRESSES)

    async def read(*resources: Resource | None) -> tuple[KubeObject, ...]:
        found: list[KubeObject] = []
        for resource in resources:
            if resource is not None:
                progress.step(f"reading {resource.plural}.{resource.group}")
                found += (await client.list(resource)).items
        return tuple(found)

    return Snapshot(
        pools=await read(api.IP_POOLS, api.GLOBAL_IP_POOLS),
        claims=await read(api.IP_CLAIMS, capi_claims) if claims else (),
        addresses=await read(api.IP_ADDRESSES, capi_addresses),
        reservations=await read(api.IP_RESERVATIONS),
        capi_version=capi_claims.version if capi_claims is not None and capi_addresses is not None else "",
    )
