"""Presets of a tenant who means harm, and the webhook as a way out of the cluster."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from services.podpreset.api import CLUSTER_POD_PRESETS, POD_PRESETS
from services.runtime.kube.errors import Forbidden, Invalid
from tests.integration.security.pages import objects
from tests.support.kube import Kube, manifest
from tests.support.presets import Site, container, env, first, pod, volumes
from tests.support.webhook import Webhook

TOKEN = {"projected": {"sources": [{"serviceAccountToken": {"path": "token", "audience": "elsewhere"}}]}}
PSS = "pod-security.kubernetes.io/enforce"
SECURE = {
    "allowPrivilegeEscalation": False,
    "runAsNonRoot": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


@pytest.fixture(scope="module")
def webhook(cluster, tmp_path_factory):
    """The module's webhook, with every record that it writes."""
    with Webhook.running(tmp_path_factory.mktemp("webhook"), cluster.kubeconfig, "--log-level=debug") as running:
        yield running


@pytest.fixture(scope="module")
def scope(cluster, webhook):
    scope = uuid.uuid4().hex[:8]
    with webhook.registered(cluster, scope):
        yield scope


@pytest.fixture
async def site(scope, kube):
    async with Site.made(kube, scope) as site:
        yield site


def mounted(source, path="/mnt"):
    """A preset's spec: one volume of a kind, mounted."""
    return {
        "volumes": [{"name": "loot", **source}],
        "volumeMounts": [{"name": "loot", "mountPath": path}],
    }


# -- what a pod may not have, a preset cannot give it ----------------------------------------------------------------


FORBIDDEN = {
    "the node's files": ("baseline", {"hostPath": {"path": "/"}}),
    "the runtime's socket": ("baseline", {"hostPath": {"path": "/run/containerd/containerd.sock"}}),
    "the node's files, level restricted": ("restricted", {"hostPath": {"path": "/etc"}}),
    "a share of the network": ("restricted", {"nfs": {"server": "192.0.2.1", "path": "/"}}),
}


@pytest.mark.parametrize(("level", "source"), FORBIDDEN.values(), ids=FORBIDDEN.keys())
async def test_a_volume_that_the_namespace_forbids_makes_the_pod_be_refused(scope, kube, level, source):
    async with Site.made(kube, scope, **{PSS: level}) as site:
        app = container(securityContext=SECURE)
        assert volumes(await site.pod(containers=[app])) == []
        await site.preset(**mounted(source))
        with pytest.raises(Forbidden, match=f'violates PodSecurity "{level}:latest": .*loot'):
            await site.pod(containers=[app])


async def test_a_volume_that_the_namespace_allows_is_given(scope, kube):
    """The control for the test above: what refuses is the level, not the webhook."""
    async with Site.made(kube, scope, **{PSS: "restricted"}) as site:
        await site.preset(**mounted({"emptyDir": {}}))
        assert volumes(await site.pod(containers=[container(securityContext=SECURE)])) == ["loot"]


MORE = {
    "containers": [{"name": "evil", "image": "evil"}],
    "initContainers": [{"name": "evil", "image": "evil"}],
    "securityContext": {"privileged": True, "runAsUser": 0},
    "serviceAccountName": "admin",
    "automountServiceAccountToken": True,
    "hostNetwork": True,
    "hostPID": True,
    "nodeName": "node",
    "image": "evil",
    "command": ["evil"],
    "args": ["evil"],
    "lifecycle": {"postStart": {"exec": {"command": ["evil"]}}},
    "volumeDevices": [{"name": "disk", "devicePath": "/dev/sda"}],
    "tolerations": [{"operator": "Exists"}],
    "priorityClassName": "system-node-critical",
    "annotations": {"a": "b"},
    "labels": {"a": "b"},
}


async def test_a_preset_gives_environment_and_volumes_and_nothing_else(site):
    before = await site.pod(name="before")
    await site.preset("evil", env=[{"name": "GIVEN", "value": "1"}], **MORE)
    await site.cluster_preset("evil", env=[{"name": "GIVEN", "value": "1"}], **MORE)
    after = await site.pod(name="after")
    assert env(first(after)) == [("GIVEN", "1")]
    del first(after)["env"]
    assert after["spec"] == before["spec"]
    assert after["metadata"].get("labels") == before["metadata"].get("labels")


async def test_a_token_that_a_preset_mounts_is_the_pod_s_own(site):
    await site.preset(**mounted(TOKEN, "/var/run/elsewhere"))
    (loot,) = (await site.pod(serviceAccountName="own"))["spec"]["volumes"]
    (source,) = loot["projected"]["sources"]
    assert source["serviceAccountToken"].keys() <= {"path", "audience", "expirationSeconds"}, "it names no account"


