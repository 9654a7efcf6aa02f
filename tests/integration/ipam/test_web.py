"""The status page on a real API server: what claims do is what it shows, on a leader and on a standby."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest

from services.ipam.api import ALLOCATION_FAILED, IP_POOLS, POOL_EXHAUSTED
from services.runtime.kube.conditions import micro_timestamp
from services.runtime.leader import LEASES
from tests.support.allocator import Allocator
from tests.support.kube import eventually, manifest
from tests.support.status_page import Read
from tests.support.tenant import CAPI, METAL3

ALLOCATOR_FLAGS = ("--web", "--web-address=127.0.0.1:0")
EVIL = "<script>alert(1)</script>"


def served_at(allocator):
    """Where an allocator says that its status page is; None when it says nothing."""
    return next((r["address"] for r in allocator.records() if r["msg"] == "Serving the status page"), None)


class Reader:
    """Somebody who looks at the pages about one tenant's pools."""

    def __init__(self, session, allocator, namespace):
        self._session = session
        self._base = f"http://{served_at(allocator)}"
        self._namespace = namespace

    async def ask(self, path):
        async with self._session.get(self._base + path) as answer:
            return answer.status, await answer.read()

    async def read(self, path="/"):
        status, body = await self.ask(path)
        assert status == 200
        return Read(body)

    async def pool(self, name="pool"):
        return await self.read(f"/pools/IPPool/{self._namespace}/{name}")

    async def line(self, name="pool"):
        """What the report says of a pool, None when that is not in it."""
        report = json.loads((await self.ask("/status.json"))[1])
        keys = [(pool["namespace"], pool["name"]) for pool in report["pools"]]
        wanted = (self._namespace, name)
        return report["pools"][keys.index(wanted)] if wanted in keys else None

    async def shows(self, name="pool", **wanted):
        """Wait until the counts of a pool are these."""

        def right(line):
            return line is not None and wanted.items() <= {**line["addresses"], **line}.items()

        return await eventually(lambda: self.line(name), right)


@pytest.fixture
async def reader(allocator, tenant):
    async with aiohttp.ClientSession() as session:
        yield Reader(session, allocator, tenant.namespace)


async def test_the_page_shows_what_claims_hold_and_why_one_waits_until_it_is_served(tenant, reader):
    await tenant.pool("pool", "10.0.0.1-10.0.0.4", excludedAddresses=["10.0.0.2"])
    labels = {"cluster.x-k8s.io/cluster-name": "blue"}
    await tenant.cluster("blue")
    one = await tenant.give("one", kind=METAL3)
    two = await tenant.give("two", kind=CAPI, labels=labels)
    await tenant.give("three")
    await tenant.claim("waits")
    message = await tenant.refused("waits", POOL_EXHAUSTED)
    await reader.shows(total=3, used=3, free=0, waiting=1)
    page = await reader.pool()
    assert (page.cells("held"), page.cells("excluded"), page.cells("free")) == (3, 1, 0)
    rows = {row[0]: row for row in page.rows("holders")}
    assert rows[one][1:3] == ["H held", f"IPClaim {tenant.namespace}/one"]
    assert rows[two][2] == f"IPAddressClaim {tenant.namespace}/two"
    assert rows[two][4] == "blue"
    ((claim, _, reason, told, _),) = page.rows("waiting")
    assert (claim, reason, told) == (f"IPClaim {tenant.namespace}/waits", POOL_EXHAUSTED, message)
    await tenant.release("one")
    await tenant.bound("waits")
    await reader.shows(used=3, waiting=0)
    await eventually(reader.pool, lambda page: page.rows("waiting") == [] and page.cells("held") == 3)


