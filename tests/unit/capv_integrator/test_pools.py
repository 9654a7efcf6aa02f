"""Which pools may serve a device or an endpoint: each way to say so, in order."""

from __future__ import annotations

import pytest

from services.capv_integrator import api
from services.capv_integrator.annotations import IPV4, IPV6
from services.capv_integrator.poolobjects import PoolBook
from services.capv_integrator.pools import _NAMED_AT_MOST, Refusal, Seeker, Source, by_family, choose, find
from tests.unit.capv_integrator.worlds import Site

NETWORK = {api.NETWORK_KEY: "net-a"}


def source(what="VSphereMachine m1", *, labels=None, pools=None):
    return Source(what, {} if pools is None else {api.POOLS_ANNOTATION: pools}, labels or {})


def seeker(*sources, at=0, network="net-a", failure_domain="", old_namespace=""):
    return Seeker("ns", "c1", failure_domain, at, network, sources or (source(),), old_namespace)


@pytest.fixture
def site():
    return Site()


def found(site, *args, **kwargs):
    """Names of the pools that are found, or the reason why there are none."""
    result = find(seeker(*args, **kwargs), site.caches.book)
    return result.reason if isinstance(result, Refusal) else [str(c.ref) for c in result]


# In order of precedence


def test_each_way_goes_before_those_after_it(site):
    for name in ("by-machine", "by-template", "by-name"):
        site.pool(name, labels={})
    site.pool("by-group", labels={api.OLD_POOL_GROUP_LABEL: "g", api.OLD_NETWORK_LABEL: "n"})
    site.pool("by-label")
    machine, template = source(pools="by-machine"), source("template", pools="by-template")
    name = source("template", labels={api.OLD_POOL_NAME_LABEL: "by-name", api.OLD_POOL_GROUP_LABEL: "g"})
    group = source("template", labels={api.OLD_POOL_GROUP_LABEL: "g", api.OLD_NETWORK_LABEL: "n"})
    assert found(site, machine, template) == ["IPPool ns/by-machine"]
    assert found(site, source(), template) == ["IPPool ns/by-template"]
    assert found(site, source(), template._replace(labels=name.labels)) == ["IPPool ns/by-template"]
    assert found(site, source(), name) == ["IPPool ns/by-name"]
    assert found(site, source(), group) == ["IPPool ns/by-group"]
    assert found(site, source(), source("template")) == ["IPPool ns/by-label"]


def test_an_annotation_that_says_nothing_about_a_device_leaves_it_to_the_next_way(site):
    site.pool("a", labels={})
    site.pool("b", labels={})
    site.pool("by-label")
    machine, template = source(pools="1=a"), source("template", pools="0=b")
    assert found(site, machine, template, at=1) == ["IPPool ns/a"]
    assert found(site, machine, template, at=0) == ["IPPool ns/b"]
    assert found(site, machine, template, at=2) == ["IPPool ns/by-label"]


# By name


def test_a_name_is_looked_for_among_all_kinds_those_of_the_namespace_first(site):
    site.pool("p", kind="GlobalInClusterIPPool", labels={})
    assert found(site, source(pools="p")) == ["GlobalInClusterIPPool p"]
    site.pool("p", kind="GlobalIPPool", labels={})
    assert found(site, source(pools="p")) == ["GlobalIPPool p"]
    site.pool("p", kind="InClusterIPPool", labels={})
    assert found(site, source(pools="p")) == ["InClusterIPPool ns/p"]
    site.pool("p", labels={})
    assert found(site, source(pools="p")) == ["IPPool ns/p"]
    assert found(site, source(pools="GlobalIPPool/p, p")) == ["GlobalIPPool p", "IPPool ns/p"]
    assert found(site, source(pools="p, IPPool/p")) == ["IPPool ns/p"], "the same pool twice is one candidate"


def test_a_pool_of_another_namespace_has_to_allow_it(site):
    site.pool("p", namespace="infra", labels={})
    assert found(site, source(pools="infra/p")) == "PoolNotAllowed"
    assert found(site, source(pools="p")) == "PoolNotFound"
    site.pool("p", namespace="infra", labels={}, allowedNamespaces=["ns"])
    assert found(site, source(pools="infra/p")) == ["IPPool infra/p"]
    assert found(site, source(pools="p")) == "PoolNotFound", "it has to be asked for"


