"""Writes to the ledger's objects: taking an address for a claim, and letting go of it.

Responsible for: every create, update and delete of an IPReservation.
Invariants: creation under the address's name is what decides a race; every other write carries the resourceVersion that
it is based on, so a reservation that changed hands meanwhile is never touched.
Must not know: IPAddresses, conditions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from services.ipam import api, kinds
from services.ipam.slots import Use
from services.runtime.kube.errors import AlreadyExists, NotFound
from services.runtime.kube.objects import KubeObject, ObjectKey, ObjectMeta, raw, view, with_spec

if TYPE_CHECKING:
    from services.ipam.api import ClaimKey, PoolKey
    from services.ipam.caches import Caches
    from services.ipam.kinds import Claim
    from services.runtime.clock import Clock
    from services.runtime.kube.transport import Client


class LostRaceError(Exception):
    """Another writer got the address first."""


class ReservationWriter:
    """Takes and lets go of addresses. `sticky_limit`: how many released addresses a pool remembers."""

    def __init__(self, client: Client, caches: Caches, clock: Clock, *, sticky_limit: int) -> None:
        self._client = client
        self._caches = caches
        self._clock = clock
        self._sticky_limit = sticky_limit

    async def take(self, claim: Claim, domain: str, at: int) -> bool:
        """Take the address in the ledger; False when somebody else has it."""
        name = kinds.reservation_name(domain, at)
        spec = kinds.held_spec(claim, domain, at)
        store = self._caches.reservations
        known = store.get(ObjectKey("", name))
        if known is None:
            obj = KubeObject(
                apiVersion=api.IP_RESERVATIONS.api_version,
                kind=api.IP_RESERVATIONS.kind,
                metadata=ObjectMeta(name=name),
                spec=raw(spec),
            )
            try:
                store.observe(await self._client.create(api.IP_RESERVATIONS, obj))
            except AlreadyExists:
                known = await self._read(name)
            else:
                return True
        read = kinds.read_reservation(known)
        if read is None or read[2].use is Use.ADMIN or (read[2].use is Use.HELD and read[2].claim != claim.key):
            return False
        if read[2].use is Use.RELEASED:
            store.observe(await self._client.update(api.IP_RESERVATIONS, with_spec(known, spec)))
        return True

    async def _read(self, name: str) -> KubeObject:
        """Fetch what the watch has not shown yet. NotFound (it went again) leads to a retry of the claim."""
        try:
            obj = await self._client.get(api.IP_RESERVATIONS, name)
        except NotFound as error:
            if not error.is_of(name):
                raise
            raise LostRaceError from None
        self._caches.reservations.observe(obj)
        return obj

    async def let_go(self, key: ClaimKey, obj: KubeObject, *, keep: bool) -> None:
        """Take a claim off an IPReservation: hand it to another holder, keep it for the claim's return or delete it."""
        read = kinds.read_reservation(obj)
        assert read is not None
        domain, at, _ = read
        spec = view(obj.spec, api.ReservationSpec)
        slot = self._caches.ledger.slot(domain, at)
        heir = next((h for h in slot.holdings if h.claim != key), None) if slot is not None else None
        store = self._caches.reservations
        if heir is not None:
            inherited = api.ReservationClaim(kind=heir.claim.kind, namespace=heir.claim.namespace, name=heir.claim.name)
            pool = api.ReservationPool(kind=heir.pool.kind, namespace=heir.pool.namespace, name=heir.pool.name)
            wanted = with_spec(obj, replace(spec, claim=inherited, pool=pool))
            store.observe(await self._client.update(api.IP_RESERVATIONS, wanted))
            return
        if spec.description:
            # Somebody wrote down what uses the address while a claim had it: from now on it is theirs.
            wanted = with_spec(obj, replace(spec, claim=None, pool=None))
            store.observe(await self._client.update(api.IP_RESERVATIONS, wanted))
            return
        delay = self._keep_seconds(read[2].pool, at) if keep else None
        if delay is not None:
            wanted = with_spec(obj, kinds.released_spec(spec, delay, self._clock.now()))
            store.observe(await self._client.update(api.IP_RESERVATIONS, wanted))
            return
        await self.delete(obj)

    def _keep_seconds(self, pool: PoolKey | None, at: int) -> int | None:
        """Reuse delay under which a released address is kept; None when it is not worth keeping."""
        state = self._caches.ledger.pools.get(pool) if pool is not None else None
        obj = self._caches.pool(pool) if pool is not None else None
        if pool is None or state is None or obj is None or obj.deleting:
            return None
        if not state.space.is_assignable(at) or at in state.space.kept_for:
            return None
        delay = self._caches.specs[pool].reuse_delay_seconds
        return delay if delay or len(state.released) < self._sticky_limit else None

    async def delete(self, obj: KubeObject) -> None:
        """Delete a reservation exactly as it was seen."""
        meta = obj.metadata
        try:
            await self._client.delete(
                api.IP_RESERVATIONS, meta.name, uid=meta.uid, resource_version=meta.resourceVersion
            )
        except NotFound as error:
            if not error.is_of(meta.name):
                raise
        self._caches.reservations.forget(obj.key, meta.uid)
