"""What a machine or a cluster needs now, told as what is seen and what is planned."""

from __future__ import annotations

import pytest

from services.capv_integrator import api
from services.capv_integrator.claimobjects import NewClaim
from tests.unit.capv_integrator.worlds import NET, NS, Site, names

HELD_CLAIM = {"finalizers": [api.CLAIM_FINALIZER], "deletionTimestamp": "2026-01-01T00:00:00Z"}
DELETING = {"deletionTimestamp": "2026-01-01T00:00:00Z"}
PAUSED = {"annotations": {api.PAUSED_ANNOTATION: ""}}


@pytest.fixture
def site():
    return Site()


@pytest.fixture
def written(site):
    """A machine whose address was written, and its claim."""
    site.pool()
    site.machine()
    site.serve()
    site.bind(site.only_claim(), "10.0.0.10")
    site.serve()
    return site.only_claim()


def pools(plan):
    return [(new.place, new.pool.name) for new in plan.create]


# Claiming


def test_a_device_that_waits_is_claimed_for(site):
    site.pool()
    site.machine([*NET, {"networkName": "net-a", "dhcp4": True}, *NET])
    plan = site.plan()
    assert pools(plan) == [("0", "pool"), ("2", "pool")]
    assert {new.kind for new in plan.create} == {"IPAddressClaim"}
    assert plan.waiting == "WaitingForAddress"
    assert plan.refusal is None


@pytest.mark.parametrize("device", [{"dhcp4": True}, {"dhcp6": True}, {"skipIPAllocation": True}])
def test_a_device_that_does_not_wait_is_left_alone(site, device):
    site.pool()
    site.machine([{"networkName": "net-a", **device}])
    assert site.plan() == site.plan()._replace(create=(), answers=(), release=(), waiting="")


def test_nothing_is_claimed_before_machine_and_cluster_are_known(site):
    site.pool()
    obj = site.machine()
    site.remove(site.caches.stores.machines.values()[0])
    assert (site.plan().create, site.plan().waiting) == ((), "WaitingForMachine")
    site.machine()
    site.change(obj, metadata={"ownerReferences": []})
    assert (site.plan().create, site.plan().waiting) == ((), "WaitingForMachine")
    site.machine()
    site.remove(site.caches.stores.clusters.values()[0])
    assert (site.plan().create, site.plan().waiting) == ((), "WaitingForCluster")


def test_a_machine_without_static_devices_waits_for_nothing(site):
    obj = site.machine([{"networkName": "net-a", "dhcp4": True}])
    site.change(obj, metadata={"ownerReferences": []})
    assert site.plan().waiting == ""


def test_the_cluster_s_name_may_stand_in_the_machine_s_spec_alone(site):
    site.pool(labels={api.CLUSTER_KEY: "c1"})
    site.machine()
    site.change(site.caches.stores.machines.values()[0], metadata={"labels": None})
    assert pools(site.plan()) == [("0", "pool")]


@pytest.mark.parametrize("who", ["machine", "cluster's annotation", "cluster's spec"])
def test_what_is_paused_is_left_alone(site, written, who):
    machine = site.store("VSphereMachine").values()[0]
    site.change(written.obj, metadata=HELD_CLAIM)
    site.change(machine, spec={"network": {"devices": NET}}, metadata={"annotations": {}})
    cluster = site.caches.stores.clusters.values()[0]
    assert site.plan().release, "it would be replaced"
    if who == "machine":
        site.change(site.store("VSphereMachine").values()[0], metadata=PAUSED)
    elif who == "cluster's spec":
        site.change(cluster, spec={"paused": True})
    else:
        site.change(cluster, metadata=PAUSED)
    plan = site.plan()
    assert plan == plan._replace(adopt=(), create=(), answers=(), mark=(), release=(), refusal=None)
    assert plan.waiting == "Paused"


def test_a_machine_that_is_being_deleted_is_given_nothing_and_keeps_what_it_has(site):
    site.pool()
    obj = site.machine()
    site.serve()
    site.bind(site.only_claim(), "10.0.0.10")
    assert site.plan().answers
    site.change(obj, metadata=DELETING)
    assert site.plan() == site.plan()._replace(adopt=(), create=(), answers=(), release=(), waiting="")


def test_of_a_deleted_machine_nothing_new_is_claimed(site):
    site.pool()
    site.machine()
    site.change(site.caches.stores.machines.values()[0], metadata=DELETING)
    assert site.plan().create == ()


# Failure domains


