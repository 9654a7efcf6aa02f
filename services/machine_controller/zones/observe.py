"""Looking at a VSphereDeploymentZone in vCenter: every check of `decide`, asked through inventory, rules and tags.

Responsible for: the questions, and the sentence that says what is wrong, which names what there is instead.
Invariants: nothing is changed. What keeps vCenter from answering (no connection, no right to sign in) is one problem of
its own and ends the look; whatever else goes wrong is the problem of the check that it happened in.
Stricter than Cluster API's vSphere provider, so what passes here passes there: a tag counts only in its own category,
and the hosts of the compute cluster have to see datastore and networks.
Must not know: Kubernetes objects beyond their specs, conditions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeVar

from services.machine_controller.vsphere.errors import (
    Ambiguous,
    AuthenticationFailed,
    Busy,
    CertificateMismatch,
    NotFound,
    Unreachable,
    VSphereError,
)
from services.machine_controller.zones import autoconfigure, tagging
from services.machine_controller.zones.decide import Check, Observation

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable

    from services.machine_controller import api
    from services.machine_controller.vsphere.values import Cluster, ClusterRules, Found, Ref
    from services.machine_controller.vsphere.vcenter import VCenter
    from services.machine_controller.zones.tagging import Wanted

T = TypeVar("T")

_NO_ANSWER = (Unreachable, AuthenticationFailed, CertificateMismatch, Busy)


class Look(NamedTuple):
    """An observation, and the tags that the zone wants on what was found, for whoever may attach them."""

    observation: Observation
    wanted: tuple[Wanted, ...] = ()


async def observe(
    vcenter: VCenter, domain: api.VSphereFailureDomainSpec, constraint: api.PlacementConstraint | None
) -> Look:
    """Check a failure domain and the placement constraint of a zone; raises nothing of vCenter's."""
    look = _Look(vcenter, domain)
    try:
        wanted = await look.run(constraint)
    except _NO_ANSWER as error:
        return Look(Observation({Check.VCENTER: str(error)}))
    return Look(Observation(look.problems, tuple(look.remarks)), wanted)


