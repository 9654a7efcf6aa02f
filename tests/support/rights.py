"""The rights that the chart gives its services, one by one, and which of them nobody has used.

Must not know: how use is found out.
"""

from __future__ import annotations

import functools

from tests.support import chart
from tests.support.audit import Right

BY_ADMISSION = frozenset(
    {
        Right("ipam", "ipam.metal3.io", "ippools", "delete"),
        Right("ipam", "ipam.metal3.io", "ippools/finalizers", "update"),
        Right("ipam", "ipam.groundwork.dev", "globalippools/finalizers", "update"),
        Right("ipam", "ipam.cluster.x-k8s.io", "ipaddressclaims/finalizers", "update"),
    }
)
"""Rights that no request is about: OwnerReferencesPermissionEnforcement asks for them. They have tests of their own."""

BY_RACE = frozenset(
    {
        Right("ipam", "ipam.groundwork.dev", "ipreservations", "get"),
        Right("ipam", "ipam.metal3.io", "ipaddresses", "get"),
        Right("ipam", "ipam.cluster.x-k8s.io", "ipaddresses", "get"),
        Right("capv-integrator", "ipam.metal3.io", "ipclaims", "get"),
        Right("capv-integrator", "ipam.cluster.x-k8s.io", "ipaddressclaims", "get"),
        Right("machine-controller", "ipam.cluster.x-k8s.io", "ipaddressclaims", "get"),
    }
)
"""Rights that are asked for when somebody has just been faster with an object of the same name: not in every run."""


@functools.cache
def granted():
    """Every right that the chart gives to any service."""
    rendering = chart.render({"machineController": {"enabled": True}})
    return frozenset(
        Right(component, group, resource, verb)
        for component in chart.COMPONENTS
        for rules in rendering.rules(component)
        for group, resource, _, verb in chart.rights(rules)
    )


def needless(used, given=None):
    """Rights that were given and not used."""
    return (granted() if given is None else given) - set(used) - BY_ADMISSION - BY_RACE
