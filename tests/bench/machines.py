"""Measurements of the machine controller on a real API server and a simulated vCenter.

Responsible for: what is done in which order and what is read off. All machines are made at once, with addresses, so
that neither allocator nor integrator is measured; Cluster API's part is done by the bench. Guests report what they were
told.
Invariant: in the end each machine had one VM with its own UUID and address, and nothing is left; else BenchError.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import time
from collections import Counter
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml
from prometheus_client.parser import text_string_to_metric_families

from services.machine_controller import api, contract
from services.runtime.cache.reflector import Reflector
from services.runtime.cache.store import Store
from services.runtime.clock import SystemClock
from services.runtime.kube.objects import KubeObject, ObjectMeta, OwnerReference, raw, view, with_status
from tests.bench import load
from tests.bench.load import NAMESPACE, BenchError, Observer
from tests.bench.party import Party
from tests.bench.report import Target, table
from tests.bench.stage import stage
from tests.support.machine_site import NETWORK, TEMPLATE, Guests
from tests.support.vcenter import PASSWORD, USER, Vcsim
from tools import capi
from tools.paths import ROOT
from tools.progress import say, step

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from services.runtime.kube.transport import Client

SIZE = 200
CALLS = 12.0
SESSIONS = 1
BLOCKED_SECONDS = 0.05
_CLUSTER = "bench"
_MACHINES, _CLUSTERS = contract.MACHINES[0], contract.CLUSTERS[0]
_SESSION_CALLS = {"WaitForUpdatesEx", "Login", "Logout", "RetrieveServiceContent", "CurrentTime"}
"""Calls that belong to the session or to the one long poll, whatever the number of machines."""
_SAMPLE_SECONDS = 0.2
_BOOT_SECONDS = 0.5
"""Between two looks for VMs that were powered on: all of them with what they were told are some megabytes."""
_WARM_UP = 8
"""Machines before those that are measured: pools of threads grow to their size with the first calls."""


class Options(NamedTuple):
    """How the service is run; None is the program's own default."""

    workers: int | None = None
    uvloop: bool | None = None


class _Provisioned(Observer):
    """When each VSphereMachine was first seen, was provisioned (`bound`) and was gone."""

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[_Provisioned]:
        # Not a bare watch: the server ends those of whoever reads slowly, as this process does now and then.
        store: Store[KubeObject] = Store("bench")
        store.subscribe(self._note_machine)
        clock = SystemClock()
        reflector = Reflector(self._client, api.VSPHERE_MACHINES, store, clock=clock, namespace=NAMESPACE)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(reflector.run())
            await store.wait_synced()
            yield self
            task.cancel()

    def _note_machine(self, old: KubeObject | None, new: KubeObject | None) -> None:
        now = time.perf_counter()
        if new is None:
            assert old is not None
            self.gone[old.metadata.name] = now
        else:
            self.seen.setdefault(new.metadata.name, now)
            initialization = view(new.status, api.VSphereMachineStatus).initialization
            if initialization is not None and initialization.provisioned:
                self.bound.setdefault(new.metadata.name, now)
        self._changed.set()


