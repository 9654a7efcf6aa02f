"""The chart on a real API server: what is admitted, what is left when it goes, and what `helm test` does there."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys

import pytest

from services.chart_test import POOLS, PRESETS
from services.ipam import api
from tests.support.allocator import Allocator
from tests.support.chart import CHART, NAMESPACE, ROOT, helm, load, render
from tests.support.kube import Kube, eventually, manifest
from tests.support.webhook import Webhook
from tools import capi
from tools.cluster import Cluster

RELEASE = ("groundwork", f"--namespace={NAMESPACE}")
HOOK = "groundwork-test"


def definitions():
    return sorted((ROOT / "deploy" / "crds").glob("*.yaml"))


@pytest.fixture(scope="module")
def own(control_plane):
    """A cluster with the chart installed, and CAPV's own definitions."""
    with Cluster.temporary() as running:
        running.install_crds(*capi.crds())
        running.install_crds(*capi.crds("vspheremachines.infrastructure.cluster.x-k8s.io"))
        helm("install", *RELEASE, str(CHART), "--create-namespace", cluster=running)
        names = [f"crd/{path.stem.partition('_')[2]}.{path.stem.partition('_')[0]}" for path in definitions()]
        running.kubectl("wait", "--for=condition=Established", "--timeout=60s", *names)
        yield running


@pytest.fixture
async def kube(own):
    async with Kube.connect(own.kubeconfig) as connected:
        yield connected


def test_every_pod_is_admitted_where_the_strictest_pod_security_standard_is_enforced(own):
    labels = {
        "pod-security.kubernetes.io/enforce": "restricted",
        "pod-security.kubernetes.io/enforce-version": "latest",
    }
    own.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "strict", "labels": labels}})
    rendering = render({"machineController": {"enabled": True}})
    templates = [(o["metadata"]["name"], o["spec"]["template"]) for o in rendering.of("Deployment")]
    templates += [(o["metadata"]["name"], o) for o in rendering.of("Pod")]
    pods = [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": "strict", "labels": template["metadata"]["labels"]},
            "spec": template["spec"],
        }
        for name, template in templates
    ]
    assert len(pods) == 5
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": pods})
    made = own.kubectl("create", "--dry-run=server", "--output=name", "--filename=-", input=text)
    assert made.split() == [f"pod/{name}" for name, _ in templates]
    pods[0]["spec"]["containers"][0]["securityContext"] = {}
    with pytest.raises(Exception, match="violates PodSecurity"):
        own.kubectl("create", "--dry-run=server", "--filename=-", input=json.dumps(pods[0]))


def test_the_notes_name_what_was_installed_and_what_to_do_next(own):
    notes = helm("get", "notes", *RELEASE, cluster=own)
    for command in ("helm test groundwork", "kubectl get ippools", "kubectl get clusterpodpresets"):
        assert command in notes
    assert "machine.groundwork.dev" not in notes


def test_definitions_of_capv_are_never_taken_over(own):
    machines = "vspheremachines.infrastructure.cluster.x-k8s.io"
    before = own.kubectl("get", "crd", machines, "-o", "jsonpath={.metadata.resourceVersion}")
    enabled = "--set=machineController.enabled=true"
    complaint = helm("upgrade", *RELEASE, str(CHART), enabled, cluster=own, fails=True)
    assert machines in complaint
    assert own.kubectl("get", "crd", machines, "-o", "jsonpath={.metadata.resourceVersion}") == before
    without = "--set=machineController.crds.enabled=false"
    helm("upgrade", *RELEASE, str(CHART), enabled, without, "--dry-run=server", cluster=own)


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
    for step in (
        ("upgrade", *RELEASE, str(CHART), "--set=ipam.replicaCount=3"),
        ("rollback", *RELEASE, "1"),
        ("uninstall", *RELEASE),
        ("install", *RELEASE, str(CHART)),
    ):
        await asyncio.to_thread(helm, *step, cluster=own)
        assert await address() == bound, step
        assert await kube.get(api.IP_ADDRESSES, bound["name"], "default")
    await kube.delete(api.IP_CLAIMS, "kept", "default")
    await kube.gone(api.IP_CLAIMS, "kept", "default")