def test_a_machine_in_a_failure_domain_waits_for_what_capv_makes_of_it(site):
    site.pool(labels={api.NETWORK_KEY: "zone-net"})
    site.machine(failure_domain="zone-1")
    assert (site.plan().create, site.plan().waiting) == ((), "WaitingForVSphereVM")
    site.vm([{"networkName": "zone-net"}, {"networkName": "zone-net", "dhcp6": True}, {"networkName": "zone-net"}])
    assert pools(site.plan()) == [("0", "pool"), ("2", "pool")]


def test_a_pool_may_be_for_a_failure_domain(site):
    site.pool("one", labels={api.FAILURE_DOMAIN_KEY: "zone-1"})
    site.pool("two", labels={api.FAILURE_DOMAIN_KEY: "zone-2"})
    site.machine(failure_domain="zone-2")
    site.vm(NET)
    assert pools(site.plan()) == [("0", "two")]


# Writing


def test_an_address_is_written_once_the_claim_is_bound_and_the_address_is_seen(site):
    site.pool(gateway="10.0.0.1", dnsServers=["10.0.0.2"])
    site.machine()
    site.serve()
    claim = site.only_claim()
    assert site.plan() == site.plan()._replace(create=(), answers=())
    site.change(claim.obj, status={"addressRef": {"name": "not-seen-yet"}})
    assert site.plan().answers == ()
    site.bind(site.only_claim(), "10.0.0.10", gateway="10.0.0.1")
    ((place, claims),) = site.plan().answers
    assert (place, names(claims)) == ("0", [claim.name])
    assert site.plan().waiting == ""
    site.serve()
    assert site.devices() == [
        {"networkName": "net-a", "ipAddrs": ["10.0.0.10/24"], "gateway4": "10.0.0.1", "nameservers": ["10.0.0.2"]}
    ]


def test_each_device_is_written_when_it_has_its_own(site):
    site.pool()
    site.machine([*NET, *NET])
    site.serve()
    first, second = sorted(site.claims(), key=lambda claim: claim.place)
    site.bind(second, "10.0.0.11")
    assert [place for place, _ in site.plan().answers] == ["1"]
    assert site.plan().waiting == "WaitingForAddress"
    site.serve()
    site.bind(first, "10.0.0.10")
    assert [place for place, _ in site.plan().answers] == ["0"]


def test_both_families_are_claimed_and_written_together(site):
    site.pool("v4")
    site.pool("v6", first="fd00::10")
    site.machine()
    assert sorted(pools(site.plan())) == [("0", "v4"), ("0", "v6")]
    site.serve()
    v4, v6 = sorted(site.claims(), key=lambda claim: claim.family)
    site.bind(v4, "10.0.0.10")
    assert site.plan().answers == ()
    site.bind(v6, "FD00:0::10", prefix=64, gateway="fd00::1")
    site.serve()
    assert site.devices() == [
        {"networkName": "net-a", "ipAddrs": ["10.0.0.10/24", "fd00::10/64"], "gateway6": "fd00::1"}
    ]


def test_one_family_alone_is_never_written(site):
    site.pool("v4")
    site.machine()
    site.serve()
    site.bind(site.only_claim(), "10.0.0.10")
    site.pool("v6", first="fd00::10")
    plan = site.plan()
    assert (pools(plan), plan.answers) == ([("0", "v6")], ())


def test_an_address_without_a_prefix_is_refused(site):
    site.pool()
    site.machine()
    site.serve()
    site.bind(site.only_claim(), "10.0.0.10", prefix=None)
    plan = site.plan()
    assert (plan.answers, plan.refusal.reason) == ((), "AddressUnusable")


def test_what_was_written_stays_whatever_the_device_says_later(site, written):
    machine = site.store("VSphereMachine").values()[0]
    for devices in ([{"networkName": "net-a", "ipAddrs": ["10.9.9.9/24"]}], [{"networkName": "x", "dhcp4": True}], []):
        site.change(machine, spec={"network": {"devices": devices}})
        assert site.plan().release == ()
        assert site.plan().create == ()


def test_an_address_that_somebody_took_out_is_written_again(site, written):
    machine = site.store("VSphereMachine").values()[0]
    site.change(machine, spec={"network": {"devices": NET}})
    assert [names(claims) for _, claims in site.plan().answers] == [[written.name]]


def test_a_written_claim_is_told_so_once(site, written):
    assert names(site.plan().mark) == [written.name]
    row = {"type": api.CLAIM_CONDITION, "status": "True", "reason": "x", "message": ""}
    site.change(site.only_claim().obj, status={"addressRef": {"name": f"a-{written.name}"}, "conditions": [row]})
    assert site.plan().mark == ()


