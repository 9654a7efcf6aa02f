"""Secrets of all services, planted wherever they read one and looked for in all that they say."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
import yaml

from services.podpreset.api import CLUSTER_POD_PRESETS, POD_PRESETS
from services.runtime.kube.errors import Invalid
from services.runtime.kube.resource import EVENTS
from tests.support.canaries import Canaries, said
from tests.support.presets import PODS, Site, container, env, first, pod
from tests.support.waiting import blocking_until
from tests.support.webhook import Webhook
from tools.process import Daemon

SERVICES = ("ipam", "capv_integrator", "podpreset", "machine_controller")
FLAGS = {"podpreset": ("--webhook-address=127.0.0.1:0", "--cert-dir=/nonexistent")}


# -- what a service signs in with --------------------------------------------------------------------------------------


def kubeconfig(folder, cluster, user):
    """A kubeconfig for the cluster with another user, and a proxy that is to be ignored."""
    given = yaml.safe_load(Path(cluster.kubeconfig).read_text())
    given["users"] = [{"name": given["users"][0]["name"], "user": user}]
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(given))
    return path


@pytest.mark.parametrize("service", SERVICES)
def test_a_token_that_is_refused_is_in_nothing_that_a_service_says(cluster, tmp_path, service):
    canaries = Canaries()
    path = kubeconfig(tmp_path, cluster, {"token": canaries.new("the token")})
    daemon = Daemon(service, tmp_path)
    command = [sys.executable, "-m", f"services.{service}", f"--kubeconfig={path}", "--bind-address=127.0.0.1:0"]
    daemon.start(
        [*command, "--no-leader-election", "--log-level=debug", *FLAGS.get(service, ())],
        tethered=True,
    )
    try:
        blocking_until(
            lambda: "Unauthorized" in daemon.log.read_text() or daemon.pid is None, why="nobody refuses the token"
        )
    finally:
        daemon.stop()
    log = daemon.log.read_text()
    assert "Unauthorized" in log
    assert canaries.found(log) == {}


BROKEN = {
    "a plugin that answers with something else": 'print(\'{"token": "SECRET\')',
    "a plugin that answers with another kind": 'print(\'{"kind": "SECRET", "status": {"token": "SECRET"}}\')',
    "a plugin that prints and fails": "print('SECRET'); raise SystemExit(1)",
}


@pytest.mark.parametrize("script", BROKEN.values(), ids=BROKEN.keys())
def test_what_a_credential_plugin_prints_is_in_nothing_that_a_service_says(cluster, tmp_path, script):
    canaries = Canaries()
    program = tmp_path / "plugin.py"
    program.write_text(script.replace("SECRET", canaries.new("what the plugin printed")))
    version = "client.authentication.k8s.io/v1"
    plugin = {"apiVersion": version, "command": sys.executable, "args": [str(program)], "interactiveMode": "Never"}
    path = kubeconfig(tmp_path, cluster, {"exec": plugin})
    command = [sys.executable, "-m", "services.ipam", f"--kubeconfig={path}", "--log-level=debug"]
    ended = subprocess.run(
        [*command, "--bind-address=127.0.0.1:0"], capture_output=True, text=True, check=False, timeout=120
    )
    assert ended.returncode != 0
    assert ended.stderr
    assert canaries.found(ended.stdout, ended.stderr) == {}


# -- the webhook -------------------------------------------------------------------------------------------------------


def malformed(canaries):
    """Bodies that are no review, or a review of no pod, each with something secret in it."""

    def review(obj, **request):
        return {
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "request": {"uid": "u", "operation": "CREATE", "resource": {"version": "v1", "resource": "pods"}}
            | {"namespace": "default", "object": obj}
            | request,
        }

    def word():
        return canaries.new("what was sent to the webhook")

    app = container(env=[{"name": "A", "value": word()}])
    bodies = [
        {"kind": word()},
        review(word()),
        review([word()]),
        review({"spec": {"containers": word()}}),
        review({"spec": {"containers": [{"env": word()}]}}),
        review({"spec": {"containers": [{"env": [{"name": 5, "value": word()}]}]}}),
        review({"spec": {"containers": [{"env": [{"name": word(), "value": {"a": word()}}]}]}}),
        review({"metadata": {"annotations": word()}, "spec": {"containers": [app]}}),
        review({"spec": {"containers": [app], "volumes": [{"name": word(), "secret": word()}]}}),
        review({"spec": {"containers": [app]}}, resource=word()),
        review({"spec": {"containers": [app]}}, userInfo={"username": 5, "extra": {"token": [word()]}}),
        review({"spec": {"containers": [app]}}, userInfo={"username": "u", "extra": {"token": [word()]}}),
        review({"spec": {"containers": [app]}}, oldObject={"spec": word()}, operation="UPDATE"),
    ]
    yield from (json.dumps(body).encode() for body in bodies)
    yield b'{"kind": "AdmissionReview", "password": "' + word().encode()
    yield b"\xff\xfe" + word().encode()
    yield b"[" * 5000 + word().encode()


async def test_no_value_of_a_pod_or_preset_and_no_key_is_in_any_log_metric_event_or_status(cluster, kube, tmp_path):
    canaries = Canaries()
    with Webhook.running(tmp_path, cluster.kubeconfig, "--log-level=debug") as webhook:
        webhook.expect_errors("A review failed, answering as configured for failures")
        key = (tmp_path / "tls" / "tls.key").read_text()
        for number, line in enumerate(key.splitlines()[1:-1]):
            if len(line) > 12:
                canaries.plant(f"line {number} of the private key", line)
        scope = uuid.uuid4().hex[:8]
        with webhook.registered(cluster, scope):
            async with Site.made(kube, scope) as site:
                await plant_and_apply(site, canaries)
                for body in malformed(canaries):
                    status, answer = await asyncio.to_thread(webhook.post, body)
                    assert status in {200, 400}
                    assert "patch" not in answer.decode() or status == 200
                # A key that does not fit, and one that is none: told without it.
                (tmp_path / "tls" / "tls.key").write_text(f"-----BEGIN {canaries.new('no key')}-----\n")
                await asyncio.to_thread(
                    blocking_until,
                    lambda: "A certificate cannot be used" in webhook.log(),
                    why="nobody looks at the key",
                )
                metrics = await asyncio.to_thread(webhook._get, "/metrics")
                spoken = await said(kube, [site.namespace, "default"], (EVENTS, POD_PRESETS, CLUSTER_POD_PRESETS))
                pods = await said(kube, [site.namespace], (PODS,))
    log = webhook.log()
    assert "Refused a request that is no review" in log
    assert "differs from that of" in str(spoken), "conflicts are told"
    assert canaries.found(log, str(metrics), *spoken, *pods) == {}


async def plant_and_apply(site, canaries):
    """Presets and pods with something secret wherever text goes; they conflict wherever they can."""

    def word(what):
        return canaries.new(f"{what} of a preset or pod")

    def url():
        return f"http://user:{word('a proxy URL')}@proxy.example:3128"

    for make, name in ((site.cluster_preset, "wide"), (site.preset, "narrow"), (site.preset, "second")):
        await make(
            name,
            env=[
                {"name": "HTTP_PROXY", "value": url()},
                {"name": "HTTPS_PROXY", "value": url()},
                {"name": "PASSWORD", "value": word("a variable")},
            ],
            volumes=[{"name": "v", "hostPath": {"path": f"/{word('a path')}"}}],
            volumeMounts=[{"name": "v", "mountPath": "/v"}],
        )
    twice = [{"name": "v", "hostPath": {"path": f"/{word('a bad path')}"}}] * 2
    with contextlib.suppress(Invalid):  # by the API server or by the webhook: told without what stands there
        await site.preset("broken", env=[{"name": "A", "value": word("a bad variable")}], volumes=twice)
    for number in range(3):
        app = container(
            env=[{"name": name, "value": word("the pod's own variable")} for name in ("HTTP_PROXY", "PASSWORD")],
            args=[word("an argument")],
            volumeMounts=[{"name": "mine", "mountPath": "/v"}],
        )
        own = {"volumes": [{"name": name, "hostPath": {"path": f"/{word('a path')}"}} for name in ("v", "mine")]}
        made = await site.create(pod(f"pod-{number}", containers=[app], **own))
        assert dict(env(first(made)))["PASSWORD"].startswith("canary")
    # The conflicts are written into the presets' status in a moment.
    await asyncio.sleep(1)


def test_the_kubeconfig_of_a_test_is_as_a_service_reads_it(cluster, tmp_path):
    """The control for the tests above: with a good token the same file works."""
    good = cluster.service_account_kubeconfig("default", f"canary-{uuid.uuid4().hex[:8]}", [])
    token = re.search(r"token: (\S+)", good.read_text())[1]
    path = kubeconfig(tmp_path, cluster, {"token": token})
    command = [sys.executable, "-c", "import asyncio, sys; from services.runtime.kube import config"]
    command[-1] += "; print((asyncio.run(config.load(sys.argv[1]))).authorization)"
    ended = subprocess.run([*command, str(path)], capture_output=True, text=True, check=True, timeout=120)
    assert ended.stdout.strip() == f"Bearer {token}"
