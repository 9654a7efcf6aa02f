"""Measurements of the pod preset webhook: pods through a real API server with it and without it, and its handler alone.

Responsible for: what is done in which order and what is read off.
Invariants: with and without take turns in one run, so that a noisy minute falls on both. Every pod is looked at: one
that did not get its preset, or got it where nobody was to be asked, is a BenchError. Speed never is.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import ssl
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import aiohttp

from services.podpreset.api import CLUSTER_POD_PRESETS, POD_PRESETS
from services.podpreset.presets import Caches
from services.podpreset.reviewer import Reviewer
from services.runtime import admission
from services.runtime.kube.objects import KubeObject, decode
from services.runtime.kube.resource import Resource
from tests.bench.load import BenchError
from tests.bench.report import Target, table
from tests.bench.stage import Stage, stage
from tests.support.webhook import SCOPE_LABEL, Webhook
from tools.progress import say, step

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from services.runtime.kube.transport import Client

PODS = Resource("", "v1", "pods", "Pod", namespaced=True)
SCOPE = NAMESPACE = "bench-pods"
IN_FLIGHT = 16
ROUND, ROUNDS, WARM_UP = 500, 3, 200
REVIEWS = 5000
SERVED = 3200
RATIO = 0.45
HANDLER_P99_MS, CPU_MS = 5.0, 1.0
GROWTH = 1.25
"""How much more a review may take with 1,000 presets in 200 namespaces than with 10: what timers cannot tell apart."""


class Options(NamedTuple):
    """How the webhook is run; None is the program's own default."""

    uvloop: bool | None = None
    processes: int = 1


# -- what is created ---------------------------------------------------------------------------------------------------


def proxy(name: str, namespace: str = "", number: int = 0) -> dict[str, Any]:
    """A preset as people have them: a proxy, a list, a certificate bundle or a volume."""
    resource = POD_PRESETS if namespace else CLUSTER_POD_PRESETS
    env = [{"name": "NO_PROXY", "value": f".svc,.cluster.local,10.{number % 256}.0.0/16,host-{number}.example.com"}]
    if not namespace or number % 5 == 0:
        env += [{"name": key, "value": "http://proxy.example.com:3128"} for key in ("HTTP_PROXY", "HTTPS_PROXY")]
    env.append({"name": f"SETTING_{number}", "value": "value"})
    metadata = {"name": name, "generation": 1, "resourceVersion": str(number + 1), "uid": name}
    if namespace:
        metadata["namespace"] = namespace
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": metadata,
        "spec": {"env": env, "noProxy": {"include": [".svc", "metadata"]}},
    }


def pod(name: str, namespace: str = NAMESPACE) -> dict[str, Any]:
    """A pod of two containers and an init container, with what a Deployment's usually have."""

    def container(called: str) -> dict[str, Any]:
        return {
            "name": called,
            "image": "registry.example.com/team/image:1.2.3",
            "env": [{"name": f"OWN_{n}", "value": "x" * 20} for n in range(5)],
            "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        }

    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": "bench", "tier": "web"}},
        "spec": {
            "initContainers": [container("prepare")],
            "containers": [container("app"), container("sidecar")],
            "volumes": [{"name": "data", "emptyDir": {}}],
        },
    }


# -- through the API server --------------------------------------------------------------------------------------------


def through_server(options: Options) -> dict[str, Any]:
    """Create pods by turns without any webhook and with ours."""
    with step("pods through the API server, with and without the webhook"), stage() as on, ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        preset = proxy("bench")
        for field in ("generation", "resourceVersion", "uid"):
            del preset["metadata"][field]
        preset["spec"]["namespaceSelector"] = {"matchLabels": {SCOPE_LABEL: SCOPE}}
        namespace = {"metadata": {"name": NAMESPACE, "labels": {SCOPE_LABEL: SCOPE}}}
        on.cluster.apply({"apiVersion": "v1", "kind": "Namespace", **namespace}, preset)
        flags = ["--status-period=10s", f"--processes={options.processes}"]
        if options.uvloop is not None:
            flags.append("--uvloop" if options.uvloop else "--no-uvloop")
        webhook = stack.enter_context(Webhook.running(folder, on.cluster.kubeconfig, *flags))
        return asyncio.run(_through_server(on, webhook))


