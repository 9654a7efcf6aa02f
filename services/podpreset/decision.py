"""What is asked about a pod and what is answered, as values.

Responsible for: the shapes that the server fills in and reads; the words of outcomes and skips, which metrics and audit
annotations carry.
Invariant: no message holds the value of a variable: it may be a credential.
Must not know: how the answer is found.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from services.podpreset.selectors import CONTAINER_NAME_LENGTH

if TYPE_CHECKING:
    from services.podpreset.api import PresetKey
    from services.podpreset.pods import Pod

Op = dict[str, Any]
"""One operation of RFC 6902: `op` (add, replace or test), `path`, `value`."""


class Review(NamedTuple):
    """A request for admission of a pod, the part of it that decides."""

    operation: str
    """`CREATE`, `UPDATE`, ..."""
    subresource: str
    """Empty, or `ephemeralcontainers`."""
    namespace: str
    """That of the request: a pod under review may lack its own."""
    pod: Pod | None
    old: Pod | None = None
    """The pod before an UPDATE."""


class Outcome(StrEnum):
    """What became of a pod."""

    SKIPPED = "skipped"
    """Not to be touched; `Decision.skip` says why."""
    UNMATCHED = "unmatched"
    """No preset is for it."""
    UNCHANGED = "unchanged"
    """It already has everything."""
    PATCHED = "patched"
    LEFT = "left"
    """A preset with SkipAll conflicts: it stays as it came."""
    REJECTED = "rejected"
    """A preset with Reject conflicts."""


class Skip(StrEnum):
    """Why a pod is not touched."""

    OPERATION = "operation"
    """Neither the creation of a pod nor an update of its ephemeral containers."""
    MIRROR = "mirror"
    EXCLUDED_POD = "excluded-pod"
    EXCLUDED_NAMESPACE = "excluded-namespace"
    SYSTEM_NAMESPACE = "system-namespace"
    """kube-system or the service's own."""


class Conflict(NamedTuple):
    """Something that a preset could not give because something else differs."""

    preset: PresetKey
    item: str
    """What: `env HTTP_PROXY`, `envFrom ConfigMap proxy`, `volume ca`, `volumeMount /etc/ca`, `caBundle`."""
    rival: str
    """What it differs from: another preset, `the pod`, or `container app`."""
    policy: str
    """The conflictPolicy that decides: the stricter one of two presets."""

    def __str__(self) -> str:
        """One line for people."""
        return f"{self.preset}: {self.item} differs from that of {self.rival}"


def rival_of(container: str) -> str:
    """Return how a container is named in conflicts and warnings.

    Nobody has looked at the name yet: one of a megabyte would be in every line that is said of the pod.
    """
    return f"container {container[:CONTAINER_NAME_LENGTH]}"


class Decision(NamedTuple):
    """The answer."""

    outcome: Outcome
    patch: tuple[Op, ...] = ()
    applied: tuple[PresetKey, ...] = ()
    """Presets that the pod gets, in the order of application."""
    skip: Skip | None = None
    conflicts: tuple[Conflict, ...] = ()
    warnings: tuple[str, ...] = ()
    """For the user who creates the pod; lines of any number and length."""
    audit: dict[str, str] = {}  # noqa: RUF012 - nobody changes it; a NamedTuple takes no factory
    """Audit annotations without the webhook's prefix."""
    message: str = ""
    """Why it is refused."""

    @property
    def allowed(self) -> bool:
        """Whether the pod is admitted."""
        return self.outcome is not Outcome.REJECTED
