"""The local cluster itself: what tests of everything else take for granted."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tools import binaries, capi
from tools.cluster import Cluster, KubectlError, sweep
from tools.process import Daemon, ProcessError, free_ports, start_time

ROOT = Path(__file__).resolve().parents[2]
CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"


@pytest.fixture(scope="module")
def own(control_plane):
    """A cluster of this module's own, since its tests restart it."""
    with Cluster.temporary() as cluster:
        yield cluster


def version_of(cluster, name):
    return json.loads(cluster.kubectl("get", "--raw", f"{CONFIG_MAPS}/{name}"))["metadata"]["resourceVersion"]


def watch(cluster, resource_version):
    """What a watch from `resource_version` sends within a second."""
    rows = cluster.kubectl("get", "--raw", f"{CONFIG_MAPS}?watch=1&timeoutSeconds=1&resourceVersion={resource_version}")
    return [json.loads(row) for row in rows.splitlines() if row]


def codes(rows):
    return [row["object"].get("code") for row in rows if row["type"] == "ERROR"]


@pytest.mark.parametrize("end", ["stop_apiserver", "kill_apiserver"])
def test_an_api_server_that_went_away_comes_back_at_its_address_with_its_data(own, end):
    own.kubectl("create", "configmap", end.replace("_", "-"))
    before = own.url, own.kubeconfig.read_text()
    getattr(own, end)()
    with pytest.raises(KubectlError, match="refused"):
        own.kubectl("get", "configmaps")
    own.start_apiserver()
    assert (own.url, own.kubeconfig.read_text()) == before
    assert version_of(own, end.replace("_", "-"))


@pytest.mark.parametrize("end", ["stop_etcd", "kill_etcd"])
def test_an_etcd_that_went_away_comes_back_with_its_data(own, end):
    own.kubectl("create", "configmap", end.replace("_", "-"))
    getattr(own, end)()
    assert not own.running
    own.start_etcd()
    own.apiserver.daemon.wait_ready(own.apiserver.ready, timeout=60)
    assert version_of(own, end.replace("_", "-"))


def test_a_watch_from_before_a_compaction_is_answered_410(own):
    own.kill_apiserver()
    own.start_apiserver(args=["--watch-cache=false"])
    try:
        own.kubectl("create", "configmap", "old")
        old = version_of(own, "old")
        own.kubectl("create", "configmap", "newer")
        assert [row["object"]["metadata"]["name"] for row in watch(own, old)] == ["newer"]
        own.kubectl("create", "configmap", "newest")  # etcd keeps the very revision that it compacts at
        assert own.compact_etcd() > int(old) + 1
        assert codes(watch(own, old)) == [410]
    finally:
        own.kill_apiserver()
        own.start_apiserver(args=[])


def test_expired_watches_are_answered_410_although_the_api_server_caches_its_history(own):
    own.kubectl("create", "configmap", "cached")
    old = version_of(own, "cached")
    own.kubectl("create", "configmap", "cached-too")
    own.compact_etcd()
    assert codes(watch(own, old)) == []
    own.expire_watches()
    assert codes(watch(own, old)) == [410]
    now = json.loads(own.kubectl("get", "--raw", CONFIG_MAPS))["metadata"]["resourceVersion"]
    assert codes(watch(own, now)) == []


def refusal(cluster, kubeconfig, verb, resource, namespace):
    """What the API server says to an attempt of the kubeconfig's user, or nothing when it is allowed."""
    try:
        cluster.kubectl(verb, *resource, f"--namespace={namespace}", kubeconfig=kubeconfig)
    except KubectlError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("namespaced", "elsewhere"), [(False, True), (True, False)], ids=["everywhere", "one-namespace"]
)
def test_a_service_account_may_do_what_its_rules_say_and_nothing_else(own, namespaced, elsewhere):
    home = "one" if namespaced else "all"
    kubeconfig = own.service_account_kubeconfig(
        home, "robot", [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}], namespaced=namespaced
    )
    assert kubeconfig.stat().st_mode & 0o077 == 0
    assert own.kubectl("auth", "whoami", "--output=jsonpath={.status.userInfo.username}", kubeconfig=kubeconfig) == (
        f"system:serviceaccount:{home}:robot"
    )
    assert not refusal(own, kubeconfig, "get", ["configmaps"], home)
    assert ("forbidden" in refusal(own, kubeconfig, "get", ["configmaps"], "default")) is not elsewhere
    assert "forbidden" in refusal(own, kubeconfig, "get", ["secrets"], home)
    assert "forbidden" in refusal(own, kubeconfig, "create", ["configmap", "x"], home)


def test_definitions_are_served_as_soon_as_they_are_installed(own, tmp_path):
    own.install_crds(tmp_path)  # an empty folder is no error
    own.install_crds(*capi.crds("ipam.cluster.x-k8s.io", versions=["v1beta1"]))
    served = json.loads(own.kubectl("get", "--raw", "/apis/ipam.cluster.x-k8s.io"))["versions"]
    assert [version["version"] for version in served] == ["v1beta1"]
    own.apply(
        {
            "apiVersion": "ipam.cluster.x-k8s.io/v1beta1",
            "kind": "IPAddressClaim",
            "metadata": {"name": "claim", "namespace": "default"},
            "spec": {"poolRef": {"apiGroup": "ipam.metal3.io", "kind": "IPPool", "name": "pool"}},
        }
    )
    assert "claim" in own.kubectl("get", "ipaddressclaims", "--namespace=default", "--output=name")


