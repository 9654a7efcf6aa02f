"""All connections to vCenters: one `VCenter` for each server and identity.

Responsible for: giving everybody who names the same server and identity the same sessions and threads.
Invariants: however many machines use an identity, there is one SOAP session (and one REST session once tags are asked
for), `threads` calls at once and one long poll. Other credentials for a known identity replace the old ones in place.
Must not know: where credentials come from, who uses the connections.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Self

import msgspec

from services.machine_controller.vsphere.access import Access
from services.machine_controller.vsphere.inventory import Inventory
from services.machine_controller.vsphere.rest import Rest
from services.machine_controller.vsphere.rules import Rules
from services.machine_controller.vsphere.session import Session, current_time
from services.machine_controller.vsphere.tags import Tags
from services.machine_controller.vsphere.vms import VirtualMachines
from services.machine_controller.vsphere.watch import Watch
from services.runtime.clock import Clock, SystemClock

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from types import TracebackType

    from services.machine_controller.vsphere.credentials import Credentials, Trust
    from services.machine_controller.vsphere.session import About
    from services.machine_controller.vsphere.values import Server

THREADS: Final = 4
"""Calls at once. pyVmomi parses XML under the interpreter lock, so more threads take time from the event loop."""


class Stats(msgspec.Struct, frozen=True):
    """What a connection has done so far; for benches and diagnosis."""

    logins: int
    running: int
    waiting: int
    calls: Mapping[str, int]


class VCenter:
    """One identity at one vCenter. Made by `VCenters.get`."""

    def __init__(self, access: Access, *, threads: int = THREADS) -> None:
        self.server = access.server
        self._access = access
        self._session = Session(access, threads=threads)
        self._rest = Rest(access)
        self.inventory = Inventory(self._session)
        self.vms = VirtualMachines(self._session)
        self.watch = Watch(self._session)
        self.rules = Rules(self._session, self.watch)
        self.tags = Tags(self._rest)

    def __repr__(self) -> str:
        return f"VCenter({self._access.credentials.username} at {self.server})"

    @property
    def answers(self) -> bool:
        """Whether it may be expected to answer a call at once: it is signed in at, and answered the last one."""
        return self._session.answers

    async def check(self) -> About:
        """Sign in unless that is done, make one call, and return what the server says about itself."""
        await self._session.call("check the session", current_time)
        return (await self._session.api()).about

    def replace(self, credentials: Credentials, trust: Trust) -> bool:
        """Use other credentials or another trust from the next call on; False when nothing differs."""
        return self._access.replace(credentials, trust)

    def stats(self) -> Stats:
        """Return counters."""
        session = self._session
        return Stats(session.logins, session.running, session.waiting, dict(session.calls_made))

    async def aclose(self) -> None:
        """Sign out and close everything; calls in flight are given up.

        Who has no more patience may cancel this: then nobody signs out, but every connection is closed all the same.
        """
        try:
            await self.watch.aclose()
        finally:
            try:
                await self._session.aclose()
            finally:
                await self._rest.aclose()


async def _close(vcenter: VCenter | None) -> None:
    if vcenter is not None:
        await vcenter.aclose()


class VCenters:
    """Every vCenter in use. An async context manager; belongs to the event loop it was made in."""

    def __init__(self, *, clock: Clock | None = None, threads: int = THREADS) -> None:
        self._clock = clock or SystemClock()
        self._threads = threads
        self._open: dict[tuple[Server, str], VCenter] = {}

    def get(self, server: Server, identity: str, credentials: Credentials, trust: Trust) -> VCenter:
        """Return the connection of an identity, making it when it is new: nothing is sent yet.

        `identity` names the owner of the credentials ("namespace/secret"); what it had before is replaced by these.
        """
        vcenter = self._open.get((server, identity))
        if vcenter is None:
            access = Access(server, credentials, trust, self._clock)
            vcenter = self._open[server, identity] = VCenter(access, threads=self._threads)
        else:
            vcenter.replace(credentials, trust)
        return vcenter

    def known(self, server: Server, identity: str) -> VCenter | None:
        """Return the connection of an identity if there is one."""
        return self._open.get((server, identity))

    def forget(self, server: Server, identity: str) -> Coroutine[None, None, None]:
        """Forget the connection of an identity that is not used any more: at once, and what is returned closes it."""
        return _close(self._open.pop((server, identity), None))

    async def aclose(self) -> None:
        """Close every connection."""
        vcenters = list(self._open.values())
        self._open.clear()
        await asyncio.gather(*(vcenter.aclose() for vcenter in vcenters))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, type_: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()
