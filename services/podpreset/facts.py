"""What the cluster says of itself: the ranges of its Services and pods, and the addresses of its API server.

Responsible for: reading them off ServiceCIDRs, Nodes, and the Service `kubernetes` with its EndpointSlice, so that
`noProxy.include` needs no one to write them down. What a flag gives is not looked for.
Invariants: the same objects give the same facts in the same order, whatever order they come in. Ranges that touch are
joined, so a thousand nodes whose ranges fill a /16 give one entry. An object that cannot be read gives nothing.
Must not know: presets.
Source: API reference networking.k8s.io/v1 ServiceCIDR, core/v1 Node and Service, discovery.k8s.io/v1 EndpointSlice.
"""
# ruff: noqa: N815 - the fields carry their wire names

from __future__ import annotations

import asyncio
import functools
import ipaddress
from typing import TYPE_CHECKING, TypeVar

import msgspec
from msgspec import Raw, Struct

from services.podpreset.reduced import ReducedStore, spec_only
from services.proxyenv.complete import METADATA_ADDRESS, Facts
from services.runtime import log
from services.runtime.cache.reflector import Reflector
from services.runtime.cache.store import Store
from services.runtime.kube.objects import EMPTY, KubeObject, view
from services.runtime.kube.resource import Resource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from services.runtime.clock import Clock
    from services.runtime.kube.discovery import Discovery
    from services.runtime.kube.transport import Client

__all__ = ["FactFinder", "api_server_addresses", "pod_cidrs", "service_cidrs"]

T = TypeVar("T")
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

SERVICE_CIDRS = (
    Resource("networking.k8s.io", "v1", "servicecidrs", "ServiceCIDR", namespaced=False),
    Resource("networking.k8s.io", "v1beta1", "servicecidrs", "ServiceCIDR", namespaced=False),
)
NODES = Resource("", "v1", "nodes", "Node", namespaced=False)
SERVICES = Resource("", "v1", "services", "Service", namespaced=True)
ENDPOINT_SLICES = Resource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", namespaced=True)

_API_SERVER_NAMESPACE = "default"
_API_SERVER = "kubernetes"
# The label that the API server itself puts on its EndpointSlice.
_SLICE_SELECTOR = f"kubernetes.io/service-name={_API_SERVER}"
_LOG = log.get("podpreset.facts")


class _ServiceCidrSpec(Struct):
    cidrs: tuple[str, ...] | None = None


class _NodeSpec(Struct):
    podCIDR: str = ""
    podCIDRs: tuple[str, ...] | None = None


class _ServiceSpec(Struct):
    clusterIP: str = ""
    clusterIPs: tuple[str, ...] | None = None


class _Endpoint(Struct):
    addresses: tuple[str, ...] | None = None


class EndpointSlice(KubeObject, frozen=True, kw_only=True):
    """discovery.k8s.io/v1 EndpointSlice, which has no spec."""

    endpoints: Raw = EMPTY


def service_cidrs(objects: Iterable[KubeObject]) -> tuple[str, ...]:
    """Return the ranges that Services get their addresses from; those being deleted hold addresses still."""
    return _joined(cidr for obj in objects for cidr in _read(obj, obj.spec, _ServiceCidrSpec).cidrs or ())


def pod_cidrs(nodes: Iterable[KubeObject]) -> tuple[str, ...]:
    """Return the ranges of the nodes' pods; none where the network plugin keeps them to itself."""
    specs = [_read(node, node.spec, _NodeSpec) for node in nodes]
    return _joined(cidr for spec in specs for cidr in (spec.podCIDRs or (spec.podCIDR,)))


def api_server_addresses(services: Iterable[KubeObject], slices: Iterable[EndpointSlice]) -> tuple[str, ...]:
    """Return the addresses of the API server as pods reach it: that of its Service, then those behind it."""
    found = [
        address
        for service in services
        if service.metadata.name == _API_SERVER
        for spec in (_read(service, service.spec, _ServiceSpec),)
        for address in (spec.clusterIPs or (spec.clusterIP,))
    ]
    behind = [
        address
        for endpoint_slice in slices
        for endpoint in _read(endpoint_slice, endpoint_slice.endpoints, tuple[_Endpoint, ...])
        for address in endpoint.addresses or ()
    ]
    return tuple(dict.fromkeys([*_sorted(found), *_sorted(behind)]))