def test_an_ip_address_that_is_another_claim_s_is_not_written(site):
    """As a status from a backup may name: the address was given to somebody else since."""
    site.pool()
    site.machine()
    site.serve()
    claim = site.only_claim()
    site.bind(claim, "10.0.0.10", claimRef={"name": "somebody-else-s"})
    plan = site.plan()
    assert (plan.answers, plan.waiting) == ((), "WaitingForAddress")
    site.bind(claim, "10.0.0.10")
    assert site.plan().answers


def test_an_address_of_one_device_is_not_written_into_another_that_was_put_before_it(site, written):
    machine = site.store("VSphereMachine").values()[0]
    first = site.devices()[0]
    site.change(machine, spec={"network": {"devices": [*NET, first]}})
    plan = site.plan()
    assert (plan.answers, plan.create, plan.release) == ((), (), ())
    assert plan.refusal.reason == "ClaimInUse"
    assert written.name in plan.refusal.message


def test_a_machine_whose_claim_is_gone_says_that_nothing_keeps_its_address(site, written):
    assert site.plan().refusal is None
    site.remove(written.obj)
    plan = site.plan()
    assert (plan.refusal.reason, plan.create) == ("ClaimMissing", ())
    assert "10.0.0.10" in plan.refusal.message
    machine = site.store("VSphereMachine").values()[0]
    site.change(machine, spec={"network": {"devices": [{"networkName": "net-a", "dhcp4": True}]}})
    assert site.plan().refusal is None, "without the address there is nothing to keep"


# Claims and pools that change


def test_a_claim_that_somebody_deletes_before_its_address_is_written_is_replaced(site):
    site.pool()
    site.machine()
    site.serve()
    claim = site.only_claim()
    site.change(claim.obj, metadata=HELD_CLAIM)
    plan = site.plan()
    assert (names(plan.release), plan.create) == ([claim.name], ()), "its name is taken until it is gone"
    site.carry_out(plan)
    assert pools(site.plan()) == [("0", "pool")]


def test_a_claim_that_somebody_deletes_after_that_is_held(site, written):
    site.change(written.obj, metadata=HELD_CLAIM)
    assert site.plan().release == ()
    assert site.plan().create == ()


def test_a_device_that_stops_waiting_gives_its_claim_back(site):
    site.pool()
    machine = site.machine()
    site.serve()
    site.change(machine, spec={"network": {"devices": [{"networkName": "net-a", "dhcp4": True}]}})
    assert names(site.plan().release) == [site.only_claim().name]


def test_a_user_s_own_address_wins_over_a_claim(site):
    site.pool()
    machine = site.machine()
    site.serve()
    site.bind(site.only_claim(), "10.0.0.10")
    site.change(machine, spec={"network": {"devices": [{"networkName": "net-a", "ipAddrs": ["10.0.0.77/24"]}]}})
    plan = site.plan()
    assert (plan.answers, names(plan.release)) == ((), [site.only_claim().name])


def test_a_user_s_own_address_that_is_the_claim_s_keeps_the_claim(site):
    site.pool()
    machine = site.machine()
    site.serve()
    site.bind(site.only_claim(), "10.0.0.10")
    site.change(machine, spec={"network": {"devices": [{"networkName": "net-a", "ipAddrs": ["10.0.0.10/16"]}]}})
    assert site.plan().release == ()


def test_a_machine_moves_to_a_pool_that_has_something(site):
    site.pool("a", free=1)
    site.machine()
    site.serve()
    claim = site.only_claim()
    site.refuse(claim)
    site.pool("a", free=0)
    assert site.plan().refusal.reason == "PoolExhausted"
    assert site.plan().create == ()
    site.pool("b", free=0)
    assert site.plan().create == ()
    site.pool("b", free=1)
    plan = site.plan()
    assert (pools(plan), names(plan.release), plan.moved) == ([("0", "b")], [claim.name], (("0", claim.pool),))
    assert plan.refusal is None


def test_a_claim_whose_address_was_written_is_not_moved_whatever_is_said_of_it_later(site, written):
    site.pool(free=0)
    site.pool("b", free=5)
    site.refuse(site.only_claim())
    site.change(site.store("VSphereMachine").values()[0], spec={"network": {"devices": NET}})
    plan = site.plan()
    assert (plan.create, plan.release, plan.moved) == ((), (), ())


