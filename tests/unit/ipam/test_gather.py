"""What is read from the local copies about one claim, where an earlier claim of its name left something."""

from __future__ import annotations

import pytest

from services.ipam import api
from services.ipam.caches import Caches
from services.ipam.gather import gather
from services.ipam.ledger import Ledger
from services.runtime.kube.objects import KubeObject, ObjectMeta, OwnerReference, raw

CLAIM = api.ClaimKey(api.IP_CLAIMS.kind, "ns", "claim")
ADDRESS = "one-10-0-0-1"
READY = {"type": "Ready", "status": "True", "reason": "AddressAllocated", "message": "10.0.0.1 from IPPool ns/one"}
BOUND = {"address": {"name": ADDRESS, "namespace": "ns"}, "conditions": [READY]}


def stored(resource, name, spec, namespace="", status=None, **meta):
    metadata = ObjectMeta(name=name, namespace=namespace, resourceVersion="1", **{"uid": name, **meta})
    shown = {} if status is None else {"status": raw(status)}
    return KubeObject(apiVersion=resource.api_version, kind=resource.kind, metadata=metadata, spec=raw(spec), **shown)


def world(pool="one", status=None, *, owner="claim", address=True, through="one"):
    """World of a claim for a pool, with an IPAddress and an IPReservation made through pool one or another."""
    caches = Caches(Ledger(), lambda _: None, lambda _: None, lambda _: None)
    caches.subscribe()
    spec = {"namePrefix": "one", "pools": [{"start": "10.0.0.1", "end": "10.0.0.9"}]}
    caches.pools["IPPool"].replace([stored(api.IP_POOLS, name, spec, "ns") for name in ("one", "two")], "1")
    owned = OwnerReference(apiVersion=api.IP_CLAIMS.api_version, kind=CLAIM.kind, name=CLAIM.name, uid=owner)
    made = stored(
        api.IP_ADDRESSES,
        ADDRESS,
        {"address": "10.0.0.1", "claim": {"name": CLAIM.name}, "pool": {"name": through}},
        "ns",
        finalizers=api.ADDRESS_FINALIZERS[CLAIM.kind],
        ownerReferences=(owned,),
    )
    caches.addresses[CLAIM.kind].replace([made] if address else [], "1")
    held = {
        "address": "10.0.0.1",
        "claim": CLAIM._asdict(),
        "pool": {"kind": "IPPool", "namespace": "ns", "name": through},
    }
    caches.reservations.replace([stored(api.IP_RESERVATIONS, "default.10.0.0.1", held)], "1")
    claim = stored(
        api.IP_CLAIMS, CLAIM.name, {"pool": {"name": pool}}, "ns", status, finalizers=api.CLAIM_FINALIZERS[CLAIM.kind]
    )
    caches.claims[CLAIM.kind].replace([claim], "1")
    return gather(caches, CLAIM, 0.0, 0.0, 60.0)


def test_a_claim_is_complete_once_it_owns_the_address_that_its_status_names():
    assert world(status=BOUND).complete
    assert not world(status=BOUND, owner="an-earlier-claim").complete


MISPLACED = {
    "an IPAddress of another pool": ({"pool": "two"}, True),
    "a reservation of another pool": ({"pool": "two", "address": False}, True),
    "an IPAddress of its pool": ({}, False),
    "a reservation of its pool": ({"address": False}, False),
    "an IPAddress of another pool that its status names": ({"pool": "two", "status": BOUND}, False),
}


@pytest.mark.parametrize(("known", "misplaced"), MISPLACED.values(), ids=MISPLACED.keys())
def test_what_an_earlier_claim_of_its_name_had_of_another_pool_is_not_its_own(known, misplaced):
    assert world(**known).misplaced is misplaced
