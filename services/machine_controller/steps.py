"""Carrying out the steps on a machine's VM, each of which `decide` has chosen.

Responsible for: the calls to vCenter and the order of writes around them, which makes a crash at any point harmless:
  clone    record without a task -> CloneVM -> record with the task -> [vCenter works] -> record with the VM
  delete   [no VM in vCenter, asked once more] -> claims given back -> our finalizer
Invariants: nothing is waited for: what takes long is followed by `sight`, which queues the machine when it is over. A
step that returns True has changed what is known, so that the next one can be decided at once.
Must not know: why a step is taken.
"""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING

from msgspec.structs import replace

from services.machine_controller import record, render
from services.machine_controller.cloning import clone_spec
from services.machine_controller.gather import FINALIZER, is_control_plane
from services.machine_controller.guestinfo.extraconfig import changes
from services.machine_controller.phases import Do, Look
from services.machine_controller.placement import DEVICES_ANNOTATION, devices_text
from services.machine_controller.record import Record
from services.machine_controller.sight import DESTROY, POWER_OFF, POWER_ON, RECONFIGURE
from services.machine_controller.vsphere.errors import (
    DeadlineExceeded,
    InvalidPowerState,
    NotFound,
    TaskFailed,
    ToolsUnavailable,
    VSphereError,
)
from services.machine_controller.vsphere.values import ExtraConfig, Gone, PowerState, Ref, Task, ToolsState
from services.runtime import log
from services.runtime.kube.conditions import micro_timestamp
from services.runtime.kube.objects import with_annotations, with_finalizer, without_finalizers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from services.machine_controller.bootstrap import Reader
    from services.machine_controller.claims import ClaimWriter
    from services.machine_controller.gather import Subject
    from services.machine_controller.objects import Writer
    from services.machine_controller.slots import Slots
    from services.machine_controller.vsphere.values import CloneSpec, VirtualMachine
    from services.machine_controller.vsphere.vcenter import VCenter
    from services.runtime.clock import Clock

_LOG = log.get("machine_controller")


