"""`python -m services.chart_test`: what `helm test` runs in a cluster, to see that an installed release does its work.

Responsible for: asking as a user would, in a namespace that is there for nothing else: an IPClaim gets an address of a
new IPPool, and a Pod, created by dry run, gets what a PodPreset says. What was made is deleted, whatever happens.
Invariants: needs no rights but those of the chart's test hook; the pool is in a network domain of its own and in
TEST-NET-1 (RFC 5737), so that no pool of the site is touched. Exit codes: 0 all steps came true, 1 one did not, 2 it
cannot ask.
Must not know: the services; it sees them through the API server alone.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import sys
import uuid
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from services.runtime.kube import config
from services.runtime.kube.errors import ApiError, ConfigError, ConnectionFailed, Invalid, KubeError, NotFound
from services.runtime.kube.objects import KubeObject, ObjectMeta, raw, view
from services.runtime.kube.resource import Resource
from services.runtime.kube.transport import Client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

__all__ = ["main"]

POOLS: Final = Resource("ipam.metal3.io", "v1alpha1", "ippools", "IPPool", namespaced=True)
CLAIMS: Final = Resource("ipam.metal3.io", "v1alpha1", "ipclaims", "IPClaim", namespaced=True)
ADDRESSES: Final = Resource("ipam.metal3.io", "v1alpha1", "ipaddresses", "IPAddress", namespaced=True)
PRESETS: Final = Resource("reach.spectrocloud.com", "v1alpha1", "podpresets", "PodPreset", namespaced=True)
PODS: Final = Resource("", "v1", "pods", "Pod", namespaced=True)

_FIRST: Final = ipaddress.IPv4Address("192.0.2.10")
_LAST: Final = ipaddress.IPv4Address("192.0.2.19")
_LABEL: Final = "groundwork.dev/helm-test"
_VARIABLE: Final = "GROUNDWORK_HELM_TEST"
_PAUSE: Final = 0.2

T = TypeVar("T")


class StepError(Exception):
    """A step did not come true in time; the message says what was seen last."""


class Asker:
    """One namespace of a cluster, and how long to wait for each step (seconds)."""

    def __init__(self, client: Client, namespace: str, timeout: float) -> None:
        self._client = client
        self._namespace = namespace
        self._timeout = timeout
        self._name = f"helm-test-{uuid.uuid4().hex[:8]}"

    async def address(self) -> str:
        """Have a claim bound and its address returned; returns the address."""
        pool = {
            "namePrefix": self._name,
            "domain": self._name,
            "pools": [{"start": str(_FIRST), "end": str(_LAST)}],
            "prefix": 24,
        }
        async with self._made(POOLS, pool), self._made(CLAIMS, {"pool": {"name": self._name}}):
            address = await self._until("the claim is not Ready", self._bound)
            if not _FIRST <= ipaddress.IPv4Address(address) <= _LAST:
                raise StepError(f"the claim got {address}, which is not in its pool")
        return address

    async def pod(self) -> str:
        """Have a pod injected that is created by dry run; returns the value it got."""
        labels = {_LABEL: self._name}
        preset = {"selector": {"matchLabels": labels}, "env": [{"name": _VARIABLE, "value": self._name}]}
        async with self._made(PRESETS, preset):
            return await self._until("the pod did not get what the preset says", lambda: self._injected(labels))

    async def _bound(self) -> tuple[str | None, str]:
        """The address of the claim once it is Ready, and what the claim says."""
        status = view((await self._client.get(CLAIMS, self._name, self._namespace)).status, dict[str, Any])
        ready = next((row for row in status.get("conditions", ()) if row["type"] == "Ready"), None)
        if ready is None or ready["status"] != "True" or "address" not in status:
            return None, ready["message"] if ready else "nobody has looked at it: does the allocator run?"
        obj = await self._client.get(ADDRESSES, status["address"]["name"], self._namespace)
        return str(view(obj.spec, dict[str, Any])["address"]), ""

    async def _injected(self, labels: dict[str, str]) -> tuple[str | None, str]:
        """The variable's value in a pod that would be created now, and what was seen instead."""
        restricted = {
            "allowPrivilegeEscalation": False,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        container = {"name": "app", "image": "registry.invalid/none", "securityContext": restricted}
        wanted = KubeObject(
            apiVersion="v1",
            kind="Pod",
            metadata=ObjectMeta(name=self._name, namespace=self._namespace, labels=labels),
            spec=raw({"containers": [container], "automountServiceAccountToken": False}),
        )
        path = f"{PODS.path(self._namespace)}?dryRun=All"
        headers = {"Content-Type": "application/json"}
        answer = await self._client.raw("POST", path, body=msgspec.json.encode(wanted), headers=headers)
        (seen,) = msgspec.json.decode(answer)["spec"]["containers"]
        env = {item["name"]: item.get("value") for item in seen.get("env", ())}
        return env.get(_VARIABLE), f"its environment is {sorted(env)}: is the webhook asked about this namespace?"

    @asynccontextmanager
    async def _made(self, resource: Resource, spec: dict[str, Any]) -> AsyncIterator[None]:
        """Have an object for the body of the `with`; returns when it has gone again."""
        meta = ObjectMeta(name=self._name, namespace=self._namespace)
        obj = KubeObject(apiVersion=resource.api_version, kind=resource.kind, metadata=meta, spec=raw(spec))

        async def make() -> tuple[KubeObject, str]:
            return await self._client.create(resource, obj), ""

        async def gone() -> tuple[bool | None, str]:
            try:
                left = await self._client.get(resource, self._name, self._namespace)
            except NotFound:
                return True, ""
            return None, f"finalizers {', '.join(left.metadata.finalizers)}"

        await self._until(f"no {resource.kind} can be made", make)
        try:
            yield
        finally:
            await self._client.delete(resource, self._name, self._namespace)
            await self._until(f"the {resource.kind} is not deleted", gone)

    async def _until(self, failure: str, look: Callable[[], Awaitable[tuple[T | None, str]]]) -> T:
        """Return what `look` finds; it gives None and a reason as long as there is nothing.

        The API server's refusals count as reasons: right after an installation rights, definitions, ServiceAccounts
        and certificates are on their way. What it calls invalid stays so.
        """
        reason = ""
        try:
            async with asyncio.timeout(self._timeout):
                while True:
                    try:
                        found, reason = await look()
                        if found is not None:
                            return found
                    except Invalid:
                        raise
                    except (ApiError, ConnectionFailed) as error:
                        reason = str(error)
                    await asyncio.sleep(_PAUSE)
        except TimeoutError:
            raise StepError(f"{failure} after {self._timeout:g} s: {reason}") from None


async def _run(options: argparse.Namespace) -> None:
    connection = await config.load(options.kubeconfig)
    async with Client(connection, user_agent="groundwork-chart-test") as client:
        asker = Asker(client, options.namespace, options.timeout)
        if options.address:
            _say(f"ok: a claim got the address {await asker.address()}, and gave it back")
        if options.pod:
            _say(f"ok: a pod got {_VARIABLE}={await asker.pod()}")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the steps that the flags name, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m services.chart_test", description="What `helm test` runs.")
    parser.add_argument("--kubeconfig", help="kubeconfig file (default: $KUBECONFIG, else the pod's service account)")
    parser.add_argument("--namespace", required=True, help="namespace to work in")
    parser.add_argument("--address", action="store_true", help="bind an address")
    parser.add_argument("--pod", action="store_true", help="inject a pod")
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds for each step (default: %(default)g)")
    options = parser.parse_args(arguments)
    try:
        asyncio.run(_run(options))
    except (StepError, KubeError) as error:
        sys.stderr.write(f"failed: {error}\n")
        return 1
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
