"""What a zone says of itself: every condition reached and left again, credentials, and what CAPV would accept."""

from __future__ import annotations

import copy
import json

import pytest

from services.machine_controller import api, contract
from services.machine_controller.vsphere.values import AffinityRule
from services.runtime.kube.resource import Resource
from tests.support.kube import eventually, manifest
from tests.support.vcenter import PASSWORD, USER
from tests.support.zones import DOMAINS, OPERATOR, ZONES, condition, secret
from tools import capi

VALIDATED, PLACEMENT, VCENTER = "FailureDomainValidated", "PlacementConstraintReady", "VCenterAvailable"
FOREIGN = "capv-zones.groundwork.test"


def rename(kind, name, *, own=False):
    """Rename and rename back; `own` names end with the world's id."""

    async def away(world):
        old = world.name(name) if own else name
        await world.rename(kind, old, f"{old}-x")

    async def back(world):
        old = world.name(name) if own else name
        await world.rename(kind, f"{old}-x", old)

    return away, back


def retag(what, name, kind, on):
    async def detach(world):
        await world.vc.tags.detach(world.tags[what, name].id, await world.object(kind, on))

    async def attach(world):
        await world.tag(what, name, await world.object(kind, on))

    return detach, attach


async def shut(world):
    world.sim.down()


async def opened(world):
    world.sim.up()


async def other_password(world):
    world.sim.users({USER: PASSWORD, OPERATOR: "another"})
    world.sim.expire()


async def other_secret(world):
    changed = secret("vcenter", world.namespace, world.sim, "another")
    await world.kube.patch(contract.SECRETS, "vcenter", world.namespace, data=changed["data"])


def destroy(kind, name):
    """Destroy and make again."""

    async def away(world):
        await world.destroy(kind, world.name(name))

    async def back(world):
        await getattr(world, kind)(world.name(name))

    return away, back


async def other_rule(world):
    cluster = await world.object("cluster", "DC0_C0")
    await world.vc.rules.set_rule(cluster, AffinityRule(world.name("keep"), "vms", "elsewhere"))


async def same_rule(world):
    cluster = await world.object("cluster", "DC0_C0")
    await world.vc.rules.set_rule(cluster, AffinityRule(world.name("keep"), "vms", world.name("rack")))


TABLE = {
    "vCenter is down": (VCENTER, "VCenterUnreachable", "is unreachable", shut, opened),
    "the password is another": (VCENTER, "VCenterUnreachable", "refuses", other_password, other_secret),
    "the datacenter is renamed": (VCENTER, "DatacenterNotFound", "there are: DC0-x", *rename("datacenter", "DC0")),
    "the pool is renamed": (PLACEMENT, "ResourcePoolNotFound", "'DC0_C0_RP1'", *rename("resource_pool", "DC0_C0_RP1")),
    "the folder is renamed": (PLACEMENT, "FolderNotFound", "folder 'k8s-", *rename("folder", "k8s", own=True)),
    "the region is detached": (
        VALIDATED,
        "RegionMisconfigured",
        "is not attached to /DC0",
        *retag("region", "eu", "datacenter", "DC0"),
    ),
    "the zone is detached": (
        VALIDATED,
        "ZoneMisconfigured",
        "is not attached to /DC0/host/DC0_C0",
        *retag("zone", "a", "cluster", "DC0_C0"),
    ),
    "the cluster is renamed": (
        VALIDATED,
        "ComputeClusterNotFound",
        "there are: DC0_C0-x",
        *rename("cluster", "DC0_C0"),
    ),
    "the datastore is destroyed": (
        VALIDATED,
        "DatastoreNotFound",
        "there are: LocalDS_0",
        *destroy("datastore", "fast"),
    ),
    "the network is destroyed": (VALIDATED, "NetworkNotFound", "there are: DC0_DVPG0", *destroy("network", "lan")),
    "the rule is another": (
        VALIDATED,
        "HostsMisconfigured",
        "no VM-host rule joins VM group 'vms'",
        other_rule,
        same_rule,
    ),
}


