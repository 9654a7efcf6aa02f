"""From what a vCenter has to objects, and from a plan's text back to zones."""

import json
import re

import pytest
import yaml

from services.console import UnusableError
from services.machine_controller import api
from services.machine_controller.cli import zonesapply, zonesconnect, zonesplan
from services.machine_controller.cli.zonesite import ClusterSite, DatacenterSite, Site
from services.machine_controller.cli.zonesplan import Choice, slug
from services.machine_controller.vsphere.values import (
    AffinityRule,
    Category,
    Cluster,
    ClusterRules,
    Found,
    Host,
    Ref,
    Tag,
)
from services.machine_controller.zones.tagging import Present


def cluster(path, *, datastores=("ssd",), networks=("lan",), rules=None, label=None):
    name = path.rpartition("/")[2]
    hosts = tuple(Host(Ref("HostSystem", f"{name}-h{n}"), f"esx{n}") for n in range(3))
    value = Cluster(
        ref=Ref("ClusterComputeResource", path),
        name=name,
        path=path,
        root_pool=Ref("ResourcePool", path),
        hosts=tuple(host.ref for host in hosts),
    )
    return ClusterSite(value, label or name, hosts, rules or ClusterRules({}, {}), datastores, networks)


def datacenter(path, *clusters):
    name = path.rpartition("/")[2]
    return DatacenterSite(Found(Ref("Datacenter", path), name, path), name, clusters)


def rules(*, enabled=True, members=2):
    hosts = tuple(Ref("HostSystem", f"c1-h{n}") for n in range(members))
    return ClusterRules(
        {"vms": ()},
        {"rack a": hosts},
        (AffinityRule("keep", "vms", "rack a", enabled=enabled), AffinityRule("apart", "vms", "", "rack a")),
    )


def planned(site, **choice):
    plan = zonesplan.make(site, Choice(**choice))
    domains = {o["metadata"]["name"]: o for o in plan.objects if o["kind"] == "VSphereFailureDomain"}
    zones = {o["metadata"]["name"]: o for o in plan.objects if o["kind"] == "VSphereDeploymentZone"}
    assert list(domains) == list(zones)
    return plan, domains, zones


ONE = Site("vc", (datacenter("/dc", cluster("/dc/host/c1", rules=rules())),))


def test_a_cluster_becomes_a_zone_of_its_datacenters_region():
    plan, domains, zones = planned(ONE)
    assert domains["dc-c1"]["spec"] == {
        "region": {"name": "dc", "type": "Datacenter", "tagCategory": "k8s-region"},
        "zone": {"name": "dc-c1", "type": "ComputeCluster", "tagCategory": "k8s-zone"},
        "topology": {"datacenter": "dc", "computeCluster": "c1", "datastore": "ssd", "networks": ["lan"]},
    }
    assert zones["dc-c1"]["spec"] == {
        "server": "vc",
        "failureDomain": "dc-c1",
        "controlPlane": True,
        "placementConstraint": {"resourcePool": "/dc/host/c1/Resources"},
    }
    assert [(want.tag, want.objects) for want in plan.wanted] == [
        ("dc", (Ref("Datacenter", "/dc"),)),
        ("dc-c1", (Ref("ClusterComputeResource", "/dc/host/c1"),)),
    ]
    assert plan.remarks == ()


def test_the_hosts_of_a_rule_become_a_zone_of_their_clusters_region():
    plan, domains, _ = planned(ONE, by="hosts")
    spec = domains["dc-c1-rack-a"]["spec"]
    assert spec["region"] == {"name": "dc-c1", "type": "ComputeCluster", "tagCategory": "k8s-region"}
    assert spec["zone"] == {"name": "dc-c1-rack-a", "type": "HostGroup", "tagCategory": "k8s-zone"}
    assert spec["topology"]["hosts"] == {"vmGroupName": "vms", "hostGroupName": "rack a"}
    assert plan.wanted[1].objects == (Ref("HostSystem", "c1-h0"), Ref("HostSystem", "c1-h1"))


@pytest.mark.parametrize(
    ("found", "remark"),
    [
        (rules(enabled=False), "VM-host rule keep of /dc/host/c1 is disabled"),
        (rules(members=0), "host group rack a of /dc/host/c1 has no hosts"),
        (ClusterRules({}, {}), "/dc/host/c1 has no VM-host rule, so it gives no zone of hosts"),
    ],
)
def test_a_rule_that_keeps_no_machine_in_place_is_remarked(found, remark):
    site = Site("vc", (datacenter("/dc", cluster("/dc/host/c1", rules=found)),))
    assert remark in zonesplan.make(site, Choice(by="hosts")).remarks


