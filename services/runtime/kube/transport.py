"""The verbs of the Kubernetes API on typed objects, each one a single guarded call.

Responsible for: paths, queries, bodies and types of get, list, create, update, patch, delete and watch.
Invariants: every call has a timeout. A PUT carries a resourceVersion. Nothing is retried here except a refused
credential: whether a failure is worth another try is the caller's knowledge. Writes of a guarded client ask for
permission right before they are sent, each time.
Must not know: stores, leases, what an object means.
"""

from __future__ import annotations

import copy
from enum import Enum
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlencode

import msgspec
from msgspec.structs import force_setattr

from services.runtime.kube.errors import Gone, Unreadable, from_status
from services.runtime.kube.objects import (
    KubeObject,
    ObjectList,
    WatchEvent,
    decode,
    decode_event,
    decode_page,
    encode,
)
from services.runtime.kube.wire import DEFAULT_TIMEOUT, JSON, Wire

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from typing_extensions import TypeVar

    from services.runtime.kube.config import Connection
    from services.runtime.kube.resource import Resource

    Obj = TypeVar("Obj", bound=KubeObject, default=KubeObject)
    T = TypeVar("T")

PAGE = 500
LIST_RESTARTS = 3
LIST_TIMEOUT = 30.0
"""Seconds for one page, at least: a server under load queues lists for longer than anything else."""
METADATA_LIST = f"{JSON};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,{JSON}"
METADATA = f"{JSON};as=PartialObjectMetadata;g=meta.k8s.io;v=v1,{JSON}"


class PatchKind(Enum):
    """How a patch is to be read; the value is its media type. APPLY is server-side apply and takes JSON too."""

    JSON = "application/json-patch+json"
    MERGE = "application/merge-patch+json"
    APPLY = "application/apply-patch+yaml"


