"""Many machines at once through one connection to vCenter, from clone to address and back to nothing, measured.

Responsible for: the life of a machine as the controller leads it, call for call, and the figures that say what it
costs: calls, sessions, connections, threads, and how long the event loop was kept from its work.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import uuid
from dataclasses import dataclass, field

from services.machine_controller.vsphere.values import (
    CloneSpec,
    ExtraConfig,
    Gone,
    NetworkDevice,
    PowerState,
    VirtualMachine,
)
from services.machine_controller.vsphere.vcenter import VCenters
from tests.support.waiting import until

_USERDATA = "I2Nsb3VkLWNvbmZpZwo=" * 800  # 16 KB, as kubeadm's bootstrap data is


@dataclass
class Figures:
    """What a run cost; `calls` by SOAP method, for all machines together."""

    machines: int
    seconds: float = 0.0
    calls: dict = field(default_factory=dict)
    sessions: int = 0
    peak_connections: int = 0
    peak_in_flight: int = 0
    threads_before: int = 0
    peak_threads: int = 0
    threads_after: int = 0
    lag_ms: list = field(default_factory=list)
    worst_turn_ms: float = 0.0  # processor time of the event loop's thread between two looks; noise does not add to it

    def calls_per_machine(self, *methods):
        chosen = methods or [name for name in self.calls if name != "WaitForUpdatesEx"]
        return sum(self.calls.get(name, 0) for name in chosen) / self.machines

    def lag(self, share):
        """Milliseconds that a share of the turns of the event loop came late at most."""
        ordered = sorted(self.lag_ms)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0

    def __str__(self):
        lines = [
            f"{self.machines} machines in {self.seconds:.1f} s, {self.calls_per_machine():.1f} calls each",
            f"sessions {self.sessions}, connections {self.peak_connections}, calls at once {self.peak_in_flight}",
            f"threads {self.threads_before} before, {self.peak_threads} at most, {self.threads_after} after",
            f"event loop late by {self.lag(0.5):.1f} ms (half), {self.lag(0.99):.1f} (99 %), {self.lag(1):.1f} (worst)",
            f"longest turn of the event loop {self.worst_turn_ms:.1f} ms of its own processor time",
        ]
        return "\n".join([*lines, *(f"  {name} {count}" for name, count in sorted(self.calls.items()))])


def _threads():
    """Threads that belong to connections to vCenter."""
    return sum(thread.name.startswith("vcenter-") for thread in threading.enumerate())


@contextlib.asynccontextmanager
async def _watched(figures):
    """Look at the event loop and at the threads every few milliseconds."""

    async def look():
        while True:
            before, used = time.perf_counter(), time.thread_time()
            await asyncio.sleep(0.005)
            figures.worst_turn_ms = max(figures.worst_turn_ms, (time.thread_time() - used) * 1000)
            figures.lag_ms.append((time.perf_counter() - before - 0.005) * 1000)
            figures.peak_threads = max(figures.peak_threads, _threads())

    looking = asyncio.create_task(look())
    try:
        yield
    finally:
        looking.cancel()


async def run(sim, machines, *, prefix="load"):
    """Lead `machines` machines through their lives at once and return the figures."""
    figures = Figures(machines, threads_before=_threads())
    async with VCenters() as connections:
        vc = connections.get(sim.server, "load", sim.credentials, sim.trust)
        await vc.check()
        sim.forget_stats()
        began = time.perf_counter()
        async with _watched(figures):
            lives = [
                _life(sim, vc, f"{prefix}-{uuid.uuid4().hex[:8]}-{i}", f"10.1.{i // 250}.{i % 250 + 1}")
                for i in range(machines)
            ]
            await asyncio.gather(*lives)
        figures.seconds = time.perf_counter() - began
        stats = await asyncio.to_thread(sim.stats)
        figures.calls, figures.sessions = stats["calls"], stats["sessions"]
        figures.peak_connections, figures.peak_in_flight = stats["peakConnections"], stats["peakInFlight"]
    await until(lambda: not _threads())
    figures.threads_after = _threads()
    return figures


async def _life(sim, vc, name, address):
    """One machine, as the controller leads it."""
    datacenter = await vc.inventory.datacenter("DC0")
    cluster = await vc.inventory.cluster(datacenter, "DC0_C0")
    template = await vc.inventory.template(datacenter, "DC0_C0_RP1_VM0")
    identity = str(uuid.uuid4())
    assert await vc.vms.find(instance_uuid=identity) is None
    spec = CloneSpec(
        name=name,
        template=template.ref,
        folder=(await vc.inventory.folder(datacenter)).ref,
        pool=cluster.root_pool,
        instance_uuid=identity,
        datastore=(await vc.inventory.datastore(datacenter, "LocalDS_0")).ref,
        networks=(NetworkDevice(await vc.inventory.network(datacenter, "DC0_DVPG0")),),
        cpus=4,
        memory_mib=8192,
    )
    await _done(vc, await vc.vms.clone(spec))
    vm = (await vc.vms.find(instance_uuid=identity)).ref
    heard = asyncio.Queue()
    stop = vc.watch.follow(vm, heard.put_nowait)
    (nic,) = await vc.vms.nics(vm)
    await _done(vc, await vc.vms.reconfigure(vm, ExtraConfig({"guestinfo.userdata": _USERDATA})))
    await _done(vc, await vc.vms.power_on(vm))
    await asyncio.to_thread(sim.report, name, addresses={nic.mac: [address]})
    await _hear(heard, lambda update: address in update.guest.addresses())
    await vc.vms.shut_down_guest(vm)
    await _hear(heard, lambda update: update.power is PowerState.OFF)
    await _done(vc, await vc.vms.destroy(vm))
    while not isinstance(await heard.get(), Gone):
        pass
    stop()


async def _done(vc, task):
    finished = await vc.watch.finished(task)
    assert finished.error is None, finished.error


async def _hear(heard, condition):
    while not (isinstance(update := await heard.get(), VirtualMachine) and condition(update)):
        pass


if __name__ == "__main__":
    from tests.support.vcenter import Vcsim

    with Vcsim.running() as simulated:
        print(asyncio.run(run(simulated, 200)))
