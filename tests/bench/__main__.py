"""Measure the allocator: `python -m tests.bench [ipam] [--full] [--sizes N,N] [--json PATH]`, or `make bench`.

The default takes about seven minutes on two idle cores, `--full` about an hour. Speed never fails the bench; its exit
code is 1 when something was incorrect: an address given twice, a claim without one, a process that died.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.bench import decisions, ipam, report
from tests.bench.load import BenchError
from tools.progress import say, step

SIZES = (500, 2_000)
FULL_SIZES = (500, 1_000, 2_000, 5_000, 10_000)
STEADY, STEADY_PACE = 300, 20.0
PARTS = ("pairs", "steady", "restart", "decisions", "memory")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=(__doc__ or "").partition("\n\n")[2])
    parser.add_argument("what", nargs="?", choices=["ipam"], default="ipam", help="the service (default: %(default)s)")
    parser.add_argument("--full", action="store_true", help="all sizes, and memory with 50,000 claims")
    parser.add_argument("--sizes", type=_sizes, metavar="N,N", help=f"numbers of claims (default: {SIZES})")
    parser.add_argument("--pairs", type=int, default=2, metavar="N", help="runs of each size (default: %(default)s)")
    parser.add_argument("--only", choices=PARTS, action="append", help="this part alone; repeatable")
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


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the parts that were asked for and return all figures."""
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


def main() -> int:
    """Measure, print, and say by the exit code whether everything was correct."""
    arguments = _arguments()
    incorrect: list[BaseException] = []
    results: dict[str, Any] = {}
    try:
        results = measure(arguments)
    except* BenchError as errors:
        incorrect = _leaves(errors)
    if incorrect:
        for error in incorrect:
            say(f"INCORRECT: {error}")
        return 1
    results["targets"] = [target._asdict() for target in report.targets(results)]
    print(report.text(results))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")
    return 0


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


if __name__ == "__main__":
    sys.exit(main())
