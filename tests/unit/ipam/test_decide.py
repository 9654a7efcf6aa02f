"""The rules for one claim, a row for each: what is known, and what is to be done."""

from __future__ import annotations

import pytest

from services.ipam.decide import Bind, ClusterState, Leave, Refuse, Release
from tests.unit.ipam.worlds import (
    BOUND,
    CAPI,
    METAL3,
    NOW,
    OWN_FINALIZER,
    Setting,
    a_claim,
    at,
    decided,
    global_pool,
    holding,
)


@pytest.mark.parametrize("key", [METAL3, CAPI], ids=lambda key: key.kind)
def test_a_new_claim_gets_the_lowest_free_address(key):
    setting = Setting()
    setting.held_by_others("10.0.0.10")
    assert decided(setting, key=key) == Bind(at("10.0.0.11"))


LEFT_ALONE = {
    "it asks for another provider's pool": {"claim": a_claim(METAL3)._replace(pool=None)},
    "it is paused": {"claim": a_claim(annotations={"cluster.x-k8s.io/paused": ""})},
    "its Cluster is paused": {"cluster": ClusterState.PAUSED},
    "it is paused and being deleted": {
        "claim": a_claim(
            deleting=True, finalizers=[OWN_FINALIZER["IPClaim"]], annotations={"cluster.x-k8s.io/paused": ""}
        )
    },
    "its Cluster is paused and it is being deleted": {
        "claim": a_claim(deleting=True, finalizers=[OWN_FINALIZER["IPClaim"]]),
        "cluster": ClusterState.PAUSED,
    },
    "it is being deleted and its pool is paused": {
        "claim": a_claim(deleting=True, finalizers=[OWN_FINALIZER["IPClaim"]]),
        "paused": True,
    },
    "it is being deleted while somebody else's finalizer says it is in use": {
        "claim": a_claim(deleting=True, finalizers=[OWN_FINALIZER["IPClaim"], "example.com/vm"]),
        "holdings": (holding("10.0.0.10"),),
    },
    "it is being deleted and never held anything": {"claim": a_claim(deleting=True, finalizers=["example.com/vm"])},
    "it has everything": {"complete": True, "holdings": (holding("10.0.0.10"),), "reserved": (at("10.0.0.10"),)},
    "it has its address and the pool was taken away by force": {
        "claim": a_claim(status=BOUND),
        "holdings": (holding("10.0.0.10"),),
        "pool": None,
    },
    "it is gone and holds nothing": {"gone": True},
    "it is gone, holds something and its Cluster is paused": {
        "gone": True,
        "holdings": (holding("10.0.0.10"),),
        "cluster": ClusterState.PAUSED,
        "gone_for": NOW,
    },
}


@pytest.mark.parametrize("known", LEFT_ALONE.values(), ids=LEFT_ALONE.keys())
def test_a_claim_is_left_alone_when(known):
    assert isinstance(decided(Setting(), **known), Leave)


REFUSED = {
    "the pool does not exist": ({"pool": None}, "PoolNotReady", "PoolNotFound", "IPPool ns/pool does not exist"),
    "the pool is paused": ({"paused": True}, "PoolNotReady", "PoolPaused", "is paused"),
    "the pool is being deleted": ({"deleting": True}, "PoolNotReady", "PoolDeleting", "is being deleted"),
    "its Cluster does not exist": (
        {"key": CAPI, "cluster": ClusterState.MISSING},
        "AllocationFailed",
        "ClusterNotFound",
        "Cluster ns/",
    ),
    "its address's name belongs to another provider": (
        {"key": CAPI, "name_taken": True},
        "AllocationFailed",
        "AddressNameTaken",
        "IPAddress ns/claim exists",
    ),
    "its annotation is no address": (
        {"claim": a_claim(annotations={"ipAddress": "10.0.0.300"})},
        "AllocationFailed",
        "AddressMalformed",
        "'10.0.0.300' is not an IP address",
    ),
    "its annotation is outside the pool": (
        {"claim": a_claim(annotations={"ipAddress": "10.0.1.1"})},
        "AllocationFailed",
        "AddressOutsidePool",
        "10.0.1.1 is outside the pool's ranges (10.0.0.10-10.0.0.12)",
    ),
}


