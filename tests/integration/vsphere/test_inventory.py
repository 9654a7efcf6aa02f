"""Names to objects, and what is said when there is none."""

from __future__ import annotations

import asyncio

import pytest

from services.machine_controller.vsphere.errors import Ambiguous, NotFound
from services.machine_controller.vsphere.values import AffinityRule, NetworkKind, Ref


@pytest.fixture
async def datacenter(vc):
    return await vc.inventory.datacenter()


@pytest.mark.parametrize("name", ["DC0", "/DC0", "*", ""])
async def test_a_datacenter_is_found_by_name_by_path_or_as_the_only_one(vc, name):
    found = await vc.inventory.datacenter(name)
    assert (found.name, found.path, found.ref.type) == ("DC0", "/DC0", "Datacenter")


async def test_a_missing_datacenter_is_named_with_those_there_are(vc):
    with pytest.raises(NotFound, match="datacenter 'DC9' not found; there are: DC0"):
        await vc.inventory.datacenter("DC9")


async def test_a_cluster_knows_its_hosts_datastores_networks_and_root_pool(vc, datacenter):
    cluster = await vc.inventory.cluster(datacenter, "DC0_C1")
    hosts = await vc.inventory.hosts(cluster.hosts)
    assert [host.name for host in hosts] == ["DC0_C1_H0", "DC0_C1_H1", "DC0_C1_H2"]
    assert all(host.available for host in hosts)
    assert {found.name for found in (await vc.inventory.names(cluster.datastores)).values()} == {"LocalDS_0"}
    assert "DC0_DVPG0" in {found.name for found in (await vc.inventory.names(cluster.networks)).values()}
    assert await vc.inventory.pool_owner(cluster.root_pool) == cluster.ref
    assert cluster in await vc.inventory.clusters(datacenter)
    assert cluster == await vc.inventory.cluster(datacenter, "/DC0/host/DC0_C1")


@pytest.mark.parametrize("name", ["DC0_C0_RP1", "DC0_C0/Resources/DC0_C0_RP1", "/DC0/host/DC0_C0/Resources/DC0_C0_RP1"])
async def test_a_resource_pool_is_found_by_name_and_by_path(vc, datacenter, name):
    pool = await vc.inventory.resource_pool(datacenter, name)
    assert pool.path == "/DC0/host/DC0_C0/Resources/DC0_C0_RP1"


async def test_without_a_name_a_clusters_root_pool_is_meant(vc, datacenter):
    cluster = await vc.inventory.cluster(datacenter, "DC0_C0")
    assert (await vc.inventory.resource_pool(datacenter, cluster=cluster)).ref == cluster.root_pool
    assert (await vc.inventory.resource_pool(datacenter, "/DC0/host/DC0_C0")).ref == cluster.root_pool
    with pytest.raises(Ambiguous, match="DC0_C0/Resources, DC0_C1/Resources"):
        await vc.inventory.resource_pool(datacenter)


async def test_a_pool_of_another_cluster_is_not_found_in_this_one(vc, datacenter):
    cluster = await vc.inventory.cluster(datacenter, "DC0_C0")
    with pytest.raises(NotFound, match="there are: DC0_C0_RP1"):
        await vc.inventory.resource_pool(datacenter, "DC0_C1_RP1", cluster=cluster)


async def test_folders_are_found_and_the_datacenters_own_is_the_default(vc, datacenter):
    root = await vc.inventory.folder(datacenter)
    assert root.path == "/DC0/vm"
    assert await vc.inventory.folder(datacenter, "vm") == root
    assert await vc.inventory.folder(datacenter, "/DC0/vm") == root
    with pytest.raises(NotFound, match="folder 'prod' not found in DC0"):
        await vc.inventory.folder(datacenter, "prod")


async def test_a_missing_datastore_is_named_with_those_there_are(vc, datacenter):
    assert (await vc.inventory.datastore(datacenter, "LocalDS_0")).path == "/DC0/datastore/LocalDS_0"
    with pytest.raises(NotFound) as caught:
        await vc.inventory.datastore(datacenter, "fast")
    assert str(caught.value) == "datastore 'fast' not found in DC0; there are: LocalDS_0"
    assert (caught.value.kind, caught.value.name, caught.value.nearby) == ("datastore", "fast", ("LocalDS_0",))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("DC0_DVPG0", NetworkKind.DISTRIBUTED),
        ("/DC0/network/DC0_DVPG0", NetworkKind.DISTRIBUTED),
        ("VM Network", NetworkKind.STANDARD),
        ("DC0_NSX0", NetworkKind.OPAQUE),
    ],
)
async def test_networks_of_all_kinds_are_found_with_what_a_card_needs(vc, datacenter, name, kind):
    network = await vc.inventory.network(datacenter, name)
    assert (network.name, network.kind) == (name.rpartition("/")[2], kind)
    assert bool(network.switch_uuid and network.portgroup_key) is (kind is NetworkKind.DISTRIBUTED)
    assert bool(network.opaque_id and network.opaque_type) is (kind is NetworkKind.OPAQUE)


@pytest.mark.parametrize("name", ["DC0_DVPG0", "VM Network", "DC0_NSX0"])
async def test_a_network_is_found_by_its_id_too(vc, datacenter, name):
    network = await vc.inventory.network(datacenter, name)
    for text in (network.ref.id, str(network.ref)):
        assert await vc.inventory.network(datacenter, text) == network
    with pytest.raises(NotFound, match=f"network 'VirtualMachine:{network.ref.id}' not found"):
        await vc.inventory.network(datacenter, f"VirtualMachine:{network.ref.id}")


