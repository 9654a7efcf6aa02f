"""The chart on a real node, from `helm install` to `helm uninstall`: the tests follow each other as days do.

Each works on the one release and on what users made at the beginning: presets, a pool and claims that hold addresses.
"""

from __future__ import annotations

import asyncio
import uuid

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from services.ipam import api
from tests.e2e.site import CHART, DEPLOYMENTS, NAMESPACE, RELEASE
from tests.e2e.stream import Claims, Pods, bound
from tests.support.kube import Kube, eventually, manifest
from tests.support.tenant import CAPI_ADDRESSES, CAPI_CLAIMS
from tests.support.waiting import blocking_until
from tools import capi

SHOP = f"shop-{uuid.uuid4().hex[:8]}"
POOL = "machines"
KEPT = [f"kept-{number}" for number in range(3)]
PROXY = "http://proxy.example.com:3128"
SHOP_PROXY = "http://shop-proxy.example.com:3128"


def users_objects(client_image):
    """What users make once Groundwork is installed."""
    preset = "reach.spectrocloud.com/v1alpha1"
    return (
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SHOP}},
        {
            "apiVersion": preset,
            "kind": "ClusterPodPreset",
            "metadata": {"name": SHOP},
            "spec": {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": SHOP}},
                "env": [
                    {"name": "HTTP_PROXY", "value": PROXY},
                    {"name": "HTTPS_PROXY", "value": PROXY},
                    {"name": "NO_PROXY", "value": "localhost,.example.com"},
                ],
                "noProxy": {"include": [".svc", "service-cidr", "api-server"]},
            },
        },
        {
            "apiVersion": preset,
            "kind": "PodPreset",
            "metadata": {"name": "proxy", "namespace": SHOP},
            "spec": {
                "env": [
                    {"name": "NO_PROXY", "value": "registry.shop.internal"},
                    {"name": "HTTPS_PROXY", "value": SHOP_PROXY},
                ]
            },
        },
        {
            "apiVersion": "ipam.metal3.io/v1alpha1",
            "kind": "IPPool",
            "metadata": {"name": POOL, "namespace": SHOP},
            "spec": {
                "namePrefix": POOL,
                "prefix": 16,
                "gateway": "198.19.0.1",
                "domain": SHOP,
                "pools": [{"start": "198.19.0.10", "end": "198.19.9.250"}],
            },
        },
        *(manifest(api.IP_CLAIMS, name, SHOP, {"pool": {"name": POOL}}) for name in KEPT),
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "app", "namespace": SHOP},
            "spec": {
                "replicas": 2,
                "selector": {"matchLabels": {"app": "shop"}},
                "template": {
                    "metadata": {"labels": {"app": "shop"}},
                    "spec": {
                        "terminationGracePeriodSeconds": 0,
                        "containers": [
                            {
                                "name": "app",
                                "image": client_image,
                                "command": ["sleep", "86400"],
                                "env": [{"name": "NO_PROXY", "value": "partner.example.net"}],
                            }
                        ],
                    },
                },
            },
        },
    )


@pytest.fixture(scope="module")
def release(site, steps):
    """Groundwork as `helm install` leaves it, and what users then made; presets are ready, claims are made."""
    with steps.step("Cluster API's definitions"):
        definitions = [*capi.crds(), *capi.crds("machines.cluster.x-k8s.io")]
        site.apply(*definitions)
        names = [f"crd/{definition['metadata']['name']}" for definition in definitions]
        site.kubectl("wait", "--for=condition=Established", "--timeout=60s", *names)
        level = {"pod-security.kubernetes.io/enforce": "restricted"}
        site.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": level}})
    with steps.step("helm install --wait"):
        site.upgrade()
    with steps.step("what users make"):
        *first, deployment = users_objects(site.client)
        site.apply(*first)
        presets = (f"clusterpodpreset/{SHOP}", "podpreset/proxy")
        site.kubectl("wait", "--for=condition=Ready", "--timeout=120s", f"--namespace={SHOP}", *presets)
        site.apply(deployment)
        site.kubectl("rollout", "status", "deployment/app", f"--namespace={SHOP}", "--timeout=180s")
    yield site
    if site.node is not None:
        return  # it goes, with everything on it
    with steps.step("what users clean up"):
        # Without an allocator nothing would take the finalizers off.
        site.upgrade()
        site.kubectl("delete", "clusterpodpreset", SHOP, "--ignore-not-found")
        site.kubectl("delete", "ipclaims,ipaddressclaims", "--all", f"--namespace={SHOP}", "--timeout=120s")
        site.kubectl("delete", "namespace", SHOP, "--timeout=180s")
        site.helm("uninstall", RELEASE, "--wait", "--cascade=foreground")
        site.kubectl("delete", "namespace", NAMESPACE, "--timeout=180s")


