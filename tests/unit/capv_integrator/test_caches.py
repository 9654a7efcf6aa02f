"""Whom a change makes the integrator look at, and what it leaves alone."""

from __future__ import annotations

import pytest

from services.capv_integrator import api
from services.capv_integrator.caches import CLUSTER, MACHINE
from services.capv_integrator.claimobjects import OwnerKey
from tests.unit.capv_integrator.worlds import NET, NS, Site

M1 = OwnerKey(MACHINE, NS, "m1")
C1 = OwnerKey(CLUSTER, NS, "c1")


@pytest.fixture
def site():
    site = Site()
    site.pool()
    site.machine(failure_domain="z", metadata={"annotations": {api.TEMPLATE_ANNOTATION: "t1"}})
    site.put("VSphereMachineTemplate", "t1")
    site.vm(NET)
    site.vsphere_cluster()
    site.serve()
    site.queued.clear()
    return site


def only(store):
    (obj,) = store.values()
    return obj


def queued(site):
    found, site.queued[:] = set(site.queued), []
    return found


CHANGES = {
    "spec of the VSphereMachine": lambda s: s.change(only(s.store(MACHINE)), spec={}),
    "annotations of the VSphereMachine": lambda s: s.change(only(s.store(MACHINE)), metadata={"annotations": {}}),
    "deletion of the VSphereMachine": lambda s: s.change(only(s.store(MACHINE)), metadata={"deletionTimestamp": "x"}),
    "end of the VSphereMachine": lambda s: s.remove(only(s.store(MACHINE))),
    "spec of the Machine": lambda s: s.change(only(s.store("Machine")), spec={"clusterName": "c1"}),
    "end of the Machine": lambda s: s.remove(only(s.store("Machine"))),
    "spec of the VSphereVM": lambda s: s.change(only(s.store("VSphereVM")), spec={}),
    "end of the VSphereVM": lambda s: s.remove(only(s.store("VSphereVM"))),
    "status of the claim": lambda s: s.change(s.only_claim().obj, status={"addressRef": {"name": "a"}}),
    "end of the claim": lambda s: s.remove(s.only_claim().obj),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_machine_is_looked_at_when_something_of_its_own_changes(site, change):
    CHANGES[change](site)
    assert queued(site) == {M1}


@pytest.mark.parametrize("kind", [MACHINE, "VSphereVM", "Machine", "Cluster", CLUSTER])
def test_a_status_that_others_write_makes_nobody_look(site, kind):
    site.change(only(site.store(kind)), status={"ready": True, "conditions": []})
    assert queued(site) == set()


def test_the_address_of_a_claim_makes_its_machine_look(site):
    claim = site.only_claim()
    site.bind(claim, "10.0.0.10")
    assert queued(site) == {M1}
    other = site.put(
        "IPAddress", "x", group=api.IPAM_GROUP, store=site.caches.stores.addresses["IPAddressClaim"],
        spec={"address": "10.0.0.99", "claimRef": {"name": "somebody-s"}},
    )  # fmt: skip
    site.remove(other)
    assert queued(site) == set()


@pytest.mark.parametrize(
    "change",
    [{"spec": {"paused": True}}, {"metadata": {"annotations": {api.PAUSED_ANNOTATION: ""}}}],
)
def test_pause_makes_everybody_of_the_cluster_look(site, change):
    site.change(only(site.store("Cluster")), **change)
    assert queued(site) == {M1, C1}


def test_the_end_of_a_pause_makes_claims_look_whose_machine_is_gone(site):
    cluster = site.change(only(site.store("Cluster")), spec={"paused": True})
    site.remove(only(site.store(MACHINE)))
    queued(site)
    site.change(cluster, spec={})
    assert M1 in queued(site)


def test_an_endpoint_of_the_cluster_makes_its_vsphere_cluster_look(site):
    site.change(only(site.store("Cluster")), spec={"controlPlaneEndpoint": {"host": "x", "port": 1}})
    assert C1 in queued(site)


def test_a_template_makes_those_look_that_wait(site):
    template = only(site.store("VSphereMachineTemplate"))
    site.change(template, metadata={"annotations": {api.POOLS_ANNOTATION: "a"}})
    assert queued(site) == set()
    site.unserved.add(M1)
    template = site.change(template, metadata={"annotations": {api.POOLS_ANNOTATION: "b"}})
    assert queued(site) == {M1}
    site.change(template, spec={"x": 1})
    assert queued(site) == set()


POOL_CHANGES = {
    "fewer free": (lambda s: s.pool(free=1), False),
    "none free": (lambda s: s.pool(free=0), True),
    "other labels": (lambda s: s.pool(labels={}), True),
    "another annotation": (lambda s: s.pool(annotations={api.NETWORK_KEY: "x"}), True),
    "other namespaces": (lambda s: s.pool(allowedNamespaces=["x"]), True),
    "deletion": (lambda s: s.pool(deletionTimestamp="2026-01-01T00:00:00Z"), True),
    "end": (lambda s: s.remove(only(s.store("IPPool"))), True),
    "another pool": (lambda s: s.pool("other"), True),
}


@pytest.mark.parametrize("change", POOL_CHANGES)
def test_pools_make_those_look_that_wait_if_it_may_help_them(site, change):
    site.unserved.add(C1)
    act, expected = POOL_CHANGES[change]
    act(site)
    assert queued(site) == ({C1} if expected else set())


def test_a_pool_that_has_something_again_makes_those_look_that_wait(site):
    site.pool(free=0)
    site.unserved.add(M1)
    queued(site)
    site.pool(free=2)
    assert queued(site) == {M1}


def test_an_api_for_claims_that_appears_makes_those_look_that_wait(site):
    site.unserved.add(M1)
    for expected in (set(), set(), {M1}):  # a server that has just started says so too
        site.caches.serves("IPAddressClaim", None)
        assert queued(site) == expected
    site.caches.serves("IPAddressClaim", api.IP_ADDRESS_CLAIMS[1])
    assert queued(site) == {M1}
    site.caches.serves("IPAddressClaim", api.IP_ADDRESS_CLAIMS[1])
    site.caches.serves("Cluster", api.CLUSTERS[0])
    assert queued(site) == set()


def test_an_owner_s_api_that_appears_makes_its_claims_look(site):
    site.caches.serves(MACHINE, api.VSPHERE_MACHINES[0])
    assert queued(site) == {M1}


def test_it_is_remembered_who_was_seen_to_go(site):
    machine = only(site.store(MACHINE))
    site.remove(machine)
    assert site.caches.witnessed == {M1}
    site.machine()
    assert site.caches.witnessed == set()


def test_claims_that_wait_are_counted_by_pool(site):
    ref = site.caches.book.of(NS)[0].ref
    assert site.caches.taken(ref) == 1
    site.caches.pending[ref] += 1
    assert site.caches.taken(ref) == 2
    site.bind(site.only_claim(), "10.0.0.10")
    assert site.caches.taken(ref) == 1
