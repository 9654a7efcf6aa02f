"""Writes to claims: making, completing and ending them.

Responsible for: every create, update and delete of a claim.
Invariants: a claim is made in one write and ended in two (DELETE, then our finalizer goes), so that a crash in between
leaves something that says what it is. A claim of somebody else is never touched.
Must not know: why a claim is made or ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from services.capv_integrator import api, claimobjects, metrics
from services.capv_integrator.caches import MACHINE
from services.capv_integrator.claimobjects import OwnerKey, owner_of, read_claim
from services.capv_integrator.pools import Refusal
from services.runtime.controller import Result
from services.runtime.kube.errors import AlreadyExists, Forbidden, NotFound
from services.runtime.kube.objects import KubeObject, ObjectKey, with_labels, without_finalizers

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.capv_integrator.caches import Caches
    from services.capv_integrator.claimobjects import Claim, NewClaim
    from services.runtime.clock import Clock
    from services.runtime.kube.transport import Client


_MARK_SECONDS = 0.02
"""Between two conditions: a thousand machines that are served at once must not wait for courtesies."""
_POSTPONE_SECONDS = 2.0
_PATIENCE_SECONDS = 60.0
"""A condition is put off while owners wait for addresses that are on their way, but not for longer than this."""


class ClaimKey(NamedTuple):
    """Identity of a claim over both kinds."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        """`IPAddressClaim ns/name`, the form used in logs."""
        return f"{self.kind} {self.namespace}/{self.name}"


class ClaimWriter:
    """Makes, completes and ends claims."""

    def __init__(self, client: Client, caches: Caches, clock: Clock, busy: Callable[[], bool] = lambda: False) -> None:
        """`busy` tells whether there is something more important to write than conditions."""
        self._client = client
        self._caches = caches
        self._clock = clock
        self._busy = busy
        self._unmarkable: set[str] = set()
        self._postponed: dict[ClaimKey, float] = {}

    async def create(self, owner: KubeObject, cluster: str, new: NewClaim) -> Refusal | None:
        """Make a claim, or take over the one of its name that was made for the same; a Refusal if it is another's."""
        resource = self._caches.served.get(new.kind)
        if resource is None:
            return None  # it has just gone; that queues the owner again
        obj = claimobjects.new_claim(resource, owner, cluster, new)
        self._caches.pending[new.pool] += 1
        try:
            made = await self._client.create(resource, obj)
        except AlreadyExists:
            made = await self._client.get(resource, obj.metadata.name, obj.metadata.namespace)
            if owner_of(made) is None and api.CLAIM_FINALIZER in made.metadata.finalizers:
                made = await self._client.update(resource, with_labels(made, {api.OWNER_KIND_LABEL: owner.kind}))
            if owner_of(made) != OwnerKey(owner.kind, owner.metadata.namespace, owner.metadata.name):
                message = f"{made.kind} {made.key} exists and was not made for this: remove it"
                return Refusal("ClaimNameTaken", message)
        except Forbidden as error:
            if error.namespace_terminating:
                return None  # the owner goes with it
            raise
        finally:
            self._caches.pending[new.pool] -= 1
            if not self._caches.pending[new.pool]:
                del self._caches.pending[new.pool]
        self._observe(made)
        metrics.CLAIMS.labels(owner.kind, "created").inc()
        return None

    async def adopt(self, claim: Claim, owner: KubeObject) -> None:
        """Give a claim back its owner and our finalizer."""
        obj = claimobjects.adopted(claim, owner)
        self._observe(await self._client.update(api.resource_of(obj), obj))
        metrics.CLAIMS.labels(owner.kind, "adopted").inc()

    async def mark(self, key: ClaimKey) -> Result | None:
        """Let a claim say where its address was written: a courtesy, at a pace that leaves the server to others.

        metal3's own definition of an IPClaim drops conditions; such a claim is not told again.
        """
        now = self._clock.monotonic()
        if self._busy() and now - self._postponed.setdefault(key, now) < _PATIENCE_SECONDS:
            return Result(requeue_after=_POSTPONE_SECONDS)
        self._postponed.pop(key, None)
        current = self._caches.stores.claims[key.kind].get(ObjectKey(key.namespace, key.name))
        claim = read_claim(current) if current is not None else None
        if claim is None or current is None or current.metadata.uid in self._unmarkable:
            return None
        place = f"device {claim.place}" if claim.owner.kind == MACHINE else "control-plane endpoint"
        obj = claimobjects.written(claim, f"{place} of {claim.owner}", self._clock.now())
        if obj is current:
            return None
        answer = await self._client.update_status(api.resource_of(obj), obj)
        self._observe(answer)
        if not claimobjects.says_written(claim._replace(obj=answer)):
            self._unmarkable.add(current.metadata.uid)
        await self._clock.sleep(_MARK_SECONDS)
        return None

    async def release(self, claim: Claim, *, unchanged: bool) -> None:
        """End a claim; with `unchanged`, only as it was seen (else Conflict): it may have got its address meanwhile."""
        obj = claim.obj
        resource, store = api.resource_of(obj), self._caches.stores.claims[obj.kind]
        self._unmarkable.discard(obj.metadata.uid)
        try:
            if not obj.deleting:
                left = await self._client.delete(
                    resource,
                    obj.metadata.name,
                    obj.metadata.namespace,
                    uid=obj.metadata.uid,
                    resource_version=obj.metadata.resourceVersion if unchanged else None,
                )
                if left is None:
                    store.forget(obj.key, obj.metadata.uid)
                    return
                obj = left
                store.observe(obj)
            bare = without_finalizers(obj, {api.CLAIM_FINALIZER})
            if bare is not obj:
                store.observe(await self._client.update(resource, bare))
        except NotFound as error:
            if not error.is_of(obj.metadata.name):
                raise  # not the claim is unknown but its kind, as while its definition changes
            store.forget(obj.key, obj.metadata.uid)
            return
        finally:
            metrics.CLAIMS.labels(claim.owner.kind, "released").inc()

    def _observe(self, obj: KubeObject) -> None:
        self._caches.stores.claims[obj.kind].observe(obj)