async def _through_server(on: Stage, webhook: Webhook) -> dict[str, Any]:
    rounds: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
    async with on.client() as client:
        for with_webhook in (False, True):
            await _round(on, webhook, client, WARM_UP, with_webhook=with_webhook)
        for number in range(ROUNDS):
            for with_webhook in (False, True):
                rounds[with_webhook].append(await _round(on, webhook, client, ROUND, with_webhook=with_webhook))
            without, having = (rounds[which][-1]["rate"] for which in (False, True))
            say(f"    round {number + 1}: {without:.0f} pods/s without, {having:.0f} with")
    served = await _served(on, webhook)
    return {
        "pods": ROUND,
        "in_flight": IN_FLIGHT,
        "without": _middle(rounds[False]),
        "with": _middle(rounds[True]),
        "served": served,
    }


async def _served(on: Stage, webhook: Webhook) -> dict[str, float]:
    """CPU that the process takes for a review by HTTPS with 5 presets for each pod, on connections that stay."""
    presets = [proxy(f"served-{number}", NAMESPACE, number) for number in range(4)]
    for preset in presets:
        for field in ("generation", "resourceVersion", "uid"):
            del preset["metadata"][field]
    on.cluster.apply(*presets)
    return await reviewed(on, webhook, [review(0, NAMESPACE)], SERVED)


