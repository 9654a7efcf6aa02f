"""Which failure domains a VSphereCluster publishes, whose credentials a zone is looked at with, and selectors."""

from datetime import UTC, datetime

import msgspec
import pytest

from services.machine_controller import api
from services.machine_controller.zones import identity, publish, selectors
from services.runtime.kube.conditions import find
from services.runtime.kube.objects import EMPTY, KubeObject, ObjectMeta, raw, view

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SERVER = "vc.example.com"


def cluster(*, selector=None, published=(), name="c", secret=None, server=SERVER, **status):
    spec = {"server": server}
    if selector is not None:
        spec["failureDomainSelector"] = selector
    if secret:
        spec["identityRef"] = {"kind": "Secret", "name": secret}
    if published:
        status["failureDomains"] = [{"name": each, "controlPlane": True} for each in published]
    return KubeObject(
        kind="VSphereCluster",
        metadata=ObjectMeta(name=name, namespace="n", generation=4),
        spec=raw(spec),
        status=raw(status) if status else EMPTY,
    )


def zone(name, state="ready", *, server=SERVER, labels=None, control_plane=True, deleting=False):
    """`state`: ready, new, silent (its vCenter cannot be asked) or wrong."""
    reached = {"type": "VCenterAvailable", "status": "True", "reason": "Available"}
    if state == "silent":
        reached |= {"status": "False", "reason": "VCenterUnreachable"}
    said = {"type": "Ready", "status": "False", "reason": "NotReady", "message": f"{name} is {state}"}
    statuses = {"new": {}, "ready": {"ready": True}}
    status = statuses.get(state, {"ready": False, "conditions": [said, reached]})
    return KubeObject(
        kind="VSphereDeploymentZone",
        metadata=ObjectMeta(name=name, labels=labels, deletionTimestamp="2026-01-02T03:04:05Z" if deleting else None),
        spec=raw({"server": server, "failureDomain": name, "controlPlane": control_plane}),
        status=raw(status),
    )


TABLE = {
    "no selector": (None, (), [zone("a")], [], None, False),
    "no zone at all": ({}, (), [], [], "NoFailureDomainSelected", True),
    "no zone with these labels": (
        {"matchLabels": {"x": "y"}},
        (),
        [zone("a", labels={"x": "z"})],
        [],
        "NoFailureDomainSelected",
        True,
    ),
    "no zone of this server": ({}, (), [zone("a", server="other")], [], "NoFailureDomainSelected", True),
    "sorted by name": ({}, (), [zone("b"), zone("a")], ["a", "b"], "Ready", False),
    "one that was not looked at yet": (
        {},
        (),
        [zone("a"), zone("b", "new")],
        ["a"],
        "WaitingForFailureDomainStatus",
        True,
    ),
    "one that is not ready": ({}, (), [zone("a"), zone("b", "wrong")], ["a"], "NotReady", False),
    "none that is ready": ({}, (), [zone("a", "wrong"), zone("b", "wrong")], [], "NotReady", True),
    "one whose vCenter is silent, published before": (
        {},
        ("b",),
        [zone("a"), zone("b", "silent")],
        ["a", "b"],
        "NotReady",
        False,
    ),
    "one whose vCenter is silent, never published": (
        {},
        (),
        [zone("a"), zone("b", "silent")],
        ["a"],
        "NotReady",
        False,
    ),
    "all whose vCenter is silent, published before": ({}, ("a",), [zone("a", "silent")], ["a"], "NotReady", False),
    "one that went wrong, published before": (
        {},
        ("a", "b"),
        [zone("a"), zone("b", "wrong")],
        ["a"],
        "NotReady",
        False,
    ),
    "one that is being deleted": ({}, ("a", "b"), [zone("a"), zone("b", deleting=True)], ["a"], "Ready", False),
    "the server written differently": ({}, (), [zone("a", server="VC.example.com:443")], ["a"], "Ready", False),
}


@pytest.mark.parametrize(("selector", "before", "zones", "names", "reason", "hold"), TABLE.values(), ids=list(TABLE))
def test_zones_are_published_when_they_are_known_to_be_good(selector, before, zones, names, reason, hold):
    found = publish.publication(cluster(selector=selector, published=before), zones)
    assert [domain.name for domain in found.failure_domains] == names
    assert (found.condition.reason if found.condition else None) == reason
    assert bool(found.hold) == hold
    if found.condition:
        assert (found.condition.status == "True") == (reason == "Ready")
        assert found.condition.observedGeneration == 4
        assert bool(found.condition.message) == (reason != "Ready")


@pytest.mark.parametrize(
    ("zones", "message"),
    [
        ([zone("a", "wrong"), zone("b", "wrong")], "no zone is ready: a: a is wrong; b: b is wrong"),
        ([zone("a"), zone("b", "wrong")], "1 of 2 zones are not ready: b: b is wrong"),
        ([zone("a", "new"), zone("b", "wrong")], "not looked at yet: a"),
        ([], f"no VSphereDeploymentZone of server {SERVER} has labels that match tier=prod,!lab"),
    ],
)
def test_the_condition_says_which_zones_and_why(zones, message):
    selector = {"matchLabels": {"tier": "prod"}, "matchExpressions": [{"key": "lab", "operator": "DoesNotExist"}]}
    labelled = [
        msgspec.structs.replace(each, metadata=ObjectMeta(name=each.metadata.name, labels={"tier": "prod"}))
        for each in zones
    ]
    assert publish.publication(cluster(selector=selector), labelled).condition.message == message


