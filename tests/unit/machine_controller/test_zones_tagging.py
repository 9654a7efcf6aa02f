"""Which tags are missing, and the changes that make them."""

import pytest

from services.machine_controller import api
from services.machine_controller.vsphere.values import Cardinality, Category, Ref, Tag
from services.machine_controller.zones import tagging
from services.machine_controller.zones.tagging import (
    Attach,
    CreateCategory,
    CreateTag,
    ExtendCategory,
    Present,
    Wanted,
)

DC, CLUSTER = Ref("Datacenter", "dc-1"), Ref("ClusterComputeResource", "c-1")
HOSTS = (Ref("HostSystem", "h-1"), Ref("HostSystem", "h-2"))
ZONE = Wanted("k8s-zone", "a", tagging.COMPUTE_CLUSTER, (CLUSTER,))
CATEGORY = Category(id="cat", name="k8s-zone", types=frozenset({"ClusterComputeResource"}))
TAG = Tag(id="tag-a", name="a", category_id="cat")
OTHER = Tag(id="tag-b", name="b", category_id="cat")


def present(category=CATEGORY, tags=(TAG, OTHER), attached=None):
    named = {} if category is None else {category.name: category}
    return Present(named, {(category.name, tag.name): tag for tag in tags} if category else {}, attached or {})


@pytest.mark.parametrize(
    ("type_", "objects", "carrier"),
    [
        ("Datacenter", (DC,), "Datacenter"),
        ("ComputeCluster", (CLUSTER,), "ClusterComputeResource"),
        ("HostGroup", HOSTS, "HostSystem"),
    ],
)
def test_a_region_or_zone_is_carried_by_objects_of_its_type(type_, objects, carrier):
    want = tagging.wanted(api.TagTarget("a", type_, "c"), DC, CLUSTER, HOSTS)
    assert (want.objects, want.carrier, want.category, want.tag) == (objects, carrier, "c", "a")


def test_a_tag_has_nobody_to_carry_it_where_the_cluster_is_missing():
    assert tagging.wanted(api.TagTarget("a", "ComputeCluster", "c"), DC, None, ()).objects == ()


MISSING = {
    "nothing is there": (
        present(None),
        "there is no tag category 'k8s-zone'",
        [CreateCategory("k8s-zone", ("ClusterComputeResource",)), CreateTag("k8s-zone", "a")],
    ),
    "the category alone is there": (
        present(tags=()),
        "there is no tag 'a' in category 'k8s-zone'",
        [CreateTag("k8s-zone", "a")],
    ),
    "the category is for other objects": (
        present(Category(id="cat", name="k8s-zone", types=frozenset({"HostSystem"})), tags=()),
        "there is no tag 'a' in category 'k8s-zone'",
        [ExtendCategory("k8s-zone", ("ClusterComputeResource",)), CreateTag("k8s-zone", "a")],
    ),
    "the category is for all objects": (
        present(Category(id="cat", name="k8s-zone"), tags=()),
        "there is no tag 'a' in category 'k8s-zone'",
        [CreateTag("k8s-zone", "a")],
    ),
    "the tag is not attached": (
        present(attached={CLUSTER: frozenset({"elsewhere"})}),
        "tag 'a' of category 'k8s-zone' is not attached to ClusterComputeResource:c-1",
        [],
    ),
}


@pytest.mark.parametrize(("there", "sentence", "changes"), MISSING.values(), ids=list(MISSING))
def test_what_a_tag_lacks_is_said_and_planned_in_order(there, sentence, changes):
    assert tagging.missing(ZONE, there).sentence() == sentence
    assert list(tagging.plan([ZONE], there)) == [*changes, Attach("k8s-zone", "a", CLUSTER)]


def test_nothing_is_planned_where_every_object_has_its_tag():
    there = present(attached={CLUSTER: frozenset({"tag-a", "elsewhere"})})
    assert not tagging.missing(ZONE, there)
    assert tagging.plan([ZONE], there) == ()


def test_a_tag_of_that_name_in_another_category_does_not_count():
    there = present(attached={CLUSTER: frozenset({"namesake"})})
    there = there._replace(tags={**there.tags, ("k8s-region", "a"): Tag(id="namesake", name="a", category_id="r")})
    assert tagging.missing(ZONE, there).objects == (CLUSTER,)


def test_zones_that_share_a_region_make_its_tag_once():
    region = Wanted("k8s-region", "r", tagging.DATACENTER, (DC,))
    changes = tagging.plan([region, ZONE, region, ZONE._replace(tag="b")], Present())
    assert [type(change).__name__ for change in changes] == [
        *(["CreateCategory"] * 2),
        *(["CreateTag"] * 3),
        *(["Attach"] * 3),
    ]
    assert len(set(changes)) == len(changes)


def test_one_category_for_regions_and_zones_is_made_for_both_types():
    region = Wanted("k8s", "r", tagging.DATACENTER, (DC,))
    first = tagging.plan([region, ZONE._replace(category="k8s")], Present())[0]
    assert first == CreateCategory("k8s", ("ClusterComputeResource", "Datacenter"))


CONFLICTS = {
    "it has another zone": ([ZONE], present(attached={CLUSTER: frozenset({"tag-b"})}), [("b", "a")]),
    "it has its zone": ([ZONE], present(attached={CLUSTER: frozenset({"tag-a"})}), []),
    "it has none": ([ZONE], present(), []),
    "two zones want it": ([ZONE, ZONE._replace(tag="b")], present(), [("a", "b")]),
    "two zones want it in a category that is not there": ([ZONE, ZONE._replace(tag="b")], Present(), [("a", "b")]),
    "the category allows several": (
        [ZONE],
        present(
            Category(id="cat", name="k8s-zone", cardinality=Cardinality.MULTIPLE),
            attached={CLUSTER: frozenset({"tag-b"})},
        ),
        [],
    ),
}


@pytest.mark.parametrize(("wants", "there", "expected"), CONFLICTS.values(), ids=list(CONFLICTS))
def test_an_object_cannot_be_in_two_zones_of_a_category_that_allows_one(wants, there, expected):
    found = tagging.conflicts(wants, there)
    assert [(each.has, each.wanted) for each in found] == expected
    for each in found:
        assert each.text({CLUSTER: "/dc/host/c"}).startswith(f"/dc/host/c has tag {each.has!r} of category 'k8s-zone'")


def test_a_long_list_of_objects_is_cut():
    hosts = tuple(Ref("HostSystem", f"h-{n}") for n in range(9))
    want = Wanted("k8s-zone", "a", tagging.HOST_GROUP, hosts)
    sentence = tagging.missing(want, present()).sentence({hosts[0]: "/dc/host/esx"})
    assert sentence.endswith("/dc/host/esx, HostSystem:h-1, HostSystem:h-2, HostSystem:h-3, HostSystem:h-4 and 4 more")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (CreateCategory("c", ("Datacenter", "HostSystem")), "create tag category c for Datacenter, HostSystem"),
        (ExtendCategory("c", ("HostSystem",)), "allow tags of category c on HostSystem"),
        (CreateTag("c", "a"), "create tag a in category c"),
        (Attach("c", "a", DC), "attach tag a of category c to /dc"),
        (Attach("c", "a", CLUSTER), "attach tag a of category c to ClusterComputeResource:c-1"),
    ],
)
def test_changes_are_told_in_words(change, text):
    assert change.text({DC: "/dc"}) == text
