"""Secrets and ConfigMaps that go into a VM, read one by one when they are needed.

They are not watched: a watch would need the right to read every Secret of the management cluster and would keep each
node's join token and certificates in this process. A VM is configured once, so one GET is enough; a Secret that is not
there yet is asked for again with the pauses of any other failure.
Responsible for: those reads.
Invariants: nothing that was read is kept, logged or put into an error.
Must not know: what is made of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.machine_controller.contract import CONFIG_MAPS, SECRETS, ConfigMap, Secret
from services.machine_controller.guestinfo.problems import InvalidError, Problem
from services.machine_controller.guestinfo.userdata import UserData
from services.runtime.kube.errors import NotFound

if TYPE_CHECKING:
    from services.runtime.kube.transport import Client


class MissingError(Exception):
    """A Secret or ConfigMap that something names does not exist."""


class Reader:
    """See the module."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def bootstrap(self, namespace: str, name: str) -> UserData:
        """Bootstrap data of a machine. Raises MissingError, and InvalidError for data that no VM can use."""
        secret = await self._secret(namespace, name)
        value, format_ = secret.value("value"), secret.value("format") or b""
        if value is None:
            raise InvalidError([Problem(f"Secret {namespace}/{name} data.value", "", "bootstrap data")])
        return UserData.read(value, format_.decode(errors="replace"))

    async def settings(self, namespace: str, kind: str, name: str) -> dict[str, str]:
        """Texts in a Secret or ConfigMap. Raises MissingError."""
        if kind == "Secret":
            return (await self._secret(namespace, name)).texts()
        try:
            return dict((await self._client.get(CONFIG_MAPS, name, namespace, as_=ConfigMap)).data or {})
        except NotFound:
            raise MissingError(f"there is no ConfigMap {namespace}/{name}") from None

    async def _secret(self, namespace: str, name: str) -> Secret:
        try:
            return await self._client.get(SECRETS, name, namespace, as_=Secret)
        except NotFound:
            raise MissingError(f"there is no Secret {namespace}/{name}") from None