@pytest.mark.parametrize(("known", "reason", "token", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_a_claim_is_refused_with_a_reason_when(known, reason, token, message):
    decision = decided(Setting(), **known)
    assert isinstance(decision, Refuse)
    assert (decision.reason, decision.token) == (reason, token)
    assert message in decision.message


def test_a_claim_whose_pool_has_nothing_left_waits_for_capacity():
    setting = Setting()
    setting.held_by_others("10.0.0.10", "10.0.0.11", "10.0.0.12")
    decision = decided(setting)
    assert isinstance(decision, Refuse)
    assert (decision.reason, decision.token, decision.wait.exhausted) == ("PoolExhausted", "PoolExhausted", True)


def test_a_claim_that_wants_a_held_address_is_told_by_whom_and_waits_for_that_address():
    setting = Setting()
    setting.held_by_others("10.0.0.11")
    decision = decided(setting, claim=a_claim(annotations={"ipAddress": "10.0.0.11"}))
    assert decision.token == "AddressTaken"
    assert "holder-of-10.0.0.11" in decision.message
    assert decision.wait.address == at("10.0.0.11")


def test_a_requested_address_is_given():
    claim = a_claim(annotations={"ipAddress": "10.0.0.12"})
    assert decided(Setting(), claim=claim) == Bind(at("10.0.0.12"))


def test_a_pre_allocation_is_given_to_its_claim_whatever_its_kind():
    setting = Setting(pre_allocations={"claim": "10.0.0.12"})
    assert decided(setting) == decided(setting, key=CAPI) == Bind(at("10.0.0.12"))


KEPT = at("10.0.0.12")
FIRST_FREE = at("10.0.0.10")
PRE_ALLOCATIONS = {
    "the name, in the pool's namespace": ({"claim": "10.0.0.12"}, "ns", "ns", KEPT),
    "the name, in another namespace": ({"claim": "10.0.0.12"}, "owner", "ns", FIRST_FREE),
    "namespace and name, in the pool's namespace": ({"ns/claim": "10.0.0.12"}, "ns", "ns", KEPT),
    "namespace and name, in another namespace": ({"ns/claim": "10.0.0.12"}, "owner", "ns", KEPT),
    "the name of another namespace's claim": ({"there/claim": "10.0.0.12"}, "ns", "ns", FIRST_FREE),
    "the longer of two keys": ({"claim": "10.0.0.11", "ns/claim": "10.0.0.12"}, "ns", "ns", KEPT),
    "the name, in a global pool": ({"claim": "10.0.0.12"}, "", "ns", FIRST_FREE),
    "namespace and name, in a global pool": ({"ns/claim": "10.0.0.12"}, "", "ns", KEPT),
}


@pytest.mark.parametrize(("spec", "owner", "namespace", "given"), PRE_ALLOCATIONS.values(), ids=PRE_ALLOCATIONS.keys())
@pytest.mark.parametrize("kind", [METAL3, CAPI])
def test_a_pre_allocation_means_a_claim_of_one_namespace(kind, spec, owner, namespace, given):
    setting = Setting(pre_allocations=spec)
    setting.state.key = setting.state.key._replace(kind="IPPool" if owner else "GlobalIPPool", namespace=owner)
    claim = a_claim(kind._replace(namespace=namespace))
    assert decided(setting, claim=claim, key=claim.key, allowed=("*",)) == Bind(given)


@pytest.mark.parametrize("spec", [{"claim": "10.0.0.12"}, {"there/claim": "10.0.0.12"}])
def test_an_address_that_is_kept_cannot_be_asked_for_from_another_namespace_under_the_name(spec):
    setting = global_pool(pre_allocations=spec)
    decision = decided(setting, claim=a_claim(annotations={"ipAddress": "10.0.0.12"}))
    (key,) = spec
    assert decision.token == "AddressReserved"
    assert decision.message == f"10.0.0.12 is kept for {key!r} by the pool's preAllocations"


def test_an_address_that_a_claim_had_is_not_its_own_again_once_it_is_kept_for_another_of_its_name():
    setting = global_pool(pre_allocations={"there/claim": "10.0.0.12"})
    assert decided(setting, sticky=at("10.0.0.12")) == Bind(at("10.0.0.10"))


def test_a_pre_allocation_and_a_different_annotation_are_a_conflict():
    setting = Setting(pre_allocations={"claim": "10.0.0.12"})
    decision = decided(setting, claim=a_claim(annotations={"ipAddress": "10.0.0.11"}))
    assert decision.token == "AddressConflicting"
    assert "10.0.0.12 by the pool's preAllocations, 10.0.0.11 by the claim's annotation" in decision.message


def test_a_pre_allocation_outside_the_pool_fails_its_claim_and_no_other():
    setting = Setting(pre_allocations={"claim": "10.9.9.9"})
    assert decided(setting).token == "PreAllocationInvalid"
    other = METAL3._replace(name="other")
    assert decided(setting, key=other) == Bind(at("10.0.0.10"))


def test_a_claim_that_returns_gets_its_last_address_while_nobody_waits():
    setting = Setting()
    assert decided(setting, sticky=at("10.0.0.12")) == Bind(at("10.0.0.12"))


def test_a_claim_that_returns_stands_in_line_when_others_need_all_that_is_left():
    setting = Setting()
    setting.held_by_others("10.0.0.10", "10.0.0.11", "10.0.0.12")
    older = METAL3._replace(name="older")
    setting.ledger.wait(setting.state, older, ("2025", 0))
    assert decided(setting, sticky=at("10.0.0.12")).token == "PoolExhausted"


@pytest.mark.parametrize(
    ("namespaces", "served"), [(None, False), (("other",), False), (("ns",), True), (("*",), True), ((), False)]
)
def test_an_ip_pool_serves_other_namespaces_only_if_it_allows_them(namespaces, served):
    setting = Setting()
    elsewhere = METAL3._replace(namespace="ns")
    claim = a_claim(elsewhere)._replace(pool=setting.state.key._replace(namespace="owner"))
    setting.state.key = claim.pool
    decision = decided(setting, claim=claim, allowed=namespaces)
    assert isinstance(decision, Bind) is served
    assert served or decision.token == "NamespaceNotAllowed"


@pytest.mark.parametrize(("namespaces", "served"), [(None, True), ((), False), (("other",), False), (("*",), True)])
def test_a_global_pool_serves_all_namespaces_unless_it_names_some(namespaces, served):
    setting = Setting()
    setting.state.key = setting.state.key._replace(kind="GlobalIPPool", namespace="")
    assert isinstance(decided(setting, allowed=namespaces), Bind) is served


def test_a_cluster_api_claim_needs_a_pool_with_a_prefix_and_a_metal3_claim_does_not():
    setting = Setting(prefix=None)
    assert decided(setting, key=CAPI).token == "PrefixMissing"
    assert decided(setting, key=METAL3) == Bind(at("10.0.0.10"))


def test_a_reservation_that_a_crash_left_is_used():
    assert decided(Setting(), reserved=(at("10.0.0.12"),)) == Bind(at("10.0.0.12"))


def test_what_was_given_is_kept_when_a_pool_serves_the_namespace_no_more():
    setting = global_pool()
    had = holding("10.0.0.10")
    assert decided(setting, holdings=(had,), reserved=(had.at,), allowed=()) == Bind(had.at)


def test_an_address_object_that_the_ledger_does_not_know_is_no_way_into_a_pool_that_is_closed():
    setting = global_pool()
    forged = holding("10.0.0.10")
    for claim in (a_claim(), a_claim(status=BOUND)):
        assert decided(setting, claim=claim, holdings=(forged,), allowed=()).token == "NamespaceNotAllowed"
    assert decided(setting, holdings=(forged,), allowed=("ns",)) == Bind(forged.at)


def test_an_address_that_exists_is_kept_even_when_the_pool_is_going_or_does_not_cover_it():
    setting = Setting()
    for known in ({"deleting": True}, {"paused": True}, {"allowed": ()}):
        assert decided(setting, holdings=(holding("10.7.7.7"),), **known) == Bind(at("10.7.7.7"))


def test_of_several_addresses_the_one_that_status_names_stays_and_the_others_are_returned():
    named, other = holding("10.0.0.10"), holding("10.0.0.11", "p-10-0-0-11")
    claim = a_claim(status=BOUND)
    bare = at("10.0.0.12")
    decision = decided(Setting(), claim=claim, holdings=(other, named), reserved=(named.at, other.at, bare))
    assert decision == Bind(named.at, (other,), (bare,))


def test_of_several_addresses_none_is_returned_before_status_names_one():
    one, two = holding("10.0.0.11", "p-10-0-0-11"), holding("10.0.0.10")
    assert decided(Setting(), holdings=(one, two), reserved=(one.at,)) == Bind(one.at)
    assert decided(Setting(), holdings=(one, two)) == Bind(two.at)


def test_what_an_earlier_claim_of_its_name_had_of_another_pool_is_returned_first():
    known = {"holdings": (holding("10.0.0.10"),), "reserved": (at("10.0.0.10"),)}
    assert decided(Setting(), misplaced=True, **known) == Release()
    assert isinstance(decided(Setting(), misplaced=True, cluster=ClusterState.PAUSED, **known), Leave)


def test_a_deleted_claim_gives_everything_back():
    claim = a_claim(deleting=True, finalizers=[OWN_FINALIZER["IPClaim"]])
    for known in ({}, {"pool": None}, {"cluster": ClusterState.MISSING}, {"deleting": True}):
        assert decided(Setting(), claim=claim, holdings=(holding("10.0.0.10"),), **known) == Release()


def test_a_deleted_claim_of_another_provider_is_freed_of_the_finalizer_that_metal3_left_on_it():
    left = a_claim(CAPI, deleting=True, finalizers=[OWN_FINALIZER["IPAddressClaim"]])._replace(pool=None)
    assert decided(Setting(), claim=left) == Release()
    theirs = a_claim(CAPI, deleting=True, finalizers=["ipam.cluster.x-k8s.io/ReleaseAddress"])._replace(pool=None)
    assert isinstance(decided(Setting(), claim=theirs), Leave)


@pytest.mark.parametrize("finalizer", ["foregroundDeletion", "orphan"])
def test_the_garbage_collectors_finalizers_do_not_hold_an_address(finalizer):
    claim = a_claim(deleting=True, finalizers=[finalizer, OWN_FINALIZER["IPClaim"]])
    assert decided(Setting(), claim=claim, holdings=(holding("10.0.0.10"),)) == Release()


def test_addresses_of_a_claim_that_is_gone_are_returned_after_a_grace_and_not_before():
    setting = Setting()
    held = {"gone": True, "holdings": (holding("10.0.0.10"),), "orphan_grace": 60.0}
    assert decided(setting, gone_for=20.0, **held) == Leave(
        "it is gone; its addresses are kept for a grace", again=40.0
    )
    assert decided(setting, gone_for=60.0, **held) == Release()


def test_an_address_that_somebody_deletes_after_its_claim_is_gone_is_returned_at_once():
    setting = Setting()
    held = {"gone": True, "holdings": (holding("10.0.0.10"),), "gone_for": 0.0, "orphans_deleting": True}
    assert decided(setting, **held) == Release()
