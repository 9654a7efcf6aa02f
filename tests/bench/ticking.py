"""`python -m tests.bench.ticking`: the machine controller with a clock in its event loop that tells how late it is.

Responsible for: two histograms on the service's own metrics page. Wall time says what a timer sees, and with it what
else the machine does; CPU time of the loop's own thread says what the service itself keeps it from.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING

from services.machine_controller.service import build
from services.machine_controller.settings import MachineSettings
from services.runtime import metrics
from services.runtime.main import run

if TYPE_CHECKING:
    from services.runtime.main import Service

TICK_SECONDS = 0.005
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
_WALL = metrics.histogram("bench_loop_late_seconds", "How late a tick was.", buckets=BUCKETS)
_OWN = metrics.histogram("bench_loop_busy_seconds", "CPU time of the loop's thread between two ticks.", buckets=BUCKETS)
_WORST = metrics.gauge("bench_loop_worst_seconds", "The most of each.", ("what",))


async def _tick() -> None:
    worst = {"late": 0.0, "busy": 0.0}
    while True:
        due, used = time.monotonic() + TICK_SECONDS, time.thread_time()
        await asyncio.sleep(TICK_SECONDS)
        seen = {"late": max(0.0, time.monotonic() - due), "busy": time.thread_time() - used}
        _WALL.observe(seen["late"])
        _OWN.observe(seen["busy"])
        for what, seconds in seen.items():
            if seconds > worst[what]:
                worst[what] = seconds
                _WORST.labels(what).set(seconds)


async def _build(service: Service[MachineSettings]) -> None:
    await build(service)
    # Once work begins: what is before it, such as imports, delays nobody.
    service.manager.add_runnable("ticker", _tick, needs_leader=True)


if __name__ == "__main__":
    sys.exit(run(MachineSettings, _build))