class _Look:
    def __init__(self, vcenter: VCenter, domain: api.VSphereFailureDomainSpec) -> None:
        self._vcenter = vcenter
        self._inventory = vcenter.inventory
        self._domain = domain
        self.problems: dict[Check, str] = {}
        self.remarks: list[str] = []

    async def run(self, constraint: api.PlacementConstraint | None) -> tuple[Wanted, ...]:
        topology = self._domain.topology
        datacenter = await self._try(Check.DATACENTER, self._inventory.datacenter(topology.datacenter))
        if datacenter is None:
            return ()
        cluster = None
        if topology.compute_cluster:
            cluster = await self._try(Check.CLUSTER, self._inventory.cluster(datacenter, topology.compute_cluster))
        if constraint is not None:
            await self._placement(datacenter, cluster, constraint)
        rules = await self._rules(cluster)
        hosts = self._hosts(rules)
        wanted = await self._tags(datacenter, cluster, hosts)
        await self._datastore(datacenter, cluster)
        await self._networks(datacenter, cluster)
        return wanted

    async def _try(self, check: Check, question: Awaitable[T]) -> T | None:
        """Return the answer; None when the check has failed."""
        try:
            return await question
        except _NO_ANSWER:
            raise
        except VSphereError as error:
            self._add(check, str(error))
            return None

    def _add(self, check: Check, message: str) -> None:
        before = self.problems.get(check)
        self.problems[check] = f"{before}; {message}" if before else message

    async def _placement(self, datacenter: Found, cluster: Cluster | None, constraint: api.PlacementConstraint) -> None:
        if constraint.folder:
            await self._try(Check.FOLDER, self._inventory.folder(datacenter, constraint.folder))
        if constraint.resource_pool:
            pool = await self._try(Check.POOL, self._pool(datacenter, cluster, constraint.resource_pool))
            if pool is not None and cluster is not None:
                owner = await self._try(Check.POOL_OF_CLUSTER, self._inventory.pool_owner(pool.ref))
                if owner is not None and owner != cluster.ref:
                    self._add(Check.POOL_OF_CLUSTER, f"resource pool {pool.path} is not one of cluster {cluster.path}")

    async def _pool(self, datacenter: Found, cluster: Cluster | None, name: str) -> Found:
        """Return the pool: a bare name means the one in the zone's own cluster if there is one."""
        if cluster is not None:
            try:
                return await self._inventory.resource_pool(datacenter, name, cluster=cluster)
            except (NotFound, Ambiguous):
                pass  # perhaps in another cluster, which is another problem than being nowhere
        return await self._inventory.resource_pool(datacenter, name)

    async def _rules(self, cluster: Cluster | None) -> ClusterRules | None:
        if self._domain.topology.hosts is None or cluster is None:
            return None
        return await self._try(Check.HOSTS, self._vcenter.rules.read(cluster.ref))

    def _hosts(self, rules: ClusterRules | None) -> tuple[Ref, ...]:
        """Return the hosts of the host group, after checking that a rule keeps the machines on them."""
        groups = self._domain.topology.hosts
        if groups is None or rules is None:
            return ()
        vm_group, host_group = groups.vm_group_name, groups.host_group_name
        if vm_group not in rules.vm_groups:
            self._add(Check.HOSTS, str(NotFound("VM group", vm_group, nearby=tuple(rules.vm_groups))))
        if host_group not in rules.host_groups:
            self._add(Check.HOSTS, str(NotFound("host group", host_group, nearby=tuple(rules.host_groups))))
        elif not rules.host_groups[host_group]:
            self._add(Check.HOSTS, f"host group {host_group!r} has no hosts")
        rule = rules.rule(vm_group, host_group)
        if rule is None:
            self._add(Check.HOSTS, f"no VM-host rule joins VM group {vm_group!r} to host group {host_group!r}")
        elif not rule.enabled:
            self.remarks.append(f"VM-host rule {rule.name!r} is disabled, so vCenter may move machines to other hosts")
        return rules.host_groups.get(host_group, ())

    async def _tags(self, datacenter: Found, cluster: Cluster | None, hosts: tuple[Ref, ...]) -> tuple[Wanted, ...]:
        wanted = {
            check: tagging.wanted(target, datacenter.ref, cluster.ref if cluster else None, hosts)
            for check, target in ((Check.REGION, self._domain.region), (Check.ZONE, self._domain.zone))
        }
        categories = [each.category for each in wanted.values()]
        objects = [target for each in wanted.values() for target in each.objects]
        present = await self._try(Check.REGION, autoconfigure.read(self._vcenter.tags, categories, objects))
        if present is None:
            return ()
        # Where the cluster or the group is missing that is the cause, and what has to be mended.
        explained = Check.CLUSTER in self.problems or Check.HOSTS in self.problems
        for check, each in wanted.items():
            if not each.objects and not explained:
                self._add(check, f"there is no {each.type} that could carry tag {each.tag!r}")
        missing = {check: tagging.missing(each, present) for check, each in wanted.items()}
        untagged = {target for found in missing.values() for target in found.objects}
        names = {target: found.path for target, found in (await self._inventory.names(untagged)).items()}
        for check, found in missing.items():
            if found:
                self._add(check, found.sentence(names))
        return tuple(wanted.values())

    async def _datastore(self, datacenter: Found, cluster: Cluster | None) -> None:
        name = self._domain.topology.datastore
        if name:
            found = await self._try(Check.DATASTORE, self._inventory.datastore(datacenter, name))
            if found is not None and cluster is not None:
                self._seen(Check.DATASTORE, f"datastore {name!r}", found.ref, cluster, cluster.datastores)

    async def _networks(self, datacenter: Found, cluster: Cluster | None) -> None:
        topology = self._domain.topology
        for name in topology.networks or tuple(each.network_name for each in topology.network_configurations):
            found = await self._try(Check.NETWORK, self._inventory.network(datacenter, name))
            if found is not None and cluster is not None:
                self._seen(Check.NETWORK, f"network {name!r}", found.ref, cluster, cluster.networks)

    def _seen(self, check: Check, what: str, target: Ref, cluster: Cluster, seen: Iterable[Ref]) -> None:
        if target not in seen:
            self._add(check, f"{what} exists, but no host of cluster {cluster.name!r} sees it")
