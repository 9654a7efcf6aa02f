"""Keeping away from CAPV: two controllers on the same objects would each make and delete the other's VMs.

Responsible for: telling from CAPV's Lease whether its controllers run.
Invariants: a Lease counts as held while its holder could still be alive; one that was released or long abandoned does
not. What cannot be told is not taken for "no".
Must not know: what the service does otherwise.
Source: CAPV v1.16 pkg/manager/constants.go; client-go tools/leaderelection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from services.runtime.kube.conditions import parse_timestamp
from services.runtime.kube.errors import KubeError, NotFound
from services.runtime.kube.objects import KubeObject, ObjectKey, view
from services.runtime.leader import LEASES
from services.runtime.settings import SettingsError

if TYPE_CHECKING:
    from datetime import datetime

    from services.runtime.clock import Clock
    from services.runtime.kube.transport import Client

_PATIENCE_SECONDS = 60.0
"""Clocks differ, and a controller that is being replaced renews nothing for a while."""
_TRIES = 3
_PAUSE_SECONDS = 2.0


class _LeaseSpec(msgspec.Struct, frozen=True, rename="camel"):
    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    renew_time: str | None = None


async def refuse_beside_capv(client: Client, lease: ObjectKey, clock: Clock) -> None:
    """Raise SettingsError when CAPV's controllers hold their Lease, or when that cannot be found out."""
    error: KubeError | None = None
    for _ in range(_TRIES):
        try:
            found = await client.get(LEASES, lease.name, lease.namespace)
        except NotFound:
            return
        except KubeError as failed:
            error = failed
            await clock.sleep(_PAUSE_SECONDS)
            continue
        if held(found, clock.now()):
            holder = view(found.spec, _LeaseSpec).holder_identity
            raise SettingsError(
                f"CAPV's controllers run here: {holder} holds Lease {lease}. Both would work on the same "
                "VSphereMachines. Remove CAPV (clusterctl delete --infrastructure vsphere) before this service starts"
            )
        return
    raise SettingsError(f"cannot read Lease {lease}, which tells whether CAPV's controllers run: {error}")


def held(lease: KubeObject, now: datetime) -> bool:
    """Whether somebody holds a Lease."""
    spec = view(lease.spec, _LeaseSpec)
    if not spec.holder_identity:
        return False
    if not spec.renew_time:
        return True
    age = (now - parse_timestamp(spec.renew_time)).total_seconds()
    return age < max(_PATIENCE_SECONDS, float(spec.lease_duration_seconds or 0))
