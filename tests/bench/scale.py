"""How each service grows: `python -m tests.bench.scale [--of SERVICE=N,N ...] [--json PATH] [--svg PATH]`.

Responsible for: running every service at several sizes, one row of the same figures for each, and how each figure grows
from the smallest size to the largest: its exponent, 0 for what stays the same, 1 for what grows with the number of
objects. What an object costs should have 0; memory and the time to get ready have at most 1.
Invariant: the measurements are those of the services' own benches, which fail when something is incorrect.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.bench import growth, integrator, ipam, machines, podpreset
from tests.bench.load import BenchError
from tests.bench.report import table
from tests.bench.stage import stage
from tests.support.webhook import Webhook
from tools.progress import say, step

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SIZES = {
    "allocator": (100, 1_000, 10_000, 50_000),
    "integrator": (100, 1_000, 10_000),
    "webhook": (100, 1_000, 10_000),
    "machine controller": (100, 1_000, 10_000),
}
REVIEWS = 3_200
_PRESETS_IN_NAMESPACE = 5
_CREATED_AT_ONCE = 500


class Row(NamedTuple):
    """What one service took for one number of objects. Per object unless it says otherwise."""

    service: str
    size: int
    rate: float
    """Objects a second, all created at once."""
    p50: float
    """Seconds from created to served."""
    p99: float
    calls: float
    """Requests to the API server."""
    bytes: float
    """Of the bodies of these requests, their answers and the watches."""
    cpu: float
    """Milliseconds of the service's processor time."""
    rss: float
    """MiB at the most, of the whole process."""
    ready: float
    """Seconds from the start of the process to ready, with all the objects there."""


def allocator(size: int) -> Row:
    """`size` claims of both kinds, bound."""
    found = ipam.throughput("allocator", size, ipam.Options(), release=False)
    bind = found["bind"]
    cost = (bind["calls"], bind["bytes"], bind["cpu_ms"]["process"])
    return Row(
        "allocator", size, bind["rate"], bind["p50"], bind["p99"], *cost, found["rss_peak"], found["ready_seconds"]
    )


def waiting_machines(size: int) -> Row:
    """`size` VSphereMachines, with their address written."""
    (run,) = integrator.measure(size, integrator.Options(), rounds=1)["runs"]
    cost = (run["calls"], run["bytes"], run["cpu_ms"]["process"])
    return Row("integrator", size, run["rate"], run["p50"], run["p99"], *cost, run["rss_peak"], run["ready_seconds"])


def virtual_machines(size: int) -> Row:
    """`size` VSphereMachines, with their VM running."""
    run = machines.measure(size, machines.Options())
    cost = (run["api_calls"], run["api_bytes"], run["cpu_ms"])
    return Row(
        "machine controller", size, run["rate"], run["p50"], run["p99"], *cost, run["rss_peak"], run["ready_seconds"]
    )


