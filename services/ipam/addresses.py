"""Writes to IPAddresses of both groups: making, completing and removing them.

Responsible for: every create, update and delete of an IPAddress.
Invariants: the spec of an IPAddress is never changed; one that belongs to another claim is never touched.
Must not know: what is reserved, why an address is given or returned.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.ipam import api, kinds
from services.ipam.kinds import CAPI
from services.ipam.reservations import LostRaceError
from services.runtime.controller import ReconcileError
from services.runtime.kube.errors import AlreadyExists, NotFound
from services.runtime.kube.objects import KubeObject, ObjectKey, without_finalizers

if TYPE_CHECKING:
    from services.ipam.api import ClaimKey, PoolKey
    from services.ipam.caches import Caches
    from services.ipam.decide import Pool
    from services.ipam.kinds import Claim
    from services.ipam.slots import Holding
    from services.runtime.kube.transport import Client


class AddressWriter:
    """Makes and removes IPAddresses."""

    def __init__(self, client: Client, caches: Caches) -> None:
        self._client = client
        self._caches = caches

    async def ensure(self, claim: Claim, pool: Pool, holdings: tuple[Holding, ...], at: int) -> KubeObject:
        """Return the claim's IPAddress at a point: the one it has, made complete, or a new one.

        Raises ReconcileError when every name it could have belongs to somebody else, LostRaceError when it turns out
        that the claim has another address.
        """
        kind = claim.key.kind
        store = self._caches.addresses[kind]
        pool_obj = self._caches.pool(pool.state.key)
        if pool_obj is None:
            raise ReconcileError(f"{pool.state.key} went while {claim.key} was being served")
        held = next((h for h in holdings if h.at == at and h.name == claim.bound), None) or next(
            (h for h in holdings if h.at == at), None
        )
        existing = store.get(ObjectKey(held.namespace, held.name)) if held is not None else None
        if existing is not None:
            return await self._complete(claim, pool_obj, existing)
        space = pool.state.space
        names = kinds.address_names(claim.key, pool.state.key, pool.name_prefix, pool.state.domain, at)
        if claim.bound and kind != CAPI:
            # It vanished under a claim that was told its name.
            names = (claim.bound, *names)
        for name in names:
            obj = kinds.new_address(claim, pool_obj, space.range_of(at), at, name)
            try:
                obj = await self._client.create(api.resource_of(obj), obj)
            except AlreadyExists:
                obj = await self._client.get(api.resource_of(obj), name, claim.key.namespace)
                store.observe(obj)
                holding = kinds.read_address(kind, obj)
                if holding is None or holding.claim != claim.key:
                    continue
                if holding.at != at:
                    # The watch is behind: the claim has an address already, which has to be decided upon.
                    raise LostRaceError from None
                return await self._complete(claim, pool_obj, obj)
            store.observe(obj)
            return obj
        raise ReconcileError(f"{claim.key}: an IPAddress named {' or '.join(names)} exists and is not this claim's")

    async def _complete(self, claim: Claim, pool: KubeObject, obj: KubeObject) -> KubeObject:
        """Add what an adopted IPAddress lacks; its name and spec stay."""
        wanted = kinds.completed_address(claim, pool, obj)
        if wanted is not obj and not obj.deleting:
            wanted = await self._client.update(api.resource_of(obj), wanted)
            self._caches.addresses[claim.key.kind].observe(wanted)
        return wanted

    async def unseen(self, key: ClaimKey, pool: PoolKey | None, domain: str, at: int, bound: str) -> bool:
        """Whether a claim has an IPAddress at a point that the watch has yet to show; it is in the store from now on.

        `pool` is the one that the address was given through, `bound` the name in the claim's status.
        """
        store = self._caches.addresses[key.kind]
        spec = self._caches.specs.get(pool) if pool is not None else None
        names: tuple[str, ...] = (key.name,) if key.kind == CAPI else ()
        if pool is not None and spec is not None:
            names = kinds.address_names(key, pool, spec.name_prefix, domain, at)
        for name in dict.fromkeys(filter(None, (bound, *names))):
            if ObjectKey(key.namespace, name) in store:
                continue
            obj = await self._get(key, name)
            if obj is None:
                continue
            store.observe(obj)
            holding = kinds.read_address(key.kind, obj)
            if holding is not None and holding.claim == key and holding.at == at:
                return True
        return False

    async def _get(self, key: ClaimKey, name: str) -> KubeObject | None:
        """Ask the API server for an IPAddress. Raises ReconcileError while it serves no such IPAddresses."""
        served = False
        for resource in api.address_resources(key.kind):
            try:
                return await self._client.get(resource, name, key.namespace)
            except NotFound as error:
                served = served or error.is_of(name)
        if not served:
            raise ReconcileError(f"{key} is kept what it holds: the server does not know its IPAddresses any more")
        return None

    async def remove(self, holding: Holding) -> bool:
        """Delete an IPAddress; False while somebody else's finalizer keeps it.

        The DELETE comes first: whatever stops this half-way leaves an object that says by itself that it is to go. One
        without our finalizer whose claim is gone would say nothing, and the garbage collector keeps what a pool owns.
        """
        store = self._caches.addresses[holding.kind]
        key = ObjectKey(holding.namespace, holding.name)
        obj = store.get(key)
        if obj is None:
            return True
        resource, uid = api.resource_of(obj), obj.metadata.uid
        left: KubeObject | None = obj
        try:
            if not obj.deleting:
                left = await self._client.delete(resource, key.name, key.namespace, uid=uid)
            if left is not None:
                bare = without_finalizers(left, api.ADDRESS_FINALIZERS[holding.kind])
                if bare is not left:
                    store.observe(left)
                    left = await self._client.update(resource, bare)
        except NotFound as error:
            if not error.is_of(key.name):
                raise
            left = None
        if left is not None and left.metadata.finalizers:
            store.observe(left)
            return False
        store.forget(key, uid)
        return True
