"""Seeing every write of a service on its way: to act in between, or to end the service exactly there.

Responsible for: making races and crashes happen at a chosen point instead of by luck. Writes go to the real API server.
"""

from __future__ import annotations

import asyncio

from services.runtime.kube.resource import EVENTS
from services.runtime.kube.transport import Client


class Witness:
    """Told of each write before it is sent and after it was answered. Events do not count."""

    def __init__(self):
        self.writes = []
        """`verb plural`, in the order they were sent."""

    async def before(self, verb, resource, name):
        """Called before a write is sent."""

    async def after(self, verb, resource, name):
        """Called when the API server has carried it out, before the service knows."""


class Interfering(Witness):
    """Does something once, right before the first write of a kind is sent."""

    def __init__(self, verb, plural, act):
        super().__init__()
        self._wanted = (verb, plural)
        self._act = act
        self.done = asyncio.Event()

    async def before(self, verb, resource, name):
        if (verb, resource.plural) == self._wanted and not self.done.is_set():
            self.done.set()
            await self._act(name)


class Cutting(Witness):
    """Cuts the service off at its write number `at`, counted from 0: before it is sent, or before its answer counts.

    Writes in `passing`, as `verb plural`, are neither counted nor cut: those that come whenever the service has time.
    """

    def __init__(self, at, *, sent, passing=()):
        super().__init__()
        self._at = at
        self._sent = sent
        self._passing = passing
        self._count = 0
        self.write = None
        """The write that was cut."""
        self.cut = asyncio.Event()

    async def before(self, verb, resource, name):
        if not self._sent:
            await self._reach(f"{verb} {resource.plural}")

    async def after(self, verb, resource, name):
        if self._sent:
            await self._reach(f"{verb} {resource.plural}")

    async def _reach(self, write):
        if write in self._passing:
            return
        number, self._count = self._count, self._count + 1
        if number != self._at or self.cut.is_set():
            return
        self.write = write
        self.cut.set()
        await asyncio.Event().wait()  # until the service is ended


class Watched(Client):
    """A client whose writes a witness sees."""

    witness = Witness()

    async def create(self, resource, obj):
        return await self._seen("create", resource, obj.metadata.name, super().create(resource, obj))

    async def update(self, resource, obj):
        return await self._seen("update", resource, obj.metadata.name, super().update(resource, obj))

    async def update_status(self, resource, obj):
        return await self._seen("update status", resource, obj.metadata.name, super().update_status(resource, obj))

    async def patch(self, resource, name, namespace, body, **options):
        return await self._seen("patch", resource, name, super().patch(resource, name, namespace, body, **options))

    async def delete(self, resource, name, namespace="", **options):
        return await self._seen("delete", resource, name, super().delete(resource, name, namespace, **options))

    async def _seen(self, verb, resource, name, write):
        if resource == EVENTS:
            return await write
        try:
            await self.witness.before(verb, resource, name)
        except BaseException:
            write.close()
            raise
        self.witness.writes.append(f"{verb} {resource.plural}")
        answer = await write
        await self.witness.after(verb, resource, name)
        return answer
