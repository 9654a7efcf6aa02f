"""The transport against a real API server, and against what can stand in front of one."""

from __future__ import annotations

import asyncio
import json

import pytest
from aiohttp import web

from services.ipam.api import IP_POOLS
from services.runtime import metrics
from services.runtime.kube import errors
from services.runtime.kube.objects import (
    KubeObject,
    ObjectMeta,
    decode,
    raw,
    view,
    with_finalizer,
    with_labels,
    with_spec,
    with_status,
)
from services.runtime.kube.transport import PatchKind
from tests.integration.configmaps import CONFIG_MAPS, NAMESPACES, ConfigMap, config_map, connected, eventually
from tests.integration.proxy import HttpProxy, TcpProxy, kubeconfig_at, refusal


@pytest.fixture
async def client(cluster):
    async with connected(cluster.kubeconfig) as client:
        yield client


@pytest.fixture
async def proxied(cluster, tmp_path):
    """An HTTP proxy and a client that goes through it, with a short timeout."""
    async with HttpProxy(cluster.kubeconfig) as proxy:
        path = kubeconfig_at(cluster.kubeconfig, proxy.url, tmp_path / "kubeconfig")
        async with connected(path, timeout=2.0) as client:
            yield proxy, client


@pytest.fixture
async def tunnelled(cluster, tmp_path):
    """A TCP proxy and a client that goes through it, with a short timeout."""
    async with TcpProxy(cluster.url) as proxy:
        path = kubeconfig_at(cluster.kubeconfig, proxy.url, tmp_path / "kubeconfig")
        async with connected(path, timeout=1.0) as client:
            yield proxy, client


# Verbs


async def test_an_object_is_created_read_updated_patched_and_deleted(client, namespace):
    made = await client.create(CONFIG_MAPS, config_map("a", namespace, data={"k": "1"}))
    assert made.metadata.uid
    assert made.kind == "ConfigMap"
    assert await client.get(CONFIG_MAPS, "a", namespace, as_=ConfigMap) == made
    changed = await client.update(CONFIG_MAPS, with_labels(made, {"l": "v"}))
    assert view(changed.data, dict) == {"k": "1"}
    patch = {"data": {"k": "2"}}
    merged = await client.patch(CONFIG_MAPS, "a", namespace, patch, kind=PatchKind.MERGE, as_=ConfigMap)
    assert view(merged.data, dict) == {"k": "2"}
    operations = [{"op": "replace", "path": "/data/k", "value": "3"}]
    patched = await client.patch(CONFIG_MAPS, "a", namespace, operations, kind=PatchKind.JSON, as_=ConfigMap)
    assert view(patched.data, dict) == {"k": "3"}
    assert await client.delete(CONFIG_MAPS, "a", namespace, uid=made.metadata.uid) is None
    with pytest.raises(errors.NotFound):
        await client.get(CONFIG_MAPS, "a", namespace)


async def test_server_side_apply_owns_its_fields_and_forces_only_when_told(client, namespace):
    async def apply(value, manager, *, force=False):
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": value}}
        return await client.patch(
            CONFIG_MAPS, "a", namespace, body, kind=PatchKind.APPLY, field_manager=manager, force=force, as_=ConfigMap
        )

    await apply("1", "one")
    with pytest.raises(errors.Conflict):
        await apply("2", "two")
    assert view((await apply("2", "two", force=True)).data, dict) == {"k": "2"}
    with pytest.raises(ValueError, match="field manager"):
        await apply("3", "")


async def test_a_delete_tells_whether_the_object_is_still_there(client, namespace):
    held = await client.create(CONFIG_MAPS, with_finalizer(config_map("held", namespace), "example.com/hold"))
    left = await client.delete(CONFIG_MAPS, "held", namespace, as_=ConfigMap)
    assert left.deleting
    assert left.metadata.uid == held.metadata.uid
    with pytest.raises(errors.Conflict):
        await client.delete(CONFIG_MAPS, "held", namespace, uid="another")
    with pytest.raises(errors.Conflict):
        await client.delete(CONFIG_MAPS, "held", namespace, resource_version=held.metadata.resourceVersion)
    removal = [{"op": "remove", "path": "/metadata/finalizers"}]
    assert (await client.patch(CONFIG_MAPS, "held", namespace, removal, kind=PatchKind.JSON)).finalized
    with pytest.raises(errors.NotFound):
        await client.delete(CONFIG_MAPS, "held", namespace)


