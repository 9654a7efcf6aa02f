"""What is said to whoever waits for an address, word for word, and through which API it is claimed."""

from __future__ import annotations

import pytest

from tests.unit.capv_integrator.worlds import Site


@pytest.fixture
def site():
    return Site()


def told(site, **known):
    """Reason and text of the refusal; None when there is none."""
    refusal = site.plan(**known).refusal
    return None if refusal is None else (refusal.reason, refusal.message)


def test_pools_that_have_nothing_are_all_named_whether_a_claim_is_made_yet_or_not(site):
    site.machine()
    site.pool("a", free=0)
    one = ("PoolExhausted", "device 0 (net-a): IPPool ns/a has no free address")
    assert told(site) == one
    site.serve()
    assert told(site) == one
    site.pool("b", free=0)
    both = "device 0 (net-a): IPPool ns/a has no free address, IPPool ns/b has no free address"
    assert told(site) == ("PoolExhausted", both)


def test_a_pool_with_one_address_has_something(site):
    site.machine()
    site.pool("a", free=1)
    site.serve()
    site.pool("a", free=1)
    assert told(site) is None


@pytest.mark.parametrize(
    ("reason", "free", "said"),
    [
        ("PoolExhausted", 0, ("PoolExhausted", "device 0 (net-a): IPPool ns/a has no free address")),
        ("PoolExhausted", 5, ("PoolExhausted", "device 0 (net-a): IPAddressClaim {name}: why")),
        ("AddressTaken", 0, ("AddressTaken", "device 0 (net-a): IPAddressClaim {name}: why")),
        ("", 5, ("AllocationFailed", "device 0 (net-a): IPAddressClaim {name}: why")),
    ],
)
def test_what_the_provider_says_of_a_claim_is_passed_on_but_for_a_pool_that_is_known_to_be_empty(
    site, reason, free, said
):
    site.machine()
    site.pool("a", free=5)
    site.serve()
    claim = site.only_claim()
    site.refuse(claim, reason, "why")
    site.pool("a", free=free)
    assert told(site) == (said[0], said[1].format(name=claim.name))


def test_an_address_without_a_prefix_is_named(site):
    site.machine()
    site.pool()
    site.serve()
    claim = site.only_claim()
    site.bind(claim, "10.0.0.5", prefix=None)
    text = f"device 0 (net-a): IPAddressClaim {claim.name} got 10.0.0.5 without a prefix, which CAPV needs"
    assert told(site) == ("AddressUnusable", text)


def test_a_pool_of_cluster_scope_is_claimed_from_through_cluster_api(site):
    site.machine()
    site.pool("all", kind="GlobalIPPool")
    assert [new.kind for new in site.plan().create] == ["IPAddressClaim"]


@pytest.mark.parametrize(("devices", "waiting"), [([{"networkName": "net-a"}], "Paused"), ([{"dhcp4": True}], "")])
def test_a_paused_machine_waits_only_if_a_device_does(site, devices, waiting):
    site.machine(devices, metadata={"annotations": {"cluster.x-k8s.io/paused": ""}})
    assert site.plan().waiting == waiting
