"""The integrator and the allocator as processes, on CAPV's and Cluster API's own definitions: the main road.

The integrator may do what its reference page says and nothing else.
"""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from services.capv_integrator import api
from tests.support.allocator import Allocator
from tests.support.kube import NAMESPACES, Kube, eventually, manifest
from tests.support.service import ServiceProcess

MACHINES, VSPHERE_MACHINES = api.MACHINES[0], api.VSPHERE_MACHINES[0]
CLUSTERS, VSPHERE_CLUSTERS = api.CLUSTERS[0], api.VSPHERE_CLUSTERS[0]
TEMPLATES, VSPHERE_VMS = api.VSPHERE_MACHINE_TEMPLATES[0], api.VSPHERE_VMS[0]
CLAIMS, POOLS = api.IP_ADDRESS_CLAIMS[0], api.POOLS["IPPool"][0]


ROOT = Path(__file__).resolve().parents[3]


class Integrator(ServiceProcess):
    module = "services.capv_integrator"


@pytest.fixture(scope="module")
def allocator(capv_cluster, tmp_path_factory):
    with Allocator.running(tmp_path_factory.mktemp("allocator"), capv_cluster.kubeconfig) as running:
        yield running


@pytest.fixture(scope="module")
def integrator(capv_cluster, tmp_path_factory):
    folder = tmp_path_factory.mktemp("integrator")
    with Integrator.running(folder, capv_cluster.kubeconfig, "--orphan-grace-seconds=0") as running:
        yield running
        assert running.metric("rest_client_requests_total", code="403") == 0


@pytest.fixture
async def kube(capv_cluster):
    async with Kube.connect(capv_cluster.kubeconfig) as kube:
        yield kube


@pytest.fixture
async def namespace(kube):
    name = f"smoke-{uuid.uuid4().hex[:10]}"
    await kube.create(NAMESPACES, manifest(NAMESPACES, name))
    return name


def owner(obj):
    return {
        "apiVersion": obj["apiVersion"],
        "kind": obj["kind"],
        "name": obj["metadata"]["name"],
        "uid": obj["metadata"]["uid"],
        "controller": True,
    }


async def make_cluster(kube, namespace, name="c1", **endpoint):
    ref = {"apiGroup": api.INFRASTRUCTURE_GROUP, "kind": "VSphereCluster", "name": name}
    cluster = await kube.create(CLUSTERS, manifest(CLUSTERS, name, namespace, {"infrastructureRef": ref}))
    spec = {"server": "vcenter.example.org", **({"controlPlaneEndpoint": endpoint} if endpoint else {})}
    obj = manifest(VSPHERE_CLUSTERS, name, namespace, spec, ownerReferences=[owner(cluster)])
    return cluster, obj


async def make_machine(kube, namespace, name, devices, *, cluster="c1", failure_domain=None, **metadata):
    labels = {api.CLUSTER_NAME_LABEL: cluster}
    spec = {
        "clusterName": cluster,
        "bootstrap": {"dataSecretName": "none"},
        "infrastructureRef": {"apiGroup": api.INFRASTRUCTURE_GROUP, "kind": "VSphereMachine", "name": name},
        **({"failureDomain": failure_domain} if failure_domain else {}),
    }
    machine = await kube.create(MACHINES, manifest(MACHINES, name, namespace, spec, labels=labels))
    obj = manifest(
        VSPHERE_MACHINES,
        name,
        namespace,
        {"template": "ubuntu", "network": {"devices": devices}},
        labels=labels,
        ownerReferences=[owner(machine)],
        **metadata,
    )
    return await kube.create(VSPHERE_MACHINES, obj)


async def make_pool(kube, namespace, name, first, last, labels=None, **spec):
    spec = {"namePrefix": name, "prefix": 24, "pools": [{"start": first, "end": last}], **spec}
    return await kube.create(POOLS, manifest(POOLS, name, namespace, spec, labels=labels or {}))


async def devices_of(kube, namespace, name, waits=()):
    """Devices of a VSphereMachine once those that are not in `waits` have addresses or need none."""

    async def look():
        return (await kube.get(VSPHERE_MACHINES, name, namespace))["spec"]["network"]["devices"]

    def done(devices):
        return all(
            d.get("ipAddrs") or d.get("dhcp4") or d.get("skipIPAllocation")
            for i, d in enumerate(devices)
            if i not in waits
        )

    return await eventually(look, done)


async def test_a_machine_gets_its_address_and_returns_it_after_it_is_gone(kube, namespace, allocator, integrator):
    await make_cluster(kube, namespace)
    settings = {"gateway": "10.0.0.1", "dnsServers": ["10.0.0.2"]}
    labels = {api.NETWORK_KEY: "net-a"}
    await make_pool(kube, namespace, "pool", "10.0.0.10", "10.0.0.12", labels, **settings)
    devices = [{"networkName": "net-a"}, {"networkName": "net-b", "dhcp4": True}, {"networkName": "net-c", "mtu": 9000}]
    devices[2]["skipIPAllocation"] = True
    await make_machine(kube, namespace, "m1", devices, finalizers=["example.org/vm"])
    seen = await devices_of(kube, namespace, "m1")
    assert seen == [
        {"networkName": "net-a", "ipAddrs": ["10.0.0.10/24"], "gateway4": "10.0.0.1", "nameservers": ["10.0.0.2"]},
        *devices[1:],
    ]
    (claim,) = await kube.list(CLAIMS, namespace)
    await eventually(
        lambda: kube.get(CLAIMS, claim["metadata"]["name"], namespace),
        lambda obj: any(c["type"] == api.CLAIM_CONDITION for c in obj["status"]["conditions"]),
    )
    await kube.delete(VSPHERE_MACHINES, "m1", namespace)
    await kube.delete(CLAIMS, claim["metadata"]["name"], namespace)  # as the garbage collector may do early
    held = await kube.get(CLAIMS, claim["metadata"]["name"], namespace)
    assert api.CLAIM_FINALIZER in held["metadata"]["finalizers"]
    await kube.set_finalizers(VSPHERE_MACHINES, "m1", namespace)
    await kube.gone(CLAIMS, claim["metadata"]["name"], namespace)


