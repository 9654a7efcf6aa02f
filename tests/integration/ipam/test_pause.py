"""Pausing, in every way that Cluster API has for it, and Clusters that are not there."""

from __future__ import annotations

import pytest

from services.ipam.api import ALLOCATION_FAILED, CLUSTER_NAME_LABEL, IP_POOLS, PAUSED_ANNOTATION, POOL_NOT_READY
from tests.support.kube import eventually
from tests.support.tenant import CAPI, CLUSTERS, METAL3

PAUSED = {"annotations": {PAUSED_ANNOTATION: ""}}
BELONGS = {"labels": {CLUSTER_NAME_LABEL: "cluster"}}
LABELLED = [(METAL3, BELONGS), (CAPI, BELONGS), (CAPI, {"spec": {"clusterName": "cluster"}})]
"""The ways in which a claim says which Cluster it belongs to."""


@pytest.fixture(params=LABELLED, ids=["IPClaim-label", "IPAddressClaim-label", "IPAddressClaim-clusterName"])
def member(request):
    """A kind of claim, and what makes it belong to the Cluster called cluster."""
    return request.param


async def pause(tenant, how, *, on=True):
    """Pause the Cluster called cluster by its spec or by annotation, or take that back."""
    if how == "spec":
        await tenant.kube.patch(CLUSTERS, "cluster", tenant.namespace, spec={"paused": on})
    else:
        await tenant.kube.annotate(CLUSTERS, "cluster", tenant.namespace, **{PAUSED_ANNOTATION: "" if on else None})


@pytest.mark.parametrize("how", ["spec", "annotation"])
async def test_a_claim_of_a_paused_cluster_is_left_alone_until_the_pause_ends(tenant, member, how):
    kind, details = member
    await tenant.pool("pool", "10.0.0.1-10.0.0.9")
    await tenant.cluster("cluster", paused=how == "spec", **(PAUSED if how == "annotation" else {}))
    await tenant.settled()
    made = await tenant.claim("claim", kind=kind, **details)
    await tenant.settled()
    assert await tenant.claim_object("claim", kind) == made
    await pause(tenant, how, on=False)
    held = await tenant.bound("claim", kind)
    assert held.address["metadata"]["labels"] == {CLUSTER_NAME_LABEL: "cluster"}


@pytest.mark.parametrize("how", ["spec", "annotation"])
async def test_a_claim_deleted_while_its_cluster_is_paused_keeps_its_address_until_the_pause_ends(tenant, member, how):
    kind, details = member
    await tenant.pool("pool", "10.0.0.1-10.0.0.9")
    await tenant.cluster("cluster")
    await tenant.claim("claim", kind=kind, **details)
    held = await tenant.bound("claim", kind)
    await pause(tenant, how)
    await tenant.settled()
    await tenant.delete_claim("claim", kind)
    await tenant.settled()
    left = await tenant.bound("claim", kind)
    assert "deletionTimestamp" in left.claim["metadata"]
    assert left.address == held.address
    await pause(tenant, how, on=False)
    await tenant.claim_gone("claim", kind)
    await tenant.nothing_held()


async def test_a_waiting_claim_whose_cluster_is_paused_meanwhile_is_not_served(tenant, member):
    kind, details = member
    await tenant.pool("pool", "10.0.0.1-10.0.0.1")
    await tenant.cluster("cluster")
    await tenant.give("holder", kind=kind)
    await tenant.claim("waits", kind=kind, **details)
    await tenant.refused("waits", "PoolExhausted", kind)
    await pause(tenant, "spec")
    await tenant.settled()
    await tenant.release("holder", kind)
    await tenant.settled()
    assert await tenant.held() == []
    assert await tenant.give("other", kind=kind) == "10.0.0.1", "a paused claim holds nobody up"
    await tenant.release("other", kind)
    await pause(tenant, "spec", on=False)
    assert (await tenant.bound("waits", kind)).ip == "10.0.0.1"


async def test_a_paused_claim_is_left_alone_until_its_annotation_goes(tenant, kind):
    await tenant.pool("pool", "10.0.0.1-10.0.0.9")
    claims = tenant.api(kind).claims
    made = await tenant.claim("claim", kind=kind, annotations={PAUSED_ANNOTATION: "false"})
    await tenant.give("other", kind=kind)
    await tenant.settled()
    assert await tenant.claim_object("claim", kind) == made, "the value does not matter"
    await tenant.kube.annotate(claims, "claim", tenant.namespace, **{PAUSED_ANNOTATION: None})
    await tenant.bound("claim", kind)
    await tenant.kube.annotate(claims, "claim", tenant.namespace, **{PAUSED_ANNOTATION: ""})
    await tenant.delete_claim("claim", kind)
    await tenant.settled()
    await tenant.bound("claim", kind)
    await tenant.kube.annotate(claims, "claim", tenant.namespace, **{PAUSED_ANNOTATION: None})
    await tenant.claim_gone("claim", kind)


async def test_a_paused_pool_gives_nothing_until_its_annotation_goes(tenant, kind):
    made = await tenant.pool("pool", "10.0.0.1-10.0.0.9", metadata=PAUSED)
    await tenant.claim("claim", kind=kind)
    message = await tenant.refused("claim", POOL_NOT_READY, kind)
    assert message == f"IPPool {tenant.namespace}/pool is paused"
    await tenant.settled()
    assert await tenant.pool_object() == made
    await tenant.kube.annotate(IP_POOLS, "pool", tenant.namespace, **{PAUSED_ANNOTATION: None})
    await tenant.bound("claim", kind)