async def test_the_status_of_an_object_is_written_apart_from_it(client, namespace):
    pool = KubeObject(
        apiVersion="ipam.metal3.io/v1alpha1",
        kind="IPPool",
        metadata=ObjectMeta(name="p", namespace=namespace),
        spec=raw({"pools": [{"start": "10.0.0.1", "end": "10.0.0.9"}], "prefix": 24, "namePrefix": "p"}),
    )
    made = await client.create(IP_POOLS, pool)
    changed = with_spec(with_status(made, {"indexes": {"a": "10.0.0.1"}}), {"prefix": 25})
    written = await client.update_status(IP_POOLS, changed)
    assert view(written.status, dict)["indexes"] == {"a": "10.0.0.1"}
    assert view(written.spec, dict)["prefix"] == 24
    assert written.metadata.resourceVersion != made.metadata.resourceVersion


async def test_a_stale_update_is_a_conflict_and_one_without_a_version_is_not_sent(client, namespace):
    made = await client.create(CONFIG_MAPS, config_map("a", namespace))
    await client.update(CONFIG_MAPS, with_labels(made, {"l": "1"}))
    with pytest.raises(errors.Conflict):
        await client.update(CONFIG_MAPS, with_labels(made, {"l": "2"}))
    with pytest.raises(ValueError, match="resourceVersion"):
        await client.update(CONFIG_MAPS, config_map("a", namespace))
    with pytest.raises(ValueError, match="namespace is needed"):
        await client.create(CONFIG_MAPS, config_map("a", ""))


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda client, ns: client.create(CONFIG_MAPS, config_map("a", ns)), errors.AlreadyExists),
        (lambda client, ns: client.create(CONFIG_MAPS, config_map("Not a name", ns)), errors.Invalid),
        (lambda client, ns: client.create(CONFIG_MAPS, config_map("a", "no-such-namespace")), errors.NotFound),
        (lambda client, _: client.raw("GET", "/apis/no.such/v1/things"), errors.NotFound),
        (lambda client, ns: client.raw("POST", CONFIG_MAPS.path(ns), body=b"{"), errors.BadRequest),
        (lambda client, ns: client.raw("DELETE", "/version"), errors.MethodNotAllowed),
    ],
    ids=lambda value: getattr(value, "__name__", "") if isinstance(value, type) else "",
)
async def test_the_servers_refusals_have_types(client, namespace, call, error):
    await client.create(CONFIG_MAPS, config_map("a", namespace))
    with pytest.raises(error):
        await call(client, namespace)


async def test_creating_in_a_namespace_that_is_going_away_is_told_apart(client, namespace):
    await client.delete(NAMESPACES, namespace)
    with pytest.raises(errors.Forbidden) as refused:
        await client.create(CONFIG_MAPS, config_map("a", namespace))
    assert refused.value.namespace_terminating


async def test_a_list_is_complete_over_pages_and_names_what_its_items_are(client, namespace):
    await asyncio.gather(
        *(client.create(CONFIG_MAPS, config_map(f"m{i}", namespace, labels={"odd": str(i % 2)})) for i in range(1203))
    )
    everything = await client.list(CONFIG_MAPS, namespace, as_=ConfigMap)
    assert len({item.key for item in everything.items}) == len(everything.items) == 1203
    assert {(item.apiVersion, item.kind) for item in everything.items} == {("v1", "ConfigMap")}
    assert int(everything.resource_version) >= max(int(item.metadata.resourceVersion) for item in everything.items)
    odd = await client.list(CONFIG_MAPS, namespace, label_selector="odd=1")
    assert len(odd.items) == 601
    one = await client.list(CONFIG_MAPS, namespace, field_selector="metadata.name=m7")
    assert [item.metadata.name for item in one.items] == ["m7"]
    bare = await client.list(CONFIG_MAPS, namespace, metadata_only=True, label_selector="odd in (0)", as_=ConfigMap)
    assert {len(memoryview(item.data)) for item in bare.items} == {0}


@pytest.mark.parametrize(("times", "complete"), [(1, True), (3, True), (4, False)])
async def test_a_list_whose_snapshot_expires_starts_again_but_not_forever(
    proxied, namespace, monkeypatch, times, complete
):
    monkeypatch.setattr("services.runtime.kube.transport.PAGE", 2)
    proxy, client = proxied
    for number in range(5):
        await client.create(CONFIG_MAPS, config_map(f"m{number}", namespace))
    expired = {"kind": "Status", "code": 410, "reason": "Expired", "message": "the continue parameter is too old"}
    left = times

    def fault(request):
        nonlocal left
        if "continue" not in request.query or not left:
            return None
        left -= 1
        return refusal(410, body=expired)

    proxy.fault = fault
    if complete:
        assert (
            len((await client.list(CONFIG_MAPS, namespace, field_selector="metadata.name!=kube-root-ca.crt")).items)
            == 5
        )
    else:
        with pytest.raises(errors.Gone):
            await client.list(CONFIG_MAPS, namespace)


