"""What the two kinds of claim are read from and written as."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ipam import intervals, kinds
from services.ipam.api import PoolKey, PoolRange, PoolSpec
from services.ipam.space import PoolSpace
from services.runtime.kube.objects import KubeObject, ObjectMeta, OwnerReference, view
from tests.unit.ipam.worlds import CAPI, METAL3, a_claim, at

NOW = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
POOL = KubeObject(
    apiVersion="ipam.metal3.io/v1alpha1",
    kind="IPPool",
    metadata=ObjectMeta(name="pool", namespace="ns", uid="uid-of-pool"),
)
SPAN = PoolSpace(
    PoolSpec(
        name_prefix="p",
        pools=(
            PoolRange(start="10.0.0.10", end="10.0.0.20", prefix=24, gateway="10.0.0.1", dns_servers=("10.0.0.2",)),
        ),
    )
).range_of(at("10.0.0.10"))
NAMES = [
    ("pool1", "192.168.0.13", "pool1-192-168-0-13"),
    ("p", "fd00:5::1", "p-fd00-5--1"),
    ("p", "fd00::", "p-fd00"),
]


@pytest.mark.parametrize(("prefix", "address", "name"), NAMES)
def test_metal3_addresses_are_named_as_metal3_names_them(prefix, address, name):
    names = kinds.address_names(METAL3, PoolKey("IPPool", "ns", "pool"), prefix, "default", at(address))
    assert names[0] == name
    assert names[1].startswith(f"{name}-")


def test_a_cluster_api_address_has_its_claims_name():
    assert kinds.address_names(CAPI, PoolKey("IPPool", "ns", "pool"), "p", "default", at("10.0.0.10")) == ("claim",)


def test_a_metal3_address_carries_what_metal3_writes():
    claim = a_claim(METAL3, labels={"team": "a"})
    obj = kinds.new_address(claim, POOL, SPAN, at("10.0.0.10"), "p-10-0-0-10")
    assert view(obj.spec, dict) == {
        "address": "10.0.0.10",
        "claim": {"name": "claim", "namespace": "ns"},
        "pool": {"name": "pool", "namespace": "ns"},
        "prefix": 24,
        "gateway": "10.0.0.1",
        "dnsServers": ["10.0.0.2"],
    }
    assert obj.metadata.finalizers == ("ipaddress.ipam.metal3.io",)
    assert obj.metadata.labels == {"team": "a"}
    owners = {(o.kind, o.uid, o.controller, o.blockOwnerDeletion) for o in obj.metadata.ownerReferences}
    assert owners == {("IPClaim", "uid-of-claim", None, None), ("IPPool", "uid-of-pool", None, None)}


def test_a_cluster_api_address_carries_what_the_contract_asks_for():
    claim = a_claim(CAPI)
    obj = kinds.new_address(claim._replace(cluster="c1"), POOL, SPAN, at("10.0.0.10"), "claim")
    assert view(obj.spec, dict) == {
        "address": "10.0.0.10",
        "claimRef": {"name": "claim"},
        "poolRef": {"apiGroup": "ipam.metal3.io", "kind": "IPPool", "name": "pool"},
        "prefix": 24,
        "gateway": "10.0.0.1",
    }
    assert obj.metadata.labels == {"cluster.x-k8s.io/cluster-name": "c1"}
    owners = {(o.kind, o.controller, o.blockOwnerDeletion) for o in obj.metadata.ownerReferences}
    assert owners == {("IPAddressClaim", True, True), ("IPPool", False, True)}


def test_a_pool_in_another_namespace_owns_nothing_as_the_garbage_collector_would_delete_it():
    pool = KubeObject(
        apiVersion=POOL.apiVersion, kind="IPPool", metadata=ObjectMeta(name="pool", namespace="elsewhere", uid="u")
    )
    claim = a_claim(METAL3)._replace(pool=PoolKey("IPPool", "elsewhere", "pool"))
    obj = kinds.new_address(claim, pool, SPAN, at("10.0.0.10"), "p-10-0-0-10")
    assert [o.kind for o in obj.metadata.ownerReferences] == ["IPClaim"]


def test_an_adopted_address_keeps_foreign_owners_and_finalizers_and_loses_stale_ones_of_its_claim():
    claim = a_claim(METAL3)
    complete = kinds.new_address(claim, POOL, SPAN, at("10.0.0.10"), "p-10-0-0-10")
    foreign = OwnerReference(apiVersion="v1", kind="ConfigMap", name="x", uid="u")
    stale = OwnerReference(apiVersion="ipam.metal3.io/v1alpha1", kind="IPClaim", name="claim", uid="before-the-restore")
    restored = KubeObject(
        apiVersion=complete.apiVersion,
        kind=complete.kind,
        metadata=ObjectMeta(name="other-name", namespace="ns", finalizers=("a/b",), ownerReferences=(foreign, stale)),
        spec=complete.spec,
    )
    adopted = kinds.completed_address(claim, POOL, restored)
    assert adopted.metadata.name == "other-name"
    assert adopted.spec == restored.spec
    assert adopted.metadata.finalizers == ("a/b", "ipaddress.ipam.metal3.io")
    assert [o.uid for o in adopted.metadata.ownerReferences] == ["u", "uid-of-claim", "uid-of-pool"]
    assert kinds.completed_address(claim, POOL, adopted) is adopted


@pytest.mark.parametrize(
    ("key", "version"),
    [
        (METAL3, None),
        (CAPI, "ipam.cluster.x-k8s.io/v1beta2"),
        (CAPI, "ipam.cluster.x-k8s.io/v1beta1"),
    ],
)
def test_status_goes_from_refused_to_bound_and_back_and_is_written_only_when_it_differs(key, version):
    claim = a_claim(key, api_version=version, status={"other": {"kept": True}})
    address = KubeObject(metadata=ObjectMeta(name="a", namespace="ns"))
    no = kinds.read_claim(key.kind, kinds.refused(claim, "PoolExhausted", "none is free", NOW))
    assert (kinds.ready(no).status, kinds.ready(no).reason, no.bound) == ("False", "PoolExhausted", "")
    assert kinds.refused(no, "PoolExhausted", "none is free", NOW) is no.obj
    yes = kinds.read_claim(key.kind, kinds.bound(no, address, at("10.0.0.10"), NOW))
    assert (kinds.ready(yes).status, kinds.ready(yes).reason, yes.bound) == ("True", "AddressAllocated", "a")
    assert kinds.ready(yes).observedGeneration == 3
    assert kinds.bound(yes, address, at("10.0.0.10"), NOW) is yes.obj
    assert "errorMessage" not in view(yes.obj.status, dict)
    assert view(yes.obj.status, dict)["other"] == {"kept": True}
    again = kinds.read_claim(key.kind, kinds.refused(yes, "PoolNotReady", "gone", NOW))
    assert (again.bound, kinds.ready(again).status) == ("", "False")


def test_a_foreign_condition_without_a_message_is_written_back_with_the_field_that_the_schema_requires():
    foreign = {
        "type": "Paused",
        "status": "False",
        "reason": "NotPaused",
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    claim = a_claim(CAPI, status={"conditions": [foreign]})
    address = KubeObject(metadata=ObjectMeta(name="a", namespace="ns"))
    status = view(kinds.bound(claim, address, at("10.0.0.10"), NOW).status, dict)
    assert status["conditions"][0] == foreign


@pytest.mark.parametrize("key", [METAL3, CAPI])
def test_a_refusal_that_quotes_what_a_tenant_wrote_fits_into_the_status_that_says_it(key):
    obj = kinds.refused(a_claim(key), "AllocationFailed", "x" * 250_000, NOW)
    status = view(obj.status, dict)
    assert status["conditions"][0]["message"] == "x" * 1021 + "..."
    assert status.get("errorMessage", "x" * 1021 + "...") == "x" * 1021 + "..."
    again = kinds.read_claim(key.kind, obj)
    assert kinds.refused(again, "AllocationFailed", "x" * 250_000, NOW) is obj, "written once"


@pytest.mark.parametrize("reason", ["PoolExhausted", "AllocationFailed"])
def test_metal3s_error_message_says_why_there_is_no_address(reason):
    obj = kinds.refused(a_claim(METAL3), reason, "Exhausted IP Pools: ...", NOW)
    assert view(obj.status, dict)["errorMessage"] == "Exhausted IP Pools: ..."


@pytest.mark.parametrize("told", [True, False])
def test_metal3s_error_message_is_absent_while_a_pool_is_not_ready(told):
    before = {"errorMessage": "Exhausted IP Pools: ...", "address": {"name": "a", "namespace": "ns"}}
    obj = kinds.refused(a_claim(METAL3, status=before), "PoolNotReady", "IPPool ns/pool does not exist", NOW, told=told)
    status = view(obj.status, dict)
    assert "errorMessage" not in status
    assert ("address" in status) == told
    assert status["conditions"][0]["message"] == "IPPool ns/pool does not exist"


def test_v1beta1_readers_find_the_condition_where_that_version_has_it():
    claim = a_claim(CAPI, api_version="ipam.cluster.x-k8s.io/v1beta1")
    status = view(kinds.refused(claim, "PoolExhausted", "none", NOW).status, dict)
    (old,) = status["conditions"]
    assert (old["type"], old["status"], old["reason"], old["severity"]) == ("Ready", "False", "PoolExhausted", "Error")
    assert status["v1beta2"]["conditions"][0]["reason"] == "PoolExhausted"


REFS = {
    "own group and kind": ({"apiGroup": "ipam.metal3.io", "kind": "IPPool", "name": "p"}, ("IPPool", "ns", "p")),
    "global": ({"apiGroup": "ipam.groundwork.dev", "kind": "GlobalIPPool", "name": "p"}, ("GlobalIPPool", "", "p")),
    "another kind": ({"apiGroup": "ipam.metal3.io", "kind": "InClusterIPPool", "name": "p"}, None),
    "another group": ({"apiGroup": "ipam.cluster.x-k8s.io", "kind": "IPPool", "name": "p"}, None),
    "no group": ({"kind": "IPPool", "name": "p"}, None),
}


@pytest.mark.parametrize(("ref", "pool"), REFS.values(), ids=REFS.keys())
def test_a_cluster_api_pool_is_matched_by_group_kind_and_name(ref, pool):
    from services.runtime.kube.objects import raw

    obj = KubeObject(kind="IPAddressClaim", metadata=ObjectMeta(name="c", namespace="ns"), spec=raw({"poolRef": ref}))
    assert kinds.read_claim("IPAddressClaim", obj).pool == pool


@given(domain=st.from_regex(r"[a-z0-9]([-a-z0-9]{0,8}[a-z0-9])?", fullmatch=True), point=st.integers(0, (1 << 32) - 1))
def test_reservation_names_are_one_to_one_with_domain_and_address(domain, point):
    six = intervals.V6_BASE + point * 0x1_0000_0001
    for place in (point, six):
        name = kinds.reservation_name(domain, place)
        found_domain, _, rest = name.partition(".")
        assert found_domain == domain
        assert intervals.point(rest.replace("-", ":") if place >= intervals.V6_BASE else rest) == place
        assert len(name) <= 253
