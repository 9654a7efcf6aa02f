"""Leader election on a real API server, with short times where a test would wait for the usual ones."""

import asyncio
import contextlib
import itertools
import json
import re
import time
from urllib.parse import urlsplit

import pytest
import yaml

from services.runtime.kube import config
from services.runtime.kube.errors import NotLeader
from services.runtime.kube.transport import Client
from services.runtime.leader import LeaderElector
from services.runtime.leader_decide import Timing
from tests.support.proxy import Proxy
from tests.support.waiting import until

SHORT = Timing(lease_duration=4, renew_deadline=2.5, retry_period=0.5)
MICRO_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
LEASE_RULES = [{"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update"]}]


class Contender:
    """An elector with a session of its own, running in a task."""

    def __init__(self, client, namespace, name, timing):
        self.elector = LeaderElector(client, namespace, "contended", name, timing=timing)
        self.task = asyncio.create_task(self.elector.run())

    @property
    def may_write(self):
        with contextlib.suppress(NotLeader):
            self.elector.check()
            return True
        return False

    async def kill(self):
        self.task.cancel()
        await asyncio.wait([self.task])

    async def stop(self):
        await self.kill()
        await self.elector.release()


@pytest.fixture
async def contender(cluster, namespace):
    """Start an elector: contender(name, kubeconfig=..., timing=...)."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(name, *, kubeconfig=cluster.kubeconfig, timing=SHORT):
            client = await stack.enter_async_context(Client(await config.load(kubeconfig)))
            started = Contender(client, namespace, name, timing)
            stack.push_async_callback(started.kill)
            return started

        yield start


def kubeconfig_through(proxy, cluster, path):
    """A kubeconfig that reaches the cluster through the proxy."""
    content = yaml.safe_load(cluster.kubeconfig.read_text())
    content["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{proxy.port}"
    path.write_text(yaml.safe_dump(content))
    return path


def lease(cluster, namespace):
    return json.loads(cluster.kubectl("get", "lease", "contended", f"--namespace={namespace}", "--output=json"))


async def test_one_of_two_processes_leads_and_the_other_takes_over_what_it_releases(cluster, namespace, contender):
    one = await contender("one", timing=Timing())
    await one.elector.wait_leading()
    two = await contender("two", timing=Timing())
    for _ in range(30):
        await asyncio.sleep(0.1)
        assert (one.may_write, two.may_write) == (True, False)

    spec = lease(cluster, namespace)["spec"]
    assert (spec["holderIdentity"], spec["leaseDurationSeconds"], spec["leaseTransitions"]) == ("one", 15, 0)
    assert MICRO_TIME.fullmatch(spec["acquireTime"])
    assert MICRO_TIME.fullmatch(spec["renewTime"])
    assert spec["renewTime"] > spec["acquireTime"]

    await one.stop()
    assert not one.may_write
    # Less than the lease duration: nobody had to wait for an expiry.
    await asyncio.wait_for(two.elector.wait_leading(), 12)
    after = lease(cluster, namespace)["spec"]
    assert (after["holderIdentity"], after["leaseDurationSeconds"], after["leaseTransitions"]) == ("two", 15, 1)
    assert after["acquireTime"] > spec["renewTime"]


async def test_a_released_lease_looks_as_client_go_leaves_it(cluster, namespace, contender):
    one = await contender("one")
    await one.elector.wait_leading()
    await one.stop()
    spec = lease(cluster, namespace)["spec"]
    assert (spec["holderIdentity"], spec["leaseDurationSeconds"], spec["leaseTransitions"]) == ("", 1, 0)
    assert MICRO_TIME.fullmatch(spec["renewTime"])


async def test_the_lease_of_a_killed_process_is_taken_after_it_has_expired(contender):
    one = await contender("one")
    await one.elector.wait_leading()
    two = await contender("two")
    await asyncio.sleep(1.5)
    await one.kill()
    killed = time.monotonic()
    await two.elector.wait_leading()
    # The last renewal may be a retry period old when the process dies.
    assert time.monotonic() - killed > SHORT.lease_duration - SHORT.retry_period - 0.1
    assert not one.may_write


async def test_a_leader_behind_a_stalled_network_stops_before_another_one_starts(
    cluster, namespace, contender, tmp_path
):
    address = urlsplit(cluster.url)
    async with Proxy(address.hostname, address.port) as proxy:
        one = await contender("one", kubeconfig=kubeconfig_through(proxy, cluster, tmp_path / "config"))
        await one.elector.wait_leading()
        two = await contender("two")
        await asyncio.sleep(1.5)
        assert one.may_write
        proxy.stall()
        await until(lambda: not one.may_write or two.may_write, step=0.005)
        assert (one.may_write, two.may_write) == (False, False), "it had to stop before the other could start"
        await two.elector.wait_leading()
        await one.task
        assert one.elector.lost.is_set()
        proxy.resume()
        await asyncio.sleep(1)
    assert lease(cluster, namespace)["spec"]["holderIdentity"] == "two"
    assert (one.may_write, two.may_write) == (False, True)


async def test_a_leader_survives_a_restart_of_the_api_server(cluster, namespace, contender):
    one = await contender("one", timing=Timing(lease_duration=60, renew_deadline=40, retry_period=0.5))
    await one.elector.wait_leading()
    cluster.kill_apiserver()
    try:
        await asyncio.sleep(2)
        assert one.may_write
    finally:
        cluster.start_apiserver()
    before = lease(cluster, namespace)["spec"]["renewTime"]
    await until(lambda: lease(cluster, namespace)["spec"]["renewTime"] != before, step=0.2)
    assert one.may_write


async def test_a_crowd_has_one_leader_at_a_time_whoever_leaves(contender):
    crowd = [await contender(f"p{number}") for number in range(5)]
    leaders = []
    for _ in range(4):
        await until(lambda: any(each.may_write for each in crowd))
        (leader,) = (each for each in crowd if each.may_write)
        for _ in range(20):
            await asyncio.sleep(0.05)
            assert [each for each in crowd if each.may_write] == [leader]
        leaders.append(leader)
        await leader.stop()
        crowd.remove(leader)
    assert all(before is not after for before, after in itertools.pairwise(leaders))


async def test_get_create_and_update_on_leases_of_one_namespace_are_all_it_needs(cluster, namespace, contender):
    account = cluster.service_account_kubeconfig(namespace, "contender", LEASE_RULES, namespaced=True)
    one = await contender("one", kubeconfig=account)
    await one.elector.wait_leading()
    await one.stop()
    assert lease(cluster, namespace)["spec"]["holderIdentity"] == ""


async def test_a_process_without_permission_keeps_asking_until_it_has_it(cluster, namespace, contender):
    account = cluster.service_account_kubeconfig(namespace, "contender", [], namespaced=True)
    one = await contender("one", kubeconfig=account)
    await asyncio.sleep(1.5)
    assert not one.may_write
    assert not one.task.done()
    cluster.service_account_kubeconfig(namespace, "contender", LEASE_RULES, namespaced=True)
    await one.elector.wait_leading()