class Hook:
    """What `helm test` does without a node: the hook's objects in its order, and its pod as a process."""

    def __init__(self, cluster, folder):
        self._cluster = cluster
        text = helm("get", "hooks", "groundwork", f"--namespace={NAMESPACE}", cluster=cluster)
        hooks = sorted(load(text), key=lambda o: int(o["metadata"]["annotations"].get("helm.sh/hook-weight", 0)))
        self.pod = hooks.pop()
        assert self.pod["kind"] == "Pod"
        assert {o["metadata"]["annotations"]["helm.sh/hook"] for o in [*hooks, self.pod]} == {"test"}
        self.objects = hooks
        self._folder = folder

    @property
    def role(self):
        return next(o for o in self.objects if o["kind"] == "Role")

    def run(self, *changes):
        """Exit code, stdout and stderr of the pod's container with the hook's rights."""
        self._cluster.apply(*self.objects)
        (container,) = self.pod["spec"]["containers"]
        assert container["command"] == ["python", "-m", "services.chart_test"]
        account = self.pod["spec"]["serviceAccountName"]
        kubeconfig = self._cluster.service_account_kubeconfig(NAMESPACE, account, [])
        command = [
            sys.executable,
            *container["command"][1:],
            *container["args"],
            *changes,
            f"--kubeconfig={kubeconfig}",
        ]
        done = subprocess.run(command, cwd=self._folder, capture_output=True, text=True, check=False, timeout=300)
        return done.returncode, done.stdout, done.stderr


@pytest.fixture
def hook(own):
    return Hook(own, ROOT)


@pytest.fixture
def answering(own, allocator, tmp_path):
    """The services run, and the webhook is asked about the hook's namespace."""
    labels = {"groundwork-test-scope": "hook"}
    with Webhook.running(tmp_path / "webhook", own.kubeconfig) as webhook:
        own.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": HOOK, "labels": labels}})
        with webhook.registered(own, "hook"):
            yield


async def test_the_test_hook_binds_an_address_and_injects_a_pod(kube, hook, answering):
    code, told, complaint = await asyncio.to_thread(hook.run, "--timeout=60")
    assert (code, complaint) == (0, "")
    first, second = told.splitlines()
    assert first.startswith("ok: a claim got the address 192.0.2.1")
    assert second.startswith("ok: a pod got GROUNDWORK_HELM_TEST=helm-test-")
    for resource in (POOLS, PRESETS):
        assert await kube.list(resource, HOOK) == [], "it cleans up"


async def test_the_test_hook_needs_every_right_it_has(hook, answering):
    needless = []
    for rule in hook.role["rules"]:
        verbs = rule["verbs"]
        for verb in verbs:
            rule["verbs"] = [other for other in verbs if other != verb] or ["none"]
            code, _, complaint = await asyncio.to_thread(hook.run, "--timeout=1")
            if code == 0 or f"cannot {verb} resource" not in complaint:
                needless.append((rule["resources"], verb, complaint))
        rule["verbs"] = verbs
    assert needless == []


@pytest.mark.parametrize(
    ("step", "reason"),
    [("--address", "nobody has looked at it"), ("--pod", "is the webhook asked about this namespace?")],
)
async def test_the_test_hook_says_what_did_not_come_true(own, kube, hook, step, reason):
    hook.pod["spec"]["containers"][0]["args"] = [f"--namespace={HOOK}", step]
    code, told, complaint = await asyncio.to_thread(hook.run, "--timeout=1")
    assert (code, told) == (1, "")
    assert complaint.startswith("failed: ")
    assert reason in complaint
    for resource in (POOLS, PRESETS):
        assert await kube.list(resource, HOOK) == [], "it cleans up"
