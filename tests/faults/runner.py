"""Faults without end on everything at once, and the proof that it heals: `python -m tests.faults.runner --seed N`.

    --faults N      how many (500)
    --seed N        which; printed, and another one each time unless given
    --dense N       so many times as many in the same time, and between two rests (1)
    --lease S       of the services, in seconds (6): a busy machine needs more
    --plan-only     print the plan and stop
    --plan FILE     make the faults of such a plan, from which lines may have been taken out
    --json FILE     write the report there, too

While users work, faults are made, several at a time. After every 25 of them all are healed, users rest, and
`invariants` must come true within --patience seconds; what must not be even for a moment is looked at all the while. At
the end users delete what is theirs, and nothing may be left. Ctrl-C ends it after the faults under way, with the same
checks and a report of what was made. Exit code 1: something was wrong; the folder that is named
then has the plan, the logs of all processes, what users wanted and what there was.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import platform
import secrets
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.faults import evidence, invariants, plan
from tests.faults.estate import Estate, possible
from tests.faults.inject import Injector
from tests.faults.users import Users, plain
from tools.progress import say

_LOOK_SECONDS = 1.0
_AGAIN_SECONDS = 0.5
_PROGRESS = 10
_SHOWN = 20
_LOG = logging.getLogger("faults")


class Broken(Exception):  # noqa: N818 - it is what was found, not an error of this program
    """An invariant does not hold; the message names all that is wrong."""


class Watchman:
    """Looks all the while for what must not be even for a moment."""

    def __init__(self, look):
        self._look = look
        self._before = {}
        self.found = {}
        self.looks = 0

    async def run(self):
        """Look until cancelled."""
        while True:
            with contextlib.suppress(evidence.UnavailableError):
                self.consider(invariants.doubles(await self._look()))
            await asyncio.sleep(_LOOK_SECONDS)

    def consider(self, seen):
        """What two looks in a row saw of the same objects was so at one moment between them."""
        self.found |= {identity: text for identity, text in seen.items() if identity in self._before}
        self._before = seen
        self.looks += 1


class Run:
    """One run on an estate."""

    def __init__(self, estate, faults, seed, *, patience, dense=1):
        self._estate = estate
        self._faults = faults
        self._batch_size = plan.BATCH * dense
        self._patience = patience
        self._server = evidence.Server(estate.cluster.kubeconfig)
        self._watchman = Watchman(lambda: self._look(*evidence.ADDRESSES))
        self.users = Users(estate.kube, estate.sim, seed)
        self._injector = Injector(estate)
        self._settled = []
        self._made = 0
        self._enough = False
        self.scene = {}

    async def go(self):
        """Make all faults. Raises Broken as soon as something is wrong."""
        say("everything runs")
        await self.users.move_in()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.users.run()), group.create_task(self._watchman.run())]
            while self._made < len(self._faults) and not self._enough:
                self.users.resume()
                faults = self._faults[self._made : self._made + self._batch_size]
                await self._batch(faults)
                self._made += len(faults)
                await self._all_done()
                await self._settle(self._made)
            await self.users.move_out()
            await self._until(self._left, "everything was deleted")
            for task in tasks:
                task.cancel()

    def stop(self):
        """Make no more faults than those until the next rest."""
        say("enough; ends after the faults under way")
        self._enough = True

    async def _batch(self, faults):
        async with asyncio.TaskGroup() as group:
            for fault in faults:
                await asyncio.sleep(fault.gap)
                _LOG.warning("fault %s", fault)
                group.create_task(self._injector.make(fault))
                if fault.number % _PROGRESS == 0:
                    done = sum(self.users.done.values())
                    say(f"{fault.number} faults; users did {done}, tried again {self.users.retries} times")
                self._check_doubles()

    async def _all_done(self):
        """Wait until users have got an answer to everything they ask for."""
        try:
            async with asyncio.timeout(self._patience):
                await self.users.rest()
        except TimeoutError:
            raise Broken(f"users get no answer: {sorted(self.users.answers)}") from None

    def _check_doubles(self):
        if self._watchman.found:
            raise Broken("\n".join(self._watchman.found.values()))

    async def _settle(self, number):
        started = time.monotonic()
        await self._until(self._wrong, f"fault {number}")
        seconds = time.monotonic() - started
        self._settled.append(seconds)
        self.users.forget_values()
        say(f"at rest after {number} faults, in {seconds:.1f} s")

    async def _until(self, wrong, when):
        """Wait until nothing is wrong any more."""
        end = time.monotonic() + self._patience
        before = None
        while True:
            self._check_doubles()
            found = await wrong()
            if found != before:
                _LOG.warning("after %s still wrong: %s", when, found[:3])
                before = found
            if not found:
                return
            if time.monotonic() > end:
                raise Broken(f"{self._patience:g} s after {when}:\n" + "\n".join(found))
            await asyncio.sleep(_AGAIN_SECONDS)

    async def _wrong(self):
        try:
            self.scene = await self._look()
            found = invariants.at_rest(self.scene, self.users.wishes)
            if not found and (values := await self.users.probe()) != {self.users.values[-1]}:
                found = [f"pods are given {values}, the preset says {self.users.values[-1]}"]
        except Exception as error:  # noqa: BLE001 - an API server that does not answer is as wrong as a wrong answer
            return [f"cannot look: {error!r}"]
        if not found and not await self._estate.all_ready():
            return ["not every process is ready"]
        return found

    async def _left(self):
        try:
            self.scene = await self._look()
        except evidence.UnavailableError as error:
            return [f"cannot look: {error!r}"]
        return list(invariants.nothing_left(self.scene))

    async def _look(self, *kinds):
        scene = await asyncio.to_thread(self._server.look, *kinds)
        scene["vms"] = await asyncio.to_thread(evidence.vms, self._estate.sim._control)
        scene["capv"] = self._estate.vcenter
        return scene

    def report(self):
        """Figures of the run so far."""
        done = [fault.kind for fault in self._faults[: self._made]]
        tracebacks = {}
        for name, replica in self._estate.replicas.items():
            for (message, last), count in replica.tracebacks().items():
                tracebacks[f"{name}: {message}: {last}"] = count
        return {
            "faults": len(done),
            "kinds": dict(Counter(done).most_common()),
            "rests": len(self._settled),
            "settle_seconds": _quantiles(self._settled),
            "users": self.users.done,
            "users_tried_again": self.users.retries,
            "looks": self._watchman.looks,
            "requests": {name: gate.requests for name, gate in self._estate.gates.items()},
            "starts": {name: replica.starts for name, replica in self._estate.replicas.items()},
            "tracebacks": tracebacks,
            "mistakes_of_stand_ins": self._estate.mistakes(),
            "machine": f"{platform.machine()}, Python {platform.python_version()}",
        }

    def keep(self, folder):
        """Write down what there was and what users wanted."""
        (folder / "wishes.json").write_text(plain(self.users.wishes))
        scene = {kind: found for kind, found in self.scene.items() if kind != "capv"}
        (folder / "scene.json").write_text(json.dumps(scene, indent=1))
        vms = [str(vm) for vm in self._estate.vcenter.vms]
        (folder / "capv.txt").write_text("\n".join([*vms, *self._estate.vcenter.wrong]))
        for daemon in (self._estate.cluster.apiserver.daemon, self._estate.cluster.etcd.daemon):
            shutil.copy(daemon.log, folder)


def _quantiles(values):
    if not values:
        return {}
    cut = statistics.quantiles(values, n=100, method="inclusive") if len(values) > 1 else values * 99
    return {"p50": round(cut[49], 1), "p99": round(cut[98], 1), "max": round(max(values), 1)}


async def run(faults, seed, folder, *, patience, having, lease=plan.LEASE_SECONDS, dense=1):
    """Make the faults on an estate of their own; `(report, what was wrong or None)`."""
    async with Estate.running(folder, seed, having, lease) as estate:
        made = Run(estate, faults, seed, patience=patience, dense=dense)
        wrong = None
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, made.stop)
        try:
            await made.go()
        except* Broken as group:
            made.keep(Path(folder))
            wrong = first_broken(group)
        finally:
            loop.remove_signal_handler(signal.SIGINT)
        return made.report(), wrong


def first_broken(group):
    """The text of the first Broken in a group of exceptions."""
    error = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error)


def _arguments(arguments):
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults.runner", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--faults", type=int, default=500, metavar="N", help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, metavar="N", help="which (default: another one each time)")
    parser.add_argument("--patience", type=float, default=300.0, metavar="S", help="seconds to heal (%(default)g)")
    parser.add_argument("--dense", type=int, default=1, metavar="N", help="times as many at a time (%(default)s)")
    parser.add_argument(
        "--lease", type=float, default=plan.LEASE_SECONDS, metavar="S", help="its seconds (%(default)g)"
    )
    parser.add_argument("--plan-only", action="store_true", help="print the plan and stop")
    parser.add_argument("--plan", type=Path, metavar="FILE", help="make the faults of this plan")
    parser.add_argument("--only", action="append", metavar="KIND", help="only faults of this kind; repeatable")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there, too")
    return parser.parse_args(arguments)


def main(arguments=None):
    """Run; the exit code."""
    options = _arguments(arguments)
    seed = secrets.randbelow(1 << 32) if options.seed is None else options.seed
    having = possible()
    kinds = plan.available(having)
    kinds = {name: kind for name, kind in kinds.items() if not options.only or name in options.only}
    faults = (
        plan.load(options.plan.read_text())
        if options.plan
        else plan.draw(seed, options.faults, kinds, lease=options.lease, dense=options.dense)
    )
    if options.plan_only:
        print(plan.dump(faults), end="")
        return 0
    left_out = sorted(plan.KINDS.keys() - kinds.keys())
    say(f"seed {seed}, {len(faults)} faults" + (f"; not on this machine: {', '.join(left_out)}" if left_out else ""))
    folder = Path(tempfile.mkdtemp(prefix="groundwork-faults-"))
    (folder / "plan.jsonl").write_text(plan.dump(faults))
    logging.basicConfig(filename=folder / "stand-ins.log", level=logging.WARNING)
    started = time.monotonic()
    report, wrong = asyncio.run(
        run(
            faults,
            seed,
            folder,
            patience=options.patience,
            having=having,
            lease=options.lease,
            dense=options.dense,
        )
    )
    report = {"seed": seed, "seconds": round(time.monotonic() - started), "violations": wrong, **report}
    text = json.dumps(report, indent=1)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")
    if wrong is None:
        shutil.rmtree(folder)
        return 0
    lines = wrong.splitlines()
    print("\n".join(lines[:_SHOWN]), file=sys.stderr)
    print(f"seed {seed}: wrong; everything that there was is in {folder}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