def test_no_other_kind_can_be_used_from_another_namespace(site):
    site.pool("p", kind="InClusterIPPool", namespace="infra", labels={}, allowedNamespaces=["*"])
    assert found(site, source(pools="InClusterIPPool/infra/p")) == "PoolNotAllowed"
    assert found(site, source(pools="Net.example.org/infra/p")) == "PoolNotAllowed"


def test_a_global_pool_that_serves_others_alone_is_refused(site):
    site.pool("p", kind="GlobalIPPool", labels={}, allowedNamespaces=["other"])
    assert found(site, source(pools="p")) == "PoolNotAllowed"
    site.pool("q", kind="GlobalIPPool", allowedNamespaces=["other"])
    assert found(site) == "NoPoolMatches"


def test_a_named_pool_that_does_not_exist_is_refused_even_if_another_does(site):
    site.pool("v4", labels={})
    site.pool("by-label")
    result = find(seeker(source(pools="v4, v6")), site.caches.book)
    assert result.reason == "PoolNotFound"
    assert "no pool v6" in result.message
    assert "IPPool ns/by-label, IPPool ns/v4" in result.message


def test_a_kind_that_only_its_provider_knows_is_taken_as_it_is_written(site):
    (v4, v6) = find(seeker(source(pools="Net.example.org/p, ipv6:Net.example.org/q")), site.caches.book)
    assert (v4.ref, v4.family, v4.pool) == (("example.org", "Net", "", "p"), IPV4, None)
    assert (v6.ref.name, v6.family) == ("q", IPV6)


@pytest.mark.parametrize("text", ["", "UPPER", "a;b", "ipv7:a"])
def test_an_annotation_that_cannot_be_read_takes_nothing(site, text):
    site.pool("by-label")
    result = find(seeker(source(pools=text)), site.caches.book)
    assert result.reason == "AnnotationInvalid"
    assert "VSphereMachine m1" in result.message


# By the old integrator's labels


def test_old_labels_find_pools_with_all_of_the_same_values(site):
    both = {api.OLD_POOL_GROUP_LABEL: "g", api.OLD_NETWORK_LABEL: "n"}
    site.pool("both", labels=both)
    site.pool("group", labels={api.OLD_POOL_GROUP_LABEL: "g"})
    assert found(site, source(labels=both)) == ["IPPool ns/both"]
    assert found(site, source(labels={api.OLD_POOL_GROUP_LABEL: "g"})) == ["IPPool ns/both", "IPPool ns/group"]
    assert found(site, source(labels={api.OLD_POOL_GROUP_LABEL: "x"})) == "NoPoolMatches"


def test_old_labels_that_match_nothing_are_not_replaced_by_new_ones(site):
    site.pool("by-label")
    assert found(site, source(labels={api.OLD_POOL_NAME_LABEL: "missing"})) == "PoolNotFound"
    assert found(site, source(labels={api.OLD_NETWORK_LABEL: "x"})) == "NoPoolMatches"


def test_the_old_namespace_annotation_says_where_old_labels_look(site):
    labels = {api.OLD_POOL_GROUP_LABEL: "g"}
    site.pool("p", namespace="infra", labels=labels, allowedNamespaces=["ns"])
    site.pool("here", labels=labels)
    assert found(site, source(labels=labels), old_namespace="infra") == ["IPPool infra/p"]
    assert found(site, source(labels={api.OLD_POOL_NAME_LABEL: "p"}), old_namespace="infra") == ["IPPool infra/p"]
    site.pool("p", namespace="infra", labels=labels)
    assert found(site, source(labels=labels), old_namespace="infra") == "NoPoolMatches"


# By labels of pools