def test_two_rules_for_one_host_group_are_one_zone_and_that_is_remarked():
    found = rules()
    more = AffinityRule("a second", "other", "rack a", enabled=True)
    off = AffinityRule("an old one", "gone", "rack a", enabled=False)
    several = ClusterRules(found.vm_groups, found.host_groups, (off, more, *found.rules))
    site = Site("vc", (datacenter("/dc", cluster("/dc/host/c1", rules=several)),))
    plan, domains, _ = planned(site, by="hosts")
    assert [each["spec"]["topology"]["hosts"]["vmGroupName"] for each in domains.values()] == ["other"]
    remarks = [remark for remark in plan.remarks if "too: its zone is that of rule a second" in remark]
    assert [remark.split(" of ")[0] for remark in remarks] == ["VM-host rule keep", "VM-host rule an old one"]


def test_a_datacenter_becomes_a_zone_and_names_its_cluster_if_it_has_but_one():
    two = datacenter("/dc2", cluster("/dc2/host/c1"), cluster("/dc2/host/c2"))
    plan, domains, zones = planned(Site("vc", (*ONE.datacenters, two)), by="datacenter", region="eu")
    assert {name: each["spec"]["region"]["name"] for name, each in domains.items()} == {"dc": "eu", "dc2": "eu"}
    assert domains["dc"]["spec"]["topology"]["computeCluster"] == "c1"
    assert domains["dc2"]["spec"]["topology"] == {"datacenter": "dc2"}
    assert "placementConstraint" not in zones["dc2"]["spec"]
    assert [remark[:24] for remark in plan.remarks] == ["/dc2 has 2 clusters: res"]


def test_choices_are_in_the_objects():
    _, domains, zones = planned(
        ONE,
        datastore="ssd",
        networks=("a", "b"),
        folder="k8s",
        resource_pool="prod/k8s",
        name_prefix="Site 1",
        labels=(("tier", "prod"),),
        control_plane=False,
        auto_configure=True,
        region_category="r",
        zone_category="z",
    )
    domain, zone = domains["site-1-dc-c1"], zones["site-1-dc-c1"]
    assert domain["metadata"]["annotations"] == {api.AUTO_CONFIGURE_ANNOTATION: "true"}
    assert (domain["spec"]["region"]["tagCategory"], domain["spec"]["zone"]["tagCategory"]) == ("r", "z")
    assert domain["spec"]["topology"]["networks"] == ["a", "b"]
    assert zone["metadata"]["labels"] == {"tier": "prod"}
    assert zone["spec"]["controlPlane"] is False
    assert zone["spec"]["placementConstraint"] == {"resourcePool": "/dc/host/c1/Resources/prod/k8s", "folder": "k8s"}


def test_what_cannot_be_chosen_for_the_user_is_left_to_the_template_and_remarked():
    site = Site("vc", (datacenter("/dc", cluster("/dc/host/c1", datastores=("a", "b"), networks=())),))
    plan, domains, _ = planned(site)
    assert domains["dc-c1"]["spec"]["topology"] == {"datacenter": "dc", "computeCluster": "c1"}
    assert plan.remarks == (
        "/dc/host/c1 sees datastores a, b: that of the machine's template is used unless you choose one (--datastore)",
    )
    plan, _, _ = planned(site, datastore="c")
    assert plan.remarks == ("no host of /dc/host/c1 sees datastore c",)


C1 = Ref("ClusterComputeResource", "/dc/host/c1")


def tagged(*names, category="k8s-zone", on=C1):
    tags = {(category, name): Tag(id=f"id-{name}", name=name, category_id="cat") for name in names}
    return ONE._replace(
        present=Present(
            {category: Category(id="cat", name=category)}, tags, {on: frozenset(tag.id for tag in tags.values())}
        )
    )


def test_a_tag_that_is_there_already_gives_the_zone_its_name():
    plan, domains, _ = planned(tagged("rack-7"))
    assert domains["dc-c1"]["spec"]["zone"]["name"] == "rack-7"
    assert plan.wanted[1].tag == "rack-7"
    _, domains, _ = planned(tagged("eu", category="k8s-region", on=Ref("Datacenter", "/dc")))
    assert domains["dc-c1"]["spec"]["region"]["name"] == "eu"


def test_of_several_tags_the_first_is_taken_and_that_is_remarked():
    plan, domains, _ = planned(tagged("b", "a"))
    assert domains["dc-c1"]["spec"]["zone"]["name"] == "a"
    assert plan.remarks == ("ClusterComputeResource:/dc/host/c1 carry several tags of category k8s-zone: a, b",)


def test_names_that_would_be_alike_are_told_apart_in_the_same_way_each_time():
    site = Site(
        "vc",
        (
            datacenter("/a/dc", cluster("/a/dc/host/C 1"), cluster("/a/dc/host/c_1", label="/a/dc/host/c_1")),
            datacenter("/b/dc", cluster("/b/dc/host/other")),
        ),
    )
    _, domains, _ = planned(site)
    assert list(domains) == ["dc-c-1-746d6b", "dc-c-1-0d92b0", "dc-other"]
    regions = {each["spec"]["region"]["name"] for each in domains.values()}
    assert len(regions) == 2  # the datacenters are two, whatever they are called


