"""A cluster with our image in it, as somebody has it who installs the chart: kubectl, helm, and what went wrong.

Responsible for: the two ways to have one. Invariant: a cluster that is lent is used only if the environment names both
it and an image, so that nobody's KUBECONFIG is taken by accident.
"""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.support.waiting import blocking_until
from tools import binaries
from tools.node import Node

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy" / "chart"
RELEASE = "groundwork"
NAMESPACE = "groundwork-system"
DEPLOYMENTS = ("ipam", "capv-integrator", "podpreset", "machine-controller")
VALUES = (
    # What a webhook does not answer must be seen.
    "podpreset.webhook.failurePolicy=Fail",
    "machineController.enabled=true",
)

_IMAGE = "docker.io/library/groundwork:dev"
_CLIENT = "localhost/groundwork-client:dev"
_LENT_CLIENT = "docker.io/library/busybox:1.37"
_WAIT = "300s"


class SiteError(Exception):
    """A command failed; the message has what it said."""


class Site:
    """One cluster. `image` is ours, `client` one with a shell for users' pods, `node` the machine if it is our own."""

    def __init__(self, kubeconfig, folder, image, client, node=None):
        self.kubeconfig = kubeconfig
        self.image = image
        self.client = client
        self.node = node
        self._folder = folder
        self._programs = binaries.ensure("kubectl", "helm")

    @staticmethod
    def lent():
        """Whether the environment names a cluster and an image that it has or can pull."""
        return bool(os.environ.get("KUBECONFIG") and os.environ.get("E2E_IMAGE"))

    @classmethod
    def of_environment(cls, folder):
        client = os.environ.get("E2E_CLIENT_IMAGE", _LENT_CLIENT)
        return cls(Path(os.environ["KUBECONFIG"]), folder, os.environ["E2E_IMAGE"], client)

    @classmethod
    @contextmanager
    def made(cls, folder, steps, archives):
        """A node of our own with images from archives."""
        with ExitStack() as running:
            with steps.step("node: up"):
                node = running.enter_context(Node.temporary())
            with steps.step("node: load the images"):
                for archive in archives.values():
                    node.load(archive)
            yield cls(node.kubeconfig, folder, _IMAGE, _CLIENT, node)
            with steps.step("node: down"):
                running.close()

    # Commands

    def kubectl(self, *arguments, content=None):
        """Output of kubectl; `content` is its standard input."""
        command = [self._programs["kubectl"], "--kubeconfig", self.kubeconfig, "--cache-dir", self._folder / "kubectl"]
        return run(*command, *arguments, content=content)

    def get(self, *arguments):
        """What `kubectl get` finds, as objects."""
        return json.loads(self.kubectl("get", *arguments, "--output=json"))

    def apply(self, *objects):
        listed = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.kubectl("apply", "--server-side", "--filename=-", content=json.dumps(listed))

    def helm(self, *arguments):
        """Output of helm about our release's namespace."""
        environment = {f"HELM_{kind}_HOME": str(self._folder / "helm" / kind) for kind in ("CACHE", "CONFIG", "DATA")}
        command = [self._programs["helm"], "--kubeconfig", self.kubeconfig, "--namespace", NAMESPACE]
        return run(*command, *arguments, environment=environment)

    # The release

    def values(self, *more):
        """Flags for `helm install` and the like."""
        repository, _, tag = self.image.rpartition(":")
        wanted = (f"image.repository={repository}", f"image.tag={tag}", *VALUES, *more)
        return [f"--set={value}" for value in wanted]

    def upgrade(self, *more):
        """Install or upgrade the release, and return when nothing of an earlier one runs any more."""
        flags = ("--install", "--create-namespace", "--wait", f"--timeout={_WAIT}")
        self.helm("upgrade", RELEASE, CHART, *flags, *self.values(*more))
        self.settled()

    def settled(self):
        """Wait until the release has the pods that it is to have, each of them ready, and no others."""
        for name in DEPLOYMENTS:
            self.kubectl("rollout", "status", f"deployment/{RELEASE}-{name}", f"-n{NAMESPACE}", f"--timeout={_WAIT}")
        # helm and kubectl are content while old pods still end.
        blocking_until(
            lambda: len(self.pods()) == 2 * len(DEPLOYMENTS) and not any(leaving(pod) for pod in self.pods()),
            limit=180,
            step=0.5,
            why="old pods of the release do not end",
        )

    def pods(self, component=None):
        """Pods of the release that still have something to do."""
        labels = f"app.kubernetes.io/instance={RELEASE}"
        selector = f"{labels},app.kubernetes.io/component={component}" if component else labels
        found = self.get("pods", f"--namespace={NAMESPACE}", f"--selector={selector}")["items"]
        return [pod for pod in found if pod["status"].get("phase") not in ("Succeeded", "Failed")]

    def leader(self, component):
        """Name of the pod that holds the Lease of a service, "" when none does."""
        spec = self.get("lease", f"{RELEASE}-{component}", f"--namespace={NAMESPACE}")["spec"]
        return spec.get("holderIdentity", "").partition("_")[0]

    def describe(self):
        """What somebody would look at first when something is wrong."""
        looks = (
            ("get", "pods", "--all-namespaces", "--output=wide"),
            ("get", "events", "--all-namespaces", "--sort-by=.lastTimestamp"),
            *(("logs", f"deployment/{RELEASE}-{name}", f"-n{NAMESPACE}", "--tail=30") for name in DEPLOYMENTS),
        )
        told = []
        for look in looks:
            try:
                said = self.kubectl(*look)
            except SiteError as error:
                said = str(error)
            told.append(f"$ kubectl {' '.join(look)}\n{said[-6000:]}")
        return "\n".join(told)


def leaving(pod):
    """Whether a pod has been deleted and only ends."""
    return "deletionTimestamp" in pod["metadata"]


def run(program, *arguments, content=None, environment=None):
    """Output of a command that must succeed."""
    command = [str(part) for part in (program, *arguments)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        input=content or "",
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise SiteError(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return done.stdout
