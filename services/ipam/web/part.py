"""The status page as a part of the allocator's process: addresses into pages, and the samples that history is made of.

Responsible for: what each path shows, and taking samples. Wiring with the manager is `add_to`.
Must not know: HTML, HTTP headers.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Final

from services.ipam import api, intervals
from services.ipam.api import PoolKey
from services.ipam.web.document import document
from services.ipam.web.facts import PoolPage, Scene
from services.ipam.web.history import History, Sample
from services.ipam.web.overviewpage import POOLS_AT_ONCE, Card, overview_content
from services.ipam.web.poolpage import HOURS, pool_content
from services.ipam.web.reading import Reader, gently
from services.ipam.web.report import overview_report, pool_report
from services.ipam.web.server import JSON, AskedWrongError, Page, WebServer
from services.ipam.web.survey import Surveyor
from services.ipam.web.words import pool_path

if TYPE_CHECKING:
    from collections.abc import Mapping

    from services.ipam.caches import Caches
    from services.ipam.intervals import Interval
    from services.ipam.settings import IpamSettings
    from services.runtime.clock import Clock
    from services.runtime.manager import Manager

SAMPLE_SECONDS: Final = 5.0
_RANGES: Final = 100
_REPORT: Final = "status.json"


class StatusPage:
    """Shows one allocator's caches."""

    def __init__(self, caches: Caches, settings: IpamSettings, clock: Clock, replica: str | None = None) -> None:
        """`replica`: how this process is called; if not given the name of its pod, which is that of its host."""
        self._reader = Reader(caches)
        self._surveyor = Surveyor(self._reader, clock)
        self._settings = settings
        self._clock = clock
        self._replica = replica or os.environ.get("HOSTNAME") or socket.gethostname()
        self._history = History()
        self._leading = False
        self.server = WebServer(self.show, clock, {host.lower() for host in settings.web_host})

    def add_to(self, manager: Manager, sock: socket.socket) -> None:
        """Serve a bound socket as long as the process runs, on a standby as well."""
        manager.add_runnable("status page", lambda: self.server.run(sock), needs_leader=False, needs_caches=False)
        manager.add_runnable("status page samples", self.sample_forever, needs_leader=False)
        manager.add_runnable("status page role", self._lead, needs_leader=True)

    async def _lead(self) -> None:
        self._leading = True

    async def sample_forever(self) -> None:
        """Take samples of all pools; the page shows them as fill over time."""
        while True:
            await self.sample()
            await self._clock.sleep(SAMPLE_SECONDS)

    async def sample(self) -> None:
        """Take one sample of every pool."""
        now = self._clock.now().timestamp()
        keys = self._reader.pool_keys()
        async for key in gently(keys):
            sample = await self._sample(key, now)
            if sample is not None:
                self._history.add(key, sample)
        self._history.keep(set(keys))

    async def _sample(self, key: PoolKey, now: float) -> Sample | None:
        waiting = await self._reader.waiting(key)
        state = self._reader.state(key)
        if state is None:
            return None
        counts = state.counts(now)
        return Sample(int(now), counts.total, counts.used, counts.reserved, counts.cooling, waiting)

    def scene(self) -> Scene:
        """Who shows the page, and when."""
        election = "leader" if self._leading else "standby"
        return Scene(
            now=self._clock.now(),
            replica=self._replica,
            role=election if self._settings.leader_election else "alone",
            namespaces=self._settings.watch_namespace,
            missing=self._reader.missing,
        )

    async def show(self, parts: tuple[str, ...], query: Mapping[str, str]) -> Page | None:
        """Return the page at a path, None when there is none. Raises AskedWrongError."""
        match parts:
            case ("",):
                return await self._overview(query)
            case (name,) if name == _REPORT:
                return Page(overview_report(self.scene(), await self._reader.overview(self._clock.now())), JSON)
            case ("pools", kind, *names) if kind in {api.IP_POOLS.kind, api.GLOBAL_IP_POOLS.kind}:
                wanted = 2 if kind == api.IP_POOLS.kind else 1
                key = (
                    PoolKey(kind, "" if wanted == 1 else names[0], names[wanted - 1]) if len(names) >= wanted else None
                )
                if key is not None and names[wanted:] in ([], [_REPORT]):
                    return await self._pool(key, query, report=bool(names[wanted:]))
        return None

    async def _overview(self, query: Mapping[str, str]) -> Page:
        page = _whole("page", query.get("page", "1"))
        scene = self.scene()
        overview = await self._reader.overview(scene.now)
        pages = max(1, -(-len(overview.pools) // POOLS_AT_ONCE))
        page = min(max(page, 1), pages)
        cards = []
        for line in overview.pools[(page - 1) * POOLS_AT_ONCE : page * POOLS_AT_ONCE]:
            state = self._reader.state(line.key)
            if state is not None:
                charts = await self._surveyor.small(state, scene.now.timestamp())
                cards.append(Card(line, charts, await self._samples(line.key)))
        known = {"page": str(page)} if page > 1 else {}
        still = query.get("refresh") == "off"
        content = overview_content(scene, overview, cards, page)
        return Page(document(scene, "Pools and claims", "/", known, *content, still=still))

    async def _pool(self, key: PoolKey, query: Mapping[str, str], *, report: bool) -> Page | None:
        state = self._reader.state(key)
        if state is None:
            return None
        hours = _whole("hours", query.get("hours", str(HOURS[0])))
        if hours not in HOURS:
            raise AskedWrongError(f"hours: expected one of {', '.join(map(str, HOURS))}")
        window, start = _window(query.get("block", "")), query.get("from", "").strip()
        scene = self.scene()
        survey = await self._surveyor.survey(state, scene.now.timestamp(), window, _point(start))
        crowd = await self._reader.crowd(key)
        line = self._reader.line(key, crowd, scene.now)
        if line is None:
            return None
        page = PoolPage(
            line=line,
            spans=tuple(state.space.ranges[:_RANGES]),
            problems=tuple(map(str, state.space.problems[:_RANGES])),
            crowd=crowd,
            survey=survey,
            samples=await self._samples(key),
            strategy="random" if state.random_order else "sequential",
            more_ranges=max(0, len(state.space.ranges) - _RANGES),
        )
        if report:
            return Page(pool_report(scene, page), JSON)
        title = f"{key.namespace}/{key.name}" if key.namespace else key.name
        known = {name: query[name] for name in ("block", "from", "hours") if query.get(name)}
        content = pool_content(scene, page, window, start, hours)
        return Page(document(scene, title, pool_path(key), known, *content, still=query.get("refresh") == "off"))

    async def _samples(self, key: PoolKey) -> tuple[Sample, ...]:
        """What was sampled of a pool, and how it is now."""
        now = await self._sample(key, self._clock.now().timestamp())
        return (*self._history.samples(key), *([now] if now is not None else []))


def _whole(name: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 10):  # noqa: PLR2004 - digits of what is never needed
        raise AskedWrongError(f"{name}: expected a whole number")
    return int(text)


def _window(text: str) -> Interval | None:
    try:
        return intervals.parse_block(text) if text else None
    except ValueError:
        raise AskedWrongError("block: expected an address, a CIDR or a range a-b") from None


def _point(text: str) -> int:
    try:
        return intervals.point(text) if text else 0
    except ValueError:
        raise AskedWrongError("from: expected an IPv4 or IPv6 address") from None
