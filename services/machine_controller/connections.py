"""From a VSphereCluster and a server's name to a connection with vCenter.

Responsible for: which identity a cluster uses (its own Secret, or the one of the settings), trust in the server, and
keeping the connections that are in use, and no others.
Invariants: machines of one server and identity share one connection. New credentials reach every connection of their
Secret in place. A connection whose last user asks for another one, or is gone, is closed. A
certificate is always verified, by thumbprint, by the Secret's CA or by the system's authorities, unless the settings
say that it is not. Credentials are sent to no server but those that their Secret names; where a VSphereCluster of
another namespace uses them, which names server and thumbprint as it likes, the Secret has to name some.
Must not know: what is done in vCenter.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from services.machine_controller import api
from services.machine_controller.credentials import SERVERS, Identities, Login, Trouble
from services.machine_controller.vsphere.credentials import Trust
from services.machine_controller.vsphere.errors import VSphereError
from services.machine_controller.vsphere.values import Server
from services.machine_controller.vsphere.vcenter import VCenters
from services.runtime.kube.objects import KubeObject, ObjectKey, view

if TYPE_CHECKING:
    from collections.abc import Hashable

    from services.machine_controller.vsphere.vcenter import VCenter

_CLOSE_SECONDS = 4.0


class Connection(NamedTuple):
    """A vCenter to work with, or the reason why there is none; both None and "" while credentials are being read."""

    vcenter: VCenter | None = None
    trouble: str = ""


class _Known(NamedTuple):
    """What a connection was made with; `lent` if that was for another namespace."""

    login: Login
    thumbprint: str
    lent: bool


_At = tuple[Server, str]


class Connections:
    """Made inside the event loop; `run` closes everything when it is cancelled."""

    def __init__(
        self,
        identities: Identities,
        *,
        default: ObjectKey | None = None,
        insecure: bool = False,
        vcenters: VCenters | None = None,
    ) -> None:
        """`default` is the Secret for clusters that name none; `insecure` trusts a server without thumbprint and CA."""
        self._identities = identities
        self._default = default
        self._insecure = insecure
        self._vcenters = vcenters or VCenters()
        self._known: dict[_At, _Known] = {}
        self._users: defaultdict[_At, set[Hashable]] = defaultdict(set)
        self._used: dict[Hashable, _At] = {}
        self._closed = False
        self._closing: set[asyncio.Task[None]] = set()

    def identity(self, cluster: KubeObject) -> ObjectKey | None:
        """Return the Secret that a VSphereCluster uses."""
        ref = view(cluster.spec, api.VSphereClusterSpec).identity_ref
        if ref is None or not ref.name:
            return self._default
        return ObjectKey(cluster.metadata.namespace, ref.name) if ref.kind == "Secret" else None

    def get(
        self, cluster: KubeObject | None, server: str, thumbprint: str = "", *, user: Hashable = None
    ) -> Connection:
        """Return the connection of a VSphereCluster to a server.

        A `user` keeps it, and that alone, until it asks for another one or is released.
        """
        connection, at = self._get(cluster, server, thumbprint)
        if user is not None and (at is not None or connection.trouble):
            self._use(user, at)
        return connection

    def release(self, user: Hashable) -> None:
        """Say that a user is gone."""
        self._use(user, None)

    def _use(self, user: Hashable, at: _At | None) -> None:
        before = self._used.pop(user, None)
        if at is not None:
            self._used[user] = at
            self._users[at].add(user)
        if before is None or before == at:
            return
        self._users[before].discard(user)
        if not self._users[before]:
            self._close(before)

    def _get(self, cluster: KubeObject | None, server: str, thumbprint: str) -> tuple[Connection, _At | None]:
        if cluster is None:
            return _trouble("the VSphereCluster is not there, so vCenter's credentials are not known")
        identity = self.identity(cluster)
        if identity is None:
            ref = view(cluster.spec, api.VSphereClusterSpec).identity_ref
            if ref is not None and ref.kind:
                return _trouble(f"identityRef of kind {ref.kind} is not supported: name a Secret")
            return _trouble("the VSphereCluster has no identityRef, and no default was configured")
        return self._of(identity, server, thumbprint, lent=identity.namespace != cluster.metadata.namespace)

    def of(self, identity: ObjectKey, server: str, thumbprint: str = "", *, lent: bool = False) -> Connection:
        """Return the connection with what a Secret holds; `lent`: somebody of another namespace named the server."""
        return self._of(identity, server, thumbprint, lent=lent)[0]

    def _of(self, identity: ObjectKey, server: str, thumbprint: str, *, lent: bool) -> tuple[Connection, _At | None]:
        login = self._identities.get(identity)
        if login is None or self._closed:
            return Connection(), None
        if isinstance(login, Trouble):
            return _trouble(login.message)
        try:
            where = Server.parse(server)
            if not _allowed(where, login, lent=lent):
                return _trouble(_not_for(identity, where, login))
            if lent and login.ca:
                thumbprint = ""
            at = where, f"{identity}#{thumbprint}" if thumbprint else str(identity)
            made = _Known(login, thumbprint, lent)
            known = self._vcenters.known(*at)
            if known is not None and self._known.get(at) == made:
                return Connection(known), at
            vcenter = self._vcenters.get(*at, login.credentials, self._trust(made))
        except VSphereError as error:
            return _trouble(str(error))
        self._known[at] = made
        return Connection(vcenter), at

    def _trust(self, made: _Known) -> Trust:
        ca = "" if made.thumbprint else made.login.ca
        return Trust(thumbprint=made.thumbprint, ca=ca, insecure=self._insecure and not (made.thumbprint or ca))

    def renew(self, identity: ObjectKey) -> None:
        """Use what a Secret holds now in all its connections; those that it is not for any more are closed."""
        login = self._identities.get(identity)
        if not isinstance(login, Login):
            return
        for at in self._of_identity(identity):
            made = self._known[at]._replace(login=login)
            if _allowed(at[0], login, lent=made.lent) and not (made.lent and login.ca and made.thumbprint):
                self._vcenters.get(*at, login.credentials, self._trust(made))
                self._known[at] = made
            else:
                self._close(at)

    def _of_identity(self, identity: ObjectKey) -> list[_At]:
        return [at for at in self._known if at[1].partition("#")[0] == str(identity)]

    def _close(self, at: _At) -> None:
        for user in self._users.pop(at, ()):
            self._used.pop(user, None)
        if self._known.pop(at, None) is None:
            return
        task = asyncio.create_task(self._vcenters.forget(*at))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def drop(self, identity: ObjectKey) -> None:
        """Sign out everywhere with what a Secret holds, which nobody names any more."""
        for at in self._of_identity(identity):
            self._close(at)
        self._identities.drop(identity)

    async def run(self) -> None:
        """Wait for the end, then sign out everywhere."""
        try:
            await asyncio.Event().wait()
        finally:
            self._closed = True  # what is still at work signs nobody in again
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await asyncio.gather(self._vcenters.aclose(), *self._closing)


def _trouble(message: str) -> tuple[Connection, None]:
    return Connection(trouble=message), None


def _allowed(server: Server, login: Login, *, lent: bool) -> bool:
    """Whether credentials may be sent to a server."""
    return server in login.servers or not (lent or login.servers)


def _not_for(identity: ObjectKey, server: Server, login: Login) -> str:
    if login.servers:
        return f"Secret {identity} is not for vCenter {server} (its key {SERVERS} does not have it)"
    return f"Secret {identity} is lent to other namespaces only for the servers that its key {SERVERS} has: it has none"
