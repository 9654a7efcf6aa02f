"""What the status page shows, as values: pools, their addresses, and the claims that are not served.

Responsible for: the shapes that reading fills and that pages and the JSON report are made of.
Must not know: where they are read from, HTML.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from datetime import datetime

    from services.ipam.api import AddressCounts, ClaimKey, PoolKey
    from services.ipam.space import Range
    from services.ipam.web.history import Sample
    from services.ipam.web.maps import Block, Layout
    from services.ipam.web.states import State
    from services.runtime.kube.conditions import Condition


URGENT = frozenset({"InvalidSpec", "AddressConflict"})
"""Reasons of a pool's conditions that somebody has to act upon."""


class Scene(NamedTuple):
    """Who shows the page, and when."""

    now: datetime
    replica: str
    role: str
    """`leader`, `standby`, or `alone` without an election."""
    namespaces: tuple[str, ...]
    """Those that are watched, none for all."""
    missing: tuple[str, ...]
    """Lists that have not been read yet; what the page shows is not complete before they were."""


class Waiting(NamedTuple):
    """A claim that has no address, or that is being deleted and still has one."""

    key: ClaimKey
    pool: PoolKey
    since: str
    """When it was created, or for one that is being deleted when that was asked for; RFC 3339."""
    returning: bool
    reason: str
    message: str
    owner: str


class Crowd(NamedTuple):
    """Claims that wait for a pool or have to leave it: how many, and the oldest ones."""

    waiting: int
    returning: int
    oldest: tuple[Waiting, ...]


class PoolLine(NamedTuple):
    """A pool in the overview."""

    key: PoolKey
    domain: str
    ranges: str
    total: int
    free: int
    """Not saturated as those of `counts`, which suit an int64."""
    counts: AddressCounts
    held: int
    """Addresses held through this pool; `counts.used` has those of its ranges that are held through others, too."""
    available: int
    """Addresses that any claim could get now, cooling ones among them."""
    conditions: tuple[Condition, ...]
    """What the pool's status says."""
    paused: bool
    waiting: int
    returning: int

    @property
    def trouble(self) -> int:
        """How much a pool needs to be looked at, the more the higher."""
        # Whether there are addresses left tells `available`, as it is now.
        bad = {c.reason for c in self.conditions if c.status != "True" and c.type != "AddressesAvailable"}
        return 8 * (self.waiting > 0) + 4 * bool(bad & URGENT) + 2 * (not self.available) + bool(bad or self.paused)

    @property
    def unfree(self) -> float:
        """Share of the pool that is not free, 0 to 1."""
        return (self.total - self.free) / self.total if self.total else 1.0


class Overview(NamedTuple):
    """Every pool, those that need to be looked at first, and the claims that waited longest."""

    pools: tuple[PoolLine, ...]
    crowd: Crowd
    poolless: int
    """How many of those that wait name a pool that does not exist."""


class Entry(NamedTuple):
    """An address that is not merely free."""

    at: int
    state: State
    claims: tuple[ClaimKey, ...]
    """Who holds it; of a cooling one, who had it last."""
    owner: str
    cluster: str
    since: str
    """When it was given, or given back; RFC 3339, "" when not known."""
    note: str


class Chart(NamedTuple):
    """A map of a pool: single addresses, or blocks of them."""

    layout: Layout
    states: dict[int, State]
    """Of single addresses."""
    notes: dict[int, str]
    """Who has a single address."""
    blocks: dict[int, Block]


class Survey(NamedTuple):
    """What a pool's addresses are used for."""

    charts: tuple[Chart, ...]
    """One for each family, a coarse one followed by the rows of it in which something is taken."""
    taken: int
    """How many addresses of the window are not merely free."""
    entries: tuple[Entry, ...]
    more: int
    """How many entries follow those."""


class PoolPage(NamedTuple):
    """One pool in full."""

    line: PoolLine
    spans: tuple[Range, ...]
    problems: tuple[str, ...]
    crowd: Crowd
    survey: Survey
    samples: tuple[Sample, ...]
    strategy: str
    more_ranges: int
    """How many ranges follow those."""