async def test_a_cluster_without_an_endpoint_gets_one(kube, namespace, allocator, integrator):
    labels = {api.USE_LABEL: api.USE_ENDPOINTS, api.CLUSTER_KEY: "c1"}
    await make_pool(kube, namespace, "vips", "10.9.0.5", "10.9.0.6", labels)
    _, obj = await make_cluster(kube, namespace)
    await kube.create(VSPHERE_CLUSTERS, obj)
    seen = await eventually(
        lambda: kube.get(VSPHERE_CLUSTERS, "c1", namespace),
        lambda found: found["spec"].get("controlPlaneEndpoint", {}).get("host"),
    )
    assert seen["spec"]["controlPlaneEndpoint"] == {"host": "10.9.0.5", "port": 6443}
    await kube.delete(VSPHERE_CLUSTERS, "c1", namespace)
    await eventually(lambda: kube.list(CLAIMS, namespace), lambda claims: not claims)


async def test_a_device_of_a_failure_domain_alone_is_added_where_capv_has_it(kube, namespace, allocator, integrator):
    await make_cluster(kube, namespace)
    await make_pool(kube, namespace, "a", "10.0.1.10", "10.0.1.12", {api.NETWORK_KEY: "zone-net"})
    await make_pool(kube, namespace, "b", "fd00::10", "fd00::12", {api.NETWORK_KEY: "zone-storage"}, prefix=64)
    machine = await make_machine(kube, namespace, "m1", [{"networkName": "template-net"}], failure_domain="zone-1")
    overlaid = [{"networkName": "zone-net", "nameservers": ["10.0.1.2"]}, {"networkName": "zone-storage"}]
    ref = {k: v for k, v in owner(machine).items() if k != "controller"}
    spec = {"template": "ubuntu", "network": {"devices": overlaid}}
    await kube.create(VSPHERE_VMS, manifest(VSPHERE_VMS, "m1", namespace, spec, ownerReferences=[ref]))
    seen = await eventually(
        lambda: kube.get(VSPHERE_MACHINES, "m1", namespace),
        lambda obj: len([d for d in obj["spec"]["network"]["devices"] if d.get("ipAddrs")]) == 2,
    )
    assert seen["spec"]["network"]["devices"] == [
        {"networkName": "template-net", "ipAddrs": ["10.0.1.10/24"]},
        {"networkName": "zone-storage", "ipAddrs": ["fd00::10/64"]},
    ]


async def test_where_metal3_alone_can_do_it_metal3_s_claim_is_made(kube, namespace, allocator, integrator):
    other = f"{namespace}-infra"
    await kube.create(NAMESPACES, manifest(NAMESPACES, other))
    await make_cluster(kube, namespace)
    await make_pool(kube, other, "p", "10.0.3.10", "10.0.3.12", dnsServers=["10.0.3.2"], allowedNamespaces=[namespace])
    await make_machine(
        kube, namespace, "m1", [{"networkName": "net"}], annotations={api.POOLS_ANNOTATION: f"{other}/p"}
    )
    assert await devices_of(kube, namespace, "m1") == [
        {"networkName": "net", "ipAddrs": ["10.0.3.10/24"], "nameservers": ["10.0.3.2"]}
    ]
    (claim,) = await kube.list(api.METAL3_CLAIMS[0], namespace)
    await eventually(
        lambda: kube.get(api.METAL3_CLAIMS[0], claim["metadata"]["name"], namespace),
        lambda obj: any(c["type"] == api.CLAIM_CONDITION for c in obj["status"]["conditions"]),
    )
    await kube.delete(VSPHERE_MACHINES, "m1", namespace)
    await kube.gone(api.METAL3_CLAIMS[0], claim["metadata"]["name"], namespace)


async def test_without_a_match_nothing_is_taken_and_the_machine_says_why(kube, namespace, allocator, integrator):
    await make_cluster(kube, namespace)
    await make_pool(kube, namespace, "pool", "10.0.2.10", "10.0.2.12")
    machine = await make_machine(kube, namespace, "m1", [{"networkName": "net-a"}])

    def condition_of(obj):
        rows = obj.get("status", {}).get("conditions", [])
        return next((row for row in rows if row["type"] == api.OWNER_CONDITION), {})

    seen = await eventually(lambda: kube.get(VSPHERE_MACHINES, "m1", namespace), condition_of)
    assert condition_of(seen)["reason"] == "NoPoolMatches"
    assert f"IPPool {namespace}/pool" in condition_of(seen)["message"]
    (event,) = await eventually(lambda: kube.events(machine))
    assert (event["type"], event["reason"]) == ("Warning", "NoPoolMatches")
    assert await kube.list(CLAIMS, namespace) == []
    await kube.patch(POOLS, "pool", namespace, metadata={"labels": {api.NETWORK_KEY: "net-a"}})
    await devices_of(kube, namespace, "m1")
    await eventually(
        lambda: kube.get(VSPHERE_MACHINES, "m1", namespace), lambda obj: condition_of(obj)["status"] == "True"
    )
