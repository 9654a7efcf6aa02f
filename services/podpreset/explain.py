"""What was done with each thing that presets give, for people: a row for each thing and container.

Responsible for: the words of a row. Rows are only made when somebody asks for them, never in an admission.
Must not know: how they are shown.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from services.podpreset.layers import Step

CONTAINER = "container"
"""Who gave an item that the container had itself."""


class Fate(StrEnum):
    """What became of a thing."""

    ADDED = "added"
    PRESENT = "present"
    """It was there already: equal, or a list with every item."""
    MERGED = "merged"
    """Items were added to the container's own list."""
    FORCED = "forced"
    """It replaced the container's own value."""
    KEPT = "kept"
    """The container's own value stays."""
    OPTED_OUT = "opted-out"
    """The container's own value is empty, which means that it wants none."""
    MIRRORED = "mirrored"
    """The other letter case of a variable that the container sets in one."""
    DYNAMIC = "value-from"
    """The container's own valueFrom stays."""
    DIFFERING = "cases-differ"
    """The container sets both letter cases, and differently: both stay."""
    REPEATED = "repeated"
    """The container sets it more than once: all stay."""
    CONFLICT = "conflict"
    """It was left out because something else differs."""
    UNAVAILABLE = "unavailable"
    """An ephemeral container cannot have it, or it needs a volume that is left out."""


class Row(NamedTuple):
    """One thing in one container, or in the pod when `container` is empty."""

    container: str
    kind: str
    """`env`, `envFrom`, `volumeMount` or `volume`."""
    name: str
    """Name of the variable or volume, path of the mount, `ConfigMap x` or `Secret x`."""
    fate: Fate
    value: Any
    """What the container has in the end: a string, or an object for whatever is no literal."""
    givers: tuple[tuple[str, str], ...]
    """Who gave what, in order: pairs of an item of the list (empty for a single value or an object) and either
    `container` or a preset, `PodPreset ns/name`."""
    steps: tuple[Step, ...] = ()
    """What each preset did to it in the order of application."""


Rows = list[Row]