@pytest.fixture
async def kube(release):
    async with Kube.connect(release.kubeconfig) as connected:
        yield connected


@pytest.fixture
async def held(kube):
    """The addresses that the first claims hold; they are the same when the test is over."""
    before = {name: await bound(kube, SHOP, name) for name in KEPT}
    yield before
    assert {name: await bound(kube, SHOP, name) for name in KEPT} == before


async def new_claim_is_bound(kube):
    """Make a claim, have it bound, and give its address back."""
    name = f"new-{uuid.uuid4().hex[:8]}"
    await kube.create(api.IP_CLAIMS, manifest(api.IP_CLAIMS, name, SHOP, {"pool": {"name": POOL}}))
    address = await bound(kube, SHOP, name)
    await kube.delete(api.IP_CLAIMS, name, SHOP)
    await kube.gone(api.IP_CLAIMS, name, SHOP)
    return address


def environment(site):
    """What `printenv` says in each container of the shop's Deployment."""
    found = []
    for pod in site.get("pods", f"--namespace={SHOP}", "--selector=app=shop")["items"]:
        if "deletionTimestamp" not in pod["metadata"]:
            printed = site.kubectl("exec", pod["metadata"]["name"], f"--namespace={SHOP}", "--", "printenv")
            found.append(dict(line.split("=", 1) for line in printed.splitlines() if "=" in line))
    return found


def test_helm_test_succeeds(release):
    release.helm("test", RELEASE, "--timeout=300s")


def test_containers_of_a_deployment_have_the_merged_proxy_settings(release):
    found = environment(release)
    assert len(found) == 2
    for variables in found:
        assert variables["HTTP_PROXY"] == variables["http_proxy"] == PROXY
        assert variables["HTTPS_PROXY"] == variables["https_proxy"] == SHOP_PROXY
        entries = variables["NO_PROXY"].split(",")
        assert variables["no_proxy"] == variables["NO_PROXY"]
        service = variables["KUBERNETES_SERVICE_HOST"]
        wanted = ["partner.example.net", "localhost", ".example.com", ".svc", service, "registry.shop.internal"]
        assert [entry for entry in entries if entry in wanted] == wanted
        assert len(entries) == len(set(entries)) > len(wanted), "the range of the Services is missing"


async def test_claims_of_both_apis_hold_addresses_of_the_pool(kube, held):
    spec = {"poolRef": {"apiGroup": api.METAL3_GROUP, "kind": "IPPool", "name": POOL}}
    await kube.create(CAPI_CLAIMS, manifest(CAPI_CLAIMS, "machine", SHOP, spec))

    async def reference():
        return (await kube.get(CAPI_CLAIMS, "machine", SHOP)).get("status", {}).get("addressRef")

    address = await kube.get(CAPI_ADDRESSES, (await eventually(reference))["name"], SHOP)
    assert address["spec"]["gateway"] == "198.19.0.1"
    given = [text for _, text in held.values()] + [address["spec"]["address"]]
    assert len(set(given)) == len(given)


def test_every_pod_shows_its_metrics_where_its_service_monitor_says(release, steps):
    text = release.helm(
        "template", RELEASE, CHART, *release.values("metrics.serviceMonitor.enabled=true"), "--kube-version=1.36"
    )
    monitors = [obj for obj in yaml.safe_load_all(text) if obj and obj["kind"] == "ServiceMonitor"]
    assert len(monitors) == len(DEPLOYMENTS)
    scraped = {}
    for monitor in monitors:
        labels = monitor["spec"]["selector"]["matchLabels"]
        selector = ",".join(f"{key}={value}" for key, value in labels.items())
        (service,) = release.get("services", f"--namespace={NAMESPACE}", f"--selector={selector}")["items"]
        (endpoint,) = monitor["spec"]["endpoints"]
        behind = f"kubernetes.io/service-name={service['metadata']['name']}"
        for part in release.get("endpointslices", f"--namespace={NAMESPACE}", f"--selector={behind}")["items"]:
            (port,) = [port["port"] for port in part["ports"] if port["name"] == endpoint["port"]]
            for target in part["endpoints"]:
                pod = target["targetRef"]["name"]
                path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}:{port}/proxy{endpoint['path']}"
                families = list(text_string_to_metric_families(release.kubectl("get", "--raw", path)))
                assert pod not in scraped, "scraped twice"
                scraped[pod] = {family.name for family in families}
    assert set(scraped) == {pod["metadata"]["name"] for pod in release.pods()}
    for pod, names in scraped.items():
        assert {"leader_election_master_status", "rest_client_requests"} <= names, pod
    steps.say(f"{len(scraped)} targets, {sum(map(len, scraped.values()))} metric families scraped")


