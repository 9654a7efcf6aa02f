"""Everything that the checks go by, as one value: what was read, or why it was not.

Invariant: a part that could not be read is `Unread`, never an empty one: nothing is concluded from what was not seen.
Must not know: how it is read, what it means.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, NamedTuple

from services.ipam.cli.snapshot import Snapshot
from services.podpreset.selectors import everything

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from services.podpreset.cli.stale import StaleRow
    from services.podpreset.selectors import Match
    from services.runtime.kube.objects import KubeObject

Json = dict[str, Any]


class Why(enum.StrEnum):
    """Why something was not read."""

    NOT_ASKED = "not asked"
    FORBIDDEN = "forbidden"
    UNSERVED = "unserved"
    """The API server does not know the resource."""
    TOO_MANY = "too many"
    FAILED = "failed"


class Unread(NamedTuple):
    """Something that was not read."""

    what: str
    """The resource, as kubectl names it."""
    why: Why
    message: str = ""


NOT_ASKED = Unread("", Why.NOT_ASKED)


class Service(NamedTuple):
    """A Deployment of ours."""

    component: str
    """`ipam`, `podpreset`, `capv-integrator` or `machine-controller`."""
    namespace: str
    name: str
    account: str
    replicas: int
    available: int
    trouble: str
    """What its conditions say of a rollout that does not go on; "" when nothing."""
    flags: Mapping[str, tuple[str, ...]]
    """Values of its flags, without the dashes; a flag without a value has `true`."""
    mounted: Mapping[str, str] = {}
    """Name of the Secret that is mounted at a path."""

    def __str__(self) -> str:
        return f"Deployment {self.namespace}/{self.name}"

    @property
    def elects(self) -> bool:
        """Whether its processes elect a leader."""
        return self.flag("no-leader-election") != "true" and self.flag("leader-election") != "false"

    def flag(self, name: str) -> str:
        """Return the last value of a flag, "" when it is not given."""
        return (self.flags.get(name) or ("",))[-1]


class Provider(NamedTuple):
    """A Deployment of Cluster API or of one of its providers."""

    label: str
    """Of `cluster.x-k8s.io/provider`."""
    namespace: str
    name: str
    image: str
    available: int

    def __str__(self) -> str:
        return f"Deployment {self.namespace}/{self.name}"


class Lease(NamedTuple):
    """Who leads."""

    namespace: str
    name: str
    holder: str
    renewed: datetime | None


class Denied(NamedTuple):
    """A right that a service lacks."""

    service: str
    """Its Deployment."""
    account: str
    right: str
    """`verb resource.group`, with the namespace where it is one."""


class Endpoint(NamedTuple):
    """A Service that a webhook names; `ready` of its endpoints, None for a Service that is a name (ExternalName)."""

    exists: bool
    ready: int | None


class Hook(NamedTuple):
    """One webhook of a MutatingWebhookConfiguration of ours."""

    configuration: str
    name: str
    policy: str
    """failurePolicy: `Ignore` or `Fail`."""
    bundle: bytes
    service: tuple[str, str] | None
    """Namespace and name, None for a webhook with a URL."""
    endpoint: Endpoint | Unread | None
    namespaces: Match = everything
    """Its namespaceSelector: whether pods of a namespace with these labels are sent."""
    pods: Match = everything
    """Its objectSelector."""

    def __str__(self) -> str:
        return f"MutatingWebhookConfiguration {self.configuration}"


class Served(NamedTuple):
    """A certificate that a webhook serves."""

    secret: str
    """`Secret namespace/name`."""
    component: str
    certificate: bytes | None
    """PEM; None when there is no such Secret or no `tls.crt` in it."""


class Trial(NamedTuple):
    """What became of a pod that was created without being stored."""

    namespace: str
    preset: str
    """A preset that gives the pod something, "" when none does."""
    marked: bool
    """Whether the answer has the webhook's mark."""
    refused: str
    """The API server's message when the pod was not let in; "" when it was."""
    failed_open: int | None
    """How often the API server went on without the webhook meanwhile; None when it does not say."""


class Stale(NamedTuple):
    """Pods that have something else than presets say."""

    pods: int
    rows: Sequence[StaleRow]


class Books(NamedTuple):
    """The allocator's objects, each list for itself."""

    pools: tuple[KubeObject, ...] | Unread = NOT_ASKED
    claims: tuple[KubeObject, ...] | Unread = NOT_ASKED
    addresses: tuple[KubeObject, ...] | Unread = NOT_ASKED
    reservations: tuple[KubeObject, ...] | Unread = NOT_ASKED
    capi_version: str = ""

    @property
    def snapshot(self) -> Snapshot | None:
        """All of it; None when a list was not read."""
        pools, claims, addresses, reservations = self[:4]
        if isinstance(pools, Unread) or isinstance(claims, Unread):
            return None
        if isinstance(addresses, Unread) or isinstance(reservations, Unread):
            return None
        return Snapshot(pools, claims, addresses, reservations, self.capi_version)


class Seen(NamedTuple):
    """One cluster at about one moment."""

    now: datetime
    version: str | Unread = NOT_ASKED
    """`v1.36.3`."""
    shipped: Sequence[Json] | None = None
    """The definitions of this version; None where they are not installed with it."""
    installed: Mapping[str, Json | Unread | None] = {}
    """Definitions of the cluster by name, ours and those that we work with; None for one that is not there."""
    services: Sequence[Service] | Unread = NOT_ASKED
    providers: Sequence[Provider] | Unread = NOT_ASKED
    leases: Mapping[tuple[str, str], Lease | Unread | None] = {}
    """By namespace and name; None for one that is not there."""
    denied: Mapping[str, Sequence[Denied] | Unread] = {}
    """What each service, by its Deployment, is not allowed."""
    hooks: Sequence[Hook] | Unread = NOT_ASKED
    served: Sequence[Served | Unread] = ()
    trial: Trial | Unread = NOT_ASKED
    books: Books = Books()
    again: Snapshot | None = None
    """The same a little later, when the first one had discrepancies."""
    stale: Stale | Unread = NOT_ASKED
    unread: Sequence[Unread] = ()
    """Everything that was asked for and not read."""