async def test_every_condition_is_reached_and_left_again_and_both_are_told(world):
    zone = await world.full()
    assert {row["reason"] for row in zone["status"]["conditions"]} == {"Ready", "Available", "Validated"}
    assert await world.reasons(zone) == []  # what was well from the start is no news
    for what, (type_, reason, message, damage, mend) in TABLE.items():
        await damage(world)
        broken = await world.becomes(type_, "False", reason)
        assert message in condition(broken, type_)[2], what
        assert condition(broken, "Ready")[2] == f"{reason}: {condition(broken, type_)[2]}"
        note = f"machines cannot be placed here any more: {condition(broken, type_)[2]}"
        await eventually(lambda: notes(world, zone), lambda found, note=note: note in found)
        await mend(world)
        await world.ready()
    assert "machines can be placed here" in await notes(world, zone)


async def notes(world, zone):
    return [event["note"] for event in await world.kube.events(zone)]


async def test_a_zone_waits_for_its_failure_domain_and_owns_it(world):
    await world.tagged()
    await world.create(world.zone())
    zone = await world.becomes(VALIDATED, "False", "FailureDomainNotFound")
    assert condition(zone, VCENTER)[0] == condition(zone, PLACEMENT)[0] == "Unknown"
    await world.create(world.domain())
    await world.ready()
    (owner,) = (await world.kube.get(DOMAINS, world.name("a")))["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"]) == (ZONES.kind, world.name("a"), zone["metadata"]["uid"])


@pytest.mark.parametrize(
    ("topology", "constraint", "reason", "message"),
    [
        ({}, {"resourcePool": "DC0_C1_RP1"}, "ResourcePoolNotFound", "is not one of cluster /DC0/host/DC0_C0"),
        ({"datastore": "nowhere"}, None, "DatastoreNotFound", "'nowhere' not found"),
        ({"networks": ["VM Network", "b", "c"]}, None, "NetworkNotFound", "network 'c' not found"),
        (
            {"hosts": {"vmGroupName": "x", "hostGroupName": "y"}},
            None,
            "HostsMisconfigured",
            "no VM-host rule joins VM group 'x' to host group 'y'",
        ),
    ],
)
async def test_what_was_never_right_is_said_once(world, topology, constraint, reason, message):
    await world.tagged()
    await world.create(
        world.domain(**topology), world.zone(**({"placementConstraint": constraint} if constraint else {}))
    )
    zone = await world.becomes(VALIDATED, "False", reason)
    assert message in condition(zone, VALIDATED)[2]
    version = zone["metadata"]["resourceVersion"]
    calls = world.sim.stats()["calls"]["RetrievePropertiesEx"]
    await eventually(lambda: _calls(world), lambda now: now > calls + 20)  # it was looked at again, and again
    assert (await world.get())["metadata"]["resourceVersion"] == version
    assert await eventually(lambda: world.reasons(zone)) == [reason]


async def _calls(world):
    return world.sim.stats()["calls"]["RetrievePropertiesEx"]


async def test_a_cluster_with_a_wrong_thumbprint_does_not_keep_a_zone_from_others(world):
    await world.tagged()
    wrong = {"thumbprint": "00:" * 31 + "00", "identityRef": {"kind": "Secret", "name": "vcenter"}}
    await world.create(world.vsphere_cluster("a", failureDomainSelector={}, **wrong), world.domain(), world.zone())
    await world.ready()


async def test_a_disabled_rule_does_not_stop_anybody_and_is_told(world):
    hosts = await world.hosts("vms", world.name("rack"))
    await world.tagged()
    await world.tag("zone", "b", *hosts)
    domain = world.domain("b", hosts={"vmGroupName": "vms", "hostGroupName": world.name("rack")})
    domain["spec"]["zone"]["type"] = "HostGroup"
    await world.create(domain, world.zone("b"))
    zone = await world.ready("b")
    await world.hosts("vms", world.name("rack"), enabled=False)
    await eventually(lambda: world.reasons(zone), lambda found: found == ["HostRuleDisabled"])
    zone = await world.ready("b")
    assert "is disabled" in condition(zone, VALIDATED)[2]


