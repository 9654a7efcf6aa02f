"""What the API server itself accepts and refuses: the rules of our CustomResourceDefinitions, no allocator running."""

from __future__ import annotations

import pytest

from services.ipam.api import GLOBAL_IP_POOLS, IP_ADDRESSES, IP_CLAIMS, IP_POOLS, IP_RESERVATIONS
from services.runtime.kube.errors import Invalid
from tests.support.kube import manifest
from tests.support.tenant import Tenant

BOTH = pytest.mark.parametrize("resource", [IP_POOLS, GLOBAL_IP_POOLS], ids=["IPPool", "GlobalIPPool"])


@pytest.fixture
async def user(kube):
    """A namespace without an allocator."""
    return await Tenant.create(kube)


async def refused(call):
    """The causes for which the API server refuses a call: (field, message) pairs."""
    with pytest.raises(Invalid) as caught:
        await call
    return [(cause["field"], cause["message"]) for cause in caught.value.details["causes"]]


def explained(causes, field, text):
    """Whether a refusal names the field and says why."""
    return any(where == field and text in message for where, message in causes)


# The manifests that metal3's own documentation, examples and end-to-end tests are made of.
METAL3_POOLS = {
    "prefix alone": {"namePrefix": "p"},
    "start and end": {"namePrefix": "p", "pools": [{"start": "192.168.0.10", "end": "192.168.0.30"}]},
    "start alone": {"namePrefix": "p", "pools": [{"start": "192.168.0.10"}]},
    "subnet": {"namePrefix": "p", "pools": [{"subnet": "192.168.1.1/26"}]},
    "subnet narrowed": {"namePrefix": "p", "pools": [{"subnet": "192.168.1.0/24", "start": "192.168.1.9"}]},
    "all of a range": {
        "namePrefix": "p",
        "pools": [
            {
                "start": "192.168.0.10",
                "end": "192.168.0.30",
                "prefix": 25,
                "gateway": "192.168.0.1",
                "dnsServers": ["8.8.8.8", "2001:4860:4860::8888"],
            },
        ],
    },
    "everything": {
        "clusterName": "cluster1",
        "namePrefix": "cluster1-prov",
        "allocationStrategy": "random",
        "pools": [{"start": "192.168.0.10", "end": "192.168.0.30"}, {"subnet": "192.168.1.1/26"}],
        "prefix": 24,
        "gateway": "192.168.1.1",
        "dnsServers": ["8.8.8.8"],
        "preAllocations": {"claim1": "192.168.0.12"},
    },
    "IPv6": {
        "namePrefix": "p",
        "pools": [{"start": "2001:DB8::10", "end": "2001:db8:0::ffff"}, {"subnet": "2001:db8:1::/64"}],
        "prefix": 64,
        "gateway": "2001:db8::1",
        "preAllocations": {"claim1": "2001:db8::0015"},
    },
    "families mixed": {"namePrefix": "p", "pools": [{"subnet": "10.0.0.0/24"}, {"subnet": "2001:db8::/64"}]},
    "prefix of none": {"namePrefix": "p", "pools": [{"subnet": "10.0.0.0/24"}], "prefix": 0},
    "prefix of all": {"namePrefix": "p", "pools": [{"subnet": "2001:db8::/128"}], "prefix": 128},
    "sequential": {"namePrefix": "p", "pools": [{"subnet": "10.0.0.0/24"}], "allocationStrategy": "sequential"},
    "no lists": {"namePrefix": "p", "pools": [], "preAllocations": {}, "dnsServers": []},
}


@pytest.mark.parametrize("spec", METAL3_POOLS)
async def test_a_pool_that_is_valid_for_metal3_is_valid_here_and_kept_as_written(user, spec):
    written = METAL3_POOLS[spec]
    made = await user.kube.create(IP_POOLS, manifest(IP_POOLS, "pool", user.namespace, written))
    defaults = {"allocationStrategy": "sequential", "domain": "default", "allocateReservedAddresses": False}
    assert made["spec"] == {**defaults, **written}


@pytest.mark.parametrize(
    "ref",
    [
        {"name": "pool"},
        {"name": "pool", "namespace": "elsewhere"},
        {
            "apiVersion": "ipam.metal3.io/v1alpha1",
            "kind": "IPPool",
            "name": "pool",
            "namespace": "elsewhere",
            "uid": "x",
        },
    ],
)
async def test_a_claim_that_is_valid_for_metal3_is_valid_here(user, ref):
    obj = manifest(IP_CLAIMS, "claim", user.namespace, {"pool": ref}, annotations={"ipAddress": "192.168.0.16"})
    assert (await user.kube.create(IP_CLAIMS, obj))["spec"] == {"pool": ref}
    made = await user.kube.set_status(
        IP_CLAIMS,
        "claim",
        user.namespace,
        {"address": {"name": "a", "namespace": "b"}, "errorMessage": "Exhausted IP Pools"},
    )
    assert made["status"] == {"address": {"name": "a", "namespace": "b"}, "errorMessage": "Exhausted IP Pools"}