def test_a_machine_does_not_go_back_to_a_pool_that_it_has_just_left(site):
    site.pool("a", free=1)
    site.machine()
    site.serve()
    site.refuse(site.only_claim())
    site.pool("b", free=1)
    left = site.plan(left={("0", site.caches.book.of(NS)[1].ref): 7.0})
    assert (left.create, left.again) == ((), 7.0)
    site.pool("c", free=1)
    assert pools(site.plan(left={("0", site.caches.book.of(NS)[1].ref): 7.0})) == [("0", "c")]


def test_of_a_provider_that_says_nothing_on_claims_the_pool_s_numbers_count(site):
    site.pool("a", kind="InClusterIPPool", free=1)
    site.machine()
    site.serve()
    site.pool("a", kind="InClusterIPPool", free=0)
    assert site.plan().refusal.reason == "PoolExhausted"
    site.pool("b", kind="InClusterIPPool", free=1)
    assert pools(site.plan()) == [("0", "b")]


def test_many_that_wait_do_not_all_move_to_the_one_address_that_is_freed(site):
    site.pool("a", free=0)
    for name in ("m1", "m2", "m3"):
        site.machine(name=name)
        site.serve(name=name)
        site.refuse(site.only_claim(name=name))
    site.pool("b", free=1)
    moved = []
    for name in ("m1", "m2", "m3"):
        moved.append(bool(site.plan(name=name).create))
        site.serve(name=name)
    assert moved == [True, False, False]


def test_a_claim_that_is_bound_after_all_wins_over_the_move(site):
    site.pool("a", free=1)
    site.machine()
    site.serve()
    first = site.only_claim()
    site.refuse(first)
    site.pool("b", free=1)
    (new,) = site.plan().create
    site.create(site.store("VSphereMachine").values()[0], new)
    site.bind(first, "10.0.0.10")
    plan = site.plan()
    assert [names(claims) for _, claims in plan.answers] == [[first.name]]
    assert names(plan.release) == [site.name_of(new)]


def test_of_two_claims_that_a_crash_left_the_one_that_may_get_something_stays(site):
    machine = site.machine()
    for name in ("a", "b"):
        site.pool(name, free=1)
        (new,) = site.plan().create
        site.create(machine, new)
        site.pool(name, labels={})
    for name in ("a", "b"):
        site.pool(name, free=1)
    for refused in sorted(site.claims(), key=lambda claim: claim.name):
        site.refuse(refused)
        plan = site.plan()
        assert names(plan.release) == [refused.name]
        assert plan.create == ()
        site.change(refused.obj, status={})


def test_the_claim_whose_address_was_written_goes_before_any_other(site, written):
    site.pool("other")
    machine = site.store("VSphereMachine").values()[0]
    site.change(machine, spec={"network": {"devices": NET}})
    new = NewClaim("IPAddressClaim", "0", "ipv4", written.pool._replace(name="other"))
    for _ in range(20):  # until its name goes before the other's
        new = new._replace(pool=new.pool._replace(name=f"{new.pool.name}x"))
        if site.name_of(new) < written.name:
            break
    site.create(machine, new)
    (other,) = [claim for claim in site.claims() if claim.name != written.name]
    site.bind(other, "10.0.0.11")
    plan = site.plan()
    assert [names(claims) for _, claims in plan.answers] == [[written.name]]
    assert names(plan.release) == [other.name]


def test_another_choice_of_pool_before_the_address_is_written_moves_the_claim(site):
    site.pool("a")
    site.pool("b", labels={})
    machine = site.machine()
    site.serve()
    site.change(machine, metadata={"annotations": {api.POOLS_ANNOTATION: "b"}})
    plan = site.plan()
    assert (pools(plan), names(plan.release)) == ([("0", "b")], [site.only_claim().name])


def test_a_claim_outlives_the_template_that_named_its_pool(site):
    site.pool(labels={})
    template = site.put("VSphereMachineTemplate", "t1", metadata={"annotations": {api.POOLS_ANNOTATION: "pool"}})
    site.machine(metadata={"annotations": {api.TEMPLATE_ANNOTATION: "t1"}})
    site.serve()
    site.remove(template)
    assert site.plan().release == ()
    site.bind(site.only_claim(), "10.0.0.10")
    assert site.plan().answers
    assert site.plan().refusal is None


def test_without_a_pool_the_reason_is_given(site):
    site.pool(labels={})
    site.machine()
    plan = site.plan()
    assert (plan.create, plan.refusal.reason, plan.waiting) == ((), "NoPoolMatches", "NoPoolMatches")
    assert plan.refusal.message.startswith("device 0 (net-a): no pool")


