"""The chart on a real API server: what it installs, the rights it gives, and what is left when it goes."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from services.capv_integrator import api as capv
from services.ipam import api
from services.podpreset.api import CLUSTER_POD_PRESETS
from tests.support.allocator import Allocator
from tests.support.kube import Kube, eventually, manifest
from tests.support.service import ServiceProcess
from tools import binaries, capi
from tools.cluster import Cluster

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy" / "chart"
NAMESPACE = "groundwork-system"
SERVICES = ("ipam", "capv-integrator", "podpreset")
EVERYTHING = (
    "podpreset.autoscaling.enabled=true,podpreset.webhook.certManager.enabled=true,networkPolicy.enabled=true,"
    "metrics.serviceMonitor.enabled=true"
)


def helm(*arguments, cluster=None, fails=False):
    """Output of helm, or its complaint when it is to fail."""
    where = [f"--kubeconfig={cluster.kubeconfig}"] if cluster is not None else []
    command = [binaries.ensure("helm")["helm"], *arguments, *where]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode != 0) is fails, done.stderr
    return done.stderr if fails else done.stdout


def rendered(*values):
    """Objects of `helm template` as (kind, name): object."""
    sets = [f"--set={value}" for value in values]
    text = helm("template", "groundwork", str(CHART), f"--namespace={NAMESPACE}", *sets)
    return {(o["kind"], o["metadata"]["name"]): o for o in yaml.safe_load_all(text) if o}


def rights(rules):
    """Rules as a set of single rights."""
    return {
        right
        for rule in rules
        for right in itertools.product(
            rule["apiGroups"], rule["resources"], rule.get("resourceNames") or [""], rule["verbs"]
        )
    }


@pytest.fixture(scope="module")
def own(control_plane):
    with Cluster.temporary() as running:
        running.install_crds(*capi.crds())
        running.install_crds(*capi.crds("infrastructure.cluster.x-k8s.io", "machines.cluster.x-k8s.io"))
        helm("install", "groundwork", str(CHART), f"--namespace={NAMESPACE}", "--create-namespace", cluster=running)
        names = [f"crd/{path.stem.partition('_')[2]}.{path.stem.partition('_')[0]}" for path in definitions()]
        running.kubectl("wait", "--for=condition=Established", "--timeout=60s", *names)
        yield running


@pytest.fixture
async def kube(own):
    async with Kube.connect(own.kubeconfig) as connected:
        yield connected


def definitions():
    return sorted((ROOT / "deploy" / "crds").glob("*.yaml"))


def test_helm_lint_has_no_complaint():
    assert "0 chart(s) failed" in helm("lint", str(CHART), "--strict")


@pytest.mark.parametrize("values", [(), (EVERYTHING,)], ids=["default", "everything"])
def test_every_object_says_what_it_belongs_to_and_is_in_the_release_s_namespace(values):
    for (kind, name), obj in rendered(*values).items():
        if kind == "CustomResourceDefinition":
            continue
        labels = obj["metadata"]["labels"]
        assert labels["app.kubernetes.io/part-of"] == "groundwork", (kind, name)
        assert labels["app.kubernetes.io/component"] in SERVICES
        assert obj["metadata"].get("namespace", NAMESPACE) == NAMESPACE


def test_the_definitions_are_those_of_the_one_source_and_stay_when_the_release_goes():
    objects = rendered()
    for path in definitions():
        source = yaml.safe_load(path.read_text(encoding="utf-8"))
        installed = objects.pop(("CustomResourceDefinition", source["metadata"]["name"]))
        assert installed["metadata"]["annotations"].pop("helm.sh/resource-policy") == "keep"
        assert installed["spec"] == source["spec"]
        assert installed["metadata"]["annotations"] == source["metadata"].get("annotations", {})
    assert not [kind for kind, _ in objects if kind == "CustomResourceDefinition"]
    assert not [kind for kind, _ in rendered("crds.enabled=false") if kind == "CustomResourceDefinition"]


def test_pods_are_as_restricted_as_the_strictest_pod_security_standard_wants():
    for (kind, name), obj in rendered().items():
        if kind != "Deployment":
            continue
        pod = obj["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 65532
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name
        assert container["name"] == "manager", "what clusterctl looks for"


@pytest.mark.parametrize("service", ["capv-integrator", "podpreset"])
def test_the_rights_are_those_that_the_reference_page_explains(service):
    page = (ROOT / "docs" / "reference" / "rbac.md").read_text(encoding="utf-8")
    documents = [
        document
        for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
        for document in yaml.safe_load_all(block)
        if document["metadata"]["name"] == f"groundwork-{service}"
    ]
    told = rights(rule for document in documents for rule in document["rules"])
    objects = rendered()
    roles = [objects[kind, f"groundwork-{service}"] for kind in ("ClusterRole", "Role")]
    given = rights(rule for role in roles for rule in role["rules"])
    leases = rights(
        [{"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update"]}]
    )
    assert given == told | leases


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ("ipam.replica=1", "ipam"),
        ("logLevel=verbose", "logLevel"),
        ("podpreset.webhook.failurePolicy=Never", "failurePolicy"),
        ("podpreset.webhook.timeoutSeconds=31", "timeoutSeconds"),
        ("image.digest=latest", "digest"),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_its_name(value, field):
    assert field in helm("template", "groundwork", str(CHART), f"--set={value}", fails=True)


def test_the_webhook_leaves_out_its_own_namespace_and_those_that_are_named():
    (webhook,) = rendered("podpreset.webhook.excludedNamespaces={cattle-system}")[
        "MutatingWebhookConfiguration", "groundwork-podpreset"
    ]["webhooks"]
    names = webhook["namespaceSelector"]["matchExpressions"][0]["values"]
    assert names == ["kube-system", "kube-node-lease", NAMESPACE, "cattle-system"]
    service = {"namespace": NAMESPACE, "name": "groundwork-podpreset", "path": "/mutate", "port": 443}
    assert webhook["clientConfig"] == {"service": service}


class Installed(ServiceProcess):
    """A service as its Deployment would run it: with the arguments and the account that the chart gives it."""

    def __init__(self, folder, cluster, service, *flags):
        self.module = f"services.{service.replace('-', '_')}"
        account = cluster.service_account_kubeconfig(NAMESPACE, f"groundwork-{service}", [])
        deployment = json.loads(
            cluster.kubectl("get", "deployment", f"groundwork-{service}", f"--namespace={NAMESPACE}", "-o", "json")
        )
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        assert container["command"] == ["python", "-m", self.module]
        changed = ("--bind-address", "--webhook-address", "--log-format")
        given = [argument for argument in container["args"] if not argument.startswith(changed)]
        lease = ["--leader-election", f"--lease-namespace={NAMESPACE}"]
        super().__init__(folder, account, *given, *lease, *flags)


@pytest.fixture
async def installed(own, tmp_path):
    """Starts services; at the end none may have been denied anything."""
    running = []

    async def start(service, *flags):
        folder = tmp_path / service
        folder.mkdir()
        process = await asyncio.to_thread(Installed, folder, own, service, *flags)
        running.append(process)
        await asyncio.to_thread(process.start)

    yield start
    for process in running:
        await asyncio.to_thread(process.stop)
        assert process.mistakes() == []
        assert "forbidden" not in process.log().lower()


async def test_every_service_works_with_the_rights_of_the_chart_and_no_others(own, kube, installed):
    await installed("ipam")
    await installed("capv-integrator")
    await installed("podpreset", "--webhook-address=127.0.0.1:0", "--drain-seconds=0")

    pool = {
        "namePrefix": "p",
        "prefix": 24,
        "gateway": "10.0.0.1",
        "pools": [{"start": "10.0.0.10", "end": "10.0.0.99"}],
    }
    labels = {capv.NETWORK_KEY: "vlan-7"}
    await kube.create(api.IP_POOLS, manifest(api.IP_POOLS, "pool", "default", pool, labels=labels))
    claims = {
        api.IP_CLAIMS: {"pool": {"name": "pool"}},
        api.CAPI_CLAIMS[0]: {"poolRef": {"apiGroup": api.METAL3_GROUP, "kind": "IPPool", "name": "pool"}},
    }
    for resource, spec in claims.items():
        await kube.create(resource, manifest(resource, "claim", "default", spec))
    for resource in claims:
        await eventually(
            lambda r=resource: kube.get(r, "claim", "default"), lambda c: "conditions" in c.get("status", {})
        )
        await kube.delete(resource, "claim", "default")
        await kube.gone(resource, "claim", "default")

    cluster = await kube.create(
        capv.CLUSTERS[0],
        manifest(
            capv.CLUSTERS[0],
            "c1",
            "default",
            {"infrastructureRef": {"apiGroup": capv.INFRASTRUCTURE_GROUP, "kind": "VSphereCluster", "name": "c1"}},
        ),
    )
    machine = await kube.create(
        capv.MACHINES[0],
        manifest(
            capv.MACHINES[0],
            "m1",
            "default",
            {
                "clusterName": cluster["metadata"]["name"],
                "bootstrap": {"dataSecretName": "none"},
                "infrastructureRef": {"apiGroup": capv.INFRASTRUCTURE_GROUP, "kind": "VSphereMachine", "name": "m1"},
            },
            labels={capv.CLUSTER_NAME_LABEL: "c1"},
        ),
    )
    owner = {"apiVersion": machine["apiVersion"], "kind": "Machine", "name": "m1", "uid": machine["metadata"]["uid"]}
    await kube.create(
        capv.VSPHERE_MACHINES[0],
        manifest(
            capv.VSPHERE_MACHINES[0],
            "m1",
            "default",
            {"template": "ubuntu", "network": {"devices": [{"networkName": "vlan-7"}]}},
            ownerReferences=[owner],
            labels={capv.CLUSTER_NAME_LABEL: "c1"},
        ),
    )
    await eventually(
        lambda: kube.get(capv.VSPHERE_MACHINES[0], "m1", "default"),
        lambda obj: obj["spec"]["network"]["devices"][0].get("ipAddrs"),
    )
    await kube.delete(capv.VSPHERE_MACHINES[0], "m1", "default")
    await eventually(lambda: kube.list(capv.IP_ADDRESS_CLAIMS[0], "default"), lambda found: found == [])

    spec = {"env": [{"name": "HTTPS_PROXY", "value": "http://proxy.example.org:3128"}]}
    await kube.create(CLUSTER_POD_PRESETS, manifest(CLUSTER_POD_PRESETS, "proxy", spec=spec))
    await eventually(
        lambda: kube.get(CLUSTER_POD_PRESETS, "proxy"),
        lambda obj: [c["status"] for c in obj.get("status", {}).get("conditions", [])] == ["True"],
    )

    def bundle():
        path = "jsonpath={.webhooks[0].clientConfig.caBundle}"
        return own.kubectl("get", "mutatingwebhookconfiguration", "groundwork-podpreset", "-o", path)

    await eventually(lambda: asyncio.to_thread(bundle))


@pytest.fixture
def allocator(own, tmp_path):
    """One that does not lose its rights with the release."""
    with Allocator.running(tmp_path, own.kubeconfig) as running:
        yield running


async def test_upgrade_rollback_and_uninstall_leave_definitions_objects_and_addresses(own, kube, allocator):
    spec = {"namePrefix": "kept", "prefix": 24, "domain": "kept", "pools": [{"start": "10.1.0.10", "end": "10.1.0.99"}]}
    await kube.create(api.IP_POOLS, manifest(api.IP_POOLS, "kept", "default", spec))
    await kube.create(api.IP_CLAIMS, manifest(api.IP_CLAIMS, "kept", "default", {"pool": {"name": "kept"}}))

    async def address():
        return (await kube.get(api.IP_CLAIMS, "kept", "default")).get("status", {}).get("address")

    bound = await eventually(address)
    release = ("groundwork", f"--namespace={NAMESPACE}")
    for step in (
        ("upgrade", *release, str(CHART), "--set=ipam.replicas=3"),
        ("rollback", *release, "1"),
        ("uninstall", *release),
        ("install", *release, str(CHART)),
    ):
        await asyncio.to_thread(helm, *step, cluster=own)
        assert await address() == bound, step
        assert await kube.get(api.IP_ADDRESSES, bound["name"], "default")
    await kube.delete(api.IP_CLAIMS, "kept", "default")
    if await kube.find(api.IP_CLAIMS, "kept", "default"):
        await kube.gone(api.IP_CLAIMS, "kept", "default")
