"""Failure domains of VSphereClusters, and the end of zones."""

from __future__ import annotations

import asyncio
import re

import yaml

from services.machine_controller import api, contract
from tests.conftest import ROOT
from tests.support.kube import eventually, manifest
from tests.support.zones import CLUSTERS, DOMAINS, MACHINES, ZONES, condition

VALIDATED = "FailureDomainValidated"


async def test_a_cluster_publishes_the_zones_it_selects_and_waits_until_one_is_ready(world):
    await world.tagged()
    selector = {"matchLabels": {"world": world.id}}
    await world.create(world.capi_cluster(), world.vsphere_cluster(failureDomainSelector=selector))

    async def cluster():
        return await world.kube.get(api.VSPHERE_CLUSTERS, "c", world.namespace)

    def says(reason):
        return lambda obj: (condition(obj, "FailureDomainsReady") or ("", ""))[1] == reason

    empty = await eventually(cluster, says("NoFailureDomainSelected"))
    assert condition(empty, "FailureDomainsReady")[2].endswith(f"has labels that match world={world.id}")
    for name in ("b", "a"):
        await world.create(world.domain(name), world.zone(name, controlPlane=name == "a"))
    # Zone a is right. b names the same cluster, which carries a, so it is wrong.
    half = await eventually(cluster, says("NotReady"))
    assert half["status"]["failureDomains"] == [{"name": world.name("a"), "controlPlane": True}]
    assert condition(half, "FailureDomainsReady")[2].startswith(f"1 of 2 zones are not ready: {world.name('b')}: Zone")
    await eventually(cluster, lambda obj: obj["status"].get("initialization") == {"provisioned": True})

    await world.vc.tags.detach(world.tags["zone", "a"].id, await world.object("cluster", "DC0_C0"))
    none = await eventually(cluster, lambda obj: "failureDomains" not in obj["status"])
    assert condition(none, "FailureDomainsReady")[:2] == ("False", "NotReady")
    assert condition(none, "FailureDomainsReady")[2].startswith(f"no zone is ready: {world.name('a')}: ")
    assert none["status"]["initialization"] == {"provisioned": True}
    assert {"FailureDomainsNotReady", "NoFailureDomainSelected", "FailureDomainsPublished"} <= set(
        await world.reasons(none)
    )

    await world.tag("zone", "a", await world.object("cluster", "DC0_C0"))
    await eventually(cluster, lambda obj: obj["status"].get("failureDomains"))
    await world.kube.delete(ZONES, world.name("b"))
    await eventually(cluster, says("Ready"))
    await world.kube.patch(api.VSPHERE_CLUSTERS, "c", world.namespace, spec={"failureDomainSelector": None})
    await eventually(cluster, lambda obj: condition(obj, "FailureDomainsReady") is None)
    assert "failureDomains" not in (await cluster())["status"]


async def test_zones_stay_published_while_their_vcenter_does_not_answer(world):
    await world.tagged()
    await world.create(world.domain(), world.zone())
    await world.ready()
    await world.create(
        world.capi_cluster(), world.vsphere_cluster(failureDomainSelector={"matchLabels": {"world": world.id}})
    )

    async def cluster():
        return await world.kube.get(api.VSPHERE_CLUSTERS, "c", world.namespace)

    await eventually(cluster, lambda obj: obj.get("status", {}).get("failureDomains"))
    world.sim.down()
    silent = await eventually(cluster, lambda obj: condition(obj, "FailureDomainsReady")[0] == "False")
    assert silent["status"]["failureDomains"] == [{"name": world.name("a"), "controlPlane": True}]
    world.sim.up()
    await eventually(cluster, lambda obj: condition(obj, "FailureDomainsReady")[0] == "True")


async def test_nothing_is_published_on_a_cluster_that_is_paused_until_it_is_not(world):
    await world.tagged()
    await world.create(world.domain(), world.zone())
    await world.ready()
    paused = world.capi_cluster()
    paused["spec"]["paused"] = True
    selector = {"matchLabels": {"world": world.id}}
    await world.create(paused, world.vsphere_cluster(failureDomainSelector=selector))

    async def cluster():
        return await world.kube.get(api.VSPHERE_CLUSTERS, "c", world.namespace)

    seen = await eventually(cluster, lambda obj: condition(obj, "Paused"))
    assert "failureDomains" not in seen["status"]
    await world.kube.patch(CLUSTERS, "c", world.namespace, spec={"paused": None})
    await eventually(cluster, lambda obj: obj["status"].get("failureDomains"))


