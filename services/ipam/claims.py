"""The claim reconciler: carries out what `decide` says, one guarded write at a time.

Responsible for: the order of writes, which is what makes a crash at any point harmless:
  bind     (once: pool finalizer) -> claim finalizer -> IPReservation -> IPAddress -> claim status
  release  IPAddress (DELETE, then finalizer) -> IPReservation -> claim finalizer
Invariants: an IPAddress exists only while its IPReservation does; every write carries the resourceVersion it is based
on, or a name that only one writer can create. At most four writes each way.
Must not know: why an address was chosen.
"""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

from services.ipam import api, kinds, metrics
from services.ipam.addresses import AddressWriter
from services.ipam.decide import Bind, Leave, Refuse, Release, World, decide
from services.ipam.gather import gather
from services.ipam.reservations import LostRaceError, ReservationWriter
from services.ipam.slots import Use
from services.runtime import log
from services.runtime.controller import ReconcileError, Result
from services.runtime.kube.errors import Forbidden, NotFound
from services.runtime.kube.objects import KubeObject, ObjectKey, view, with_finalizer, without_finalizers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from services.ipam.api import ClaimKey
    from services.ipam.caches import Caches
    from services.ipam.kinds import Claim
    from services.ipam.ledger import Refusal
    from services.ipam.poolstate import PoolState
    from services.ipam.poolwriter import PoolWriter
    from services.ipam.slots import Holding
    from services.runtime.clock import Clock
    from services.runtime.kube.events import EventRecorder
    from services.runtime.kube.resource import Resource
    from services.runtime.kube.transport import Client

_LOG = log.get("ipam.claims")
_RACES = 64
_CONFIRM_SECONDS = 1.0


class _ClaimGoneError(Exception):
    """The API server says that the claim does not exist any more."""


class _StrandedError(Exception):
    """The API server creates nothing any more where the claim is."""