async def test_claims_of_a_paused_pool_keep_their_address_even_when_deleted(tenant, kind):
    await tenant.pool("pool", "10.0.0.1-10.0.0.9")
    await tenant.give("claim", kind=kind)
    await tenant.counts(used=1)
    await tenant.kube.annotate(IP_POOLS, "pool", tenant.namespace, **{PAUSED_ANNOTATION: ""})
    await tenant.settled()
    await tenant.delete_claim("claim", kind)
    await tenant.settled()
    assert "deletionTimestamp" in (await tenant.bound("claim", kind)).claim["metadata"]
    await tenant.kube.annotate(IP_POOLS, "pool", tenant.namespace, **{PAUSED_ANNOTATION: None})
    await tenant.claim_gone("claim", kind)
    await tenant.counts(used=0)


async def test_a_pool_whose_cluster_is_paused_gives_nothing_even_to_claims_of_no_cluster(tenant, kind):
    await tenant.cluster("cluster", paused=True)
    await tenant.settled()
    await tenant.pool("pool", "10.0.0.1-10.0.0.9", clusterName="cluster")
    await tenant.claim("claim", kind=kind)
    await tenant.refused("claim", POOL_NOT_READY, kind, "is paused")
    await pause(tenant, "spec", on=False)
    await tenant.bound("claim", kind)


async def test_a_paused_pool_that_is_deleted_stays_until_the_pause_ends(tenant):
    await tenant.pool("pool", "10.0.0.1-10.0.0.9")
    await tenant.counts(total=9)
    await tenant.kube.annotate(IP_POOLS, "pool", tenant.namespace, **{PAUSED_ANNOTATION: ""})
    await tenant.kube.delete(IP_POOLS, "pool", tenant.namespace)
    await tenant.settled()
    assert "deletionTimestamp" in (await tenant.pool_object())["metadata"]
    await tenant.kube.annotate(IP_POOLS, "pool", tenant.namespace, **{PAUSED_ANNOTATION: None})
    await tenant.kube.gone(IP_POOLS, "pool", tenant.namespace)


@pytest.mark.parametrize(
    "details",
    [{"spec": {"clusterName": "cluster"}}, {"labels": {CLUSTER_NAME_LABEL: "cluster"}}],
    ids=["spec", "label"],
)
async def test_a_cluster_api_claim_whose_cluster_does_not_exist_is_served_once_it_does(tenant, details):
    await tenant.pool("pool", "10.0.0.1-10.0.0.9")
    await tenant.claim("claim", kind=CAPI, **details)
    message = await tenant.refused("claim", ALLOCATION_FAILED, CAPI)
    assert message == f"Cluster {tenant.namespace}/cluster, which the claim belongs to, does not exist"
    await tenant.cluster("cluster")
    await tenant.bound("claim", CAPI)


async def test_a_metal3_claim_with_a_label_that_names_no_cluster_is_served_as_metal3_does(tenant):
    await tenant.pool("pool", "10.0.0.1-10.0.0.9")
    await tenant.claim("claim", labels={CLUSTER_NAME_LABEL: "pool"})
    await tenant.bound("claim")


async def test_a_deleted_claim_is_released_although_its_cluster_is_gone(tenant, member):
    kind, details = member
    await tenant.pool("pool", "10.0.0.1-10.0.0.9")
    await tenant.cluster("cluster")
    await tenant.claim("claim", kind=kind, **details)
    await tenant.bound("claim", kind)
    await tenant.kube.delete(CLUSTERS, "cluster", tenant.namespace)
    await tenant.settled()
    await tenant.bound("claim", kind)
    await tenant.release("claim", kind)
    await tenant.nothing_held()


async def test_cluster_name_of_the_spec_wins_over_the_label(tenant):
    await tenant.pool("pool", "10.0.0.1-10.0.0.9")
    await tenant.cluster("cluster")
    await tenant.claim("claim", kind=CAPI, labels={CLUSTER_NAME_LABEL: "other"}, spec={"clusterName": "cluster"})
    await tenant.bound("claim", CAPI)


async def test_a_pool_of_a_cluster_carries_its_labels_and_is_owned_by_it(tenant):
    await tenant.pool("pool", "10.0.0.1-10.0.0.9", clusterName="cluster")
    labels = {CLUSTER_NAME_LABEL: "cluster", "cluster.x-k8s.io/provider": "ipam-metal3"}
    pool = await tenant.pool_shows(lambda pool: pool["metadata"].get("labels") == labels)
    assert "ownerReferences" not in pool["metadata"]
    await tenant.claim("claim")
    await tenant.bound("claim")
    cluster = await tenant.cluster("cluster")
    pool = await eventually(tenant.pool_object, lambda pool: "ownerReferences" in pool["metadata"])
    assert pool["metadata"]["ownerReferences"] == [
        {
            "apiVersion": cluster["apiVersion"],
            "kind": "Cluster",
            "name": "cluster",
            "uid": cluster["metadata"]["uid"],
            "controller": False,
        }
    ]


async def test_the_owner_of_a_pool_is_renewed_when_its_version_is_not_served_any_more(tenant):
    cluster = await tenant.cluster("cluster")
    uid = cluster["metadata"]["uid"]
    owner = {"apiVersion": "cluster.x-k8s.io/v1alpha4", "kind": "Cluster", "name": "cluster", "uid": uid}
    owner["blockOwnerDeletion"] = True
    await tenant.pool("pool", "10.0.0.1-10.0.0.9", clusterName="cluster", metadata={"ownerReferences": [owner]})
    renewed = [{**owner, "apiVersion": cluster["apiVersion"]}]
    await tenant.pool_shows(lambda pool: pool["metadata"]["ownerReferences"] == renewed)
