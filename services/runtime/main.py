"""From a service's `__main__` to its exit code, so that a service only says what it consists of.

Responsible for: reading the settings, logging, the event loop, the connection to the API server, the Lease, and handing
all that to the service as a `Service` to add its parts to.

Invariants: a mistake in the configuration is one line on stderr and exit code 2. The election has a session of its own,
so that a flood of requests cannot queue before a renewal. A process that failed ends at once, without waiting for
threads: one that lost its Lease must not go on working in them.

Must not know: any service.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import sys
from typing import TYPE_CHECKING, Final, Generic, NoReturn, TypeVar

from services.runtime import log
from services.runtime.clock import Clock, SystemClock
from services.runtime.kube import config
from services.runtime.kube.errors import ConfigError
from services.runtime.kube.transport import Client
from services.runtime.leader import LeaderElector
from services.runtime.leader_decide import Timing
from services.runtime.manager import EXIT_OK, EXIT_UNUSABLE, Manager
from services.runtime.settings import Settings, SettingsError, version

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

__all__ = ["Service", "run"]

S = TypeVar("S", bound=Settings)

_LOG: Final = log.get("main")
_POD_NAMESPACE: Final = config.SERVICE_ACCOUNT / "namespace"


@dataclasses.dataclass(frozen=True, slots=True)
class Service(Generic[S]):
    """What a service is given to build itself from."""

    settings: S
    manager: Manager
    client: Client
    """Its writes raise `NotLeader` unless this process is the leader (without leader election they never do)."""
    unguarded: Client
    """The same session for writes that need no leadership, such as events and certificates."""
    clock: Clock


def run(kind: type[S], build: Callable[[Service[S]], Awaitable[None]], arguments: Sequence[str] | None = None) -> int:
    """Run a service until it is told to stop and return its exit code: 0 stopped, 1 failed, 2 cannot be configured.

    `build` adds reflectors, controllers and the rest to `service.manager`; it must not wait for the API server. The
    settings' `program` names the service in messages, as the user agent and as the Lease.
    """
    try:
        settings = kind.parse(sys.argv[1:] if arguments is None else arguments)
        log.configure(settings.log_level, "text" if settings.log_format == "text" else "json")
        with asyncio.Runner(loop_factory=_loop_factory(settings.uvloop)) as runner:
            code = runner.run(_serve(settings, build))
            if code != EXIT_OK:
                _leave(code)
    except (SettingsError, ConfigError) as error:
        sys.stderr.write(f"{kind.program}: {error}\n")
        return EXIT_UNUSABLE
    return code


def _leave(code: int) -> NoReturn:
    """End the process without waiting for threads, which closing the loop would do."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


async def _serve(settings: S, build: Callable[[Service[S]], Awaitable[None]]) -> int:
    clock = SystemClock()
    connection = await config.load(settings.kubeconfig)
    agent = f"{settings.program}/{version()}"
    async with Client(connection, user_agent=agent) as client, Client(connection, user_agent=agent) as lease_client:
        elector = None
        guarded = client
        if settings.leader_election:
            where = lease_namespace(settings)
            elector = LeaderElector(lease_client, where, settings.program, clock=clock, timing=timing(settings))
            guarded = client.guarded(elector.check)
        manager = Manager(settings.bind_address, elector=elector, clock=clock)
        _LOG.info("Starting", program=settings.program, version=version(), server=connection.url)
        await build(Service(settings, manager, guarded, client, clock))
        return await manager.run()


def timing(settings: Settings) -> Timing:
    """Return the election's times; `SettingsError` when two processes could lead with them."""
    try:
        return Timing(settings.lease_duration, settings.renew_deadline, settings.retry_period)
    except ValueError as error:
        raise SettingsError(str(error)) from None


def lease_namespace(settings: Settings, pod_namespace: Path = _POD_NAMESPACE) -> str:
    """Return where the Lease lives: as configured, else where the pod is, else `default`."""
    if settings.lease_namespace:
        return settings.lease_namespace
    try:
        return pod_namespace.read_text(encoding="utf-8").strip() or "default"
    except OSError:
        return "default"


def _loop_factory(wanted: bool | None) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's factory, or None for asyncio's own; `SettingsError` when it was asked for and is missing."""
    if wanted is False:
        return None
    try:
        import uvloop  # noqa: PLC0415 - an optional extra
    except ImportError:
        if wanted:
            raise SettingsError("--uvloop: uvloop is not installed: install groundwork[uvloop]") from None
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
