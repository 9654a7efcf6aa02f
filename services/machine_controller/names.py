"""Names that follow from a machine: of its VM, which is its host name too, and of its claims.

Invariants: CAPV's own names, so that claims are found again by whichever of the two controllers comes later.
Must not know: who uses a name.
Source: CAPV v1.16 pkg/services/vimmachine.go generateVMObjectName, govmomi/ipam reconcile of claims.
"""

from __future__ import annotations

_WINDOWS = "Windows"
_WINDOWS_LIMIT = 15  # NetBIOS


def vm_name(machine: str, os: str = "") -> str:
    """Name of a Machine's VM: the Machine's own, shortened for Windows to nine characters and the last five."""
    if os != _WINDOWS or len(machine) <= _WINDOWS_LIMIT:
        return machine
    return f"{machine[:9].removesuffix('-')}-{machine[-5:]}"


def claim_name(vm: str, device: int, pool: int) -> str:
    """Name of the claim for a pool of a device."""
    return f"{vm}-{device}-{pool}"
