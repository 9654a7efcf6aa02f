"""Our definitions of CAPV's kinds beside CAPV's own: whatever ours accept, CAPV's accept too.

Both are installed on the shared API server under groups of their own, so that neither is in the way of the other or of
tests which need the real group.
"""

from __future__ import annotations

import copy
import json

import pytest
import yaml

from services.machine_controller import api
from services.runtime.kube.errors import Invalid
from services.runtime.kube.resource import Resource
from tests.conftest import ROOT
from tests.support.kube import Kube, manifest
from tools import capi

DEFINITIONS = ROOT / "deploy" / "crds" / "infrastructure"
EXAMPLES = ROOT / "examples" / "machine-controller"
OURS, THEIRS = "ours.groundwork.test", "capv.groundwork.test"
KINDS = {
    resource.kind: resource
    for resource in (
        api.VSPHERE_MACHINES,
        api.VSPHERE_MACHINE_TEMPLATES,
        api.VSPHERE_CLUSTERS,
        api.VSPHERE_FAILURE_DOMAINS,
        api.VSPHERE_DEPLOYMENT_ZONES,
    )
}
DEVICE = {"networkName": "vlan-20"}
MACHINE = {"template": "t", "network": {"devices": [DEVICE]}}
TAG = {"name": "a", "type": "ComputeCluster", "tagCategory": "c"}
DOMAIN = {
    "region": {**TAG, "type": "Datacenter"},
    "zone": TAG,
    "topology": {"datacenter": "dc", "computeCluster": "cluster"},
}


def renamed(definition, group):
    """A definition with its kind in another group."""
    changed = copy.deepcopy(definition)
    changed["spec"]["group"] = group
    changed["metadata"]["name"] = f"{changed['spec']['names']['plural']}.{group}"
    changed["spec"]["names"].pop("shortNames", None)
    changed["spec"]["names"].pop("categories", None)
    return changed


@pytest.fixture(scope="module")
def both(cluster):
    ours = [yaml.safe_load(path.read_text()) for path in sorted(DEFINITIONS.glob("*.yaml"))]
    assert {definition["spec"]["names"]["kind"] for definition in ours} == set(KINDS)
    names = [definition["metadata"]["name"] for definition in ours]
    theirs = capi.crds(*names, versions=["v1beta2"])
    cluster.install_crds(*(renamed(item, OURS) for item in ours), *(renamed(item, THEIRS) for item in theirs))
    return cluster


@pytest.fixture
async def kube(both):
    async with Kube.connect(both.kubeconfig) as kube:
        yield kube


def resource_of(kind, group):
    known = KINDS[kind]
    return Resource(group, known.version, known.plural, known.kind, namespaced=known.namespaced)


async def accepted(kube, kind, group, spec, namespace, name="a"):
    """Create for a trial, strictly: a field that the definition does not have is an error."""
    resource = resource_of(kind, group)
    obj = manifest(resource, name, namespace if resource.namespaced else "", spec)
    path = resource.path(obj["metadata"].get("namespace", ""))
    body = json.dumps(obj).encode()
    headers = {"Content-Type": "application/json"}
    return await kube.client.raw("POST", f"{path}?dryRun=All&fieldValidation=Strict", body=body, headers=headers)


async def refused(call):
    """Causes for which the API server refuses a call: (field, message) pairs."""
    with pytest.raises(Invalid) as caught:
        await call
    return [(cause["field"], cause["message"]) for cause in caught.value.details["causes"]]


def explained(causes, field, text):
    return any(where == field and text in message for where, message in causes)


def examples():
    for path in sorted(EXAMPLES.glob("*.yaml")):
        for obj in yaml.safe_load_all(path.read_text()):
            if obj["kind"] in KINDS:
                yield pytest.param(obj["kind"], obj["spec"], id=f"{path.stem}-{obj['kind']}-{obj['metadata']['name']}")


def device(**fields):
    return {"template": "t", "network": {"devices": [{**DEVICE, **fields}]}}