MATCHES = {
    "its network": ({api.NETWORK_KEY: "net-a"}, True),
    "another network": ({api.NETWORK_KEY: "net-b"}, False),
    "its failure domain": ({api.FAILURE_DOMAIN_KEY: "zone-1"}, True),
    "another failure domain": ({api.FAILURE_DOMAIN_KEY: "zone-2"}, False),
    "its cluster": ({api.CLUSTER_KEY: "c1"}, True),
    "another cluster": ({api.CLUSTER_KEY: "c2"}, False),
    "all three": ({api.NETWORK_KEY: "net-a", api.FAILURE_DOMAIN_KEY: "zone-1", api.CLUSTER_KEY: "c1"}, True),
    "two of three": ({api.NETWORK_KEY: "net-a", api.FAILURE_DOMAIN_KEY: "zone-2", api.CLUSTER_KEY: "c1"}, False),
    "no label": ({}, False),
    "other labels": ({"network": "net-a"}, False),
    "for endpoints": ({api.NETWORK_KEY: "net-a", api.USE_LABEL: "endpoints"}, False),
    "for machines": ({api.NETWORK_KEY: "net-a", api.USE_LABEL: "machines"}, True),
    "of another cluster": ({api.NETWORK_KEY: "net-a", api.CLUSTER_NAME_LABEL: "c2"}, False),
    "of its cluster": ({api.NETWORK_KEY: "net-a", api.CLUSTER_NAME_LABEL: "c1"}, True),
    "of its cluster, and no more": ({api.CLUSTER_NAME_LABEL: "c1"}, False),
}


@pytest.mark.parametrize("case", MATCHES)
def test_a_pool_is_found_by_what_it_is_labelled_for(site, case):
    labels, expected = MATCHES[case]
    site.pool("p", labels=labels)
    assert (found(site, failure_domain="zone-1") == ["IPPool ns/p"]) is expected


def test_a_pool_for_a_failure_domain_is_not_for_machines_without_one(site):
    site.pool("p", labels={}, annotations={api.FAILURE_DOMAIN_KEY: "*"})
    assert found(site) == "NoPoolMatches"
    assert found(site, failure_domain="any") == ["IPPool ns/p"]


ANNOTATED = {
    "VM Network, net-a": True,
    "*": True,
    "VM Network": False,
}


@pytest.mark.parametrize("text", ANNOTATED)
def test_annotations_of_pools_hold_several_values(site, text):
    site.pool("p", labels={}, annotations={api.NETWORK_KEY: text})
    assert (found(site) == ["IPPool ns/p"]) is ANNOTATED[text]


def test_a_label_matches_the_last_part_of_a_network_s_path(site):
    site.pool("p")
    assert found(site, network="/DC0/network/net-a") == ["IPPool ns/p"]


def test_a_global_pool_can_be_for_the_cluster_of_one_namespace(site):
    site.pool("p", kind="GlobalIPPool", labels={}, annotations={api.CLUSTER_KEY: "ns/c1"})
    site.pool("q", kind="GlobalIPPool", labels={}, annotations={api.CLUSTER_KEY: "other/c1"})
    site.pool("r", namespace="other")
    assert found(site) == ["GlobalIPPool p"]


def test_a_pool_that_is_being_deleted_is_not_found(site):
    site.pool("p", deletionTimestamp="2026-01-01T00:00:00Z")
    assert found(site) == "NoPoolMatches"


def test_without_a_match_the_message_says_what_was_looked_for_and_what_exists(site):
    for name in "gfedcba":
        site.pool(name, labels={})
    result = find(seeker(failure_domain="zone-1"), site.caches.book)
    assert result.message == (
        "no pool is named by annotation or label, and none is labelled for network net-a, failure domain zone-1, "
        "cluster c1; there are IPPool ns/a, IPPool ns/b, IPPool ns/c, IPPool ns/d, IPPool ns/e and 2 more"
    )
    assert "no pool in namespace ns" in find(seeker(), PoolBook()).message


# Endpoints


def endpoint(site, *sources):
    return found(site, *sources, at=None, network="")


