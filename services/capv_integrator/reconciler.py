"""The reconciler of VSphereMachines and VSphereClusters: carries out what `decide` says.

Responsible for: the order of writes, which makes a crash at any point harmless:
  bind     claim (complete in one write) -> [the provider binds it] -> patch of the owner -> condition of the claim
  release  GET of the owner -> DELETE of the claim -> our finalizer
Invariants: no claim ends on the word of a cache: the API server is asked for the owner first, and only its own "there
is no such object" counts. The patch that writes an address also notes the claim, so that what was written is known for
as long as the object exists. Nothing here waits: whatever is missing queues the owner when it comes.
Must not know: why something is planned.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.capv_integrator import api, metrics, patches
from services.capv_integrator.caches import MACHINE
from services.capv_integrator.claims import ClaimKey
from services.capv_integrator.decide import Plan, World, decide
from services.capv_integrator.gather import gather
from services.capv_integrator.pools import Refusal
from services.runtime import log
from services.runtime.controller import ReconcileError, Result
from services.runtime.kube.errors import BadRequest, Forbidden, Invalid, NotFound
from services.runtime.kube.objects import KubeObject, ObjectKey, same_json
from services.runtime.kube.transport import PatchKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.capv_integrator.api import PoolRef
    from services.capv_integrator.caches import Caches
    from services.capv_integrator.claimobjects import Claim, OwnerKey
    from services.capv_integrator.claims import ClaimWriter
    from services.capv_integrator.reports import Reporter
    from services.runtime.clock import Clock
    from services.runtime.kube.transport import Client

_LOG = log.get("capv_integrator")
_ATTEMPTS = 5
_MOVE_BACK_SECONDS = 10.0
"""For so long a device does not return to a pool that it was moved away from."""


class _ChangedError(Exception):
    """The owner is not as it was seen; the store knows better now."""


class Reconciler:
    """Brings one owner to where it is served, and its claims to where they belong."""

    def __init__(
        self,
        client: Client,
        caches: Caches,
        claims: ClaimWriter,
        reporter: Reporter,
        clock: Clock,
        *,
        queue_mark: Callable[[ClaimKey], None],
        orphan_grace: float,
    ) -> None:
        """`queue_mark` a claim to be told that its address was written.

        `orphan_grace`: seconds for which claims are kept whose owner this process never saw, as after a restore.
        """
        self._client = client
        self._caches = caches
        self._claims = claims
        self._reporter = reporter
        self._clock = clock
        self._queue_mark = queue_mark
        self._orphan_grace = orphan_grace
        self._missed_since: dict[OwnerKey, float] = {}
        self._left: dict[OwnerKey, dict[tuple[str, PoolRef], float]] = {}

    async def reconcile(self, key: OwnerKey) -> Result | None:
        """Do what one owner needs now."""
        for _ in range(_ATTEMPTS):
            world = gather(self._caches, key, self._grace(key), self._pools_left(key))
            plan = decide(world, self._caches.taken)
            try:
                if plan.release and not await self._confirmed(world):
                    return None
                await self._carry_out(world, plan)
            except _ChangedError:
                continue
            return Result(plan.again) if plan.again is not None else None
        raise ReconcileError(f"{key} changed {_ATTEMPTS} times while it was worked on")

    async def _carry_out(self, world: World, plan: Plan) -> None:
        owner = world.owner
        if owner is None:
            await self._end(world, plan)
            return
        refusal, waiting = plan.refusal, plan.waiting
        for claim in plan.adopt:
            await self._claims.adopt(claim, owner)
        for left in plan.moved:
            self._left.setdefault(world.key, {})[left] = self._clock.monotonic() + _MOVE_BACK_SECONDS
        for new in plan.create:
            refused = await self._claims.create(owner, world.cluster, new)
            refusal = refusal or refused
        if plan.answers:
            refused = await self._write(world, plan, owner)
            if refused is not None:
                await self._reporter.waits(world.key, refused.reason, refused)
                raise ReconcileError(refused.message)
        for claim in plan.mark:
            self._mark(claim)
        for claim in plan.release:
            await self._claims.release(claim, unchanged=True)
        if refusal is not None or waiting:
            await self._reporter.waits(world.key, refusal.reason if refusal is not None else waiting, refusal)
        else:
            await self._reporter.served(world.key, written=bool(plan.answers))

    # Writing addresses

    async def _write(self, world: World, plan: Plan, owner: KubeObject) -> Refusal | None:
        """Write the addresses of places that have all of theirs; a Refusal when the API server will not have them."""
        if world.key.kind == MACHINE:
            answers = {int(place): claims for place, claims in plan.answers}
            operations = patches.machine_patch(owner, world.devices, answers, world.search_domains)
        else:
            operations = patches.cluster_patch(owner, plan.answers[0][1][0])
        resource = api.resource_of(owner)
        try:
            answer = await self._client.patch(
                resource, world.key.name, world.key.namespace, operations, kind=PatchKind.JSON
            )
        except (Invalid, BadRequest, Forbidden) as error:
            # A test that failed and a value that is not accepted give the same answer.
            fresh = await self._fresh(world.key)
            if fresh is None or fresh.metadata.resourceVersion != owner.metadata.resourceVersion:
                metrics.STALE.labels(world.key.kind).inc()
                raise _ChangedError from error
            return Refusal("WriteRefused", f"the API server refuses the addresses: {error.message}")
        self._caches.stores.owners[world.key.kind].observe(answer)
        for place, claims in plan.answers:
            label = next(p.label for p in world.places if p.name == place)
            await self._tell(world.key, label, claims)
        return None

    async def _tell(self, key: OwnerKey, label: str, claims: tuple[Claim, ...]) -> None:
        for claim in claims:
            assert claim.address is not None
            _LOG.info("Wrote an address", address=claim.address.text, place=label, claim=claim.name)
            await self._reporter.wrote(key, f"{label}: {claim.address.text} from {claim.pool}")
            self._mark(claim)

    def _mark(self, claim: Claim) -> None:
        self._queue_mark(ClaimKey(claim.obj.kind, claim.obj.metadata.namespace, claim.name))

    # Letting go

    async def _end(self, world: World, plan: Plan) -> None:
        self._reporter.gone(world.key)
        self._left.pop(world.key, None)
        for claim in plan.release:
            _LOG.info("Releasing the claim of an owner that is gone", claim=claim.name, owner=str(world.key))
            await self._claims.release(claim, unchanged=False)
        if plan.again is None and not any(claim.held for claim in self._caches.claims_of(world.key)):
            self._missed_since.pop(world.key, None)
            self._caches.witnessed.discard(world.key)

    async def _confirmed(self, world: World) -> bool:
        """Ask the API server whether the owner is as it was seen; False when that cannot be told now."""
        if self._caches.served.get(world.key.kind) is None:
            return False
        fresh = await self._fresh(world.key)
        if world.owner is None and fresh is None:
            return True
        if world.owner is None or fresh is None:
            raise _ChangedError
        if fresh.metadata.uid != world.owner.metadata.uid or not same_json(fresh.spec, world.owner.spec):
            raise _ChangedError
        return True

    async def _fresh(self, key: OwnerKey) -> KubeObject | None:
        """Return the owner as the API server has it, and let the store know."""
        resource = self._caches.served.get(key.kind)
        if resource is None:
            raise ReconcileError(f"the server does not know {key.kind} any more")
        store = self._caches.stores.owners[key.kind]
        where = ObjectKey(key.namespace, key.name)
        known = store.get(where)
        try:
            fresh = await self._client.get(resource, key.name, key.namespace)
        except NotFound as error:
            if not error.is_of(key.name):
                # Not the object is unknown but the resource, as while its definition changes.
                raise ReconcileError(f"{key} cannot be looked for: {error.message}") from error
            if known is not None:
                store.forget(where, known.metadata.uid)
            return None
        store.observe(fresh)
        if store.get(where) is None:
            raise ReconcileError(f"{key} exists, although the watch says that it is gone")
        return fresh

    def _pools_left(self, key: OwnerKey) -> dict[tuple[str, PoolRef], float]:
        """Pools that a place does not go back to yet, and the seconds that this lasts."""
        now = self._clock.monotonic()
        left = {what: until for what, until in self._left.pop(key, {}).items() if until > now}
        if left:
            self._left[key] = left
        return {what: until - now for what, until in left.items()}

    def _grace(self, key: OwnerKey) -> float:
        """Seconds for which claims of an owner that does not exist are kept."""
        if ObjectKey(key.namespace, key.name) in self._caches.stores.owners[key.kind]:
            self._missed_since.pop(key, None)
            return 0.0
        if key in self._caches.witnessed:
            return 0.0
        now = self._clock.monotonic()
        return max(0.0, self._orphan_grace - (now - self._missed_since.setdefault(key, now)))