async def reviewed(on: Stage, webhook: Webhook, bodies: Sequence[bytes], count: int) -> dict[str, float]:
    """Send `count` reviews over connections that stay; each has to get a patch."""
    bodies_in_turn = itertools.cycle(bodies)
    context = ssl.create_default_context(cafile=webhook.ca)
    latencies: list[float] = []

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context, limit=IN_FLIGHT)) as session:

        async def send(count: int) -> None:
            for _ in range(count):
                began = time.perf_counter()
                body = next(bodies_in_turn)
                async with session.post(webhook.url, data=body, headers={"Content-Type": "application/json"}) as answer:
                    if b"JSONPatch" not in await answer.read():
                        raise BenchError("a review got no patch")
                latencies.append(time.perf_counter() - began)

        async with asyncio.TaskGroup() as group:
            for _ in range(IN_FLIGHT):
                group.create_task(send(20))
        latencies.clear()
        usage = on.usage(webhook=webhook.pid)
        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(IN_FLIGHT):
                group.create_task(send(count // IN_FLIGHT))
        seconds = time.perf_counter() - began
    used, others = usage.so_far()
    return {
        "rate": len(latencies) / seconds,
        "cpu_ms": 1000 * used["webhook"] / len(latencies),
        "p50": statistics.median(latencies),
        "p99": percentile(latencies, 0.99),
        "others": others,
    }


def _middle(rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {name: statistics.median(found[name] for found in rounds) for name in rounds[0]} | {
        "rates": [found["rate"] for found in rounds]
    }


async def _round(on: Stage, webhook: Webhook, client: Client, count: int, *, with_webhook: bool) -> dict[str, Any]:
    if not with_webhook:
        return await _create(on, webhook, client, count, injected=False)
    with webhook.registered(on.cluster, SCOPE):
        return await _create(on, webhook, client, count, injected=True)


async def _create(on: Stage, webhook: Webhook, client: Client, count: int, *, injected: bool) -> dict[str, Any]:
    """Create `count` pods, `IN_FLIGHT` at a time; rate, latencies in seconds, CPU in ms per pod."""
    latencies: list[float] = []
    names: Iterator[str] = iter([f"pod-{time.monotonic_ns()}-{number}" for number in range(count)])
    path = PODS.path(NAMESPACE)

    async def creator() -> None:
        for name in names:
            body = json.dumps(pod(name)).encode()
            began = time.perf_counter()
            answer = await client.raw("POST", path, body=body, headers={"Content-Type": "application/json"})
            latencies.append(time.perf_counter() - began)
            if (b"HTTPS_PROXY" in answer) is not injected:
                raise BenchError(f"pod {name} {'lacks' if injected else 'has'} what the preset gives")

    await asyncio.sleep(0.5)  # configurations come and go a moment later in the API server
    usage = on.usage(webhook=webhook.pid)
    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(IN_FLIGHT):
            group.create_task(creator())
    seconds = time.perf_counter() - began
    used, others = usage.so_far()
    return {
        "rate": count / seconds,
        "p50": statistics.median(latencies),
        "p99": percentile(latencies, 0.99),
        "webhook_ms": 1000 * used["webhook"] / count,
        "server_ms": 1000 * used["server"] / count,
        "bench_ms": 1000 * used["bench"] / count,
        "others": others,
    }


# -- the handler alone -------------------------------------------------------------------------------------------------


def handler() -> list[dict[str, Any]]:
    """Time reviews from their bytes to the bytes of the answer, without HTTP and TLS, with more and more presets."""
    cases = (
        ("5 presets for each pod", [proxy(f"p{n}", "", n) for n in range(5)], 1),
        ("50 presets for each pod", [proxy(f"p{n}", "", n) for n in range(50)], 1),
        ("10 presets, 2 for each pod", spread(10, 2), 2),
        ("1,000 presets in 200 namespaces, 2 for each pod", spread(1000, 200), 200),
    )
    with step("the handler alone"):
        return [{"case": case, **_time(presets, namespaces)} for case, presets, namespaces in cases]


def spread(count: int, namespaces: int) -> list[dict[str, Any]]:
    """`count` presets over namespaces; of those of one namespace two match, whatever their number."""
    made = [proxy(f"p{n}", f"ns-{n % namespaces}", n) for n in range(count)]
    for number, preset in enumerate(made):
        if number >= 2 * namespaces:
            preset["spec"]["selector"] = {"matchLabels": {"app": f"other-{number}"}}
    return made


def _time(presets: Sequence[dict[str, Any]], namespaces: int) -> dict[str, float]:
    caches = Caches(lambda _: None)
    for kind, store in caches.presets.items():
        objects = [decode(json.dumps(p).encode(), KubeObject) for p in presets if p["kind"] == kind]
        store.replace(objects, "1")
    reviewer = Reviewer(caches, None)
    bodies = [review(number, f"ns-{number % namespaces}") for number in range(max(200, namespaces))]
    for body in bodies:
        if b"JSONPatch" not in _answer(reviewer, body):
            raise BenchError("a pod got no preset")
    walls: list[int] = []
    cpus: list[int] = []
    for number in range(REVIEWS):
        began, used = time.perf_counter_ns(), time.thread_time_ns()
        _answer(reviewer, bodies[number % len(bodies)])
        cpus.append(time.thread_time_ns() - used)
        walls.append(time.perf_counter_ns() - began)
    return {
        "p50_ms": statistics.median(walls) / 1e6,
        "p99_ms": percentile(walls, 0.99) / 1e6,
        "cpu_p50_ms": statistics.median(cpus) / 1e6,
        "cpu_p99_ms": percentile(cpus, 0.99) / 1e6,
        "cpu_ms": statistics.fmean(cpus) / 1e6,
    }


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _answer(reviewer: Reviewer, body: bytes) -> bytes:
    request = admission.decode(body)
    return admission.encode(request.uid, reviewer(request))


def review(number: int, namespace: str) -> bytes:
    request = {
        "uid": f"uid-{number}",
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "namespace": namespace,
        "operation": "CREATE",
        "object": pod(f"pod-{number}", namespace),
    }
    return json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}).encode()


# -- the report --------------------------------------------------------------------------------------------------------


def measure(parts: Sequence[str], options: Options) -> dict[str, Any]:
    """Run `pods` and `handler`, or one of them."""
    results: dict[str, Any] = {}
    if "handler" in parts:
        results["handler"] = handler()
    if "pods" in parts:
        results["pods"] = through_server(options)
    return results


def targets(results: dict[str, Any]) -> list[Target]:
    """Hold the results against what is promised."""
    found = []
    if "pods" in results:
        ratio = results["pods"]["with"]["rate"] / results["pods"]["without"]["rate"]
        found.append(
            Target(f"at least {RATIO} of the rate without any webhook at 16 in flight", f"{ratio:.2f}", ratio >= RATIO)
        )
        cpu = results["pods"]["served"]["cpu_ms"]
        found.append(
            Target(
                f"below {CPU_MS:g} ms of the process' CPU a review with 5 presets, HTTP and TLS included",
                f"{cpu:.2f} ms",
                cpu < CPU_MS,
            )
        )
    if "handler" in results:
        five, fifty, few, many = results["handler"]
        # By processor time: on a machine that is busy otherwise, a clock on the wall mostly tells of that.
        p99, cpu, growth = fifty["cpu_p99_ms"], five["cpu_ms"], many["cpu_p50_ms"] / few["cpu_p50_ms"]
        found += [
            Target(f"handler p99 below {HANDLER_P99_MS:g} ms with 50 presets", f"{p99:.2f} ms", p99 < HANDLER_P99_MS),
            Target(
                f"below {CPU_MS:g} ms of CPU a review with 5 presets, the handler alone", f"{cpu:.3f} ms", cpu < CPU_MS
            ),
            Target("1,000 presets in 200 namespaces cost no more per review than 10", f"{growth:.2f}", growth < GROWTH),
        ]
    return found


def text(results: dict[str, Any]) -> str:
    """Everything that was measured, for a terminal."""
    lines: list[str] = []
    if "pods" in results:
        pods = results["pods"]
        lines += [f"Pods through the API server, {pods['in_flight']} in flight, {ROUNDS} rounds of {pods['pods']} each"]
        head = ("", "pods/s", "each round", "p50 ms", "p99 ms", "webhook ms", "server ms", "bench ms", "others")
        rows = [
            (
                which,
                f"{found['rate']:.0f}",
                ", ".join(f"{rate:.0f}" for rate in found["rates"]),
                f"{1000 * found['p50']:.1f}",
                f"{1000 * found['p99']:.1f}",
                f"{found['webhook_ms']:.2f}",
                f"{found['server_ms']:.2f}",
                f"{found['bench_ms']:.2f}",
                f"{found['others']:.1f}",
            )
            for which in ("without", "with")
            for found in (pods[which],)
        ]
        lines += [f"  {line}" for line in table(head, rows)]
        lines += [
            "  Medians of the rounds. ms of webhook, server and bench: CPU per pod. others: cores that the rest of the",
            "  machine kept busy.",
            "",
            "Reviews by HTTPS straight to the process, 5 presets for each pod, 16 connections",
            "  {rate:.0f}/s, p50 {0:.1f} ms, p99 {1:.1f} ms, {cpu_ms:.2f} ms of CPU each, others {others:.1f}".format(
                1000 * pods["served"]["p50"], 1000 * pods["served"]["p99"], **pods["served"]
            ),
            "",
        ]
    if "handler" in results:
        lines += ["The handler alone: from the bytes of a review to those of the answer, no HTTP, no TLS"]
        head = ("presets", "p50 ms", "p99 ms", "CPU p50 ms", "CPU p99 ms", "CPU mean ms")
        names = ("p50_ms", "p99_ms", "cpu_p50_ms", "cpu_p99_ms", "cpu_ms")
        rows = [(case["case"], *(f"{case[name]:.3f}" for name in names)) for case in results["handler"]]
        lines += [*(f"  {line}" for line in table(head, rows)), ""]
    return "\n".join(lines)
