"""What is said to whoever waits for an address, word for word, and through which API it is claimed."""

from __future__ import annotations

import pytest

from services.capv_integrator import api
from services.capv_integrator.api import PoolRef
from services.capv_integrator.claimobjects import NewClaim
from tests.unit.capv_integrator.worlds import NET, Site, names


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


# Which claim, and which pool


OTHERS = [f"pool-{n}" for n in range(6)]  # names of claims are hashes of these, in any order


@pytest.mark.parametrize("other", OTHERS)
def test_of_two_claims_the_one_that_is_bound_is_used_whatever_they_are_called(site, other):
    site.pool("a", free=1)
    machine = site.machine()
    site.serve()
    first = site.only_claim()
    site.refuse(first)
    site.pool(other, free=1)
    (new,) = site.plan().create
    site.create(machine, new)
    site.bind(first, "10.0.0.10")
    plan = site.plan()
    assert [names(claims) for _, claims in plan.answers] == [[first.name]]
    assert names(plan.release) == [site.name_of(new)]


@pytest.mark.parametrize("free", [1, None])
def test_a_claim_stays_with_a_pool_that_is_not_known_to_be_empty(site, free):
    site.pool("a", free=5)
    site.machine()
    site.serve()
    site.pool("a", free=free)
    site.pool("b", free=9)
    plan = site.plan()
    assert (plan.create, plan.moved, plan.refusal) == ((), (), None)


@pytest.mark.parametrize("written", [False, True])
def test_a_finalizer_that_somebody_removed_is_put_back(site, written):
    site.pool()
    site.machine()
    site.serve()
    if written:
        site.bind(site.only_claim(), "10.0.0.10")
        site.serve()
        # Nothing new can be said of a machine whose cluster is not there; what it has is kept all the same.
        site.remove(site.caches.stores.clusters.values()[0])
    claim = site.only_claim()
    site.change(claim.obj, metadata={"finalizers": []})
    plan = site.plan()
    assert names(plan.adopt) == [claim.name]
    assert names(plan.mark) == ([claim.name] if written else [])


def test_an_api_that_is_missing_is_named():
    site = Site(kinds=())
    site.pool()
    site.machine()
    needs = "needs the API of IPAddressClaim or IPClaim, which the server does not have"
    assert told(site) == ("NoClaimAPI", f"device 0 (net-a): a claim on IPPool ns/pool {needs}")
    site = Site(kinds=("IPAddressClaim",))
    site.pool("p", namespace="infra", allowedNamespaces=["ns"])
    site.machine(metadata={"annotations": {api.POOLS_ANNOTATION: "infra/p"}})
    needs = "needs the API of IPClaim, which the server does not have"
    assert told(site) == ("NoClaimAPI", f"device 0 (net-a): a claim on IPPool infra/p {needs}")


def test_a_family_that_no_pool_offers_any_more_gives_its_claim_back(site):
    site.pool("four")
    six = site.pool("six", first="fd00::1")
    site.machine()
    site.serve()
    (claim,) = [claim for claim in site.claims() if claim.family == "ipv6"]
    assert site.plan().release == ()
    site.remove(six)
    assert names(site.plan().release) == [claim.name]


@pytest.mark.parametrize("other", OTHERS)
def test_of_two_bound_claims_the_one_whose_address_was_written_is_used(site, other):
    site.pool("a")
    machine = site.machine()
    site.serve()
    written = site.only_claim()
    site.bind(written, "10.0.0.10")
    site.serve()
    pool = PoolRef(written.pool.group, "IPPool", "ns", other)
    new = NewClaim("IPAddressClaim", "0", "ipv4", pool)
    site.pool(other)
    site.create(machine, new)
    second = next(claim for claim in site.claims() if claim.name != written.name)
    site.bind(second, "10.0.0.11")
    seen = site.store("VSphereMachine").values()[0]
    site.change(seen, spec={"network": {"devices": NET}})
    plan = site.plan()
    assert [names(claims) for _, claims in plan.answers] == [[written.name]]
    assert names(plan.release) == [second.name]
