"""The webhook: two presets, one pod created through the API server, and the environment it got."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from tools.paths import ROOT
from tools.process import free_ports

if TYPE_CHECKING:
    from tools.demo.stage import Stage

EXAMPLES = Path("examples") / "podpreset"
CONFIGURATION = Path("deploy") / "webhook" / "podpreset.yaml"
METRICS = ("groundwork_podpreset_injections_total", "groundwork_webhook_requests_total")


def play(stage: Stage) -> None:
    """Show what a pod gets."""
    stage.title("The webhook, with a certificate that it makes itself")
    (port,) = free_ports(1)
    configuration = yaml.safe_load((ROOT / CONFIGURATION).read_text(encoding="utf-8"))
    name = configuration["metadata"]["name"]
    for webhook in configuration["webhooks"]:
        # In a cluster it is a Service; here the API server and the webhook are processes of one machine.
        webhook["clientConfig"] = {"url": f"https://127.0.0.1:{port}/mutate"}
    stage.cluster.apply(configuration)
    webhook = stage.start(
        "services.podpreset",
        f"--webhook-address=127.0.0.1:{port}",
        "--cert-secret=podpreset-certificate",
        "--cert-name=127.0.0.1",
        f"--webhook-configuration={name}",
    )
    bundle = "jsonpath={.webhooks[0].clientConfig.caBundle}"
    stage.wait(bundle, f"mutatingwebhookconfiguration/{name}")

    stage.title("The cluster's proxy settings, a team's own, and a pod with one entry in no_proxy")
    stage.kubectl("apply", "-f", str(EXAMPLES / "proxy.yaml"))
    stage.wait("condition=Ready", "clusterpodpreset/proxy", "podpreset/registry")
    stage.kubectl("create", "-f", str(EXAMPLES / "pod.yaml"))
    each = '{range .spec.containers[0].env[*]}{.name}={.value}{"\\n"}{end}'
    environment = stage.kubectl("get", "pod", "payments", "-o", f"jsonpath={each}")
    stage.promise("no_proxy=ledger.internal,localhost," in environment, "the pod keeps its own entry first")
    stage.promise("mysql" in environment, "the team's hosts are in the list")
    stage.promise("HTTPS_PROXY=http://payments-proxy.example.org:3128" in environment, "the team's proxy is used")
    stage.kubectl("get", "clusterpodpresets,podpresets")
    webhook.metrics(*METRICS)