def measure(count: int, options: Options) -> dict[str, Any]:
    """Make so many machines at once and delete them, and return the figures."""
    folder = ROOT / "deploy" / "crds" / "infrastructure"
    definitions = capi.crds("machines.cluster.x-k8s.io")
    definitions += [yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.yaml"))]
    with (
        step(f"machine controller: {count:,} machines"),
        Vcsim.running(cluster=1, host=8) as sim,
        stage(*definitions, groups=(api.GROUP, "")) as on,
    ):
        party = Party(
            "machines", on, workers=options.workers, uvloop=options.uvloop, flags=("--no-leader-election", "--all")
        )
        with party:
            party.wait_ready()
            return asyncio.run(_measure(on, party, sim, count))


async def _measure(on: Any, party: Party, sim: Vcsim, count: int) -> dict[str, Any]:
    at_first = sim.vms()
    names = [f"m-{number:04}" for number in range(count)]
    async with (
        on.client() as client,
        Guests(sim, every=_BOOT_SECONDS).running(),
        _Provisioned(client, lambda: party.pid).watching() as seen,
    ):
        await _cluster(client, sim)
        warm = [f"warm-{number}" for number in range(_WARM_UP)]
        await load.each(list(enumerate(warm, 1 + count)), lambda item: _machine(client, item[1], item[0]))
        await seen.wait(seen.bound, warm, "provisioned")
        sim.forget_stats()
        threads_before, threads = _threads(party.pid), _Threads(party)
        usage, before = on.usage(process=party.pid), party.requests()
        async with threads.sampled():
            await load.each(list(enumerate(names, 1)), lambda item: _machine(client, item[1], item[0]))
            await seen.wait(seen.bound, names, "provisioned")
        cpu, asked, made = usage.so_far()[0], party.requests().since(before), sim.stats()
        latencies = sorted(seen.bound[n] - seen.seen[n] for n in names)
        seconds = max(seen.bound[n] for n in names) - min(seen.seen[n] for n in names)
        await _verify(client, sim, [*warm, *names], at_first)
        say(f"    made: {count / seconds:.1f}/s")
        rss, lag = party.rss(peak=True), _lag(party)
        ready = await asyncio.to_thread(party.restart)
        started, before_end = time.perf_counter(), party.requests()
        sim.forget_stats()
        await load.each([*names, *warm], lambda name: client.delete(api.VSPHERE_MACHINES, name, NAMESPACE))
        await seen.wait(seen.gone, [*names, *warm], "gone")
        ended, ending = sim.stats(), party.requests().since(before_end)
        deleted = (count + _WARM_UP) / (time.perf_counter() - started)
        if sim.vms() != at_first:
            raise BenchError("VMs are left in vCenter")
    return {
        "machines": count,
        "rate": count / seconds,
        "p50": latencies[len(latencies) // 2],
        "p99": latencies[min(count - 1, int(0.99 * count))],
        "vcenter_calls": _calls(made, count),
        "vcenter_by_method": _by_method(made, count),
        "vcenter_calls_deleting": _calls(ended, count + _WARM_UP),
        "sessions": made["sessions"],
        "connections": made["peakConnections"],
        "in_flight": made["peakInFlight"],
        "api_calls": asked.calls / count,
        "api_bytes": asked.bytes / count,
        "api_calls_deleting": ending.calls / (count + _WARM_UP),
        "refused": asked.refused,
        "threads_before": threads_before,
        "threads_peak": threads.peak,
        "cpu_ms": 1000 * cpu["process"] / count,
        "rss_peak": rss,
        "ready_seconds": ready,
        "deleted_rate": deleted,
        "lag": lag,
    }


async def _cluster(client: Client, sim: Vcsim) -> None:
    """A cluster whose infrastructure is there."""
    texts = {"username": USER, "password": PASSWORD, "ca.crt": sim.ca.decode()}
    await client.create(contract.SECRETS, _secret("vcenter", texts))
    ref = {"apiGroup": api.GROUP, "kind": "VSphereCluster", "name": _CLUSTER}
    cluster = await client.create(_CLUSTERS, _object(_CLUSTERS, _CLUSTER, {"infrastructureRef": ref}))
    await client.update_status(_CLUSTERS, with_status(cluster, {"initialization": {"infrastructureProvisioned": True}}))
    spec = {
        "server": str(sim.server),
        "identityRef": {"kind": "Secret", "name": "vcenter"},
        "controlPlaneEndpoint": {"host": "10.255.255.1", "port": 6443},
    }
    await client.create(api.VSPHERE_CLUSTERS, _object(api.VSPHERE_CLUSTERS, _CLUSTER, spec))


async def _machine(client: Client, name: str, number: int) -> None:
    """A machine with an address and bootstrap data of the usual size."""
    await client.create(contract.SECRETS, _secret(f"{name}-boot", {"value": "#cloud-config\n" + "#" * 16_000}))
    ref = {"apiGroup": api.GROUP, "kind": "VSphereMachine", "name": name}
    spec = {"clusterName": _CLUSTER, "infrastructureRef": ref, "bootstrap": {"dataSecretName": f"{name}-boot"}}
    machine = await client.create(_MACHINES, _object(_MACHINES, name, spec))
    owner = OwnerReference(machine.apiVersion, machine.kind, name, machine.metadata.uid, controller=True)
    device = {
        "networkName": NETWORK,
        "ipAddrs": [f"10.1.{number // 250}.{number % 250 + 1}/16"],
        "gateway4": "10.1.255.254",
    }
    own = {"template": TEMPLATE, "network": {"devices": [device]}}
    await client.create(api.VSPHERE_MACHINES, _object(api.VSPHERE_MACHINES, name, own, owners=(owner,)))


def _secret(name: str, texts: dict[str, str]) -> contract.Secret:
    data = {key: base64.b64encode(value.encode()).decode() for key, value in texts.items()}
    meta = ObjectMeta(name=name, namespace=NAMESPACE)
    return contract.Secret(apiVersion="v1", kind="Secret", metadata=meta, data=data)


def _object(resource: Any, name: str, spec: dict[str, Any], *, owners: tuple[OwnerReference, ...] = ()) -> KubeObject:
    labels = {contract.CLUSTER_NAME_LABEL: _CLUSTER}
    meta = ObjectMeta(name=name, namespace=NAMESPACE, labels=labels, ownerReferences=owners)
    return KubeObject(apiVersion=resource.api_version, kind=resource.kind, metadata=meta, spec=raw(spec))


async def _verify(client: Client, sim: Vcsim, names: list[str], at_first: dict[str, Any]) -> None:
    """Hold machines and VMs against each other."""
    machines = {obj.metadata.name: obj for obj in (await client.list(api.VSPHERE_MACHINES, NAMESPACE)).items}
    vms = {name: vm for name, vm in sim.vms().items() if name not in at_first}
    if sorted(vms) != sorted(names):
        raise BenchError(f"{len(vms)} VMs for {len(names)} machines")
    for name, vm in vms.items():
        if vm["instanceUuid"] != machines[name].metadata.uid or vm["power"] != "poweredOn":
            raise BenchError(f"the VM {name} is not the machine's, or does not run")


def _calls(stats: dict[str, Any], count: int) -> float:
    return sum(number for method, number in stats["calls"].items() if method not in _SESSION_CALLS) / count


def _by_method(stats: dict[str, Any], count: int) -> dict[str, float]:
    return {method: number / count for method, number in Counter(stats["calls"]).most_common()}


def _threads(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Threads:"))


class _Threads:
    """The most threads that a process had."""

    def __init__(self, party: Party) -> None:
        self._party = party
        self.peak = 0

    @asynccontextmanager
    async def sampled(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self._sample())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _sample(self) -> None:
        while True:
            self.peak = max(self.peak, _threads(self._party.pid))
            await asyncio.sleep(_SAMPLE_SECONDS)


def _lag(party: Party) -> dict[str, float]:
    """Ticks of the service's event loop: all, those later than `BLOCKED_SECONDS`, and the worst."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(party.page("/metrics")):
        for sample in family.samples:
            what = {"bench_loop_late_seconds": "late", "bench_loop_busy_seconds": "busy"}.get(family.name)
            if what is not None and sample.name.endswith("_count"):
                found[f"{what}_ticks"] = sample.value
            elif what is not None and sample.labels.get("le") == str(BLOCKED_SECONDS):
                found[f"{what}_in_time"] = sample.value
            elif sample.name == "bench_loop_worst_seconds":
                found[f"{sample.labels['what']}_worst"] = sample.value
    return found


def targets(results: dict[str, Any]) -> list[Target]:
    """Hold the results against what is promised."""
    lag = results["lag"]
    grown = results["threads_peak"] - results["threads_before"]
    return [
        Target(
            f"{results['machines']:,} machines over {SESSIONS} session",
            f"{results['sessions']}",
            results["sessions"] == SESSIONS,
        ),
        Target(
            f"at most {CALLS:g} calls of vCenter a machine",
            f"{results['vcenter_calls']:.1f}",
            results["vcenter_calls"] <= CALLS,
        ),
        Target(f"no more threads than with {_WARM_UP} machines", f"{grown:+d}", grown <= 0),
        Target(
            f"event loop never busy for over {BLOCKED_SECONDS * 1000:.0f} ms",
            f"{lag['busy_worst'] * 1000:.0f} ms",
            lag["busy_worst"] <= BLOCKED_SECONDS,
        ),
    ]


def text(results: dict[str, Any]) -> str:
    """Everything that was measured, for a terminal."""
    lag = results["lag"]
    head = (
        "machines",
        "/s",
        "p50 s",
        "p99 s",
        "vCenter calls",
        "API calls",
        "ms",
        "MiB",
        "deleted/s",
        "calls",
        "API calls",
    )
    row = (
        f"{results['machines']:,}",
        f"{results['rate']:.1f}",
        f"{results['p50']:.1f}",
        f"{results['p99']:.1f}",
        f"{results['vcenter_calls']:.1f}",
        f"{results['api_calls']:.1f}",
        f"{results['cpu_ms']:.0f}",
        f"{results['rss_peak']:.0f}",
        f"{results['deleted_rate']:.1f}",
        f"{results['vcenter_calls_deleting']:.1f}",
        f"{results['api_calls_deleting']:.1f}",
    )
    methods = ", ".join(f"{name} {number:.2f}" for name, number in results["vcenter_by_method"].items())
    lines = [
        "Machines made at once, to the assigned address reported by the guest; then deleted at once",
        *(f"  {line}" for line in table(head, [row])),
        f"  vCenter calls each: {methods}",
    ]
    lines.append(
        f"  sessions {results['sessions']}, connections at most {results['connections']}, calls at once at most "
        f"{results['in_flight']}, threads {results['threads_before']} before, {results['threads_peak']} at most"
    )
    lines.append(
        f"  event loop: {lag['late_ticks']:,.0f} ticks, {lag['late_ticks'] - lag['late_in_time']:.0f} later than "
        f"{BLOCKED_SECONDS * 1000:.0f} ms (worst {lag['late_worst'] * 1000:.0f} ms), "
        f"{lag['busy_ticks'] - lag['busy_in_time']:.0f} through its own work "
        f"(worst {lag['busy_worst'] * 1000:.0f} ms)"
    )
    return "\n".join([*lines, ""])
