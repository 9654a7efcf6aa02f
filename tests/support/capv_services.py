"""The allocator and the integrator inside the test's own event loop: started in a moment, stopped, or cut off.

Responsible for: what `services.runtime.main` does for a process, without the process. Tests that are about the death of
a process start one instead: `Integrator`.
Invariant: what a service logs as its own mistake fails the test.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from contextlib import asynccontextmanager

from services.capv_integrator import service as integrator
from services.capv_integrator.settings import IntegratorSettings
from services.ipam import service as ipam
from services.ipam.settings import IpamSettings
from services.runtime.clock import SystemClock
from services.runtime.kube import config
from services.runtime.main import Service
from services.runtime.manager import Manager
from tests.support import accounts
from tests.support.capv_witness import Watched, Witness
from tests.support.service import ServiceProcess


class Integrator(ServiceProcess):
    """`python -m services.capv_integrator` against one cluster; `flags` are added to its command line."""

    module = "services.capv_integrator"


class InProcess:
    """One service. `settings` are those of its command line that differ from the default.

    With an administrator's kubeconfig it runs under its account of the chart.
    """

    def __init__(self, module, kind, kubeconfig, **settings):
        self.witness = Witness()
        """Sees what it writes; may be replaced while it is stopped or running."""
        self._module = module
        self._client = None
        account = accounts.for_service(kubeconfig, kind.program.removeprefix("groundwork-"))
        self._settings = kind(leader_election=False, kubeconfig=str(account), uvloop=False, **settings)
        self._task = None
        self._manager = None

    @classmethod
    def allocator(cls, kubeconfig, namespaces, **settings):
        return cls(ipam, IpamSettings, kubeconfig, watch_namespace=tuple(namespaces), **settings)

    @classmethod
    def integrator(cls, kubeconfig, namespaces, **settings):
        return cls(integrator, IntegratorSettings, kubeconfig, watch_namespace=tuple(namespaces), **settings)

    @property
    def running_now(self):
        return self._task is not None

    async def start(self):
        """Return when it is ready."""
        clock = SystemClock()
        self._manager = Manager(None, clock=clock, drain_seconds=5.0, abandon=_refuse_to_exit)
        ready = asyncio.Event()

        async def tell():
            ready.set()

        self._manager.add_runnable("ready", tell, needs_leader=True)
        self._task = asyncio.create_task(self._run(self._manager, clock))
        waiter = asyncio.create_task(ready.wait())
        await asyncio.wait({waiter, self._task}, return_when=asyncio.FIRST_COMPLETED)
        waiter.cancel()
        assert not self._task.done(), self._task

    async def stop(self):
        """End it as SIGTERM does."""
        self._manager.stop("the test")
        assert await self._task == 0
        self._task = None

    async def cut_off(self):
        """End it in the middle of whatever it does: nothing is drained, answers that are on their way are lost."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._task = None

    def watch(self, witness):
        """Let a witness see its writes from now on."""
        self.witness = witness
        if self._client is not None:
            self._client.witness = witness
        return witness

    async def restart(self):
        await self.cut_off()
        await self.start()

    @asynccontextmanager
    async def running(self):
        """Run for the body of the `with`; the body may stop and start it."""
        await self.start()
        try:
            yield self
        finally:
            if self._task is not None:
                await self.stop()

    async def _run(self, manager, clock):
        agent = f"{self._settings.program}/test"
        async with Watched(await config.load(self._settings.kubeconfig), user_agent=agent) as client:
            client.witness = self.witness
            self._client = client
            await self._module.build(Service(self._settings, manager, client, client, clock))
            return await manager.run()


def _refuse_to_exit(code):
    raise AssertionError(f"parts did not end: the process would have left with {code}")


class Mistakes(logging.Handler):
    """What services log as errors: a healthy one never does."""

    def __init__(self):
        super().__init__(logging.ERROR)
        self.records = []

    def emit(self, record):
        if record.name != "asyncio":
            self.records.append(f"{record.name}: {record.getMessage()} {getattr(record, 'groundwork_fields', '')}")

    @contextlib.contextmanager
    def watching(self):
        logging.getLogger().addHandler(self)
        try:
            yield self
        finally:
            logging.getLogger().removeHandler(self)
