"""Reading everything that the checks need, all at once where one does not wait for the other.

Responsible for: which parts a run needs, and how each of them is read.
Invariants: nothing is stored in the cluster: what is written are reviews (access) and one pod as a dry run. A part that
cannot be read becomes `Unread` and stops no other. Of a Secret only `tls.crt` is kept.
Must not know: what is right.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from typing import TYPE_CHECKING, Any

from services.doctor import definitions, objects
from services.doctor.rights import questions
from services.doctor.seen import Books, Denied, Endpoint, Hook, Lease, Seen, Served, Stale, Unread, Why
from services.doctor.trial import attempt
from services.ipam import api as ipam
from services.ipam.cli import verify
from services.podpreset.cli import stale, whatif
from services.podpreset.cli.live import Cluster
from services.podpreset.cli.workloads import PODS, TEMPLATED
from services.proxyenv.complete import Facts
from services.runtime.kube.discovery import Discovery
from services.runtime.kube.errors import ApiError, ConnectionFailed, Unauthorized
from services.runtime.kube.resource import CUSTOM_RESOURCE_DEFINITIONS

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from services.console import Progress
    from services.doctor.reader import Reader
    from services.doctor.seen import Provider, Service
    from services.runtime.clock import Clock
    from services.runtime.kube.objects import KubeObject
    from services.runtime.kube.resource import Resource

SETTLE_SECONDS = 2.0
"""After which a discrepancy is looked at again: lists of different moments contradict each other for that long."""
COMPANIONS = (
    *("clusters.cluster.x-k8s.io", "machines.cluster.x-k8s.io"),
    *("ipaddressclaims.ipam.cluster.x-k8s.io", "ipaddresses.ipam.cluster.x-k8s.io"),
    *("vspheremachines.infrastructure.cluster.x-k8s.io", "vspherevms.infrastructure.cluster.x-k8s.io"),
)
"""Definitions of others that we work with."""


class Gatherer:
    """Reads what a set of parts needs; a part is the name of a field of Seen."""

    def __init__(self, reader: Reader, clock: Clock, progress: Progress, parts: Collection[str]) -> None:
        self._reader = reader
        self._clock = clock
        self._parts = parts
        self._discovery = Discovery(reader.client, clock)
        self._cluster = Cluster(reader.client, self._discovery, progress)

    async def gather(self) -> Seen:
        """Read everything. Raises ConnectionFailed and Unauthorized."""
        # Alone and first: when there is no server, or none that answers in time, there is one error, not twenty.
        seen = Seen(now=self._clock.now(), version=await self._version())
        first = {
            "installed": self._definitions,
            "services": self._services,
            "providers": self._providers,
            "hooks": self._hooks,
            "books": self._books,
        }
        seen = await self._all(seen, {name: read() for name, read in first.items() if name in self._parts})
        services = [] if isinstance(seen.services, Unread) else list(seen.services)
        second: dict[str, Any] = {}
        if "leases" in self._parts:
            second["leases"] = self._leases(services)
        if "denied" in self._parts:
            second["denied"] = self._denied(services)
        if "served" in self._parts:
            second["served"] = self._served(services)
        untouched = objects.untouched(services)
        # Without the services it is not known which namespaces the webhook leaves alone: nothing would tell a pod that
        # is not given anything from one that should not be.
        known = not isinstance(seen.services, Unread)
        if "stale" in self._parts and known:
            second["stale"] = self._stale([] if isinstance(seen.hooks, Unread) else seen.hooks, untouched)
        if "trial" in self._parts and known and not isinstance(seen.hooks, Unread) and seen.hooks:
            second["trial"] = attempt(self._reader, self._cluster, seen.hooks, untouched)
        if "again" in self._parts:
            second["again"] = self._again(seen.books)
        seen = await self._all(seen, second)
        if "installed" in self._parts:
            seen = seen._replace(shipped=definitions.shipped())
        return seen._replace(unread=tuple(dict.fromkeys(self._reader.unread)))

    async def _all(self, seen: Seen, reads: dict[str, Any]) -> Seen:
        tasks = {name: asyncio.ensure_future(read) for name, read in reads.items()}
        try:
            await asyncio.gather(*tasks.values())
        finally:
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)
        return seen._replace(**{name: task.result() for name, task in tasks.items()})

    # -- the installation ----------------------------------------------------------------------------------------------

    async def _version(self) -> str | Unread:
        try:
            return str((await self._reader.document("/version"))["gitVersion"])
        except Unauthorized:
            raise
        except (ValueError, KeyError, TypeError) as error:
            raise ConnectionFailed(
                "what answers is no API server: is there a proxy or a login page before it?"
            ) from error
        except ApiError as error:
            return Unread("/version", Why.FORBIDDEN, error.message)

    async def _definitions(self) -> dict[str, Any]:
        ours = [each["metadata"]["name"] for each in definitions.shipped() or ()]
        names = sorted({*ours, *COMPANIONS})
        found = await asyncio.gather(*(self._reader.find(CUSTOM_RESOURCE_DEFINITIONS, name) for name in names))
        return dict(zip(names, found, strict=True))

    async def _services(self) -> list[Service] | Unread:
        selector = f"{objects.PART_OF}={objects.GROUNDWORK}"
        found = await self._reader.plain(objects.DEPLOYMENTS, label_selector=selector)
        if isinstance(found, Unread):
            return found
        read = [objects.service(obj) for obj in found]
        return [service for service in read if service is not None]

    async def _providers(self) -> list[Provider] | Unread:
        found = await self._reader.plain(objects.DEPLOYMENTS, label_selector=objects.PROVIDER)
        return found if isinstance(found, Unread) else [objects.provider(obj) for obj in found]

    async def _leases(self, services: list[Service]) -> dict[tuple[str, str], Lease | Unread | None]:
        wanted = dict.fromkeys(objects.lease_of(service) for service in services)
        read = [self._lease(namespace, name) for namespace, name in wanted]
        return dict(zip(wanted, await asyncio.gather(*read), strict=True))

    async def _lease(self, namespace: str, name: str) -> Lease | Unread | None:
        found = await self._reader.find(objects.LEASES, name, namespace)
        return found if found is None or isinstance(found, Unread) else objects.lease(found)

    async def _denied(self, services: list[Service]) -> dict[str, list[Denied] | Unread]:
        found = await asyncio.gather(*(self._denied_to(service) for service in services))
        return {str(service): denied for service, denied in zip(services, found, strict=True)}

    async def _denied_to(self, service: Service) -> list[Denied] | Unread:
        asked = list(dict.fromkeys(questions(service)))
        user = f"system:serviceaccount:{service.namespace}:{service.account}"

        async def ask(body: dict[str, Any]) -> bool:
            answer = await self._reader.client.raw(
                "POST",
                "/apis/authorization.k8s.io/v1/subjectaccessreviews",
                body=json.dumps(body).encode(),
                headers={"Content-Type": "application/json"},
            )
            return bool(json.loads(answer)["status"]["allowed"])

        def asking(question: Any) -> Any:
            body = objects.review(question, user, service.namespace)
            return self._reader.attempt("subjectaccessreviews.authorization.k8s.io", lambda: ask(body))

        answers = await asyncio.gather(*map(asking, asked))
        unread = next((answer for answer in answers if isinstance(answer, Unread)), None)
        if unread is not None:
            return unread
        account = f"{service.namespace}/{service.account}"
        return [
            Denied(str(service), account, str(question))
            for question, answer in zip(asked, answers, strict=True)
            if answer is False
        ]

    # -- the webhook ---------------------------------------------------------------------------------------------------

    async def _hooks(self) -> list[Hook] | Unread:
        found = await self._reader.plain(objects.MUTATING)
        if isinstance(found, Unread):
            return found
        hooks = [hook for obj in found for hook in objects.hooks(obj)]
        endpoints = await asyncio.gather(*(self._endpoint(hook) for hook in hooks))
        return [hook._replace(endpoint=endpoint) for hook, endpoint in zip(hooks, endpoints, strict=True)]

    async def _endpoint(self, hook: Hook) -> Endpoint | Unread | None:
        if hook.service is None:
            return None
        namespace, name = hook.service
        service = await self._reader.find(objects.SERVICES, name, namespace)
        if isinstance(service, Unread):
            return service
        if service is None:
            return Endpoint(exists=False, ready=0)
        if service["spec"].get("type") == "ExternalName":
            return Endpoint(exists=True, ready=None)
        selector = f"kubernetes.io/service-name={name}"
        slices = await self._reader.plain(objects.ENDPOINT_SLICES, namespace, label_selector=selector)
        return slices if isinstance(slices, Unread) else Endpoint(exists=True, ready=objects.ready(slices))

    async def _served(self, services: list[Service]) -> list[Served | Unread]:
        wanted = {objects.secret_of(service): service for service in services if service.component == "podpreset"}
        return [await self._certificate(*where, service) for where, service in wanted.items() if where[1]]

    async def _certificate(self, namespace: str, name: str, service: Service) -> Served | Unread:
        found = await self._reader.find(objects.SECRETS, name, namespace)
        if isinstance(found, Unread):
            return found
        encoded = ((found or {}).get("data") or {}).get("tls.crt") or ""
        try:
            text = base64.b64decode(encoded, validate=True)
        except binascii.Error:
            text = b""
        return Served(f"Secret {namespace}/{name}", str(service), text or None)

    # -- addresses -----------------------------------------------------------------------------------------------------

    async def _books(self) -> Books:
        claims = await self._pick(ipam.CAPI_CLAIMS)
        addresses = await self._pick(ipam.CAPI_ADDRESSES)
        # In the order that a Snapshot promises.
        return Books(
            pools=await self._list(ipam.IP_POOLS, ipam.GLOBAL_IP_POOLS),
            claims=await self._list(ipam.IP_CLAIMS, claims),
            addresses=await self._list(ipam.IP_ADDRESSES, addresses),
            reservations=await self._list(ipam.IP_RESERVATIONS),
            capi_version=claims.version if claims is not None and addresses is not None else "",
        )

    async def _pick(self, candidates: tuple[Resource, ...]) -> Resource | None:
        found = await self._reader.attempt(str(candidates[0]), lambda: self._discovery.pick(candidates))
        return None if isinstance(found, Unread) else found

    async def _list(self, *resources: Resource | None) -> tuple[KubeObject, ...] | Unread:
        whole: tuple[KubeObject, ...] = ()
        for resource in resources:
            if resource is None:
                continue
            found = await self._reader.list(resource)
            if isinstance(found, Unread):
                return found
            whole += found
        return whole

    async def _again(self, books: Books) -> Any:
        snapshot = books.snapshot
        if snapshot is None or all(item.information for item in verify.check(snapshot)):
            return None
        await self._clock.sleep(SETTLE_SECONDS)
        return (await self._books()).snapshot

    # -- pods ----------------------------------------------------------------------------------------------------------

    async def _stale(self, hooks: Sequence[Hook], untouched: Collection[str]) -> Stale | Unread:
        too_many = await self._reader.few(PODS, *TEMPLATED)
        if too_many is not None:
            return too_many

        async def read() -> Stale | Unread:
            presets = await self._cluster.presets()
            if not presets:
                return Unread("presets", Why.UNSERVED)
            running, templates = await self._cluster.pods(), await self._cluster.templates()
            running = [pod for pod in running if objects.asked(hooks, pod.workload.pod)]
            namespaces = await self._cluster.namespaces()
            passed = objects.unasked(hooks, namespaces).union(untouched)
            world = whatif.world(presets, namespaces, Facts(), passed)
            workloads = {(item.kind, item.namespace, item.name): item for item in templates.workloads}
            return Stale(len(running), stale.stale(running, workloads, templates.parents, world))

        return await self._reader.attempt("pods and presets", read)
