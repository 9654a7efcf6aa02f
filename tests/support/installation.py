"""The chart as it stands in a cluster without nodes: its objects, and what controllers and pods would have added.

Responsible for: putting the rendered chart in place, the status of its Deployments, the Leases of its leaders, and a
real webhook behind its Service.
Invariant: what is changed for a test is put back.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from datetime import UTC, datetime

from tests.support.chart import COMPONENTS, NAMESPACE, render

VALUES = {"machineController": {"enabled": False}}
SERVICES = tuple(name for name in COMPONENTS if name != "machine-controller")
WEBHOOK = "groundwork-podpreset"
CERTIFICATES = f"{WEBHOOK}-certificates"
PATIENCE_SECONDS = 12
"""What the API server gives the webhook: more than users want, so that a machine under load changes nothing."""


def lease(component, renewed=None):
    moment = (renewed or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": f"groundwork-{component}", "namespace": NAMESPACE},
        "spec": {"holderIdentity": f"{component}-0", "leaseDurationSeconds": 15, "renewTime": moment},
    }


def deployment(name, namespace, image, **labels):
    """A Deployment of somebody else."""
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "manager", "image": image}]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {"selector": {"matchLabels": labels}, "template": template},
    }


class Installation:
    """The chart in one cluster."""

    def __init__(self, cluster, port):
        """`port` is where the webhook listens on this machine."""
        self.cluster = cluster
        self._port = port

    def install(self):
        """Put everything in place but the webhook's process."""
        space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
        objects = [
            obj
            for obj in render(VALUES).objects
            if obj["kind"] != "CustomResourceDefinition"
            and "helm.sh/hook" not in obj["metadata"].get("annotations", {})
        ]
        for obj in objects:
            if obj["kind"] == "Service" and obj["metadata"]["name"] == WEBHOOK:
                # There is no kube-proxy, so the API server is led to this machine by a name.
                obj["spec"] = {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": self._port}]}
            for hook in obj.get("webhooks", ()):
                hook["clientConfig"]["service"]["port"] = self._port
                hook["timeoutSeconds"] = PATIENCE_SECONDS
        self.cluster.apply(space)
        self.cluster.apply(*objects, *(lease(component) for component in SERVICES))
        for component in SERVICES:
            self.scale(f"groundwork-{component}", NAMESPACE, 2)

    def scale(self, name, namespace, available):
        """Say what the Deployment's controller would."""
        status = {"replicas": 2, "readyReplicas": available, "availableReplicas": available}
        patch = json.dumps({"status": status})
        self.cluster.kubectl(
            *("patch", "deployment", name, f"--namespace={namespace}", "--subresource=status"),
            *("--type=merge", f"--patch={patch}"),
        )

    def renew(self):
        """Renew the Leases, as their leaders do all the time."""
        self.cluster.apply(*(lease(component) for component in SERVICES))

    def get(self, *where):
        return json.loads(self.cluster.kubectl("get", *where, "--output=json"))

    @contextmanager
    def changed(self, *where, change):
        """An object with a change to it, a function of its JSON; it is put back as it was."""
        before = self.get(*where)
        changed = json.loads(json.dumps(before))
        change(changed)
        self._replace(changed)
        try:
            yield
        finally:
            if before["kind"] == "CustomResourceDefinition":
                # A version that was stored once cannot go before this says that nothing is stored as it.
                status = json.dumps({"status": {"storedVersions": before["status"]["storedVersions"]}})
                self.cluster.kubectl("patch", *where, "--subresource=status", "--type=merge", f"--patch={status}")
            self._replace(before)

    @contextmanager
    def without(self, *where):
        """The cluster without an object."""
        before = self.get(*where)
        self.cluster.kubectl("delete", *where)
        try:
            yield
        finally:
            self._restore(before)

    @contextmanager
    def also(self, *objects, available=None):
        """The cluster with objects more; Deployments among them have so many pods."""
        self.cluster.apply(*objects)
        try:
            for obj in objects:
                if obj["kind"] == "Deployment" and available is not None:
                    self.scale(obj["metadata"]["name"], obj["metadata"]["namespace"], available)
            yield
        finally:
            for obj in reversed(objects):
                self.cluster.kubectl("delete", "--filename=-", input=json.dumps(obj))

    def _replace(self, obj):
        obj["metadata"].pop("resourceVersion", None)
        self.cluster.kubectl("replace", "--filename=-", input=json.dumps(obj))

    def _restore(self, obj):
        for field in ("uid", "resourceVersion", "creationTimestamp", "managedFields", "generation"):
            obj["metadata"].pop(field, None)
        self.cluster.kubectl("create", "--filename=-", input=json.dumps(obj))