async def test_presets_of_a_tenant_change_no_pod_elsewhere_and_none_for_all_can_be_made(cluster, site, scope, kube):
    rules = [rule for role in objects("concepts/tenancy.md", "ClusterRole") for rule in role["rules"]]
    path = cluster.service_account_kubeconfig(site.namespace, "tenant", rules, namespaced=True)
    async with Site.made(kube, scope) as other, Kube.connect(path) as tenant:
        spec = {"env": [{"name": "EVIL", "value": "1"}]}
        await tenant.create(POD_PRESETS, manifest(POD_PRESETS, "evil", site.namespace, spec))
        for resource, namespace in (
            (CLUSTER_POD_PRESETS, ""),
            (POD_PRESETS, other.namespace),
            (POD_PRESETS, "kube-system"),
            (POD_PRESETS, "default"),
        ):
            with pytest.raises(Forbidden):
                await tenant.create(resource, manifest(resource, "evil", namespace, spec))
        await site.known(await kube.get(POD_PRESETS, "evil", site.namespace))
        assert env(first(await site.pod())) == [("EVIL", "1")]
        assert env(first(await other.pod())) == []
        await tenant.delete(POD_PRESETS, "evil", site.namespace)


# -- the webhook calls nobody ----------------------------------------------------------------------------------------


@asynccontextmanager
async def planted():
    """A server that waits for anybody to connect; yields its address and who did."""
    seen = []

    async def note(_, writer):
        seen.append(writer.get_extra_info("peername"))
        writer.close()

    server = await asyncio.start_server(note, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}", seen


def everywhere(address):
    """A pod and a preset's spec with an address wherever text of a user's goes."""
    url = f"http://user:pass@{address}/path"
    presets = {
        "env": [
            {"name": name, "value": value}
            for name, value in {
                "HTTP_PROXY": url,
                "HTTPS_PROXY": url,
                "NO_PROXY": f"{address},{url}",
                "URL": url,
                "LOOKUP": "localhost",
            }.items()
        ],
        "envFrom": [{"configMapRef": {"name": "localhost"}}],
        "volumes": [
            {"name": "share", "nfs": {"server": address.partition(":")[0], "path": "/"}},
            {"name": "disk", "iscsi": {"targetPortal": address, "iqn": "iqn.2001-04.example:x", "lun": 0}},
        ],
        "volumeMounts": [{"name": "share", "mountPath": "/share"}],
    }
    body = pod(
        annotations={"url": url, "podpreset.groundwork.dev/hash": url},
        containers=[container(image=f"{address}/image:latest", env=[{"name": "HTTP_PROXY", "value": url}])],
        imagePullSecrets=[{"name": "localhost"}],
        dnsConfig={"nameservers": ["127.0.0.1"]},
        hostAliases=[{"ip": "127.0.0.1", "hostnames": ["a.example"]}],
    )
    return presets, body


def connections(pid, local):
    """Remote ports of a process's TCP connections, those to one of its own ports left out."""
    inodes = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(fd.readlink())
        except FileNotFoundError:
            continue  # closed meanwhile
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            own, remote = (int(field.rpartition(":")[2], 16) for field in fields[1:3])
            if fields[9] in inodes and remote and own not in local:
                found.add(remote)
    return found


async def test_no_review_makes_the_webhook_call_anybody(cluster, site, webhook):
    async with planted() as (address, seen):
        preset, body = everywhere(address)
        await site.preset("outward", **preset)
        await site.cluster_preset("outward", env=preset["env"])
        writes = webhook.metric("rest_client_requests_total") - webhook.metric(
            "rest_client_requests_total", method="GET"
        )
        answered = webhook.metric("groundwork_webhook_requests_total")
        ports = {webhook.port, int(webhook._address.rpartition(":")[2])}
        remotes = set()
        for number in range(50):
            response = await asyncio.to_thread(
                webhook.review,
                {**body, "metadata": {**body["metadata"], "name": f"p{number}"}},
                namespace=site.namespace,
            )
            assert response["allowed"]
            remotes |= connections(webhook.pid, ports)
        assert webhook.metric("groundwork_webhook_requests_total") == answered + 50
        assert remotes <= {int(cluster.url.rpartition(":")[2])}, "the API server's watches and nobody else"
        assert seen == []
        after = webhook.metric("rest_client_requests_total") - webhook.metric(
            "rest_client_requests_total", method="GET"
        )
        assert after - writes <= _STATUS_WRITES


_STATUS_WRITES = 10
"""Statuses of two presets, Events about them: not one for each of the fifty reviews."""


async def test_a_schema_lets_no_preset_name_a_place_to_ask(site):
    for field in ("url", "webhook", "valuesFrom", "clientConfig"):
        made = await site.preset(f"p-{field.lower()}", env=[{"name": "A"}], **{field: "http://127.0.0.1/"})
        assert field not in made["spec"]
    with pytest.raises(Invalid):
        await site.preset("bad", env=[{"name": "A", "value": {"http": "x"}}])
