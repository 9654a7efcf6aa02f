"""Leader election on a coordination.k8s.io/v1 Lease: one of several replicas works, the others stand by.

Responsible for: reading and writing the Lease on the rules of `leader_decide`, and for `check`, which is asked before
every write of the service (`Client.guarded`). The Lease's fields are those of client-go's lock, so processes of both
kinds may compete for one.

Invariants: `check` looks at the time when it is called, not at what the election loop last concluded: a process that
was stopped and continued refuses its first write. Every call has a timeout that ends before the renew deadline. No
error of the network or the API server, and no answer of something else in its place, ends the election; only the loss
of leadership does, and that is final for this object.

Must not know: what leadership is for.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import time
from typing import TYPE_CHECKING, Final

from msgspec import MsgspecError
from msgspec.structs import replace

from services.runtime import leader_decide as rules
from services.runtime import log, metrics
from services.runtime.clock import Clock, SystemClock
from services.runtime.kube import errors, objects
from services.runtime.kube.resource import Resource

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.runtime.kube.transport import Client

__all__ = ["LEASES", "LeaderElector", "identity"]

LEASES: Final = Resource("coordination.k8s.io", "v1", "leases", "Lease", namespaced=True)

_RELEASE_SECONDS: Final = 3.0
_RELEASE_TRIES: Final = 2
_LOG: Final = log.get("leader")
_MASTER = metrics.gauge(
    "leader_election_master_status",
    "Gauge of if the reporting system is master of the relevant lease, 0 indicates backup, 1 indicates master.",
    ("name",),
)


def identity() -> str:
    """Return a name for this process that no other has ever had: after a restart, the old one's Lease must expire."""
    return f"{socket.gethostname()}_{os.urandom(8).hex()}"


