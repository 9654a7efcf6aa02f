"""Connections that never outlive whoever asked for them.

Responsible for: closing what asyncio and aiohttp leave open. Before Python 3.13 a TLS connection whose opening is
cancelled between TCP's handshake and TLS's is completed later and belongs to nobody; and a connection that is closed in
the middle of an answer waits up to 30 s for the farewell of its peer, which a peer that stalls never sends.
Invariants: opening a connection is never cancelled half-way: it is finished and then closed. After `close` no transport
that came from here is open (with uvloop: none but those that wait for their peer).
Must not know: what goes over a connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from typing import TYPE_CHECKING, Any, Final

import aiohttp

if TYPE_CHECKING:
    from aiohttp import ClientRequest, ClientTimeout
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.tracing import Trace

_OPENING_SECONDS: Final = 3.0


class Connector(aiohttp.TCPConnector):
    """aiohttp's connector with the invariants above. `_create_connection` is what its subclasses override."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._opening: set[asyncio.Task[ResponseHandler]] = set()
        self._opened: weakref.WeakSet[asyncio.Transport] = weakref.WeakSet()

    async def _create_connection(
        self,
        req: ClientRequest,
        traces: list[Trace],
        timeout: ClientTimeout,  # noqa: ASYNC109 - aiohttp's signature
    ) -> ResponseHandler:
        opening = asyncio.ensure_future(super()._create_connection(req, traces, timeout))
        self._opening.add(opening)
        opening.add_done_callback(self._note)
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_abort)
            raise

    def _note(self, opening: asyncio.Task[ResponseHandler]) -> None:
        self._opening.discard(opening)
        if not opening.cancelled() and opening.exception() is None and (transport := opening.result().transport):
            with contextlib.suppress(TypeError):  # uvloop's cannot be referenced weakly; it closes them with the loop
                self._opened.add(transport)

    async def close(self, *, abort_ssl: bool = False) -> None:
        """Close every connection, those too that are being opened or that wait for their peer's farewell."""
        if self._opening:
            await asyncio.wait(self._opening, timeout=_OPENING_SECONDS)
        for opening in tuple(self._opening):
            opening.cancel()
        await super().close(abort_ssl=abort_ssl)
        for transport in tuple(self._opened):
            transport.abort()
        # A connection that was dropped just now is aborted in the next turn of the loop and closes its socket in the
        # one after that.
        for _ in range(3):
            await asyncio.sleep(0)


def _abort(opening: asyncio.Task[ResponseHandler]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().abort()
