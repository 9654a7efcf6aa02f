"""Every object of the allocator at about one moment, as plain values.

Responsible for: the shape of a snapshot, and what a pool in it is called and says.
Invariants: each list is a consistent one of its resource; the lists are of different moments, claims before IPAddresses
before IPReservations, so whoever compares them has to look twice. Objects of other providers are included.
Must not know: where it was read, what the objects mean to each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from services.ipam import api
from services.ipam.api import PoolKey
from services.ipam.space import Problem
from services.runtime.kube.objects import view

if TYPE_CHECKING:
    from services.runtime.kube.objects import KubeObject


class Snapshot(NamedTuple):
    """Objects by what they are; kinds that share a field are told apart by `kind` and `apiVersion`."""

    pools: tuple[KubeObject, ...] = ()
    """IPPools and GlobalIPPools."""
    claims: tuple[KubeObject, ...] = ()
    """IPClaims, and IPAddressClaims where they are served."""
    addresses: tuple[KubeObject, ...] = ()
    """IPAddresses of both groups."""
    reservations: tuple[KubeObject, ...] = ()
    capi_version: str = ""
    """Version in which the Cluster API IPAM API is served, "" when it is not."""


def pool_key(obj: KubeObject) -> PoolKey:
    """Key of a pool object."""
    return PoolKey(obj.kind, obj.metadata.namespace, obj.metadata.name)


def pool_spec(obj: KubeObject) -> tuple[api.PoolSpec, Problem | None]:
    """Spec of a pool; an empty one and the problem when it does not have its definition's shape."""
    try:
        return view(obj.spec, api.PoolSpec), None
    except msgspec.ValidationError as error:
        return api.PoolSpec(), Problem("spec", "", str(error))
