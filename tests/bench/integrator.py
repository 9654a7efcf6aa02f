"""Measurements of the integrator on a real API server with CAPV's definitions, beside the allocator's own rate.

Responsible for: what is done in which order and what is read off. The allocator alone binds claims, then allocator and
integrator serve as many machines, by turns on one cluster, so that a noisy minute falls on both. CAPV itself does not
run: what it writes is not the integrator's doing. The allocator's rate is taken twice: of the very claims that the
machines wait for, and of claims alone, which cost the API server two large writes less.
Invariant: after each run every machine has an address of its own and its claim holds it; else BenchError.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from services.capv_integrator import api
from services.runtime.kube.objects import KubeObject, ObjectMeta, OwnerReference, decoder, raw, view
from tests.bench import load
from tests.bench.load import NAMESPACE, POOL, BenchError, Observer
from tests.bench.party import Party
from tests.bench.report import Target, table
from tests.bench.stage import Stage, stage
from tools import capi
from tools.progress import say, step

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from services.runtime.kube.objects import WatchEvent
    from services.runtime.kube.transport import Client

SIZE, FULL_SIZE, ROUNDS = 500, 2_000, 2
RATIO = 0.7
CALLS = 5.0
QUIET_SECONDS = 20.0
_WARM_UP = 50
_CLUSTER = "bench"
_KINDS = {"VSphereMachine", "VSphereVM", "VSphereCluster", "VSphereMachineTemplate", "Machine"}
_VSPHERE_MACHINES, _MACHINES, _CLUSTERS = api.VSPHERE_MACHINES[0], api.MACHINES[0], api.CLUSTERS[0]
_CLAIMS, _ADDRESSES = api.IP_ADDRESS_CLAIMS[0], api.IP_ADDRESSES[0]


class Options(NamedTuple):
    """How both services are run; None is the program's own default."""

    workers: int | None = None
    uvloop: bool | None = None


class _Machines(Observer):
    """When each VSphereMachine was first seen, had an address (`bound`) and was gone; and its claim, by its name."""

    def __init__(self, client: Client, alive: Any) -> None:
        super().__init__(client, alive)
        self.claimed: dict[str, float] = {}
        self.allocated: dict[str, float] = {}
        self.released: dict[str, float] = {}

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[_Machines]:
        async with asyncio.TaskGroup() as group:
            tasks = []
            for resource, note in ((_VSPHERE_MACHINES, self._note), (_CLAIMS, self._note_claim)):
                version = (await self._client.list(resource, NAMESPACE)).resource_version
                tasks.append(group.create_task(load.follow(self._client, resource, version, note)))
            yield self
            for task in tasks:
                task.cancel()

    def _note(self, event: WatchEvent) -> None:
        now = time.perf_counter()
        obj = decoder(KubeObject).decode(event.object)
        name = obj.metadata.name
        if event.type == "DELETED":
            self.gone[name] = now
        else:
            self.seen.setdefault(name, now)
            if any(device.get("ipAddrs") for device in api.devices_of(obj) or ()):
                self.bound.setdefault(name, now)
        self._changed.set()

    def _note_claim(self, event: WatchEvent) -> None:
        now = time.perf_counter()
        obj = decoder(KubeObject).decode(event.object)
        owner = (obj.metadata.annotations or {}).get(api.OWNER_ANNOTATION)
        if owner is None:
            return
        self.claimed.setdefault(owner, now)
        if view(obj.status, api.ClaimStatus).address_ref is not None:
            self.allocated.setdefault(owner, now)
        if event.type == "DELETED":
            self.released[owner] = now
        self._changed.set()