async def test_a_zone_stays_while_a_machine_is_in_it_and_the_last_one_takes_its_failure_domain(world):
    await world.tagged()
    await world.create(world.domain(), world.zone(), world.zone("b", "a"))
    zone = await world.ready()
    await world.ready("b")
    for name, kind, where in (
        ("m1", "VSphereMachine", "a"),
        ("m2", "OtherMachine", "a"),
        ("m3", "VSphereMachine", "b"),
    ):
        reference = {"apiGroup": api.GROUP, "kind": kind, "name": name}
        spec = {
            "clusterName": "c",
            "failureDomain": world.name(where),
            "infrastructureRef": reference,
            "bootstrap": {"dataSecretName": "x"},
        }
        await world.create(manifest(MACHINES, name, world.namespace, spec))
    await world.kube.delete(ZONES, world.name("a"))
    held = await world.becomes("Ready", "False", "Deleting")
    assert condition(held, "Ready")[2] == f"in use by Machines {world.namespace}/m1"
    assert (await eventually(lambda: world.reasons(zone)))[-1] == "InUse"
    await world.kube.delete(MACHINES, "m1", world.namespace)
    await world.kube.gone(ZONES, world.name("a"))

    domain = await world.kube.get(DOMAINS, world.name("a"))
    assert [owner["name"] for owner in domain["metadata"]["ownerReferences"]] == [world.name("b")]
    await world.kube.delete(MACHINES, "m3", world.namespace)
    await world.kube.delete(ZONES, world.name("b"))
    await world.kube.gone(ZONES, world.name("b"))
    await world.kube.gone(DOMAINS, world.name("a"))


async def test_two_last_zones_that_go_at_once_leave_no_failure_domain(world):
    await world.tagged()
    await world.create(world.domain(), *(world.zone(name, "a") for name in "abcd"))
    for name in "abcd":
        await world.ready(name)
    await world.running.stop()
    for name in "abcd":
        await world.kube.delete(ZONES, world.name(name))
    await world.running.start()
    for name in "abcd":
        await world.kube.gone(ZONES, world.name(name))
    await world.kube.gone(DOMAINS, world.name("a"))


async def test_a_zone_whose_failure_domain_is_gone_already_can_be_deleted(world):
    await world.create(world.zone())
    await world.becomes(VALIDATED, "False", "FailureDomainNotFound")
    await world.kube.delete(ZONES, world.name("a"))
    await world.kube.gone(ZONES, world.name("a"))


async def test_a_paused_zone_is_left_alone(world):
    zone = world.zone()
    zone["metadata"]["annotations"] = {contract.PAUSED_ANNOTATION: ""}
    await world.create(world.domain(), zone, world.domain("b"), world.zone("b"))
    await world.becomes(VALIDATED, "False", "RegionMisconfigured", "b")
    paused = await world.get()
    assert "status" not in paused
    assert "finalizers" not in paused["metadata"]


async def test_the_rights_of_the_page_are_enough(world, zone_cluster):
    page = (ROOT / "docs" / "reference" / "vcenter-privileges.md").read_text()
    (rules,) = [yaml.safe_load(block)["rules"] for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)]
    # What the rest of the service reads to become ready; writing is for zones alone.
    others = [
        {"apiGroups": [api.GROUP], "resources": ["vspheremachines"], "verbs": ["list", "watch"]},
        {"apiGroups": ["cluster.x-k8s.io"], "resources": ["clusters"], "verbs": ["list", "watch"]},
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["list", "watch"]},
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get"]},
        {"apiGroups": ["apiextensions.k8s.io"], "resources": ["customresourcedefinitions"], "verbs": ["list", "watch"]},
    ]
    account = await asyncio.to_thread(
        zone_cluster.service_account_kubeconfig, world.namespace, world.name("zones"), [*rules, *others]
    )
    await world.running.stop()
    await world.tagged()
    restricted = world.service(account)
    async with restricted.running():
        await world.create(
            world.domain(),
            world.zone(),
            world.zone("b", "a"),
            world.vsphere_cluster(failureDomainSelector={"matchLabels": {"world": world.id}}),
        )

        async def cluster():
            return await world.kube.get(api.VSPHERE_CLUSTERS, "c", world.namespace)

        await eventually(cluster, lambda obj: len(obj.get("status", {}).get("failureDomains", ())) == 2)
        published = await cluster()
        await eventually(lambda: world.reasons(published), lambda found: "FailureDomainsPublished" in found)
        for name in "ba":
            await world.kube.delete(ZONES, world.name(name))
            await world.kube.gone(ZONES, world.name(name))
        await world.kube.gone(DOMAINS, world.name("a"))
    await world.running.start()
