"""A store fed through everything that can happen to a watch while others keep writing: it ends as a fresh list does."""

from __future__ import annotations

import asyncio
import functools
import logging
import random
import time

import pytest
from msgspec.structs import replace

from services.runtime import metrics
from services.runtime.cache.decide import SETTLED_LIMIT, Trouble
from services.runtime.cache.reflector import Reflector
from services.runtime.cache.store import Store
from services.runtime.clock import SystemClock
from services.runtime.kube.discovery import Discovery
from services.runtime.kube.errors import KubeError
from services.runtime.kube.objects import KubeObject, ObjectKey, ObjectMeta, raw, view, with_labels
from services.runtime.kube.resource import Resource
from tests.integration.configmaps import CONFIG_MAPS, ConfigMap, config_map, connected, eventually, running
from tests.integration.proxy import HttpProxy, TcpProxy, kubeconfig_at, refusal
from tools.cluster import Cluster

INACTIVITY = 2.0  # seconds; the default waits for more than a minute
VICTIM = "victim"  # an object that no writer writes again


@pytest.fixture(scope="module")
def own():
    """A cluster of this module's own, since its tests restart it."""
    with Cluster.temporary() as cluster:
        yield cluster


@pytest.fixture
def own_namespace(own):
    name = f"ns-{random.getrandbits(40):x}"
    own.kubectl("create", "namespace", name)
    return name


def version(obj):
    return int(obj.metadata.resourceVersion)


def sample(name, store, **labels):
    return metrics.REGISTRY.get_sample_value(f"groundwork_{name}", {"resource": store.name, **labels}) or 0


class Watched:
    """A store, a handler that folds what it is told, and the rule that no object ever gets older."""

    def __init__(self, name="things"):
        self.store = Store(name, {"owner": lambda obj: [(obj.metadata.labels or {}).get("owner")]})
        self.folded = {}
        self.newest = {}
        self.faults = []
        self.removed = []
        self.store.subscribe(self._fold)

    def _fold(self, old, new):
        known = self.folded.pop((old or new).key, None)
        if known is not old:
            self.faults.append(f"told about {old}, knew {known}")
        if new is None:
            self.removed.append(old.key)
            return
        translated = old is not None and old.apiVersion != new.apiVersion  # the same state in another version
        if self.newest.get(new.metadata.uid, 0) >= version(new) and not translated:
            self.faults.append(f"{new.key} went back to {version(new)} from {self.newest[new.metadata.uid]}")
        self.newest[new.metadata.uid] = version(new)
        self.folded[new.key] = new

    def versions(self):
        return {obj.key: version(obj) for obj in self.store.values()}

    async def as_listed(self, client, resource, namespace, seconds=60):
        """Wait until the store equals a fresh list, and check what was told on the way."""

        async def same():
            listed = (await client.list(resource, namespace)).items
            return {obj.key: version(obj) for obj in listed} == self.versions()

        await eventually(same, seconds)
        assert self.faults == []
        assert self.folded == {obj.key: obj for obj in self.store.values()}
        by_owner = sum(len(self.store.keys("owner", owner)) for owner in ("us", "others", None))
        assert by_owner == len(self.store)