def presets(size: int) -> Row:
    """`size` presets in namespaces of five, of which two match; the objects that are served are reviews."""
    with step(f"webhook: {size:,} presets"), stage() as on, ExitStack() as stack:
        spaces = max(1, size // _PRESETS_IN_NAMESPACE)
        objects = [_bare(preset) for preset in podpreset.spread(size, spaces)]
        names = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": f"ns-{n}"}} for n in range(spaces)]
        for start in range(0, spaces, _CREATED_AT_ONCE):
            on.cluster.apply(*names[start : start + _CREATED_AT_ONCE])
        for start in range(0, size, _CREATED_AT_ONCE):
            on.cluster.apply(*objects[start : start + _CREATED_AT_ONCE])
            say(f"    {min(size, start + _CREATED_AT_ONCE):,} of {size:,} presets")
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        began = time.perf_counter()
        webhook = stack.enter_context(Webhook.running(folder, on.cluster.kubeconfig, "--status-period=10s"))
        ready = time.perf_counter() - began
        before = webhook.metric("rest_client_requests_total")
        bodies = [podpreset.review(number, f"ns-{number}") for number in range(spaces)]
        found = asyncio.run(podpreset.reviewed(on, webhook, bodies, REVIEWS))
        calls = (webhook.metric("rest_client_requests_total") - before) / REVIEWS
        status = Path(f"/proc/{webhook.pid}/status").read_text().splitlines()
        rss = next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")) / 1024
        return Row("webhook", size, found["rate"], found["p50"], found["p99"], calls, 0.0, found["cpu_ms"], rss, ready)


def _bare(preset: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in preset["metadata"].items() if key in ("name", "namespace")}
    return preset | {"metadata": kept}


RUNS: dict[str, Callable[[int], Row]] = {
    "allocator": allocator,
    "integrator": waiting_machines,
    "webhook": presets,
    "machine controller": virtual_machines,
}
GROWN = {"cpu": "CPU", "calls": "calls", "bytes": "bytes", "rss": "memory", "ready": "start"}


def exponents(rows: Sequence[Row]) -> dict[str, float]:
    """Growth of each figure from the smallest to the largest size of one service."""
    first, last = min(rows, key=lambda row: row.size), max(rows, key=lambda row: row.size)
    if first.size == last.size:
        return {}
    decades = math.log(last.size / first.size)
    pairs = {name: (getattr(first, name), getattr(last, name)) for name in GROWN}
    return {name: math.log(after / before) / decades for name, (before, after) in pairs.items() if before and after}


def text(rows: Sequence[Row]) -> str:
    """The rows as a table for a terminal, and the growth of each service."""
    head = ("service", "objects", "/s", "p50 s", "p99 s", "calls", "kB", "CPU ms", "MiB", "ready s")
    lines = table(
        head,
        [
            (
                row.service,
                f"{row.size:,}",
                f"{row.rate:.1f}",
                f"{row.p50:.3f}",
                f"{row.p99:.3f}",
                f"{row.calls:.2f}",
                f"{row.bytes / 1000:.1f}",
                f"{row.cpu:.2f}",
                f"{row.rss:.0f}",
                f"{row.ready:.2f}",
            )
            for row in rows
        ],
    )
    lines += ["", "growth: exponent over the sizes (0: the same for each object or in all; 1: with their number)"]
    for service, of in _by_service(rows).items():
        found = exponents(of)
        if found:
            lines.append(f"  {service}: " + ", ".join(f"{GROWN[name]} {value:+.2f}" for name, value in found.items()))
    return "\n".join(lines)


def _by_service(rows: Sequence[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        found[row.service].append(row)
    return found


def _sizes(argument: str) -> tuple[str, tuple[int, ...]]:
    service, _, sizes = argument.partition("=")
    if service not in RUNS:
        raise argparse.ArgumentTypeError(f"{service!r} is none of {', '.join(RUNS)}")
    return service, tuple(int(size.replace("_", "")) for size in sizes.split(",")) if sizes else SIZES[service]


def main() -> int:
    """Measure, print, and say by the exit code whether everything was correct."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.scale", description=(__doc__ or "").partition("\n\n")[2]
    )
    parser.add_argument(
        "--of", type=_sizes, action="append", metavar="SERVICE[=N,N]", help="this service, at these sizes; repeatable"
    )
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the rows there; those of other runs are kept")
    parser.add_argument("--svg", type=Path, metavar="PATH", help="draw all rows of --json there")
    arguments = parser.parse_args()
    rows: list[Row] = []
    wrong: list[str] = []
    for service, sizes in arguments.of or SIZES.items():
        for size in sizes:
            try:
                rows.append(RUNS[service](size))
            except* BenchError as errors:
                wrong.append(f"{service} with {size:,}: {errors.exceptions}")
    for found in wrong:
        say(f"INCORRECT: {found}")
    if wrong:
        return 1
    if arguments.json is not None:
        rows = _merged(arguments.json, rows)
        arguments.json.write_text(json.dumps([row._asdict() for row in rows], indent=2) + "\n", encoding="utf-8")
    print(text(rows))
    if arguments.svg is not None:
        arguments.svg.write_text(growth.drawing(_by_service(rows)), encoding="utf-8")
    return 0


def _merged(path: Path, rows: Sequence[Row]) -> list[Row]:
    """Rows of earlier runs that were not measured anew, and the new ones."""
    known = [Row(**found) for found in json.loads(path.read_text(encoding="utf-8"))] if path.exists() else []
    found = {(row.service, row.size): row for row in (*known, *rows)}
    return [found[key] for key in sorted(found, key=lambda key: (list(RUNS).index(key[0]), key[1]))]


if __name__ == "__main__":
    sys.exit(main())