async def test_an_address_that_metal3_made_is_valid_here(user):
    spec = {
        "address": "192.168.0.16",
        "claim": {"name": "claim", "namespace": user.namespace},
        "pool": {"name": "pool", "namespace": user.namespace},
        "prefix": 24,
        "gateway": "192.168.0.1",
        "dnsServers": ["8.8.8.8"],
    }
    made = await user.kube.create(IP_ADDRESSES, manifest(IP_ADDRESSES, "p-192-168-0-16", user.namespace, spec))
    assert made["spec"] == spec


@BOTH
@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"namePrefix": "other"}, "spec.namePrefix"),
        ({"allocationStrategy": "random"}, "spec.allocationStrategy"),
    ],
)
async def test_what_identifies_a_pool_cannot_be_modified(user, resource, change, field):
    await user.pool(user.namespace, "10.0.0.1-10.0.0.9", resource=resource)
    assert explained(await refused(user.change_pool(user.namespace, resource, **change)), field, "cannot be modified")


@BOTH
async def test_the_domain_of_a_pool_cannot_be_modified_while_addresses_are_held(user, resource):
    name = user.namespace
    await user.pool(name, "10.0.0.1-10.0.0.9", resource=resource)
    await user.change_pool(name, resource, domain="before-use")
    counts = {"total": 9, "used": 1, "free": 8, "reserved": 0, "cooling": 0, "outOfRange": 0}
    where = name if resource.namespaced else ""
    await user.kube.set_status(resource, name, where, {"ipAddresses": counts})
    causes = await refused(user.change_pool(name, resource, domain="in-use"))
    assert explained(causes, "spec.domain", "cannot be modified while addresses are held")
    # An address that the pool does not cover any more is held all the same.
    status = {"ipAddresses": {"total": 9, "used": 0, "free": 9, "reserved": 0, "cooling": 0, "outOfRange": 1}}
    await user.kube.set_status(resource, name, user.namespace if resource.namespaced else "", status)
    causes = await refused(user.change_pool(name, resource, domain="in-use"))
    assert explained(causes, "spec.domain", "cannot be modified while addresses are held")


@BOTH
@pytest.mark.parametrize(
    ("spec", "field", "text"),
    [
        ({"namePrefix": ""}, "spec.namePrefix", "at least 1 chars"),
        ({"namePrefix": None}, "spec.namePrefix", "Required value"),
        ({"pools": [{"gateway": "10.0.0.1"}]}, "spec.pools[0]", "needs start or subnet"),
        ({"pools": [{"start": "10.0.0.256"}]}, "spec.pools[0].start", "10.0.0.256"),
        ({"pools": [{"start": "10.0.0.1", "end": "x"}]}, "spec.pools[0].end", "x"),
        ({"pools": [{"subnet": "10.0.0.0"}]}, "spec.pools[0].subnet", "10.0.0.0"),
        ({"pools": [{"subnet": "10.0.0.0/24", "gateway": "gw"}]}, "spec.pools[0].gateway", "gw"),
        ({"pools": [{"subnet": "10.0.0.0/24", "dnsServers": ["dns"]}]}, "spec.pools[0].dnsServers[0]", "dns"),
        ({"pools": [{"subnet": "10.0.0.0/24", "prefix": 129}]}, "spec.pools[0].prefix", "129"),
        ({"prefix": 129}, "spec.prefix", "129"),
        ({"gateway": "10.0.0"}, "spec.gateway", "10.0.0"),
        ({"dnsServers": ["8.8.8"]}, "spec.dnsServers[0]", "8.8.8"),
        ({"preAllocations": {"a": "10.0.0"}}, "spec.preAllocations.a", "10.0.0"),
        ({"allocationStrategy": "fastest"}, "spec.allocationStrategy", "fastest"),
        (
            {"excludedAddresses": ["10.0.0.0/33"]},
            "spec.excludedAddresses[0]",
            "an address, a CIDR or a range first-last",
        ),
        (
            {"excludedAddresses": ["10.0.0.1-x"]},
            "spec.excludedAddresses[0]",
            "an address, a CIDR or a range first-last",
        ),
        ({"excludedAddresses": ["10.0.0.1", "host"]}, "spec.excludedAddresses[1]", "an address, a CIDR or a range"),
        ({"reuseDelaySeconds": -1}, "spec.reuseDelaySeconds", "-1"),
        ({"domain": "Site_A"}, "spec.domain", "Site_A"),
        ({"domain": "a." + "b" * 63}, "spec.domain", "63"),
        ({"allowedNamespaces": ["Kube_System"]}, "spec.allowedNamespaces[0]", "Kube_System"),
    ],
)
async def test_a_mistake_in_a_pool_is_refused_with_field_and_value(user, resource, spec, field, text):
    causes = await refused(user.pool(user.namespace, resource=resource, **{"pools": None, **spec}))
    assert explained(causes, field, text), causes