class Writers:
    """Others, who write behind the store's back, and us, who observe our own writes; both until told to stop."""

    def __init__(self, client, namespace, store):
        self._client = client
        self._namespace = namespace
        self._store = store
        self._open = True
        self.writes = 0

    async def run(self):
        """Write until `stop`; an API server that is away is waited for."""
        async with asyncio.TaskGroup() as group:
            for name in ("others", "us"):
                group.create_task(self._write_on(name, random.Random(name)))  # the same order of writes each time

    def stop(self):
        self._open = False

    async def create(self, name):
        await self._client.create(CONFIG_MAPS, config_map(name, self._namespace))

    async def delete(self, name):
        await self._client.delete(CONFIG_MAPS, name, self._namespace)

    async def _write_on(self, owner, chance):
        while self._open:
            try:
                await self._write(owner, f"{owner}-{chance.randrange(12)}", chance.random())
                self.writes += 1
            except KubeError:
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.005)

    async def _write(self, owner, name, chance):
        key = ObjectKey(self._namespace, name)
        ours = owner == "us"
        known = self._store.get(key) if ours else await self._find(name)
        if known is None:
            new = config_map(name, self._namespace, labels={"owner": owner}, data={"n": str(self.writes)})
            written = await self._client.create(CONFIG_MAPS, new)
        elif chance < 0.25:
            await self._client.delete(CONFIG_MAPS, name, self._namespace, uid=known.metadata.uid)
            if ours:
                self._store.forget(key, known.metadata.uid)
                seen = self._store.get(key)
                assert seen is None or seen.metadata.uid != known.metadata.uid
            return
        else:
            written = await self._client.update(CONFIG_MAPS, with_labels(known, {"n": str(self.writes)}))
        if ours:
            self._store.observe(written)
            seen = self._store.get(key)
            assert seen is None or version(seen) >= version(written)

    async def _find(self, name):
        found = await self._client.list(
            CONFIG_MAPS, self._namespace, field_selector=f"metadata.name={name}", as_=ConfigMap
        )
        return found.items[0] if found.items else None


# Everything that can happen to a watch


async def compaction(cluster, proxy, writers):
    """The watch is frozen while an object is deleted and the history it would resume from is thrown away."""
    before = writers.writes
    proxy.freeze()
    await writers.delete(VICTIM)
    await eventually(lambda: writers.writes > before + 20)
    await asyncio.to_thread(cluster.expire_watches)


async def restart(cluster, proxy, writers):
    await asyncio.to_thread(cluster.stop_apiserver, grace=1.0)
    await asyncio.sleep(0.5)
    await asyncio.to_thread(cluster.start_apiserver)


async def crash(cluster, proxy, writers):
    await asyncio.to_thread(cluster.kill_apiserver)
    await asyncio.to_thread(cluster.start_apiserver)


async def dropped_connections(cluster, proxy, writers):
    for _ in range(5):
        proxy.drop()
        await asyncio.sleep(0.3)


async def refused_connections(cluster, proxy, writers):
    await proxy.refuse()
    proxy.drop()
    await asyncio.sleep(1.5)
    await proxy.accept()


async def stalled_connection(cluster, proxy, writers):
    proxy.freeze()
    await asyncio.sleep(INACTIVITY + 1)


async def stalled_network(cluster, proxy, writers):
    proxy.stall()
    await asyncio.sleep(INACTIVITY + 1)
    proxy.recover()


FAULTS = [
    (compaction, "expired"),
    (restart, "unreachable"),
    (crash, "unreachable"),
    (dropped_connections, "unreachable"),
    (refused_connections, "unreachable"),
    (stalled_connection, "silent"),
    (stalled_network, "silent"),
]


@pytest.mark.parametrize(("fault", "cause"), FAULTS, ids=[fault.__name__ for fault, _ in FAULTS])
async def test_a_store_comes_through(own, own_namespace, tmp_path, fault, cause):
    watched = Watched(fault.__name__)
    async with TcpProxy(own.url) as proxy, connected(own.kubeconfig) as direct:
        path = kubeconfig_at(own.kubeconfig, proxy.url, tmp_path / "kubeconfig")
        async with connected(path) as client:
            reflector = Reflector(
                client,
                CONFIG_MAPS,
                watched.store,
                clock=SystemClock(),
                as_=ConfigMap,
                namespace=own_namespace,
                inactivity=INACTIVITY,
            )
            writers = Writers(direct, own_namespace, watched.store)
            await writers.create(VICTIM)
            async with running(reflector.run()):
                await asyncio.wait_for(watched.store.wait_synced(), 30)
                assert ObjectKey(own_namespace, VICTIM) in watched.store
                writing = asyncio.ensure_future(writers.run())
                await eventually(lambda: writers.writes > 50)
                await fault(own, proxy, writers)
                after = writers.writes
                await eventually(lambda: writers.writes > after + 50)
                writers.stop()
                await writing
                await watched.as_listed(direct, CONFIG_MAPS, own_namespace)
                if cause == "expired":
                    assert sample("reflector_relists_total", watched.store) > 0
                assert sample("reflector_interruptions_total", watched.store, cause=cause) > 0
                await eventually(lambda: reflector.trouble is None)