def template(**fields):
    return {"template": {"spec": {**MACHINE, **fields}}}


def domain(**topology):
    return {**DOMAIN, "topology": {**DOMAIN["topology"], **topology}}


LONGEST = "fd00:1111:2222:3333:4444:5555:6666::/64"
POOL = {"apiGroup": "ipam.metal3.io", "kind": "IPPool", "name": "p"}
FULL_MACHINE = {
    **device(
        deviceName="ens192",
        dhcp4=True,
        dhcp6=True,
        gateway4="10.0.0.1",
        gateway6="fd00::1",
        ipAddrs=["10.0.0.5/24", LONGEST],
        mtu=9000,
        macAddr="00:50:56:AA:bb:01",
        nameservers=["10.0.0.2", "fd00::2"],
        searchDomains=["a.example"],
        routes=[{"to": "default", "via": "10.0.0.1", "metric": 0}, {"to": "fd00::/8", "via": "fe80::1", "metric": 9}],
        addressesFromPools=[POOL],
        dhcp4Overrides={
            "hostname": "h",
            "routeMetric": 0,
            "sendHostname": True,
            "useDNS": False,
            "useDomains": "route",
            "useHostname": True,
            "useMTU": True,
            "useNTP": False,
            "useRoutes": "false",
        },
        dhcp6Overrides={},
        skipIPAllocation=True,
    ),
    "cloneMode": "linkedClone",
    "snapshot": "s",
    "server": "vcenter.example",
    "thumbprint": "AA:BB",
    "datacenter": "dc",
    "folder": "/dc/vm/f",
    "datastore": "d",
    "storagePolicyName": "gold",
    "resourcePool": "p",
    "numCPUs": 2,
    "numCoresPerSocket": 0,
    "memoryMiB": 2048,
    "diskGiB": 1,
    "additionalDisksGiB": [1, 2],
    "customVMXKeys": {"disk.EnableUUID": "TRUE", "guestinfo.other": "x"},
    "tagIDs": ["urn:vmomi:InventoryServiceTag:5a1c0e0e-1f2b-4b8f-9b1f-0a5f3a1f2d11:GLOBAL"],
    "os": "Linux",
    "hardwareVersion": "vmx-19",
    "providerID": "vsphere://4237b0ab-0000-4000-8000-000000000000",
    "powerOffMode": "trySoft",
    "guestSoftPowerOffTimeoutSeconds": 1,
}
ACCEPTED = [
    *examples(),
    pytest.param("VSphereMachine", MACHINE, id="machine-least"),
    pytest.param("VSphereMachine", FULL_MACHINE, id="machine-everything"),
    pytest.param("VSphereMachine", {**MACHINE, "network": {"devices": []}}, id="machine-without-nics"),
    pytest.param(
        "VSphereMachine",
        {
            **MACHINE,
            "network": {**MACHINE["network"], "routes": [{"to": "10.0.0.0/8", "via": "10.1.0.1", "metric": 1}]},
        },
        id="machine-routes",
    ),
    pytest.param("VSphereMachineTemplate", template(), id="template-least"),
    pytest.param("VSphereMachineTemplate", template(**device(ipAddrs=[])), id="template-without-addresses"),
    pytest.param("VSphereCluster", {"server": "v"}, id="cluster-least"),
    pytest.param(
        "VSphereCluster",
        {
            "server": "v",
            "controlPlaneEndpoint": {"host": "fd00::9", "port": 6443},
            "failureDomainSelector": {
                "matchLabels": {"a": "b"},
                "matchExpressions": [
                    {"key": "site.example/zone", "operator": "In", "values": ["a", ""]},
                    {"key": "c", "operator": "Exists"},
                ],
            },
        },
        id="cluster-everything",
    ),
    pytest.param("VSphereFailureDomain", DOMAIN, id="domain-least"),
    pytest.param("VSphereFailureDomain", domain(networks=["a", "b"], datastore="d"), id="domain-networks"),
    pytest.param(
        "VSphereFailureDomain",
        domain(
            networkConfigurations=[
                {"networkName": "n", "dhcp4": True, "dhcp6": False, "dhcp6Overrides": {"useDNS": True}},
                {"networkName": "m", "addressesFromPools": [POOL], "searchDomains": ["a"], "nameservers": ["1.1.1.1"]},
            ]
        ),
        id="domain-configurations",
    ),
    pytest.param("VSphereDeploymentZone", {"failureDomain": "f"}, id="zone-least"),
]


