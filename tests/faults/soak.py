"""Mixed churn for a long time, and the proof that nothing grows: `python -m tests.faults.soak --minutes 10`.

    --minutes N     how long (10); before a release, 60
    --seed N        of what users do
    --json FILE     write the report there, too

Claims, machines and pods come and go, claims wait for addresses that others hold, pools and the preset are edited, and
the webhook's certificates are rotated, on six processes of four services. After the first third, in which caches and
the allocator fill, the resident memory, file descriptors and event loop tasks of every process, and the queues of those
that lead, must be flat: what comes on top by the robust slope stays below a bound (`flat.BOUNDS`). Nothing goes by the
clock but the length. Exit code 1: something grew, a process ended, or users were not served.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import secrets
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.faults import flat, plan
from tests.faults.estate import Estate
from tests.faults.inject import Injector
from tests.faults.runner import Broken, Run, first_broken
from tools.progress import say

_SAMPLE_SECONDS = 3.0
_ROTATE_SECONDS = 20.0
_PROGRESS_SECONDS = 60.0
_WARM = 1 / 3
_LEASE_SECONDS = 30.0
_PATIENCE = 240.0
_MIB = 1 << 20
_PAGES = 4096


def sample(replica):
    """One look at a process: `{name of flat.BOUNDS: value}`, or None when it does not answer."""
    pid, metrics = replica.pid, replica.metrics()
    if pid is None or not metrics:
        return None
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        fds = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    except OSError:
        return None
    # Who stands by works nothing off: its keys wait until it leads (docs/reliability.md).
    leads = metrics.get("leader_election_master_status", 0.0) > 0
    return {
        "rss_mib": pages * _PAGES / _MIB,
        "fds": fds,
        "tasks": metrics["groundwork_event_loop_tasks"],
        "queued": metrics.get("workqueue_depth", 0.0) if leads else 0.0,
    }


def judged(samples, began):
    """`{process: {what: {...}}}` of samples `{process: [(seconds, sample)]}`, those before `began` left out."""
    report = {}
    for name, found in samples.items():
        late = [(at, one) for at, one in found if at >= began]
        report[name] = {}
        for what, bound in flat.BOUNDS.items():
            series = [(at, one[what]) for at, one in late]
            grown, allowed = flat.verdict(series, bound)
            values = [value for _, value in series]
            report[name][what] = {
                "least": round(min(values), 1),
                "most": round(max(values), 1),
                "grown": round(grown, 2),
                "allowed": round(allowed, 2),
                "samples": len(series),
            }
    return report


def grown(report):
    """What is not flat, one line each."""
    return [
        f"{what} of {name} grew by {one['grown']:g}, allowed are {one['allowed']:g}"
        for name, figures in report.items()
        for what, one in figures.items()
        if one["grown"] > one["allowed"]
    ]


class Soak(Run):
    """A run without faults but rotations, that takes samples."""

    async def go_on(self, seconds):
        """Churn for so long; `(figures, what is wrong)`."""
        samples = {name: [] for name in self._estate.replicas}
        await self.users.move_in()
        async with asyncio.TaskGroup() as group:
            self.users.resume()
            tasks = [group.create_task(part) for part in (self.users.run(), self._watchman.run(), self._rotate())]
            began = told = time.monotonic()
            while (now := time.monotonic()) < began + seconds:
                for name, replica in self._estate.replicas.items():
                    found = await asyncio.to_thread(sample, replica)
                    if found is not None:
                        samples[name].append((now - began, found))
                if now - told > _PROGRESS_SECONDS:
                    told = now
                    say(f"{(now - began) / 60:.0f} minutes; users did {sum(self.users.done.values())}")
                self._check_doubles()
                await asyncio.sleep(_SAMPLE_SECONDS)
            tasks.pop().cancel()
            await self._all_done()
            await self._settle(0)
            for task in tasks:
                task.cancel()
        report = judged(samples, seconds * _WARM)
        ended = [f"{name} was started {r.starts} times" for name, r in self._estate.replicas.items() if r.starts != 1]
        return report, [*grown(report), *ended]

    async def _rotate(self):
        """Let the webhook make new certificates, again and again."""
        injector, number = Injector(self._estate), 0
        while True:
            await asyncio.sleep(_ROTATE_SECONDS)
            number += 1
            kind = ("expired certificate", "lost certificate")[number % 2]
            await injector.make(plan.Fault(number, kind, "certificates", 0.0, 0.0, number))


async def run(minutes, seed, folder):
    """`(report, what is wrong)`."""
    async with Estate.running(folder, seed, set(), _LEASE_SECONDS) as estate:
        soak = Soak(estate, [], seed, patience=_PATIENCE)
        figures, wrong = {}, []
        try:
            figures, wrong = await soak.go_on(minutes * 60)
        except* Broken as group:
            soak.keep(Path(folder))
            wrong = [first_broken(group)]
        done = soak.report()
        return {"figures": figures, "users": done["users"], "tracebacks": done["tracebacks"]}, wrong


def main(arguments=None):
    """Run; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0, metavar="N", help="how long (default: %(default)g)")
    parser.add_argument("--seed", type=int, metavar="N", help="of what users do (default: another one each time)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there, too")
    options = parser.parse_args(arguments)
    seed = secrets.randbelow(1 << 32) if options.seed is None else options.seed
    folder = Path(tempfile.mkdtemp(prefix="groundwork-soak-"))
    logging.basicConfig(filename=folder / "stand-ins.log", level=logging.WARNING)
    say(f"seed {seed}, {options.minutes:g} minutes")
    report, wrong = asyncio.run(run(options.minutes, seed, folder))
    text = json.dumps({"seed": seed, "minutes": options.minutes, "wrong": wrong, **report}, indent=1)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")
    if not wrong:
        shutil.rmtree(folder)
        return 0
    print("\n".join(wrong), file=sys.stderr)
    print(f"seed {seed}: the logs are in {folder}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
