"""`groundwork doctor` on a real API server: a sound installation has no errors, and what is broken is found alone."""

from __future__ import annotations

import base64
import json
import os
import signal
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from services import cli
from services.console import FOUND, OK, UNUSABLE
from services.doctor import gather, trial
from services.podpreset.api import HASH_ANNOTATION
from services.runtime import pki
from tests.support import installation
from tests.support.chart import NAMESPACE
from tests.support.installation import CERTIFICATES, WEBHOOK, Installation, deployment, lease
from tests.support.ipam_cli import New, ip_address, ip_claim, namespace, pool
from tests.support.waiting import blocking_until
from tests.support.webhook import Webhook
from tools import capi
from tools.cluster import Cluster

CRDS = Path(__file__).resolve().parents[2] / "deploy" / "crds"
HOOK = ("mutatingwebhookconfiguration", WEBHOOK)
PRESET = {
    "apiVersion": "reach.spectrocloud.com/v1alpha1",
    "kind": "ClusterPodPreset",
    "metadata": {"name": "doctor"},
    "spec": {"env": [{"name": "A", "value": "1"}]},
}
RANGE = {"pools": [{"start": "10.240.0.10", "end": "10.240.0.29"}], "prefix": 24}


@pytest.fixture(scope="module")
def site(control_plane, tmp_path_factory):
    """A sound installation with a pool, a preset and a webhook that works."""
    with Cluster.temporary() as cluster:
        cluster.install_crds(CRDS, *capi.crds())
        flags = [
            *(f"--cert-secret={CERTIFICATES}", f"--webhook-configuration={WEBHOOK}", f"--webhook-service={WEBHOOK}"),
            f"--lease-namespace={NAMESPACE}",
        ]
        webhook = Webhook(tmp_path_factory.mktemp("webhook"), cluster.kubeconfig, *flags, certificates=False)
        made = Installation(cluster, webhook.port)
        made.webhook = webhook
        made.install()
        cluster.apply(namespace("racks"), PRESET, pool("rack", "racks", **RANGE))
        webhook.start()
        try:
            blocking_until(lambda: bundle(made), why="no CA is published")
            yield made
        finally:
            webhook.stop()


def bundle(site):
    return site.get(*HOOK)["webhooks"][0]["clientConfig"].get("caBundle")


@pytest.fixture
def doctor(site, capsys, monkeypatch):
    """Runs the command and gives its exit code and findings; without arguments of its own as JSON."""
    monkeypatch.setattr(gather, "SETTLE_SECONDS", 0.0)
    site.renew()

    def run(*arguments, kubeconfig=None):
        code = cli.main(["doctor", f"--kubeconfig={kubeconfig or site.cluster.kubeconfig}", "-o=json", *arguments])
        answer = json.loads(capsys.readouterr().out)
        return code, answer["findings"]

    return run


def serious(found):
    """What is wrong: (level, check, object), without what the cluster of tests always lacks."""
    return {(f["level"], f["check"], f["object"]) for f in found if f["level"] in {"error", "warning"}}


ALWAYS = {("warning", "capi", "CustomResourceDefinition vspheremachines.infrastructure.cluster.x-k8s.io")}
"""The integrator is installed and CAPV is not."""


def test_a_sound_installation_has_no_errors(site, doctor):
    def settled():
        # The API server goes by a new configuration after a moment.
        return all(item["level"] == "ok" for item in doctor("--only=admission")[1])

    blocking_until(settled, why="the API server does not ask the webhook")
    code, found = doctor()
    assert serious(found) == ALWAYS
    assert code == OK
    ok = {item["check"] for item in found if item["level"] == "ok"}
    assert ok >= {
        *("apiserver", "definitions", "services", "leaders", "rights", "webhook", "certificates", "admission"),
        *("pools", "claims", "ledger", "capi", "providers", "presets"),
    }


def test_the_table_says_what_is_to_be_done_and_sums_up(site, capsys):
    site.renew()
    assert cli.main(["doctor", f"--kubeconfig={site.cluster.kubeconfig}", "--only=capi", "-q"]) == OK
    out = capsys.readouterr().out
    assert "warning  capi          CustomResourceDefinition vspheremachines" in out
    assert "-> clusterctl init --infrastructure vsphere" in out
    assert out.splitlines()[-1].startswith("0 errors, 1 warning, ")
    assert "\nok " not in out


