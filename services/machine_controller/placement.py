"""Where a machine's VM goes: its own spec, overlaid with the failure domain that Cluster API chose for the Machine.

Responsible for: the overlay, which is CAPV's: server and datacenter always, folder, pool, datastore and networks where
the zone has them; the networks by index, with devices of their own where there are more of them.
Invariants: a zone or a failure domain that does not exist is told, never left out: a VM in the wrong place is worse
than none. Addresses are the VSphereMachine's own.
Must not know: vCenter, how objects are found.
Source: CAPV v1.16 pkg/services/vimmachine.go generateOverrideFunc, overrideNetworkDeviceSpecs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec
from msgspec.structs import replace

from services.machine_controller import api
from services.machine_controller.zones.selectors import same_server
from services.runtime.kube.objects import KubeObject, view

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.machine_controller.api import NetworkDevice


DEVICES_ANNOTATION = f"{api.PREFIX}/devices"
"""On a VSphereMachine that a failure domain places: its devices as they will be, without addresses, as JSON. Whoever
writes addresses reads there which networks they are for, as it reads a VSphereVM where CAPV runs."""


class Placement(NamedTuple):
    """Names as vCenter knows them; an empty one leaves the choice to vCenter. `network` has the effective devices."""

    server: str
    datacenter: str
    folder: str
    resource_pool: str
    datastore: str
    network: api.Network
    compute_cluster: str = ""
    vm_group: str = ""
    """A group of the compute cluster that the VM joins, so that a VM-host rule keeps it on the zone's hosts."""


class Misplaced(NamedTuple):
    """Why a machine cannot be placed."""

    reason: str
    message: str


def place(
    spec: api.VSphereMachineSpec,
    cluster: api.VSphereClusterSpec,
    failure_domain: str = "",
    zone: KubeObject | None = None,
    domain: KubeObject | None = None,
) -> Placement | Misplaced:
    """Place a machine: `failure_domain` is the Machine's, `zone` the VSphereDeploymentZone of that name.

    `domain` is the VSphereFailureDomain that the zone names.
    """
    own = Placement(
        server=spec.server or cluster.server,
        datacenter=spec.datacenter,
        folder=spec.folder,
        resource_pool=spec.resource_pool,
        datastore=spec.datastore,
        network=spec.network,
    )
    if not failure_domain:
        return own if own.server else Misplaced("ServerMissing", "neither the machine nor its cluster names a vCenter")
    if zone is None:
        return Misplaced("DeploymentZoneNotFound", f"the Machine is for VSphereDeploymentZone {failure_domain}")
    wanted = view(zone.spec, api.VSphereDeploymentZoneSpec)
    if domain is None:
        message = f"VSphereDeploymentZone {failure_domain} names VSphereFailureDomain {wanted.failure_domain}"
        return Misplaced("FailureDomainNotFound", message)
    topology = view(domain.spec, api.VSphereFailureDomainSpec).topology
    constraint = wanted.placement_constraint or api.PlacementConstraint()
    return own._replace(
        server=wanted.server or own.server,
        datacenter=topology.datacenter,
        folder=constraint.folder or own.folder,
        resource_pool=constraint.resource_pool or own.resource_pool,
        datastore=topology.datastore or own.datastore,
        network=replace(own.network, devices=_devices(own.network.devices, topology)),
        compute_cluster=topology.compute_cluster,
        vm_group=topology.hosts.vm_group_name if topology.hosts is not None else "",
    )


def thumbprint(spec: api.VSphereMachineSpec, cluster: api.VSphereClusterSpec, server: str) -> str:
    """Thumbprint that a server's certificate has to have; "" for one that machine and cluster do not name, as a zone's.

    It does not depend on the zone: a VM must be found and deleted when that is gone, too.
    """
    own = spec.server or cluster.server
    return (spec.thumbprint or cluster.thumbprint) if same_server(server, own) else ""


def devices_text(devices: Sequence[NetworkDevice]) -> str:
    """Value of `DEVICES_ANNOTATION`."""
    return msgspec.json.encode([replace(device, ip_addrs=()) for device in devices]).decode()


def _devices(own: Sequence[NetworkDevice], topology: api.Topology) -> tuple[NetworkDevice, ...]:
    found = list(own)
    named = [api.NetworkConfiguration(network_name=name) for name in topology.networks]
    for configurations in (named, topology.network_configurations):
        for index, configuration in enumerate(configurations):
            if index == len(found):
                found.append(api.NetworkDevice())
            found[index] = _overlaid(found[index], configuration)
    return tuple(found)


def _overlaid(device: NetworkDevice, over: api.NetworkConfiguration) -> NetworkDevice:
    return replace(
        device,
        network_name=over.network_name or device.network_name,
        dhcp4=device.dhcp4 if over.dhcp4 is None else over.dhcp4,
        dhcp6=device.dhcp6 if over.dhcp6 is None else over.dhcp6,
        nameservers=over.nameservers or device.nameservers,
        search_domains=over.search_domains or device.search_domains,
        addresses_from_pools=over.addresses_from_pools or device.addresses_from_pools,
        dhcp4_overrides=over.dhcp4_overrides or device.dhcp4_overrides,
        dhcp6_overrides=over.dhcp6_overrides or device.dhcp6_overrides,
    )
