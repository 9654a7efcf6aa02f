"""Whole processes of a small service against a real API server: start, stop, handover, and being stopped by force."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml

from tests.support.waiting import blocking_until

ROOT = Path(__file__).resolve().parents[2]
SHORT = ("--lease-duration=4s", "--renew-deadline=2500ms", "--retry-period=500ms")


class Service:
    """One process; its log lines are read from a file, so that it never waits for us."""

    def __init__(self, folder, number, arguments, environment):
        self.log_path = folder / f"log-{number}"
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.ticking_service", *arguments],
                cwd=ROOT,
                env=environment,
                stdout=log,
                stderr=log,
            )

    @property
    def pid(self):
        return self.process.pid

    @property
    def text(self):
        return self.log_path.read_text()

    @property
    def records(self):
        lines = self.text.splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def logged(self, message):
        return [record for record in self.records if record["msg"] == message]

    def wait_logged(self, message):
        def found():
            assert self.process.poll() is None or self.logged(message), self.text
            return self.logged(message)

        return blocking_until(found, why=f"{message!r} was not logged")[0]

    def wait_leading(self):
        return self.wait_logged("Became the leader")

    @property
    def port(self):
        address = self.wait_logged("Serving probes and metrics")["address"]
        return int(address.rpartition(":")[2])

    def get(self, path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def send(self, number):
        os.kill(self.pid, number)

    def wait(self):
        return self.process.wait(60)


@pytest.fixture
def clean_environment():
    """The environment without anything that configures a service."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("GROUNDWORK_", "KUBE"))}


@pytest.fixture
def service(cluster, namespace, tmp_path, clean_environment):
    """Start a process: service(*more_arguments, kubeconfig=...)."""
    started = []

    def start(*arguments, kubeconfig=cluster.kubeconfig):
        common = (
            f"--kubeconfig={kubeconfig}",
            f"--namespace={namespace}",
            f"--lease-namespace={namespace}",
            "--bind-address=127.0.0.1:0",
        )
        process = Service(tmp_path, len(started), (*common, *arguments), clean_environment)
        started.append(process)
        return process

    cluster.kubectl("create", "configmap", "ticker", f"--namespace={namespace}")
    yield start
    for process in started:
        if process.process.poll() is None:
            process.send(signal.SIGCONT)
            process.process.kill()
        process.process.wait()


def holder(cluster, namespace):
    path = "--output=jsonpath={.spec.holderIdentity}"
    return cluster.kubectl("get", "lease", "ticking", f"--namespace={namespace}", path)


def ticker(cluster, namespace, name="ticker"):
    found = json.loads(cluster.kubectl("get", "configmap", name, f"--namespace={namespace}", "--output=json"))
    return found["metadata"].get("annotations", {})


@pytest.mark.parametrize("loop", ["--no-uvloop", "--uvloop"])
def test_a_service_starts_works_and_stops_with_its_lease_released(cluster, namespace, service, loop):
    one = service(loop)
    one.wait_leading()
    blocking_until(lambda: int(ticker(cluster, namespace).get("count", 0)) > 5)
    assert one.get("/livez") == (200, "ok")
    assert one.get("/readyz") == (200, "ok")
    assert "[+]cache configmaps ok" in one.get("/readyz?verbose")[1]
    _, text = one.get("/metrics")
    assert 'leader_election_master_status{name="ticking"} 1.0' in text
    assert 'controller_runtime_reconcile_total{controller="ticker",result="requeue_after"}' in text
    assert holder(cluster, namespace)

    one.send(signal.SIGTERM)
    assert one.wait() == 0
    assert holder(cluster, namespace) == ""
    messages = [record["msg"] for record in one.records]
    assert messages[0] == "Starting"
    assert messages[-3:] == ["Stopping", "Stopped", "Released the lease"]
    assert not [record for record in one.records if record["level"] in {"warning", "error"}], one.text
    assert one.logged("Refused a write"), "the guard refuses writes before the Lease is won"


def test_without_leader_election_there_is_no_lease(cluster, namespace, service):
    one = service("--no-leader-election")
    blocking_until(lambda: int(ticker(cluster, namespace).get("count", 0)) > 2)
    assert "ticking" not in cluster.kubectl("get", "lease", f"--namespace={namespace}", "--output=name")
    one.send(signal.SIGINT)
    assert one.wait() == 0