@pytest.mark.parametrize(
    ("wanted", "versions"),
    [("nothing.example.org", None), ("ipam.cluster.x-k8s.io", ["v9"])],
    ids=["unknown-group", "unknown-version"],
)
def test_definitions_that_a_release_lacks_are_an_error(wanted, versions):
    with pytest.raises(KeyError):
        capi.crds(wanted, versions=versions)


def test_definitions_of_the_vsphere_provider_come_without_conversion():
    (machines,) = capi.crds("vspheremachines.infrastructure.cluster.x-k8s.io")
    assert {version["name"] for version in machines["spec"]["versions"]} >= {"v1beta1", "v1beta2"}
    assert "conversion" not in machines["spec"]


def test_a_temporary_cluster_leaves_nothing_behind(control_plane):
    with Cluster.temporary() as cluster:
        pids = [cluster.etcd.daemon.pid, cluster.apiserver.daemon.pid]
        assert all(start_time(pid) for pid in pids)
    assert [start_time(pid) for pid in pids] == [None, None]
    assert not cluster.folder.exists()


def test_what_a_killed_owner_left_behind_is_swept_and_a_living_ones_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folders = {name: tmp_path / f"groundwork-cluster-{name}" for name in ("orphaned", "owned", "young")}
    for name, folder in folders.items():
        folder.mkdir()
        (folder / ".owner").touch()
        if name != "young":
            os.utime(folder, (0, 0))
    with (folders["owned"] / ".owner").open() as owner:
        fcntl.flock(owner, fcntl.LOCK_EX)
        sweep()
    assert {name: folder.exists() for name, folder in folders.items()} == {
        "orphaned": False,
        "owned": True,
        "young": True,
    }


def test_a_start_that_fails_shows_the_end_of_the_log_and_leaves_nothing_running(control_plane, tmp_path):
    with pytest.raises(ProcessError, match="unknown flag: --no-such-flag"):
        Cluster.create(tmp_path, apiserver_args=["--no-such-flag"])
    assert [Daemon(name, tmp_path).pid for name in ("etcd", "kube-apiserver")] == [None, None]


@pytest.mark.parametrize("taken", [0, 1], ids=["api-server", "etcd"])
def test_a_port_that_was_taken_meanwhile_is_replaced_by_another(control_plane, tmp_path, monkeypatch, taken):
    with socket.create_server(("127.0.0.1", free_ports(1)[0])) as thief:
        lost = free_ports(3)
        lost[taken] = thief.getsockname()[1]
        choices = [lost]
        monkeypatch.setattr("tools.cluster.free_ports", lambda count: choices.pop() if choices else free_ports(count))
        cluster = Cluster.create(tmp_path, tethered=True)
        try:
            assert cluster.running
            assert cluster.url != f"https://127.0.0.1:{lost[0]}"
        finally:
            cluster.remove()
    assert not tmp_path.exists()


def test_a_tethered_program_dies_with_a_starter_that_is_killed(tmp_path):
    script = (
        "import signal, sys, threading\n"
        "from pathlib import Path\n"
        "from tools.process import Daemon\n"
        "daemon = Daemon('sleeper', Path(sys.argv[1]))\n"
        # Started from a thread that ends at once: that must not end the program, only the end of the process must.
        "starter = threading.Thread(target=lambda: daemon.start([sys.argv[2], '600'], tethered=True))\n"
        "starter.start(); starter.join()\n"
        "print('started', flush=True)\n"
        "signal.pause()\n"
    )
    arguments = [sys.executable, "-c", script, str(tmp_path), shutil.which("sleep")]
    with subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout.readline() == "started\n"
        sleeper = Daemon("sleeper", tmp_path)
        pid = sleeper.pid
        assert pid is not None
        starter.kill()
    while sleeper.pid is not None:  # the test's own time limit ends this loop if the tether does not hold
        time.sleep(0.01)


def test_a_named_cluster_goes_up_and_down_from_the_command_line(control_plane, tmp_path):
    environment = {
        **os.environ,
        "XDG_CACHE_HOME": str(tmp_path),
        "KUBEBUILDER_ASSETS": str(binaries.folder(*binaries.CLUSTER, into=tmp_path / "assets")),
    }

    def run(*arguments):
        command = [sys.executable, "-m", "tools.cluster", *arguments, "--name=try"]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    assert run("status").returncode == 3
    try:
        assert run("up").returncode == 0
        status = run("status")
        assert status.returncode == 0
        assert run("up").returncode == 0  # idempotent: the same cluster
        assert run("status").stdout == status.stdout
        shell = subprocess.run(
            ["/bin/sh", "-c", 'eval "$1"; kubectl get namespace default --output=name', "sh", run("env").stdout],
            capture_output=True,
            text=True,
            check=True,
        )
        assert shell.stdout == "namespace/default\n"
    finally:
        assert run("down").returncode == 0
    assert run("status").returncode == 3
    assert not (tmp_path / "groundwork" / "clusters" / "try").exists()