@pytest.mark.parametrize(("kind", "spec"), ACCEPTED)
async def test_what_our_definitions_accept_those_of_capv_accept_too(kube, namespace, kind, spec):
    await accepted(kube, kind, OURS, spec, namespace)
    await accepted(kube, kind, THEIRS, spec, namespace)


REFUSED = [
    ("VSphereMachine", {"network": {"devices": []}}, "spec.template", "Required value"),
    ("VSphereMachine", {"template": "t"}, "spec.network", "Required value"),
    ("VSphereMachine", {**MACHINE, "numCPUs": 1}, "spec.numCPUs", "greater than or equal to 2"),
    ("VSphereMachine", {**MACHINE, "cloneMode": "copy"}, "spec.cloneMode", '"fullClone", "linkedClone"'),
    ("VSphereMachine", {**MACHINE, "powerOffMode": "off"}, "spec.powerOffMode", '"hard", "soft", "trySoft"'),
    (
        "VSphereMachine",
        {**MACHINE, "powerOffMode": "hard", "guestSoftPowerOffTimeoutSeconds": 5},
        "spec.guestSoftPowerOffTimeoutSeconds",
        "is for powerOffMode trySoft only",
    ),
    ("VSphereMachine", {**MACHINE, "tagIDs": ["zone-a"]}, "spec.tagIDs[0]", "urn:vmomi:InventoryServiceTag"),
    ("VSphereMachine", {**MACHINE, "hardwareVersion": "19"}, "spec.hardwareVersion", "vmx-"),
    ("VSphereMachine", {**MACHINE, "os": "Windows"}, "spec.os", '"Linux"'),
    (
        "VSphereMachine",
        {**MACHINE, "customVMXKeys": {"guestinfo.userdata": "x"}},
        "spec.customVMXKeys",
        "must not have the guestinfo keys",
    ),
    ("VSphereMachine", device(networkName=""), "spec.network.devices[0].networkName", "at least 1 chars"),
    ("VSphereMachine", device(ipAddrs=["10.0.0.5"]), "spec.network.devices[0].ipAddrs[0]", "such as 10.0.0.5/24"),
    ("VSphereMachine", device(ipAddrs=["10.0.0.256/24"]), "spec.network.devices[0].ipAddrs[0]", "10.0.0.256/24"),
    ("VSphereMachine", device(gateway4="fd00::1"), "spec.network.devices[0].gateway4", "must be an IPv4 address"),
    ("VSphereMachine", device(gateway6="10.0.0.1"), "spec.network.devices[0].gateway6", "must be an IPv6 address"),
    ("VSphereMachine", device(nameservers=["dns"]), "spec.network.devices[0].nameservers[0]", "must be an IP address"),
    ("VSphereMachine", device(mtu=20), "spec.network.devices[0].mtu", "greater than or equal to 68"),
    ("VSphereMachine", device(macAddr="0050.56aa.bb01"), "spec.network.devices[0].macAddr", "0050.56aa.bb01"),
    ("VSphereMachine", device(deviceName="a very long name"), "spec.network.devices[0].deviceName", "15"),
    (
        "VSphereMachine",
        device(routes=[{"to": "10.0.0.0/33", "via": "10.0.0.1", "metric": 1}]),
        "spec.network.devices[0].routes[0].to",
        "must be a network, an address or default",
    ),
    (
        "VSphereMachine",
        device(routes=[{"to": "10.0.0.0/8", "via": "gw", "metric": 1}]),
        "spec.network.devices[0].routes[0].via",
        "must be an IP address",
    ),
    (
        "VSphereMachine",
        device(routes=[{"to": "10.0.0.0/8", "via": "10.0.0.1"}]),
        "spec.network.devices[0].routes[0].metric",
        "Required value",
    ),
    (
        "VSphereMachine",
        device(dhcp4Overrides={"useDomains": "yes"}),
        "spec.network.devices[0].dhcp4Overrides.useDomains",
        '"true", "false", "route"',
    ),
    (
        "VSphereMachine",
        device(addressesFromPools=[{"kind": "IPPool", "name": "p"}]),
        "spec.network.devices[0].addressesFromPools[0].apiGroup",
        "Required value",
    ),
    (
        "VSphereMachineTemplate",
        template(**device(ipAddrs=["10.0.0.5/24"])),
        "spec.template.spec.network.devices[0].ipAddrs",
        "cannot be set in templates",
    ),
    ("VSphereCluster", {}, "spec.server", "Required value"),
    (
        "VSphereCluster",
        {"server": "v", "identityRef": {"kind": "VSphereClusterIdentity", "name": "a"}},
        "spec.identityRef.kind",
        '"Secret"',
    ),
    (
        "VSphereCluster",
        {"server": "v", "controlPlaneEndpoint": {"host": "a", "port": 0}},
        "spec.controlPlaneEndpoint.port",
        "greater than or equal to 1",
    ),
    (
        "VSphereFailureDomain",
        {**DOMAIN, "region": {**TAG, "type": "HostGroup"}},
        "spec.region.type",
        "must be Datacenter or ComputeCluster",
    ),
    (
        "VSphereFailureDomain",
        {**DOMAIN, "zone": {**TAG, "type": "HostGroup"}},
        "spec.topology.hosts",
        "is needed for a zone of type HostGroup",
    ),
    (
        "VSphereFailureDomain",
        {**DOMAIN, "topology": {"datacenter": "dc"}},
        "spec.topology.computeCluster",
        "is needed for a zone of type ComputeCluster",
    ),
    (
        "VSphereFailureDomain",
        {
            **DOMAIN,
            "zone": {**TAG, "type": "Datacenter"},
            "topology": {"datacenter": "dc", "hosts": {"vmGroupName": "a", "hostGroupName": "b"}},
        },
        "spec.topology.computeCluster",
        "is needed with hosts",
    ),
    (
        "VSphereFailureDomain",
        domain(networks=["a"], networkConfigurations=[{"networkName": "b"}]),
        "spec.topology.networkConfigurations",
        "cannot be set with networks",
    ),
    ("VSphereDeploymentZone", {"server": "v"}, "spec.failureDomain", "Required value"),
]


