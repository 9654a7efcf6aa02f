"""Conflicts on their way into a status that several replicas write, on the real API server; no webhook runs."""

from __future__ import annotations

import pytest

from services.podpreset.api import NAMESPACED_KIND, POD_PRESETS, PresetKey
from services.podpreset.conflicts import LAST_CONFLICTS, ConflictReporter
from services.podpreset.presets import Caches
from services.runtime.clock import SystemClock
from services.runtime.kube.objects import KubeObject
from tests.support.kube import manifest


class Replica:
    """A reporter, and caches that see what they are told to."""

    def __init__(self, kube, key):
        self.kube = kube
        self.key = key
        self.caches = Caches(lambda _: None)
        self.reporter = ConflictReporter(kube.client, self.caches, SystemClock(), period=10.0)

    async def look(self):
        """Let the caches see the preset as it is now."""
        listed = await self.kube.client.list(POD_PRESETS, self.key.namespace, as_=KubeObject)
        self.caches.presets[NAMESPACED_KIND].replace(listed.items, listed.resource_version)
        return self

    def record(self, message, count=1):
        for _ in range(count):
            self.reporter.record(self.key, message, self.key.namespace, "pod")

    async def flush(self):
        await self.reporter.flush()
        return (await self.kube.get(POD_PRESETS, self.key.name, self.key.namespace)).get("status", {})


@pytest.fixture
async def replicas(kube, namespace):
    """Two replicas that know one preset."""
    spec = {"env": [{"name": "A", "value": "x"}]}
    await kube.create(POD_PRESETS, manifest(POD_PRESETS, "preset", namespace, spec))
    key = PresetKey(NAMESPACED_KIND, namespace, "preset")
    return [await Replica(kube, key).look() for _ in range(2)]


def kinds(status):
    return {conflict["message"]: conflict["count"] for conflict in status["lastConflicts"]}


async def test_what_was_recorded_is_written_once(replicas):
    one, _ = replicas
    one.record("a", 3)
    first = await one.flush()
    assert (first["conflicts"], kinds(first)) == (3, {"a": 3})
    assert await one.flush() == first


async def test_two_replicas_add_up_although_one_of_them_writes_on_an_old_state(replicas):
    one, two = replicas
    two.record("theirs", 5)
    await two.flush()
    one.record("mine")
    lost = await one.flush()
    assert kinds(lost) == {"theirs": 5}, "the state that it was computed from is gone: nothing is overwritten"
    one.record("mine")
    await one.look()
    both = await one.flush()
    assert (both["conflicts"], kinds(both)) == (7, {"mine": 2, "theirs": 5})


async def test_conflicts_of_a_preset_that_is_gone_are_dropped(kube, replicas):
    one, _ = replicas
    one.record("a")
    await kube.delete(POD_PRESETS, "preset", one.key.namespace)
    await one.reporter.flush()
    spec = {"env": [{"name": "A", "value": "x"}]}
    await kube.create(POD_PRESETS, manifest(POD_PRESETS, "preset", one.key.namespace, spec))
    await one.look()
    assert await one.flush() == {}, "they were not those of the one that has its name now"


async def test_memory_is_bounded_whatever_is_recorded(replicas):
    one, _ = replicas
    for number in range(1000):
        one.record(f"kind {number} {'x' * 5000}")
    status = await one.flush()
    assert status["conflicts"] == 1000
    assert len(status["lastConflicts"]) == LAST_CONFLICTS