class LeaderElector:
    """Competes for one Lease: `run` in a task, `wait_leading`, then work until `lost`."""

    def __init__(
        self,
        client: Client,
        namespace: str,
        name: str,
        holder: str | None = None,
        clock: Clock | None = None,
        *,
        timing: rules.Timing | None = None,
    ) -> None:
        """Make an elector for the Lease `namespace/name`; `holder` must be unique among all processes ever started."""
        self._client = client
        self._namespace = namespace
        self._name = name
        self._clock = clock or SystemClock()
        self._elapsed = _elapsed(self._clock)
        self._known = rules.Knowledge(holder or identity(), timing or rules.Timing())
        self._lease: objects.KubeObject | None = None
        self._leading = asyncio.Event()
        self._announced: str | None = None
        self.lost = asyncio.Event()
        """Set when leadership is lost; the process must end."""
        self._show_status = _MASTER.labels(name).set
        self._show_status(0)

    @property
    def identity(self) -> str:
        """What this process writes as the holder."""
        return self._known.identity

    @property
    def is_leader(self) -> bool:
        """Whether this process may act as the leader now."""
        return rules.valid_for(self._known, self._elapsed()) > 0

    def check(self) -> None:
        """Raise `NotLeader` unless this process may act as the leader now. Costs about a microsecond."""
        if rules.valid_for(self._known, self._elapsed()) <= 0:
            raise errors.NotLeader(f"the lease {self._namespace}/{self._name} is not held, or could not be renewed")

    async def wait_leading(self) -> None:
        """Wait until the Lease was won for the first time."""
        await self._leading.wait()

    async def run(self) -> None:
        """Compete until leadership is lost; then set `lost` and return.

        A cancelled run leaves the Lease as it is: `release` is for the caller, once everything that writes has ended.
        """
        try:
            while rules.step(self._known, self._elapsed()) is not rules.Step.LOST:
                await self._try()
                await self._clock.sleep(rules.pause(self._known, self._elapsed(), random.random()))
        finally:
            self._show_status(0)
        holder = self._known.spec.holder_identity if self._known.spec is not None else None
        _LOG.error("Leadership is lost", lease=self._label, identity=self.identity, holder=holder)
        self.lost.set()

    async def release(self) -> None:
        """Give the Lease up if it is held, so that another process need not wait; never raises for want of a server.

        Call it after `run` was cancelled and everything that writes has ended; `check` fails from then on.
        """
        held = self.is_leader
        self._known = self._known.resigned().unsure()
        self._show_status(0)
        if not held:
            return
        try:
            async with asyncio.timeout(_RELEASE_SECONDS):
                for _ in range(_RELEASE_TRIES):
                    if await self._give_up():
                        return
        except (TimeoutError, errors.KubeError, MsgspecError) as error:
            _LOG.warning("The lease could not be released and has to expire", lease=self._label, error=error)

    @property
    def _label(self) -> str:
        return f"{self._namespace}/{self._name}"

    async def _try(self) -> None:
        """Do one step, reading first where that is needed; what an error leaves open is read next time."""
        if self._known.renewed is None:
            self._known = self._known.unsure()
        try:
            async with asyncio.timeout(rules.call_limit(self._known, self._elapsed())):
                try:
                    await self._step()
                except (errors.Conflict, errors.AlreadyExists) as error:
                    _LOG.debug("Somebody else wrote the lease first", lease=self._label, error=error)
                    self._known = self._known.unsure()
                    await self._step()  # a leader that was replaced must know at once
        except (TimeoutError, errors.KubeError, MsgspecError, OSError) as error:
            self._known = self._known.unsure()
            left = round(rules.valid_for(self._known, self._elapsed()), 1)
            if self._known.renewed is not None:
                _LOG.warning("The lease could not be renewed", lease=self._label, error=error, seconds_left=left)
            else:
                _LOG.warning("The lease could not be read or taken", lease=self._label, error=error)

    async def _step(self) -> None:
        if rules.step(self._known, self._elapsed()) is rules.Step.READ:
            await self._read()
        step = rules.step(self._known, self._elapsed())
        if step in {rules.Step.CREATE, rules.Step.TAKE, rules.Step.RENEW}:
            await self._write(step)

    async def _read(self) -> None:
        try:
            lease = await self._client.get(LEASES, self._name, self._namespace)
        except errors.NotFound:
            self._lease = None
            self._known = self._known.found(None, "", self._elapsed())
            return
        self._lease = lease
        spec = objects.view(lease.spec, rules.LeaseSpec)
        self._known = self._known.found(spec, lease.metadata.resourceVersion, self._elapsed())
        if spec.holder_identity not in {self._announced, self.identity}:
            self._announced = spec.holder_identity
            _LOG.info(
                "The lease is held by another process", lease=self._label, holder=spec.holder_identity or "nobody"
            )

    async def _write(self, step: rules.Step) -> None:
        first = self._known.renewed is None
        spec = rules.claim(self._known, self._clock.now())
        sent = self._elapsed()  # before the request: others may count from any moment after this one
        if step is rules.Step.CREATE:
            meta = objects.ObjectMeta(name=self._name, namespace=self._namespace)
            lease = objects.KubeObject(
                apiVersion=LEASES.api_version, kind=LEASES.kind, metadata=meta, spec=objects.raw(spec)
            )
            written = await self._client.create(LEASES, lease)
        else:
            assert self._lease is not None
            written = await self._client.update(LEASES, replace(self._lease, spec=objects.raw(spec)))
        self._lease = written
        self._known = self._known.wrote(
            objects.view(written.spec, rules.LeaseSpec), written.metadata.resourceVersion, sent
        )
        if first:
            _LOG.info("Became the leader", lease=self._label, identity=self.identity, step=step)
            self._show_status(1)
            self._leading.set()

    async def _give_up(self) -> bool:
        """Write the release, guarded by the resourceVersion; return whether there is nothing more to do."""
        if self._lease is None:
            await self._read()
        lease = self._lease
        known = self._known
        if lease is None or known.spec is None or known.spec.holder_identity != self.identity:
            return True
        spec = rules.release(known, self._clock.now())
        try:
            await self._client.update(LEASES, replace(lease, spec=objects.raw(spec)))
        except errors.Conflict:
            # A renewal of ours was under way when the election was cancelled, or somebody touched the object.
            self._lease = None
            return False
        _LOG.info("Released the lease", lease=self._label, identity=self.identity)
        return True


def _elapsed(clock: Clock) -> Callable[[], float]:
    """Return the clock that leadership is measured with.

    A lease runs on while this machine is suspended: CLOCK_MONOTONIC stops then, CLOCK_BOOTTIME (Linux) does not.
    """
    if isinstance(clock, SystemClock) and hasattr(time, "CLOCK_BOOTTIME"):
        return lambda: time.clock_gettime(time.CLOCK_BOOTTIME)
    return clock.monotonic