def test_an_endpoint_takes_pools_that_say_that_they_are_for_endpoints(site):
    site.pool("machines", labels={api.CLUSTER_KEY: "c1"})
    assert endpoint(site) == "NoPoolMatches"
    site.pool("endpoints", labels={api.CLUSTER_KEY: "c1", api.USE_LABEL: "endpoints"})
    assert endpoint(site) == ["IPPool ns/endpoints"]
    site.pool("network", labels={api.CLUSTER_KEY: "c1", api.NETWORK_KEY: "net-a", api.USE_LABEL: "endpoints"})
    site.pool("use-alone", labels={api.USE_LABEL: "endpoints"})
    assert endpoint(site) == ["IPPool ns/endpoints"]


def test_an_endpoint_takes_pools_by_name(site):
    site.pool("p", labels={})
    assert endpoint(site, source(pools="p")) == ["IPPool ns/p"]
    assert endpoint(site, source(labels={api.OLD_POOL_NAME_LABEL: "p"})) == ["IPPool ns/p"]
    assert endpoint(site, source(pools="0=p")) == "AnnotationInvalid"


# One of several


def chosen(site, taken=None):
    candidates = find(seeker(), site.caches.book)
    return choose(candidates, lambda ref: (taken or {}).get(ref.name, 0)).ref.name


def test_the_one_with_most_free_addresses_is_chosen_ties_by_name(site):
    site.pool("c", free=3)
    site.pool("b", free=7)
    assert chosen(site) == "b"
    site.pool("a", free=7)
    assert chosen(site) == "a"
    assert chosen(site, {"a": 1}) == "b", "what is about to be taken does not count as free"
    assert chosen(site, {"a": 7, "b": 7}) == "c"


def test_exhausted_pools_are_passed_over_and_unknown_ones_come_after_known_ones(site):
    site.pool("a", free=0)
    site.pool("z", free=None)
    assert chosen(site) == "z"
    site.pool("m", free=1)
    assert chosen(site) == "m"
    assert chosen(site, {"m": 1}) == "z"


def test_cooling_addresses_can_be_had_but_count_less_than_free_ones(site):
    site.change(site.pool("a", free=0), status={"ipAddresses": {"free": 0, "cooling": 9}})
    assert chosen(site) == "a"
    site.pool("b", free=1)
    assert chosen(site) == "b"


def test_families_are_chosen_for_each_on_its_own(site):
    site.pool("v4")
    site.pool("v6", first="fd00::1")
    site.pool("w4")
    families = by_family(find(seeker(), site.caches.book))
    assert {family: [c.ref.name for c in pools] for family, pools in families.items()} == {
        IPV4: ["v4", "w4"],
        IPV6: ["v6"],
    }


# What is said


def refused(site, pools):
    result = find(seeker(source(pools=pools)), site.caches.book)
    assert isinstance(result, Refusal)
    return result.reason, result.message.removeprefix(f"annotation {api.POOLS_ANNOTATION} of VSphereMachine m1: ")


def test_a_pool_that_is_not_there_is_named_with_those_that_are(site):
    nothing = "there is no pool in namespace ns and none of cluster scope"
    assert refused(site, "x") == ("PoolNotFound", f"there is no pool x; {nothing}")
    assert refused(site, "IPPool/x") == ("PoolNotFound", f"there is no IPPool IPPool/x; {nothing}")
    for count, text in ((1, "IPPool ns/p0"), (2, "GlobalIPPool all, IPPool ns/p0")):
        if count == 2:
            site.pool("all", kind="GlobalIPPool", labels={})
        else:
            site.pool("p0", labels={})
        assert refused(site, "x") == ("PoolNotFound", f"there is no pool x; there are {text}")


def test_of_many_pools_the_first_few_are_named_and_the_others_counted(site):
    names = [f"p{n}" for n in range(_NAMED_AT_MOST)]
    for name in names:
        site.pool(name, labels={})
    few = "there are " + ", ".join(f"IPPool ns/{name}" for name in names)
    assert refused(site, "x")[1] == f"there is no pool x; {few}"
    site.pool("q", labels={})
    assert refused(site, "x")[1] == f"there is no pool x; {few} and 1 more"


def test_a_pool_that_does_not_serve_the_namespace_is_refused_by_name(site):
    site.pool("all", kind="GlobalIPPool", labels={}, allowedNamespaces=["other"])
    assert refused(site, "all") == (
        "PoolNotAllowed",
        "GlobalIPPool all does not serve namespace ns (spec.allowedNamespaces)",
    )


