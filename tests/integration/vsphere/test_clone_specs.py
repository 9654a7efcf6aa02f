"""The clone that a machine's spec and place ask for, looked up in a vCenter with a cluster and a standalone host."""

from __future__ import annotations

import pytest

from services.machine_controller.api import Network, VSphereMachineSpec
from services.machine_controller.cloning import clone_spec
from services.machine_controller.placement import Placement
from services.machine_controller.vsphere.errors import InvalidValue
from services.machine_controller.vsphere.vcenter import VCenters
from tests.support.vcenter import Vcsim

POLICY = "vSAN Default Storage Policy"
TEMPLATE = "DC0_H0_VM0"


@pytest.fixture(scope="module")
def two_kinds():
    with Vcsim.running(**{"standalone-host": 1, "ds": 2}) as running:
        yield running


@pytest.fixture
async def look_up(two_kinds):
    """Looks a clone up for fields of the spec, with a pool and a datastore."""
    async with VCenters() as connections:
        vc = connections.get(two_kinds.server, "test", two_kinds.credentials, two_kinds.trust)

        async def clone(pool, datastore="", **fields):
            spec = VSphereMachineSpec(template=TEMPLATE, **fields)
            place = Placement("", "DC0", "", pool, datastore, Network())
            return await clone_spec(vc.inventory, "m1", "uuid", spec, place, "")

        clone.vc = vc
        yield clone


@pytest.mark.parametrize("owner", ["DC0_H0", "DC0_C0"])
@pytest.mark.parametrize("datastore", ["", "LocalDS_0", "LocalDS_1"])
async def test_a_storage_policy_serves_pools_of_clusters_and_of_standalone_hosts(look_up, owner, datastore):
    inventory = look_up.vc.inventory
    found = await look_up(f"{owner}/Resources", datastore, storage_policy_name=POLICY)
    assert found.storage_policy_id == (await inventory.storage_policy(POLICY)).id
    names = await inventory.names(await inventory.pool_datastores(found.pool))
    assert {each.name for each in names.values()} == {"LocalDS_0", "LocalDS_1"}
    (used,) = (await inventory.template(await inventory.datacenter(), TEMPLATE)).datastores
    assert names[found.datastore].name == (datastore or names[used].name)


async def test_without_a_policy_and_a_datastore_vcenter_chooses(look_up):
    found = await look_up("DC0_C0/Resources")
    assert (found.storage_policy_id, found.datastore) == ("", None)


async def test_a_hardware_version_is_compared_with_the_templates(look_up):
    assert (await look_up("DC0_C0/Resources", hardware_version="vmx-13")).name == "m1"
    with pytest.raises(InvalidValue, match="vmx-14 is more than the template's: /DC0/vm/DC0_H0_VM0 has vmx-13"):
        await look_up("DC0_C0/Resources", hardware_version="vmx-14")
