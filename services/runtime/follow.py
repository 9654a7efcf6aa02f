"""How a service follows the objects that it works from.

Responsible for: one reflector for each watched namespace of a resource, of whichever version is served.
Invariant: with `--watch-namespace` nothing of another namespace is read; what is not namespaced is followed whole.
Must not know: what the objects are for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from services.runtime.cache.reflector import Reflector

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from services.runtime.cache.store import Store
    from services.runtime.kube.discovery import Discovery
    from services.runtime.kube.objects import KubeObject
    from services.runtime.kube.resource import Resource
    from services.runtime.main import Service


class Follower:
    """Adds reflectors to a service. `served` is told, for each store by name, which candidate the server has."""

    def __init__(
        self,
        service: Service[Any],
        discovery: Discovery,
        served: Callable[[str, Resource | None], None] | None = None,
    ) -> None:
        self._service = service
        self._discovery = discovery
        self._served = served

    def follow(
        self,
        store: Store[KubeObject],
        candidates: Sequence[Resource],
        *,
        label_selector: str = "",
        metadata_only: bool = False,
    ) -> None:
        """Fill a store with the objects of the first of the candidates, the preferred first, that is served."""

        async def choose() -> Resource | None:
            resource = await self._discovery.pick(candidates)
            if self._served is not None:
                self._served(store.name, resource)
            return resource

        watched = self._service.settings.watch_namespace if candidates[0].namespaced else ()
        for namespace in watched or ("",):
            self._service.manager.add_reflector(
                Reflector(
                    self._service.unguarded,
                    choose,
                    store,
                    clock=self._service.clock,
                    namespace=namespace,
                    label_selector=label_selector,
                    metadata_only=metadata_only,
                    discovery=self._discovery,
                )
            )