@pytest.mark.parametrize("status", [429, 503])
async def test_a_store_comes_through_an_overloaded_server(own, own_namespace, tmp_path, status):
    watched = Watched(f"overloaded-{status}")
    async with HttpProxy(own.kubeconfig) as proxy, connected(own.kubeconfig) as direct:
        path = kubeconfig_at(own.kubeconfig, proxy.url, tmp_path / "kubeconfig")
        async with connected(path) as client:
            reflector = Reflector(
                client,
                CONFIG_MAPS,
                watched.store,
                clock=SystemClock(),
                as_=ConfigMap,
                namespace=own_namespace,
                inactivity=INACTIVITY,
            )
            # From the start: lists are refused, later watches are.
            proxy.fault = lambda _: refusal(status, retry_after=1)
            writers = Writers(direct, own_namespace, watched.store)
            async with running(reflector.run()):
                writing = asyncio.ensure_future(writers.run())
                await eventually(lambda: reflector.trouble is Trouble.OVERLOADED)
                requests, began = len(proxy.requests), time.monotonic()
                await asyncio.sleep(2.0)
                seconds = time.monotonic() - began
                assert len(proxy.requests) - requests <= 1 + seconds, "it waits for as long as the server asks"
                assert not watched.store.synced
                proxy.fault = None
                await asyncio.wait_for(watched.store.wait_synced(), 30)
                await eventually(lambda: proxy.watches)
                proxy.fault = lambda _: refusal(status)
                proxy.cut_watches()
                await eventually(lambda: reflector.trouble is Trouble.OVERLOADED)
                proxy.fault = None
                after = writers.writes
                await eventually(lambda: writers.writes > after + 50)
                writers.stop()
                await writing
                await watched.as_listed(direct, CONFIG_MAPS, own_namespace)


async def test_a_list_that_expires_between_two_pages_starts_again(own, own_namespace, tmp_path, monkeypatch):
    monkeypatch.setattr("services.runtime.kube.transport.PAGE", 10)
    expired = {"kind": "Status", "code": 410, "reason": "Expired", "message": "the continue parameter is too old"}
    watched = Watched("pages")
    async with HttpProxy(own.kubeconfig) as proxy, connected(own.kubeconfig) as direct:
        await asyncio.gather(
            *(direct.create(CONFIG_MAPS, config_map(f"m{number}", own_namespace)) for number in range(35))
        )
        path = kubeconfig_at(own.kubeconfig, proxy.url, tmp_path / "kubeconfig")
        pages = []

        def fault(request):
            if "watch" in request.query:
                return None
            pages.append("continue" in request.query)
            return refusal(410, body=expired) if len(pages) == 3 else None

        proxy.fault = fault
        async with connected(path) as client:
            reflector = Reflector(
                client, CONFIG_MAPS, watched.store, clock=SystemClock(), as_=ConfigMap, namespace=own_namespace
            )
            async with running(reflector.run()):
                await asyncio.wait_for(watched.store.wait_synced(), 30)
                await watched.as_listed(direct, CONFIG_MAPS, own_namespace)
    assert pages == [False, True, True, False, True, True, True]


