"""Measure: `python -m tests.bench [SERVICE] [--full] [--sizes N,N] [--json PATH]`, or `make bench`.

SERVICE is one of ipam, podpreset, integrator and machines. The allocator takes about seven minutes on two idle cores,
with `--full` about an hour, the webhook about one, the integrator and the machine controller about two each. Speed
never fails the bench; its exit code is 1 when something was incorrect: an address given twice, a claim or machine
without one, a pod without its preset, a VM that is nobody's, a process that died.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.bench import decisions, integrator, ipam, machines, podpreset, report
from tests.bench.load import BenchError
from tools.progress import say, step

if TYPE_CHECKING:
    from collections.abc import Sequence

SIZES = (500, 2_000)
FULL_SIZES = (500, 1_000, 2_000, 5_000, 10_000)
STEADY, STEADY_PACE = 300, 20.0
PARTS = ("pairs", "steady", "restart", "decisions", "memory")
PODPRESET_PARTS = ("pods", "handler")
INTEGRATOR_PARTS = ("machines",)
MACHINE_PARTS = ("vms",)
PARTS_OF = {
    "ipam": PARTS,
    "podpreset": PODPRESET_PARTS,
    "integrator": INTEGRATOR_PARTS,
    "machines": MACHINE_PARTS,
}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=(__doc__ or "").partition("\n\n")[2])
    parser.add_argument("what", nargs="?", choices=PARTS_OF, help="the service (default: all)")
    parser.add_argument("--full", action="store_true", help="all sizes, and memory with 50,000 claims")
    parser.add_argument("--sizes", type=_sizes, metavar="N,N", help=f"numbers of claims or machines (default: {SIZES})")
    parser.add_argument("--pairs", type=int, default=2, metavar="N", help="runs of each size (default: %(default)s)")
    parts = PARTS + PODPRESET_PARTS + INTEGRATOR_PARTS + MACHINE_PARTS
    parser.add_argument("--only", choices=parts, action="append", help="this part alone; repeatable")
    parser.add_argument("--workers", type=int, metavar="N", help="workers of both parties (default: the allocator's)")
    parser.add_argument("--uvloop", action=argparse.BooleanOptionalAction, help="event loop of both parties")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the figures there too")
    return parser.parse_args()


def _sizes(text: str) -> tuple[int, ...]:
    return tuple(int(size.replace("_", "")) for size in text.split(","))


def _machine() -> dict[str, Any]:
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    ).stdout.strip()
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": models[0].partition(":")[2].strip() if models else platform.machine(),
        "python": platform.python_version(),
        "commit": described or "no commit",
    }


def _pair(count: int, options: ipam.Options, *, pace: float | None = None) -> dict[str, Any]:
    allocator = ipam.throughput("allocator", count, options, pace=pace)
    bare = ipam.throughput("bare", count, options, pace=pace)
    return {
        "claims": count,
        "allocator": allocator,
        "bare": bare,
        "ratio": allocator["bind"]["rate"] / bare["bind"]["rate"],
        "cpu_ratio": sum(bare["bind"]["cpu_ms"].values()) / sum(allocator["bind"]["cpu_ms"].values()),
    }


def measure_allocator(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the allocator's parts that were asked for and return all figures."""
    options = ipam.Options(arguments.workers, arguments.uvloop)
    default = PARTS if arguments.full else PARTS[:-1]
    parts = arguments.only or default
    sizes = arguments.sizes or (FULL_SIZES if arguments.full else SIZES)
    results: dict[str, Any] = {"machine": _machine(), "options": options._asdict(), "pairs": []}
    if "decisions" in parts:
        with step("decisions alone"):
            results["decisions"] = decisions.run(1.0)
    if "pairs" in parts:
        # The sizes by turns, so that a noisy minute of the machine does not fall on one of them alone.
        results["pairs"] = sorted(
            [_pair(size, options) for _ in range(arguments.pairs) for size in sizes], key=lambda pair: pair["claims"]
        )
    if "steady" in parts:
        results["steady"] = _pair(STEADY, options, pace=STEADY_PACE)
    if "restart" in parts:
        results["restart"] = ipam.restart(report.RESTART_SIZE, options)
    if "memory" in parts:
        results["memory"] = ipam.memory(report.MEMORY_SIZE, options)
    return results


def measure_webhook(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the webhook's parts that were asked for and return all figures."""
    parts = [part for part in arguments.only or PODPRESET_PARTS if part in PODPRESET_PARTS]
    return podpreset.measure(parts, podpreset.Options(arguments.uvloop))


def measure_integrator(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Run the integrator's part, for each size."""
    options = integrator.Options(arguments.workers, arguments.uvloop)
    sizes = (integrator.SIZE, integrator.FULL_SIZE) if arguments.full else (integrator.SIZE,)
    return [integrator.measure(size, options, rounds=arguments.pairs) for size in arguments.sizes or sizes]


def measure_machines(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Run the machine controller's part, for each size."""
    options = machines.Options(arguments.workers, arguments.uvloop)
    return [machines.measure(size, options) for size in arguments.sizes or (machines.SIZE,)]


def main() -> int:
    """Measure, print, and say by the exit code whether everything was correct."""
    arguments = _arguments()
    incorrect: list[BaseException] = []
    results: dict[str, Any] = {}
    wanted = [arguments.what] if arguments.what else [name for name in PARTS_OF if _asked(name, arguments.only)]
    try:
        if "podpreset" in wanted:
            results["podpreset"] = measure_webhook(arguments)
        if "integrator" in wanted:
            results["integrator"] = measure_integrator(arguments)
        if "machines" in wanted:
            results["machines"] = measure_machines(arguments)
        if "ipam" in wanted:
            results |= measure_allocator(arguments)
    except* BenchError as errors:
        incorrect = _leaves(errors)
    if incorrect:
        for error in incorrect:
            say(f"INCORRECT: {error}")
        return 1
    found = []
    if "podpreset" in wanted:
        found = podpreset.targets(results["podpreset"])
        print(podpreset.text(results["podpreset"]))
        print(report.promises(found))
    for module, name in ((integrator, "integrator"), (machines, "machines")):
        for measured in results.get(name, ()):
            promised = module.targets(measured)
            found += promised
            print(module.text(measured))
            print(report.promises(promised))
    if "ipam" in wanted:
        found += report.targets(results)
        print(report.text(results))
    results["targets"] = [target._asdict() for target in found]
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")
    return 0


def _asked(service: str, only: Sequence[str] | None) -> bool:
    """Whether one of the parts that were asked for is of a service."""
    return only is None or any(part in PARTS_OF[service] for part in only)


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


if __name__ == "__main__":
    sys.exit(main())
