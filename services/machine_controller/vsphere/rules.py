"""DRS groups and VM-host rules of a cluster: placement on a group of hosts.

Responsible for: reading them, and the changes that placement and zone set-up need.
Invariants: vCenter takes the whole list of a group's members, so a change that adds one reads, writes and waits for
the task under a lock of the cluster; two machines that join at once do not lose one another. Writers outside of this
process are not locked out, so a join looks again and repeats.
Must not know: failure domains.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from services.machine_controller.vsphere.errors import Busy, NotFound
from services.machine_controller.vsphere.properties import read
from services.machine_controller.vsphere.refs import ref
from services.machine_controller.vsphere.soap import vim
from services.machine_controller.vsphere.values import AffinityRule, ClusterRules, Ref

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from services.machine_controller.vsphere.session import Api, Session
    from services.machine_controller.vsphere.watch import Watch

_ATTEMPTS: Final = 3
_CLUSTER: Final = vim.cluster


class Rules:
    """Groups and rules of compute clusters."""

    def __init__(self, session: Session, watch: Watch) -> None:
        self._session = session
        self._watch = watch
        self._locks: dict[Ref, asyncio.Lock] = {}

    async def read(self, cluster: Ref) -> ClusterRules:
        """Every group and every VM-host rule."""
        return await self._session.call("read cluster rules", lambda api: _rules(_configuration(api, cluster)))

    async def join(self, cluster: Ref, group: str, vm: Ref) -> bool:
        """Put a VM into a VM group; False when it was in it. NotFound without such a group."""
        async with self._lock(cluster):
            for attempt in range(_ATTEMPTS):
                groups = (await self.read(cluster)).vm_groups
                if group not in groups:
                    raise NotFound("VM group", group, where=str(cluster), nearby=list(groups))
                if vm in groups[group]:
                    return attempt > 0
                await self._set(cluster, partial(_vm_group, group, (*groups[group], vm)), exists=True)
        raise Busy(f"VM group {group} of {cluster} is changed by somebody else all the time")

    async def set_hosts(self, cluster: Ref, group: str, hosts: Iterable[Ref]) -> None:
        """Create a host group, or give it other hosts."""
        async with self._lock(cluster):
            exists = group in (await self.read(cluster)).host_groups
            await self._set(cluster, partial(_host_group, group, tuple(hosts)), exists=exists)

    async def set_vms(self, cluster: Ref, group: str, vms: Iterable[Ref] = ()) -> None:
        """Create a VM group, or give it other VMs."""
        async with self._lock(cluster):
            exists = group in (await self.read(cluster)).vm_groups
            await self._set(cluster, partial(_vm_group, group, tuple(vms)), exists=exists)

    async def set_rule(self, cluster: Ref, rule: AffinityRule) -> None:
        """Create a VM-host rule, or change the one of that name."""

        def work(api: Api) -> Ref:
            present = [r for r in _configuration(api, cluster).rule if r.name == rule.name]
            info = _CLUSTER.VmHostRuleInfo(
                name=rule.name,
                enabled=rule.enabled,
                mandatory=rule.mandatory,
                vmGroupName=rule.vm_group,
                affineHostGroupName=rule.host_group or None,
                antiAffineHostGroupName=rule.anti_affine_host_group or None,
            )
            if present:
                info.key = present[0].key
            change = _CLUSTER.RuleSpec(operation="edit" if present else "add", info=info)
            return _reconfigure(api, cluster, _CLUSTER.ConfigSpecEx(rulesSpec=[change]))

        async with self._lock(cluster):
            await self._done(await self._session.call("set a VM-host rule", work))

    async def _set(self, cluster: Ref, group: Callable[[Api], Any], *, exists: bool) -> None:
        def work(api: Api) -> Ref:
            change = _CLUSTER.GroupSpec(operation="edit" if exists else "add", info=group(api))
            return _reconfigure(api, cluster, _CLUSTER.ConfigSpecEx(groupSpec=[change]))

        await self._done(await self._session.call("set a DRS group", work))

    async def _done(self, task: Ref) -> None:
        finished = await self._watch.finished(task)
        if finished.error is not None:
            raise finished.error

    def _lock(self, cluster: Ref) -> asyncio.Lock:
        return self._locks.setdefault(cluster, asyncio.Lock())


def _vm_group(name: str, members: Iterable[Ref], api: Api) -> Any:
    return _CLUSTER.VmGroup(name=name, vm=[api.object(member) for member in members])


def _host_group(name: str, members: Iterable[Ref], api: Api) -> Any:
    return _CLUSTER.HostGroup(name=name, host=[api.object(member) for member in members])


def _configuration(api: Api, cluster: Ref) -> Any:
    return read(api, cluster, "configurationEx")["configurationEx"]


def _rules(configuration: Any) -> ClusterRules:
    groups = configuration.group or ()
    return ClusterRules(
        vm_groups={g.name: _refs(g.vm) for g in groups if isinstance(g, _CLUSTER.VmGroup)},
        host_groups={g.name: _refs(g.host) for g in groups if isinstance(g, _CLUSTER.HostGroup)},
        rules=tuple(
            AffinityRule(
                name=r.name,
                vm_group=r.vmGroupName or "",
                host_group=r.affineHostGroupName or "",
                anti_affine_host_group=r.antiAffineHostGroupName or "",
                enabled=bool(r.enabled),
                mandatory=bool(r.mandatory),
            )
            for r in configuration.rule or ()
            if isinstance(r, _CLUSTER.VmHostRuleInfo)
        ),
    )


def _refs(members: Any) -> tuple[Ref, ...]:
    return tuple(ref(member) for member in members or ())


def _reconfigure(api: Api, cluster: Ref, spec: Any) -> Ref:
    return ref(api.object(cluster).ReconfigureComputeResource_Task(spec=spec, modify=True))
