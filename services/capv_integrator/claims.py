"""Writes to claims: making, completing and ending them.

Responsible for: every create, update and delete of a claim.
Invariants: a claim is made in one write and ended in two (DELETE, then our finalizer goes), so that a crash in between
leaves something that says what it is. A claim of somebody else is never touched.
Must not know: why a claim is made or ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.capv_integrator import api, claimobjects, metrics
from services.capv_integrator.claimobjects import OwnerKey, owner_of
from services.capv_integrator.pools import Refusal
from services.runtime.kube.errors import AlreadyExists, Forbidden, NotFound
from services.runtime.kube.objects import KubeObject, with_labels, without_finalizers

if TYPE_CHECKING:
    from services.capv_integrator.caches import Caches
    from services.capv_integrator.claimobjects import Claim, NewClaim
    from services.runtime.clock import Clock
    from services.runtime.kube.transport import Client


class ClaimWriter:
    """Makes, completes and ends claims."""

    def __init__(self, client: Client, caches: Caches, clock: Clock) -> None:
        self._client = client
        self._caches = caches
        self._clock = clock
        self._unmarkable: set[str] = set()

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

    async def mark(self, claim: Claim, message: str) -> None:
        """Let a claim say where its address was written. A courtesy: metal3's own definition drops conditions."""
        uid = claim.obj.metadata.uid
        current = self._caches.stores.claims[claim.obj.kind].get(claim.obj.key)
        if uid in self._unmarkable or current is None:
            return
        obj = claimobjects.written(claim._replace(obj=current), message, self._clock.now())
        if obj is current:
            return
        answer = await self._client.update_status(api.resource_of(obj), obj)
        self._observe(answer)
        if not claimobjects.says_written(claim._replace(obj=answer)):
            self._unmarkable.add(uid)

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
        except NotFound:
            store.forget(obj.key, obj.metadata.uid)
            return
        finally:
            metrics.CLAIMS.labels(claim.owner.kind, "released").inc()

    def _observe(self, obj: KubeObject) -> None:
        self._caches.stores.claims[obj.kind].observe(obj)