def test_a_cluster_named_after_its_datacenter_does_not_repeat_it():
    site = Site("vc", (datacenter("/DC0", cluster("/DC0/host/DC0_C0")),))
    assert list(planned(site)[1]) == ["dc0-c0"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("DC 0", "dc-0"), ("__", "x"), ("ä-b", "b"), ("a" * 80, "a" * 63), ("a" * 62 + "--b", "a" * 62)],
)
def test_a_name_becomes_one_that_kubernetes_takes(text, expected):
    assert slug(text) == expected


def test_a_datacenter_without_clusters_gives_no_zone():
    plan, domains, _ = planned(Site("vc", (datacenter("/dc"),)))
    assert (domains, plan.remarks) == ({}, ("/dc has no cluster, so it gives no zone",))


# -- plans that are read -------------------------------------------------------------------------------------------

PLAN = zonesplan.make(ONE, Choice()).objects


@pytest.mark.parametrize(
    "text",
    [
        yaml.safe_dump_all(PLAN),
        yaml.safe_dump_all(reversed(PLAN)),
        json.dumps({"items": PLAN}),
        json.dumps({"kind": "List", "items": PLAN}),
        f"---\n---\n{yaml.safe_dump_all(PLAN)}\n---\n",
    ],
    ids=["yaml", "reversed", "json", "list", "empty documents"],
)
def test_a_plan_is_read_as_it_was_written_and_domains_come_first(text):
    read = zonesapply.read(text, "plan.yaml")
    assert [obj["kind"] for obj in read.objects] == ["VSphereFailureDomain", "VSphereDeploymentZone"]
    assert (read.server, [zone.name for zone in read.zones]) == ("vc", ["dc-c1"])
    assert read.zones[0].domain.topology.compute_cluster == "c1"
    assert read.zones[0].spec.placement_constraint.resource_pool == "/dc/host/c1/Resources"


def changed(at, **fields):
    objects = [dict(obj) for obj in PLAN]
    objects[at] |= fields
    return yaml.safe_dump_all(objects)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a: [", "plan.yaml is no YAML"),
        ("a: 2026-13-45", "plan.yaml is no YAML"),
        (yaml.safe_dump_all([*PLAN, PLAN[0]]), "plan.yaml has two of VSphereFailureDomain dc-c1"),
        (yaml.safe_dump_all([*PLAN, PLAN[1]]), "plan.yaml has two of VSphereDeploymentZone dc-c1"),
        ("just text", "plan.yaml has an object that is neither of VSphereFailureDomain, VSphereDeploymentZone"),
        ("", "plan.yaml has to have zones of one vCenter, and has none"),
        (yaml.safe_dump(PLAN[0]), "plan.yaml has to have zones of one vCenter, and has none"),
        (yaml.safe_dump(PLAN[1]), "plan.yaml has no VSphereFailureDomain 'dc-c1', which zone dc-c1 names"),
        (changed(0, kind="Pod"), "plan.yaml has an object that is neither of"),
        (changed(0, apiVersion="v1"), "that is not of infrastructure.cluster.x-k8s.io/v1beta2"),
        (changed(0, metadata={}), "plan.yaml has a VSphereFailureDomain without a name"),
        (changed(0, metadata=[]), "plan.yaml has a VSphereFailureDomain without a name"),
        (changed(0, spec={"region": 1}), "VSphereFailureDomain dc-c1 in plan.yaml: Expected `object`"),
        (changed(1, spec={"failureDomain": "dc-c1"}), "plan.yaml has to have zones of one vCenter"),
    ],
)
def test_what_is_no_plan_is_refused_in_one_line(text, complaint):
    with pytest.raises(UnusableError, match=re.escape(complaint)):
        zonesapply.read(text, "plan.yaml")


def test_a_plan_of_two_vcenters_is_refused():
    other = zonesplan.make(ONE._replace(server="vc2"), Choice(name_prefix="b")).objects
    with pytest.raises(UnusableError, match="zones of one vCenter, and has vc, vc2"):
        zonesapply.read(yaml.safe_dump_all([*PLAN, *other]), "plan.yaml")


@pytest.mark.parametrize("password", ["012345", "yes", "1_000", "12:30", "007", "~", "2026-01-01"])
def test_a_password_in_a_file_is_the_text_that_stands_there(password, tmp_path):
    file = tmp_path / "credentials"
    file.write_text(f"username: u\npassword: {password}\n")
    assert zonesconnect._stored(str(file)) == {"username": "u", "password": password}


@pytest.mark.parametrize(
    ("changes", "objects", "question"),
    [
        (3, 0, "Make these 3 changes in vCenter vc?"),
        (0, 2, "Apply 2 objects to the cluster?"),
        (3, 2, "Make these 3 changes in vCenter vc and apply 2 objects to the cluster?"),
    ],
)
def test_a_question_names_all_that_would_be_done(changes, objects, question):
    assert zonesapply._question(changes, "vc", objects) == question
