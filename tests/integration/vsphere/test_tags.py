"""Categories, tags and what they are attached to, over REST."""

from __future__ import annotations

import asyncio

import pytest

from services.machine_controller.vsphere.credentials import Credentials
from services.machine_controller.vsphere.errors import (
    AuthenticationFailed,
    DuplicateName,
    NotFound,
    PermissionDenied,
    Unreachable,
    VSphereError,
)
from services.machine_controller.vsphere.values import Cardinality
from tests.support.vcenter import USER

_CATEGORIES = "/rest/com/vmware/cis/tagging/category"


@pytest.fixture
async def category(vc, name):
    made = await vc.tags.create_category(
        name, description="test", cardinality=Cardinality.SINGLE, types=["Datacenter", "ClusterComputeResource"]
    )
    yield made
    await vc.tags.delete_category(made.id)


async def test_a_category_is_made_found_and_widened(vc, category, name):
    assert await vc.tags.category(name) == category
    assert await vc.tags.category("absent") is None
    assert category.types == {"Datacenter", "ClusterComputeResource"}
    wider = await vc.tags.update_category(
        category, cardinality=Cardinality.MULTIPLE, types=[*category.types, "HostSystem"]
    )
    assert (wider.cardinality, wider.types) == (Cardinality.MULTIPLE, category.types | {"HostSystem"})
    assert wider in await vc.tags.categories()


async def test_a_name_that_is_taken_is_told(vc, category, name):
    with pytest.raises(DuplicateName):
        await vc.tags.create_category(name, cardinality=Cardinality.SINGLE)
    await vc.tags.create_tag("zone-a", category.id)
    with pytest.raises(DuplicateName):
        await vc.tags.create_tag("zone-a", category.id)


async def test_tags_are_attached_listed_and_detached(vc, category):
    datacenter = (await vc.inventory.datacenter()).ref
    clusters = [cluster.ref for cluster in await vc.inventory.clusters(await vc.inventory.datacenter())]
    region, zone = [await vc.tags.create_tag(tag, category.id) for tag in ("region-1", "zone-1")]
    assert await vc.tags.tags(category.id) == (region, zone)
    assert await vc.tags.tag(zone.id) == zone
    await vc.tags.attach(region.id, datacenter)
    for _ in range(2):  # attaching twice is no mistake
        await vc.tags.attach(zone.id, clusters[0])
    attached = await vc.tags.attached([datacenter, *clusters])
    assert attached == {datacenter: {region.id}, clusters[0]: {zone.id}, clusters[1]: frozenset()}
    assert await vc.tags.objects(zone.id) == {clusters[0]}
    await vc.tags.detach(zone.id, clusters[0])
    assert await vc.tags.objects(zone.id) == frozenset()
    await vc.tags.delete_tag(region.id)
    assert await vc.tags.tag(region.id) is None
    with pytest.raises(NotFound):
        await vc.tags.delete_tag(region.id)


async def test_rest_signs_in_once_and_renews_an_expired_session(sim, vc, category):
    await asyncio.gather(*(vc.tags.categories() for _ in range(10)))
    assert sim.stats()["calls"]["POST /rest/com/vmware/cis/session"] == 1
    sim.expire()
    await asyncio.gather(*(vc.tags.categories() for _ in range(5)))
    assert sim.stats()["calls"]["POST /rest/com/vmware/cis/session"] == 2


async def test_a_separate_identity_reads_and_writes_tags(sim, vcenters, vc, category):
    sim.users({USER: sim.credentials.password, "tagger@vsphere.local": "other"})
    tagger = vcenters.get(sim.server, "system/tagger", Credentials("tagger@vsphere.local", "other"), sim.trust)
    tag = await tagger.tags.create_tag("zone-b", category.id)
    assert await vc.tags.tag(tag.id) == tag
    assert "Login" not in tagger.stats().calls  # no SOAP session is made for it


async def test_a_wrong_password_is_not_hammered(sim, vcenters):
    vc = vcenters.get(sim.server, "other", Credentials(USER, "canary-wrong"), sim.trust)
    for _ in range(3):
        with pytest.raises(AuthenticationFailed):
            await vc.tags.categories()
    assert sim.stats()["calls"] == {"POST /rest/com/vmware/cis/session": 1}
    with pytest.raises(AuthenticationFailed):
        await vc.check()  # one refusal counts for both endpoints
    assert "Login" not in sim.stats()["calls"]
    vc.replace(sim.credentials, sim.trust)
    await vc.tags.categories()


_DENIED = '{"type":"com.vmware.vapi.std.errors.unauthorized","value":{"messages":[{"default_message":"No."}]}}'


@pytest.mark.parametrize(
    ("rule", "error"),
    [
        ({"status": 403, "body": _DENIED}, PermissionDenied),
        ({"status": 503, "body": "<html>"}, Unreachable),
        ({"status": 404, "body": ""}, NotFound),
        ({"status": 400, "body": "{}"}, VSphereError),
        ({"drop": "before"}, Unreachable),
    ],
)
async def test_answers_of_rest_become_errors_of_our_own(sim, vc, rule, error):
    await vc.tags.categories()
    sim.request(f"GET {_CATEGORIES}", **rule)
    with pytest.raises(error):
        await vc.tags.categories()
    sim.release()
    await vc.tags.categories()


async def test_rest_works_again_after_a_restart(sim, vc):
    await vc.tags.categories()
    sim.down()
    try:
        with pytest.raises(Unreachable):
            await vc.tags.categories()
    finally:
        sim.up()
    await vc.tags.categories()