# -- one thing after another ---------------------------------------------------------------------------------------


def without_field(crd):
    spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    del spec["properties"]["preAllocations"]


def with_another_version(crd):
    (version,) = crd["spec"]["versions"]
    crd["spec"]["versions"] = [{**version, "storage": False}, {**version, "name": "v1beta1", "storage": True}]


def without_a_bundle(configuration):
    configuration["webhooks"][0]["clientConfig"]["caBundle"] = ""


def with_a_service_of_pods(service):
    service["spec"] = {"type": "ClusterIP", "ports": [{"port": 443}]}


IPPOOLS = "ippools.ipam.metal3.io"
METAL3 = deployment("ipam-controller-manager", "racks", "quay.io/metal3-io/ip-address-manager:v1.12.0", **{
    "cluster.x-k8s.io/provider": "ipam-metal3"
})  # fmt: skip
SECOND = deployment("other-ipam", "racks", "x", **{
    "app.kubernetes.io/part-of": "groundwork",
    "app.kubernetes.io/component": "ipam",
})  # fmt: skip
BROKEN = {
    "a definition lacks a field": (
        lambda site: site.changed("crd", IPPOOLS, change=without_field),
        {("error", "definitions", f"CustomResourceDefinition {IPPOOLS}")},
        "v1alpha1 spec.preAllocations: the field is missing",
    ),
    "a definition stores another version": (
        lambda site: site.changed("crd", "podpresets.reach.spectrocloud.com", change=with_another_version),
        {("warning", "definitions", "CustomResourceDefinition podpresets.reach.spectrocloud.com")},
        "v1alpha1: the version is not the stored one",
    ),
    "a Role is gone": (
        lambda site: site.without("role", WEBHOOK, f"--namespace={NAMESPACE}"),
        {("error", "rights", f"Deployment {NAMESPACE}/{WEBHOOK}")},
        f"may not get leases.coordination.k8s.io in {NAMESPACE}",
    ),
    "a ClusterRoleBinding is gone": (
        lambda site: site.without("clusterrolebinding", "groundwork-ipam-write"),
        {("error", "rights", f"Deployment {NAMESPACE}/groundwork-ipam")},
        "may not update ippools.ipam.metal3.io",
    ),
    "a Lease is not renewed": (
        lambda site: site.also(lease("capv-integrator", datetime.now(UTC) - timedelta(hours=1))),
        {("error", "leaders", f"Lease {NAMESPACE}/groundwork-capv-integrator")},
        "nobody leads",
    ),
    "pools of two domains overlap": (
        lambda site: site.also(pool("elsewhere", "racks", **RANGE, domain="other")),
        {("warning", "pools", "IPPool racks/elsewhere")},
        "10.240.0.10-10.240.0.29",
    ),
    "a pool has a mistake": (
        lambda site: site.also(pool("odd", "racks", pools=[{"start": "10.241.0.9", "end": "10.241.0.1"}])),
        {("warning", "pools", "IPPool racks/odd")},
        "InvalidSpec",
    ),
    "metal3's allocator runs": (
        lambda site: site.also(METAL3, available=1),
        {("error", "providers", "Deployment racks/ipam-controller-manager")},
        "addresses can be given twice",
    ),
    "there are two allocators": (
        lambda site: site.also(SECOND, available=0),
        {
            ("error", "providers", f"Deployment {NAMESPACE}/groundwork-ipam"),
            ("error", "rights", "Deployment racks/other-ipam"),
            ("error", "services", "Deployment racks/other-ipam"),
        },
        "several allocators",
    ),
    "the webhook's Service has no pods": (
        lambda site: site.changed("service", WEBHOOK, f"--namespace={NAMESPACE}", change=with_a_service_of_pods),
        {("error", "webhook", f"MutatingWebhookConfiguration {WEBHOOK}")},
        "has no endpoint that is ready",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_found_and_nothing_else(site, doctor, name):
    broken, expected, said = BROKEN[name]
    with broken(site):
        # A pod is not tried here: the API server uses a connection that it has, whatever its Service says by now.
        code, found = doctor("--skip=admission")
    assert serious(found) == expected | ALWAYS
    assert code == (FOUND if any(level == "error" for level, _, _ in expected) else OK)
    about = [item for item in found if (item["level"], item["check"], item["object"]) in expected]
    assert any(said in item["what"] for item in about), about
    assert all(item["action"] for item in about)


@pytest.mark.parametrize("field", ["namespaceSelector", "objectSelector"])
def test_what_the_webhook_s_selectors_leave_out_is_no_error(site, doctor, field):
    def select_nothing(configuration):
        configuration["webhooks"][0][field] = {"matchLabels": {"groundwork.test/of": "nobody"}}

    plain = trial.pod("racks")

    def passed_over():
        made = site.cluster.kubectl("create", "--dry-run=server", "-o=json", "-f=-", input=json.dumps(plain))
        return HASH_ANNOTATION not in json.loads(made)["metadata"].get("annotations", {})

    with site.changed(*HOOK, change=select_nothing):
        # The API server goes by a new configuration after a moment.
        blocking_until(passed_over, why="the webhook is asked in spite of its selector")
        with site.also(plain):
            code, found = doctor("--only=admission", "--only=presets")
    blocking_until(lambda: not passed_over(), why="the webhook is not asked again")
    assert serious(found) == set()
    assert code == OK


def test_a_deployment_without_pods_is_found(site, doctor):
    site.scale("groundwork-ipam", NAMESPACE, 0)
    try:
        _, found = doctor("--only=services", "--only=leaders")
    finally:
        site.scale("groundwork-ipam", NAMESPACE, 2)
    assert serious(found) == {("error", "services", f"Deployment {NAMESPACE}/groundwork-ipam")}


@contextmanager
def suspended(site):
    """The webhook's process stands still, so that it cannot put right what is broken."""
    os.kill(site.webhook.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(site.webhook.pid, signal.SIGCONT)


@contextmanager
def stopped(site):
    """The webhook's process is gone."""
    site.webhook.stop()
    try:
        yield
    finally:
        site.webhook.start()


def expired(secret):
    authority = pki.Pair(*(base64.b64decode(secret["data"][name]) for name in ("ca.crt", "ca.key")))
    name = f"{WEBHOOK}.{NAMESPACE}.svc"
    leaf = pki.issue(authority, [name], datetime.now(UTC) - timedelta(days=2), timedelta(days=1))
    secret["data"]["tls.crt"] = base64.b64encode(leaf.certificate).decode()


def of_another_authority(secret):
    authority = pki.make_authority("other", datetime.now(UTC), timedelta(days=100))
    leaf = pki.issue(authority, ["elsewhere.svc"], datetime.now(UTC), timedelta(days=50))
    secret["data"]["tls.crt"] = base64.b64encode(leaf.certificate).decode()


SECRET = ("secret", CERTIFICATES, f"--namespace={NAMESPACE}")
ABOUT_TRUST = ("--only=webhook", "--only=certificates")


@pytest.mark.parametrize(
    ("where", "change", "expected", "said"),
    [
        (SECRET, expired, [("error", "certificates", f"Secret {NAMESPACE}/{CERTIFICATES}")], ["has expired"]),
        (
            SECRET,
            of_another_authority,
            [("error", "certificates", f"Secret {NAMESPACE}/{CERTIFICATES}")],
            [f"is not for {WEBHOOK}.{NAMESPACE}.svc", "is from no CA in the caBundle"],
        ),
        (HOOK, without_a_bundle, [("error", "webhook", f"MutatingWebhookConfiguration {WEBHOOK}")], ["is empty"]),
    ],
)
def test_trust_that_is_broken_is_found(site, doctor, where, change, expected, said):
    with suspended(site), site.changed(*where, change=change):
        code, found = doctor(*ABOUT_TRUST)
    assert serious(found) == set(expected)
    assert code == FOUND
    text = " ".join(item["what"] for item in found)
    assert all(part in text for part in said)


def test_a_webhook_that_does_not_answer_is_found_though_pods_are_let_in(site, doctor):
    with stopped(site):
        code, found = doctor("--only=admission")
    assert serious(found) == {("error", "admission", "Namespace default")}
    assert "is created without what ClusterPodPreset doctor gives" in found[0]["what"]
    assert code == FOUND
    assert doctor("--only=admission")[0] == OK


def test_without_a_preset_the_count_of_the_api_server_tells_that_the_webhook_is_passed_over(site, doctor):
    with site.without("clusterpodpreset", "doctor"):
        assert doctor("--only=admission")[0] == OK
        with stopped(site):
            code, found = doctor("--only=admission")
    assert code == FOUND
    assert "without asking the webhook" in found[0]["what"]


def test_an_address_without_a_reservation_is_found_with_the_rules_of_verify(site, doctor):
    claim = ip_claim("held", "racks", {"name": "rack"}, finalizers=["ipclaim.ipam.metal3.io"])
    address = ip_address("rack-10-240-0-10", "racks", "held", "10.240.0.10", "rack")
    address["metadata"]["finalizers"] = ["ipaddress.ipam.metal3.io"]
    undo = [
        New(claim | {"status": {"address": {"name": "rack-10-240-0-10", "namespace": "racks"}}}).carry_out(
            site.cluster
        ),
        New(address).carry_out(site.cluster),
    ]
    try:
        code, found = doctor("--only=ledger")
    finally:
        for where in (("ipaddress.ipam.metal3.io", "rack-10-240-0-10"), ("ipclaim.ipam.metal3.io", "held")):
            patch = '--patch={"metadata":{"finalizers":null}}'
            site.cluster.kubectl("patch", *where, "--namespace=racks", "--type=merge", patch)
        for step in undo:
            step()
    assert code == FOUND
    assert serious(found) == {("error", "ledger", "IPAddress racks/rack-10-240-0-10 (ipam.metal3.io)")}
    assert found[0]["what"].startswith("ReservationMissing: ")


# -- what cannot be read -------------------------------------------------------------------------------------------


def test_what_may_not_be_read_is_a_finding_and_the_rest_is_checked(site, doctor):
    rules = [
        {"apiGroups": ["ipam.metal3.io", "ipam.groundwork.dev"], "resources": ["*"], "verbs": ["list"]},
        {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["list"]},
    ]
    kubeconfig = site.cluster.service_account_kubeconfig("viewers", "viewer", rules)
    code, found = doctor(kubeconfig=kubeconfig)
    assert code == OK
    checks = {item["check"] for item in found if item["level"] == "ok"}
    assert {"pools", "services"} <= checks
    denied = {item["object"] for item in found if item["check"] == "access"}
    assert {
        "customresourcedefinitions.v1.apiextensions.k8s.io",
        "mutatingwebhookconfigurations.v1.admissionregistration.k8s.io",
        "leases.v1.coordination.k8s.io",
        "subjectaccessreviews.authorization.k8s.io",
        "pods.v1",
    } <= denied
    assert all(item["level"] == "warning" for item in found if item["check"] == "access")


def test_a_list_that_is_too_long_is_counted_and_not_read(site, doctor):
    more = [pool(f"many-{place}", "racks", pools=[{"subnet": f"10.242.{place}.0/24"}]) for place in range(3)]
    with site.also(*more):
        code, found = doctor("--only=pools", "--limit=3")
    assert code == OK
    assert [(item["level"], item["check"], item["object"]) for item in found] == [
        ("info", "pools", ""),
        ("info", "access", "ippools.v1alpha1.ipam.metal3.io"),
    ]
    assert "there are 4, more than --limit 3" in found[1]["what"]


def test_a_cluster_without_anything_of_ours_is_told_apart_from_a_broken_one(site, doctor):
    assert installation.SERVICES
    with site.without("deployment", "groundwork-ipam", f"--namespace={NAMESPACE}"):
        _, found = doctor("--only=services", "--only=leaders")
    assert {item["level"] for item in found} == {"ok"}
    site.scale("groundwork-ipam", NAMESPACE, 2)


def test_a_cluster_that_cannot_be_reached_is_one_line_and_exit_code_2(site, tmp_path, capsys):
    config = yaml.safe_load(site.cluster.kubeconfig.read_text())
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    assert cli.main(["doctor", f"--kubeconfig={path}"]) == UNUSABLE
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "cannot reach the API server" in err
