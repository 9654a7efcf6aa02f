"""Claims of both APIs: what is made, what is read, what is changed."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from services.capv_integrator import api, claimobjects
from services.capv_integrator.api import PoolRef
from services.capv_integrator.claimobjects import NewClaim, OwnerKey, read_address, read_claim
from tests.unit.capv_integrator.worlds import NS, Site, plain

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
V1BETA2, V1BETA1 = api.IP_ADDRESS_CLAIMS
(METAL3,) = api.METAL3_CLAIMS
POOL = PoolRef(api.METAL3_GROUP, "IPPool", NS, "pool")


@pytest.fixture
def site():
    return Site()


def made(site, resource=V1BETA2, pool=POOL, place="0", family="ipv4"):
    owner = site.machine() if place.isdigit() else site.vsphere_cluster()
    return claimobjects.new_claim(resource, owner, "c1", NewClaim(resource.kind, place, family, pool))


def test_a_claim_is_complete_from_the_start(site):
    obj = plain(made(site))
    name = obj["metadata"].pop("name")
    (owner,) = obj["metadata"].pop("ownerReferences")
    assert name.startswith("m1-0-")
    assert (owner["kind"], owner["name"], set(owner)) == ("VSphereMachine", "m1", {"apiVersion", "kind", "name", "uid"})
    assert obj == {
        "apiVersion": "ipam.cluster.x-k8s.io/v1beta2",
        "kind": "IPAddressClaim",
        "metadata": {
            "namespace": NS,
            "labels": {
                "cluster.x-k8s.io/cluster-name": "c1",
                "clusterctl.cluster.x-k8s.io/move-hierarchy": "",
                "integrator.groundwork.dev/owner-kind": "VSphereMachine",
            },
            "annotations": {
                "integrator.groundwork.dev/owner": "m1",
                "integrator.groundwork.dev/device": "0",
                "integrator.groundwork.dev/family": "ipv4",
            },
            "finalizers": ["integrator.groundwork.dev/in-use"],
        },
        "spec": {
            "clusterName": "c1",
            "poolRef": {"apiGroup": "ipam.metal3.io", "kind": "IPPool", "name": "pool"},
        },
    }


METAL3_REFS = {
    POOL: {"name": "pool", "namespace": NS},
    POOL._replace(namespace="infra"): {"name": "pool", "namespace": "infra"},
    PoolRef(api.OWN_GROUP, "GlobalIPPool", "", "g"): {
        "apiVersion": "ipam.groundwork.dev/v1alpha1",
        "kind": "GlobalIPPool",
        "name": "g",
    },
}


@pytest.mark.parametrize("pool", METAL3_REFS, ids=str)
def test_a_metal3_claim_names_its_pool_as_metal3_does(site, pool):
    assert plain(made(site, METAL3, pool))["spec"] == {"pool": METAL3_REFS[pool]}


EVERY_POOL = [
    *[(resource, pool) for resource in (V1BETA2, V1BETA1) for pool in (POOL, next(reversed(METAL3_REFS)))],
    *[(METAL3, pool) for pool in METAL3_REFS],
    (V1BETA2, PoolRef(api.IPAM_GROUP, "InClusterIPPool", NS, "p")),
    (V1BETA2, PoolRef(api.IPAM_GROUP, "GlobalInClusterIPPool", "", "p")),
    (V1BETA2, PoolRef("example.org", "Net", "", "p")),
]


@pytest.mark.parametrize(("resource", "pool"), EVERY_POOL, ids=str)
def test_what_is_written_is_read_again(site, resource, pool):
    claim = read_claim(made(site, resource, pool, family="ipv6"))
    assert (claim.owner, claim.place, claim.family, claim.pool) == (
        OwnerKey("VSphereMachine", NS, "m1"),
        "0",
        "ipv6",
        pool,
    )
    assert claim.held
    assert claim.bound is None


def test_the_claim_of_an_endpoint_is_told_from_that_of_a_device(site):
    claim = read_claim(made(site, place="endpoint"))
    assert (claim.owner.kind, claim.place) == ("VSphereCluster", "endpoint")


@pytest.mark.parametrize(
    "metadata",
    [
        {"labels": {}},
        {"annotations": {}},
        {"labels": {api.OWNER_KIND_LABEL: "Pod"}},
    ],
)
def test_a_claim_of_somebody_else_is_not_read(site, metadata):
    obj = site.create(site.machine(), NewClaim("IPAddressClaim", "0", "ipv4", POOL))
    assert read_claim(site.change(obj, metadata=metadata)) is None


BOUND = {
    V1BETA2: ({"addressRef": {"name": "a"}}, (NS, "a")),
    METAL3: ({"address": {"name": "a", "namespace": "infra"}}, ("infra", "a")),
}


@pytest.mark.parametrize("resource", BOUND, ids=str)
def test_the_address_that_a_claim_got_is_named_by_its_status(site, resource):
    status, expected = BOUND[resource]
    obj = site.create(site.machine(), NewClaim(resource.kind, "0", "ipv4", POOL))
    assert read_claim(site.change(obj, status=status)).bound == expected
    assert read_claim(site.change(obj, status={})).bound is None


READY = {"type": "Ready", "status": "False", "reason": "PoolExhausted", "message": "none", "lastTransitionTime": "x"}
REFUSALS = {
    "v1beta2": ("v1beta2", {"conditions": [READY]}, ("PoolExhausted", "none")),
    "v1beta1": ("v1beta1", {"conditions": [{**READY, "severity": "Error"}]}, ("PoolExhausted", "none")),
    "v1beta1, new style": ("v1beta1", {"v1beta2": {"conditions": [READY]}}, ("PoolExhausted", "none")),
    "v1beta1, both": (
        "v1beta1",
        {"v1beta2": {"conditions": [READY]}, "conditions": [{**READY, "reason": "Old"}]},
        ("PoolExhausted", "none"),
    ),
    "ready": ("v1beta2", {"conditions": [{**READY, "status": "True"}]}, None),
    "no condition": ("v1beta2", {}, None),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_refusal_is_read_in_each_style(case):
    version, status, expected = REFUSALS[case]
    site = Site(version=version)
    obj = site.create(site.machine(), NewClaim("IPAddressClaim", "0", "ipv4", POOL))
    found = read_claim(site.change(obj, status=status)).refusal
    assert (found and (found.reason, found.message)) == expected


def test_metal3_s_error_message_is_a_refusal(site):
    obj = site.create(site.machine(), NewClaim("IPClaim", "0", "ipv4", POOL))
    found = read_claim(site.change(obj, status={"errorMessage": "Exhausted IP Pools"})).refusal
    assert (found.reason, found.message) == ("AllocationFailed", "Exhausted IP Pools")


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"address": "10.0.0.5", "prefix": 24, "gateway": "10.0.0.1"}, ("10.0.0.5", 24, "10.0.0.1", ())),
        ({"address": "FD00:0::5", "prefix": 64, "dnsServers": ["fd00::2"]}, ("fd00::5", 64, "", ("fd00::2",))),
        ({"address": "10.0.0.5"}, ("10.0.0.5", None, "", ())),
        ({"address": "nonsense"}, None),
        ({}, None),
    ],
)
def test_an_address_is_read_in_one_spelling(site, spec, expected):
    store = site.caches.stores.addresses["IPAddressClaim"]
    found = read_address(site.put("IPAddress", "a", group=api.IPAM_GROUP, store=store, spec=spec))
    assert (found and (found.text, found.prefix, found.gateway, found.dns_servers)) == expected


def test_a_stale_owner_is_replaced_and_others_are_kept(site):
    owner = site.machine()
    obj = site.create(owner, NewClaim("IPAddressClaim", "0", "ipv4", POOL))
    other = {"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "x"}
    mine = plain(obj)["metadata"]["ownerReferences"][0]
    for stale in ([{**mine, "uid": "old"}], [{**mine, "apiVersion": "infrastructure.cluster.x-k8s.io/v1beta1"}], []):
        seen = site.change(obj, metadata={"ownerReferences": [*stale, other]})
        refs = plain(claimobjects.adopted(read_claim(seen), owner))["metadata"]["ownerReferences"]
        assert refs == [other, mine]
    whole = site.change(obj, metadata={"ownerReferences": [mine, other]})
    assert claimobjects.adopted(read_claim(whole), owner) is whole


@pytest.mark.parametrize("version", ["v1beta1", "v1beta2"])
def test_the_condition_is_written_in_the_style_of_the_version(version):
    site = Site(version=version)
    obj = site.create(site.machine(), NewClaim("IPAddressClaim", "0", "ipv4", POOL))
    other = {"type": "Ready", "status": "True", "lastTransitionTime": "x"}
    obj = site.change(obj, status={"addressRef": {"name": "a"}, "conditions": [other]})
    changed = claimobjects.written(read_claim(obj), "device 0", NOW)
    row = {"type": api.CLAIM_CONDITION, "status": "True", "lastTransitionTime": "2026-01-02T03:04:05Z"}
    row |= {"message": "device 0"} | ({"reason": "AddressWritten"} if version == "v1beta2" else {})
    assert plain(changed)["status"] == {"addressRef": {"name": "a"}, "conditions": [other, row]}
    assert claimobjects.says_written(read_claim(changed))
    later = datetime(2027, 1, 1, tzinfo=UTC)
    assert claimobjects.written(read_claim(changed), "device 0", later) is changed