@pytest.mark.parametrize(("kind", "spec", "field", "text"), REFUSED)
async def test_a_mistake_is_refused_with_its_field_and_what_would_do(kube, namespace, kind, spec, field, text):
    causes = await refused(accepted(kube, kind, OURS, spec, namespace))
    assert explained(causes, field, text), causes


async def created(kube, kind, namespace, spec):
    resource = resource_of(kind, OURS)
    where = namespace if resource.namespaced else ""
    name = namespace  # unique in the cluster too
    await kube.create(resource, manifest(resource, name, where, spec))

    async def change(**spec):
        return await kube.patch(resource, name, where, spec=spec)

    return change


@pytest.mark.parametrize(
    "field", sorted(set(FULL_MACHINE) - {"network", "powerOffMode", "guestSoftPowerOffTimeoutSeconds"})
)
async def test_what_a_vm_was_cloned_with_cannot_be_modified(kube, namespace, field):
    change = await created(kube, "VSphereMachine", namespace, FULL_MACHINE)
    others = {"cloneMode": "fullClone", "customVMXKeys": None, "tagIDs": None, "os": None, "hardwareVersion": "vmx-20"}
    old = FULL_MACHINE[field]
    other = others.get(field, old + 1 if isinstance(old, int) else f"{old}x" if isinstance(old, str) else type(old)())
    assert explained(await refused(change(**{field: other})), f"spec.{field}", "cannot be modified")