class FactFinder:
    """Follows what the facts are read off; `changed` is called when they differ from before.

    Each of `service_cidrs`, `pod_cidrs` and `api_server` that is given is taken as it is, and its objects are not
    followed, so that no right to read them is needed. `metadata` cannot be found, only be given.
    """

    def __init__(
        self,
        changed: Callable[[], None],
        *,
        service_cidrs: tuple[str, ...] = (),
        pod_cidrs: tuple[str, ...] = (),
        api_server: tuple[str, ...] = (),
        metadata: tuple[str, ...] = (METADATA_ADDRESS,),
    ) -> None:
        self._changed = changed
        self._metadata = metadata
        self._given = (service_cidrs, pod_cidrs, api_server)
        self._service_cidrs = Store[KubeObject]("ServiceCIDR")
        self._nodes = ReducedStore("Node", spec_only)
        self._services = Store[KubeObject]("Service kubernetes")
        self._slices = Store[EndpointSlice]("EndpointSlice kubernetes")
        for store in (self._service_cidrs, self._nodes, self._services, self._slices):
            store.subscribe(self._seen)
        self._due = False
        self.facts = Facts(*self._given, metadata)
        """What is known now."""

    def reflectors(self, client: Client, discovery: Discovery, clock: Clock) -> Iterator[Reflector[KubeObject]]:
        """Yield what has to run for the facts to be found."""
        given_services, given_pods, given_server = self._given
        follow = functools.partial(Reflector, client, clock=clock, discovery=discovery)
        if not given_services:
            yield follow(functools.partial(discovery.pick, SERVICE_CIDRS), self._service_cidrs)
        if not given_pods:
            yield follow(NODES, self._nodes)
        if not given_server:
            there = functools.partial(follow, namespace=_API_SERVER_NAMESPACE)
            yield there(SERVICES, self._services, field_selector=f"metadata.name={_API_SERVER}")
            yield there(ENDPOINT_SLICES, self._slices, label_selector=_SLICE_SELECTOR, as_=EndpointSlice)

    def _seen(self, old: KubeObject | None, new: KubeObject | None) -> None:
        """Look once all that the loop has at hand is in: a list of a thousand nodes is one change, not a thousand."""
        same = old is not None and new is not None and _content(old) == _content(new)
        if not same and not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self._look)

    def _look(self) -> None:
        self._due = False
        services, pods, server = self._given
        services = services or service_cidrs(self._service_cidrs.values())
        pods = pods or pod_cidrs(self._nodes.values())
        server = server or api_server_addresses(self._services.values(), self._slices.values())
        found = Facts(services, pods, server, self._metadata)
        if found != self.facts:
            self.facts = found
            _LOG.info("The cluster's own addresses", services=services, pods=pods, api_server=server)
            self._changed()


def _content(obj: KubeObject) -> bytes:
    """What of an object the facts depend on; a Node is written every few minutes, and that is not in it."""
    return bytes(obj.endpoints if isinstance(obj, EndpointSlice) else obj.spec)


def _read(obj: KubeObject, content: Raw, type_: type[T]) -> T:
    """Read one field of an object; one that is not as documented counts as empty, and is told in the log."""
    try:
        return view(content, type_)
    except msgspec.MsgspecError as error:
        _LOG.warning("An object cannot be read", kind=obj.kind, object=str(obj.key), error=error)
        return type_()


def _joined(cidrs: Iterable[str]) -> tuple[str, ...]:
    """Return ranges in canonical form, those that touch joined, IPv4 first."""
    networks = [network for cidr in cidrs if cidr and (network := _network(cidr)) is not None]
    four = [network for network in networks if isinstance(network, ipaddress.IPv4Network)]
    six = [network for network in networks if isinstance(network, ipaddress.IPv6Network)]
    return (
        *(str(network) for network in ipaddress.collapse_addresses(four)),
        *(str(network) for network in ipaddress.collapse_addresses(six)),
    )


def _network(cidr: str) -> Network | None:
    try:
        return ipaddress.ip_network(cidr, strict=False)
    except ValueError:
        _LOG.warning("Not a CIDR", value=cidr)
        return None


def _sorted(addresses: Iterable[str]) -> list[str]:
    """Return addresses in canonical form, IPv4 first; what is none, such as the `None` of a headless Service, goes."""
    found = []
    for text in addresses:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            continue
        found.append((address.version, int(address), str(address)))
    return [text for *_, text in sorted(found)]
