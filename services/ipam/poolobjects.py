"""Reading pool objects of both kinds, and the Cluster that one belongs to.

Responsible for: what an IPPool or GlobalIPPool object says, whatever state it is in.
Invariant: an object without its CRD's shape is read as an empty spec and a problem, never raised.
Must not know: which of its addresses are taken, the API server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from services.ipam import api, intervals, kinds
from services.ipam.api import PoolKey
from services.ipam.space import PoolSpace, Problem
from services.runtime.kube.objects import view

if TYPE_CHECKING:
    from services.runtime.kube.objects import KubeObject

RESOURCES = {api.IP_POOLS.kind: api.IP_POOLS, api.GLOBAL_IP_POOLS.kind: api.GLOBAL_IP_POOLS}
FINALIZERS = {api.IP_POOLS.kind: api.POOL_FINALIZER, api.GLOBAL_IP_POOLS.kind: api.GLOBAL_POOL_FINALIZER}


def pool_key(obj: KubeObject) -> PoolKey:
    """Key of a pool object."""
    return PoolKey(obj.kind, obj.metadata.namespace, obj.metadata.name)


def read_pool_spec(obj: KubeObject) -> tuple[api.PoolSpec, Problem | None]:
    """Spec of a pool; an empty one and the problem when it does not have its CRD's shape."""
    try:
        return view(obj.spec, api.PoolSpec), None
    except msgspec.ValidationError as error:
        return api.PoolSpec(), Problem("spec", "", str(error))


def read_pool(obj: KubeObject) -> tuple[api.PoolSpec, PoolSpace]:
    """Spec of a pool, and its addresses with every problem that there is with it."""
    spec, problem = read_pool_spec(obj)
    space = PoolSpace(spec)
    if problem is not None:
        space.problems.insert(0, problem)
    if spec.name_prefix and not kinds.is_object_name(f"{spec.name_prefix}-0-0-0-0"):
        expected = "expected lower-case letters, digits, - and ., with the address at most 253 characters"
        space.problems.append(Problem("spec.namePrefix", spec.name_prefix, expected))
    if not obj.metadata.namespace:
        expected = "namespace/name as the key: claims of any namespace may have that name, so none gets it"
        space.problems += [
            Problem(f"spec.preAllocations[{name}]", intervals.text(at), expected)
            for name, at in space.pre_allocations.items()
            if "/" not in name
        ]
    return spec, space


def pool_cluster_name(obj: KubeObject, spec: api.PoolSpec | None = None) -> str:
    """Name of the Cluster that a pool belongs to, or ""; `spec` where it was read already."""
    return (spec or read_pool_spec(obj)[0]).cluster_name or (obj.metadata.labels or {}).get(api.CLUSTER_NAME_LABEL, "")


def cluster_paused(obj: KubeObject) -> bool:
    """Tell whether a Cluster is paused, by spec or by annotation."""
    return view(obj.spec, api.ClusterSpec).paused or kinds.is_paused(obj)