async def test_a_name_goes_before_an_id_that_reads_like_it(sim, vc, datacenter, made, name):
    first, second = await made(name), await made(f"{name}-b")
    assert (await vc.inventory.template(datacenter, first.ref.id)).ref == first.ref
    vc.inventory.forget()
    sim.change(second.name, "rename", name=first.ref.id)
    assert (await vc.inventory.template(datacenter, first.ref.id)).ref == second.ref


async def test_a_missing_network_is_named_with_those_there_are(vc, datacenter):
    with pytest.raises(NotFound, match=r"network 'k8s' not found in DC0; there are: .*DC0_DVPG0.*VM Network"):
        await vc.inventory.network(datacenter, "k8s")
    with pytest.raises(NotFound, match="network '/DC0/network/k8s' not found"):
        await vc.inventory.network(datacenter, "/DC0/network/k8s")


async def test_a_template_is_found_by_name_path_instance_uuid_and_bios_uuid(sim, vc, datacenter):
    made = sim.vm("DC0_C1_RP1_VM0")
    by_name = await vc.inventory.template(datacenter, "DC0_C1_RP1_VM0")
    assert by_name.ref == Ref("VirtualMachine", made["id"])
    assert [disk.capacity_bytes for disk in by_name.disks] == [10 << 30]
    assert [nic.mac for nic in by_name.nics] == [made["nics"][0]["mac"]]
    for other in ("/DC0/vm/DC0_C1_RP1_VM0", made["instanceUuid"].upper(), made["uuid"]):
        assert await vc.inventory.template(datacenter, other) == by_name


async def test_a_templates_snapshots_are_known(sim, vc, datacenter, made, name):
    vm = await made(name)
    assert (await vc.inventory.template(datacenter, name)).snapshot is None
    vc.inventory.forget()
    sim.change(name, "snapshot", name="first")
    sim.change(name, "snapshot", name="second")
    template = await vc.inventory.template(datacenter, name)
    assert (template.ref, [title for title, _ in template.snapshots]) == (vm.ref, ["first", "second"])
    assert template.snapshot == dict(template.snapshots)["second"]


async def test_an_unknown_uuid_is_no_template(vc, datacenter):
    with pytest.raises(NotFound, match="template '00000000"):
        await vc.inventory.template(datacenter, "00000000-0000-0000-0000-000000000000")


async def test_storage_policies_are_found_by_name_and_by_id(vc, datacenter):
    policy = await vc.inventory.storage_policy("vSAN Default Storage Policy")
    assert await vc.inventory.storage_policy(policy.id) == policy
    store = (await vc.inventory.datastore(datacenter, "LocalDS_0")).ref
    assert await vc.inventory.compatible_datastores(policy, [store]) == (store,)
    with pytest.raises(NotFound, match=r"storage policy 'gold' not found; there are: .*vSAN Default Storage Policy"):
        await vc.inventory.storage_policy("gold")


async def test_equal_lookups_share_one_answer_and_failures_are_not_kept(sim, vc, datacenter):
    sim.forget_stats()
    found = await asyncio.gather(*(vc.inventory.template(datacenter, "DC0_C0_RP1_VM0") for _ in range(100)))
    assert len(set(map(id, found))) == 1
    once = sim.stats()["calls"]["RetrievePropertiesEx"]
    assert once < 10
    for _ in range(2):
        with pytest.raises(NotFound):
            await vc.inventory.template(datacenter, "absent")
    twice = sim.stats()["calls"]["CreateContainerView"]
    assert twice == 3


async def test_one_who_gives_up_a_shared_lookup_leaves_it_to_the_others(sim, vc, datacenter):
    sim.request("CreateContainerView", hold=True)
    first = asyncio.create_task(vc.inventory.datastore(datacenter, "LocalDS_0"))
    second = asyncio.create_task(vc.inventory.datastore(datacenter, "LocalDS_0"))
    await asyncio.sleep(0)
    first.cancel()
    sim.release()
    assert (await second).name == "LocalDS_0"


async def test_groups_and_rules_of_a_cluster_are_made_and_read(vc, datacenter, made, name):
    cluster = await vc.inventory.cluster(datacenter, "DC0_C0")
    vms = await asyncio.gather(*(made(f"{name}-{i}") for i in range(5)))
    await vc.rules.set_hosts(cluster.ref, "zone-a-hosts", cluster.hosts[:2])
    await vc.rules.set_vms(cluster.ref, "zone-a-vms")
    await vc.rules.set_rule(cluster.ref, AffinityRule("zone-a", "zone-a-vms", host_group="zone-a-hosts"))
    rules = await vc.rules.read(cluster.ref)
    assert rules.host_groups["zone-a-hosts"] == cluster.hosts[:2]
    assert rules.rule("zone-a-vms", "zone-a-hosts").enabled
    assert rules.rule("zone-a-vms", "others") is None

    # Each join writes the whole list: none may be lost to another.
    await asyncio.gather(*(vc.rules.join(cluster.ref, "zone-a-vms", vm.ref) for vm in vms))
    assert set((await vc.rules.read(cluster.ref)).vm_groups["zone-a-vms"]) == {vm.ref for vm in vms}
    assert not await vc.rules.join(cluster.ref, "zone-a-vms", vms[0].ref)
    with pytest.raises(NotFound, match=r"VM group 'zone-z' not found in .*; there are: zone-a-vms"):
        await vc.rules.join(cluster.ref, "zone-z", vms[0].ref)
    await vc.rules.set_rule(cluster.ref, AffinityRule("zone-a", "zone-a-vms", "zone-a-hosts", enabled=False))
    assert not (await vc.rules.read(cluster.ref)).rule("zone-a-vms", "zone-a-hosts").enabled
