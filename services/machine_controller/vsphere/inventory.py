"""What is in a vCenter's inventory: placement targets, templates, networks and policies.

Responsible for: turning the names of a VSphereMachine or a failure domain into references.
Invariants: every answer is read from vCenter at the time of the call, save that equal look-ups that run at once share
one answer and that answers are kept for a short while (`CACHE_SECONDS`): two hundred machines of one template must not
walk the inventory two hundred times. A kept answer that turns out stale is NotFound at its use; `forget` drops all.
Must not know: Kubernetes.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, TypeVar

from services.machine_controller.vsphere import lookup, policies, templates
from services.machine_controller.vsphere.errors import Ambiguous, NotFound
from services.machine_controller.vsphere.lookup import CLUSTER, DATACENTER, DATASTORE, FOLDER, NETWORK, POOL
from services.machine_controller.vsphere.properties import read, read_below, read_many
from services.machine_controller.vsphere.refs import ref
from services.machine_controller.vsphere.values import (
    Cluster,
    Found,
    Host,
    Network,
    NetworkKind,
    Ref,
    StoragePolicy,
    Template,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

    from services.machine_controller.vsphere.session import Api, Session

T = TypeVar("T")

CACHE_SECONDS: Final = 30.0
_NETWORK_TYPES: Final = {
    "DistributedVirtualPortgroup": ("name", "key", "config.distributedVirtualSwitch"),
    "OpaqueNetwork": ("name", "summary"),
}


class Inventory:
    """Look-ups. `datacenter` arguments are what `datacenter()` returned; names may be bare, inventory paths or ids."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._kept: dict[Hashable, tuple[float, asyncio.Task[Any]]] = {}

    async def datacenters(self) -> tuple[Found, ...]:
        """Every datacenter, by path."""

        def work(api: Api) -> tuple[Found, ...]:
            found = lookup.all_of(api, DATACENTER, None)
            paths = lookup.paths(api, [f.ref for f in found])
            named = (Found(f.ref, f.name, paths[f.ref]) for f in found if f.ref in paths)
            return tuple(sorted(named, key=lambda f: f.path))

        return await self._shared(("datacenters",), "find datacenters", work)

    async def datacenter(self, name: str = "*") -> Found:
        """Return the datacenter called `name` (or with that path); "" and "*" stand for the only one there is."""
        everything = await self.datacenters()
        if name in ("", "*"):
            if not everything:
                raise NotFound("datacenter", name)
            hits = list(everything)
        elif "/" in name:
            hits = [found for found in everything if found.path.strip("/") == name.strip("/")]
        else:
            hits = [found for found in everything if found.name == name]
        if not hits:
            raise NotFound("datacenter", name, nearby=[found.name for found in everything])
        if len(hits) > 1:
            raise Ambiguous("datacenter", name, [found.path for found in hits])
        return hits[0]

    async def clusters(self, datacenter: Found) -> tuple[Cluster, ...]:
        """Every compute cluster of a datacenter, by path."""

        def work(api: Api) -> tuple[Cluster, ...]:
            found = read_below(api, datacenter.ref, CLUSTER.type, *_CLUSTER_PATHS)
            paths = lookup.paths(api, found)
            clusters = (_cluster(reference, p, paths.get(reference, "")) for reference, p in found.items())
            return tuple(sorted(clusters, key=lambda cluster: cluster.path))

        return await self._shared(("clusters", datacenter.ref), "list clusters", work)

    async def cluster(self, datacenter: Found, name: str) -> Cluster:
        """Return one compute cluster."""

        def work(api: Api) -> Cluster:
            found = lookup.find(api, CLUSTER, name, datacenter)
            return _cluster(found.ref, read(api, found.ref, *_CLUSTER_PATHS), found.path)

        return await self._shared(("cluster", datacenter.ref, name), f"find cluster {name}", work)

    async def hosts(self, hosts: Iterable[Ref]) -> tuple[Host, ...]:
        """Name and availability of hosts, by name; those that are gone are left out."""
        wanted = tuple(hosts)

        def work(api: Api) -> tuple[Host, ...]:
            found = read_many(api, wanted, "name", "runtime.connectionState", "runtime.inMaintenanceMode")
            return tuple(
                sorted(
                    (
                        Host(
                            reference,
                            lookup.decoded(p.get("name", "")),
                            p.get("runtime.connectionState") == "connected" and not p.get("runtime.inMaintenanceMode"),
                        )
                        for reference, p in found.items()
                    ),
                    key=lambda host: host.name,
                )
            )

        return await self._session.call("read hosts", work)

    async def resource_pool(self, datacenter: Found, name: str = "", *, cluster: Cluster | None = None) -> Found:
        """Return a resource pool.

        Without a name ("*" and "*/Resources" are none): the root pool of `cluster`, or the only root pool there is.
        A path may end at a pool ("DC0_C0/Resources/prod") or at a cluster, which stands for its root pool. With
        `cluster`, bare names are looked for in it alone.
        """

        def work(api: Api) -> Found:
            if name not in _ANY_POOL:
                return _named_pool(api, datacenter, name, cluster)
            if cluster is not None:
                return lookup.with_path(api, Found(cluster.root_pool, "Resources"))
            owners = read_below(api, datacenter.ref, "ComputeResource", "name", "resourcePool")
            if not owners:
                raise NotFound("resource pool", name, where=datacenter.name)
            if len(owners) > 1:
                raise Ambiguous("resource pool", name, [f"{p['name']}/Resources" for p in owners.values()])
            (only,) = owners.values()
            return lookup.with_path(api, Found(ref(only["resourcePool"]), "Resources"))

        key = ("pool", datacenter.ref, name, cluster.ref if cluster else None)
        return await self._shared(key, f"find resource pool {name}", work)

    async def pool_owner(self, pool: Ref) -> Ref:
        """Return the cluster, or the standalone host's compute resource, that owns a resource pool."""
        return await self._session.call(
            "find the owner of a resource pool", lambda a: ref(read(a, pool, "owner")["owner"])
        )

    async def pool_datastores(self, pool: Ref) -> tuple[Ref, ...]:
        """Datastores that the hosts of a resource pool see, be they a cluster's or a standalone one."""

        def work(api: Api) -> tuple[Ref, ...]:
            owner = ref(read(api, pool, "owner")["owner"])
            return _refs(read(api, owner, "datastore").get("datastore"))

        return await self._shared(("datastores", pool), "list the datastores of a resource pool", work)

    async def folder(self, datacenter: Found, name: str = "") -> Found:
        """Return a VM folder; without a name the datacenter's own."""

        def work(api: Api) -> Found:
            root = lookup.folder_of(api, datacenter.ref, FOLDER)
            if not name:
                return lookup.with_path(api, Found(root, "vm"))
            if name.strip("/") in ("vm", f"{datacenter.path}/vm".strip("/")):
                return lookup.with_path(api, Found(root, "vm"))
            return lookup.find(api, FOLDER, name, datacenter)

        return await self._shared(("folder", datacenter.ref, name), f"find folder {name}", work)

    async def datastore(self, datacenter: Found, name: str) -> Found:
        """Return a datastore."""
        return await self._shared(
            ("datastore", datacenter.ref, name),
            f"find datastore {name}",
            lambda api: lookup.find(api, DATASTORE, name, datacenter),
        )

    async def network(self, datacenter: Found, name: str) -> Network:
        """Return a network: a standard one, a distributed port group or an opaque one, with what its cards need."""

        def work(api: Api) -> Network:
            return _network(api, lookup.find(api, NETWORK, name, datacenter))

        return await self._shared(("network", datacenter.ref, name), f"find network {name}", work)

    async def names(self, references: Iterable[Ref]) -> dict[Ref, Found]:
        """Names and paths of objects; those that are gone are left out."""
        wanted = tuple(references)

        def work(api: Api) -> dict[Ref, Found]:
            return {
                reference: Found(reference, path.rpartition("/")[2], path)
                for reference, path in lookup.paths(api, wanted).items()
            }

        return await self._session.call("read names", work)

    async def template(self, datacenter: Found, name: str) -> Template:
        """Return a VM or template to clone from, by name, inventory path, instance UUID or BIOS UUID."""
        return await self._shared(
            ("template", datacenter.ref, name),
            f"find template {name}",
            lambda api: templates.find(api, datacenter, name),
        )

    async def storage_policy(self, name: str) -> StoragePolicy:
        """Return a storage policy by name or id."""
        return await self._shared(("policy", name), f"find storage policy {name}", lambda api: policies.find(api, name))

    async def compatible_datastores(self, policy: StoragePolicy, datastores: Iterable[Ref]) -> tuple[Ref, ...]:
        """Which of the datastores a policy accepts, in the given order."""
        wanted = tuple(datastores)
        return await self._session.call(
            "check datastores against a storage policy", lambda api: policies.compatible(api, policy.id, wanted)
        )

    def forget(self) -> None:
        """Drop every kept answer."""
        self._kept.clear()

    async def _shared(self, key: Hashable, operation: str, work: Callable[[Api], T]) -> T:
        now = self._session.clock.monotonic()
        kept = self._kept.get(key)
        if kept is None or kept[0] <= now:
            self._kept = {k: entry for k, entry in self._kept.items() if entry[0] > now}
            kept = (now + CACHE_SECONDS, asyncio.create_task(self._session.call(operation, work)))
            self._kept[key] = kept
            kept[1].add_done_callback(lambda task: self._settled(key, task))
        # Shielded: one of those who wait may be cancelled while the others still want the answer.
        answer: T = await asyncio.shield(kept[1])
        return answer

    def _settled(self, key: Hashable, task: asyncio.Task[Any]) -> None:
        """Failures are not kept: whoever asks next may find that the cause was removed."""
        if task.cancelled() or task.exception() is not None:
            kept = self._kept.get(key)
            if kept is not None and kept[1] is task:
                del self._kept[key]