def test_a_zone_for_workers_alone_is_published_as_that():
    found = publish.publication(cluster(selector={}), [zone("a", control_plane=False)])
    assert msgspec.to_builtins(found.failure_domains) == ({"name": "a", "controlPlane": False},)


def test_no_more_than_a_cluster_can_have_are_published():
    found = publish.publication(cluster(selector={}), [zone(f"z{n:03}") for n in range(101)])
    assert len(found.failure_domains) == publish.LIMIT
    assert (found.condition.status, found.hold) == ("False", "")


def test_a_status_keeps_what_others_wrote_into_it():
    ours = cluster(selector={}, vCenterVersion="8", conditions=[{"type": "Ready", "status": "True", "reason": "Ready"}])
    status = publish.applied(ours.status, publish.publication(ours, [zone("a")]), NOW)
    after = view(status, api.VSphereClusterStatus)
    assert (after.vcenter_version, [domain.name for domain in after.failure_domains]) == ("8", ["a"])
    assert [each.type for each in after.conditions] == ["Ready", publish.FAILURE_DOMAINS_READY]
    again = msgspec.structs.replace(ours, status=status)
    assert publish.applied(status, publish.publication(again, [zone("a")]), NOW) is status


def test_what_a_selector_published_goes_with_it_and_nothing_else():
    said = {"type": publish.FAILURE_DOMAINS_READY, "status": "True", "reason": "Ready", "message": ""}
    ours = cluster(published=("a",), conditions=[said])
    after = view(publish.applied(ours.status, publish.Publication(), NOW), api.VSphereClusterStatus)
    assert (after.failure_domains, find(after.conditions, publish.FAILURE_DOMAINS_READY)) == ((), None)
    foreign = cluster(published=("a",))
    assert publish.applied(foreign.status, publish.Publication(), NOW) is foreign.status


def test_a_cluster_waits_until_its_failure_domains_are_written():
    assert publish.holds(cluster(selector={}), [zone("a")]) == "failure domains are about to be published"
    assert publish.holds(cluster(selector={}, published=("a",)), [zone("a")]) == ""
    assert publish.holds(cluster(), [zone("a")]) == ""
    assert publish.holds(cluster(selector={}), []).startswith("no VSphereDeploymentZone of server")


def test_the_clusters_that_select_a_zone_lend_their_credentials_first():
    clusters = [
        cluster(name="z", selector={}, secret="s"),
        cluster(name="y", secret="s"),
        cluster(name="x", selector={}, secret="s", server="other"),
        cluster(name="w", selector={}),
        cluster(name="b", selector={"matchLabels": {"x": "y"}}, secret="s"),
        cluster(name="a", selector={}, secret="s", server="VC.EXAMPLE.COM"),
    ]
    order = identity.order(zone("a"), clusters)
    assert [each.metadata.name if each else None for each in order] == ["a", "z", None, "b", "y"]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("vc", "VC:443", True),
        ("https://vc/sdk", "vc", True),
        ("vc", "vc:8443", False),
        ("a b@", "a b@", True),
        ("a b@", "vc", False),
    ],
)
def test_servers_are_compared_by_what_they_mean(one, other, same):
    assert selectors.same_server(one, other) is same


def requirement(key, operator, *values):
    return {"key": key, "operator": operator, "values": list(values)}


@pytest.mark.parametrize(
    ("selector", "selected"),
    [
        (None, False),
        ({}, True),
        ({"matchLabels": {"a": "1"}}, True),
        ({"matchLabels": {"a": "1", "b": "2"}}, False),
        ({"matchExpressions": [requirement("a", "In", "0", "1")]}, True),
        ({"matchExpressions": [requirement("a", "In", "0")]}, False),
        ({"matchExpressions": [requirement("b", "NotIn", "1")]}, True),
        ({"matchExpressions": [requirement("a", "NotIn", "1")]}, False),
        ({"matchExpressions": [requirement("a", "Exists")]}, True),
        ({"matchExpressions": [requirement("b", "Exists")]}, False),
        ({"matchExpressions": [requirement("b", "DoesNotExist")]}, True),
        ({"matchExpressions": [requirement("a", "DoesNotExist")]}, False),
        ({"matchExpressions": [requirement("a", "Like", "1")]}, False),
        ({"matchLabels": {"a": "1"}, "matchExpressions": [requirement("b", "Exists")]}, False),
    ],
)
def test_selectors_select_as_kubernetes_does(selector, selected):
    decoded = msgspec.convert(selector, api.LabelSelector) if selector is not None else None
    assert selectors.selects(decoded, {"a": "1"}) is selected


def test_a_selector_is_shown_as_kubectl_takes_it():
    selector = msgspec.convert(
        {
            "matchLabels": {"b": "2", "a": "1"},
            "matchExpressions": [
                requirement("c", "In", "x", "y"),
                requirement("d", "Exists"),
                requirement("e", "DoesNotExist"),
            ],
        },
        api.LabelSelector,
    )
    assert selectors.shown(selector) == "a=1,b=2,c in (x,y),d,!e"
