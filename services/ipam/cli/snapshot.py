"""Every object of the allocator at about one moment, as plain values.

Responsible for: the shape of a snapshot, and what a pool in it is called and says.
Invariants: each list is a consistent one of its resource; the lists are of different moments, claims before IPAddresses
before IPReservations, so whoever compares them has to look twice. Objects of other providers are included.
Must not know: where it was read, what the objects mean to each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

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
