"""The plain HTTP server of every service: /livez, /readyz and /metrics.

Responsible for: answering probes and scrapes, and for a clear error when the address cannot be used.

Invariants: /livez answers "ok" for as long as the event loop turns; that an answer comes at all is the proof, so
nothing else is asked. /readyz answers 200 when every check passes and 500 otherwise, like a Kubernetes component, and
lists the checks with `?verbose` or when one fails. Nothing secret is served and nothing can be changed here.

Must not know: what the checks look at.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from aiohttp import web

from services.runtime import metrics
from services.runtime.settings import Address

__all__ = ["Check", "HealthServer", "ListenError"]

Check = Callable[[], bool | str]
"""Returns True when ready, False or the reason when not."""

_CLOSE_SECONDS: Final = 1.0  # a scrape that is under way may end


class ListenError(Exception):
    """The address cannot be listened on; the text names it and says why. The process exits with code 2."""


class HealthServer:
    """Serves until `close`; checks may be added at any time. Without an address it only keeps the checks."""

    def __init__(self, listen: Address | None) -> None:
        self._listen = listen
        self._checks: dict[str, Check] = {}
        self._runner: web.AppRunner | None = None

    def add_readiness(self, name: str, check: Check) -> None:
        """Let /readyz ask `check`, which must be quick and must not wait. A check that raises counts as failed."""
        self._checks[name] = check

    def problems(self) -> dict[str, str]:
        """Return the checks that fail, with the reason."""
        found = {name: _problem(check) for name, check in self._checks.items()}
        return {name: problem for name, problem in found.items() if problem is not None}

    async def start(self) -> Address | None:
        """Listen and return the address, with the port that the kernel chose if 0 was asked for.

        Raises `ListenError`.
        """
        if self._listen is None:
            return None
        application = web.Application()
        # Kubernetes' own names, and the one that Cluster API's manifests probe.
        application.router.add_get("/livez", self._alive)
        application.router.add_get("/healthz", self._alive)
        application.router.add_get("/readyz", self._ready)
        application.router.add_get("/metrics", self._metrics)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=_CLOSE_SECONDS)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._listen.host or None, self._listen.port).start()
        except OSError as error:
            await runner.cleanup()
            raise ListenError(f"cannot listen on {self._listen}: {error.strerror or error}") from error
        self._runner = runner
        return Address(*runner.addresses[0][:2])

    async def close(self) -> None:
        """Stop listening and end connections. Does nothing when it was not started."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _alive(self, _: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def _ready(self, request: web.Request) -> web.Response:
        problems = self.problems()
        if not problems and "verbose" not in request.query:
            return web.Response(text="ok")
        lines = [
            f"[-]{name} failed: {problems[name]}" if name in problems else f"[+]{name} ok" for name in self._checks
        ]
        lines.append("readyz check failed" if problems else "readyz check passed")
        return web.Response(status=500 if problems else 200, text="\n".join(lines) + "\n")

    async def _metrics(self, request: web.Request) -> web.Response:
        body, content_type = metrics.render(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})


def _problem(check: Check) -> str | None:
    """Return why a check fails, or None."""
    try:
        result = check()
    except Exception as error:  # noqa: BLE001 - a broken check must not break the others
        return f"{type(error).__name__}: {error}"
    if isinstance(result, str):
        return result
    return None if result else "not ready"