async def test_every_host_of_a_group_has_to_carry_the_zone(world):
    hosts = await world.hosts("vms", world.name("rack"))
    await world.tagged()
    await world.tag("zone", "b", hosts[0])
    domain = world.domain("b", hosts={"vmGroupName": "vms", "hostGroupName": world.name("rack")})
    domain["spec"]["zone"]["type"] = "HostGroup"
    await world.create(domain, world.zone("b"))
    zone = await world.becomes(VALIDATED, "False", "ZoneMisconfigured", "b")
    assert "DC0_C0_H1" in condition(zone, VALIDATED)[2]
    await world.tag("zone", "b", hosts[1])
    await world.ready("b")


async def test_a_zone_is_looked_at_as_the_cluster_that_selects_it(start):
    async with start(identity_secret=None) as world:
        await world.tagged()
        await world.create(world.domain(), world.zone())
        zone = await world.becomes(VCENTER, "False", "VCenterUnreachable")
        assert "nobody to sign in as" in condition(zone, VCENTER)[2]
        await world.create(world.vsphere_cluster(identityRef={"kind": "Secret", "name": "vcenter"}))
        await world.ready()


async def test_a_cluster_whose_credentials_are_refused_is_passed_over(start):
    async with start(identity_secret=None) as world:
        await world.kube.create(contract.SECRETS, secret("wrong", world.namespace, world.sim, "wrong"))
        for name, identity in (("a", "wrong"), ("b", "missing"), ("c", "vcenter")):
            await world.create(world.vsphere_cluster(name, identityRef={"kind": "Secret", "name": identity}))
        await world.tagged()
        await world.create(world.domain(), world.zone())
        await world.ready()


async def test_what_is_written_is_what_capvs_own_definitions_accept(world, zone_cluster):
    await world.full()
    await world.create(world.capi_cluster(), world.vsphere_cluster(failureDomainSelector={}))

    async def cluster():
        return await world.kube.get(api.VSPHERE_CLUSTERS, "c", world.namespace)

    found = [
        (DOMAINS, await world.kube.get(DOMAINS, world.name("a")), ""),
        (ZONES, await world.ready(), ""),
        (
            api.VSPHERE_CLUSTERS,
            await eventually(cluster, lambda obj: obj.get("status", {}).get("failureDomains")),
            world.namespace,
        ),
    ]
    names = [f"{resource.plural}.{resource.group}" for resource, _, _ in found]
    zone_cluster.install_crds(*(foreign(definition) for definition in capi.crds(*names, versions=["v1beta2"])))
    for resource, obj, namespace in found:
        theirs = Resource(FOREIGN, resource.version, resource.plural, resource.kind, namespaced=resource.namespaced)
        spec, status = obj["spec"], obj.get("status")
        copied = manifest(theirs, obj["metadata"]["name"], namespace, spec)
        path = f"{theirs.path(namespace)}?fieldValidation=Strict"
        headers = {"Content-Type": "application/json"}
        made = json.loads(await world.kube.client.raw("POST", path, body=json.dumps(copied).encode(), headers=headers))
        if status:
            made["status"] = status
            path = f"{theirs.path(namespace, obj['metadata']['name'], 'status')}?fieldValidation=Strict"
            stored = json.loads(
                await world.kube.client.raw("PUT", path, body=json.dumps(made).encode(), headers=headers)
            )
            assert stored["status"] == status


def foreign(definition):
    changed = copy.deepcopy(definition)
    changed["spec"]["group"] = FOREIGN
    changed["metadata"]["name"] = f"{changed['spec']['names']['plural']}.{FOREIGN}"
    for field in ("shortNames", "categories"):
        changed["spec"]["names"].pop(field, None)
    return changed
