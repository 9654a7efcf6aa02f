"""What a user and a log are told, word for word: each decision that is not an address, whole."""

from __future__ import annotations

import pytest

from services.ipam.api import PoolRange
from services.ipam.decide import Bind, ClusterState, Leave, Refuse
from tests.unit.ipam.worlds import (
    BOUND,
    CAPI,
    METAL3,
    OWN_FINALIZER,
    Setting,
    a_claim,
    at,
    decided,
    global_pool,
    holding,
)

DELETED = {"deleting": True, "finalizers": [OWN_FINALIZER["IPClaim"]]}
HELD = (holding("10.0.0.10"),)

LEFT = {
    "its pool is another provider's": {"claim": a_claim()._replace(pool=None)},
    "it is paused": {"cluster": ClusterState.PAUSED},
    "it has its address": {"complete": True, "holdings": HELD, "reserved": (at("10.0.0.10"),)},
    "it has its address and the pool is gone": {"claim": a_claim(status=BOUND), "holdings": HELD, "pool": None},
    "it is gone and holds nothing": {"gone": True},
    "its Cluster is paused": {"gone": True, "holdings": HELD, "cluster": ClusterState.PAUSED, "gone_for": 1e9},
    "it is being deleted and holds nothing": {"claim": a_claim(deleting=True, finalizers=["example.com/vm"])},
    "it is still used: example.com/a, example.com/b": {
        "claim": a_claim(deleting=True, finalizers=["example.com/a", OWN_FINALIZER["IPClaim"], "example.com/b"]),
        "holdings": HELD,
    },
    "it is still used: example.com/vm": {
        "claim": a_claim(
            CAPI,
            deleting=True,
            finalizers=["example.com/vm", OWN_FINALIZER["IPAddressClaim"], "ipam.cluster.x-k8s.io/ReleaseAddress"],
        )._replace(pool=None)
    },
    "it is being deleted and its pool is paused": {"claim": a_claim(**DELETED), "paused": True},
}


@pytest.mark.parametrize(("why", "known"), LEFT.items(), ids=LEFT.keys())
def test_a_claim_is_left_alone_because(why, known):
    assert decided(Setting(), **known) == Leave(why)


@pytest.mark.parametrize("left", [{"holdings": HELD}, {"reserved": (at("10.0.0.10"),)}])
def test_a_claim_that_lost_our_finalizer_still_gives_back_what_it_holds(left):
    claim = a_claim(deleting=True, finalizers=["example.com/vm"])
    assert decided(Setting(), claim=claim, **left) == Leave("it is still used: example.com/vm")


@pytest.mark.parametrize("known", [{"holdings": HELD}, {"reserved": (at("10.0.0.10"),)}])
def test_what_a_claim_left_is_kept_for_as_long_as_it_was_not_seen_to_be_gone(known):
    assert decided(Setting(), gone=True, **known) == Leave("it is gone; its addresses are kept for a grace", 60.0)


def test_a_reservation_too_many_is_returned_once_the_claim_has_everything_else():
    known = {"complete": True, "holdings": HELD, "reserved": (at("10.0.0.10"), at("10.0.0.11"))}
    assert decided(Setting(), claim=a_claim(status=BOUND), **known) == Bind(at("10.0.0.10"), (), (at("10.0.0.11"),))


@pytest.mark.parametrize(
    "known",
    [
        pytest.param({"reserved": (at("10.0.0.10"),)}, id="reserved and told to nobody"),
        pytest.param({"claim": a_claim(status=BOUND)}, id="told and gone"),
    ],
)
def test_an_address_that_a_claim_has_in_part_is_not_made_whole_without_its_pool(known):
    answer = decided(Setting(), pool=None, **known)
    assert answer == Refuse("PoolNotReady", "PoolNotFound", "IPPool ns/pool does not exist")


@pytest.mark.parametrize("elsewhere", [(), ("other.10.0.0.10",)])
def test_a_claim_that_has_everything_is_looked_at_again_while_it_holds_something_in_another_domain(elsewhere):
    known = {"complete": True, "holdings": HELD, "reserved": (at("10.0.0.10"),), "elsewhere": elsewhere}
    answer = decided(Setting(), claim=a_claim(status=BOUND), **known)
    assert answer == (Bind(at("10.0.0.10")) if elsewhere else Leave("it has its address"))


def test_a_reservation_that_nobody_was_told_of_is_given_up_where_the_pool_does_not_give_it_any_more():
    left = {"reserved": (at("10.7.7.7"),)}
    assert decided(Setting(), **left) == Bind(at("10.0.0.10"), (), (at("10.7.7.7"),))
    assert decided(Setting(), claim=a_claim(status=BOUND), **left) == Bind(at("10.7.7.7"))
    assert decided(Setting(), paused=True, **left).token == "PoolPaused"


def one_without_prefix():
    return Setting(prefix=None, pools=(PoolRange(start="10.0.0.10", end="10.0.0.12"),))