def measure(count: int, options: Options, *, rounds: int = ROUNDS) -> dict[str, Any]:
    """Run everything with `count` machines and return the figures."""
    definitions = [
        crd
        for crd in capi.crds("machines.cluster.x-k8s.io", api.INFRASTRUCTURE_GROUP)
        if crd["spec"]["names"]["kind"] in _KINDS
    ]
    with (
        step(f"integrator: {count:,} machines, {rounds} rounds"),
        stage(*definitions, groups=(api.INFRASTRUCTURE_GROUP,)) as on,
        Party("allocator", on, workers=options.workers, uvloop=options.uvloop) as allocator,
    ):
        allocator.wait_ready()
        integrator = Party(
            "integrator", on, workers=options.workers, uvloop=options.uvloop, flags=("--no-leader-election",)
        )
        return asyncio.run(_measure(on, allocator, integrator, count, rounds))


async def _measure(on: Stage, allocator: Party, integrator: Party, count: int, rounds: int) -> dict[str, Any]:
    alone, together = [], []
    async with on.client() as client:
        await client.create(_CLUSTERS, _object(_CLUSTERS, _CLUSTER, {"infrastructureRef": _ref("VSphereCluster")}))
        await _alone(on, client, allocator, "warm-claims", _WARM_UP)
        for number in range(rounds):
            alone.append(await _alone(on, client, allocator, f"alone-{number}", count))
            say(f"    allocator alone: {alone[-1]['rate']:.0f} claims/s")
            with integrator:
                integrator.wait_ready()
                together.append(await _together(on, client, integrator, f"round-{number}", count))
                if number == rounds - 1:
                    quiet = await _quiet(integrator)
            say(f"    with the integrator: {together[-1]['rate']:.0f} machines/s")
    rate = statistics.median(run["rate"] for run in together)
    ratios = [run["rate"] / run["allocator_rate"] for run in together]
    ratios_alone = [run["rate"] / by_itself["rate"] for run, by_itself in zip(together, alone, strict=True)]
    return {
        "machines": count,
        "allocator_alone": alone,
        "runs": together,
        "rate": rate,
        "ratios": ratios,
        "ratio": statistics.median(ratios),
        "ratios_alone": ratios_alone,
        "calls": statistics.median(run["calls"] for run in together),
        "quiet_calls": quiet,
    }


async def _alone(on: Stage, client: Client, allocator: Party, prefix: str, count: int) -> dict[str, float]:
    """Let the allocator bind claims by itself, of the kind that the integrator makes."""
    wanted = load.claims(prefix, 2 * count)[1::2]
    names = [claim.name for claim in wanted]
    async with Observer(client, lambda: allocator.pid).watching() as observer:
        usage = on.usage()
        await load.create(client, wanted)
        await observer.wait(observer.bound, names, "bound")
        server = usage.so_far()[0]["server"]
        seconds = max(observer.bound[n] for n in names) - min(observer.seen[n] for n in names)
        return {"rate": count / seconds, "server_ms": 1000 * server / count}


async def _together(on: Stage, client: Client, integrator: Party, prefix: str, count: int) -> dict[str, Any]:
    warm = await _prepare(client, f"{prefix}-warm", _WARM_UP)
    wanted = await _prepare(client, prefix, count)
    names = [obj.metadata.name for obj in wanted]
    async with _Machines(client, lambda: integrator.pid).watching() as observer:
        await _create(client, warm)
        await observer.wait(observer.bound, [obj.metadata.name for obj in warm], "written")
        await _settled(integrator)
        usage, before = on.usage(process=integrator.pid), integrator.requests()
        await _create(client, wanted)
        await observer.wait(observer.bound, names, "written")
        await _settled(integrator)
        asked, cpu = integrator.requests().since(before), usage.so_far()[0]
        first, last = min(observer.seen[n] for n in names), max(observer.bound[n] for n in names)
        latencies = sorted(observer.bound[n] - observer.seen[n] for n in names)
        await _verify(client, [*warm, *wanted])
        claimed, allocated = ([times[n] for n in names] for times in (observer.claimed, observer.allocated))
        run = {
            "rate": count / (last - first),
            "allocator_rate": count / (max(allocated) - min(claimed)),
            "p50": statistics.median(latencies),
            "p99": latencies[min(count - 1, int(0.99 * count))],
            "calls": asked.calls / count,
            "bytes": asked.bytes / count,
            "by_method": {method: number / count for method, number in sorted(asked.by_method.items()) if number},
            "refused": asked.refused,
            "lists": asked.lists,
            "cpu_ms": {name: 1000 * seconds / count for name, seconds in cpu.items()},
            "rss_peak": integrator.rss(peak=True),
            "ready_seconds": await asyncio.to_thread(integrator.restart),
        }
        await load.each(names, lambda name: client.delete(_VSPHERE_MACHINES, name, NAMESPACE))
        await observer.wait(observer.released, names, "released")
        gone = min(observer.gone[n] for n in names)
        run["release_rate"] = count / (max(observer.released[n] for n in names) - gone)
    return run