def test_an_api_that_is_not_there_is_named():
    site = Site(kinds=())
    site.pool()
    site.machine()
    assert site.plan().refusal.reason == "NoClaimAPI"
    site = Site(kinds=("IPClaim",))
    site.pool(kind="InClusterIPPool")
    site.machine()
    assert site.plan().refusal.reason == "NoClaimAPI"
    site = Site(kinds=("IPAddressClaim",))
    site.pool("p", namespace="infra", allowedNamespaces=["ns"])
    site.machine(metadata={"annotations": {api.POOLS_ANNOTATION: "infra/p"}})
    assert "IPClaim" in site.plan().refusal.message


def test_metal3_s_claims_are_made_where_only_they_will_do():
    site = Site(kinds=("IPClaim",))
    site.pool()
    site.machine()
    assert [new.kind for new in site.plan().create] == ["IPClaim"]
    site = Site()
    site.pool("p", namespace="infra", allowedNamespaces=["ns"])
    site.machine(metadata={"annotations": {api.POOLS_ANNOTATION: "infra/p"}})
    assert [new.kind for new in site.plan().create] == ["IPClaim"]


# Letting go


def test_claims_of_a_machine_that_is_gone_are_let_go(site, written):
    site.remove(site.store("VSphereMachine").values()[0])
    assert names(site.plan().release) == [written.name]
    assert names(site.plan(grace=0.0).release) == [written.name]


def test_claims_of_a_machine_that_was_never_seen_are_kept_for_a_grace(site, written):
    site.remove(site.store("VSphereMachine").values()[0])
    plan = site.plan(grace=12.0)
    assert (plan.release, plan.again) == ((), 12.0)


@pytest.mark.parametrize("who", ["cluster", "claim"])
def test_nothing_is_let_go_while_paused_as_during_a_move(site, written, who):
    site.remove(site.store("VSphereMachine").values()[0])
    if who == "cluster":
        site.change(site.caches.stores.clusters.values()[0], spec={"paused": True})
    else:
        annotations = written.obj.metadata.annotations | {api.PAUSED_ANNOTATION: ""}
        site.change(written.obj, metadata={"annotations": annotations})
    assert site.plan().release == ()


def test_claims_go_even_if_their_cluster_is_gone_too(site, written):
    site.remove(site.store("VSphereMachine").values()[0])
    site.remove(site.caches.stores.clusters.values()[0])
    assert names(site.plan().release) == [written.name]


def test_a_claim_of_a_machine_that_is_gone_is_let_go_even_if_somebody_else_deleted_it(site, written):
    site.remove(site.store("VSphereMachine").values()[0])
    site.change(written.obj, metadata=HELD_CLAIM)
    assert names(site.plan().release) == [written.name]


def test_of_a_grace_nothing_is_given_away(site, written):
    site.remove(site.store("VSphereMachine").values()[0])
    assert site.plan(grace=0.5).again == 0.5


def test_a_claim_that_is_deleted_and_let_go_already_is_nobody_s_business(site, written):
    site.remove(site.store("VSphereMachine").values()[0])
    site.change(written.obj, metadata={"finalizers": ["others"], **DELETING})
    assert site.plan() == site.plan()._replace(release=(), again=None)


def test_a_machine_that_comes_back_under_its_name_takes_over_its_claim(site, written):
    old = site.store("VSphereMachine").values()[0]
    devices = site.devices()
    site.remove(old)
    site.machine(devices, metadata={"uid": "restored"})
    plan = site.plan()
    assert (names(plan.adopt), plan.release) == ([written.name], ())
    site.carry_out(plan)
    (owner,) = site.only_claim().obj.metadata.ownerReferences
    assert owner.uid == "restored"
    assert site.plan().adopt == ()


def test_a_finalizer_that_somebody_removed_is_put_back_while_the_claim_is_needed(site, written):
    site.change(written.obj, metadata={"finalizers": []})
    assert names(site.plan().adopt) == [written.name]
    site.change(written.obj, metadata={"finalizers": [], **DELETING})
    assert site.plan().adopt == (), "nothing can be added to an object that is being deleted"


@pytest.mark.parametrize("version", ["v1beta1", "v1beta2"])
def test_both_versions_of_the_contract_are_served_alike(version):
    site = Site(version=version)
    site.pool()
    site.machine()
    site.serve()
    assert site.only_claim().obj.apiVersion == f"ipam.cluster.x-k8s.io/{version}"
    site.bind(site.only_claim(), "10.0.0.10")
    site.serve()
    assert site.devices() == [{"networkName": "net-a", "ipAddrs": ["10.0.0.10/24"]}]
