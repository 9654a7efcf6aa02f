"""Virtual machines: finding them, making them, changing them.

Responsible for: one call to vCenter, or a few, for each thing that can be done with a VM.
Invariants: a VM is found by UUID alone; names serve to see whether one is free. What takes long is a task in vCenter:
the method returns the task's reference as soon as vCenter has accepted it, and never waits. Nothing is repeated after
a broken connection (`outcome_unknown` of the error): who calls looks first whether it was done.
Must not know: Kubernetes, what the VM is for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from services.machine_controller.vsphere import devices, views
from services.machine_controller.vsphere.errors import Ambiguous, InvalidValue
from services.machine_controller.vsphere.lookup import decoded, encoded
from services.machine_controller.vsphere.properties import read, read_many
from services.machine_controller.vsphere.refs import ref
from services.machine_controller.vsphere.soap import vim
from services.machine_controller.vsphere.values import CloneSpec, ExtraConfig, Nic, Ref, Task, VirtualMachine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from services.machine_controller.vsphere.session import Api, Session

_CLONE_SECONDS: Final = 60.0


class VirtualMachines:
    """See the module; every method raises VSphereError."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def find(self, *, instance_uuid: str = "", bios_uuid: str = "") -> VirtualMachine | None:
        """Return the VM with a UUID (one of the two); None when there is none, Ambiguous when there are several."""
        if bool(instance_uuid) == bool(bios_uuid):
            raise InvalidValue("UUID", "exactly one of instance and BIOS UUID is needed")
        uuid = (instance_uuid or bios_uuid).lower()

        def work(api: Api) -> VirtualMachine | None:
            found = api.content.searchIndex.FindAllByUuid(
                datacenter=None, uuid=uuid, vmSearch=True, instanceUuid=bool(instance_uuid)
            )
            vms = read_many(api, [ref(vm) for vm in found], *views.VM_PATHS)
            if len(vms) > 1:
                raise Ambiguous("VM", uuid, [f"{p.get('name')} ({vm})" for vm, p in vms.items()])
            for reference, properties in vms.items():
                return views.virtual_machine(reference, properties)
            return None

        return await self._session.call("find a VM", work)

    async def get(self, reference: Ref) -> VirtualMachine:
        """Read a VM; NotFound when it does not exist any more."""
        return await self._session.call(
            "read a VM", lambda api: views.virtual_machine(reference, read(api, reference, *views.VM_PATHS))
        )

    async def named(self, folder: Ref, name: str) -> Ref | None:
        """Return the child of a folder that has a name, a VM or a folder; None when the name is free."""

        def work(api: Api) -> Ref | None:
            child = api.content.searchIndex.FindChild(api.object(folder), encoded(name))
            return ref(child) if child is not None else None

        return await self._session.call("look for a name", work)

    async def names(self, folder: Ref) -> dict[str, Ref]:
        """Names of everything directly in a folder."""

        def work(api: Api) -> dict[str, Ref]:
            children = [ref(child) for child in read(api, folder, "childEntity").get("childEntity", ())]
            return {decoded(p.get("name", "")): child for child, p in read_many(api, children, "name").items()}

        return await self._session.call("list a folder", work)

    async def clone(self, spec: CloneSpec) -> Ref:
        """Start a clone and return its task, whose result is the VM. The clone stays powered off.

        vCenter reserves the name at once: a second clone of that name into the folder ends with DuplicateName. It may
        assign another instance UUID when the wanted one is taken, so look at the result's. InvalidValue when the spec
        does not fit the template.
        """

        def work(api: Api) -> Ref:
            template = read(api, spec.template, "config.hardware.device", "config.vAppConfig")
            task = api.object(spec.template).CloneVM_Task(
                folder=api.object(spec.folder), name=encoded(spec.name), spec=_clone_spec(api, spec, template)
            )
            return ref(task)

        return await self._session.call("clone a VM", work, seconds=_CLONE_SECONDS)

    async def reconfigure(self, reference: Ref, extra_config: ExtraConfig) -> Ref:
        """Set keys of the extra configuration ("" removes one) and return the task; other keys stay."""

        def start(vm: Any) -> Any:
            return vm.ReconfigVM_Task(vim.vm.ConfigSpec(extraConfig=_options(extra_config)))

        return await self._task("reconfigure a VM", reference, start)

    async def extra_config(self, reference: Ref, keys: Iterable[str]) -> ExtraConfig:
        """Read the keys of the extra configuration that are set; a key that ends in "." stands for all it begins."""
        wanted = tuple(keys)

        def work(api: Api) -> ExtraConfig:
            options = read(api, reference, "config.extraConfig").get("config.extraConfig", ())
            return ExtraConfig({o.key: str(o.value) for o in options if _wanted(o.key, wanted)})

        return await self._session.call("read the extra configuration of a VM", work)

    async def nics(self, reference: Ref) -> tuple[Nic, ...]:
        """Read the network cards, in the guest's order."""

        def work(api: Api) -> tuple[Nic, ...]:
            return devices.nics(read(api, reference, "config.hardware.device").get("config.hardware.device", ()))

        return await self._session.call("read the network cards of a VM", work)

    async def power_on(self, reference: Ref) -> Ref:
        """Start powering on and return the task."""
        return await self._task("power on a VM", reference, lambda vm: vm.PowerOnVM_Task())

    async def power_off(self, reference: Ref) -> Ref:
        """Start pulling the plug and return the task."""
        return await self._task("power off a VM", reference, lambda vm: vm.PowerOffVM_Task())

    async def shut_down_guest(self, reference: Ref) -> None:
        """Ask the guest to shut down; the power state tells when it has. ToolsUnavailable, InvalidPowerState."""
        await self._session.call("shut down a guest", lambda api: api.object(reference).ShutdownGuest())

    async def destroy(self, reference: Ref) -> Ref:
        """Start deleting a powered-off VM with its disks and return the task."""
        return await self._task("destroy a VM", reference, lambda vm: vm.Destroy_Task())

    async def task(self, reference: Ref) -> Task:
        """Read a task; NotFound when vCenter has forgotten it, minutes after its end. To wait for one: `Watch`."""
        return await self._session.call(
            "read a task", lambda api: views.task(reference, read(api, reference, *views.TASK_PATHS))
        )

    async def recent_tasks(self, reference: Ref) -> tuple[Task, ...]:
        """Read the queued, running and just finished tasks of an object.

        A clone is a task of its template: after a crash between the start of a clone and writing its id down, this
        shows whether one still runs.
        """

        def work(api: Api) -> tuple[Task, ...]:
            tasks = [ref(task) for task in read(api, reference, "recentTask").get("recentTask", ())]
            found = read_many(api, tasks, *views.TASK_PATHS)
            return tuple(views.task(task, properties) for task, properties in found.items())

        return await self._session.call("read recent tasks", work)

    async def _task(self, operation: str, reference: Ref, start: Callable[[Any], Any]) -> Ref:
        return await self._session.call(operation, lambda api: ref(start(api.object(reference))))


