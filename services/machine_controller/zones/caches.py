"""The stores that zones are worked on with, and what in them is about which zone.

Responsible for: the few look-ups; there are some dozens of zones, so nothing is indexed.
Must not know: what follows from anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from services.machine_controller import api
from services.runtime.kube.objects import KubeObject, ObjectKey, view

if TYPE_CHECKING:
    from services.runtime.cache.store import Store

VSPHERE_MACHINE = "VSphereMachine"


class _Reference(msgspec.Struct, frozen=True):
    """`infrastructureRef`."""

    kind: str = ""


class _MachineSpec(msgspec.Struct, frozen=True, rename="camel"):
    """What of a Machine says where it is, in v1beta1 and v1beta2 alike."""

    failure_domain: str | None = None
    infrastructure_ref: _Reference = _Reference()


class Stores(NamedTuple):
    """`clusters` are VSphereClusters, `machines` Cluster API's Machines; all of every namespace that is watched."""

    zones: Store[KubeObject]
    domains: Store[KubeObject]
    clusters: Store[KubeObject]
    machines: Store[KubeObject]

    def domain(self, zone: KubeObject) -> KubeObject | None:
        """Return the VSphereFailureDomain of a zone."""
        return self.domains.get(ObjectKey("", domain_name(zone)))

    def users(self, zone: str) -> list[str]:
        """Return the Machines of a zone, as `namespace/name`; those being deleted still have a VM there."""
        return sorted(str(machine.key) for machine in self.machines.values() if zone_of(machine) == zone)


def zone_of(machine: KubeObject) -> str:
    """Return the zone that a Machine is placed in; "" for one of another provider, or without any."""
    spec = view(machine.spec, _MachineSpec)
    return (spec.failure_domain or "") if spec.infrastructure_ref.kind == VSPHERE_MACHINE else ""


def domain_name(zone: KubeObject) -> str:
    """Return the name of a zone's VSphereFailureDomain."""
    return view(zone.spec, api.VSphereDeploymentZoneSpec).failure_domain
