"""Which VSphereDeploymentZones a VSphereCluster means: those of its server that its label selector selects.

Invariants: pure. An absent selector selects nothing, an empty one everything; an operator that nobody knows selects
nothing, since the API server admits none.
Source: apimachinery meta/v1 LabelSelectorAsSelector.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.machine_controller.vsphere.errors import VSphereError
from services.machine_controller.vsphere.values import Server

if TYPE_CHECKING:
    from collections.abc import Mapping

    from services.machine_controller.api import LabelSelector, SelectorRequirement


def selects(selector: LabelSelector | None, labels: Mapping[str, str]) -> bool:
    """Whether a selector selects an object with these labels."""
    if selector is None:
        return False
    wanted = selector.match_labels or {}
    return all(labels.get(key) == value for key, value in wanted.items()) and all(
        _meets(requirement, labels) for requirement in selector.match_expressions
    )


def shown(selector: LabelSelector) -> str:
    """Return a selector in the words of kubectl's --selector; "" for one that selects everything."""
    texts = [f"{key}={value}" for key, value in sorted((selector.match_labels or {}).items())]
    for requirement in selector.match_expressions:
        values = ",".join(requirement.values)
        match requirement.operator:
            case "Exists":
                texts.append(requirement.key)
            case "DoesNotExist":
                texts.append(f"!{requirement.key}")
            case operator:
                texts.append(f"{requirement.key} {operator.lower()} ({values})")
    return ",".join(texts)


def same_server(one: str, other: str) -> bool:
    """Whether two ways to write a server mean the same."""
    return one == other or _canonical(one) == _canonical(other)


def _meets(requirement: SelectorRequirement, labels: Mapping[str, str]) -> bool:
    value = labels.get(requirement.key)
    match requirement.operator:
        case "In":
            return value in requirement.values
        case "NotIn":
            return value not in requirement.values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case _:
            return False


def _canonical(text: str) -> str:
    try:
        return str(Server.parse(text))
    except VSphereError:
        return text
