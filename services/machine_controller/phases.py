"""The words that a machine's life is told in: what is known of it, the next step, and what is said about it.

Responsible for: the values that `gather` makes, `decide` reads and answers with, and the acts carry out. Reasons of
conditions are CAPV's v1beta2 ones where it has one.
Must not know: how anything is found out or done.
Source: CAPV v1.16 api/govmomi/v1beta2 vspherevm_types.go, vspheremachine_types.go.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from services.machine_controller.record import Record
    from services.machine_controller.vsphere.values import Gone, Task, VirtualMachine

PROVISIONED = "VirtualMachineProvisioned"
READY = "Ready"
PAUSED = "Paused"
VCENTER_AVAILABLE = "VCenterAvailable"
CLAIMS_FULFILLED = "IPAddressClaimsFulfilled"
SOFT_POWER_OFF = "GuestSoftPowerOffSucceeded"
AS_PLACED = "machine.groundwork.dev/AsPlaced"
"""False while a VM is called or placed otherwise than it was made."""


class Do(enum.Enum):
    """One step."""

    NOTHING = "nothing"
    HOLD = "hold"
    """Add our finalizer."""
    PLACE = "place"
    """Write down which devices the failure domain gives the machine."""
    CLAIM = "claim"
    """Make the claims on pools that are missing."""
    READ_ADDRESSES = "read addresses"
    """Read the addresses that claims got."""
    LOOK = "look"
    """Find out whether there is a VM with our UUID, and follow it."""
    QUEUE = "queue"
    """Wait for the end of somebody else's clone."""
    CLONE = "clone"
    """Write down that a clone is asked for, then ask for it."""
    FOLLOW = "follow"
    """Follow the clone that the record names."""
    SEARCH = "search"
    """Find out which clones of the template run: one of them may be ours, whose id was never told."""
    ADOPT = "adopt"
    """Write down which VM is ours."""
    DISCARD = "discard"
    """Forget a clone that came to nothing."""
    PREPARE = "prepare"
    """Attach tags, join groups."""
    CONFIGURE = "configure"
    """Write guestinfo."""
    POWER_ON = "power on"
    NOTE_STARTED = "note start"
    """Write down that the VM was on, and its provider id."""
    SHUT_DOWN = "shut down"
    POWER_OFF = "power off"
    DESTROY = "destroy"
    FINISH = "finish"
    """Confirm that there is no VM, return addresses, remove our finalizer."""


class Say(NamedTuple):
    """What VirtualMachineProvisioned is to say."""

    status: bool
    reason: str
    message: str = ""


class Plan(NamedTuple):
    """A step, what is said meanwhile (None: as it was), and seconds after which to look again if nothing happens."""

    do: Do = Do.NOTHING
    say: Say | None = None
    again: float | None = None


class Look(enum.Enum):
    """What is known of the VM in vCenter."""

    UNKNOWN = "unknown"
    PENDING = "pending"
    """It is followed, and its state was not told yet."""
    ABSENT = "absent"
    PRESENT = "present"


class Claims(NamedTuple):
    """Claims on pools: names that are missing, that have no address yet, and whose address was not read yet."""

    missing: tuple[str, ...] = ()
    unbound: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    refusal: str = ""
    """What the provider says of one that it refuses, or whose claim stands in the way."""


class Stop(NamedTuple):
    """How a VM is to be powered off: `mode` as in the spec, seconds since the guest was asked and until that ends."""

    mode: str = ""
    asked_seconds: float | None = None
    timeout_seconds: float = 300.0
    tools: bool = False


class World(NamedTuple):
    """Everything that bears on one VSphereMachine at one moment."""

    deleting: bool = False
    held: bool = True
    """Whether our finalizer is on it."""
    paused: bool = False
    blocked: Say | None = None
    """Something that it belongs to is not there or not ready."""
    misplaced: Say | None = None
    """Why it cannot be placed."""
    unreachable: str = ""
    """Why vCenter cannot be asked: no server, no credentials."""
    connecting: bool = False
    """Whether the credentials are on their way."""
    pause_seconds: float = 0.0
    """Until the next try after a failure."""

    record: Record | None = None
    damaged: bool = False
    """Whether there was a record that cannot be read."""
    provider_id: bool = False
    """Whether the spec has a provider id, which a VM was given once."""
    provider_shared: str = ""
    """Another VSphereMachine with the same provider id."""

    look: Look = Look.UNKNOWN
    vm: VirtualMachine | None = None
    clone: Task | Gone | None = None
    """The clone that the record names, as far as it is followed."""
    suspects: int | None = None
    """Clones of the template that ran when they were searched for and still do."""
    clone_age: float = 0.0
    """Seconds since the request for the clone was given up; negative while it may still be waited for."""
    searched_age: float = 0.0
    """The same, when clones were searched for."""
    operation: str = ""
    """A task of ours on the VM: `reconfigure`, `power on`, `power off` or `destroy`."""

    bootstrap: str = ""
    """Name of the Secret."""
    bootstrap_wait: Say | None = None
    unplaced: bool = False
    """Whether the devices that a failure domain gives it were not written down yet."""
    static: tuple[int, ...] = ()
    """Devices that wait for a static address."""
    claims: Claims = Claims()
    slot: bool = True
    """Whether another clone may be started."""
    prepared: bool = False
    configured: bool = False
    provisioned: bool = False
    """Whether it was ready once."""
    missing: tuple[str, ...] = ()
    """Assigned addresses that the guest does not report, or what else it should."""
    stop: Stop = Stop()
