"""What passes between the machine controller and vCenter: plain immutable values, none of pyVmomi's.

Responsible for: references, addresses of servers, and the views of VMs, tasks, templates and inventory objects.
Invariants: a value is complete when it is made and never changes; units are in the names; a value that may carry
secrets (extra configuration holds guestinfo, and with it bootstrap data) never shows them in its repr.
Must not know: pyVmomi, the network, Kubernetes.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from services.machine_controller.vsphere.errors import InvalidValue, VSphereError

_DEFAULT_PORT = 443
_MAX_PORT = 65535


class Ref(msgspec.Struct, frozen=True, order=True):
    """A managed object: its type ("VirtualMachine", "Task", ...) and the id that its vCenter gave it ("vm-42").

    Unique within one vCenter only. `str()` is "VirtualMachine:vm-42", the form that govc and Cluster API use.
    """

    type: str
    id: str

    def __str__(self) -> str:
        return f"{self.type}:{self.id}"

    @classmethod
    def parse(cls, text: str) -> Ref:
        """Read what `str()` wrote; InvalidValue for anything else."""
        type_, colon, id_ = text.partition(":")
        if not (type_ and colon and id_):
            raise InvalidValue("reference", f"{text!r} is not of the form Type:id")
        return cls(type_, id_)


class Server(msgspec.Struct, frozen=True, order=True):
    """Where a vCenter listens. `host` is a name or an IP address without brackets."""

    host: str
    port: int = _DEFAULT_PORT

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORT else f"{host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> Server:
        """Read "vc.example.com", "vc.example.com:8443", "[2001:db8::1]:443", also as https URL with an /sdk path."""
        rest = text.strip().removeprefix("https://").split("/", 1)[0]
        if "@" in rest or "://" in text.removeprefix("https://"):
            # Not repeated in the message: what stands before an @ may be a password.
            raise InvalidValue("server", "it is not host, host:port or an https URL")
        if rest.startswith("["):
            host, _, port = rest[1:].partition("]")
            port = port.removeprefix(":")
        elif rest.count(":") > 1:  # a bare IPv6 address
            host, port = rest, ""
        else:
            host, _, port = rest.partition(":")
        if not host:
            raise InvalidValue("server", "it has no host")
        if not port:
            return cls(host.lower())
        if not port.isdecimal() or not 0 < int(port) <= _MAX_PORT:
            raise InvalidValue("server", f"{port!r} is no port")
        return cls(host.lower(), int(port))


class PowerState(StrEnum):
    """VirtualMachinePowerState."""

    ON = "poweredOn"
    OFF = "poweredOff"
    SUSPENDED = "suspended"


class ToolsState(StrEnum):
    """VirtualMachineToolsRunningStatus; UNKNOWN until the guest has been asked."""

    RUNNING = "guestToolsRunning"
    NOT_RUNNING = "guestToolsNotRunning"
    STARTING = "guestToolsExecutingScripts"
    UNKNOWN = ""


class GuestNic(msgspec.Struct, frozen=True):
    """What the guest says about one of its network cards; addresses without prefix length, link-local ones included."""

    mac: str
    addresses: tuple[str, ...] = ()
    network: str = ""
    connected: bool = False


class Guest(msgspec.Struct, frozen=True):
    """What VMware Tools report: the truth as the guest sees it, empty while the tools do not run.

    `nics` are interfaces that are network cards of the VM; those that the guest alone has are left out.
    """

    tools: ToolsState = ToolsState.UNKNOWN
    host_name: str = ""
    nics: tuple[GuestNic, ...] = ()

    def addresses(self) -> frozenset[str]:
        """Return every address of every card."""
        return frozenset(address for nic in self.nics for address in nic.addresses)

    def by_mac(self) -> Mapping[str, tuple[str, ...]]:
        """Addresses by card, MACs in lower case."""
        found: dict[str, tuple[str, ...]] = {}
        for nic in self.nics:
            found[nic.mac] = found.get(nic.mac, ()) + nic.addresses
        return found


class Nic(msgspec.Struct, frozen=True):
    """A virtual network card as configured; `key` is the device key, MACs are in lower case."""

    key: int
    mac: str
    label: str = ""
    network: Ref | None = None
    connected: bool = False


class VirtualMachine(msgspec.Struct, frozen=True, kw_only=True):
    """A VM as last read. UUIDs are in lower case; `host` is None while it is unknown (being cloned, say).

    `connection` is VirtualMachineConnectionState: connected, disconnected, inaccessible, invalid, orphaned.
    `change_version` changes with every change of the configuration and tells nothing else.
    `parent` is its folder; None inside a vApp, and where a watch delivers it late.
    """

    ref: Ref
    name: str = ""
    instance_uuid: str = ""
    bios_uuid: str = ""
    power: PowerState = PowerState.OFF
    connection: str = ""
    template: bool = False
    host: Ref | None = None
    parent: Ref | None = None
    change_version: str = ""
    guest: Guest = Guest()

    @property
    def connected(self) -> bool:
        """Whether vCenter can work on it; nothing is known of one that is being made."""
        return self.connection in ("connected", "")


class TaskState(StrEnum):
    """TaskInfoState."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCESS = "success"
    ERROR = "error"


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """A task as last read. `operation` is its description id ("VirtualMachine.clone"), `result` what it made.

    `error` is set exactly when the state is ERROR; it is made, not raised.
    """

    ref: Ref
    state: TaskState
    operation: str = ""
    entity: Ref | None = None
    progress_percent: int | None = None
    result: Ref | None = None
    error: VSphereError | None = None

    @property
    def done(self) -> bool:
        """Whether it has ended, well or not."""
        return self.state in (TaskState.SUCCESS, TaskState.ERROR)

    @property
    def is_clone(self) -> bool:
        """Whether it clones its entity ("VirtualMachine.clone"; the simulator says "cloneVm")."""
        return self.operation.rpartition(".")[2] in ("clone", "cloneVm")


