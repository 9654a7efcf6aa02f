"""`clusterctl move`, as far as an integrator sees it.

Source: cluster-api v1.14 cmd/clusterctl/client/cluster/mover.go and objectgraph.go: pause, create on the target owners
first with owner references rebuilt and without status, then delete on the source in reverse with finalizers removed,
then go on. What has an owner that is not moved is not moved either; what is cluster-scoped is if its definition says
so, and it and what it owns stay on the source as well.
"""

from __future__ import annotations

import contextlib

from services.capv_integrator.api import MOVE_LABEL
from services.ipam.api import GLOBAL_IP_POOLS, IP_POOLS
from services.runtime.kube.errors import NotFound
from services.runtime.kube.resource import CUSTOM_RESOURCE_DEFINITIONS
from tests.support.capv_parts import METAL3_ADDRESSES, METAL3_CLAIMS
from tests.support.tenant import condition


async def move(source, target):
    """Move everything in the first namespace of a world into another world that has a namespace of that name."""
    await source.pause()
    v = source.versions
    order = [v.clusters, IP_POOLS, v.vsphere_clusters, v.templates, v.machines, v.vsphere_machines, v.vsphere_vms]
    order += [v.claims, METAL3_CLAIMS, v.addresses, METAL3_ADDRESSES]
    found = [(resource, obj) for resource in order for obj in await source.kube.list(resource, source.namespace)]
    shared = await _shared(source)
    uids, copied, moved = {}, {obj["metadata"]["uid"] for obj in shared}, []
    for resource, obj in [*((GLOBAL_IP_POOLS, obj) for obj in shared), *found]:
        owners = {ref["uid"] for ref in obj["metadata"].get("ownerReferences", [])}
        if not owners <= uids.keys():
            continue
        uid = obj["metadata"]["uid"]
        made = await target.kube.create(resource, _moved(resource, obj, uids))
        uids[uid] = made["metadata"]["uid"]
        if owners & copied:
            copied.add(uid)
        if uid not in copied:
            moved.append((resource, obj))
    for resource, obj in reversed(moved):
        with contextlib.suppress(NotFound):  # its own controller was quicker
            await source.kube.force_delete(resource, obj["metadata"]["name"], source.namespace)
    await target.pause(False)


async def _shared(source):
    """GlobalIPPools, if their definition has them moved."""
    name = f"{GLOBAL_IP_POOLS.plural}.{GLOBAL_IP_POOLS.group}"
    definition = await source.kube.get(CUSTOM_RESOURCE_DEFINITIONS, name)
    if MOVE_LABEL not in definition["metadata"]["labels"]:
        return []
    return [p for p in await source.kube.list(GLOBAL_IP_POOLS) if p["spec"].get("domain") == source.tenant.domain]


def _moved(resource, obj, uids):
    meta = obj["metadata"]
    kept = {name: meta[name] for name in ("name", "namespace", "labels", "annotations", "finalizers") if name in meta}
    refs = [{**ref, "uid": uids[ref["uid"]]} for ref in meta.get("ownerReferences", [])]
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {**kept, "ownerReferences": refs},
        "spec": obj["spec"],
    }


def is_bound(claim):
    """Whether a claim has an address and says so."""
    return (condition(claim) or {}).get("status") == "True"
