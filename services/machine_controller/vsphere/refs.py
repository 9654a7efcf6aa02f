"""References to and from pyVmomi's managed objects.

Invariant: the type in a Ref is the object's name on the wire ("DistributedVirtualPortgroup"), not pyVmomi's.
"""

from __future__ import annotations

from typing import Any

from services.machine_controller.vsphere.soap import type_of
from services.machine_controller.vsphere.values import Ref


def ref(managed: Any) -> Ref:
    """Return the reference of a managed object."""
    return Ref(managed._wsdlName, managed._GetMoId())  # noqa: SLF001 - pyVmomi has no public way to either


def managed(reference: Ref, stub: Any) -> Any:
    """Return the managed object behind a reference, bound to a stub."""
    return type_of(reference.type)(reference.id, stub)
