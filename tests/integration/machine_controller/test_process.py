"""The machine controller as a process: with the rights of its page and no others, and not beside CAPV."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from services.runtime.kube.conditions import micro_timestamp
from services.runtime.kube.resource import Resource
from tests.integration.proxy import HttpProxy, kubeconfig_at, refusal
from tests.support.kube import NAMESPACES, manifest
from tests.support.machine_site import NETWORK, MachineController, unique

ROOT = Path(__file__).resolve().parents[3]
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease", namespaced=True)


def rules():
    text = (ROOT / "docs" / "reference" / "rbac.md").read_text()
    block = re.search(r"^# RBAC of the machine controller\n.*?^```yaml\n(.*?)^```", text, re.DOTALL | re.MULTILINE)[1]
    return yaml.safe_load(block)["rules"]


async def test_the_rights_of_its_page_are_enough(start_site, capv_cluster, tmp_path):
    site = await start_site(controller=False)
    await site.identity()
    await site.tenant.pool("nodes", "10.0.0.10-10.0.0.49", gateway="10.0.0.1")
    await site.cluster()
    name = unique("controller")
    kubeconfig = capv_cluster.service_account_kubeconfig("default", name, rules())
    process = MachineController(tmp_path, kubeconfig, "--all", f"--watch-namespace={site.namespace}")
    await asyncio.to_thread(process.start)
    try:
        await site.machine("m1")
        pool = {"apiGroup": "ipam.metal3.io", "kind": "IPPool", "name": "nodes"}
        await site.machine("m2", {"networkName": NETWORK, "addressesFromPools": [pool]}, pools=None)
        await site.provisioned("m1", "m2")
        assert process.metric("groundwork_machine_phase", phase="Provisioned") == 2
        await site.delete("m1", "m2")
        await site.gone("m1", "m2")
        await site.empty()
        assert process.metric("rest_client_requests_total", code="403") == 0
        assert process.mistakes() == []
    finally:
        process.stop()


async def held_lease(kube):
    """`namespace/name` of a Lease that CAPV's controllers hold."""
    namespace = unique("capv")
    await kube.create(NAMESPACES, manifest(NAMESPACES, namespace))
    spec = {"holderIdentity": "capv-0", "leaseDurationSeconds": 15, "renewTime": micro_timestamp(datetime.now(UTC))}
    await kube.create(LEASES, manifest(LEASES, "capv", namespace, spec))
    return f"{namespace}/capv"


def command(kubeconfig, lease):
    started = [sys.executable, "-m", "services.machine_controller", f"--kubeconfig={kubeconfig}"]
    return [*started, f"--capv-lease={lease}", "--bind-address=127.0.0.1:0", "--no-leader-election"]


async def test_it_does_not_start_while_capv_holds_its_lease(kube, capv_cluster):
    lease = await held_lease(kube)

    def run():
        called = command(capv_cluster.kubeconfig, lease)
        return subprocess.run(called, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)

    done = await asyncio.to_thread(run)
    assert done.returncode == 2
    (line,) = [text for text in done.stderr.splitlines() if not text.startswith("{")]
    assert f"capv-0 holds Lease {lease}" in line
    assert "clusterctl delete" in line


@pytest.fixture
async def through_a_proxy(kube, capv_cluster, tmp_path):
    """`(lease, proxy, start)`: a Lease of CAPV, what stands before the API server, and what starts the controller."""
    lease = await held_lease(kube)
    async with HttpProxy(capv_cluster.kubeconfig) as proxy:
        kubeconfig = kubeconfig_at(capv_cluster.kubeconfig, proxy.url, tmp_path / "through-the-proxy")

        def start():
            called = command(kubeconfig, lease)
            return asyncio.create_subprocess_exec(*called, cwd=ROOT, stderr=asyncio.subprocess.PIPE)

        yield lease, proxy, start


async def test_it_asks_an_api_server_that_is_away_until_it_knows_whether_capv_runs(through_a_proxy):
    lease, proxy, start = through_a_proxy
    proxy.fault = lambda _: refusal(503)
    process = await start()
    try:
        async with asyncio.timeout(60):
            for _ in range(3):
                while b"Cannot read CAPV's Lease yet" not in (line := await process.stderr.readline()):
                    assert line, "it ended"
            refusals = [refusal(403)]  # once: an API server that has just started refuses too much
            proxy.fault = lambda _: refusals.pop() if refusals else None
            rest = (await process.stderr.read()).decode()
            assert await process.wait() == 2
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert f"capv-0 holds Lease {lease}" in rest
    assert refusals == []


async def test_it_does_not_start_where_it_may_not_ask_whether_capv_runs(through_a_proxy):
    lease, proxy, start = through_a_proxy
    proxy.fault = lambda _: refusal(403)
    process = await start()
    async with asyncio.timeout(60):
        _, said = await process.communicate()
    assert process.returncode == 2
    assert f"cannot read Lease {lease}" in said.decode()