class Steps:
    """See the module."""

    def __init__(self, writer: Writer, claims: ClaimWriter, reader: Reader, slots: Slots, clock: Clock) -> None:
        self._writer = writer
        self._claims = claims
        self._reader = reader
        self._slots = slots
        self._clock = clock
        self._steps: dict[Do, Callable[[Subject], Awaitable[bool]]] = {
            Do.HOLD: self._hold,
            Do.PLACE: self._place,
            Do.CLAIM: self._claim,
            Do.READ_ADDRESSES: self._read_addresses,
            Do.LOOK: self._look,
            Do.QUEUE: self._queue,
            Do.CLONE: self._clone,
            Do.FOLLOW: self._follow,
            Do.SEARCH: self._search,
            Do.ADOPT: self._adopt,
            Do.DISCARD: self._discard,
            Do.PREPARE: self._prepare,
            Do.CONFIGURE: self._configure,
            Do.POWER_ON: self._power_on,
            Do.NOTE_STARTED: self._note_started,
            Do.SHUT_DOWN: self._shut_down,
            Do.POWER_OFF: self._power_off,
            Do.DESTROY: self._destroy,
            Do.FINISH: self._finish,
        }

    async def take(self, do: Do, subject: Subject) -> bool:
        """Take a step; whether another one may follow at once.

        Raises VSphereError, InvalidError, TooLargeError, MissingError and what the API server answers.
        """
        return await self._steps[do](subject)

    # Before there is a VM

    async def _hold(self, subject: Subject) -> bool:
        await self._writer.update(with_finalizer(subject.machine, FINALIZER))
        return True

    async def _place(self, subject: Subject) -> bool:
        assert subject.placement is not None
        value = devices_text(subject.placement.network.devices)
        await self._writer.update(with_annotations(subject.machine, {DEVICES_ANNOTATION: value}))
        return True

    async def _claim(self, subject: Subject) -> bool:
        cluster = subject.capi_cluster.metadata.name if subject.capi_cluster is not None else ""
        for name in subject.world.claims.missing:
            subject.sight.addresses.pop(name, None)  # that of a claim which is gone is not ours any more
        await self._claims.create(subject.machine, cluster, subject.wanted)
        return True

    async def _read_addresses(self, subject: Subject) -> bool:
        names = subject.world.claims.unread
        subject.sight.addresses |= await self._claims.read(subject.machine, names)
        return True

    async def _queue(self, subject: Subject) -> bool:
        self._slots.wait(subject.server, subject.key)
        return False

    async def _look(self, subject: Subject) -> bool:
        noted, sight = subject.record, subject.sight
        if noted is not None and noted.vm:
            reference = Ref.parse(noted.vm)
            if reference not in sight.gone:
                sight.follow_vm(reference, noted.uuid)
                return True
        vm = await self._find(subject)
        if vm is None:
            sight.absent(self._clock.monotonic())
        else:
            sight.follow_vm(vm.ref, vm.instance_uuid, vm)
        return True

    async def _find(self, subject: Subject) -> VirtualMachine | None:
        """Ask vCenter for the VM by UUID; the BIOS UUID counts where somebody else has made the VM."""
        provider = subject.spec.provider_id.removeprefix("vsphere://")
        if subject.record is None and provider:
            return await subject.vcenter.vms.find(bios_uuid=provider)
        return await subject.vcenter.vms.find(instance_uuid=subject.uuid)

    async def _clone(self, subject: Subject) -> bool:
        slots, server = self._slots, subject.server
        if not slots.free(server, subject.key):  # others have been faster since that was decided
            slots.wait(server, subject.key)
            return False
        slots.take(server, subject.key)
        try:
            await self._ask_for_clone(subject)
        except BaseException as error:
            if not getattr(error, "outcome_unknown", False):
                slots.give(subject.key)
            raise
        return True

    async def _ask_for_clone(self, subject: Subject) -> None:
        placement = subject.placement
        assert placement is not None
        render.check(await self._guest(subject))  # a mistake must not cost a VM
        vcenter, uuid = subject.vcenter, subject.machine.metadata.uid
        note = f"Kubernetes VSphereMachine {subject.key}"
        spec = await clone_spec(vcenter.inventory, subject.name, uuid, subject.spec, placement, note)
        asked = self._clock.monotonic()
        noted = Record(
            of=str(subject.key),
            uuid=uuid,
            name=subject.name,
            server=str(subject.server),
            template=str(spec.template),
            folder=str(spec.folder),
            since=micro_timestamp(self._clock.now()),
        )
        # With the version that was read: of two processes that both found no record, one is refused.
        machine = await self._writer.note(subject.machine, noted, guarded=True)
        subject.sight.suspects = None
        try:
            task = await self._answer(vcenter, spec, asked)
        except VSphereError as error:
            # Whether a clone runs of which that is unknown is found out by the search for it.
            left = record.given_up(noted, self._clock.now()) if error.outcome_unknown else None
            await self._writer.note(machine, left)
            if isinstance(error, NotFound):
                vcenter.inventory.forget()  # what was looked up a moment ago is out of date
            raise
        subject.sight.follow_clone(task)
        _LOG.info("Cloning", machine=str(subject.key), template=spec.template.id, task=task.id)
        await self._writer.note(machine, replace(noted, task=str(task)))

    async def _answer(self, vcenter: VCenter, spec: CloneSpec, asked: float) -> Ref:
        """Ask for a clone and return its task; nothing is sent or waited for longer than the record tells others.

        `asked` is the clock's time when the record was made. Raises VSphereError.
        """
        left = record.ANSWER_SECONDS - (self._clock.monotonic() - asked)
        if left > 0:  # else the process was stopped meanwhile, and somebody may have given the request up already
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    return await vcenter.vms.clone(spec)
        raise DeadlineExceeded(str(vcenter.server), "clone a VM", record.ANSWER_SECONDS)

    async def _follow(self, subject: Subject) -> bool:
        assert subject.record is not None
        self._slots.take(subject.server, subject.key)
        subject.sight.follow_clone(Ref.parse(subject.record.task))
        return False

    async def _search(self, subject: Subject) -> bool:
        """Find the clones of the template that run; of one that ended the VM is found by its UUID."""
        assert subject.record is not None
        if subject.sight.clone_task is not None:  # its id was told, and then could not be written down
            await self._writer.note(subject.machine, replace(subject.record, task=str(subject.sight.clone_task)))
            return True
        self._slots.take(subject.server, subject.key)
        try:
            tasks = await subject.vcenter.vms.recent_tasks(Ref.parse(subject.record.template))
        except NotFound:
            tasks = ()  # a template that is gone is not being cloned
        running = {task.ref for task in tasks if task.is_clone and not task.done}
        subject.sight.suspect(running, subject.world.clone_age)
        return True

    async def _adopt(self, subject: Subject) -> bool:
        sight, clone = subject.sight, subject.world.clone
        vm = subject.world.vm
        if vm is None:
            assert isinstance(clone, Task)
            if clone.result is None:
                raise TaskFailed("NoResult", "the clone has ended well and names no VM")
            try:
                vm = await subject.vcenter.vms.get(clone.result)
            except NotFound:  # somebody has destroyed it at once, so the clone came to nothing
                sight.clone = Gone(clone.ref)
                sight.unknown()
                return True
            if vm.instance_uuid != subject.uuid:
                return await (self._drop_stray(subject, vm) if _as_asked(vm, subject) else self._discard(subject))
            sight.follow_vm(vm.ref, subject.uuid, vm)
        of = Record(of=str(subject.key), uuid=vm.instance_uuid, name=vm.name, server=str(subject.server))
        noted = subject.record or of
        # What somebody else has made has been on before; where it was placed is not known.
        started = noted.started or (subject.record is None and subject.world.provider_id)
        await self._writer.note(subject.machine, replace(noted, task="", vm=str(vm.ref), started=started))
        self._slots.give(subject.key)
        sight.end_clone()
        sight.succeed()
        return True

    async def _drop_stray(self, subject: Subject, vm: VirtualMachine) -> bool:
        """Delete what our own clone made, when vCenter has given it another UUID: ours was taken meanwhile."""
        _LOG.warning("A clone got another UUID, deleting it", machine=str(subject.key), vm=vm.ref.id)
        task = await subject.vcenter.watch.finished(await subject.vcenter.vms.destroy(vm.ref))
        if task.error is not None:
            raise task.error
        return await self._discard(subject)

    async def _discard(self, subject: Subject) -> bool:
        await self._writer.note(subject.machine, None)
        self._slots.give(subject.key)
        subject.sight.end_clone()
        subject.sight.unknown()
        return True

    # From a VM that was made to one that runs

    async def _prepare(self, subject: Subject) -> bool:
        vm, placement = subject.world.vm, subject.placement
        assert vm is not None
        for tag in subject.spec.tag_ids:
            await subject.vcenter.tags.attach(tag, vm.ref)
        if placement is not None and placement.vm_group:
            inventory = subject.vcenter.inventory
            datacenter = await inventory.datacenter(placement.datacenter)
            cluster = await inventory.cluster(datacenter, placement.compute_cluster)
            await subject.vcenter.rules.join(cluster.ref, placement.vm_group, vm.ref)
        subject.sight.prepared = True
        return True

    async def _configure(self, subject: Subject) -> bool:
        vm, sight = subject.world.vm, subject.sight
        assert vm is not None
        guest = await self._guest(subject)
        macs = [nic.mac for nic in await subject.vcenter.vms.nics(vm.ref)]
        wanted = render.render(guest, macs)
        observed: Mapping[str, str] = {}
        if subject.record is not None and subject.record.started:
            observed = await subject.vcenter.vms.extra_config(vm.ref, wanted)
        # Before it was ready once, a value that the guest has wiped is one that it may not have got to use.
        different = changes(wanted, observed, rewrite_redacted=not subject.world.provisioned)
        if not different:
            sight.configured = subject.configured
            return True
        task = await subject.vcenter.vms.reconfigure(vm.ref, ExtraConfig(different))
        sight.operate(RECONFIGURE, task, partial(_configured, subject))
        return True

    async def _guest(self, subject: Subject) -> render.Guest:
        """All that is rendered for a machine, with what has to be read for it."""
        assert subject.cluster is not None
        assert subject.placement is not None
        assert subject.owner is not None
        namespace = subject.key.namespace
        bootstrap = await self._reader.bootstrap(namespace, subject.world.bootstrap)
        kind, name = render.proxy_source(subject.cluster)
        proxy = await self._reader.settings(namespace, kind, name) if name else {}
        devices = subject.placement.network.devices
        bound = [
            [subject.sight.addresses[want.name] for want in subject.wanted if want.device == at]
            for at in range(len(devices))
        ]
        return render.Guest(
            name=subject.name,
            # CAPV's choice. With another one cloud-init would set the node up anew after a move to CAPV.
            instance_id=subject.name,
            control_plane=is_control_plane(subject.owner),
            placement=subject.placement,
            bound=bound,
            custom=subject.spec.custom_vmx_keys or {},
            cluster=subject.cluster,
            capi_cluster=subject.capi_cluster,
            proxy=proxy,
            bootstrap=bootstrap,
        )

    async def _power_on(self, subject: Subject) -> bool:
        vm = subject.world.vm
        assert vm is not None
        try:
            subject.sight.operate(POWER_ON, await subject.vcenter.vms.power_on(vm.ref))
        except InvalidPowerState:
            await self._reread(subject)
        return True

    async def _note_started(self, subject: Subject) -> bool:
        vm, noted = subject.world.vm, subject.record
        assert vm is not None
        assert noted is not None
        provider = subject.spec.provider_id or f"vsphere://{vm.bios_uuid}"
        await self._writer.note(subject.machine, replace(noted, started=True), provider_id=provider)
        subject.sight.succeed()
        return True

    # Towards the end

    async def _shut_down(self, subject: Subject) -> bool:
        vm = subject.world.vm
        assert vm is not None
        try:
            await subject.vcenter.vms.shut_down_guest(vm.ref)
        except (InvalidPowerState, ToolsUnavailable) as error:
            await self._reread(subject)
            seen = subject.sight.vm
            if seen is not None and (seen.power, seen.guest.tools) == (PowerState.ON, ToolsState.RUNNING):
                raise TaskFailed("ShutdownGuest", str(error)) from None
            return True
        await self._writer.asked_to_stop(subject.machine, "the guest was asked to shut down")
        return True

    async def _power_off(self, subject: Subject) -> bool:
        vm = subject.world.vm
        assert vm is not None
        try:
            subject.sight.operate(POWER_OFF, await subject.vcenter.vms.power_off(vm.ref))
        except InvalidPowerState:
            await self._reread(subject)
        return True

    async def _destroy(self, subject: Subject) -> bool:
        vm = subject.world.vm
        assert vm is not None
        _LOG.info("Deleting the VM", machine=str(subject.key), vm=vm.ref.id)
        try:
            subject.sight.operate(DESTROY, await subject.vcenter.vms.destroy(vm.ref))
        except NotFound:
            subject.sight.gone.add(vm.ref)
            subject.sight.unknown()
        return True

    async def _reread(self, subject: Subject) -> None:
        """See the VM as it is now: it was not as the watch had told."""
        vm = subject.world.vm
        assert vm is not None
        subject.sight.follow_vm(vm.ref, subject.uuid, await subject.vcenter.vms.get(vm.ref))

    async def _finish(self, subject: Subject) -> bool:
        sight = subject.sight
        if subject.world.look is Look.ABSENT:
            # What was seen some time ago does not give an address back.
            vm = await self._find(subject)
            if vm is not None:
                sight.follow_vm(vm.ref, vm.instance_uuid, vm)
                return True
        await self._claims.give_back(subject.machine)
        self._slots.give(subject.key)
        await self._writer.update(without_finalizers(subject.machine, {FINALIZER}))
        return False


def _as_asked(vm: VirtualMachine, subject: Subject) -> bool:
    """Whether a VM is, but for its UUID, what was asked for; a vCenter that was restored gives ids of tasks again."""
    noted = subject.record
    assert noted is not None
    place = (vm.name, str(vm.parent), vm.power)
    return place == (noted.name, noted.folder, PowerState.OFF)


def _configured(subject: Subject) -> None:
    subject.sight.configured = subject.configured
