"""The reconciler of VSphereMachines: gathers, decides, takes steps, and says what comes of it.

Responsible for: the loop, what a failure means for the machine, conditions, Events and metrics.
Invariants: a failure is told in a condition and followed by a growing pause of its own, whatever else queues the
machine meanwhile; other credentials end the pause. What is said stays until something else is to be said.
Must not know: the rules (`decide`), how a step is taken (`steps`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from services.machine_controller import api, decide, metrics
from services.machine_controller.bootstrap import MissingError
from services.machine_controller.guestinfo.encode import TooLargeError
from services.machine_controller.guestinfo.problems import InvalidError
from services.machine_controller.phases import AS_PLACED, PROVISIONED, Do, Look, Plan, Say
from services.machine_controller.sight import LONGEST_PAUSE
from services.machine_controller.status import News
from services.machine_controller.vsphere.errors import (
    AuthenticationFailed,
    CertificateMismatch,
    Unreachable,
    VSphereError,
)
from services.runtime import log
from services.runtime.controller import ReconcileError, Result, TerminalError
from services.runtime.kube.conditions import FALSE, find, parse_timestamp
from services.runtime.kube.events import NORMAL, WARNING
from services.runtime.kube.objects import view

if TYPE_CHECKING:
    from services.machine_controller.caches import Caches
    from services.machine_controller.gather import Gathering, Subject
    from services.machine_controller.objects import Writer
    from services.machine_controller.probes import Probes
    from services.machine_controller.sight import Sights
    from services.machine_controller.slots import Slots
    from services.machine_controller.steps import Steps
    from services.runtime.clock import Clock
    from services.runtime.kube.conditions import Condition
    from services.runtime.kube.events import EventRecorder
    from services.runtime.kube.objects import KubeObject, ObjectKey

_LOG = log.get("machine_controller")
_STEPS = 20
INVALID = "InvalidConfiguration"
MOVED = "MovedOrRenamed"
_ASKING = {
    Do.LOOK,
    Do.CLONE,
    Do.SEARCH,
    Do.ADOPT,
    Do.PREPARE,
    Do.CONFIGURE,
    Do.POWER_ON,
    Do.SHUT_DOWN,
    Do.POWER_OFF,
    Do.DESTROY,
}
"""Steps that wait for answers of vCenter."""
_NO_ANSWER = (Unreachable, AuthenticationFailed, CertificateMismatch)
_OUTAGE_PAUSE = 30.0
"""After an outage of vCenter nobody should have to wait for long."""
_ALARMS = {
    decide.TASK_FAILED,
    decide.DUPLICATE_NAME,
    decide.NOT_FOUND,
    decide.POWERED_OFF,
    decide.INACCESSIBLE,
    decide.FOREIGN,
    INVALID,
}
"""Reasons that somebody should hear of."""
_FROM_OUTSIDE = {
    decide.NOT_FOUND: "absent",
    decide.POWERED_OFF: "power",
    decide.INACCESSIBLE: "inaccessible",
}


class MachineReconciler:
    """See the module."""

    def __init__(
        self,
        caches: Caches,
        gathering: Gathering,
        sights: Sights,
        slots: Slots,
        probes: Probes,
        steps: Steps,
        writer: Writer,
        events: EventRecorder,
        clock: Clock,
    ) -> None:
        self._caches = caches
        self._gathering = gathering
        self._sights = sights
        self._slots = slots
        self._probes = probes
        self._steps = steps
        self._writer = writer
        self._events = events
        self._clock = clock
        self._phases = metrics.Phases()

    async def reconcile(self, key: ObjectKey) -> Result | None:
        """Do what one machine needs now."""
        try:
            return await self._work(key)
        finally:
            self._slots.settle(key)
            self._probes.done(key)

    async def _work(self, key: ObjectKey) -> Result | None:
        for _ in range(_STEPS):
            subject = self._gather(key)
            if subject is None:
                self._forget(key)
                return None
            if subject.sight.error is not None:
                error, subject.sight.error = subject.sight.error, None
                return await self._failed(subject, Plan(), error)
            plan = decide.decide(subject.world)
            if plan.do is Do.NOTHING:
                if plan.again is None and not subject.sight.cloning:
                    # It is left alone for now, such as while it is paused: what comes of its clone is looked at later.
                    self._slots.give(key)
                await self._say(subject, plan.say)
                return Result(plan.again) if plan.again is not None else None
            try:
                if not self._answers(subject, plan.do):
                    return None
            except VSphereError as error:
                return await self._failed(subject, plan, error)
            if plan.say is not None and plan.do in (Do.CLONE, Do.QUEUE, Do.DISCARD, Do.DESTROY):
                await self._say(subject, plan.say)
                subject = self._gather(key) or subject
            try:
                more = await self._steps.take(plan.do, subject)
            except (VSphereError, InvalidError, TooLargeError, MissingError) as error:
                metrics.STEPS.labels(plan.do.value, "error").inc()
                return await self._failed(subject, plan, error)
            metrics.STEPS.labels(plan.do.value, "success").inc()
            if plan.do is Do.DISCARD and plan.say is not None:
                return Result(subject.sight.fail(self._clock.monotonic()))
            if not more:
                return None
        raise ReconcileError(f"{key} wants more than {_STEPS} steps at once")

    def _answers(self, subject: Subject, do: Do) -> bool:
        """Whether what a step needs of vCenter can be asked for; if not, the machine is queued when that is known.

        A worker waits for answers only where they are to be expected. Raises VSphereError where none comes.
        """
        needs = do in _ASKING or (do is Do.FINISH and subject.world.look is Look.ABSENT)
        if not needs or subject.vcenter.answers:
            return True
        return self._probes.outcome(subject.key, subject.vcenter) is not None

    def _gather(self, key: ObjectKey) -> Subject | None:
        try:
            return self._gathering.subject(key, self._clock.monotonic(), self._clock.now())
        except msgspec.ValidationError as error:
            raise TerminalError(f"{key} does not have the shape of its definition: {error}") from error

    def _forget(self, key: ObjectKey) -> None:
        self._sights.drop(key)
        self._slots.give(key)
        self._phases.put(key, "")

    async def _failed(
        self, subject: Subject, plan: Plan, error: VSphereError | InvalidError | TooLargeError | MissingError
    ) -> Result:
        """Say what went wrong, and try again later."""
        longest = _OUTAGE_PAUSE if isinstance(error, _NO_ANSWER) else LONGEST_PAUSE
        pause = subject.sight.fail(self._clock.monotonic(), longest)
        _LOG.warning("A step failed", step=plan.do.value, error=error, retry_seconds=pause)
        trouble = str(error) if isinstance(error, _NO_ANSWER) else ""
        say = None if trouble and not subject.world.deleting else _failure(subject, error)
        subject = self._gather(subject.key) or subject
        await self._say(subject, say, trouble=trouble)
        return Result(pause)

    async def _say(self, subject: Subject, say: Say | None, *, trouble: str | None = None) -> None:
        """Bring conditions, addresses and what is derived from them up to date."""
        machine, world = subject.machine, subject.world
        if world.paused:
            if world.held:  # else nothing of it was ever ours
                await self._writer.say(machine, News(paused=True))
            return
        if trouble is None:
            trouble = world.unreachable if world.blocked is None else ""
            if not trouble and (world.look not in (Look.PRESENT, Look.ABSENT) or world.pause_seconds > 0):
                trouble = None  # nothing new is known; after a failure, what it said stands
        before = find(view(machine.status, api.VSphereMachineStatus).conditions, PROVISIONED)
        news = News(
            say=say,
            paused=world.paused,
            vcenter=trouble,
            claims=world.claims if subject.wanted else None,
            drift=subject.drift,
            vm=world.vm,
            name=subject.name,
            first=subject.static,
            shared=subject.shared,
            gone=world.look is Look.ABSENT,
        )
        answer = await self._writer.say(machine, news)
        self._report(subject, say, before, answer)
        if subject.drift and not _says_moved(machine):
            metrics.UNEXPECTED.labels("place").inc()
            self._events.event(machine, WARNING, MOVED, "; ".join(subject.drift), action="Provision")

    def _report(self, subject: Subject, say: Say | None, before: Condition | None, machine: KubeObject) -> None:
        reason = say.reason if say is not None else before.reason if before is not None else ""
        self._phases.put(subject.key, reason)
        if say is None or (before is not None and before.reason == say.reason and before.message == say.message):
            return
        if say.status and not subject.world.provisioned:
            created = machine.metadata.creationTimestamp
            if created is not None:
                seconds = (self._clock.now() - parse_timestamp(created)).total_seconds()
                metrics.PROVISION_SECONDS.observe(max(0.0, seconds))
            self._events.event(machine, NORMAL, decide.PROVISIONED, ", ".join(subject.static), action="Provision")
        elif say.reason in _ALARMS:
            self._events.event(machine, WARNING, say.reason, say.message, action="Provision")
            if say.reason in _FROM_OUTSIDE and (before is None or before.reason != say.reason):
                metrics.UNEXPECTED.labels(_FROM_OUTSIDE[say.reason]).inc()


def _says_moved(machine: KubeObject) -> bool:
    condition = find(view(machine.status, api.VSphereMachineStatus).conditions, AS_PLACED)
    return condition is not None and condition.status == FALSE


def _failure(subject: Subject, error: Exception) -> Say:
    if subject.world.deleting:
        return Say(False, decide.DELETING, f"the VM cannot be deleted: {error}")
    if isinstance(error, VSphereError):
        return decide.failure(error, subject.name)
    if isinstance(error, MissingError):
        return Say(False, decide.WAITING_FOR_BOOTSTRAP, str(error))
    return Say(False, INVALID, str(error))