class ClaimReconciler:
    """Brings one claim of either kind to where its spec wants it."""

    def __init__(
        self,
        client: Client,
        caches: Caches,
        reservations: ReservationWriter,
        pools: PoolWriter,
        events: EventRecorder,
        clock: Clock,
        *,
        orphan_grace: float,
        settle_seconds: float,
        rng: random.Random | None = None,
    ) -> None:
        """`settle_seconds`: how long to leave a claim alone that somebody else began to bind."""
        self._client = client
        self._caches = caches
        self._reservations = reservations
        self._pools = pools
        self._addresses = AddressWriter(client, caches)
        self._ledger = caches.ledger
        self._events = events
        self._clock = clock
        self._orphan_grace = orphan_grace
        self._settle_seconds = settle_seconds
        self._rng = rng or random.Random()
        # Both on the monotonic clock: the time of day may be put back by hours.
        self._gone_since: dict[ClaimKey, float] = {}
        self._started_elsewhere: dict[ClaimKey, float] = {}
        self._started_here: set[ClaimKey] = set()
        self._stranded: dict[ClaimKey, str] = {}

    async def reconcile(self, key: ClaimKey) -> Result | None:
        """Do what one claim needs now."""
        for _ in range(_RACES):
            world = self._gather(key)
            decision = decide(world, self._choose)
            try:
                match decision:
                    case Leave(_, again):
                        self._forget(world)
                        return Result(again) if again is not None else None
                    case Refuse():
                        return await self._refuse(world, decision)
                    case Release():
                        return await self._release(world)
                    case Bind():
                        wait = self._settling(world)
                        if wait > 0:
                            return Result(wait)
                        await self._bind(world, decision)
                        return None
            except LostRaceError:
                metrics.LOST_RACES.inc()
            except _ClaimGoneError:
                # Nobody was told of the address, so there is no reason to keep it for a grace.
                self._gone_since[key] = -math.inf
            except _StrandedError:
                assert world.claim is not None
                self._stranded[key] = world.claim.obj.metadata.uid
        raise ReconcileError(f"{key}: lost {_RACES} races for an address in a row")

    # What is known

    def _gather(self, key: ClaimKey) -> World:
        gone_for = 0.0
        if self._caches.claim(key) is None:
            elapsed = self._clock.monotonic()
            gone_for = elapsed - self._gone_since.setdefault(key, elapsed)
        else:
            self._gone_since.pop(key, None)
        world = gather(self._caches, key, self._clock.now().timestamp(), gone_for, self._orphan_grace)
        uid = self._stranded.get(key)
        if uid is None:
            return world
        if world.claim is not None and world.claim.obj.metadata.uid == uid:
            return world._replace(stranded=True)
        del self._stranded[key]
        return world

    def _choose(self, pool: PoolState, claim: Claim, requested: int | None) -> int | Refusal:
        age = self._caches.age(claim.key, claim.obj)
        now = self._clock.now().timestamp()
        return self._ledger.choose(pool, claim.key, age, requested, now, self._rng)

    def _forget(self, world: World) -> None:
        if world.claim is None and not world.holdings and not world.reserved:
            self._gone_since.pop(world.key, None)
        self._ledger.stop_waiting(world.key)
        self._started_here.discard(world.key)
        self._started_elsewhere.pop(world.key, None)

    def _settling(self, world: World) -> float:
        """Seconds to leave a claim alone that carries our finalizer or names an address, by somebody else, and no more.

        Its IPAddress and IPReservation may be on their way through the other watches: without the pause it would be
        given a second address. Without a common Lease another replica may be at it; there it only saves work. One that
        came like that is from a backup, and a restore may bring its IPAddress a good while later.
        """
        claim = world.claim
        assert claim is not None
        if not (claim.protected or claim.bound) or world.holdings or world.key in self._started_here:
            return 0.0
        restored = world.key in self._caches.restored and not world.reserved
        seconds = max(self._orphan_grace, self._settle_seconds) if restored else self._settle_seconds
        elapsed = self._clock.monotonic()
        return seconds - (elapsed - self._started_elsewhere.setdefault(world.key, elapsed))

    # Refusing

    async def _refuse(self, world: World, decision: Refuse) -> Result | None:
        claim = world.claim
        assert claim is not None
        again = None
        refusal = decision.wait
        if refusal is not None and refusal.exhausted and world.pool is not None:
            self._ledger.wait(world.pool.state, claim.key, self._caches.age(claim.key, claim.obj))
        elif refusal is not None and refusal.address is not None and world.pool is not None:
            self._ledger.wait_for(world.pool.state.domain, refusal.address, claim.key)
            again = max(0.0, refusal.until - world.now) if refusal.until is not None else None
        else:
            self._ledger.stop_waiting(claim.key)
        # What it was told of it keeps: somebody may use the address, whatever became of the IPAddress or the pool.
        told = bool(claim.bound and world.reserved)
        for obj in () if world.holdings or told else self._caches.reservations.by_index("held", claim.key):
            await self._let_go(world, obj, keep=False)
        before = kinds.ready(claim)
        obj = kinds.refused(claim, decision.reason, decision.message, self._clock.now(), told=told)
        if obj is not claim.obj:
            await self._write(claim.key.kind, obj, self._client.update_status)
            if before is None or (before.reason, before.message) != (decision.reason, decision.message):
                metrics.REFUSALS.labels(claim.key.kind, decision.token).inc()
                self._events.event(obj, "Warning", decision.token, decision.message, action="Allocate")
        return Result(again) if again is not None else None

    # Binding

    async def _bind(self, world: World, decision: Bind) -> None:
        claim, pool, at = world.claim, world.pool, decision.at
        assert claim is not None
        assert pool is not None
        domain = pool.state.domain
        slot = self._ledger.slot(domain, at)
        reservation = slot.reservation if slot is not None else None
        mine = reservation is not None and reservation.use is Use.HELD and reservation.claim == claim.key
        if not mine:
            # Before anything is awaited, so that no other worker picks the address meanwhile.
            self._ledger.begin(pool.state, at, claim.key)
            self._ledger.stop_waiting(claim.key)
        try:
            await self._pools.protect(pool.state.key)
            claim = await self._protect(claim)
            if not mine and not await self._reservations.take(claim, domain, at) and not world.holdings:
                raise LostRaceError
        finally:
            if not mine:
                self._ledger.settle(domain, at)
        if not world.holdings and self._ledger.pools.get(pool.state.key) is not pool.state:
            raise LostRaceError  # the pool was edited meanwhile, and may be in another domain
        try:
            address = await self._addresses.ensure(claim, pool, world.holdings, at)
        except Forbidden as error:
            if not error.namespace_terminating:
                raise
            raise _StrandedError from None
        await self._report_bound(claim, address, at)
        for holding in decision.surplus:
            await self._return_surplus(claim, holding, at)
        for point in decision.surplus_reserved:
            obj = self._caches.reservations.get(ObjectKey("", kinds.reservation_name(domain, point)))
            if obj is not None:
                await self._let_go(world, obj, keep=False)
        for name in world.elsewhere:
            obj = self._caches.reservations.get(ObjectKey("", name))
            if obj is not None:
                await self._let_go(world, obj, keep=False)
        self._caches.restored.discard(claim.key)
        self._forget(world)

    async def _protect(self, claim: Claim) -> Claim:
        """Put our finalizer on the claim; its resourceVersion guards against a deletion or another replica."""
        if claim.protected:
            return claim
        obj = with_finalizer(claim.obj, api.CLAIM_FINALIZERS[claim.key.kind][0])
        written = await self._write(claim.key.kind, obj, self._client.update)
        self._started_here.add(claim.key)
        return claim._replace(obj=written)

    async def _report_bound(self, claim: Claim, address: KubeObject, at: int) -> None:
        before = kinds.ready(claim)
        obj = kinds.bound(claim, address, at, self._clock.now())
        if obj is claim.obj:
            return
        await self._write(claim.key.kind, obj, self._client.update_status)
        metrics.ALLOCATIONS.labels(claim.key.kind).inc()
        if claim.obj.metadata.creationTimestamp and not claim.bound:
            metrics.observe_bind(claim.obj.metadata.creationTimestamp, self._clock.now())
        if before is not None and before.status != "True":
            # A claim that is served at once says so in its condition; only one that had to wait gets an Event.
            message = f"Got {view(address.spec, api.IPAddressSpec).address} from {claim.pool}"
            self._events.event(obj, "Normal", api.ADDRESS_ALLOCATED, message, action="Allocate")

    async def _write(
        self, kind: str, obj: KubeObject, send: Callable[[Resource, KubeObject], Awaitable[KubeObject]]
    ) -> KubeObject:
        """Write to a claim. One that is gone is forgotten at once, so that what it was given is returned.

        A finalizer does not rule that out: the API server carries a DELETE through that it began before the finalizer
        was written.
        """
        store = self._caches.claims[kind]
        try:
            written = await send(api.resource_of(obj), obj)
        except NotFound as error:
            if not error.is_of(obj.metadata.name):
                raise
            store.forget(obj.key, obj.metadata.uid)
            raise _ClaimGoneError from None
        store.observe(written)
        return written

    async def _return_surplus(self, claim: Claim, holding: Holding, bound: int) -> None:
        _LOG.warning("Returning an address that the claim does not name", claim=str(claim.key), address=holding.name)
        if not await self._addresses.remove(holding):
            return  # somebody else still uses it
        for obj in self._caches.reservations.by_index("held", claim.key):
            read = kinds.read_reservation(obj)
            if read is not None and read[1] == holding.at != bound:
                await self._reservations.let_go(claim.key, obj, keep=False)
        metrics.REPAIRS.labels("surplus address").inc()

    # Releasing

    async def _release(self, world: World) -> Result | None:
        claim = world.claim
        if claim is None and not await self._confirm_gone(world.key):
            return Result(_CONFIRM_SECONDS)
        if claim is not None and world.misplaced and not await self._confirm_same(claim):
            return Result(_CONFIRM_SECONDS)
        self._ledger.stop_waiting(world.key)
        for holding in world.holdings:
            if not await self._addresses.remove(holding):
                return None
        for obj in list(self._caches.reservations.by_index("held", world.key)):
            await self._let_go(world, obj, keep=True)
        if claim is None or world.misplaced:
            metrics.REPAIRS.labels("claim gone").inc()
            _LOG.warning("Returned the addresses of a claim that does not exist", claim=str(world.key))
            return None
        finalizers = api.CLAIM_FINALIZERS[world.key.kind]
        obj = without_finalizers(claim.obj, finalizers[:1] if claim.pool is None else finalizers)
        if obj is not claim.obj:
            store = self._caches.claims[world.key.kind]
            try:
                answer = await self._client.update(api.resource_of(obj), obj)
            except NotFound as error:
                if not error.is_of(obj.metadata.name):
                    raise
                answer = obj
            if answer.metadata.finalizers:
                store.observe(answer)
            else:
                store.forget(claim.obj.key, claim.obj.metadata.uid)
            metrics.RELEASES.labels(world.key.kind).inc()
        self._forget(world)
        return None

    async def _let_go(self, world: World, obj: KubeObject, *, keep: bool) -> None:
        """Let go of a reservation, unless there is an IPAddress after all that the watch has yet to show.

        Another replica may have made it a moment ago: without its reservation the address would be given again.
        """
        read = kinds.read_reservation(obj)
        assert read is not None
        domain, at, reservation = read
        if all(holding.at != at for holding in world.holdings):
            bound = world.claim.bound if world.claim is not None else ""
            if await self._addresses.unseen(world.key, reservation.pool, domain, at, bound):
                raise LostRaceError
        await self._reservations.let_go(world.key, obj, keep=keep)

    async def _confirm_same(self, claim: Claim) -> bool:
        """Ask the API server itself whether the claim is the one that the local copy has."""
        found = await self._client.get(api.resource_of(claim.obj), claim.key.name, claim.key.namespace)
        return found.metadata.uid == claim.obj.metadata.uid

    async def _confirm_gone(self, key: ClaimKey) -> bool:
        """Ask the API server itself before anything is taken from a claim that the local copy does not have.

        Raises ReconcileError while it serves no such claims at all: they may be stored all the same.
        """
        served = False
        for resource in api.claim_resources(key.kind):
            try:
                await self._client.get(resource, key.name, key.namespace)
            except NotFound as error:
                served = served or error.is_of(key.name)
            else:
                return False
        if not served:
            raise ReconcileError(f"{key} is kept what it holds: the server does not know {key.kind} any more")
        return True
