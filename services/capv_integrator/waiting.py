"""Which devices of a VSphereMachine wait for a static address: CAPV's own rule, on the network that CAPV sees.

Responsible for: the predicate, and putting together a device out of the VSphereMachine and, where a failure domain
applies, of what CAPV made of it in the VSphereVM.
Invariants: addresses are read off the VSphereMachine alone, since CAPV copies them to the VSphereVM and never back; a
failure domain decides about nothing but the fields that CAPV lets it decide about.
Must not know: pools, claims.
Sources: CAPV v1.16 controllers/vspherevm_controller.go isWaitingForStaticIPAllocation, pkg/services/vimmachine.go
overrideNetworkDeviceSpecs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from services.capv_integrator import api
from services.runtime.kube.objects import view

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from services.runtime.kube.objects import KubeObject

_OF_FAILURE_DOMAIN = ("networkName", "dhcp4", "dhcp6", "nameservers", "searchDomains", "addressesFromPools")


class Device(NamedTuple):
    """One NIC as CAPV sees it."""

    at: int
    """Index in spec.network.devices."""
    effective: Mapping[str, Any]
    own: Mapping[str, Any] | None
    """As it stands in the VSphereMachine; None when a failure domain adds it."""

    @property
    def network(self) -> str:
        """Name of the network, as CAPV takes it: a name or an inventory path."""
        return str(self.effective.get("networkName") or "")

    @property
    def waits(self) -> bool:
        """Tell whether it waits for an address."""
        return waits(self.effective)

    def __str__(self) -> str:
        """`device 0 (VM Network)`, the form used in messages."""
        return f"device {self.at} ({self.network})" if self.network else f"device {self.at}"


def waits(device: Mapping[str, Any]) -> bool:
    """CAPV's predicate for one device: either DHCP flag alone is enough not to wait."""
    if device.get("skipIPAllocation") or device.get("dhcp4") or device.get("dhcp6"):
        return False
    return not device.get("ipAddrs") and not device.get("addressesFromPools")


def devices(own: Sequence[Mapping[str, Any]], overlaid: Sequence[Mapping[str, Any]] = ()) -> tuple[Device, ...]:
    """All devices: the VSphereMachine's `own`, overlaid with those of the VSphereVM where a failure domain applies."""
    found = []
    for index in range(max(len(own), len(overlaid))):
        mine = own[index] if index < len(own) else None
        if index >= len(overlaid):
            effective = mine
        elif mine is None:
            effective = {name: value for name, value in overlaid[index].items() if name != "ipAddrs"}
        else:
            kept = {name: value for name, value in mine.items() if name not in _OF_FAILURE_DOMAIN}
            effective = kept | {name: overlaid[index][name] for name in _OF_FAILURE_DOMAIN if name in overlaid[index]}
        assert effective is not None
        found.append(Device(index, effective, mine))
    return tuple(found)


def reported_since(*objects: KubeObject | None) -> str | None:
    """When CAPV said that a VSphereMachine or VSphereVM waits, as a timestamp; None when it does not say so.

    Recognises the four places that the two API versions and their two styles of conditions have for it.
    """
    for obj in objects:
        if obj is None:
            continue
        status: dict[str, Any] = view(obj.status, dict[str, Any])
        deprecated = status.get("deprecated") or {}
        for holder in (status, status.get("v1beta2") or {}, deprecated.get("v1beta1") or {}):
            for condition in holder.get("conditions") or ():
                if condition.get("type") in api.WAITING_CONDITIONS and condition.get("reason") == api.WAITING_REASON:
                    since: str | None = condition.get("lastTransitionTime")
                    return since
    return None
