"""Events as users see them, on a real API server."""

from __future__ import annotations

import asyncio
import json
import random

import pytest

from services.runtime import metrics
from services.runtime.clock import SystemClock
from services.runtime.kube.events import NOTE_LIMIT, EventRecorder, Regarding
from services.runtime.kube.resource import EVENTS
from tests.integration.configmaps import CONFIG_MAPS, NAMESPACES, config_map, connected, eventually, running
from tests.integration.proxy import TcpProxy, kubeconfig_at


class Hurried(SystemClock):
    """The real time, but pauses last a twentieth: ten seconds between two rounds are half a second."""

    async def sleep(self, seconds):
        await super().sleep(seconds / 20)


@pytest.fixture
async def client(cluster):
    async with connected(cluster.kubeconfig, user_agent="events-test/1") as client:
        yield client


@pytest.fixture
async def recorder(client):
    recorder = EventRecorder(client, "groundwork.dev/test", Hurried())
    async with running(recorder.run()):
        yield recorder


async def events_of(client, namespace, name):
    found = json.loads(await client.raw("GET", EVENTS.path(namespace)))["items"]
    return [event for event in found if event["regarding"].get("name") == name]


def dropped(reason):
    return metrics.REGISTRY.get_sample_value("groundwork_events_dropped_total", {"reason": reason}) or 0


async def test_an_event_stands_below_its_object(client, recorder, namespace):
    made = await client.create(CONFIG_MAPS, config_map("a", namespace))
    recorder.event(made, "Normal", "Bound", "address 10.0.0.1 is bound", "Allocate")
    (event,) = await eventually(lambda: events_of(client, namespace, "a"))
    assert event["regarding"] == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "namespace": namespace,
        "name": "a",
        "uid": made.metadata.uid,
        "resourceVersion": made.metadata.resourceVersion,
    }
    fields = ("type", "reason", "note", "action", "reportingController")
    assert [event[field] for field in fields] == [
        "Normal",
        "Bound",
        "address 10.0.0.1 is bound",
        "Allocate",
        "groundwork.dev/test",
    ]
    assert event["reportingInstance"].startswith("test-")
    assert "series" not in event


async def test_the_same_event_again_counts_instead_of_adding_an_object(client, recorder, namespace):
    made = await client.create(CONFIG_MAPS, config_map("a", namespace))
    recorder.event(made, "Warning", "Exhausted", "no address left")
    await eventually(lambda: events_of(client, namespace, "a"))
    for _ in range(4):
        recorder.event(made, "Warning", "Exhausted", "no address left")

    async def counted():
        (event,) = await events_of(client, namespace, "a")
        return event.get("series", {}).get("count") == 5

    await eventually(counted)


async def test_an_event_that_the_server_has_expired_is_written_anew(client, recorder, namespace):
    made = await client.create(CONFIG_MAPS, config_map("a", namespace))
    recorder.event(made, "Warning", "Exhausted", "no address left")
    (event,) = await eventually(lambda: events_of(client, namespace, "a"))
    await client.delete(EVENTS, event["metadata"]["name"], namespace)
    recorder.event(made, "Warning", "Exhausted", "no address left")
    (again,) = await eventually(lambda: events_of(client, namespace, "a"))
    assert again["metadata"]["name"] != event["metadata"]["name"]


async def test_an_event_about_a_cluster_scoped_object_is_in_the_default_namespace(client, recorder, namespace):
    recorder.event(await client.get(NAMESPACES, namespace), "Normal", "Seen", "m")
    (event,) = await eventually(lambda: events_of(client, "default", namespace))
    assert event["regarding"]["kind"] == "Namespace"


@pytest.mark.parametrize(
    "name", ["x" * 253, "x" * 235 + "-" * 17 + "y", "a.b-c"], ids=["long", "cut at a dash", "dots"]
)
async def test_whatever_the_name_and_the_message_the_server_takes_the_event(client, recorder, namespace, name):
    about = Regarding("v1", "ConfigMap", namespace, name)
    recorder.event(about, "Warning", "R" * 200, "ü" * NOTE_LIMIT, "A" * 200)
    (event,) = await eventually(lambda: events_of(client, namespace, name))
    assert len(event["note"].encode()) == NOTE_LIMIT


async def test_an_event_that_nobody_will_ever_take_is_dropped_and_counted(client, recorder, namespace):
    made = await client.create(CONFIG_MAPS, config_map("a", namespace))
    await client.delete(NAMESPACES, namespace)
    before = dropped("failed")
    recorder.event(made, "Normal", "TooLate", "m")
    recorder.event(Regarding("v1", "ConfigMap", f"never-{random.getrandbits(32):x}", "b"), "Normal", "Nowhere", "m")
    recorder.event(Regarding("v1", "ConfigMap", "", "still-works"), "Normal", "Fine", "m")
    await eventually(lambda: events_of(client, "default", "still-works"))
    assert dropped("failed") == before + 2


async def test_events_wait_for_a_server_that_is_away(cluster, client, namespace, tmp_path):
    made = await client.create(CONFIG_MAPS, config_map("a", namespace))
    async with TcpProxy(cluster.url) as proxy:
        path = kubeconfig_at(cluster.kubeconfig, proxy.url, tmp_path / "kubeconfig")
        await proxy.refuse()
        async with connected(path) as cut_off:
            recorder = EventRecorder(cut_off, "groundwork.dev/test", SystemClock())
            async with running(recorder.run()):
                recorder.event(made, "Normal", "Bound", "m")
                await asyncio.sleep(0.5)
                await proxy.accept()
                await eventually(lambda: events_of(client, namespace, "a"))