def test_a_rolling_update_hands_the_work_over_and_loses_no_tick(cluster, namespace, service):
    one = service()
    one.wait_leading()
    two = service()
    two.wait_logged("The lease is held by another process")
    assert two.get("/readyz") == (200, "ok"), "a replica that stands by is ready, or a rolling update would hang"
    blocking_until(lambda: ticker(cluster, namespace).get("writer") == str(one.pid))
    one.send(signal.SIGTERM)
    assert one.wait() == 0
    before = int(ticker(cluster, namespace)["count"])
    two.wait_leading()
    blocking_until(lambda: ticker(cluster, namespace).get("writer") == str(two.pid))
    assert int(ticker(cluster, namespace)["count"]) > before


def test_what_runs_when_the_signal_comes_is_finished_under_the_lease(cluster, namespace, service):
    one = service()
    one.wait_leading()
    manifest = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "nap", "namespace": namespace, "labels": {"sleep": "2"}},
    }
    cluster.apply(manifest)
    one.wait_logged("Sleeping")
    one.send(signal.SIGTERM)
    one.wait_logged("Stopping")
    assert one.get("/readyz")[0] == 500
    assert one.wait() == 0
    assert ticker(cluster, namespace, "nap").get("done") == "yes"
    assert holder(cluster, namespace) == ""


def test_a_leader_that_was_stopped_past_its_lease_writes_nothing_when_it_goes_on(cluster, namespace, service):
    one, two = service(*SHORT), None
    one.wait_leading()
    two = service(*SHORT)
    two.wait_logged("The lease is held by another process")
    blocking_until(lambda: ticker(cluster, namespace).get("writer") == str(one.pid))
    one.send(signal.SIGSTOP)
    two.wait_leading()
    blocking_until(lambda: ticker(cluster, namespace).get("writer") == str(two.pid))

    watching = subprocess.Popen(
        [
            *(str(cluster._kubectl), f"--kubeconfig={cluster.kubeconfig}", "get", "configmap", "ticker"),
            *(f"--namespace={namespace}", "--watch", "--output=jsonpath={.metadata.annotations.writer}{'\\n'}"),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert watching.stdout.readline().strip() == str(two.pid)
        one.send(signal.SIGCONT)
        assert one.wait() == 1
        time.sleep(0.5)
    finally:
        watching.terminate()
        writers = set(watching.communicate()[0].split())
    assert writers == {str(two.pid)}
    assert one.logged("Leadership is lost")
    assert two.process.poll() is None
    assert holder(cluster, namespace) == two.wait_leading()["identity"]


def test_a_process_without_an_api_server_lives_says_what_is_missing_and_stops_when_told(cluster, service, tmp_path):
    content = yaml.safe_load(cluster.kubeconfig.read_text())
    content["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    nowhere = tmp_path / "nowhere"
    nowhere.write_text(yaml.safe_dump(content))
    one = service(kubeconfig=nowhere)
    assert one.get("/livez") == (200, "ok")
    status, text = one.get("/readyz")
    assert status == 500
    assert "[-]cache configmaps failed: not synced" in text
    waiting = one.wait_logged("Waiting for caches")
    assert waiting["missing"] == ["configmaps"]
    one.send(signal.SIGTERM)
    assert one.wait() == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workers=none"], "ticking: --workers: 'none' is not valid: expected a whole number from 1 to 1000"),
        (["--nonsense"], "ticking: unrecognized arguments: --nonsense"),
        (["--lease-duration=5s"], "ticking: leader election needs lease duration > renew deadline"),
    ],
)
def test_a_bad_setting_is_one_line_and_exit_code_2(service, arguments, message):
    one = service(*arguments)
    assert one.wait() == 2
    last = one.text.splitlines()[-1]
    assert last.startswith(message)
    assert "Traceback" not in one.text


def test_no_cluster_to_talk_to_is_one_line_and_exit_code_2(tmp_path, clean_environment):
    one = Service(tmp_path, 0, ["--namespace=default"], clean_environment)
    assert one.wait() == 2
    (line,) = one.text.splitlines()
    assert line.startswith("ticking: no Kubernetes configuration")


def test_an_address_that_is_taken_is_exit_code_2(service):
    one = service("--no-leader-election")
    two = service("--no-leader-election", f"--bind-address=127.0.0.1:{one.port}")
    assert two.wait() == 2
    (failure,) = (record for record in two.records if record["level"] == "error")
    assert failure["error"].startswith(f"cannot listen on 127.0.0.1:{one.port}")