class Gone(msgspec.Struct, frozen=True):
    """A followed object does not exist any more: destroyed, or (a task) forgotten, which vCenter does after minutes."""

    ref: Ref


Update = VirtualMachine | Task | Gone
"""What a watch delivers."""


class Found(msgspec.Struct, frozen=True):
    """An inventory object: reference, name (decoded) and inventory path ("/DC0/vm/templates/ubuntu")."""

    ref: Ref
    name: str
    path: str = ""


class NetworkKind(StrEnum):
    """How a card is attached to a network."""

    STANDARD = "standard"
    DISTRIBUTED = "distributed"
    OPAQUE = "opaque"


class Network(msgspec.Struct, frozen=True, kw_only=True):
    """A network and what a card's backing needs: portgroup key and switch UUID, or opaque id and type."""

    ref: Ref
    name: str
    path: str = ""
    kind: NetworkKind
    portgroup_key: str = ""
    switch_uuid: str = ""
    opaque_id: str = ""
    opaque_type: str = ""


class Disk(msgspec.Struct, frozen=True):
    """A virtual disk of a template."""

    key: int
    label: str
    capacity_bytes: int


class Template(msgspec.Struct, frozen=True, kw_only=True):
    """A VM or template to clone from. `snapshot` is its current snapshot, what a linked clone hangs on.

    `hardware_version` is as vCenter has it ("vmx-19").
    """

    ref: Ref
    name: str
    path: str = ""
    is_template: bool = True
    bios_uuid: str = ""
    instance_uuid: str = ""
    hardware_version: str = ""
    snapshot: Ref | None = None
    snapshots: tuple[tuple[str, Ref], ...] = ()  # every snapshot, name and reference, parents first
    disks: tuple[Disk, ...] = ()
    nics: tuple[Nic, ...] = ()
    datastores: tuple[Ref, ...] = ()


class StoragePolicy(msgspec.Struct, frozen=True):
    """A storage policy; `id` is the profile's unique id."""

    id: str
    name: str


class Host(msgspec.Struct, frozen=True):
    """An ESXi host; `available` when it is connected and not in maintenance."""

    ref: Ref
    name: str
    available: bool = True


class Cluster(msgspec.Struct, frozen=True, kw_only=True):
    """A compute cluster and what its hosts see."""

    ref: Ref
    name: str
    path: str = ""
    root_pool: Ref
    hosts: tuple[Ref, ...] = ()
    datastores: tuple[Ref, ...] = ()
    networks: tuple[Ref, ...] = ()


class AffinityRule(msgspec.Struct, frozen=True):
    """A VM-host rule: VMs of a group run (`mandatory`: must, else should) on the hosts of a group, or stay off them."""

    name: str
    vm_group: str
    host_group: str = ""
    anti_affine_host_group: str = ""
    enabled: bool = True
    mandatory: bool = False


class ClusterRules(msgspec.Struct, frozen=True):
    """DRS groups and VM-host rules of a cluster."""

    vm_groups: Mapping[str, tuple[Ref, ...]]
    host_groups: Mapping[str, tuple[Ref, ...]]
    rules: tuple[AffinityRule, ...] = ()

    def rule(self, vm_group: str, host_group: str) -> AffinityRule | None:
        """Return the affine rule that joins the two groups."""
        for rule in self.rules:
            if (rule.vm_group, rule.host_group) == (vm_group, host_group):
                return rule
        return None


class ExtraConfig(dict[str, str]):
    """Keys and values of a VM's extra configuration. Its repr has the keys alone: guestinfo carries bootstrap data."""

    def __repr__(self) -> str:
        return f"ExtraConfig({', '.join(sorted(self))})"


class NetworkDevice(msgspec.Struct, frozen=True):
    """A card that the clone gets; an empty `mac` lets vCenter assign one."""

    network: Network
    mac: str = ""


class CloneSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A clone, powered off, whose disks show their UUIDs to the guest. Zero and empty mean: as the template has it.

    `snapshot` set makes a linked clone (its disks cannot grow). `networks` replaces all cards of the template, in this
    order; None keeps them. `disks_gib` are sizes that the template's disks grow to, in their order; 0 keeps one.
    Without `datastore` the choice is vCenter's, the template's mostly. `cpus` without `cores_per_socket` are
    in one socket.
    """

    name: str
    template: Ref
    folder: Ref
    pool: Ref
    instance_uuid: str
    datastore: Ref | None = None
    storage_policy_id: str = ""
    host: Ref | None = None
    snapshot: Ref | None = None
    cpus: int = 0
    cores_per_socket: int = 0
    memory_mib: int = 0
    disks_gib: tuple[int, ...] = ()
    networks: tuple[NetworkDevice, ...] | None = None
    extra_config: ExtraConfig = msgspec.field(default_factory=ExtraConfig)
    annotation: str = ""


class Cardinality(StrEnum):
    """How many tags of a category one object may carry."""

    SINGLE = "SINGLE"
    MULTIPLE = "MULTIPLE"


class Category(msgspec.Struct, frozen=True, kw_only=True):
    """A tag category. `types` are managed object types it may be attached to; empty means all."""

    id: str
    name: str
    description: str = ""
    cardinality: Cardinality = Cardinality.SINGLE
    types: frozenset[str] = frozenset()


class Tag(msgspec.Struct, frozen=True, kw_only=True):
    """A tag of a category; `id` is its URN."""

    id: str
    name: str
    category_id: str
    description: str = ""
