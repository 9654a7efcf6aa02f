"""What a VSphereCluster without an endpoint needs, told as what is seen and what is planned."""

from __future__ import annotations

import pytest

from services.capv_integrator import api
from services.capv_integrator.caches import CLUSTER
from services.capv_integrator.names import ENDPOINT
from tests.unit.capv_integrator.worlds import Site, names


@pytest.fixture
def site():
    return Site()


def pools(plan):
    return [(new.place, new.pool.name) for new in plan.create]


def endpoints(site, **labels):
    site.pool("vips", labels={api.CLUSTER_KEY: "c1", api.USE_LABEL: "endpoints", **labels})


def test_a_cluster_without_an_endpoint_gets_one_with_the_usual_port(site):
    endpoints(site)
    site.vsphere_cluster()
    assert pools(site.plan(CLUSTER, "c1")) == [(ENDPOINT, "vips")]
    site.serve(CLUSTER, "c1")
    site.bind(site.only_claim(CLUSTER, "c1"), "10.0.0.10", prefix=None)
    site.serve(CLUSTER, "c1")
    spec = site.world(CLUSTER, "c1").owner.spec
    assert b'"controlPlaneEndpoint":{"host":"10.0.0.10","port":6443}' in bytes(spec).replace(b" ", b"")
    assert site.plan(CLUSTER, "c1").waiting == ""
    site.remove(site.world(CLUSTER, "c1").owner)
    assert names(site.plan(CLUSTER, "c1").release) == names(site.claims(CLUSTER, "c1"))


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [({"host": "", "port": 0}, 6443), ({"port": 8443}, 8443), ({"host": "", "port": 443}, 443)],
)
def test_a_port_that_is_set_stays(site, endpoint, expected):
    endpoints(site)
    site.vsphere_cluster(**endpoint)
    site.serve(CLUSTER, "c1")
    site.bind(site.only_claim(CLUSTER, "c1"), "10.0.0.10")
    site.serve(CLUSTER, "c1")
    assert f'"port":{expected}'.encode() in bytes(site.world(CLUSTER, "c1").owner.spec).replace(b" ", b"")


def test_an_endpoint_that_is_set_or_known_to_the_cluster_is_left_alone(site):
    endpoints(site)
    site.vsphere_cluster(host="vip.example.org", port=6443)
    assert site.plan(CLUSTER, "c1").create == ()
    site.cluster(controlPlaneEndpoint={"host": "10.1.1.1", "port": 6443})
    site.vsphere_cluster()
    assert (site.plan(CLUSTER, "c1").create, site.plan(CLUSTER, "c1").waiting) == ((), "")


def test_an_endpoint_of_ours_that_was_wiped_is_written_again_and_somebody_else_s_is_not(site):
    endpoints(site)
    site.vsphere_cluster()
    site.serve(CLUSTER, "c1")
    claim = site.only_claim(CLUSTER, "c1")
    site.bind(claim, "10.0.0.10")
    site.serve(CLUSTER, "c1")
    site.cluster(controlPlaneEndpoint={"host": "10.0.0.10", "port": 6443})
    cluster = site.store(CLUSTER).values()[0]
    assert site.plan(CLUSTER, "c1").answers == ()
    site.change(cluster, spec={"server": "v"})
    assert [names(claims) for _, claims in site.plan(CLUSTER, "c1").answers] == [[claim.name]]
    site.cluster(controlPlaneEndpoint={"host": "10.9.9.9", "port": 6443})
    assert site.plan(CLUSTER, "c1").answers == ()


def test_an_endpoint_waits_for_its_cluster(site):
    endpoints(site)
    obj = site.vsphere_cluster()
    site.change(obj, metadata={"ownerReferences": []})
    assert (site.plan(CLUSTER, "c1").create, site.plan(CLUSTER, "c1").waiting) == ((), "WaitingForCluster")


def test_an_endpoint_is_one_address_of_ipv4_if_there_is_one(site):
    labels = {api.CLUSTER_KEY: "c1", api.USE_LABEL: "endpoints"}
    site.pool("v6", first="fd00::1", labels=labels)
    site.vsphere_cluster()
    assert pools(site.plan(CLUSTER, "c1")) == [(ENDPOINT, "v6")]
    site.pool("v4", labels=labels)
    assert pools(site.plan(CLUSTER, "c1")) == [(ENDPOINT, "v4")]
