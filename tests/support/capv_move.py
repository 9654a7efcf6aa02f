"""`clusterctl move`, as far as an integrator sees it.

Source: cluster-api v1.14 cmd/clusterctl/client/cluster/mover.go: pause, create on the target owners first with owner
references rebuilt and without status, then delete on the source in reverse with finalizers removed, then go on.
"""

from __future__ import annotations

import contextlib

from services.ipam.api import IP_POOLS
from services.runtime.kube.errors import NotFound
from tests.support.capv_parts import METAL3_ADDRESSES, METAL3_CLAIMS
from tests.support.tenant import condition


async def move(source, target):
    """Move everything in the first namespace of a world into another world that has a namespace of that name."""
    await source.pause()
    v = source.versions
    order = [v.clusters, IP_POOLS, v.vsphere_clusters, v.templates, v.machines, v.vsphere_machines, v.vsphere_vms]
    order += [v.claims, METAL3_CLAIMS, v.addresses, METAL3_ADDRESSES]
    found = [(resource, obj) for resource in order for obj in await source.kube.list(resource, source.namespace)]
    uids = {}
    for resource, obj in found:
        made = await target.kube.create(resource, _moved(resource, obj, uids))
        uids[obj["metadata"]["uid"]] = made["metadata"]["uid"]
    for resource, obj in reversed(found):
        with contextlib.suppress(NotFound):  # its own controller was quicker
            await source.kube.force_delete(resource, obj["metadata"]["name"], source.namespace)
    await target.pause(False)


def _moved(resource, obj, uids):
    meta = obj["metadata"]
    kept = {name: meta[name] for name in ("name", "namespace", "labels", "annotations", "finalizers") if name in meta}
    refs = [{**ref, "uid": uids[ref["uid"]]} for ref in meta.get("ownerReferences", []) if ref["uid"] in uids]
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {**kept, "ownerReferences": refs},
        "spec": obj["spec"],
    }


def is_bound(claim):
    """Whether a claim has an address and says so."""
    return (condition(claim) or {}).get("status") == "True"