async def test_a_global_pool_belongs_to_no_cluster(user):
    call = user.pool(user.namespace, "10.0.0.0/24", resource=GLOBAL_IP_POOLS, clusterName="cluster")
    assert explained(await refused(call), "spec.clusterName", "a GlobalIPPool belongs to no cluster")


@pytest.mark.parametrize("change", [{"name": "other"}, {"namespace": "other"}, {"kind": "GlobalIPPool"}])
async def test_the_pool_of_a_claim_cannot_be_modified(user, change):
    await user.claim("claim")
    call = user.kube.patch(IP_CLAIMS, "claim", user.namespace, spec={"pool": change})
    (field,) = change
    assert explained(await refused(call), f"spec.pool.{field}", "cannot be modified")


async def test_a_claim_has_to_name_a_pool(user):
    for ref in ({}, {"name": ""}):
        call = user.kube.create(IP_CLAIMS, manifest(IP_CLAIMS, "claim", user.namespace, {"pool": ref}))
        assert explained(await refused(call), "spec.pool.name", "is required")
    call = user.kube.create(IP_CLAIMS, manifest(IP_CLAIMS, "claim", user.namespace, {}))
    assert explained(await refused(call), "spec.pool", "Required value")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"address": "10.0.0.9"}, "spec.address"),
        ({"claim": {"name": "other"}}, "spec.claim.name"),
        ({"pool": {"name": "other"}}, "spec.pool.name"),
    ],
)
async def test_what_an_address_is_and_whose_cannot_be_modified(user, change, field):
    await user.kube.create(IP_ADDRESSES, user.address_manifest("a", "claim", "10.0.0.1"))
    call = user.kube.patch(IP_ADDRESSES, "a", user.namespace, spec=change)
    assert explained(await refused(call), field, "cannot be modified")


RESERVATIONS = {
    "10.0.0.1": "10.0.0.1",
    "2001:db8::1": "2001-0db8-0000-0000-0000-0000-0000-0001",
    "::": "0000-0000-0000-0000-0000-0000-0000-0000",
}


@pytest.mark.parametrize("address", RESERVATIONS)
async def test_a_reservation_is_named_by_its_address(user, address):
    spec = {"domain": user.domain, "address": address}
    right = f"{user.domain}.{RESERVATIONS[address]}"
    for wrong in (RESERVATIONS[address], f"other.{RESERVATIONS[address]}", f"{right}0", f"{user.domain}.mail"):
        call = user.kube.create(IP_RESERVATIONS, manifest(IP_RESERVATIONS, wrong, "", spec))
        assert explained(await refused(call), "spec.address", "the name must be <domain>.<address>"), wrong
    await user.kube.create(IP_RESERVATIONS, manifest(IP_RESERVATIONS, right, "", spec))


@pytest.mark.parametrize("address", ["10.0.0", "010.0.0.1", "2001:DB8::1", "2001:db8:0::1", "::ffff:10.0.0.1", "host"])
async def test_an_address_with_a_second_spelling_cannot_be_reserved_under_it(user, address):
    name = f"{user.domain}.2001-0db8-0000-0000-0000-0000-0000-0001"
    call = user.kube.create(
        IP_RESERVATIONS, manifest(IP_RESERVATIONS, name, "", {"domain": user.domain, "address": address})
    )
    assert explained(await refused(call), "spec.address", "")


@pytest.mark.parametrize("change", [{"address": "10.0.0.2"}, {"domain": "other"}])
async def test_a_reservation_cannot_become_that_of_another_address(user, change):
    await user.reserve("10.0.0.1")
    name = user.reservation_name("10.0.0.1")
    (field,) = change
    causes = await refused(user.kube.patch(IP_RESERVATIONS, name, spec=change))
    assert explained(causes, f"spec.{field}", "cannot be modified")


async def test_a_reservation_is_either_held_or_released(user):
    claim = {"kind": "IPClaim", "namespace": user.namespace, "name": "claim"}
    causes = await refused(user.reserve("10.0.0.1", claim=claim, releasedAt="2026-01-01T00:00:00Z"))
    assert explained(causes, "spec", "a reservation is held or released, not both")