async def test_addresses_power_off_mode_and_the_first_provider_id_can_be_written_later(kube, namespace):
    change = await created(kube, "VSphereMachine", namespace, MACHINE)
    await change(network=device(ipAddrs=["10.0.0.5/24"])["network"])
    await change(powerOffMode="trySoft", guestSoftPowerOffTimeoutSeconds=9)
    made = await change(providerID="vsphere://a")
    assert made["spec"]["network"]["devices"][0]["ipAddrs"] == ["10.0.0.5/24"]
    assert explained(await refused(change(providerID=None)), "spec.providerID", "cannot be modified once it is set")


async def test_a_template_and_a_failure_domain_cannot_be_modified_at_all(kube, namespace):
    change = await created(kube, "VSphereMachineTemplate", namespace, template())
    causes = await refused(change(template={"spec": {"numCPUs": 4}}))
    assert explained(causes, "spec.template.spec", "make another template")
    change = await created(kube, "VSphereFailureDomain", namespace, DOMAIN)
    assert explained(await refused(change(topology={"datastore": "d"})), "spec", "cannot be modified")


async def test_an_endpoint_is_written_once(kube, namespace):
    change = await created(kube, "VSphereCluster", namespace, {"server": "v"})
    await change(controlPlaneEndpoint={"host": "10.0.0.9", "port": 6443})
    causes = await refused(change(controlPlaneEndpoint={"host": "10.0.0.10"}))
    assert explained(causes, "spec.controlPlaneEndpoint", "cannot be modified once it is set")


CONDITIONS = [
    {
        "type": "VirtualMachineProvisioned",
        "status": "False",
        "reason": "WaitingForStaticIPAllocation",
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
        "observedGeneration": 1,
    }
]
STATUSES = {
    "VSphereMachine": {
        "initialization": {"provisioned": True},
        "addresses": [{"type": "ExternalIP", "address": "10.0.0.5"}],
        "network": [{"macAddr": "00:50:56:aa:bb:01", "connected": True, "ipAddrs": ["10.0.0.5"], "networkName": "n"}],
        "conditions": CONDITIONS,
    },
    "VSphereCluster": {
        "initialization": {"provisioned": True},
        "failureDomains": [{"name": "a", "controlPlane": True, "attributes": {"zone": "a"}}],
        "vCenterVersion": "8.0.3.0",
        "conditions": CONDITIONS,
    },
    "VSphereDeploymentZone": {"ready": False, "conditions": CONDITIONS},
}
SPECS = {"VSphereMachine": MACHINE, "VSphereCluster": {"server": "v"}, "VSphereDeploymentZone": {"failureDomain": "f"}}


@pytest.mark.parametrize("group", [OURS, THEIRS])
@pytest.mark.parametrize("kind", STATUSES)
async def test_a_status_is_kept_as_written_by_either_definition(kube, namespace, kind, group):
    resource = resource_of(kind, group)
    where = namespace if resource.namespaced else ""
    await kube.create(resource, manifest(resource, namespace, where, SPECS[kind]))
    assert (await kube.set_status(resource, namespace, where, STATUSES[kind]))["status"] == STATUSES[kind]


async def test_zones_are_for_control_planes_unless_it_is_said_otherwise(kube, namespace):
    resource = resource_of("VSphereDeploymentZone", OURS)
    made = await kube.create(resource, manifest(resource, namespace, "", {"failureDomain": "f"}))
    assert made["spec"]["controlPlane"] is True


def test_cluster_api_finds_the_version_of_its_contract_by_label():
    for path in DEFINITIONS.glob("*.yaml"):
        definition = yaml.safe_load(path.read_text())
        assert definition["metadata"]["labels"]["cluster.x-k8s.io/v1beta2"] == definition["spec"]["versions"][0]["name"]