async def test_several_namespaces_feed_one_store(cluster):
    names = [f"feed-{random.getrandbits(40):x}" for _ in range(3)]
    for name in names:
        await asyncio.to_thread(cluster.kubectl, "create", "namespace", name)
    store = Store("feeds")
    async with connected(cluster.kubeconfig) as client:
        reflectors = [
            Reflector(client, CONFIG_MAPS, store, clock=SystemClock(), as_=ConfigMap, namespace=name)
            for name in names[:2]
        ]
        for name in names:
            await client.create(CONFIG_MAPS, config_map("before", name))
        async with running(*(reflector.run() for reflector in reflectors)):
            await asyncio.wait_for(store.wait_synced(), 30)
            for name in names:
                await client.create(CONFIG_MAPS, config_map("after", name))
            await eventually(lambda: len(store) == 4)
            assert {key.namespace for key in (obj.key for obj in store.values())} == set(names[:2])


async def test_a_selector_narrows_what_is_followed(cluster, namespace):
    watched = Watched("selected")
    async with connected(cluster.kubeconfig) as client:
        made = await client.create(CONFIG_MAPS, config_map("a", namespace, labels={"owner": "us"}))
        await client.create(CONFIG_MAPS, config_map("b", namespace))
        reflector = Reflector(
            client,
            CONFIG_MAPS,
            watched.store,
            clock=SystemClock(),
            as_=ConfigMap,
            namespace=namespace,
            label_selector="owner=us",
        )
        async with running(reflector.run()):
            await asyncio.wait_for(watched.store.wait_synced(), 30)
            assert list(watched.versions()) == [made.key]
            await client.update(CONFIG_MAPS, with_labels(made, {"owner": "others"}))
            await eventually(lambda: len(watched.store) == 0)


# What is not allowed yet, not served yet, not served any more


async def test_a_reflector_that_is_refused_says_so_once_and_recovers_when_it_is_allowed(cluster, namespace, caplog):
    caplog.set_level(logging.INFO)
    path = await asyncio.to_thread(cluster.service_account_kubeconfig, namespace, "reader", [])
    store = Store("refused")
    # Short waits, so that several tries are made.
    async with connected(cluster.kubeconfig) as admin, connected(path) as client:
        await admin.create(CONFIG_MAPS, config_map("a", namespace))
        reflector = Reflector(
            client, CONFIG_MAPS, store, clock=SystemClock(), as_=ConfigMap, namespace=namespace, jitter=lambda: 0.1
        )
        async with running(reflector.run()):
            await eventually(lambda: sample("reflector_interruptions_total", store, cause="denied") >= 3)
            assert reflector.trouble is Trouble.DENIED
            assert not store.synced
            assert reflector.last_contact is None
            rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list", "watch"]}]
            await asyncio.to_thread(cluster.service_account_kubeconfig, namespace, "reader", rules)
            await asyncio.wait_for(store.wait_synced(), 30)
            await eventually(lambda: reflector.trouble is None)
            assert ObjectKey(namespace, "a") in store
    told = [
        (record.levelname, record.getMessage())
        for record in caplog.records
        if getattr(record, "groundwork_fields", {}).get("store") == "refused"
    ]
    assert told == [("WARNING", "Cannot follow the server"), ("INFO", "Following the server again")]


def definition(group, plural, kind, versions):
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "names": {"plural": plural, "singular": kind.lower(), "kind": kind},
            "scope": "Namespaced",
            "versions": [
                {"name": name, "served": True, "storage": index == 0, "schema": schema}
                for index, name in enumerate(versions)
            ],
        },
    }