@pytest.mark.parametrize("component", ["ipam", "podpreset", "capv-integrator"])
async def test_another_pod_leads_when_the_leader_is_deleted(kube, release, held, component):
    leader = blocking_until(lambda: release.leader(component), why="nobody leads")
    release.kubectl("delete", "pod", leader, f"--namespace={NAMESPACE}", "--wait=false")
    blocking_until(lambda: release.leader(component) not in ("", leader), limit=120, step=0.2, why="nobody follows")
    await new_claim_is_bound(kube)
    await asyncio.to_thread(release.settled)


async def test_a_restarted_kubelet_leaves_pods_and_addresses_alone(kube, release, held, node):
    def containers():
        pods = [*release.pods(), *release.get("pods", f"--namespace={SHOP}")["items"]]
        return {pod["metadata"]["name"]: pod["status"]["containerStatuses"][0]["containerID"] for pod in pods}

    before = containers()
    await asyncio.to_thread(node.restart_kubelet)
    await new_claim_is_bound(kube)
    release.kubectl("rollout", "restart", "deployment/app", f"--namespace={SHOP}")
    release.kubectl("rollout", "status", "deployment/app", f"--namespace={SHOP}", "--timeout=180s")
    assert all(variables["HTTPS_PROXY"] == SHOP_PROXY for variables in environment(release))
    after = containers()
    ours = [pod["metadata"]["name"] for pod in release.pods()]
    assert [after[name] for name in ours] == [before[name] for name in ours]


async def test_an_upgrade_refuses_no_pod_and_loses_no_claim(kube, release, held, steps):
    old = {pod["metadata"]["name"] for pod in release.pods()}
    pods, claims = Pods(kube, SHOP, "HTTPS_PROXY"), Claims(kube, SHOP, POOL)
    async with pods.running(), claims.running():
        await asyncio.to_thread(release.upgrade, "podAnnotations.upgraded=yes", "logLevel=debug")
        during = await claims.addresses()
    assert not old & {pod["metadata"]["name"] for pod in release.pods()}
    steps.say(f"{pods} and {claims.made} claims made, {claims.returned} returned during an upgrade")
    assert pods.refused == []
    after = await claims.addresses()
    assert {name: after[name] for name in during if name in after} == {
        name: address for name, address in during.items() if name in after
    }
    given = [address for _, address in (*held.values(), *after.values())]
    assert len(set(given)) == len(given)


async def test_a_rollback_keeps_the_definitions_and_every_address(kube, release, held):
    release.helm("rollback", RELEASE, "1", "--wait", "--timeout=300s")
    await asyncio.to_thread(release.settled)
    await new_claim_is_bound(kube)


async def test_no_admission_is_refused_while_the_webhook_restarts_three_times(kube, release, steps):
    pods = Pods(kube, SHOP, "HTTPS_PROXY")

    def restart():
        release.kubectl("rollout", "restart", f"deployment/{RELEASE}-podpreset", f"--namespace={NAMESPACE}")
        release.settled()

    async with pods.running():
        for _ in range(3):
            await asyncio.to_thread(restart)
    steps.say(f"{pods} during three rolling restarts of the webhook")
    assert pods.refused == []


async def test_what_users_made_is_there_when_the_release_is_not(kube, release):
    before = {name: await bound(kube, SHOP, name) for name in KEPT}
    release.helm("uninstall", RELEASE, "--wait", "--cascade=foreground", "--timeout=180s")
    blocking_until(lambda: not release.pods(), limit=180, step=0.5, why="pods of the release do not end")
    assert {name: await bound(kube, SHOP, name) for name in KEPT} == before
    reservations = await kube.list(api.IP_RESERVATIONS)
    assert {address for _, address in before.values()} <= {obj["spec"]["address"] for obj in reservations}
    for kind in (f"clusterpodpreset/{SHOP}", "podpreset/proxy", f"ippool/{POOL}"):
        release.kubectl("get", kind, f"--namespace={SHOP}")
    left = release.get("mutatingwebhookconfigurations,deployments,clusterroles", "--all-namespaces")["items"]
    labels = [obj["metadata"].get("labels", {}).get("app.kubernetes.io/part-of") for obj in left]
    assert "groundwork" not in labels, "a webhook that nobody answers would be in the way of every pod"
    # And it goes on where it stopped.
    await asyncio.to_thread(release.upgrade)
    await new_claim_is_bound(kube)
    assert {name: await bound(kube, SHOP, name) for name in KEPT} == before
