"""Metrics of several processes as one, and processes that cannot be started."""

import asyncio
import socket

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from services.runtime import processes
from services.runtime.clock import SystemClock
from services.runtime.processes import Family, Supervisor, combined


def registry(asked, open_now, seconds=()):
    made = CollectorRegistry()
    Counter("asked_total", "d", ("path",), registry=made).labels("/a").inc(asked)
    Gauge("open", "d", registry=made).set(open_now)
    times = Histogram("seconds", "d", buckets=(1.0, 2.0), registry=made)
    for value in seconds:
        times.observe(value)
    return made


def families(made):
    return [
        Family(found.name, found.documentation, found.type, [(s.name, s.labels, s.value) for s in found.samples])
        for found in made.collect()
    ]


def samples(metrics):
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for metric in metrics
        for sample in metric.samples
        if not sample.name.endswith("_created")
    }


def test_counters_and_histograms_are_summed_and_gauges_are_labelled():
    others = {"1": families(registry(10, 2, (0.5, 1.5))), "2": families(registry(100, 3, (5.0,)))}
    assert samples(combined(registry(1, 1, (0.5,)).collect(), others)) == {
        ("asked_total", ("path", "/a")): 111,
        ("open",): 1,
        ("open", ("process", "1")): 2,
        ("open", ("process", "2")): 3,
        ("seconds_bucket", ("le", "1.0")): 2,
        ("seconds_bucket", ("le", "2.0")): 3,
        ("seconds_bucket", ("le", "+Inf")): 4,
        ("seconds_count",): 4,
        ("seconds_sum",): 7.5,
    }


def test_what_a_process_that_has_ended_counted_stays_in_the_sums_alone():
    found = samples(combined(registry(1, 1).collect(), {"": families(registry(10, 2))}))
    assert found["asked_total", ("path", "/a")] == 11
    assert [key for key in found if key[0] == "open"] == [("open",)]


def test_series_that_only_one_process_has_are_kept():
    made = CollectorRegistry()
    Counter("rare_total", "d", ("why",), registry=made).labels("x").inc()
    found = samples(combined(registry(1, 1).collect(), {"1": families(made)}))
    assert found["rare_total", ("why", "x")] == 1
    assert found["asked_total", ("path", "/a")] == 1


async def test_a_process_that_cannot_be_started_is_tried_again(tmp_path, logged, monkeypatch):
    monkeypatch.setattr(processes, "_BACKOFF_SECONDS", (0.05, 0.05))
    command = tmp_path / "command"

    def records(message):
        return [record for record in logged() if record["msg"] == message]

    async def until(condition):
        async with asyncio.timeout(20):
            while not condition():  # noqa: ASYNC110 - it happens in another process
                await asyncio.sleep(0.01)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        supervisor = Supervisor(1, listener, SystemClock(), [str(command)])
        running = asyncio.create_task(supervisor.run())
        await until(lambda: len(records("A process cannot be started")) >= 2 or running.done())
        assert not running.done()
        assert supervisor.check() == "process 1: starting"
        fresh = tmp_path / "fresh"
        fresh.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\nexec sleep 60\n")
        fresh.chmod(0o755)
        fresh.rename(command)
        await until((tmp_path / "started").exists)
        await supervisor.drain()
        await running