_ANY_POOL: Final = ("", "*", "*/Resources")
_CLUSTER_PATHS: Final = ("name", "host", "datastore", "network", "resourcePool")


def _cluster(reference: Ref, properties: dict[str, Any], path: str) -> Cluster:
    return Cluster(
        ref=reference,
        name=lookup.decoded(properties.get("name", "")),
        path=path,
        root_pool=ref(properties["resourcePool"]),
        hosts=_refs(properties.get("host")),
        datastores=_refs(properties.get("datastore")),
        networks=_refs(properties.get("network")),
    )


def _refs(managed: Any) -> tuple[Ref, ...]:
    return tuple(ref(each) for each in managed or ())


def _named_pool(api: Api, datacenter: Found, name: str, cluster: Cluster | None) -> Found:
    if "/" not in name:
        return lookup.find(api, POOL, name, datacenter, below=cluster.root_pool if cluster else None)
    try:
        return lookup.find(api, POOL, name, datacenter)
    except NotFound:
        owner = lookup.find(api, CLUSTER, name, datacenter)  # its own message would name the wrong kind
        return lookup.with_path(api, Found(ref(read(api, owner.ref, "resourcePool")["resourcePool"]), "Resources"))


def _network(api: Api, found: Found) -> Network:
    paths = _NETWORK_TYPES.get(found.ref.type, ("name",))
    properties = read(api, found.ref, *paths)
    name = lookup.decoded(properties["name"])
    match found.ref.type:
        case "DistributedVirtualPortgroup":
            switch = ref(properties["config.distributedVirtualSwitch"])
            return Network(
                ref=found.ref,
                name=name,
                path=found.path,
                kind=NetworkKind.DISTRIBUTED,
                portgroup_key=properties["key"],
                switch_uuid=read(api, switch, "uuid")["uuid"],
            )
        case "OpaqueNetwork":
            summary = properties["summary"]
            return Network(
                ref=found.ref,
                name=name,
                path=found.path,
                kind=NetworkKind.OPAQUE,
                opaque_id=summary.opaqueNetworkId,
                opaque_type=summary.opaqueNetworkType,
            )
        case _:
            return Network(ref=found.ref, name=name, path=found.path, kind=NetworkKind.STANDARD)