async def _settled(integrator: Party) -> None:
    """Wait until the integrator asks nothing any more: conditions and Events come after the addresses."""
    before = integrator.requests()
    while True:
        await asyncio.sleep(1.0)
        after = integrator.requests()
        if after == before:
            return
        before = after


async def _quiet(integrator: Party) -> float:
    """Requests of the integrator in a while without changes, but for watches that the server ended in their time."""
    await _settled(integrator)
    before, watches = integrator.requests(), _watches(integrator)
    await asyncio.sleep(QUIET_SECONDS)
    return sum(integrator.requests().since(before).by_method.values()) - (_watches(integrator) - watches)


def _watches(party: Party) -> float:
    families = text_string_to_metric_families(party._get("/metrics")[1].decode())
    samples = (sample for family in families for sample in family.samples)
    return sum(sample.value for sample in samples if sample.name == "groundwork_reflector_watches_total")


async def _prepare(client: Client, prefix: str, count: int) -> list[KubeObject]:
    """Make Machines, and return the VSphereMachines that are to be made for them."""
    machines = []
    for number in range(count):
        spec = {
            "clusterName": _CLUSTER,
            "bootstrap": {"dataSecretName": "bench"},
            "infrastructureRef": _ref("VSphereMachine"),
        }
        machines.append(_object(_MACHINES, f"{prefix}-{number}", spec))
    made: list[KubeObject] = []

    async def make(machine: KubeObject) -> None:
        made.append(await client.create(_MACHINES, machine))

    await load.each(machines, make)
    return [_vsphere_machine(machine) for machine in made]


def _vsphere_machine(machine: KubeObject) -> KubeObject:
    owner = OwnerReference(
        machine.apiVersion, machine.kind, machine.metadata.name, machine.metadata.uid, controller=True
    )
    devices = [{"networkName": "VM Network"}, {"networkName": "Management", "dhcp4": True}]
    spec = {"template": "ubuntu-2404", "numCPUs": 2, "memoryMiB": 4096, "network": {"devices": devices}}
    return _object(
        _VSPHERE_MACHINES, machine.metadata.name, spec, owners=(owner,), annotations={api.POOLS_ANNOTATION: POOL}
    )


def _object(
    resource: Any,
    name: str,
    spec: dict[str, Any],
    *,
    owners: tuple[OwnerReference, ...] = (),
    annotations: dict[str, str] | None = None,
) -> KubeObject:
    meta = ObjectMeta(
        name=name,
        namespace=NAMESPACE,
        labels={api.CLUSTER_NAME_LABEL: _CLUSTER},
        annotations=annotations,
        ownerReferences=owners,
    )
    return KubeObject(apiVersion=resource.api_version, kind=resource.kind, metadata=meta, spec=raw(spec))


def _ref(kind: str) -> dict[str, str]:
    return {"apiGroup": api.INFRASTRUCTURE_GROUP, "kind": kind, "name": "bench"}


async def _create(client: Client, wanted: Iterable[KubeObject]) -> None:
    await load.each(wanted, lambda obj: client.create(_VSPHERE_MACHINES, obj))