async def test_a_resource_that_is_installed_later_is_followed_and_one_that_is_removed_is_empty(
    own, own_namespace, monkeypatch
):
    # Nobody tries again within the time of this test, unless a change of what is served wakes it.
    monkeypatch.setattr("services.runtime.cache.decide.BASE_DELAY", 600.0)
    monkeypatch.setattr("services.runtime.cache.decide.MAX_DELAY", 600.0)
    patience = 0.999
    group = f"g{random.getrandbits(32):x}.example.com"
    candidates = [Resource(group, version_, "widgets", "Widget", namespaced=True) for version_ in ("v2", "v1")]
    watched = Watched("widgets")
    async with connected(own.kubeconfig) as client:
        discovery = Discovery(client, SystemClock())
        reflector = Reflector(
            client,
            functools.partial(discovery.pick, candidates),
            watched.store,
            clock=SystemClock(),
            namespace=own_namespace,
            discovery=discovery,
            jitter=lambda: patience,
        )
        async with running(discovery.run(), reflector.run()):
            await asyncio.wait_for(watched.store.wait_synced(), 30)
            assert len(watched.store) == 0
            assert reflector.trouble is Trouble.UNSERVED
            assert await discovery.served(group) == set()

            patience = 0.001  # for what happens between a definition and its being served
            await asyncio.to_thread(own.install_crds, definition(group, "widgets", "Widget", ["v1"]))
            widget = KubeObject(
                apiVersion=f"{group}/v1",
                kind="Widget",
                metadata=ObjectMeta(name="w", namespace=own_namespace),
                spec=raw({"size": 3}),
            )
            await client.create(candidates[1], widget)
            found = await eventually(lambda: watched.store.get(widget.key))
            assert view(found.spec, dict) == {"size": 3}
            assert await discovery.served(group) == {"v1"}
            assert await discovery.pick(candidates) is candidates[1]

            await asyncio.to_thread(own.kubectl, "delete", "crd", f"widgets.{group}", "--wait=false")
            # No controller deletes the objects here, so the deletion of the definition waits for nothing.
            await eventually(lambda: len(watched.store) == 0)

            await asyncio.to_thread(own.install_crds, definition(group, "widgets", "Widget", ["v2", "v1"]))
            second = await client.create(candidates[0], widget_of(widget, f"{group}/v2"))
            await eventually(lambda: watched.store.get(second.key))
            assert await discovery.pick(candidates) is candidates[0]
    assert watched.faults == []


async def test_what_is_not_installed_is_not_asked_for_again_and_again(own, own_namespace, monkeypatch):
    monkeypatch.setattr("services.runtime.cache.decide.BASE_DELAY", 0.01)
    monkeypatch.setattr("services.runtime.cache.decide.MAX_DELAY", 0.01)
    group = f"g{random.getrandbits(32):x}.example.com"
    gadgets = Resource(group, "v1", "gadgets", "Gadget", namespaced=True)
    asked = []
    async with connected(own.kubeconfig) as client:
        discovery = Discovery(client, SystemClock())

        async def choose():
            asked.append(discovery.live)
            return await discovery.pick([gadgets])

        store = Store("gadgets")
        reflector = Reflector(
            client, choose, store, clock=SystemClock(), namespace=own_namespace, discovery=discovery, jitter=lambda: 0.9
        )
        async with running(reflector.run()):
            # Nobody tells of changes, so it goes on asking.
            await eventually(lambda: len(asked) > 2 * SETTLED_LIMIT)
            async with running(discovery.run()):
                await eventually(lambda: discovery.live and asked[-1])
                before = len(asked)
                await asyncio.sleep(0.5)
                # The first list of definitions is a change, after which it asks a few times, a hundredth second apart.
                assert len(asked) <= before + SETTLED_LIMIT + 1
                await asyncio.to_thread(own.install_crds, definition(group, "gadgets", "Gadget", ["v1"]))
                await eventually(lambda: reflector.trouble is None)


