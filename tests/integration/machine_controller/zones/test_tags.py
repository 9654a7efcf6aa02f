"""Tags that are made for failure domains: only where it is asked for, only what is missing."""

from __future__ import annotations

from services.machine_controller import api, contract
from services.runtime.kube.objects import ObjectKey
from tests.support.kube import eventually
from tests.support.zones import DOMAINS, condition, secret

VALIDATED = "FailureDomainValidated"


async def test_tags_are_made_for_a_failure_domain_that_asks_for_it_and_only_then(start, sim):
    async with start() as world:
        await world.create(world.domain(), world.zone())
        zone = await world.becomes(VALIDATED, "False", "RegionMisconfigured")
        assert condition(zone, VALIDATED)[2].startswith(f"there is no tag category '{world.name('region')}'")
        await annotate(world)
        message = "no credentials for making tags are configured (--zone-tags-secret)"
        await eventually(world.get, lambda zone: message in condition(zone, VALIDATED)[2])
        assert await world.vc.tags.category(world.name("region")) is None
        await world.kube.create(contract.SECRETS, secret("tags", world.namespace, sim))
        await world.running.stop()
        world.running = world.service(zone_tags_secret=ObjectKey(world.namespace, "tags"))
        async with world.running.running():
            await world.ready()
            cluster, datacenter = await world.object("cluster", "DC0_C0"), await world.object("datacenter", "DC0")
            attached = await world.vc.tags.attached([cluster, datacenter])
            assert {ref: len(tags) for ref, tags in attached.items()} == {cluster: 1, datacenter: 1}
            events = await eventually(
                lambda: world.kube.events(zone), lambda found: any(e["reason"] == "TagsConfigured" for e in found)
            )
            note = next(event["note"] for event in events if event["reason"] == "TagsConfigured")
            assert note.endswith(f"attach tag a of category {world.name('zone')} to /DC0/host/DC0_C0")
            # What somebody takes off is put back.
            (tag,) = attached[cluster]
            await world.vc.tags.detach(tag, cluster)
            await eventually(lambda: world.vc.tags.attached([cluster]), lambda found: found[cluster])
        await world.running.start()


async def test_a_category_gets_the_types_it_lacks_and_keeps_those_it_has(start, sim):
    async with start() as world:
        await world.kube.create(contract.SECRETS, secret("tags", world.namespace, sim))
        await world.running.stop()
        await world.tag("region", "other")
        category = await world.vc.tags.category(world.name("region"))
        await world.vc.tags.delete_category(category.id)
        await world.vc.tags.create_category(
            world.name("region"), cardinality=category.cardinality, types=["ClusterComputeResource"]
        )
        world.running = world.service(zone_tags_secret=ObjectKey(world.namespace, "tags"))
        async with world.running.running():
            domain = world.domain()
            domain["metadata"]["annotations"] = {api.AUTO_CONFIGURE_ANNOTATION: "true"}
            await world.create(domain, world.zone())
            await world.ready()
            category = await world.vc.tags.category(world.name("region"))
            assert category.types == {"ClusterComputeResource", "Datacenter"}
        await world.running.start()


async def annotate(world):
    await world.kube.annotate(DOMAINS, world.name("a"), **{api.AUTO_CONFIGURE_ANNOTATION: "true"})


async def test_an_object_that_is_in_another_zone_stays_there(start, sim):
    async with start() as world:
        await world.kube.create(contract.SECRETS, secret("tags", world.namespace, sim))
        await world.running.stop()
        cluster = await world.object("cluster", "DC0_C0")
        await world.tag("zone", "other", cluster)
        world.running = world.service(zone_tags_secret=ObjectKey(world.namespace, "tags"))
        async with world.running.running():
            domain = world.domain()
            domain["metadata"]["annotations"] = {api.AUTO_CONFIGURE_ANNOTATION: "true"}
            await world.create(domain, world.zone())
            zone = await eventually(
                world.get, lambda zone: "cannot be configured" in (condition(zone, VALIDATED) or " ")[-1]
            )
            assert "/DC0/host/DC0_C0 has tag 'other' of category" in condition(zone, VALIDATED)[2]
            assert await world.vc.tags.category(world.name("region")) is None  # nothing was begun
        await world.running.start()
