"""Each right of the chart is needed, and missing ones are noticed: see conftest for what holds for all other tests.

Here are the rights that a test elsewhere would use by luck alone, and that the net has no holes.
"""

from __future__ import annotations

import asyncio
import json
import uuid

import pytest

from services.ipam import api
from services.runtime.clock import SystemClock
from services.runtime.kube import config
from services.runtime.kube.events import EventRecorder, Regarding
from services.runtime.kube.transport import Client
from services.runtime.leader import LeaderElector
from tests.support import accounts, audit, rights
from tests.support.allocator import Allocator
from tests.support.audit import NAMESPACE, Right
from tests.support.chart import COMPONENTS, render
from tests.support.kube import Kube, eventually, manifest
from tools.cluster import KubectlError


class Impatient(SystemClock):
    """A clock on which nobody waits long."""

    async def sleep(self, seconds):
        await super().sleep(min(seconds, 0.05))


@pytest.mark.parametrize("service", COMPONENTS)
async def test_every_service_may_lead_and_tell_of_things(cluster, namespace, service):
    account = await asyncio.to_thread(accounts.for_service, cluster.kubeconfig, service)
    wanted = [Right(service, "coordination.k8s.io", "leases", verb) for verb in ("get", "create", "update")]
    wanted += [Right(service, "events.k8s.io", "events", verb) for verb in ("create", "patch")]
    about = Regarding("v1", "ConfigMap", namespace, "a")
    async with Client(await config.load(str(account))) as client:
        elector = LeaderElector(client, NAMESPACE, f"lead-{uuid.uuid4().hex[:8]}")
        recorder = EventRecorder(client, f"groundwork.dev/{service}", Impatient())
        tasks = [asyncio.create_task(part.run()) for part in (elector, recorder)]
        try:
            await elector.wait_leading()

            async def told():
                recorder.event(about, "Normal", "Seen", "again")
                for log in audit.logs():
                    log.read()
                return set(wanted) - audit.USED

            await eventually(told, lambda left: left == set())
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await elector.release()


def owned_by(kind, api_version, **fields):
    return {"apiVersion": api_version, "kind": kind, "name": "owner", "uid": str(uuid.uuid4()), **fields}


def address(namespace, owner):
    """An IPAddress of Cluster API's as the allocator writes it."""
    resource = api.CAPI_ADDRESSES[0]
    pool = {"apiGroup": api.METAL3_GROUP, "kind": "IPPool", "name": "owner"}
    spec = {"claimRef": {"name": "owner"}, "poolRef": pool, "address": "10.0.0.1", "prefix": 24}
    return manifest(resource, "a", namespace, spec, ownerReferences=[owner])


OWNERS = {
    "ippools/finalizers": ("IPPool", api.IP_POOLS.api_version),
    "globalippools/finalizers": ("GlobalIPPool", api.GLOBAL_IP_POOLS.api_version),
    "ipaddressclaims/finalizers": ("IPAddressClaim", api.CAPI_CLAIMS[0].api_version),
}


@pytest.mark.parametrize("right", sorted(rights.BY_ADMISSION), ids=lambda right: f"{right.verb} {right.resource}")
async def test_a_hardened_api_server_refuses_owners_without_the_right(cluster, namespace, right):
    def kubeconfig(name, given):
        rules = [{"apiGroups": [r.group], "resources": [r.resource], "verbs": [r.verb]} for r in given]
        return cluster.service_account_kubeconfig(namespace, name, rules)

    given = {other for other in rights.granted() if other.service == right.service}
    command = ["create"]
    if right.verb == "delete":
        spec = {"namePrefix": "p", "pools": [{"subnet": "10.0.0.0/24"}]}
        cluster.apply(manifest(api.IP_POOLS, "p", namespace, spec))
        obj = json.loads(cluster.kubectl("get", "ippool", "p", f"--namespace={namespace}", "-o", "json"))
        obj["metadata"]["ownerReferences"] = [owned_by("Cluster", "cluster.x-k8s.io/v1beta2")]
        command = ["replace", "--raw", f"{api.IP_POOLS.path(namespace, 'p')}?dryRun=All"]
    else:
        obj = address(namespace, owned_by(*OWNERS[right.resource], blockOwnerDeletion=True))
        command = ["create", "--raw", f"{api.CAPI_ADDRESSES[0].path(namespace)}?dryRun=All"]
    text = json.dumps(obj)
    with pytest.raises(KubectlError, match="cannot set"):
        cluster.kubectl(*command, "--filename=-", input=text, kubeconfig=kubeconfig("lessened", given - {right}))
    cluster.kubectl(*command, "--filename=-", input=text, kubeconfig=kubeconfig("complete", given))


def test_a_right_that_is_taken_away_anywhere_is_missed_and_one_that_is_added_is_needless():
    asked = rights.granted() - rights.BY_ADMISSION - rights.BY_RACE
    assert rights.granted() >= rights.BY_ADMISSION | rights.BY_RACE
    assert rights.needless(asked) == set()
    for right in asked:
        assert rights.needless(asked - {right}) == {right}
    assert {right.service for right in asked} == set(COMPONENTS)


async def test_a_service_that_is_refused_something_is_found_in_the_audit_log(cluster, namespace, tmp_path):
    right = Right("ipam-lessened", api.METAL3_GROUP, "ippools/status", "update")
    lessened = render().rules("ipam")[1]
    rules = [{**r, "resources": [x for x in r["resources"] if x != right.resource]} for r in lessened]
    account = cluster.service_account_kubeconfig(NAMESPACE, "groundwork-ipam-lessened", rules)
    log = audit.log_of(cluster)
    with Allocator.running(tmp_path, account, f"--watch-namespace={namespace}"):
        async with Kube.connect(cluster.kubeconfig) as kube:
            spec = {"namePrefix": "p", "domain": namespace, "pools": [{"subnet": "10.0.0.0/24"}]}
            await kube.create(api.IP_POOLS, manifest(api.IP_POOLS, "p", namespace, spec))

            async def refused():
                log.read()
                return [line for line in log.refused if line.startswith(str(right))]

            await eventually(refused)
    assert right in audit.USED
    log.read()
    log.refused.clear()
    audit.USED.difference_update({used for used in audit.USED if used.service == right.service})
