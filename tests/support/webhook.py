"""The pod preset webhook as a process, and the API server told of it.

Responsible for: its certificate, its port, its MutatingWebhookConfiguration (deploy/webhook's, pointed at the loopback
and at the namespaces of one test module), and who may do what.
Invariants: a configuration never outlives the `with` it was made in: with nobody behind it, it would slow down or break
the pods of every other test.
"""

from __future__ import annotations

import base64
import json
import ssl
import urllib.error
import urllib.request
import uuid
from contextlib import contextmanager
from pathlib import Path

import yaml

from tests.support.service import ServiceProcess
from tests.support.waiting import blocking_until
from tools.pki import Pki
from tools.process import free_ports

ROOT = Path(__file__).resolve().parents[2]
CONFIGURATION = ROOT / "deploy" / "webhook" / "podpreset.yaml"
SCOPE_LABEL = "groundwork-test-scope"
PATH = "/mutate"
PERIOD = "200ms"

_FOLLOW = ["list", "watch"]
RULES = [
    {
        "apiGroups": ["reach.spectrocloud.com"],
        "resources": ["clusterpodpresets", "podpresets"],
        "verbs": _FOLLOW,
    },
    {
        "apiGroups": ["reach.spectrocloud.com"],
        "resources": ["clusterpodpresets/status", "podpresets/status"],
        "verbs": ["patch"],
    },
    {"apiGroups": [""], "resources": ["namespaces", "nodes", "pods"], "verbs": _FOLLOW},
    {"apiGroups": [""], "resources": ["services"], "resourceNames": ["kubernetes"], "verbs": _FOLLOW},
    {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": _FOLLOW},
    {"apiGroups": ["networking.k8s.io"], "resources": ["servicecidrs"], "verbs": _FOLLOW},
    {"apiGroups": ["apiextensions.k8s.io"], "resources": ["customresourcedefinitions"], "verbs": _FOLLOW},
    {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]},
    {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update"]},
]
"""All that the service may do, and needs; docs/reference/rbac.md shows them too."""
CERTIFICATE_RULES = [
    {"apiGroups": [""], "resources": ["secrets"], "verbs": ["create"]},
    {
        "apiGroups": [""],
        "resources": ["secrets"],
        "resourceNames": ["groundwork-podpreset-certificates"],
        "verbs": ["get", "list", "watch", "update"],
    },
    {
        "apiGroups": ["admissionregistration.k8s.io"],
        "resources": ["mutatingwebhookconfigurations"],
        "resourceNames": ["groundwork-podpreset"],
        "verbs": ["list", "watch", "patch"],
    },
]
"""What it needs besides for certificates that it makes itself; those of the Secret in its own namespace alone."""


class Webhook(ServiceProcess):
    """`python -m services.podpreset` on a port that stays the same.

    Its certificate is in a folder, unless `certificates` is false and flags say otherwise.
    """

    module = "services.podpreset"

    def __init__(self, folder, kubeconfig, *flags, certificates=True):
        pki = Pki(folder / "pki")
        pair = pki.server("webhook", ["localhost"], ["127.0.0.1"])
        mounted = folder / "tls"
        mounted.mkdir(exist_ok=True)
        (mounted / "tls.crt").write_bytes(pair.certificate.read_bytes())
        (mounted / "tls.key").write_bytes(pair.key.read_bytes())
        self.port = free_ports(1)[0]
        self.ca = pki.ca.certificate
        super().__init__(
            folder,
            kubeconfig,
            f"--webhook-address=127.0.0.1:{self.port}",
            *([f"--cert-dir={mounted}"] if certificates else []),
            f"--status-period={PERIOD}",
            "--drain-seconds=0",
            *flags,
        )

    @property
    def url(self):
        return f"https://127.0.0.1:{self.port}{PATH}"

    def post(self, body, content_type="application/json", *, path=PATH):
        """Send bytes to the webhook itself; (status, body of the answer)."""
        request = urllib.request.Request(
            f"https://127.0.0.1:{self.port}{path}", data=body, headers={"Content-Type": content_type}, method="POST"
        )
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}),
            urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=self.ca)),
        )
        try:
            with opener.open(request, timeout=30) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def review(self, pod, *, namespace="default", operation="CREATE", **request):
        """Send a review of a pod to the webhook itself; the response of the answer."""
        content = {
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "request": {
                "uid": str(uuid.uuid4()),
                "kind": {"group": "", "version": "v1", "kind": "Pod"},
                "resource": {"group": "", "version": "v1", "resource": "pods"},
                "namespace": namespace,
                "operation": operation,
                "object": pod,
                **request,
            },
        }
        status, body = self.post(json.dumps(content).encode())
        assert status == 200, body
        response = json.loads(body)["response"]
        assert response["uid"] == content["request"]["uid"]
        return response

    @contextmanager
    def registered(self, cluster, scope, **changes):
        """Let the API server ask the webhook about pods of the namespaces with the label `scope`."""
        name = f"groundwork-test-{scope}"
        probe = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {SCOPE_LABEL: scope}}}
        cluster.apply(probe, self.configuration(scope, name, **changes))
        try:
            blocking_until(lambda: self._asked(cluster, name), why="the API server does not ask the webhook")
            yield name
        finally:
            cluster.kubectl("delete", "mutatingwebhookconfiguration", name, "--ignore-not-found")

    def _asked(self, cluster, namespace):
        """Whether the API server asks about a pod: it takes a moment until it goes by a new configuration."""
        before = self.metric("groundwork_webhook_requests_total")
        cluster.kubectl("run", "probe", "--image=probe", "--dry-run=server", f"--namespace={namespace}")
        return self.metric("groundwork_webhook_requests_total") > before

    def configuration(self, scope, name, **changes):
        """The configuration that users get, pointed here; `changes` are made to its webhook."""
        made = yaml.safe_load(CONFIGURATION.read_text())
        made["metadata"]["name"] = name
        (hook,) = made["webhooks"]
        ca = base64.b64encode(self.ca.read_bytes()).decode()
        hook["clientConfig"] = {"url": self.url, "caBundle": ca}
        hook["namespaceSelector"].setdefault("matchLabels", {})[SCOPE_LABEL] = scope
        # The API server of a loaded machine must not give up where that is not what a test is about.
        hook["timeoutSeconds"] = 30
        hook["failurePolicy"] = "Fail"
        hook.update(changes)
        return made
