"""From a VSphereCluster and a server's name to a connection with vCenter.

Responsible for: which identity a cluster uses (its own Secret, or the one of the settings), trust in the server, and
keeping the connections that are in use, and no others.
Invariants: machines of one server and identity share one connection. New credentials reach a connection in place. A
certificate is always verified, by thumbprint, by the Secret's CA or by the system's authorities, unless the settings
say that it is not. Credentials are sent to no server but those that their Secret names; where a VSphereCluster of
another namespace uses them, which names server and thumbprint as it likes, the Secret has to name some.
Must not know: what is done in vCenter.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, NamedTuple

from services.machine_controller import api
from services.machine_controller.credentials import SERVERS, Identities, Login, Trouble
from services.machine_controller.vsphere.credentials import Trust
from services.machine_controller.vsphere.errors import VSphereError
from services.machine_controller.vsphere.values import Server
from services.machine_controller.vsphere.vcenter import VCenters
from services.runtime.kube.objects import KubeObject, ObjectKey, view

if TYPE_CHECKING:
    from services.machine_controller.vsphere.vcenter import VCenter

_CLOSE_SECONDS = 4.0


class Connection(NamedTuple):
    """A vCenter to work with, or the reason why there is none; both None and "" while credentials are being read."""

    vcenter: VCenter | None = None
    trouble: str = ""


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
        self._known: dict[tuple[Server, str], tuple[Login, str]] = {}
        self._closed = False
        self._closing: set[asyncio.Task[None]] = set()

    def identity(self, cluster: KubeObject) -> ObjectKey | None:
        """Return the Secret that a VSphereCluster uses."""
        ref = view(cluster.spec, api.VSphereClusterSpec).identity_ref
        if ref is None or not ref.name:
            return self._default
        return ObjectKey(cluster.metadata.namespace, ref.name) if ref.kind == "Secret" else None

    def get(self, cluster: KubeObject | None, server: str, thumbprint: str = "") -> Connection:
        """Return the connection of a VSphereCluster to a server."""
        if cluster is None:
            return Connection(trouble="the VSphereCluster is not there, so vCenter's credentials are not known")
        identity = self.identity(cluster)
        if identity is None:
            ref = view(cluster.spec, api.VSphereClusterSpec).identity_ref
            if ref is not None and ref.kind:
                return Connection(trouble=f"identityRef of kind {ref.kind} is not supported: name a Secret")
            return Connection(trouble="the VSphereCluster has no identityRef, and no default was configured")
        return self.of(identity, server, thumbprint, lent=identity.namespace != cluster.metadata.namespace)

    def of(self, identity: ObjectKey, server: str, thumbprint: str = "", *, lent: bool = False) -> Connection:
        """Return the connection with what a Secret holds; `lent`: somebody of another namespace named the server."""
        login = self._identities.get(identity)
        if login is None or self._closed:
            return Connection()
        if isinstance(login, Trouble):
            return Connection(trouble=login.message)
        try:
            where = Server.parse(server)
            if where not in login.servers and (lent or login.servers):
                return Connection(trouble=_not_for(identity, where, login))
            if lent and login.ca:
                thumbprint = ""
            name = f"{identity}#{thumbprint}" if thumbprint else str(identity)
            known = self._vcenters.known(where, name)
            if known is not None and self._known.get((where, name)) == (login, thumbprint):
                return Connection(known)
            ca = "" if thumbprint else login.ca
            trust = Trust(thumbprint=thumbprint, ca=ca, insecure=self._insecure and not (thumbprint or ca))
            vcenter = self._vcenters.get(where, name, login.credentials, trust)
        except VSphereError as error:
            return Connection(trouble=str(error))
        self._known[where, name] = (login, thumbprint)
        return Connection(vcenter)

    def drop(self, identity: ObjectKey) -> None:
        """Sign out everywhere with what a Secret holds, which nobody names any more."""
        for server, name in [each for each in self._known if each[1].partition("#")[0] == str(identity)]:
            del self._known[server, name]
            task = asyncio.create_task(self._vcenters.forget(server, name))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
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


def _not_for(identity: ObjectKey, server: Server, login: Login) -> str:
    if login.servers:
        return f"Secret {identity} is not for vCenter {server} (its key {SERVERS} does not have it)"
    return f"Secret {identity} is lent to other namespaces only for the servers that its key {SERVERS} has: it has none"
