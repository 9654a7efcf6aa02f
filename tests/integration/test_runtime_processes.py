"""Whole webhook processes: several of them on one port, one of them killed, all of them stopped under load."""

import asyncio
import base64
import contextlib
import json
import os
import signal
from pathlib import Path

import aiohttp
import pytest

from services.runtime.kube.connector import Connector
from tests.support.hooks import Balancer, Load, configuration, configured, noted, review
from tests.support.kube import eventually
from tests.support.service import ServiceProcess
from tests.support.toy_webhook import NOTE
from tests.support.waiting import until

PROCESSES = 3


class Toy(ServiceProcess):
    module = "tests.support.toy_webhook"

    @property
    def pid(self):
        return self._daemon.pid

    @property
    def port(self):
        (first, *_) = [record for record in self.records() if record["msg"] == "Serving reviews"]
        return int(first["address"].rpartition(":")[2])

    def ready(self):
        return self._get("/readyz")[0] == 200

    def problems(self):
        return self._get("/readyz?verbose")[1]


def toy(cluster, namespace, folder, *flags):
    folder.mkdir()
    return Toy(
        *(folder, cluster.kubeconfig, "--webhook-address=127.0.0.1:0", f"--lease-namespace={namespace}"),
        *("--cert-secret=hook-certs", f"--webhook-configuration={namespace}", "--cert-name=127.0.0.1"),
        *("--drain-seconds=1", *flags),
    )


def alive(pid):
    """Whether a process runs; one that has ended and waits for its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def pids(port, count):
    """The processes that answer. Each review has a connection of its own: the API server's stay with whom they have."""
    request = {"uid": "u", "kind": {"version": "v1", "kind": "ConfigMap"}, "operation": "CREATE"}
    request |= {"resource": {"version": "v1", "resource": "configmaps"}, "object": {"metadata": {"name": "a"}}}
    content = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
    seen = set()

    async def ask(session):
        async with session.post(f"https://127.0.0.1:{port}/annotate", json=content) as answer:
            patch = json.loads(base64.b64decode((await answer.json())["response"]["patch"]))
            return int(patch[0]["value"][NOTE])

    async def some():
        async with aiohttp.ClientSession(connector=Connector(ssl=False, force_close=True)) as session:
            seen.update(await asyncio.gather(*(ask(session) for _ in range(16))))
        return seen

    return set(await eventually(some, lambda found: len(found) >= count))


def asked(process):
    return process.metric("groundwork_webhook_requests_total", path="/annotate", result="patched")


async def test_processes_share_a_port_survive_each_other_and_end_together(cluster, kube, namespace, tmp_path):
    one = toy(cluster, namespace, tmp_path / "one", f"--processes={PROCESSES}")
    try:
        await asyncio.to_thread(one.start)
        async with configured(kube, configuration(namespace, namespace, one.port)):
            await eventually(lambda: _answered(kube, namespace), noted)
            before = await pids(one.port, PROCESSES)
            assert one.pid in before

            # What each counts is shown as one sum; gauges tell whose they are.
            total = await asyncio.to_thread(asked, one)
            for _ in range(30):
                await review(kube, namespace)
            await until(lambda: asked(one) >= total + 30)
            for number in range(1, PROCESSES):
                assert one.metric("process_resident_memory_bytes", process=str(number)) > 1_000_000
            assert one.metric("groundwork_webhook_request_duration_seconds_count", path="/annotate") == asked(one)

            # One is killed: another takes its place, nothing that was counted is lost.
            total = asked(one)
            victim = min(before - {one.pid})
            os.kill(victim, signal.SIGKILL)
            await until(lambda: not one.ready(), step=0.001)
            await until(one.ready)
            await eventually(lambda: _answered(kube, namespace), noted)
            after = await pids(one.port, PROCESSES)
            assert victim not in after
            assert before - {victim} < after
            assert asked(one) >= total
            assert one.metric("groundwork_process_restarts_total") == 1

            # The first one is killed: nobody is left behind.
            one._daemon.kill()
            await until(lambda: not any(alive(pid) for pid in after))
    finally:
        await asyncio.to_thread(one._daemon.stop)
    mistakes = {record["msg"] for record in one.mistakes()}
    assert mistakes == {"A process has ended, starting another"}
    secrets = [record for record in one.records() if "PRIVATE KEY" in str(record)]
    assert secrets == []


async def _answered(kube, namespace):
    with contextlib.suppress(Exception):
        return await review(kube, namespace)
    return {"metadata": {}}


async def test_a_pod_of_several_processes_is_replaced_under_load_without_a_refused_admission(
    cluster, kube, namespace, tmp_path
):
    async with Balancer() as service, contextlib.AsyncExitStack() as stack:
        pods = [toy(cluster, namespace, tmp_path / name, "--processes=2") for name in ("one", "two")]
        for pod in pods:
            stack.callback(pod.stop)
        await asyncio.gather(*(asyncio.to_thread(pod.start) for pod in pods))
        service.backends = [pods[0].port]
        await stack.enter_async_context(configured(kube, configuration(namespace, namespace, service.port)))
        await eventually(lambda: _answered(kube, namespace), noted)
        async with Load(kube, namespace) as load:
            await load.more(100)
            service.backends = [pod.port for pod in pods]
            os.kill(pods[0].pid, signal.SIGTERM)
            await load.more(40)
            service.backends = [pods[1].port]
            await until(lambda: pods[0].pid is None)
            await load.more(100)
        assert load.refused == []
        for pod in pods:
            await asyncio.to_thread(pod.stop)
            assert pod.mistakes() == []
            stopped = [record for record in pod.records() if record["msg"] == "Stopped"]
            assert [record["code"] for record in stopped] == [0, 0]
            assert {record.get("process") for record in stopped} == {None, 1}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "toy-webhook: a webhook needs --cert-dir, or --cert-secret for certificates of its own"),
        (("--cert-secret=a",), "toy-webhook: --cert-secret needs --webhook-service or --cert-name"),
        (
            ("--cert-secret=a", "--cert-name=not/a/name"),
            "toy-webhook: --cert-name: 'not/a/name' is not valid: expected",
        ),
        (("--webhook-address=256.0.0.1:1", "--processes=2"), "toy-webhook: cannot listen on 256.0.0.1:1"),
    ],
)
async def test_a_webhook_that_cannot_be_configured_is_one_line_and_exit_code_2(cluster, flags, message):
    import sys

    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", Toy.module, f"--kubeconfig={cluster.kubeconfig}", "--bind-address=127.0.0.1:0", *flags),
        stderr=asyncio.subprocess.PIPE,
    )
    _, text = await process.communicate()
    assert process.returncode == 2
    assert text.decode().splitlines()[-1].startswith(message)
