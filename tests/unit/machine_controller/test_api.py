"""The views of our kinds agree with their definitions, and lose nothing."""

from __future__ import annotations

import msgspec
import pytest
import yaml

from services.machine_controller import api
from services.runtime.kube.conditions import Condition
from services.runtime.kube.objects import EMPTY, raw, view
from tools import check_crds

FOLDER = "infrastructure/infrastructure.cluster.x-k8s.io"
PAIRS = [
    ("vspheremachines", "spec", api.VSphereMachineSpec),
    ("vspheremachines", "status", api.VSphereMachineStatus),
    ("vspheremachinetemplates", "spec", api.VSphereMachineTemplateSpec),
    ("vsphereclusters", "spec", api.VSphereClusterSpec),
    ("vsphereclusters", "status", api.VSphereClusterStatus),
    ("vspherefailuredomains", "spec", api.VSphereFailureDomainSpec),
    ("vspheredeploymentzones", "spec", api.VSphereDeploymentZoneSpec),
    ("vspheredeploymentzones", "status", api.VSphereDeploymentZoneStatus),
]


@pytest.mark.parametrize(("plural", "part", "struct"), PAIRS)
def test_definition_and_view_have_the_same_fields(plural, part, struct):
    schema = check_crds.schema_of(f"{FOLDER}_{plural}.yaml", part)
    assert check_crds.differences(part, schema, struct) == []


@pytest.mark.parametrize("plural", sorted({plural for plural, *_ in PAIRS}))
def test_clusterctl_finds_the_objects_that_a_move_has_to_take_along_by_the_label_of_their_definition(plural):
    definition = yaml.safe_load((check_crds.CRDS / f"{FOLDER}_{plural}.yaml").read_text())
    assert "clusterctl.cluster.x-k8s.io" in definition["metadata"]["labels"]


def test_what_a_view_does_not_know_stays_when_a_field_is_written():
    spec = raw({"template": "t", "pciDevices": [{"deviceId": 1}], "network": {"devices": []}})
    written = msgspec.json.decode(api.with_fields(spec, providerID="vsphere://a", template=None))
    assert written == {"pciDevices": [{"deviceId": 1}], "network": {"devices": []}, "providerID": "vsphere://a"}
    assert msgspec.json.decode(api.with_fields(EMPTY, ready=True)) == {"ready": True}
    assert msgspec.json.decode(api.with_fields(raw(None), ready=True)) == {"ready": True}


def test_a_machine_is_read_and_written_under_its_json_names():
    spec = {
        "template": "t",
        "numCPUs": 4,
        "memoryMiB": 8192,
        "diskGiB": 40,
        "tagIDs": ["urn:a"],
        "network": {"devices": [{"networkName": "n", "dhcp4Overrides": {"useDNS": False}, "skipIPAllocation": True}]},
        "customVMXKeys": {"a": "b"},
        "providerID": "vsphere://a",
    }
    read = view(raw(spec), api.VSphereMachineSpec)
    assert (read.num_cpus, read.memory_mib, read.provider_id) == (4, 8192, "vsphere://a")
    (device,) = read.network.devices
    assert (device.dhcp4_overrides.use_dns, device.skip_ip_allocation) == (False, True)
    assert msgspec.json.decode(msgspec.json.encode(read)) == spec


def test_conditions_of_a_status_are_those_of_the_runtime():
    condition = {"type": "Ready", "status": "True", "reason": "Ready"}
    assert view(raw({"conditions": [condition]}), api.VSphereMachineStatus).conditions == (
        Condition("Ready", "True", "Ready"),
    )
