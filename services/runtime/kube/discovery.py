"""Which resources the server serves, asked once and asked again when that changes.

Responsible for: picking the first served version of a resource, and telling reflectors when a CustomResourceDefinition
came, went or changed, so that nothing has to poll for it.
Invariants: only a positive answer is remembered, and only until something changes or contradicts it. The definitions
themselves are never kept: they are large.
Must not know: which resources matter.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from msgspec import Struct

from services.runtime.cache.reflector import Reflector
from services.runtime.cache.store import Store
from services.runtime.kube.errors import NotFound
from services.runtime.kube.objects import KubeObject, decoder
from services.runtime.kube.resource import CUSTOM_RESOURCE_DEFINITIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from services.runtime.clock import Clock
    from services.runtime.kube.resource import Resource
    from services.runtime.kube.transport import Client


class _Version(Struct):
    version: str


class _Group(Struct):
    """meta/v1 APIGroup."""

    versions: list[_Version] | None = None


class _Served(Struct):
    name: str


class _ResourceList(Struct):
    """meta/v1 APIResourceList; a name with a slash is a subresource."""

    resources: list[_Served] | None = None


class Discovery:
    """What one API server serves. `run` watches for changes; answers come without it too, and without the right to."""

    def __init__(self, client: Client, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._plurals: dict[str, frozenset[str]] = {}
        self._changed = asyncio.Event()
        self._definitions: Reflector[KubeObject] | None = None
        self.generation = 0

    @property
    def live(self) -> bool:
        """Whether `run` follows the definitions right now, so that a change is noticed when it happens."""
        definitions = self._definitions
        return definitions is not None and definitions.store.synced and definitions.trouble is None

    async def served(self, group: str) -> set[str]:
        """Return the served versions of a group; none when the group is unknown. The core group is the empty string."""
        if not group:
            return {"v1"}
        try:
            body = await self._client.raw("GET", f"/apis/{group}")
        except NotFound:
            return set()
        found: _Group = decoder(_Group).decode(body)
        return {version.version for version in found.versions or ()}

    async def pick(self, candidates: Sequence[Resource]) -> Resource | None:
        """Return the first candidate that is served, plural and all, or None."""
        for candidate in candidates:
            if await self._serves(candidate):
                return candidate
        return None

    async def changed_since(self, generation: int) -> None:
        """Return once something has changed after `generation` was read; at once when it has already."""
        while self.generation == generation:
            await self._changed.wait()

    def forget(self) -> None:
        """Ask the server again from now on; nobody is told."""
        self._plurals.clear()

    async def run(self) -> None:
        """Watch the CustomResourceDefinitions until cancelled."""
        sink = _Definitions(self._advance)
        self._definitions = Reflector(
            self._client, CUSTOM_RESOURCE_DEFINITIONS, sink, clock=self._clock, metadata_only=True
        )
        await self._definitions.run()

    def _advance(self) -> None:
        self._plurals.clear()
        self.generation += 1
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _serves(self, resource: Resource) -> bool:
        if resource.plural in self._plurals.get(resource.root, ()):
            return True
        generation = self.generation
        try:
            body = await self._client.raw("GET", resource.root)
        except NotFound:
            return False
        found: _ResourceList = decoder(_ResourceList).decode(body)
        plurals = frozenset(served.name for served in found.resources or ())
        # An answer that was overtaken by a change is used once and not remembered.
        if generation == self.generation:
            self._plurals[resource.root] = plurals
        return resource.plural in plurals


class _Definitions(Store[KubeObject]):
    """A store that keeps nothing and passes on that something changed."""

    def __init__(self, changed: Callable[[], None]) -> None:
        super().__init__("customresourcedefinitions")
        self._changed = changed

    def replace(self, items: Iterable[KubeObject], resource_version: str, scope: str = "") -> None:
        """Pass on a list, which may hide any number of changes."""
        del items
        super().replace((), resource_version, scope)
        self._changed()

    def apply(self, type_: str, obj: KubeObject) -> None:
        """Pass on a change."""
        del type_, obj
        self._changed()