def test_a_pool_of_a_namespace_is_none_of_cluster_scope(site):
    site.pool("all", kind="GlobalIPPool", labels={})
    assert refused(site, "ns/all")[0] == "PoolNotFound"


def test_where_a_pool_was_asked_for_is_said(site):
    annotated = find(seeker(source(pools="x")), site.caches.book).message
    assert annotated.startswith(f"annotation {api.POOLS_ANNOTATION} of VSphereMachine m1: there is no pool x; ")
    labelled = find(seeker(source(labels={api.OLD_POOL_NAME_LABEL: "x"})), site.caches.book).message
    assert labelled.startswith(f"label {api.OLD_POOL_NAME_LABEL} of VSphereMachine m1: there is no pool x; ")
    device = find(seeker(source(pools="0=x"), at=None), site.caches.book)
    assert device == Refusal(
        "AnnotationInvalid",
        f"annotation {api.POOLS_ANNOTATION} of VSphereMachine m1: an endpoint has no devices",
    )


def test_an_endpoint_and_a_network_are_served_by_the_pools_that_are_named_for_them(site):
    for name in ("a", "b"):
        site.pool(name, labels={})
    assert found(site, source(pools="a"), at=None, network="") == ["IPPool ns/a"]
    assert found(site, source(pools="net-a=a;b"), at=3) == ["IPPool ns/a"]
    assert found(site, source(pools="net-a=a;b"), at=3, network="net-b") == ["IPPool ns/b"]


def test_labels_of_the_old_integrator_that_no_pool_has_are_named(site):
    wanted = {api.OLD_POOL_GROUP_LABEL: "g", api.OLD_NETWORK_LABEL: "n"}
    message = find(seeker(source(labels=wanted)), site.caches.book).message
    labels = f"{api.OLD_POOL_GROUP_LABEL}=g and {api.OLD_NETWORK_LABEL}=n"
    assert message.startswith(f"no pool has {labels}, which VSphereMachine m1 asks for; there is no pool ")


def test_labels_of_the_old_integrator_find_pools_of_cluster_scope_and_of_either_family(site):
    wanted = {api.OLD_POOL_GROUP_LABEL: "g"}
    site.pool("all", kind="GlobalIPPool", labels=wanted)
    site.pool("six", labels=wanted, first="fd00::1")
    candidates = find(seeker(source(labels=wanted)), site.caches.book)
    assert {(str(c.ref), c.family, c.pool is None) for c in candidates} == {
        ("GlobalIPPool all", IPV4, False),
        ("IPPool ns/six", IPV6, False),
    }


def test_what_was_looked_for_is_said_where_no_pool_is_labelled_for_it(site):
    endpoint = find(seeker(at=None, network=""), site.caches.book).message
    looked = f"{api.USE_LABEL}={api.USE_ENDPOINTS} and {api.CLUSTER_KEY} c1"
    assert f"none is labelled for {looked}; " in endpoint


def test_a_family_that_is_named_goes_before_the_pools_own(site):
    site.pool("a", labels={})
    for text, family in (("a", IPV4), ("ipv6:a", IPV6), ("ipv4:a", IPV4)):
        (candidate,) = find(seeker(source(pools=text)), site.caches.book)
        assert (candidate.family, candidate.pool.ref) == (family, candidate.ref)


def test_a_kind_that_only_its_provider_knows_is_taken_at_its_word_in_the_same_namespace(site):
    (candidate,) = find(seeker(source(pools="Prefix.ipam.example.org/p")), site.caches.book)
    assert candidate.pool is None
    assert choose([candidate], lambda _: 9) is candidate
    assert refused(site, "Prefix.ipam.example.org/other/p") == (
        "PoolNotAllowed",
        "Prefix.ipam.example.org/other/p is in another namespace, where only an IPPool can be",
    )


def test_a_pool_may_be_for_every_cluster(site):
    site.pool("p", labels={}, annotations={api.CLUSTER_KEY: "*"})
    assert found(site) == ["IPPool ns/p"]
