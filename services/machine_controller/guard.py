"""Keeping away from CAPV: two controllers on the same objects would each make and delete the other's VMs.

Responsible for: telling from CAPV's Lease whether its controllers run.
Invariants: a Lease counts as held while its holder could still be alive; one that was released or long abandoned does
not. What cannot be told is not taken for "no": an API server that does not answer is asked until it does, and one that
refuses ends the service, since asking again gives no right.
Must not know: what the service does otherwise.
Source: CAPV v1.16 pkg/manager/constants.go; client-go tools/leaderelection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from services.runtime import log
from services.runtime.kube.conditions import parse_timestamp
from services.runtime.kube.errors import ConnectionFailed, KubeError, NotFound, ServerError, TooManyRequests
from services.runtime.kube.objects import KubeObject, ObjectKey, view
from services.runtime.leader import LEASES
from services.runtime.settings import SettingsError

if TYPE_CHECKING:
    from datetime import datetime

    from services.runtime.clock import Clock
    from services.runtime.kube.transport import Client

_PATIENCE_SECONDS = 60.0
"""Clocks differ, and a controller that is being replaced renews nothing for a while."""
_REFUSALS = 3
"""An API server that has just started refuses what its own caches do not allow yet."""
_PAUSE_SECONDS = 2.0
_LOG = log.get("guard")


class _LeaseSpec(msgspec.Struct, frozen=True, rename="camel"):
    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    renew_time: str | None = None


async def refuse_beside_capv(client: Client, lease: ObjectKey, clock: Clock) -> None:
    """Return once CAPV's controllers are known not to hold their Lease, however long the API server is away.

    Raises SettingsError when they hold it, or when the API server refuses to tell.
    """
    found: KubeObject | None = None
    refusals = 0
    while found is None:
        try:
            found = await client.get(LEASES, lease.name, lease.namespace)
        except NotFound:
            return
        except (ConnectionFailed, TooManyRequests, ServerError) as error:
            _LOG.warning("Cannot read CAPV's Lease yet, so nothing starts", lease=str(lease), error=str(error))
        except KubeError as error:
            refusals += 1
            if refusals == _REFUSALS:
                raise SettingsError(
                    f"cannot read Lease {lease}, which tells if CAPV's controllers run: {error}"
                ) from error
        if found is None:
            await clock.sleep(_PAUSE_SECONDS)
    if held(found, clock.now()):
        holder = view(found.spec, _LeaseSpec).holder_identity
        raise SettingsError(
            f"CAPV's controllers run here: {holder} holds Lease {lease}. Both would work on the same "
            "VSphereMachines. Remove CAPV (clusterctl delete --infrastructure vsphere) before this service starts"
        )


def held(lease: KubeObject, now: datetime) -> bool:
    """Whether somebody holds a Lease."""
    spec = view(lease.spec, _LeaseSpec)
    if not spec.holder_identity:
        return False
    if not spec.renew_time:
        return True
    age = (now - parse_timestamp(spec.renew_time)).total_seconds()
    return age < max(_PATIENCE_SECONDS, float(spec.lease_duration_seconds or 0))
