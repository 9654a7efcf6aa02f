"""Replicas, crashes and handovers of the allocator: whatever happens, no address is given twice and none is lost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
import uuid
from pathlib import Path

import pytest

from services.ipam import api
from services.runtime.kube.errors import AlreadyExists, ServerError, TooManyRequests
from services.runtime.kube.resource import Resource
from tests.support import outside
from tests.support.kube import NAMESPACES, eventually, manifest
from tools.process import free_ports

ROOT = Path(__file__).resolve().parents[2]
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease", namespaced=True)
POOL_REF = {"apiGroup": "ipam.metal3.io", "kind": "IPPool", "name": "pool"}


class Replica:
    """One allocator process; its log goes to a file that a failing test can show."""

    def __init__(self, cluster, folder, name, *flags):
        (self.port,) = free_ports(1)
        self.log = folder / f"{name}.log"
        command = [sys.executable, "-m", "services.ipam", "--kubeconfig", str(cluster.kubeconfig)]
        command += ["--bind-address", f"127.0.0.1:{self.port}", "--log-format", "text", *flags]
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def ready(self):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=1):
                return True
        except OSError:
            return False


@pytest.fixture
def start(own_cluster, tmp_path):
    """Starts replicas, and stops what still runs at the end."""
    started = []

    def begin(name, *flags):
        replica = Replica(own_cluster, tmp_path, name, *flags)
        started.append(replica)
        return replica

    yield begin
    for replica in started:
        if replica.process.poll() is None:
            replica.kill()
        print(f"--- {replica.log.name}\n{replica.log.read_text(errors='replace')[-2000:]}")


@pytest.fixture
async def space(kube):
    """A namespace with a pool in it, of a domain of its own."""
    name = f"faults-{uuid.uuid4().hex[:8]}"
    await kube.create(NAMESPACES, manifest(NAMESPACES, name))
    spec = {
        "namePrefix": "p",
        "prefix": 16,
        "gateway": "10.0.0.1",
        "domain": name,
        "pools": [{"subnet": "10.0.0.0/16"}],
    }
    await kube.create(api.IP_POOLS, manifest(api.IP_POOLS, "pool", name, spec))
    return name


def claim(kind, namespace, name):
    """A claim of the pool."""
    if kind == "IPClaim":
        return api.IP_CLAIMS, manifest(api.IP_CLAIMS, name, namespace, {"pool": {"name": "pool"}})
    return api.CAPI_CLAIMS[0], manifest(api.CAPI_CLAIMS[0], name, namespace, {"poolRef": POOL_REF})


async def each(count, act, *, at_once=8):
    """Run `act(number)` for every number, some at a time."""
    numbers = iter(range(count))

    async def work():
        for number in numbers:
            await act(number)

    await asyncio.gather(*(work() for _ in range(at_once)))


def kind_of(number):
    return "IPAddressClaim" if number % 2 else "IPClaim"


async def create_claims(kube, namespace, count, prefix="c"):
    async def create(number):
        # A server that has just started sheds load; a user tries again.
        while True:
            try:
                await kube.create(*claim(kind_of(number), namespace, f"{prefix}{number}"))
            except AlreadyExists:
                return
            except (TooManyRequests, ServerError):
                await asyncio.sleep(0.1)
            else:
                return

    await each(count, create)


async def delete_claims(kube, namespace, count, prefix="c"):
    async def delete(number):
        resource, _ = claim(kind_of(number), namespace, "")
        await kube.delete(resource, f"{prefix}{number}", namespace)

    await each(count, delete)


async def settle(kube, namespace, *, bound=None, claims=None):
    """Wait until the numbers are reached and nothing is wrong any more; return the state."""

    state = {}

    async def look():
        nonlocal state
        state = await outside.snapshot(kube.client, (namespace,))
        served = [c for c in outside.claims(state).values() if outside.is_ready(c)]
        return {
            "bound": len(served),
            "claims": len(outside.claims(state)),
            "addresses": sum(map(len, outside.addresses(state).values())),
            "wrong": outside.violations(state)[:10],
        }

    def holds(seen):
        expected = {"bound": bound, "claims": claims}
        return not seen["wrong"] and all(seen[k] == v for k, v in expected.items() if v is not None)

    await eventually(look, holds, within=420)
    return state


async def test_two_allocators_without_a_lease_serve_2000_claims_of_both_kinds_and_return_them(kube, start, space):
    for name in ("one", "two"):
        start(name, "--no-leader-election")
    await create_claims(kube, space, 2000)
    state = await settle(kube, space, bound=2000)
    taken = [address for items in outside.addresses(state).values() for _, address in items]
    assert len(taken) == len(set(taken)) == 2000
    assert len(state["held"]) == 2000
    await delete_claims(kube, space, 2000)
    state = await settle(kube, space, claims=0)
    assert (state["held"], state["metal3"], state["capi"]) == ([], [], [])


async def test_killed_at_30_random_moments_of_binding_and_release_it_loses_nothing(kube, start, space):
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    batch = 12
    alive = 0
    for moment in range(30):
        replica = start(f"run-{moment}", "--no-leader-election", "--orphan-grace-seconds", "1")
        await eventually(lambda replica=replica: asyncio.to_thread(replica.ready))
        work = [create_claims(kube, space, batch, prefix=f"m{moment}-")]
        if moment:
            work.append(delete_claims(kube, space, batch, prefix=f"m{moment - 1}-"))
        churn = asyncio.gather(*work)
        await asyncio.sleep(rng.uniform(0, 0.25))
        replica.kill()
        await churn
        alive = batch
    start("last", "--no-leader-election", "--orphan-grace-seconds", "1")
    state = await settle(kube, space, bound=alive, claims=alive)
    assert outside.violations(state) == []
    assert len(state["held"]) == alive


async def lease_holder(kube):
    lease = await kube.find(LEASES, "groundwork-ipam", "default")
    return lease["spec"].get("holderIdentity") if lease else None


async def hand_over(kube, start, space, stop):
    """Start a leader and a standby, stop the leader, and return the seconds until the standby has bound a claim."""
    leader = start("leader", "--lease-namespace", "default")
    first = await eventually(lambda: lease_holder(kube), lambda holder: bool(holder) and leader.process.poll() is None)
    standby = start("standby", "--lease-namespace", "default")
    await eventually(lambda: asyncio.to_thread(standby.ready))
    await kube.create(*claim("IPClaim", space, "before"))
    await settle(kube, space, bound=1)
    stop(leader)
    started = time.monotonic()
    await kube.create(*claim("IPClaim", space, "after"))
    await settle(kube, space, bound=2)
    seconds = time.monotonic() - started
    assert await lease_holder(kube) not in {None, "", first}
    print(f"handover took {seconds:.1f} s")
    return seconds


async def test_a_killed_leader_is_replaced_once_its_lease_has_run_out(kube, start, space):
    # 15 s of Lease and a 2 s retry; the bound leaves room for a machine that stalls.
    assert await hand_over(kube, start, space, Replica.kill) < 17 + 10


async def test_a_terminated_leader_hands_over_at_once_because_it_releases_its_lease(kube, start, space):
    codes = []
    seconds = await hand_over(kube, start, space, lambda leader: codes.append(leader.terminate()))
    assert codes == [0]
    # Far from the 15 s that an unreleased Lease would take.
    assert seconds < 10


async def test_a_leader_that_was_paused_beyond_its_lease_writes_nothing_when_it_wakes(kube, start, space):
    leader = start("leader", "--lease-namespace", "default")
    await eventually(lambda: lease_holder(kube))
    await kube.create(*claim("IPClaim", space, "before"))
    await settle(kube, space, bound=1)
    standby = start("standby", "--lease-namespace", "default")
    await eventually(lambda: asyncio.to_thread(standby.ready))
    os.kill(leader.process.pid, signal.SIGSTOP)
    try:
        await create_claims(kube, space, 20)
        await settle(kube, space, bound=21)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(leader.process.pid, signal.SIGCONT)
    # It ends by itself with the exit code of a lost Lease, so that it starts clean.
    assert await asyncio.to_thread(leader.process.wait, 60) == 1
    state = await settle(kube, space, bound=21)
    assert len(state["held"]) == 21


async def test_an_api_server_restart_in_the_middle_of_a_burst_loses_nothing(kube, own_cluster, start, space):
    start("only", "--no-leader-election")
    await create_claims(kube, space, 100)
    own_cluster.kill_apiserver()
    await asyncio.to_thread(own_cluster.start_apiserver)
    await create_claims(kube, space, 100, prefix="d")
    state = await settle(kube, space, bound=200)
    assert len(state["held"]) == 200