def _wanted(key: str, keys: tuple[str, ...]) -> bool:
    return any(key == wanted or (wanted.endswith(".") and key.startswith(wanted)) for wanted in keys)


def _options(extra_config: ExtraConfig) -> list[Any]:
    return [vim.option.OptionValue(key=key, value=value) for key, value in extra_config.items()]


def _clone_spec(api: Api, spec: CloneSpec, template: dict[str, Any]) -> Any:
    profile = [vim.vm.DefinedProfileSpec(profileId=spec.storage_policy_id)] if spec.storage_policy_id else []
    location = vim.vm.RelocateSpec(
        pool=api.object(spec.pool),
        datastore=api.object(spec.datastore) if spec.datastore else None,
        host=api.object(spec.host) if spec.host else None,
        diskMoveType="createNewChildDiskBacking" if spec.snapshot else "moveAllDiskBackingsAndConsolidate",
        profile=profile,
    )
    config = vim.vm.ConfigSpec(
        instanceUuid=spec.instance_uuid,
        numCPUs=spec.cpus or None,
        numCoresPerSocket=spec.cores_per_socket or spec.cpus or None,
        memoryMB=spec.memory_mib or None,
        annotation=spec.annotation or None,
        extraConfig=_options(spec.extra_config),
        # disk.EnableUUID: without it disks have no serial in the guest, and a CSI driver cannot find its volumes.
        flags=vim.vm.FlagInfo(diskUuidEnabled=True),
        deviceChange=devices.changes(list(template.get("config.hardware.device", ())), spec),
        vmProfile=profile,
        # An OVF template's vApp properties would be offered to cloud-init as a second source of its configuration.
        vAppConfigRemoved=True if template.get("config.vAppConfig") is not None else None,
    )
    return vim.vm.CloneSpec(
        location=location,
        config=config,
        snapshot=api.object(spec.snapshot) if spec.snapshot else None,
        template=False,
        powerOn=False,
    )
