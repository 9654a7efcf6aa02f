"""The figures of a bench run as tables for people, and held against the targets.

Knows nothing of how they were measured; a target whose measurement was not part of the run is shown as such.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

RATIO = 0.8
FLAT, FLAT_SIZES = 0.9, (1_000, 10_000)
RATE, RATE_SIZE = 200.0, 2_000
FIRST_BIND_SECONDS = 3.0
DECISIONS = 50_000.0
RSS_MIB = 300.0
RESTART_SIZE, MEMORY_SIZE = 5_000, 50_000


class Target(NamedTuple):
    """One promise and what became of it; `met` is None when it was not measured."""

    text: str
    measured: str
    met: bool | None


def targets(results: dict[str, Any]) -> list[Target]:
    """Hold the results against what is promised."""
    pairs = results["pairs"]
    sizes = sorted({pair["claims"] for pair in pairs})
    ratios = {size: statistics.median(p["ratio"] for p in pairs if p["claims"] == size) for size in sizes}
    rates = {
        size: statistics.median(p["allocator"]["bind"]["rate"] for p in pairs if p["claims"] == size) for size in sizes
    }
    small, large = (rates.get(size) for size in FLAT_SIZES)
    restart, memory, decisions = (results.get(part) or {} for part in ("restart", "memory", "decisions"))
    found = []

    def promise(text: str, value: float | None, shown: str, *, at_least: float = 0.0, at_most: float = 1e9) -> None:
        if value is None:
            found.append(Target(text, "not measured", None))
        else:
            found.append(Target(text, shown.format(value), at_least <= value <= at_most))

    for size, ratio in ratios.items():
        promise(f"{RATIO:.0%} of the bare writer at {size:,} claims", ratio, "{:.0%}", at_least=RATIO)
    promise(
        "rate at {1:,} claims at least {2:.0%} of that at {0:,}".format(*FLAT_SIZES, FLAT),
        large / small if small and large else None,
        "{:.0%}",
        at_least=FLAT,
    )
    bare = [pair["bare"]["bind"]["rate"] for pair in pairs if pair["claims"] == RATE_SIZE]
    promise(
        f"{RATE:.0f} claims/s at {RATE_SIZE:,} claims on 2 cores",
        rates.get(RATE_SIZE),
        "{:.0f}/s" + (f" (the bare writer: {statistics.median(bare):.0f}/s)" if bare else ""),
        at_least=RATE,
    )
    promise(
        f"first bind within {FIRST_BIND_SECONDS:.0f} s of a restart with 5,000 bound",
        restart.get("first_bind") if restart.get("claims", 0) >= RESTART_SIZE else None,
        "{:.2f} s",
        at_most=FIRST_BIND_SECONDS,
    )
    for what, shown in (("choose", "decisions/s"), ("whole cycle", "decisions/s, marked, recorded and settled")):
        rates_of = [rate for name, rate in decisions.items() if name.endswith(what)]
        promise(f"{DECISIONS:,.0f} {shown}", min(rates_of, default=None), "{:,.0f}/s", at_least=DECISIONS)
    promise(
        f"below {RSS_MIB:.0f} MiB with 50,000 claims",
        memory.get("rss") if memory.get("claims", 0) >= MEMORY_SIZE else None,
        "{:.0f} MiB",
        at_most=RSS_MIB,
    )
    return found


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table: the first column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    return [
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (head, *rows)
    ]


def text(results: dict[str, Any]) -> str:
    """Everything that was measured, for a terminal."""
    machine = results["machine"]
    lines = [f"{machine['cores']} cores, {machine['cpu']}, Python {machine['python']}, {machine['commit']}", ""]
    if results["pairs"]:
        lines += _throughput(results["pairs"], "Claims created as fast as the API server takes them")
    if results.get("steady"):
        lines += _throughput(
            [results["steady"]], f"Claims created at {results['steady']['allocator']['pace']:g} a second"
        )
    if results["pairs"]:
        lines += _release(results["pairs"])
    if results.get("restart"):
        restart = results["restart"]
        lines += [
            f"Restart with {restart['claims']:,} claims bound: first new bind after {restart['first_bind']:.2f} s",
            "",
        ]
    if results.get("memory"):
        lines += _memory(results["memory"])
    if results.get("decisions"):
        lines += ["Decisions alone, one core, no I/O"]
        lines += [f"  {name:62} {rate:>10,.0f}/s" for name, rate in results["decisions"].items()]
        lines += [""]
    return "\n".join([*lines, promises(targets(results))])


def promises(found: Sequence[Target]) -> str:
    """Targets and what became of them, for a terminal."""
    marks = {True: "met", False: "MISSED", None: "-"}
    return "\n".join(["Targets", *(f"  {marks[t.met]:6}  {t.text}: {t.measured}" for t in found), ""])


_HEAD = (
    *("claims", "who", "claims/s", "p50 s", "p99 s", "writes", "lists", "refused", "kB", "watched"),
    *("ms", "server ms", "etcd ms", "bench ms", "MiB", "others", "ratio", "by CPU"),
)


def _throughput(pairs: Sequence[dict[str, Any]], title: str) -> list[str]:
    rows = []
    for pair in pairs:
        for who in ("allocator", "bare"):
            run = pair[who]
            bind, cpu = run["bind"], run["bind"]["cpu_ms"]
            rows.append(
                (
                    f"{run['claims']:,}",
                    who,
                    f"{bind['rate']:.0f}",
                    f"{bind['p50']:.3f}",
                    f"{bind['p99']:.3f}",
                    f"{bind['writes']:.2f}",
                    f"{bind['lists']:.2f}",
                    f"{bind['refused']:.0f}",
                    f"{bind['bytes'] / 1000:.1f}",
                    f"{bind['watched'] / 1000:.1f}",
                    f"{cpu['process']:.2f}",
                    f"{cpu['server']:.2f}",
                    f"{cpu['etcd']:.2f}",
                    f"{cpu['bench']:.2f}",
                    f"{run['rss_peak']:.0f}",
                    f"{bind['other_cores']:.1f}",
                    f"{pair['ratio']:.2f}" if who == "allocator" else "",
                    f"{pair['cpu_ratio']:.2f}" if who == "allocator" else "",
                )
            )
    legend = (
        "  p50, p99: created to address in status, as a watch sees both. Per claim: writes, lists, kB of bodies sent",
        "  and received and what of it came by watches, ms of CPU (bench: creator and watches). MiB: peak. others:",
        "  cores that the rest of the machine kept busy. ratio: allocator to bare writer by claims/s, and by all CPU",
        "  time per claim, which a busy machine disturbs less.",
    )
    return [title, *(f"  {line}" for line in table(_HEAD, rows)), *legend, ""]


def _release(pairs: Sequence[dict[str, Any]]) -> list[str]:
    rows = []
    for pair in pairs:
        release = pair["allocator"]["release"]
        cpu = release["cpu_ms"]
        rows.append(
            (
                f"{pair['claims']:,}",
                f"{release['rate']:.0f}",
                f"{release['writes']:.2f}",
                f"{release['lists']:.2f}",
                f"{release['refused']:.0f}",
                f"{release['bytes'] / 1000:.1f}",
                f"{release['watched'] / 1000:.1f}",
                f"{cpu['process']:.2f}",
                f"{cpu['server']:.2f}",
                f"{release['other_cores']:.1f}",
            )
        )
    head = ("claims", "claims/s", "writes", "lists", "refused", "kB", "watched", "ms", "server ms", "others")
    return ["Release of all of them", *(f"  {line}" for line in table(head, rows)), ""]


def _memory(memory: dict[str, Any]) -> list[str]:
    n = {name: f"{value:,.0f}" for name, value in memory.items()}
    return [
        f"{n['claims']} claims, addresses and reservations made beforehand",
        f"  adopted (statuses written) in {n['adopt_seconds']} s, {n['adopt_rate']}/s; then {n['rss_adopted']} MiB",
        f"  restarted: first new bind after {memory['first_bind']:.2f} s; {n['rss']} MiB, peak {n['rss_peak']} MiB",
        "",
    ]
