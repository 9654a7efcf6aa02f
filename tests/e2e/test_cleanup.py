"""What is left on the machine after a node: nothing, also when whoever started it was killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

from tests.e2e import traces
from tests.support.waiting import blocking_until
from tools.node.node import Node, remove
from tools.process import start_time

# Says where its node is, and then has something on its hands until it is killed.
_OWNER = """
import json, sys, time
from tools.node import Node
with Node.temporary() as node:
    print(json.dumps({"folder": str(node.folder), "network": node.network, "cgroup": node.cgroup}), flush=True)
    time.sleep(3600)
"""
_POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "pause", "namespace": "default"},
    "spec": {"containers": [{"name": "pause", "image": "localhost/groundwork-pause:1"}]},
}


def run_a_pod(node):
    """Have a container, with its mounts, its interface and its cgroups."""
    node.kubectl("apply", "--filename=-", input=json.dumps(_POD))
    node.kubectl("wait", "--for=condition=Ready", "--timeout=120s", "pod/pause")


def test_a_node_leaves_nothing_behind(node_programs):
    before = traces.of_machine()
    with Node.temporary() as node:
        run_a_pod(node)
        of_node = node.folder, node.network, node.cgroup
        seen = traces.of_node(*of_node)
        assert {line.split()[0] for line in seen} == {"process", "cgroup", "folder"}, "the test looks where nothing is"
        assert traces.of_machine() == before, "the machine's own are not touched while it runs either"
    assert traces.of_node(*of_node) == []
    assert traces.of_machine() == before


def test_a_killed_owner_leaves_nothing_that_runs_and_the_next_removes_the_rest(node_programs):
    before = traces.of_machine()
    with subprocess.Popen([sys.executable, "-c", _OWNER], stdout=subprocess.PIPE, text=True) as owner:
        told = json.loads(owner.stdout.readline())
        of_node = (folder := traces.Path(told["folder"])), told["network"], told["cgroup"]
        node = Node.open(folder)
        run_a_pod(node)
        started = start_time(owner.pid)
        os.kill(owner.pid, signal.SIGKILL)
    assert started is not None
    blocking_until(lambda: {line.split()[0] for line in traces.of_node(*of_node)} == {"cgroup", "folder"})
    remove(folder)
    assert traces.of_node(*of_node) == []
    assert traces.of_machine() == before
