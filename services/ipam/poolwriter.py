"""What every pool object carries, written before the first of its addresses is given out.

Responsible for: the finalizer, owner and labels of IPPool and GlobalIPPool.
Invariants: one write at a time for each pool, however many claims need it; a pool that is being deleted is left alone.
Must not know: claims, addresses.
"""

from __future__ import annotations

import asyncio
import weakref
from typing import TYPE_CHECKING

from services.ipam import api
from services.ipam.poolobjects import FINALIZERS, RESOURCES, read_pool_spec
from services.runtime.kube.objects import (
    KubeObject,
    ObjectKey,
    OwnerReference,
    has_finalizer,
    with_current_owner,
    with_finalizer,
    with_labels,
)

if TYPE_CHECKING:
    from services.ipam.api import PoolKey
    from services.ipam.caches import Caches
    from services.runtime.kube.transport import Client


class PoolWriter:
    """Writes the metadata of pools; shared by the reconcilers of pools and of claims."""

    def __init__(self, client: Client, caches: Caches) -> None:
        self._client = client
        self._caches = caches
        self._locks: weakref.WeakValueDictionary[PoolKey, asyncio.Lock] = weakref.WeakValueDictionary()

    async def protect(self, key: PoolKey) -> None:
        """Make sure that a pool cannot vanish while it has addresses."""
        obj = self._caches.pool(key)
        if obj is not None and not obj.deleting and not has_finalizer(obj, FINALIZERS[key.kind]):
            await self.complete(key)

    async def complete(self, key: PoolKey) -> KubeObject | None:
        """Add what a pool lacks and return it as it is now; None when it does not exist."""
        async with self._locks.setdefault(key, asyncio.Lock()):
            obj = self._caches.pool(key)
            wanted = self._completed(key, obj) if obj is not None else None
            if wanted is None or wanted is obj:
                return obj
            written = await self._client.update(RESOURCES[key.kind], wanted)
            self._caches.pools[key.kind].observe(written)
            return written

    def _completed(self, key: PoolKey, obj: KubeObject) -> KubeObject:
        wanted = obj if obj.deleting else with_finalizer(obj, FINALIZERS[key.kind])
        name = read_pool_spec(obj)[0].cluster_name
        if name and key.namespace:
            wanted = with_labels(wanted, {api.CLUSTER_NAME_LABEL: name, api.PROVIDER_LABEL: api.PROVIDER_LABEL_VALUE})
            cluster = self._caches.clusters.get(ObjectKey(key.namespace, name))
            if cluster is not None:
                owner = OwnerReference(
                    apiVersion=cluster.apiVersion, kind="Cluster", name=name, uid=cluster.metadata.uid, controller=False
                )
                wanted = with_current_owner(wanted, owner)
        return wanted