async def test_a_guarded_client_refuses_to_write_and_reads_on(client, namespace):
    allowed = True

    def check():
        if not allowed:
            raise errors.NotLeader("the lease may be somebody else's")

    guarded = client.guarded(check)
    made = await guarded.create(CONFIG_MAPS, config_map("a", namespace))
    allowed = False
    writes = [
        guarded.create(CONFIG_MAPS, config_map("b", namespace)),
        guarded.update(CONFIG_MAPS, with_labels(made, {"l": "v"})),
        guarded.update_status(CONFIG_MAPS, made),
        guarded.patch(CONFIG_MAPS, "a", namespace, {}, kind=PatchKind.MERGE),
        guarded.delete(CONFIG_MAPS, "a", namespace),
        guarded.raw("POST", CONFIG_MAPS.path(namespace), body=b"{}"),
    ]
    for write in writes:
        with pytest.raises(errors.NotLeader):
            await write
    assert (await guarded.get(CONFIG_MAPS, "a", namespace)).metadata == made.metadata
    assert len((await guarded.list(CONFIG_MAPS, namespace, field_selector="metadata.name=b")).items) == 0
    assert json.loads(await guarded.raw("GET", "/version"))["major"]
    await client.delete(CONFIG_MAPS, "a", namespace)


# Watches


async def test_a_watch_shows_changes_in_order_with_lines_of_any_length(client, namespace):
    since = (await client.list(CONFIG_MAPS, namespace)).resource_version
    # A control character is six bytes of JSON and one byte in etcd, whose limit a line of this length would break.
    large = "\x01" * 450_000
    made = await client.create(CONFIG_MAPS, config_map("a", namespace, data={"k": large}))
    await client.update(CONFIG_MAPS, with_labels(made, {"l": "v"}))
    await client.delete(CONFIG_MAPS, "a", namespace)
    opened = []
    seen = [
        (event.type, decode(event.object, ConfigMap))
        async for event in client.watch(
            CONFIG_MAPS, namespace, resource_version=since, timeout_seconds=2, opened=lambda: opened.append(True)
        )
    ]
    changes = [event for event in seen if event[0] != "BOOKMARK"]
    assert [type_ for type_, _ in changes] == ["ADDED", "MODIFIED", "DELETED"]
    assert len(memoryview(changes[0][1].data)) > 2 * 2**20
    assert view(changes[2][1].data, dict) == {"k": large}
    versions = [int(obj.metadata.resourceVersion) for _, obj in seen]
    assert versions == sorted(versions)
    assert opened == [True]


async def test_open_watches_leave_room_for_requests(cluster, namespace, monkeypatch):
    monkeypatch.setattr("services.runtime.kube.config.CONNECTION_LIMIT", 2)
    async with connected(cluster.kubeconfig) as client, asyncio.TaskGroup() as group:
        opened = asyncio.Semaphore(0)

        async def watch():
            async for _ in client.watch(
                CONFIG_MAPS, namespace, resource_version="", timeout_seconds=60, opened=opened.release
            ):
                pass

        watches = [group.create_task(watch()) for _ in range(5)]
        for _ in watches:
            await asyncio.wait_for(opened.acquire(), 10)
        await client.create(CONFIG_MAPS, config_map("a", namespace))
        for task in watches:
            task.cancel()


async def test_a_watch_from_an_impossible_version_raises(client, namespace):
    with pytest.raises(errors.ApiError):
        async for _ in client.watch(CONFIG_MAPS, namespace, resource_version="abc", timeout_seconds=1):
            pass


async def test_an_error_row_is_raised_as_its_type(proxied, namespace):
    proxy, client = proxied
    row = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}}
    proxy.fault = lambda _: web.Response(body=json.dumps(row).encode() + b"\n")
    with pytest.raises(errors.Gone, match="too old"):
        async for _ in client.watch(CONFIG_MAPS, namespace, resource_version="1", timeout_seconds=1):
            pass


# Failures


async def test_an_overloaded_server_says_how_long_to_wait(proxied, namespace):
    proxy, client = proxied
    for status, error in ((429, errors.TooManyRequests), (503, errors.ServerError)):
        proxy.fault = lambda _, status=status: refusal(status, retry_after=3)
        with pytest.raises(error, match="no healthy upstream") as refused:
            await client.get(CONFIG_MAPS, "a", namespace)
        assert refused.value.retry_after == 3.0


async def test_a_request_that_gets_no_answer_ends_in_time_with_its_outcome_unknown(tunnelled, namespace):
    proxy, client = tunnelled
    await client.create(CONFIG_MAPS, config_map("a", namespace))
    proxy.stall()
    with pytest.raises(errors.RequestTimeout):
        await client.get(CONFIG_MAPS, "a", namespace)
    with pytest.raises(errors.ConnectionFailed):
        async for _ in client.watch(CONFIG_MAPS, namespace, resource_version="1", timeout_seconds=60):
            pass
    proxy.drop()
    proxy.recover()
    assert (await client.get(CONFIG_MAPS, "a", namespace)).metadata.name == "a"


