"""How many clones run at once in a vCenter: each copies disks, and more of them make all of them slower.

Invariants: a clone that runs already (found after a restart) always gets a slot, so that what runs is what is counted.
Who was refused is woken in the order in which they asked when a slot is free; one that was woken and has no use for it
any more passes it on. A machine that is left alone, such as one that is paused, has none once no clone of its runs.
Must not know: what a clone is of.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from services.machine_controller import metrics

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.machine_controller.vsphere.values import Server
    from services.runtime.kube.objects import ObjectKey


class Slots:
    """`limit` for each vCenter; `wake` queues a machine."""

    def __init__(self, limit: int, wake: Callable[[ObjectKey], None]) -> None:
        self._limit = limit
        self._wake = wake
        self._running: dict[Server, set[ObjectKey]] = {}
        self._waiting: dict[Server, dict[ObjectKey, None]] = {}
        self._woken: dict[ObjectKey, Server] = {}

    def free(self, server: Server, key: ObjectKey) -> bool:
        """Whether a machine may start a clone."""
        running = self._running.get(server, set())
        return key in running or len(running) < self._limit

    def wait(self, server: Server, key: ObjectKey) -> None:
        """Have a machine woken when it may."""
        self._waiting.setdefault(server, {})[key] = None

    def take(self, server: Server, key: ObjectKey) -> None:
        """Count a clone."""
        self._running.setdefault(server, set()).add(key)
        self._waiting.get(server, {}).pop(key, None)
        self._woken.pop(key, None)
        self._count(server)

    def give(self, key: ObjectKey) -> None:
        """End a machine's clone, if it has one, and its wait."""
        for waiting in self._waiting.values():
            waiting.pop(key, None)
        for server, running in self._running.items():
            if key in running:
                running.discard(key)
                self._count(server)
                self._next(server)

    def settle(self, key: ObjectKey) -> None:
        """Say that a machine was looked at: if it was woken and did not start a clone, the next one may."""
        server = self._woken.pop(key, None)
        if server is not None:
            self._next(server)

    def _next(self, server: Server) -> None:
        waiting = self._waiting.get(server, {})
        taken = len(self._running.get(server, ())) + sum(other == server for other in self._woken.values())
        for key in list(islice(waiting, max(0, self._limit - taken))):
            del waiting[key]
            self._woken[key] = server
            self._wake(key)

    def _count(self, server: Server) -> None:
        metrics.CLONES.labels(str(server)).set(len(self._running[server]))
