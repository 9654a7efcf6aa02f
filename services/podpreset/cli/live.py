"""What a running cluster has: presets, namespaces, facts, workloads and pods.

Responsible for: listing each resource once, of the namespaces that were asked for, and nothing that is not needed: what
the user may not read is only then a problem.
Must not know: what the objects come to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from services.console import UnusableError
from services.podpreset import api, facts
from services.podpreset.cli.stale import RunningPod
from services.podpreset.cli.workloads import PODS, TEMPLATED, NoPodError, Owner, workload
from services.proxyenv import complete
from services.runtime.kube.objects import KubeObject, view
from services.runtime.kube.resource import Resource

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from services.console import Progress
    from services.podpreset.cli.workloads import Workload
    from services.proxyenv.complete import Facts
    from services.runtime.kube.discovery import Discovery
    from services.runtime.kube.objects import ObjectMeta
    from services.runtime.kube.transport import Client

Json = dict[str, Any]

NAMESPACES = Resource("", "v1", "namespaces", "Namespace", namespaced=False)
_API_SERVER = "kubernetes"
"""Name of the API server's own Service."""
_OVER = frozenset({"Succeeded", "Failed"})


class Templates(NamedTuple):
    """Workloads with a template, and the controllers of those that have one, by uid."""

    workloads: list[Workload]
    parents: dict[str, Owner]


class _PodStatus(Struct):
    phase: str = ""


class Cluster:
    """One cluster, of which namespaces may be chosen; none chosen means all."""

    def __init__(
        self, client: Client, discovery: Discovery, progress: Progress, namespaces: Sequence[str] = ()
    ) -> None:
        self._client = client
        self._discovery = discovery
        self._progress = progress
        self._chosen = tuple(namespaces)

    async def presets(self) -> list[KubeObject]:
        """Every ClusterPodPreset, and the PodPresets. Raises UnusableError when the definitions are missing."""
        resources = (api.CLUSTER_POD_PRESETS, api.POD_PRESETS)
        missing = [str(resource) for resource in resources if await self._discovery.pick((resource,)) is None]
        if missing:
            raise UnusableError(f"the cluster does not serve {', '.join(missing)}: kubectl apply -f deploy/crds")
        found = [await self._list(resource) for resource in resources]
        return [obj for objects in found for obj in objects]

    async def namespaces(self) -> list[KubeObject]:
        """Every namespace."""
        return await self._list(NAMESPACES)

    async def facts(self, given: Facts, wanted: Collection[str]) -> Facts:
        """What `given` lacks of the names of entries that are `wanted` (`services.proxyenv.complete`)."""
        found = given
        if complete.SERVICE_CIDR in wanted and not given.service_cidrs:
            served = await self._discovery.pick(facts.SERVICE_CIDRS)
            objects = await self._everywhere(served) if served is not None else []
            found = found._replace(service_cidrs=facts.service_cidrs(objects))
        if complete.POD_CIDR in wanted and not given.pod_cidrs:
            found = found._replace(pod_cidrs=facts.pod_cidrs(await self._everywhere(facts.NODES)))
        if complete.API_SERVER in wanted and not given.api_server:
            found = found._replace(api_server=await self._api_server())
        return found

    async def _api_server(self) -> tuple[str, ...]:
        self._progress.step("reading the API server's addresses")
        services = [await self._client.get(facts.SERVICES, _API_SERVER, "default")]
        selector = f"kubernetes.io/service-name={_API_SERVER}"
        slices = await self._client.list(
            facts.ENDPOINT_SLICES, "default", label_selector=selector, as_=facts.EndpointSlice
        )
        return facts.api_server_addresses(services, slices.items)

    async def templates(self) -> Templates:
        """Workloads that make pods and belong to no other, and who owns those that do."""
        workloads: list[Workload] = []
        parents: dict[str, Owner] = {}
        for resource in TEMPLATED:
            for obj in await self._list(resource):
                owner = _controller(obj.metadata)
                if owner is not None:
                    parents[obj.metadata.uid] = owner
                if owner is None or owner.kind not in _KINDS:
                    workloads += _readable([obj])
        return Templates(workloads, parents)

    async def pods(self) -> list[RunningPod]:
        """Pods that are neither over nor on their way out."""
        found = []
        for obj in await self._list(PODS):
            over = obj.deleting or view(obj.status, _PodStatus).phase in _OVER
            found += [] if over else [RunningPod(pod, _controller(obj.metadata)) for pod in _readable([obj])]
        return found

    async def _list(self, resource: Resource) -> list[KubeObject]:
        """List a resource where it was asked for; items of a list do not say what they are."""
        if not (self._chosen and resource.namespaced):
            return await self._everywhere(resource)
        found: list[KubeObject] = []
        for namespace in self._chosen:
            self._progress.step(f"reading {resource.plural} of {namespace}")
            found += (await self._client.list(resource, namespace)).items
        return _named(found, resource)

    async def _everywhere(self, resource: Resource) -> list[KubeObject]:
        self._progress.step(f"reading {resource.plural}")
        return _named((await self._client.list(resource)).items, resource)


_KINDS = frozenset(resource.kind for resource in TEMPLATED)


def _named(objects: Iterable[KubeObject], resource: Resource) -> list[KubeObject]:
    return [replace(obj, apiVersion=resource.api_version, kind=resource.kind) for obj in objects]


def _controller(meta: ObjectMeta) -> Owner | None:
    for reference in meta.ownerReferences:
        if reference.controller:
            return Owner(reference.kind, reference.name, reference.uid)
    return None


def _readable(objects: Iterable[KubeObject]) -> list[Workload]:
    """Return the pods in objects; one without a template, which only old API servers allowed, makes none."""
    found = []
    for obj in objects:
        spec = msgspec.json.decode(obj.spec) if memoryview(obj.spec) else {}
        plain = {"apiVersion": obj.apiVersion, "kind": obj.kind, "metadata": msgspec.to_builtins(obj.metadata)}
        try:
            made = workload({**plain, "spec": spec})
        except NoPodError:
            continue
        if made is not None:
            found.append(made)
    return found
