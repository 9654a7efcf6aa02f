"""From a service's `__main__` to its exit code, so that a service only says what it consists of.

Responsible for: reading the settings, logging, the event loop, the connection to the API server, the Lease, and handing
all that to the service as a `Service` to add its parts to.

With `--processes` this process starts others with the same command line: they build the same service, but never lead,
write nothing and answer no probes (`services.runtime.processes`).

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
import signal
import sys
from typing import TYPE_CHECKING, Final, Generic, NoReturn, TypeVar

from services.runtime import log, metrics, processes
from services.runtime.clock import Clock, SystemClock
from services.runtime.health import ListenError
from services.runtime.kube import config
from services.runtime.kube.errors import ConfigError, NotLeader
from services.runtime.kube.transport import Client
from services.runtime.leader import LeaderElector
from services.runtime.leader_decide import Timing
from services.runtime.listener import bind
from services.runtime.manager import EXIT_OK, EXIT_UNUSABLE, Manager
from services.runtime.settings import Settings, SettingsError, WebhookSettings, version

if TYPE_CHECKING:
    import socket
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
    """The same session for writes that need no leadership, such as events and certificates. Not the first: no writes.
    """
    clock: Clock
    namespace: str = "default"
    """Where the Lease is, and everything else that belongs to the service itself."""
    first: bool = True
    """False in a process that only shares the webhook's work: it leads nothing and must not write."""
    listener: socket.socket | None = None
    """The webhook's bound socket when several processes share it; None when the webhook is to bind its own."""


def run(kind: type[S], build: Callable[[Service[S]], Awaitable[None]], arguments: Sequence[str] | None = None) -> int:
    """Run a service until it is told to stop and return its exit code: 0 stopped, 1 failed, 2 cannot be configured.

    `build` adds reflectors, controllers and the rest to `service.manager`. It waits for the API server only where the
    answer decides whether the service may run at all: no probe is answered meanwhile. The settings' `program` names the
    service in messages, as the user agent and as the Lease.
    """
    _end_when_told()
    try:
        settings = kind.parse(sys.argv[1:] if arguments is None else arguments)
        log.configure(settings.log_level, "text" if settings.log_format == "text" else "json")
        with asyncio.Runner(loop_factory=_loop_factory(settings.uvloop)) as runner:
            code = runner.run(_serve(settings, build))
            if code != EXIT_OK:
                _leave(code)
    except (SettingsError, ConfigError, ListenError) as error:
        sys.stderr.write(f"{kind.program}: {error}\n")
        return EXIT_UNUSABLE
    return code


def _end_when_told() -> None:
    """End at once on a signal, until the manager stops in order instead: nothing is held yet that must be given back.

    The first process of a container gets no signal that it has no handler for, and would be killed half a minute later.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(EXIT_OK))


def _leave(code: int) -> NoReturn:
    """End the process without waiting for threads, which closing the loop would do."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


async def _serve(settings: S, build: Callable[[Service[S]], Awaitable[None]]) -> int:
    inherited = processes.inherited()
    connection = await config.load(settings.kubeconfig)
    agent = f"{settings.program}/{version()}"
    async with Client(connection, user_agent=agent) as client, Client(connection, user_agent=agent) as lease_client:
        if inherited is None:
            service = _first(settings, client, lease_client)
        else:
            log.set_context({"process": inherited.number})
            service = _other(settings, client, inherited)
        _LOG.info("Starting", program=settings.program, version=version(), server=connection.url)
        await build(service)
        return await service.manager.run()


def _first(settings: S, client: Client, lease_client: Client) -> Service[S]:
    """Return the service of the process that was started from outside."""
    clock = SystemClock()
    elector = None
    guarded = client
    namespace = lease_namespace(settings)
    if settings.leader_election:
        elector = LeaderElector(lease_client, namespace, settings.program, clock=clock, timing=timing(settings))
        guarded = client.guarded(elector.check)
    manager = Manager(settings.bind_address, elector=elector, clock=clock)
    listener = None
    if isinstance(settings, WebhookSettings) and settings.processes > 1:
        listener = bind(settings.webhook_address)
        supervisor = processes.Supervisor(settings.processes - 1, listener, clock)
        metrics.combine_with(supervisor.combine)
        manager.add_runnable("processes", supervisor.run, needs_leader=False, needs_caches=False)
        manager.add_drain("processes", supervisor.drain)
        manager.add_readiness("processes", supervisor.check)
    return Service(settings, manager, guarded, client, clock, namespace, listener=listener)


def _other(settings: S, client: Client, inherited: processes.Inherited) -> Service[S]:
    """Return the service of a process that another one has started."""
    clock = SystemClock()
    manager = Manager(None, clock=clock, leads=False)
    reporter = processes.Reporter(inherited.channel, manager.problems, manager.stop)
    manager.add_runnable("reporter", reporter.run, needs_leader=False, needs_caches=False)
    listener = inherited.listener
    read_only = client.guarded(_refuse)
    return Service(
        settings, manager, read_only, read_only, clock, lease_namespace(settings), first=False, listener=listener
    )


def _refuse() -> None:
    raise NotLeader("only the first process writes")


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
