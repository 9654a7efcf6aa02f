"""`python -m tests.bench.memory [CLAIMS]`: resident memory of the allocator's stores and ledger, without an API server.

Feeds the real stores, indexes and ledger with claims of both kinds, bound, with their IPAddresses and IPReservations as
the API server sends them, and prints the resident size of the process before and after.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import uuid
from pathlib import Path

from services.ipam import intervals, kinds
from services.ipam.caches import Caches
from services.ipam.ledger import Ledger
from services.ipam.poolobjects import pool_key
from services.runtime.kube.objects import KubeObject, decode, encode

NAMESPACE = "default"
CREATED = "2026-05-04T03:02:01Z"
FIRST = intervals.point("10.0.0.1")
READY = {
    "type": "Ready",
    "status": "True",
    "reason": "AddressAllocated",
    "lastTransitionTime": CREATED,
    "observedGeneration": 1,
}
POOL = {
    "apiVersion": "ipam.metal3.io/v1alpha1",
    "kind": "IPPool",
    "metadata": {"name": "pool", "namespace": NAMESPACE, "uid": str(uuid.uuid4()), "resourceVersion": "1"},
    "spec": {"namePrefix": "pool", "prefix": 8, "pools": [{"subnet": "10.0.0.0/8"}]},
}


def resident_mib() -> float:
    """Resident size of this process in MiB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def objects(kind: str, number: int) -> tuple[KubeObject, KubeObject, KubeObject]:
    """A bound claim, its IPAddress and its IPReservation."""
    name, at = f"machine-{number:06d}-0", FIRST + number
    claim = {
        "apiVersion": "ipam.metal3.io/v1alpha1" if kind == kinds.METAL3 else "ipam.cluster.x-k8s.io/v1beta2",
        "kind": kind,
        "metadata": meta(name, number, finalizers=["ipclaim.ipam.metal3.io"]),
        "spec": {"pool": {"name": "pool"}}
        if kind == kinds.METAL3
        else {"poolRef": {"apiGroup": "ipam.metal3.io", "kind": "IPPool", "name": "pool"}},
    }
    read = kinds.read_claim(kind, decode(json.dumps(claim).encode(), KubeObject))
    address_name = kinds.address_names(read.key, read.pool, "pool", "default", at)[0]
    pool = decode(json.dumps(POOL).encode(), KubeObject)
    address = json.loads(encode(kinds.new_address(read, pool, None, at, address_name)))
    address["metadata"] |= meta(address_name, number, finalizers=address["metadata"]["finalizers"])
    message = f"{intervals.text(at)} from IPPool default/pool"
    ref = {"address": {"name": address_name, "namespace": NAMESPACE}}
    if kind != kinds.METAL3:
        ref = {"addressRef": {"name": address_name}}
    claim["status"] = {**ref, "conditions": [{**READY, "message": message}]}
    reservation = {
        "apiVersion": "ipam.groundwork.dev/v1alpha1",
        "kind": "IPReservation",
        "metadata": {k: v for k, v in meta(kinds.reservation_name("default", at), number).items() if k != "namespace"},
        "spec": json.loads(encode(kinds.held_spec(read, "default", at))),
    }
    made = [decode(json.dumps(obj).encode(), KubeObject) for obj in (claim, address, reservation)]
    return made[0], made[1], made[2]


def meta(name: str, number: int, **more: object) -> dict[str, object]:
    """Metadata as the server sends it."""
    return {
        "name": name,
        "namespace": NAMESPACE,
        "uid": str(uuid.uuid4()),
        "resourceVersion": str(10_000 + number),
        "generation": 1,
        "creationTimestamp": CREATED,
        **more,
    }


def main(claims: int = 50_000) -> int:
    """Print the figures."""
    before = resident_mib()
    ledger = Ledger()
    caches = Caches(ledger, lambda _: None, lambda _: None, lambda _: None)
    caches.subscribe()
    pool = decode(json.dumps(POOL).encode(), KubeObject)
    caches.pools["IPPool"].replace([pool], "1")
    for number in range(claims):
        kind = kinds.CAPI if number % 2 else kinds.METAL3
        claim, address, reservation = objects(kind, number)
        caches.reservations.apply("ADDED", reservation)
        caches.addresses[kind].apply("ADDED", address)
        caches.claims[kind].apply("ADDED", claim)
    gc.collect()
    after = resident_mib()
    assert ledger.pools[pool_key(pool)].used == claims, "the ledger holds every claim's address"
    each = (after - before) / claims * 1024
    print(f"{claims:,} claims: {before:.0f} MiB before, {after:.0f} MiB after, {each:.2f} KiB each")
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:2])))
