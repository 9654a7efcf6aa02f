"""What the checks of a VSphereDeploymentZone say: conditions, in the order of Cluster API's vSphere provider.

Responsible for: the table of checks, which condition and reason a failed one gives, and `status.ready`.
Invariants: the first condition with a failed check is False, with the reason of the first of them and the messages of
all; those behind it are Unknown, since they would describe another place than the one that is meant. A zone is ready
when every condition is True.
Must not know: how anything is checked, vCenter, time.
Source: cluster-api-provider-vsphere v1.16 apis/v1beta2 (types and reasons), controllers/vspheredeploymentzone_*.
"""

from __future__ import annotations

from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from services.runtime.kube.conditions import FALSE, TRUE, UNKNOWN, Condition

if TYPE_CHECKING:
    from collections.abc import Mapping

READY = "Ready"
VCENTER_AVAILABLE = "VCenterAvailable"
VCENTER_UNREACHABLE = "VCenterUnreachable"
PLACEMENT_CONSTRAINT_READY = "PlacementConstraintReady"
FAILURE_DOMAIN_VALIDATED = "FailureDomainValidated"

NOT_READY = "NotReady"
NOT_CHECKED = "NotChecked"
DELETING = "Deleting"


class Check(Enum):
    """A check in its place: condition, reason when it fails."""

    DOMAIN = (FAILURE_DOMAIN_VALIDATED, "FailureDomainNotFound")  # it names the datacenter: nothing else can be checked
    VCENTER = (VCENTER_AVAILABLE, VCENTER_UNREACHABLE)
    DATACENTER = (VCENTER_AVAILABLE, "DatacenterNotFound")
    POOL = (PLACEMENT_CONSTRAINT_READY, "ResourcePoolNotFound")
    FOLDER = (PLACEMENT_CONSTRAINT_READY, "FolderNotFound")
    REGION = (FAILURE_DOMAIN_VALIDATED, "RegionMisconfigured")
    ZONE = (FAILURE_DOMAIN_VALIDATED, "ZoneMisconfigured")
    CLUSTER = (FAILURE_DOMAIN_VALIDATED, "ComputeClusterNotFound")
    POOL_OF_CLUSTER = (FAILURE_DOMAIN_VALIDATED, "ResourcePoolNotFound")
    DATASTORE = (FAILURE_DOMAIN_VALIDATED, "DatastoreNotFound")
    NETWORK = (FAILURE_DOMAIN_VALIDATED, "NetworkNotFound")
    HOSTS = (FAILURE_DOMAIN_VALIDATED, "HostsMisconfigured")

    @property
    def condition(self) -> str:
        """Type of the condition that it belongs to."""
        return self.value[0]

    @property
    def reason(self) -> str:
        """What the condition says when it fails."""
        return self.value[1]


TAG_CHECKS = (Check.REGION, Check.ZONE)
"""What can be mended by making tags."""
_GOOD = {
    VCENTER_AVAILABLE: "Available",
    PLACEMENT_CONSTRAINT_READY: "Ready",
    FAILURE_DOMAIN_VALIDATED: "Validated",
}


class Observation(NamedTuple):
    """What was seen of a zone: checks that failed with one sentence each, and what does not stop anybody (`remarks`).

    A check that is not named passed. With VCENTER failed nothing else was looked at.
    """

    problems: Mapping[Check, str] = MappingProxyType({})
    remarks: tuple[str, ...] = ()


class Verdict(NamedTuple):
    """What follows. `check` is the first that failed, `message` what the conditions say about it."""

    conditions: tuple[Condition, ...]
    check: Check | None = None
    message: str = ""

    @property
    def ready(self) -> bool:
        """Whether machines may be placed in the zone."""
        return self.check is None

    @property
    def reason(self) -> str:
        """Reason of the condition that is False, "" when none is."""
        return self.check.reason if self.check is not None else ""


def decide(observation: Observation, generation: int = 0) -> Verdict:
    """Return the conditions of a zone whose spec is of that generation."""
    failed = [check for check in Check if check in observation.problems]
    if not failed:
        remarks = "; ".join(observation.remarks)
        good = (
            _condition(generation, type_, TRUE, reason, remarks if type_ == FAILURE_DOMAIN_VALIDATED else "")
            for type_, reason in _GOOD.items()
        )
        return Verdict((_condition(generation, READY, TRUE, READY, ""), *good))
    first = failed[0]
    message = "; ".join(observation.problems[check] for check in failed if check.condition == first.condition)
    conditions = [_condition(generation, READY, FALSE, NOT_READY, f"{first.reason}: {message}")]
    passed = first is not Check.DOMAIN
    for type_, reason in _GOOD.items():
        if type_ == first.condition:
            conditions.append(_condition(generation, type_, FALSE, first.reason, message))
            passed = False
        elif passed:
            conditions.append(_condition(generation, type_, TRUE, reason, ""))
        else:
            conditions.append(_condition(generation, type_, UNKNOWN, NOT_CHECKED, f"{first.condition} is False"))
    return Verdict(tuple(conditions), first, message)


def deleting(generation: int, holders: str) -> Condition:
    """Return what Ready says of a zone that is being deleted: who still needs it."""
    message = f"in use by {holders}" if holders else "the zone is being deleted"
    return _condition(generation, READY, FALSE, DELETING, message)


def _condition(generation: int, type_: str, status: str, reason: str, message: str) -> Condition:
    return Condition(type_, status, reason, message, observedGeneration=generation)