async def _verify(client: Client, wanted: Sequence[KubeObject]) -> None:
    """Hold machines, claims and addresses against each other."""
    held = {}
    for obj in (await client.list(_ADDRESSES, NAMESPACE)).items:
        spec = view(obj.spec, api.AddressSpec)
        held[spec.claim_ref.name] = spec.address
    claimed: dict[str, list[str]] = {}
    for obj in (await client.list(_CLAIMS, NAMESPACE, label_selector=api.OWNER_KIND_LABEL)).items:
        claimed.setdefault((obj.metadata.annotations or {})[api.OWNER_ANNOTATION], []).append(held[obj.metadata.name])
    seen: dict[str, str] = {}
    machines = {obj.metadata.name: obj for obj in (await client.list(_VSPHERE_MACHINES, NAMESPACE)).items}
    for name in (obj.metadata.name for obj in wanted):
        static, other = api.devices_of(machines[name]) or ()
        texts = [text.partition("/")[0] for text in static["ipAddrs"]]
        if claimed.get(name) != texts or other != {"networkName": "Management", "dhcp4": True}:
            raise BenchError(f"{name} says {static} and {other}, its claims hold {claimed.get(name)}")
        if texts[0] in seen:
            raise BenchError(f"{texts[0]} was given to {seen[texts[0]]} and {name}")
        seen[texts[0]] = name


def targets(results: dict[str, Any]) -> list[Target]:
    """Hold the results against what is promised."""
    ratio, calls, quiet = results["ratio"], results["calls"], results["quiet_calls"]
    return [
        Target(
            f"{results['machines']:,} machines at {RATIO:.0%} of the allocator's rate in the same run",
            f"{ratio:.0%}",
            ratio >= RATIO,
        ),
        Target(f"at most {CALLS:g} API calls a machine", f"{calls:.2f}", calls <= CALLS),
        Target(f"no API call in {QUIET_SECONDS:.0f} s of quiet", f"{quiet:.0f}", quiet == 0),
    ]


def text(results: dict[str, Any]) -> str:
    """Everything that was measured, for a terminal."""
    rows = []
    columns = (results[name] for name in ("allocator_alone", "runs", "ratios", "ratios_alone"))
    for alone, run, ratio, ratio_alone in zip(*columns, strict=True):
        methods = ", ".join(f"{method} {number:.2f}" for method, number in run["by_method"].items())
        rows.append(
            (
                f"{results['machines']:,}",
                f"{run['rate']:.0f}",
                f"{run['allocator_rate']:.0f}",
                f"{ratio:.2f}",
                f"{alone['rate']:.0f}",
                f"{ratio_alone:.2f}",
                f"{run['p50']:.2f}",
                f"{run['p99']:.2f}",
                methods,
                f"{run['refused']:.0f}",
                f"{run['cpu_ms']['process']:.1f}",
                f"{run['cpu_ms']['server']:.1f}",
                f"{alone['server_ms']:.1f}",
                f"{run['release_rate']:.0f}",
                f"{run['rss_peak']:.0f}",
            )
        )
    head = (
        *("machines", "/s", "allocator/s", "ratio", "alone/s", "ratio", "p50 s", "p99 s", "calls each", "refused"),
        *("ms", "server ms", "alone ms", "released/s", "MiB"),
    )
    lines = ["Machines created as fast as the API server takes them, to the address in their spec"]
    lines += [f"  {line}" for line in table(head, rows)]
    lines += [
        "  allocator/s: claims of these machines, made to bound, in the same run. alone/s: as many claims without",
        "  machines and integrator, right before. ms: CPU each, of the integrator, of the API server, and of the API",
        "  server with claims alone.",
    ]
    return "\n".join([*lines, f"  API calls in {QUIET_SECONDS:.0f} s of quiet: {results['quiet_calls']:.0f}", ""])