ANSWERS = {
    "another provider's address has its name": (
        Setting,
        {"key": CAPI, "name_taken": True},
        Refuse(
            "AllocationFailed",
            "AddressNameTaken",
            "IPAddress ns/claim exists and was not made for this claim: remove it",
        ),
    ),
    "its namespace is being deleted": (
        Setting,
        {"stranded": True},
        Refuse(
            "AllocationFailed",
            "NamespaceTerminating",
            "Namespace ns is being deleted: nothing can be created in it any more",
        ),
    ),
    "there is no such pool": (
        Setting,
        {"pool": None},
        Refuse("PoolNotReady", "PoolNotFound", "IPPool ns/pool does not exist"),
    ),
    "there is no such Cluster": (
        Setting,
        {"claim": a_claim(CAPI, labels={"cluster.x-k8s.io/cluster-name": "prod"}), "cluster": ClusterState.MISSING},
        Refuse("AllocationFailed", "ClusterNotFound", "Cluster ns/prod, which the claim belongs to, does not exist"),
    ),
    "the pool is not for its namespace": (
        global_pool,
        {"allowed": ("other",)},
        Refuse(
            "AllocationFailed",
            "NamespaceNotAllowed",
            "GlobalIPPool pool does not serve namespace ns (spec.allowedNamespaces)",
        ),
    ),
    "the pool is paused": (Setting, {"paused": True}, Refuse("PoolNotReady", "PoolPaused", "IPPool ns/pool is paused")),
    "the pool is being deleted": (
        Setting,
        {"deleting": True},
        Refuse("PoolNotReady", "PoolDeleting", "IPPool ns/pool is being deleted"),
    ),
    "the annotation is no address": (
        Setting,
        {"claim": a_claim(annotations={"ipAddress": "ten"})},
        Refuse("AllocationFailed", "AddressMalformed", "annotation ipAddress: 'ten' is not an IP address"),
    ),
    "annotation and pre-allocation differ": (
        lambda: Setting(pre_allocations={"claim": "10.0.0.12"}),
        {"claim": a_claim(annotations={"ipAddress": "10.0.0.11"})},
        Refuse(
            "AllocationFailed",
            "AddressConflicting",
            "PreAllocation and requested ip address are conflicting: 10.0.0.12 by the pool's preAllocations, "
            "10.0.0.11 by the claim's annotation",
        ),
    ),
    "the range has no prefix": (
        one_without_prefix,
        {"key": CAPI},
        Refuse(
            "AllocationFailed",
            "PrefixMissing",
            "IPPool ns/pool: spec.pools[0] has no prefix, which a Cluster API address needs",
        ),
    ),
    "what it was told of is in no range any more": (
        one_without_prefix,
        {"claim": a_claim(CAPI, status={"addressRef": {"name": "claim"}}), "key": CAPI, "reserved": (at("10.7.7.7"),)},
        Refuse(
            "AllocationFailed",
            "PrefixMissing",
            "IPPool ns/pool: its range has no prefix, which a Cluster API address needs",
        ),
    ),
}


@pytest.mark.parametrize(("setting", "known", "answer"), ANSWERS.values(), ids=ANSWERS.keys())
def test_a_claim_is_told_that(setting, known, answer):
    assert decided(setting(), **known) == answer


def test_a_pool_without_a_usable_range_says_what_is_wrong_with_each():
    setting = Setting(pools=(PoolRange(start="x"), PoolRange(start="10.0.0.9", end="10.0.0.1")))
    said = decided(setting)
    problems = [str(problem) for problem in setting.state.space.problems]
    assert len(problems) == 2
    assert said == Refuse("PoolNotReady", "InvalidSpec", f"IPPool ns/pool has no usable range: {'; '.join(problems)}")


def test_a_name_prefix_that_makes_no_valid_name_is_refused_for_the_kind_that_uses_it_alone():
    setting = Setting()
    pool = setting.world().pool._replace(name_prefix="Not.Valid_")
    said = "IPPool ns/pool: spec.namePrefix would name the IPAddress 'Not.Valid_-10-0-0-10', which is not valid"
    assert decided(setting, pool=pool) == Refuse("PoolNotReady", "InvalidSpec", said)
    assert decided(setting, pool=pool, key=CAPI) == decided(setting, key=CAPI)
    named = setting.world().pool._replace(name_prefix="valid")
    assert decided(setting, pool=named) == decided(setting)
    # What exists keeps the name that it has.
    assert decided(setting, pool=pool, holdings=HELD) == decided(setting, holdings=HELD)


def test_a_pre_allocation_that_is_none_is_told_with_its_field():
    setting = Setting(pre_allocations={"claim": "10.9.9.9"})
    (problem,) = setting.state.space.problems
    assert decided(setting) == Refuse("AllocationFailed", "PreAllocationInvalid", str(problem))


def test_an_address_that_is_kept_for_another_is_refused_with_the_contract_s_reason():
    setting = Setting(pre_allocations={"other": "10.0.0.12"})
    said = decided(setting, claim=a_claim(annotations={"ipAddress": "10.0.0.12"}))
    assert (said.reason, said.token) == ("AllocationFailed", "AddressReserved")


def test_a_claim_that_returns_goes_behind_those_that_need_every_address_there_is():
    setting = Setting()
    for number in range(3):
        setting.ledger.wait(setting.state, METAL3._replace(name=f"older-{number}"), ("2025", number))
    assert decided(setting, sticky=at("10.0.0.12")).token == "PoolExhausted"