async def test_every_use_of_an_address_is_counted_as_the_pools_status_counts_it(tenant, reader):
    await tenant.reserve("10.0.0.9", description="a printer")
    await tenant.pool("pool", "10.0.0.1-10.0.0.10", preAllocations={"kept": "10.0.0.8"}, reuseDelaySeconds=3600)
    await tenant.give("a")
    await tenant.give("b")
    await tenant.release("b")
    counts = await tenant.counts(used=1, reserved=2, cooling=1)
    await reader.shows(**counts)
    page = await reader.pool()
    found = {name: page.cells(name) for name in ("held", "reserved", "preallocated", "cooling", "free")}
    assert found == {"held": 1, "reserved": 1, "preallocated": 1, "cooling": 1, "free": 6}
    assert "a printer" in page.text


async def test_what_a_tenant_writes_into_a_claim_is_text_on_the_page(tenant, reader):
    await tenant.pool("pool", "10.0.0.1-10.0.0.4")
    await tenant.claim("evil", annotations={"ipAddress": EVIL})
    await tenant.refused("evil", ALLOCATION_FAILED)
    await reader.shows(waiting=1)
    page = await reader.pool()
    assert EVIL in page.text
    assert len(page.all("script")) == 1, "the page's own"
    assert (await reader.read()).all("h1")


async def test_a_pool_that_is_gone_has_no_page(tenant, reader):
    await tenant.pool("pool", "10.0.0.1-10.0.0.4")
    await reader.shows(total=4)
    await tenant.kube.delete(IP_POOLS, "pool", tenant.namespace)
    await eventually(reader.line, lambda line: line is None)
    assert (await reader.ask(f"/pools/IPPool/{tenant.namespace}/pool"))[0] == 404


async def test_a_standby_shows_the_same_and_says_that_it_stands_by(tenant, reader, cluster, kube, tmp_path):
    await tenant.pool("pool", "10.0.0.1-10.0.0.1")
    await tenant.give("one")
    await tenant.claim("waits")
    await tenant.refused("waits", POOL_EXHAUSTED)
    now = micro_timestamp(datetime.now(UTC))
    spec = {"holderIdentity": "other", "leaseDurationSeconds": 3600, "acquireTime": now, "renewTime": now}
    await kube.create(LEASES, manifest(LEASES, "groundwork-ipam", tenant.namespace, spec))
    flags = ("--leader-election", f"--lease-namespace={tenant.namespace}")
    with Allocator.running(tmp_path, cluster.kubeconfig, *ALLOCATOR_FLAGS, *flags) as standby:
        async with aiohttp.ClientSession() as session:
            there = Reader(session, standby, tenant.namespace)
            await there.shows(used=1, waiting=1)
            page = await there.pool()
    assert [text for _, text in page.all("span", "role-standby")] == ["standby"]
    assert page.cells("held") == 1
    assert page.rows("waiting")[0][2] == POOL_EXHAUSTED
    assert next(text for _, text in (await reader.pool()).all("span", "chip")) == "no election"


def listening(pid):
    """Ports on which a process listens."""
    inodes = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        target = str(fd.readlink()) if fd.is_symlink() else ""
        if target.startswith("socket:["):
            inodes.add(target[len("socket:[") : -1])
    lines = [
        line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()
    ]
    return [int(line[1].rpartition(":")[2], 16) for line in lines[1:] if line[3] == "0A" and line[9] in inodes]


async def test_without_the_flag_there_is_no_page(cluster, allocator, tmp_path):
    with Allocator.running(tmp_path, cluster.kubeconfig) as plain:
        assert served_at(plain) is None
        assert len(listening(plain.pid)) == 1, "probes and metrics alone"
        assert plain._get("/")[0] == 404
    assert len(listening(allocator.pid)) == 2
    assert allocator._get("/status.json")[0] == 404, "it is not beside probes and metrics"


def test_an_address_that_is_taken_ends_the_start_with_one_line(cluster, allocator):
    flags = ("--bind-address=127.0.0.1:0", "--no-leader-election", "--web", f"--web-address={served_at(allocator)}")
    command = [sys.executable, "-m", "services.ipam", f"--kubeconfig={cluster.kubeconfig}", *flags]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 2
    assert f"groundwork-ipam: cannot listen on {served_at(allocator)}: " in ended.stderr
    assert "Traceback" not in ended.stderr
