"""Reading one thing from the API server, so that nothing that goes wrong with it goes further.

Responsible for: a limit in time for each read, how many go on at a time, counting before listing, and turning what the
server refuses into a value.
Invariants: only a server that cannot be reached raises (ConnectionFailed, Unauthorized), since then nothing can be
read. A list is read only when it is known to be of at most `limit` objects, page by page.
Must not know: what is read.
"""

from __future__ import annotations

import asyncio
import functools
import json
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlencode

import msgspec

from services.console import UnusableError
from services.doctor.seen import Unread, Why
from services.runtime.kube.errors import ApiError, Forbidden, NotFound, RequestTimeout, Unauthorized, Unreadable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from services.console import Progress
    from services.runtime.kube.objects import KubeObject
    from services.runtime.kube.resource import Resource
    from services.runtime.kube.transport import Client

    T = TypeVar("T")

_AT_A_TIME = 16
_METADATA = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"


class Reader:
    """One API server, read with care."""

    def __init__(self, client: Client, progress: Progress, limit: int) -> None:
        self.client = client
        self._progress = progress
        self._limit = limit
        self._turns = asyncio.Semaphore(_AT_A_TIME)
        self.unread: list[Unread] = []
        """Everything that was not read, but for what is not there."""

    async def attempt(self, what: str, read: Callable[[], Awaitable[T]]) -> T | Unread:
        """Return what `read` returns, or why there is nothing; `what` names it for people."""
        async with self._turns:
            self._progress.step(f"reading {what}")
            try:
                return await read()
            except Unauthorized:
                raise
            except (NotFound, UnusableError) as error:  # the latter says that definitions are missing
                return Unread(what, Why.UNSERVED, str(error))
            except Forbidden as error:
                return self._note(what, Why.FORBIDDEN, error.message)
            except (ApiError, RequestTimeout, Unreadable, msgspec.MsgspecError, ValueError) as error:
                return self._note(what, Why.FAILED, " ".join(str(error).split()))

    def _note(self, what: str, why: Why, message: str) -> Unread:
        unread = Unread(what, why, message)
        self.unread.append(unread)
        return unread

    async def document(self, path: str) -> Any:
        """Return one answer as plain JSON. Raises what a Client raises."""
        return json.loads(await self.client.raw("GET", path))

    async def find(self, resource: Resource, name: str, namespace: str = "") -> Any | Unread | None:
        """Return one object as plain JSON, None when there is none."""
        found = await self.attempt(str(resource), lambda: self.document(resource.path(namespace, name)))
        return None if isinstance(found, Unread) and found.why is Why.UNSERVED else found

    async def plain(self, resource: Resource, namespace: str = "", *, label_selector: str = "") -> list[Any] | Unread:
        """List objects as plain JSON; for what there are few of."""

        async def read() -> list[Any]:
            query = {"limit": "500", **({"labelSelector": label_selector} if label_selector else {})}
            items: list[Any] = []
            while True:
                page = await self.document(f"{resource.path(namespace)}?{urlencode(query)}")
                items += page.get("items") or ()
                going_on = page["metadata"].get("continue")
                if not going_on:
                    return items
                query["continue"] = going_on

        return await self.attempt(str(resource), read)

    async def list(self, resource: Resource) -> tuple[KubeObject, ...] | Unread:
        """List all objects, unless there are too many to be read for this."""
        found = await self.few(resource)
        if found is not None:
            return found

        async def read() -> tuple[KubeObject, ...]:
            return tuple((await self.client.list(resource)).items)

        return await self.attempt(str(resource), read)

    async def few(self, *resources: Resource) -> Unread | None:
        """Return None when there are not too many objects of each to be read for this, else why not."""
        for resource in resources:
            count = await self.attempt(str(resource), functools.partial(self._count, resource))
            if isinstance(count, Unread):
                return count
            if count > self._limit:
                return self._note(str(resource), Why.TOO_MANY, f"there are {count}, more than --limit {self._limit}")
        return None

    async def _count(self, resource: Resource) -> int:
        """Ask for one object's metadata, and how many others there are."""
        body = await self.client.raw("GET", f"{resource.path()}?limit=1", headers={"Accept": _METADATA})
        page = json.loads(body)
        return len(page.get("items") or ()) + int(page["metadata"].get("remainingItemCount") or 0)