async def test_a_version_that_is_preferred_is_followed_once_it_is_served(own, own_namespace, monkeypatch):
    monkeypatch.setattr("services.runtime.cache.reflector.RECHECKS", (0.05, 0.5))
    group = f"g{random.getrandbits(32):x}.example.com"
    candidates = [Resource(group, version_, "widgets", "Widget", namespaced=True) for version_ in ("v2", "v1")]
    watched = Watched("widgets")
    old, new = (definition(group, "widgets", "Widget", versions) for versions in (["v1"], ["v1", "v2"]))
    await asyncio.to_thread(own.install_crds, old)
    async with connected(own.kubeconfig) as client:
        discovery = Discovery(client, SystemClock())
        reflector = Reflector(
            client,
            functools.partial(discovery.pick, candidates),
            watched.store,
            clock=SystemClock(),
            namespace=own_namespace,
            discovery=discovery,
        )
        async with running(discovery.run(), reflector.run()):
            meta = ObjectMeta(name="w", namespace=own_namespace)
            widget = KubeObject(apiVersion=f"{group}/v1", kind="Widget", metadata=meta, spec=raw({"size": 3}))
            await client.create(candidates[1], widget)
            await eventually(lambda: watched.store.get(widget.key))
            await asyncio.to_thread(own.install_crds, new)
            await eventually(lambda: watched.store.get(widget.key).apiVersion == f"{group}/v2")
            second = widget_of(widget, f"{group}/v1")
            await client.create(candidates[1], replace(second, metadata=replace(meta, name="second")))
            found = await eventually(lambda: watched.store.get(ObjectKey(own_namespace, "second")))
            assert found.apiVersion == f"{group}/v2"
    assert watched.faults == []
    assert watched.removed == []


def widget_of(widget, api_version):
    return KubeObject(apiVersion=api_version, kind=widget.kind, metadata=widget.metadata, spec=widget.spec)


async def test_a_restart_of_the_server_does_not_empty_a_store_of_custom_resources(own, own_namespace):
    """A server that starts does not know its custom resources at first."""
    group = f"g{random.getrandbits(32):x}.example.com"
    gadgets = Resource(group, "v1", "gadgets", "Gadget", namespaced=True)
    await asyncio.to_thread(own.install_crds, definition(group, "gadgets", "Gadget", ["v1"]))
    watched = Watched("gadgets")
    async with connected(own.kubeconfig) as client:
        discovery = Discovery(client, SystemClock())
        reflector = Reflector(
            client,
            functools.partial(discovery.pick, [gadgets]),
            watched.store,
            clock=SystemClock(),
            namespace=own_namespace,
            discovery=discovery,
            jitter=lambda: 0.05,  # impatient, to meet the server while it starts
        )
        for number in range(5):
            meta = ObjectMeta(name=f"g{number}", namespace=own_namespace)
            await client.create(gadgets, KubeObject(apiVersion=f"{group}/v1", kind="Gadget", metadata=meta))
        async with running(discovery.run(), reflector.run()):
            await asyncio.wait_for(watched.store.wait_synced(), 30)
            await asyncio.to_thread(own.kill_apiserver)
            await asyncio.to_thread(own.start_apiserver)
            await eventually(lambda: reflector.trouble is None)
            await watched.as_listed(client, gadgets, own_namespace)
    assert watched.removed == []


async def test_a_word_that_a_resource_is_not_served_does_not_empty_a_store_until_it_is_repeated(
    cluster, namespace, tmp_path
):
    watched = Watched("doubted")
    async with HttpProxy(cluster.kubeconfig) as proxy, connected(cluster.kubeconfig) as direct:
        path = kubeconfig_at(cluster.kubeconfig, proxy.url, tmp_path / "kubeconfig")
        await direct.create(CONFIG_MAPS, config_map("a", namespace))
        async with connected(path) as client:
            reflector = Reflector(
                client,
                CONFIG_MAPS,
                watched.store,
                clock=SystemClock(),
                as_=ConfigMap,
                namespace=namespace,
                jitter=lambda: 0.01,
            )
            refused = 0

            def not_found(times):
                def fault(_):
                    nonlocal refused
                    refused += 1
                    return refusal(404, body="404 page not found") if refused <= times else None

                return fault

            async with running(reflector.run()):
                await asyncio.wait_for(watched.store.wait_synced(), 30)
                for times, removed in ((2, []), (3, [ObjectKey(namespace, "a")])):
                    refused, proxy.fault = 0, not_found(times + 1)  # the first one ends the watch
                    await eventually(lambda: proxy.watches)
                    proxy.cut_watches()
                    await eventually(lambda: refused > times + 1 and reflector.trouble is None)  # noqa: B023 - at once
                    assert watched.removed == removed
                    assert len(watched.store) == 1
