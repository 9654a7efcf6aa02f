"""vCenter's credentials out of Secrets, read again whenever one changes.

A Secret that clusters name is followed by name (a watch with a field selector), so that the service needs the right to
see these Secrets and no others, and holds no others in memory.
Responsible for: following the Secrets that are in use, and what they say: `username`, `password`, optionally `ca.crt`
and `servers`, the only ones that they may be sent to.
Invariants: nothing of a password is in a log, a message or a repr. The last good credentials are kept while a Secret is
missing or unreadable: a namespace that is being deleted loses its Secret first, and its VMs must still be deleted.
Must not know: vCenter, which clusters use a Secret.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from services.machine_controller.contract import SECRETS, Secret
from services.machine_controller.vsphere.credentials import Credentials
from services.machine_controller.vsphere.errors import InvalidValue
from services.machine_controller.vsphere.values import Server
from services.runtime import log
from services.runtime.cache import reflector
from services.runtime.cache.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.runtime.clock import Clock
    from services.runtime.kube.objects import ObjectKey
    from services.runtime.kube.transport import Client

USERNAME = "username"
PASSWORD = "password"  # noqa: S105 - the key, not a password
CA = "ca.crt"
SERVERS = "servers"

_LOG = log.get("machine_controller.credentials")


class Login(NamedTuple):
    """What a Secret holds; `ca` is PEM, or "" for the system's authorities; `servers` is empty where it names none."""

    credentials: Credentials
    ca: str = ""
    servers: tuple[Server, ...] = ()


class Trouble(NamedTuple):
    """Why there is no login."""

    message: str


class _Followed:
    """A Secret that is in use."""

    def __init__(self, store: Store[Secret]) -> None:
        self.store = store
        self.login: Login | None = None
        self.trouble: Trouble | None = None
        self.task: asyncio.Task[None] | None = None


class Identities:
    """See the module. `changed` is called with the Secret's key when there is something else to sign in with."""

    def __init__(self, client: Client, clock: Clock, changed: Callable[[ObjectKey], None]) -> None:
        self._client = client
        self._clock = clock
        self._changed = changed
        self._followed: dict[ObjectKey, _Followed] = {}
        self._new: asyncio.Queue[ObjectKey] = asyncio.Queue()

    def get(self, key: ObjectKey) -> Login | Trouble | None:
        """Return what a Secret says; None while it was not read yet: `changed` tells when it was."""
        followed = self._followed.get(key)
        if followed is None:
            store: Store[Secret] = Store(f"Secret {key}")
            store.subscribe(lambda _, new: self._read(key, new))
            self._followed[key] = _Followed(store)
            self._new.put_nowait(key)
            return None
        if followed.login is not None:
            return followed.login
        return followed.trouble

    def drop(self, key: ObjectKey) -> None:
        """Follow a Secret no more, and forget what it says."""
        followed = self._followed.pop(key, None)
        if followed is None:
            return
        if followed.task is not None:
            followed.task.cancel()
        reflector.forget(followed.store.name)

    async def run(self) -> None:
        """Follow Secrets until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                key = await self._new.get()
                followed = self._followed.get(key)
                if followed is not None and followed.task is None:
                    followed.task = group.create_task(self._follow(key, followed.store))

    async def _follow(self, key: ObjectKey, store: Store[Secret]) -> None:
        follower = reflector.Reflector(
            self._client,
            SECRETS,
            store,
            clock=self._clock,
            as_=Secret,
            namespace=key.namespace,
            field_selector=f"metadata.name={key.name}",
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(follower.run())
            await store.wait_synced()
            if not len(store):
                self._read(key, None)

    def _read(self, key: ObjectKey, secret: Secret | None) -> None:
        followed = self._followed.get(key)
        if followed is None:
            return
        found = read(key, secret)
        before = followed.login, followed.trouble
        if isinstance(found, Login):
            followed.login, followed.trouble = found, None
        else:
            followed.trouble = found
            if followed.login is not None:
                _LOG.warning("Keeping the last credentials", secret=str(key), reason=found.message)
        if (followed.login, followed.trouble) != before:
            self._changed(key)


def read(key: ObjectKey, secret: Secret | None) -> Login | Trouble:
    """Read a Secret."""
    if secret is None:
        return Trouble(f"there is no Secret {key} with vCenter's credentials")
    username, password, ca, servers = (secret.value(name) for name in (USERNAME, PASSWORD, CA, SERVERS))
    if not username or not password:
        return Trouble(f"Secret {key} has no {USERNAME} and {PASSWORD}")
    try:
        # A newline at the end is what an editor or `echo` adds, never part of a password.
        credentials = Credentials(username.decode().strip(), password.decode().rstrip("\r\n"))
        return Login(credentials, (ca or b"").decode(), _servers((servers or b"").decode()))
    except UnicodeDecodeError:
        return Trouble(f"Secret {key} has a {USERNAME}, {PASSWORD}, {CA} or {SERVERS} that is no text")
    except InvalidValue as error:
        return Trouble(f"Secret {key}, key {SERVERS}: {error}")


def _servers(text: str) -> tuple[Server, ...]:
    """Servers separated by white space or commas."""
    return tuple(Server.parse(word) for word in text.replace(",", " ").split())
