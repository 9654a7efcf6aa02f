"""Everything that is known of one VSphereMachine at one moment, put into one value.

Responsible for: finding it in the stores, in what was seen of vCenter, and in the object itself.
Invariants: nothing is awaited, so all parts are of one moment.
Must not know: what is decided, how anything is done.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from services.machine_controller import api, claims, contract, phases, record, render, status
from services.machine_controller.connections import Connection
from services.machine_controller.decide import ABSENT_AGAIN_SECONDS, NOT_PROVISIONED, WAITING_FOR_BOOTSTRAP
from services.machine_controller.names import vm_name
from services.machine_controller.phases import Look, Say, Stop, World
from services.machine_controller.placement import (
    DEVICES_ANNOTATION,
    Misplaced,
    Placement,
    devices_text,
    place,
    thumbprint,
)
from services.machine_controller.vsphere.values import ToolsState
from services.runtime.kube.conditions import find, parse_timestamp
from services.runtime.kube.objects import KubeObject, ObjectKey, has_finalizer, view

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from datetime import datetime

    from services.machine_controller.caches import Caches
    from services.machine_controller.claims import Wanted
    from services.machine_controller.connections import Connections
    from services.machine_controller.record import Record
    from services.machine_controller.sight import Sight, Sights
    from services.machine_controller.slots import Slots
    from services.machine_controller.vsphere.values import Server
    from services.machine_controller.vsphere.vcenter import VCenter

FINALIZER = "vspheremachine.infrastructure.cluster.x-k8s.io"
MANAGED = "true"
_KIND = "VSphereMachine"
_DEFAULT_TIMEOUT = 300.0


class Subject(NamedTuple):
    """A VSphereMachine with everything around it, and what `decide` is told of it."""

    machine: KubeObject
    spec: api.VSphereMachineSpec
    name: str
    """Of the VM."""
    owner: KubeObject | None
    cluster: KubeObject | None
    capi_cluster: KubeObject | None
    placement: Placement | None
    record: Record | None
    sight: Sight
    connection: Connection
    wanted: tuple[Wanted, ...]
    static: tuple[str, ...]
    """Addresses that were assigned, as far as they are known."""
    shared: str
    drift: tuple[str, ...] | None
    configured: Hashable
    """What guestinfo is made of."""
    world: World

    @property
    def key(self) -> ObjectKey:
        """Namespace and name."""
        return self.machine.key

    @property
    def vcenter(self) -> VCenter:
        """The connection, where there is one."""
        assert self.connection.vcenter is not None
        return self.connection.vcenter

    @property
    def server(self) -> Server:
        """Where the VM is, or shall be."""
        return self.vcenter.server

    @property
    def uuid(self) -> str:
        """Instance UUID of the VM."""
        if self.record is not None:
            return self.record.uuid
        return self.world.vm.instance_uuid if self.world.vm is not None else self.machine.metadata.uid


class Gathering:
    """What there is to gather from; `everything` tells that objects without the label are taken too."""

    def __init__(
        self, caches: Caches, connections: Connections, sights: Sights, slots: Slots, *, everything: bool
    ) -> None:
        self._caches = caches
        self._connections = connections
        self._sights = sights
        self._slots = slots
        self._everything = everything

    def taken(self, *objects: KubeObject | None) -> bool:
        """Whether a VSphereMachine (with its VSphereCluster) or a VSphereCluster is ours."""
        return self._everything or any(
            (obj.metadata.labels or {}).get(api.MANAGED_LABEL) == MANAGED for obj in objects if obj is not None
        )

    def subject(self, key: ObjectKey, monotonic: float, now: datetime) -> Subject | None:
        """Gather; None for a machine that is gone or not ours. Raises msgspec.ValidationError on a foreign shape."""
        caches = self._caches
        machine = caches.stores.machines.get(key)
        cluster = caches.cluster_of(machine) if machine is not None else None
        if machine is None or not self.taken(machine, cluster):
            self._connections.release((_KIND, key))
            return None
        spec, old = view(machine.spec, api.VSphereMachineSpec), view(machine.status, api.VSphereMachineStatus)
        owner, capi_cluster = caches.owner_of(machine), caches.capi_cluster_of(machine)
        noted = record.read(machine)
        sight = self._sights.of(key, machine.metadata.uid)
        of_cluster = view(cluster.spec, api.VSphereClusterSpec) if cluster is not None else api.VSphereClusterSpec()
        placed = self._place(spec, owner, of_cluster)
        placement = placed if isinstance(placed, Placement) else None
        connection = self._connection(key, cluster, noted, placement, partial(thumbprint, spec, of_cluster))
        if connection.vcenter is not None:
            sight.connect(connection.vcenter)
        name = noted.name if noted is not None and noted.name else self._name(machine, owner, spec)
        devices = placement.network.devices if placement is not None else spec.network.devices
        wants = claims.wanted(name, devices)
        progress = claims.state(machine, wants, caches, sight.addresses)
        assigned = [text for device in devices for text in device.ip_addrs]
        assigned += [a.address for a in (sight.addresses.get(want.name) for want in wants) if a is not None]
        static = status.texts(assigned)
        shared = render.endpoint(cluster, capi_cluster)[0] if cluster is not None else ""
        if any(address in static for address in status.texts([shared])):
            shared = ""  # a single control plane's own address, without a VIP
        fingerprint = (placement.network if placement is not None else None, tuple(sorted(sight.addresses.items())))
        missing = self._missing(sight, devices, static, shared)
        if progress.unread and missing is not None:
            missing = (*missing, "addresses of claims")
        look = sight.look
        if look is Look.ABSENT and monotonic - sight.absent_at >= ABSENT_AGAIN_SECONDS:
            look = Look.UNKNOWN
        provider = bool(spec.provider_id)
        world = World(
            deleting=machine.deleting,
            held=has_finalizer(machine, FINALIZER),
            paused=contract.is_paused(machine, capi_cluster),
            blocked=self._blocked(machine, owner, capi_cluster, cluster),
            misplaced=Say(False, placed.reason, placed.message) if isinstance(placed, Misplaced) else None,
            unreachable=connection.trouble,
            connecting=connection.vcenter is None and not connection.trouble,
            pause_seconds=max(0.0, sight.paused_until - monotonic),
            record=noted,
            damaged=noted is None and record.damaged(machine),
            provider_id=provider,
            provider_shared=self._sharer(machine, spec) if provider and noted is None else "",
            look=look,
            vm=sight.vm if look is Look.PRESENT else None,
            clone=sight.clone,
            suspects=len(sight.suspects) if sight.suspects is not None else None,
            clone_age=record.age(noted, now) if noted is not None else 0.0,
            searched_age=sight.searched_age,
            operation=sight.operation,
            bootstrap=self._bootstrap(owner),
            bootstrap_wait=self._bootstrap_wait(owner, capi_cluster),
            unplaced=self._unplaced(machine, owner, placement),
            static=tuple(at for at, device in enumerate(devices) if device.waits),
            claims=progress,
            slot=connection.vcenter is None or self._slots.free(connection.vcenter.server, key),
            prepared=sight.prepared or not _needs_preparation(spec, placement),
            configured=sight.configured is not None and sight.configured == fingerprint,
            provisioned=old.initialization is not None and bool(old.initialization.provisioned),
            missing=missing or (),
            stop=_stop(spec, old, sight, now),
        )
        return Subject(
            machine=machine,
            spec=spec,
            name=name,
            owner=owner,
            cluster=cluster,
            capi_cluster=capi_cluster,
            placement=placement,
            record=noted,
            sight=sight,
            connection=connection,
            wanted=wants,
            static=static,
            shared=shared,
            drift=_drift(noted, world),
            configured=fingerprint,
            world=world,
        )

    def _place(
        self, spec: api.VSphereMachineSpec, owner: KubeObject | None, of_cluster: api.VSphereClusterSpec
    ) -> Placement | Misplaced:
        failure_domain = (view(owner.spec, contract.MachineSpec).failure_domain or "") if owner is not None else ""
        zone = self._caches.stores.zones.get(ObjectKey("", failure_domain)) if failure_domain else None
        domain = None
        if zone is not None:
            named = view(zone.spec, api.VSphereDeploymentZoneSpec).failure_domain
            domain = self._caches.stores.domains.get(ObjectKey("", named))
        return place(spec, of_cluster, failure_domain, zone, domain)

    def _unplaced(self, machine: KubeObject, owner: KubeObject | None, placement: Placement | None) -> bool:
        if owner is None or placement is None or not view(owner.spec, contract.MachineSpec).failure_domain:
            return False
        written = (machine.metadata.annotations or {}).get(DEVICES_ANNOTATION)
        return written != devices_text(placement.network.devices)

    def _connection(
        self,
        key: ObjectKey,
        cluster: KubeObject | None,
        noted: Record | None,
        placement: Placement | None,
        thumbprint: Callable[[str], str],
    ) -> Connection:
        # Where the VM is says the record: the zone may be another one by now.
        server = noted.server if noted is not None and noted.server else placement.server if placement else ""
        if not server:
            return Connection(trouble="no vCenter is named")
        return self._connections.get(cluster, server, thumbprint(server), user=(_KIND, key))

    def _name(self, machine: KubeObject, owner: KubeObject | None, spec: api.VSphereMachineSpec) -> str:
        key = contract.owner(machine, "Machine")
        of = owner.metadata.name if owner is not None else key.name if key is not None else machine.metadata.name
        return vm_name(of, spec.os)

    def _blocked(
        self,
        machine: KubeObject,
        owner: KubeObject | None,
        capi_cluster: KubeObject | None,
        cluster: KubeObject | None,
    ) -> Say | None:
        if owner is None:
            return Say(False, NOT_PROVISIONED, "its Machine is not there, or not its owner yet")
        name = self._caches.name_of(machine)
        if capi_cluster is None:
            return Say(False, NOT_PROVISIONED, f"Cluster {name} is not there")
        if cluster is None:
            return Say(False, NOT_PROVISIONED, f"the VSphereCluster of Cluster {name} is not there")
        if not contract.infrastructure_provisioned(capi_cluster):
            return Say(False, "WaitingForClusterInfrastructureReady", f"Cluster {name} has no infrastructure yet")
        return None

    def _bootstrap(self, owner: KubeObject | None) -> str:
        return (view(owner.spec, contract.MachineSpec).bootstrap.data_secret_name or "") if owner is not None else ""

    def _bootstrap_wait(self, owner: KubeObject | None, capi_cluster: KubeObject | None) -> Say | None:
        if owner is None or capi_cluster is None or self._bootstrap(owner):
            return None
        initialization = view(capi_cluster.status, contract.ClusterStatus).initialization
        initialized = initialization is None or initialization.control_plane_initialized is not False
        if not is_control_plane(owner) and not initialized:
            message = "bootstrap data comes when the control plane is initialized"
            return Say(False, "WaitingForControlPlaneInitialized", message)
        return Say(False, WAITING_FOR_BOOTSTRAP, "the Machine names no Secret with bootstrap data yet")

    def _sharer(self, machine: KubeObject, spec: api.VSphereMachineSpec) -> str:
        keys = self._caches.stores.machines.keys("provider", spec.provider_id)
        other = next((key for key in keys if key != machine.key), None)
        return f"VSphereMachine {other}" if other is not None else ""

    def _missing(
        self, sight: Sight, devices: tuple[api.NetworkDevice, ...], static: tuple[str, ...], shared: str
    ) -> tuple[str, ...] | None:
        if sight.vm is None:
            return None
        fixed = [bool(d.ip_addrs or d.addresses_from_pools) for d in devices]
        dynamic = sum(1 for d, has in zip(devices, fixed, strict=True) if (d.dhcp4 or d.dhcp6) and not has)
        return status.unreported(sight.vm, static, dynamic, sum(fixed), shared)


def is_control_plane(owner: KubeObject) -> bool:
    """Whether a Machine is of the control plane."""
    return contract.CONTROL_PLANE_LABEL in (owner.metadata.labels or {})


def _needs_preparation(spec: api.VSphereMachineSpec, placement: Placement | None) -> bool:
    return bool(spec.tag_ids) or (placement is not None and bool(placement.vm_group))


def _stop(spec: api.VSphereMachineSpec, old: api.VSphereMachineStatus, sight: Sight, now: datetime) -> Stop:
    asked = find(old.conditions, phases.SOFT_POWER_OFF)
    seconds = None
    if asked is not None and asked.lastTransitionTime:
        seconds = (now - parse_timestamp(asked.lastTransitionTime)).total_seconds()
    return Stop(
        spec.power_off_mode,
        seconds,
        float(spec.guest_soft_power_off_timeout_seconds) or _DEFAULT_TIMEOUT,
        sight.vm is not None and sight.vm.guest.tools is ToolsState.RUNNING,
    )


def _drift(noted: Record | None, world: World) -> tuple[str, ...] | None:
    """In what a VM is otherwise than it was made; None while that cannot be told."""
    if noted is None or not noted.started or world.vm is None:
        return None
    found = []
    if noted.name and world.vm.name and world.vm.name != noted.name:
        found.append(f"it is called {world.vm.name} instead of {noted.name}")
    if noted.folder and world.vm.parent is not None and str(world.vm.parent) != noted.folder:
        found.append(f"it is in {world.vm.parent} instead of {noted.folder}")
    return tuple(found)