class Client:
    """The API server as an async context manager; see `services.runtime.kube.errors` for what every call may raise.

    `user_agent` names the program: up to the first slash it is also the field manager of its writes. `timeout` is in
    seconds, for a whole call.
    """

    def __init__(
        self, connection: Connection, *, user_agent: str = "groundwork", timeout: float = DEFAULT_TIMEOUT
    ) -> None:
        self._wire = Wire(connection, user_agent, timeout)
        self._check: Callable[[], None] | None = None

    async def __aenter__(self) -> Self:
        """Open the session."""
        await self._wire.__aenter__()
        return self

    async def __aexit__(self, *exception: object) -> None:
        """Close the session."""
        await self._wire.__aexit__(*exception)

    def guarded(self, check: Callable[[], None]) -> Client:
        """Return a view on the same session whose writes call `check` first; it raises (NotLeader) to refuse them."""
        view = copy.copy(self)
        view._check = check  # noqa: SLF001 - a copy of ourselves
        return view

    # -- reading -------------------------------------------------------------------------------------------------------

    async def get(self, resource: Resource, name: str, namespace: str = "", *, as_: type[Obj] = KubeObject) -> Obj:  # type: ignore[assignment]  # Obj's default
        """Return one object."""
        path = resource.path(namespace, name)
        return understood(decode, await self._wire.send("GET", path), as_, path)

    async def list(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        as_: type[Obj] = KubeObject,  # type: ignore[assignment]  # Obj's default
        metadata_only: bool = False,
        known: Callable[[Obj], Obj] | None = None,
    ) -> ObjectList[Obj]:
        """Return all objects of a namespace, or of all namespaces, as one consistent snapshot.

        Read in pages. When the snapshot expires on the way the list starts again, a few times, and then raises Gone.
        `known` may give an equal object in place of each new one, so that a page of known objects costs no memory.
        """
        path = resource.path(namespace)
        query = _selectors(label_selector, field_selector)
        accept = METADATA_LIST if metadata_only else JSON
        for attempt in range(LIST_RESTARTS + 1):
            try:
                return await self._list(resource, path, query, accept, as_, known)
            except Gone:
                if attempt == LIST_RESTARTS:
                    raise
        raise AssertionError("unreachable")

    async def _list(
        self,
        resource: Resource,
        path: str,
        query: dict[str, str],
        accept: str,
        as_: type[Obj],
        known: Callable[[Obj], Obj] | None,
    ) -> ObjectList[Obj]:
        items: list[Obj] = []
        timeout = max(self._wire.timeout, LIST_TIMEOUT)
        parameters = {"limit": str(PAGE), **query}
        while True:
            data = await self._wire.send("GET", f"{path}?{urlencode(parameters)}", accept=accept, timeout=timeout)
            page = understood(decode_page, data, as_, path)
            for item in page.items or ():
                if not item.kind:
                    force_setattr(item, "kind", resource.kind)
                    force_setattr(item, "apiVersion", resource.api_version)
                items.append(item if known is None else known(item))
            if not page.metadata.continue_:
                return ObjectList(items, page.metadata.resourceVersion)
            parameters["continue"] = page.metadata.continue_

    async def watch(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        resource_version: str,
        timeout_seconds: int,
        label_selector: str = "",
        field_selector: str = "",
        metadata_only: bool = False,
        opened: Callable[[], None] | None = None,
    ) -> AsyncGenerator[WatchEvent, None]:
        """Stream what happened after `resource_version`, bookmarks included, until the server ends it.

        `opened` is called once the server has accepted the watch, which may be long before the first row. An error row
        raises ApiError (Gone when the version is too old). Nothing here notices a stalled connection.
        """
        query = {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(timeout_seconds),
            **_selectors(label_selector, field_selector),
        }
        path = f"{resource.path(namespace)}?{urlencode(query)}"
        lines = self._wire.lines(path, accept=METADATA if metadata_only else JSON, opened=opened)
        try:
            async for line in lines:
                event = decode_event(line)
                if event.type == "ERROR":
                    raise from_status(0, event.object)
                yield event
        finally:
            await lines.aclose()

    # -- writing -------------------------------------------------------------------------------------------------------

    async def create(self, resource: Resource, obj: Obj) -> Obj:
        """Create `obj` and return it as the server stored it. AlreadyExists when the name is taken."""
        if resource.namespaced and not obj.metadata.namespace:
            raise ValueError(f"{resource.kind} {obj.metadata.name} is namespaced: a namespace is needed")
        return await self._write("POST", resource.path(obj.metadata.namespace), obj)

    async def update(self, resource: Resource, obj: Obj) -> Obj:
        """Replace the object except its status and return it. Conflict unless `obj` is the server's newest state."""
        return await self._write("PUT", resource.path(obj.metadata.namespace, _versioned(obj)), obj)

    async def update_status(self, resource: Resource, obj: Obj) -> Obj:
        """Replace the status of the object and return it. Conflict unless `obj` is the server's newest state."""
        return await self._write("PUT", resource.path(obj.metadata.namespace, _versioned(obj), "status"), obj)

    async def _write(self, method: str, path: str, obj: Obj) -> Obj:
        return understood(decode, await self._wire.send(method, path, encode(obj), check=self._check), type(obj), path)

    async def patch(
        self,
        resource: Resource,
        name: str,
        namespace: str,
        body: Any,
        *,
        kind: PatchKind,
        subresource: str = "",
        field_manager: str = "",
        force: bool = False,
        as_: type[Obj] = KubeObject,  # type: ignore[assignment]  # Obj's default
    ) -> Obj:
        """Patch one object and return it; `body` is JSON bytes or anything that encodes to it.

        APPLY needs a `field_manager` (ValueError) and may `force` its way over other managers' fields.
        """
        path = resource.path(namespace, name, subresource)
        query = {"fieldManager": field_manager} if field_manager else {}
        if kind is PatchKind.APPLY:
            if not field_manager:
                raise ValueError("server-side apply needs a field manager")
            query["force"] = "true" if force else "false"
        if query:
            path = f"{path}?{urlencode(query)}"
        content = body if isinstance(body, bytes) else encode(body)
        answer = await self._wire.send("PATCH", path, content, content_type=kind.value, check=self._check)
        return understood(decode, answer, as_, path)

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str = "",
        *,
        uid: str | None = None,
        resource_version: str | None = None,
        as_: type[Obj] = KubeObject,  # type: ignore[assignment]  # Obj's default
    ) -> Obj | None:
        """Delete one object, only if it has that uid and resourceVersion (else Conflict).

        Returns the object when it is still there, waiting for finalizers or its grace period; None when it is gone.
        """
        preconditions = {"uid": uid, "resourceVersion": resource_version}
        given = {key: value for key, value in preconditions.items() if value is not None}
        body = encode({"preconditions": given}) if given else None
        path = resource.path(namespace, name)
        answer = understood(decode, await self._wire.send("DELETE", path, body, check=self._check), as_, path)
        return None if answer.kind == "Status" or not answer.deleting or answer.finalized else answer

    async def raw(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - handed on as one timer for the exchange
    ) -> bytes:
        """Send anything; `path` is encoded already and includes the query. GET and HEAD count as reading."""
        check = None if method in {"GET", "HEAD"} else self._check
        return await self._wire.send(method, path, body, timeout=timeout, extra=headers, check=check)


def understood(read: Callable[[bytes, type[Obj]], T], answer: bytes, type_: type[Obj], path: str) -> T:
    """Return `read(answer, type_)`. Raises Unreadable for an answer that is no JSON, which is of no API server.

    JSON that does not fit the type is an object unlike its definition, and raises msgspec.ValidationError.
    """
    try:
        return read(answer, type_)
    except msgspec.ValidationError:
        raise
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Unreadable(f"{path.partition('?')[0]}: {error}") from error


def _selectors(label_selector: str, field_selector: str) -> dict[str, str]:
    pairs = {"labelSelector": label_selector, "fieldSelector": field_selector}
    return {key: value for key, value in pairs.items() if value}


def _versioned(obj: KubeObject) -> str:
    if not obj.metadata.resourceVersion:
        raise ValueError(f"{obj.kind} {obj.key}: an update without resourceVersion would overwrite what others wrote")
    return obj.metadata.name
