"""Clusters with another Cluster API than today's: an older one, a newer one, none yet."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from services.ipam import api
from tests.support.allocator import Allocator
from tests.support.kube import Kube, eventually
from tests.support.tenant import CAPI, METAL3, Tenant, condition
from tools import capi
from tools.cluster import Cluster

OUR_CRDS = Path(__file__).resolve().parents[3] / "deploy" / "crds"


@pytest.fixture(scope="module")
def bare(control_plane):
    """A cluster of this module's own with our CRDs alone, since its tests change Cluster API's."""
    with Cluster.temporary() as cluster:
        cluster.install_crds(OUR_CRDS)
        yield cluster


@pytest.fixture
async def kube(bare):
    async with Kube.connect(bare.kubeconfig) as kube:
        yield kube


@pytest.fixture
def allocator(bare, tmp_path):
    with Allocator.running(tmp_path, bare.kubeconfig) as allocator:
        yield allocator


@pytest.fixture
def only(bare):
    """Install definitions of Cluster API in the place of those there are."""

    def install(*definitions):
        names = [definition["metadata"]["name"] for definition in capi.crds()]
        bare.kubectl("delete", "crd", "--ignore-not-found", "--timeout=60s", *names)
        bare.install_crds(*definitions)

    return install


def before_1_9():
    """Cluster API's CRDs as they were before conditions of today's shape were added to v1beta1."""
    old = copy.deepcopy(capi.crds(versions={"v1beta1"}))
    for definition in old:
        for version in definition["spec"]["versions"]:
            status = version["schema"]["openAPIV3Schema"]["properties"].get("status", {})
            status.get("properties", {}).pop("v1beta2", None)
    return old


def seen_empty(allocator, kind):
    """Asks whether the allocator has none of the claims of a kind in its local copy."""

    async def look():
        return allocator.metric("groundwork_store_objects", resource=kind) == 0

    return look


async def untouched(tenant, pool, *claims):
    """Hold that the claims are as they are for good: nobody writes to them while another one is served."""
    before = [await tenant.claim_object(name, CAPI) for name in claims]
    for number in range(3):
        await tenant.give(f"busy-{number}", pool)
    assert [await tenant.claim_object(name, CAPI) for name in claims] == before


@pytest.mark.parametrize(
    ("version", "definitions"),
    [
        pytest.param("v1beta1", lambda: capi.crds(versions={"v1beta1"}), id="v1beta1 alone"),
        pytest.param("v1beta1", before_1_9, id="v1beta1 of before Cluster API 1.9"),
        pytest.param("v1beta2", lambda: capi.crds(versions={"v1beta2"}), id="v1beta2 alone"),
    ],
)
async def test_whatever_version_of_cluster_api_is_served_is_used(only, kube, allocator, version, definitions):
    only(*definitions())
    tenant = await Tenant.create(kube, capi=version)
    await tenant.pool("pool", "10.0.0.1-10.0.0.1", gateway="10.0.0.9")
    await tenant.pool("other", "10.0.1.1-10.0.1.9")
    await tenant.claim("claim", kind=CAPI)
    held = await tenant.bound("claim", CAPI)
    assert held.address["apiVersion"] == f"{api.CAPI_GROUP}/{version}"
    assert held.address["spec"] == {
        "address": "10.0.0.1",
        "prefix": 24,
        "gateway": "10.0.0.9",
        "claimRef": {"name": "claim"},
        "poolRef": {"apiGroup": api.METAL3_GROUP, "kind": "IPPool", "name": "pool"},
    }
    await tenant.claim("waits", kind=CAPI)
    await tenant.refused("waits", "PoolExhausted", CAPI)
    await untouched(tenant, "other", "claim", "waits")
    await tenant.release("claim", CAPI)
    held = await tenant.bound("waits", CAPI)
    assert held.ip == "10.0.0.1"
    if version == "v1beta1":
        (legacy,) = held.claim["status"]["conditions"]
        assert (legacy["type"], legacy["status"], "severity" in legacy) == ("Ready", "True", False)
    await tenant.release("waits", CAPI)


async def test_what_claims_hold_is_kept_while_cluster_api_is_not_served(bare, only, kube, tmp_path):
    only(*capi.crds())
    with Allocator.running(tmp_path, bare.kubeconfig, "--orphan-grace-seconds=0") as allocator:
        tenant = await Tenant.create(kube)
        await tenant.pool("pool", "10.0.0.1-10.0.0.1")
        assert await tenant.give("claim", kind=CAPI) == "10.0.0.1"
        for definition in capi.crds(api.CAPI_GROUP):
            unserved = [
                {"op": "replace", "path": f"/spec/versions/{number}/served", "value": False}
                for number in range(len(definition["spec"]["versions"]))
            ]
            bare.kubectl("patch", "crd", definition["metadata"]["name"], "--type=json", f"-p={json.dumps(unserved)}")
        await eventually(seen_empty(allocator, CAPI))
        await tenant.claim("other")
        await tenant.refused("other", "PoolExhausted")
        await tenant.pool("elsewhere", "10.0.1.1-10.0.1.9")
        await tenant.give("busy", "elsewhere")
        assert await tenant.held() == ["10.0.0.1", "10.0.1.1"]
        bare.install_crds(*capi.crds())
        assert (await tenant.bound("claim", CAPI)).ip == "10.0.0.1"
        await tenant.release("claim", CAPI)
        assert (await tenant.bound("other")).ip == "10.0.0.1"


async def test_cluster_api_may_be_installed_and_upgraded_while_the_allocator_runs(bare, only, kube, allocator):
    only()
    tenant = await Tenant.create(kube, capi="v1beta1")
    await tenant.pool("pool", "10.0.0.1-10.0.0.9")
    assert await tenant.give("metal3") == "10.0.0.1"

    bare.install_crds(*before_1_9())
    assert await tenant.give("old", kind=CAPI) == "10.0.0.2"

    bare.install_crds(*capi.crds())
    later = Tenant(kube, tenant.namespace, tenant.domain)
    await later.claim("named", kind=CAPI, labels={api.CLUSTER_NAME_LABEL: "cluster"})
    await later.refused("named", "AllocationFailed", CAPI, "does not exist")
    assert await later.give("new", kind=CAPI) == "10.0.0.3"
    assert (await later.bound("old", CAPI)).ip == "10.0.0.2"
    await later.cluster("cluster")
    assert (await later.bound("named", CAPI)).ip == "10.0.0.4"
    allocator.restart()
    for name, kind in (("old", CAPI), ("new", CAPI), ("metal3", METAL3)):
        assert condition((await later.bound(name, kind)).claim)["status"] == "True"
        await later.release(name, kind)
    assert await later.held() == ["10.0.0.4"]
