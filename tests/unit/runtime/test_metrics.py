import subprocess
import sys

import prometheus_client
import pytest
from prometheus_client.parser import text_string_to_metric_families

from services.runtime import metrics
from services.runtime.controller import Controller
from services.runtime.queue import WorkQueue

NAMES = {
    "controller_runtime_active_workers": {"controller"},
    "controller_runtime_max_concurrent_reconciles": {"controller"},
    "controller_runtime_reconcile_errors": {"controller"},
    "controller_runtime_reconcile_panics": {"controller"},
    "controller_runtime_reconcile_time_seconds": {"controller"},
    "controller_runtime_reconcile_timeouts": {"controller"},
    "controller_runtime_reconcile": {"controller", "result"},
    "controller_runtime_terminal_reconcile_errors": {"controller"},
    "workqueue_adds": {"name", "controller"},
    "workqueue_depth": {"name", "controller"},
    "workqueue_longest_running_processor_seconds": {"name", "controller"},
    "workqueue_queue_duration_seconds": {"name", "controller"},
    "workqueue_retries": {"name", "controller"},
    "workqueue_unfinished_work_seconds": {"name", "controller"},
    "workqueue_work_duration_seconds": {"name", "controller"},
}


def families():
    body, content_type = metrics.render()
    assert content_type.startswith("text/plain; version=")
    return {family.name: family for family in text_string_to_metric_families(body.decode())}


async def nothing(_key):
    return None


def test_dashboards_made_for_controller_runtime_find_their_metrics_and_labels():
    controller = Controller("rendered", nothing)
    rendered = families()
    for name, labels in NAMES.items():
        samples = [entry for entry in rendered[name].samples if entry.labels.get("controller") == controller.name]
        assert samples, name
        assert all(set(entry.labels) - {"le"} == labels for entry in samples), name


def test_every_result_of_a_reconcile_is_there_from_the_start():
    controller = Controller("fresh", nothing)
    results = {
        entry.labels["result"]: entry.value
        for entry in families()["controller_runtime_reconcile"].samples
        if entry.labels["controller"] == controller.name
    }
    assert results == {"success": 0, "error": 0, "requeue": 0, "requeue_after": 0}


def test_the_process_and_the_garbage_collector_are_measured():
    rendered = families()
    assert {"process_resident_memory_bytes", "process_open_fds", "python_info", "python_gc_collections"} <= set(
        rendered
    )


def test_there_are_no_created_series():
    queue = WorkQueue("rendered")
    body, _ = metrics.render()
    assert f'name="{queue.name}"'.encode() in body
    assert b"_created" not in body


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", "text/plain"),
        ("text/plain", "text/plain"),
        ("application/openmetrics-text", "application/openmetrics-text"),
    ],
)
def test_the_format_is_the_one_the_scraper_asks_for(accept, content_type):
    body, given = metrics.render(accept)
    assert given.startswith(content_type)
    assert (b"# EOF" in body) == ("openmetrics" in content_type)


def test_what_libraries_register_globally_is_not_served():
    prometheus_client.Counter("somebody_elses_total", "A metric of a library.")
    assert "somebody_elses" not in families()


def test_the_queue_and_the_metrics_load_neither_http_nor_kubernetes_libraries():
    code = "import sys, services.runtime.queue; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"aiohttp", "kubernetes_asyncio"} & set(loaded)


def test_what_is_known_of_a_counter_is_shown_before_it_happens(monkeypatch):
    monkeypatch.setattr(metrics, "REGISTRY", prometheus_client.CollectorRegistry())
    made = metrics.counter("doors_total", "Doors.", ("kind",), known=(("front",), ("back",)))
    made.labels("back").inc()
    seen = {sample.labels["kind"]: sample.value for family in made.collect() for sample in family.samples}
    assert seen == {"front": 0, "back": 1}


def test_nothing_is_said_of_a_published_ca_where_none_is_published():
    # An alert on 0 must not fire where cert-manager does the work.
    program = (
        "from services.runtime import certs_managed, metrics\n"
        "print(metrics.REGISTRY.get_sample_value('groundwork_webhook_ca_published'))"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout == "nan\n"