async def test_a_refused_connection_is_a_failure_of_the_network(tunnelled, namespace):
    proxy, client = tunnelled
    await proxy.refuse()
    with pytest.raises(errors.ConnectionFailed):
        await client.get(CONFIG_MAPS, "a", namespace)
    with pytest.raises(errors.ConnectionFailed):
        async for _ in client.watch(CONFIG_MAPS, namespace, resource_version="1", timeout_seconds=1):
            pass
    await proxy.accept()
    with pytest.raises(errors.NotFound):
        await client.get(CONFIG_MAPS, "a", namespace)


async def test_a_connection_cut_in_the_middle_of_a_watch_is_a_failure_of_the_network(tunnelled, namespace):
    proxy, client = tunnelled
    since = (await client.list(CONFIG_MAPS, namespace)).resource_version
    with pytest.raises(errors.ConnectionFailed):
        async for _ in client.watch(
            CONFIG_MAPS, namespace, resource_version=since, timeout_seconds=60, opened=proxy.drop
        ):
            pass


async def test_requests_are_counted_by_code_and_method(proxied, namespace):
    proxy, client = proxied
    host = proxy.url.removeprefix("http://")

    def counted(code, method):
        labels = {"code": code, "method": method, "host": host}
        return metrics.REGISTRY.get_sample_value("rest_client_requests_total", labels)

    await client.create(CONFIG_MAPS, config_map("a", namespace))
    with pytest.raises(errors.NotFound):
        await client.get(CONFIG_MAPS, "b", namespace)
    assert (counted("201", "POST"), counted("404", "GET")) == (1, 1)
    proxy.fault = lambda request: request.transport.abort()
    with pytest.raises(errors.ConnectionFailed):
        await client.create(CONFIG_MAPS, config_map("c", namespace))
    assert counted("<error>", "POST") == 1


# Credentials


async def test_a_rotated_token_is_taken_when_the_old_one_is_refused(cluster, namespace, tmp_path):
    """The token is bound to a Secret, so that deleting the Secret invalidates it."""
    rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["*"]}]
    path = cluster.service_account_kubeconfig(namespace, "rotating", rules)

    def new_token(secret):
        cluster.kubectl("create", "secret", "generic", secret, f"--namespace={namespace}")
        bound = ("--bound-object-kind=Secret", f"--bound-object-name={secret}")
        return cluster.kubectl("create", "token", "rotating", f"--namespace={namespace}", *bound).strip()

    file = tmp_path / "token"
    file.write_text(new_token("first"))
    content = json.loads(cluster.kubectl("config", "view", "--raw", "--output=json", kubeconfig=path))
    content["users"][0]["user"] = {"tokenFile": str(file)}
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(content))
    async with connected(path) as client, connected(path) as stale:
        await client.list(CONFIG_MAPS, namespace)
        await stale.list(CONFIG_MAPS, namespace)
        second = await asyncio.to_thread(new_token, "second")
        await asyncio.to_thread(cluster.kubectl, "delete", "secret", "first", f"--namespace={namespace}")

        async def refused():
            try:
                await stale.list(CONFIG_MAPS, namespace)
            except errors.Unauthorized:
                return True
            return False

        # The server remembers a valid token for some seconds.
        await eventually(refused, every=0.5)
        file.write_text(second)
        await asyncio.gather(*(client.list(CONFIG_MAPS, namespace) for _ in range(10)))
        await stale.list(CONFIG_MAPS, namespace)


async def test_a_refused_request_is_repeated_once_with_its_body(proxied, namespace, tmp_path, cluster):
    proxy, _ = proxied
    token = tmp_path / "token"
    token.write_text("old")
    path = kubeconfig_at(cluster.kubeconfig, proxy.url, tmp_path / "with-token")
    content = json.loads(cluster.kubectl("config", "view", "--raw", "--output=json", kubeconfig=path))
    content["users"][0]["user"] = {"tokenFile": str(token)}
    path.write_text(json.dumps(content))
    seen = []

    def fault(request):
        seen.append(request.headers["Authorization"])
        return None if request.headers["Authorization"] == "Bearer new" else refusal(401)

    proxy.fault = fault
    async with connected(path) as client:
        with pytest.raises(errors.Unauthorized):
            await client.create(CONFIG_MAPS, config_map("a", namespace, data={"k": "v"}))
        assert seen == ["Bearer old"], "nothing new to try"
        token.write_text("new")
        made = await client.create(CONFIG_MAPS, config_map("a", namespace, data={"k": "v"}))
        assert view(made.data, dict) == {"k": "v"}
        assert seen == ["Bearer old", "Bearer old", "Bearer new"]
