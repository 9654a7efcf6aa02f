"""The chart on a real API server: what is admitted, what is left when it goes, and what `helm test` does there."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys

import pytest

from services.chart_test import CLAIMS, POOLS, PRESETS
from services.ipam import api
from tests.support import audit
from tests.support.allocator import Allocator
from tests.support.chart import CHART, NAMESPACE, ROOT, helm, load, render
from tests.support.kube import Kube, eventually, manifest
from tests.support.service import ServiceProcess
from tests.support.webhook import SCOPE_LABEL, Webhook
from tools import capi

RELEASE = ("groundwork", f"--namespace={NAMESPACE}")
HOOK = "groundwork-test"


def definitions():
    return sorted((ROOT / "deploy" / "crds").glob("*.yaml"))


@pytest.fixture(scope="module")
def own(control_plane):
    """A cluster with the chart installed, and CAPV's own definitions."""
    with audit.audited() as running:
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
    account = own.service_account_kubeconfig("default", "allocator", render().rules("ipam")[1])
    with Allocator.running(tmp_path, account) as running:
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


async def certified(own):
    """Wait for the webhook's CA in the configuration, spoil its certificate, and wait for a new one."""

    async def look(*what):
        return await asyncio.to_thread(own.kubectl, "get", *what)

    bundle = "jsonpath={.webhooks[0].clientConfig.caBundle}"
    configuration = ("mutatingwebhookconfiguration", "groundwork-podpreset", "-o", bundle)
    secret = ("secret", "groundwork-podpreset-certificates", f"--namespace={NAMESPACE}")
    await eventually(lambda: look(*configuration))
    spoilt = {"data": {"tls.crt": "eA==", "tls.key": "eA=="}}
    await asyncio.to_thread(own.kubectl, "patch", *secret, "--type=merge", "--patch", json.dumps(spoilt))
    await eventually(lambda: look(*secret, "-o", "jsonpath={.data.tls\\.crt}"), lambda seen: seen not in {"", "eA=="})


@pytest.mark.parametrize(
    ("service", "flags"),
    [
        ("ipam", ()),
        ("capv-integrator", ()),
        ("podpreset", ("--webhook-address=127.0.0.1:0", "--drain-seconds=0")),
    ],
)
async def test_a_service_leads_with_the_arguments_and_the_rights_that_the_chart_gives_it(own, tmp_path, service, flags):
    process = await asyncio.to_thread(Installed, tmp_path, own, service, *flags)
    await asyncio.to_thread(process.start)
    try:

        async def leads():
            return [record for record in process.records() if record["msg"] == "Became the leader"]

        await eventually(leads)
        if service == "podpreset":
            await certified(own)
    finally:
        await asyncio.to_thread(process.stop)
    assert process.mistakes() == []
    assert "forbidden" not in process.log().lower()


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
        (place,) = (o for o in hooks if o["kind"] == "Namespace")
        place["metadata"]["labels"][SCOPE_LABEL] = "hook"
        self._folder = folder
        self._kubeconfig = None

    @property
    def role(self):
        return next(o for o in self.objects if o["kind"] == "Role")

    def run(self, *changes):
        """Exit code, stdout and stderr of the pod's container with the hook's rights."""
        self._cluster.apply(*(self.objects if self._kubeconfig is None else [self.role]))
        (container,) = self.pod["spec"]["containers"]
        assert container["command"] == ["python", "-m", "services.chart_test"]
        account = self.pod["spec"]["serviceAccountName"]
        if self._kubeconfig is None:
            self._kubeconfig = self._cluster.service_account_kubeconfig(NAMESPACE, account, [])
        command = [sys.executable, *container["command"][1:], *container["args"], *changes]
        command.append(f"--kubeconfig={self._kubeconfig}")
        done = subprocess.run(command, cwd=self._folder, capture_output=True, text=True, check=False, timeout=300)
        return done.returncode, done.stdout, done.stderr


@pytest.fixture
def hook(own):
    return Hook(own, ROOT)


async def left(kube):
    """Names of what hooks have made and not deleted."""
    found = [obj for resource in (POOLS, CLAIMS, PRESETS) for obj in await kube.list(resource, HOOK)]
    return {(obj["kind"], obj["metadata"]["name"]) for obj in found}


@pytest.fixture
def answering(own, allocator, tmp_path):
    """The services run, and the webhook is asked about the hook's namespace."""
    labels = {SCOPE_LABEL: "hook"}
    with Webhook.running(tmp_path / "webhook", own.kubeconfig) as webhook:
        own.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": HOOK, "labels": labels}})
        with webhook.registered(own, "hook"):
            yield


async def test_the_test_hook_binds_an_address_and_injects_a_pod(kube, hook, answering):
    before = await left(kube)
    code, told, complaint = await asyncio.to_thread(hook.run, "--timeout=60")
    assert (code, complaint) == (0, "")
    first, second = told.splitlines()
    assert first.startswith("ok: a claim got the address 192.0.2.1")
    assert second.startswith("ok: a pod got GROUNDWORK_HELM_TEST=helm-test-")
    assert await left(kube) == before, "it cleans up"


def test_a_namespace_that_the_test_hook_did_not_make_stays(own):
    own.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": HOOK}})
    complaint = helm("test", *RELEASE, "--timeout=30s", cluster=own, fails=True)
    assert f'namespaces "{HOOK}" already exists' in complaint
    assert own.kubectl("get", "namespace", HOOK, "-o", "jsonpath={.status.phase}") == "Active"


def test_the_test_hook_has_a_namespace_apart_from_the_release_s():
    for where in ("--namespace", "--set=namespaceOverride"):
        text = helm("template", "groundwork", str(CHART), f"{where}={HOOK}")
        hooks = [o for o in load(text) if "helm.sh/hook" in o["metadata"].get("annotations", {})]
        (place,) = (o["metadata"]["name"] for o in hooks if o["kind"] == "Namespace")
        assert place != HOOK
        (pod,) = (o for o in hooks if o["kind"] == "Pod")
        assert f"--namespace={place}" in pod["spec"]["containers"][0]["args"]
        assert {o["metadata"]["namespace"] for o in hooks if o["kind"] == "Role"} == {place}


async def test_the_test_hook_needs_every_right_it_has(hook, answering):
    needless = []
    for rule in hook.role["rules"]:
        verbs = rule["verbs"]
        step = "--address" if rule["apiGroups"] == ["ipam.metal3.io"] else "--pod"
        hook.pod["spec"]["containers"][0]["args"] = [f"--namespace={HOOK}", step]
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
    before = await left(kube)
    code, told, complaint = await asyncio.to_thread(hook.run, "--timeout=1")
    assert (code, told) == (1, "")
    assert complaint.startswith("failed: ")
    assert reason in complaint
    assert await left(kube) == before, "it cleans up"
