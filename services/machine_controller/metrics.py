"""The machine controller's own metrics; those of vCenter's calls and sessions are with them, in `vsphere`."""

from __future__ import annotations

from services.runtime import metrics

PHASE = metrics.gauge(
    "groundwork_machine_phase", "VSphereMachines by the reason of VirtualMachineProvisioned.", ("phase",)
)
CLONES = metrics.gauge("groundwork_machine_clones_running", "Clones that were started and have not ended.", ("server",))
STEPS = metrics.counter("groundwork_machine_steps_total", "Steps taken with VSphereMachines.", ("step", "result"))
PROVISION_SECONDS = metrics.histogram(
    "groundwork_machine_provision_seconds",
    "From the creation of a VSphereMachine to the moment its guest reported the assigned addresses.",
    buckets=(1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600),
)
UNEXPECTED = metrics.counter(
    "groundwork_machine_unexpected_total",
    "Changes of VMs that were not made here: power, absent, inaccessible, place.",
    ("what",),
    known=(("power",), ("absent",), ("inaccessible",), ("place",)),
)


class Phases:
    """Keeps the gauge of phases: each machine counts in one."""

    def __init__(self) -> None:
        self._phases: dict[object, str] = {}
        self._counts: dict[str, int] = {}

    def put(self, key: object, phase: str) -> str:
        """Count a machine in a phase, "" in none; returns the phase it was in."""
        before = self._phases.get(key, "")
        if before == phase:
            return before
        for name, change in ((before, -1), (phase, 1)):
            if name:
                self._counts[name] = self._counts.get(name, 0) + change
                PHASE.labels(name).set(self._counts[name])
        if phase:
            self._phases[key] = phase
        else:
            self._phases.pop(key, None)
        return before
