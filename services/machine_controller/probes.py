"""Whether vCenters answer, found out beside the workers, so that one that hangs holds up nobody but its own objects.

Responsible for: one question to each vCenter at a time, whoever wants to know, and waking those when it was answered.
Invariants: nobody waits here. What was found out is for the look that asked, and forgotten when that is over. The
objects of a namespace, which may name any number of servers, have a limited number of questions under way, and wait
for one another's alone.
Must not know: what a key is, what follows from an answer.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.machine_controller.vsphere.session import About
    from services.machine_controller.vsphere.vcenter import VCenter
    from services.runtime.kube.objects import ObjectKey

AT_ONCE: Final = 32
"""Questions under way for one namespace: each has a thread and a socket."""


class Probes:
    """Those of one kind of objects; belongs to the event loop. `wake` queues an object."""

    def __init__(self, wake: Callable[[ObjectKey], None]) -> None:
        self._wake = wake
        self._under_way: dict[VCenter, set[ObjectKey]] = {}
        """Who wants to know."""
        self._asking: dict[ObjectKey, VCenter] = {}
        self._found: dict[ObjectKey, dict[VCenter, About | Exception]] = {}
        self._turns: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._tasks: set[asyncio.Task[None]] = set()

    def outcome(self, key: ObjectKey, vcenter: VCenter) -> About | None:
        """Return what a vCenter says of itself; None while it is asked, after which the object is woken.

        Raises VSphereError where it did not answer.
        """
        found = self._found.get(key, {}).get(vcenter)
        if isinstance(found, Exception):
            raise found.with_traceback(None)
        if found is not None:
            return found
        self._asking[key] = vcenter
        if (waiting := self._under_way.get(vcenter)) is not None:
            waiting.add(key)
            return None
        waiting = self._under_way[vcenter] = {key}
        task = asyncio.create_task(self._ask(vcenter, key.namespace, waiting))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return None

    def done(self, key: ObjectKey) -> None:
        """Say that an object was looked at: what was found out is forgotten, unless it waits to know more."""
        if key not in self._asking:
            self._found.pop(key, None)

    def forget(self) -> None:
        """Ask anew, as with other credentials; who waits is woken by the answer to the old question all the same."""
        self._under_way.clear()
        self._found.clear()

    async def _ask(self, vcenter: VCenter, namespace: str, waiting: set[ObjectKey]) -> None:
        turn = self._turns.setdefault(namespace, asyncio.Semaphore(AT_ONCE))
        answer: About | Exception
        try:
            async with turn:
                answer = await vcenter.check()
        except Exception as error:  # noqa: BLE001 - it is raised where it was asked for
            answer = error
        asked_anew = self._under_way.get(vcenter) is not waiting
        if not asked_anew:
            del self._under_way[vcenter]
        for key in waiting:
            if asked_anew:
                self._wake(key)
            elif self._asking.get(key) is vcenter:
                del self._asking[key]
                self._found.setdefault(key, {})[vcenter] = answer
                self._wake(key)
