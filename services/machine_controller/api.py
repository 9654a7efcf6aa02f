"""VSphereMachine, VSphereCluster and their kin as typed views, and the words that this service adds to them.

Responsible for: names of resources, the fields that our definitions have, labels and annotations of our own. The JSON
is CAPV's v1beta2, a subset: whatever these definitions accept, CAPV's accept too.
Invariants: a view has every field of our definition and no more; an object is written back with `with_fields`, which
keeps what a view does not know. Optional strings are "" when absent, optional lists are empty.
Must not know: when anything is read or written, what a field does to a VM.
Sources: cluster-api-provider-vsphere v1.16 apis/v1beta2, cluster-api v1.14 api/core/v1beta2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from services.runtime.kube.conditions import Condition
from services.runtime.kube.objects import EMPTY, raw
from services.runtime.kube.resource import Resource

if TYPE_CHECKING:
    from msgspec import Raw

GROUP = "infrastructure.cluster.x-k8s.io"
VERSION = "v1beta2"

VSPHERE_MACHINES = Resource(GROUP, VERSION, "vspheremachines", "VSphereMachine", namespaced=True)
VSPHERE_MACHINE_TEMPLATES = Resource(
    GROUP, VERSION, "vspheremachinetemplates", "VSphereMachineTemplate", namespaced=True
)
VSPHERE_CLUSTERS = Resource(GROUP, VERSION, "vsphereclusters", "VSphereCluster", namespaced=True)
VSPHERE_FAILURE_DOMAINS = Resource(GROUP, VERSION, "vspherefailuredomains", "VSphereFailureDomain", namespaced=False)
VSPHERE_DEPLOYMENT_ZONES = Resource(GROUP, VERSION, "vspheredeploymentzones", "VSphereDeploymentZone", namespaced=False)

PREFIX = "machine.groundwork.dev"
MANAGED_LABEL = f"{PREFIX}/managed"
"""On a VSphereCluster or VSphereMachine, value `true`: this service may take it, where not all are taken."""
GATEWAY_STYLE_ANNOTATION = f"{PREFIX}/gateway-style"
"""On a VSphereCluster: `routes` (default) or `gateway`, how default routes are told to cloud-init."""
PROXY_SECRET_ANNOTATION = f"{PREFIX}/proxy-secret"
PROXY_CONFIG_MAP_ANNOTATION = f"{PREFIX}/proxy-config-map"
"""On a VSphereCluster: name of the Secret or ConfigMap (same namespace) with the proxy settings; see `hostproxy`."""
HTTP_PROXY_ANNOTATION = f"{PREFIX}/http-proxy"
HTTPS_PROXY_ANNOTATION = f"{PREFIX}/https-proxy"
NO_PROXY_ANNOTATION = f"{PREFIX}/no-proxy"
"""On a VSphereCluster: proxy settings that hold no password."""
REDACT_ANNOTATION = f"{PREFIX}/redact"
"""On a VSphereCluster: comma list of `userdata` and `vendordata`, what a VM removes once it has read it."""
KUBE_VIP_IMAGE_ANNOTATION = f"{PREFIX}/kube-vip-image"
"""On a VSphereCluster: image of kube-vip; without it no control plane gets one from us."""
KUBE_VIP_INTERFACE_ANNOTATION = f"{PREFIX}/kube-vip-interface"
KUBE_VIP_SERVICES_ANNOTATION = f"{PREFIX}/kube-vip-services"
"""On a VSphereCluster: interface (default: that of the default route), and `true` to serve LoadBalancers too."""
AUTO_CONFIGURE_ANNOTATION = f"{PREFIX}/auto-configure"
"""On a VSphereFailureDomain, value `true`: its tags may be created and attached for it."""


class PoolRef(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A pool that a device takes an address from."""

    api_group: str = ""
    kind: str = ""
    name: str = ""


class Route(msgspec.Struct, frozen=True, omit_defaults=True):
    """A static route: network or address `to`, address `via`, `metric` from 0."""

    to: str = ""
    via: str = ""
    metric: int | None = None


class DHCPOverrides(
    msgspec.Struct,
    frozen=True,
    omit_defaults=True,
    rename={
        "route_metric": "routeMetric",
        "send_hostname": "sendHostname",
        "use_dns": "useDNS",
        "use_domains": "useDomains",
        "use_hostname": "useHostname",
        "use_mtu": "useMTU",
        "use_ntp": "useNTP",
        "use_routes": "useRoutes",
    },
):
    """What a device takes from its DHCP lease; `use_domains` is `true`, `false` or `route`, `use_routes` a boolean."""

    hostname: str | None = None
    route_metric: int | None = None
    send_hostname: bool | None = None
    use_dns: bool | None = None
    use_domains: str | None = None
    use_hostname: bool | None = None
    use_mtu: bool | None = None
    use_ntp: bool | None = None
    use_routes: str | None = None


class NetworkDevice(
    msgspec.Struct,
    frozen=True,
    omit_defaults=True,
    kw_only=True,
    rename={
        "network_name": "networkName",
        "device_name": "deviceName",
        "dhcp4_overrides": "dhcp4Overrides",
        "dhcp6_overrides": "dhcp6Overrides",
        "ip_addrs": "ipAddrs",
        "mac_addr": "macAddr",
        "search_domains": "searchDomains",
        "addresses_from_pools": "addressesFromPools",
        "skip_ip_allocation": "skipIPAllocation",
    },
):
    """One NIC: its network in vCenter and what the guest shall configure on it."""

    network_name: str = ""
    device_name: str = ""
    dhcp4: bool | None = None
    dhcp6: bool | None = None
    gateway4: str = ""
    gateway6: str = ""
    ip_addrs: tuple[str, ...] = ()
    mtu: int | None = None
    mac_addr: str = ""
    nameservers: tuple[str, ...] = ()
    routes: tuple[Route, ...] = ()
    search_domains: tuple[str, ...] = ()
    addresses_from_pools: tuple[PoolRef, ...] = ()
    dhcp4_overrides: DHCPOverrides | None = None
    dhcp6_overrides: DHCPOverrides | None = None
    skip_ip_allocation: bool | None = None

    @property
    def waits(self) -> bool:
        """Whether the device still has to be given a static address (CAPV's isWaitingForStaticIPAllocation)."""
        served = self.skip_ip_allocation or self.dhcp4 or self.dhcp6 or self.ip_addrs or self.addresses_from_pools
        return not served


class Network(msgspec.Struct, frozen=True, omit_defaults=True):
    """The NICs of a VM in their order, and routes that whichever NIC can reach `via` gets."""

    devices: tuple[NetworkDevice, ...] = ()
    routes: tuple[Route, ...] = ()


class VSphereMachineSpec(
    msgspec.Struct,
    frozen=True,
    omit_defaults=True,
    kw_only=True,
    rename={
        "clone_mode": "cloneMode",
        "storage_policy_name": "storagePolicyName",
        "resource_pool": "resourcePool",
        "num_cpus": "numCPUs",
        "num_cores_per_socket": "numCoresPerSocket",
        "memory_mib": "memoryMiB",
        "disk_gib": "diskGiB",
        "additional_disks_gib": "additionalDisksGiB",
        "custom_vmx_keys": "customVMXKeys",
        "tag_ids": "tagIDs",
        "hardware_version": "hardwareVersion",
        "provider_id": "providerID",
        "power_off_mode": "powerOffMode",
        "guest_soft_power_off_timeout_seconds": "guestSoftPowerOffTimeoutSeconds",
    },
):
    """Spec of a VSphereMachine, and of the machines that a VSphereMachineTemplate makes.

    Numbers are 0 when absent: the template's own value stays. An absent `clone_mode` means linkedClone where the
    template has a snapshot, an absent `power_off_mode` means hard.
    """

    template: str = ""
    clone_mode: str = ""
    snapshot: str = ""
    server: str = ""
    thumbprint: str = ""
    datacenter: str = ""
    folder: str = ""
    datastore: str = ""
    storage_policy_name: str = ""
    resource_pool: str = ""
    network: Network = Network()
    num_cpus: int = 0
    num_cores_per_socket: int = 0
    memory_mib: int = 0
    disk_gib: int = 0
    additional_disks_gib: tuple[int, ...] = ()
    custom_vmx_keys: dict[str, str] | None = None
    tag_ids: tuple[str, ...] = ()
    os: str = ""
    hardware_version: str = ""
    provider_id: str = ""
    power_off_mode: str = ""
    guest_soft_power_off_timeout_seconds: int = 0


class MachineAddress(msgspec.Struct, frozen=True):
    """An address of a node: type ExternalIP, InternalIP, InternalDNS, ExternalDNS or Hostname."""

    type: str
    address: str


class NetworkStatus(
    msgspec.Struct,
    frozen=True,
    omit_defaults=True,
    kw_only=True,
    rename={"ip_addrs": "ipAddrs", "mac_addr": "macAddr", "network_name": "networkName"},
):
    """What the guest reports of one NIC."""

    mac_addr: str
    connected: bool | None = None
    ip_addrs: tuple[str, ...] = ()
    network_name: str = ""


class Initialization(msgspec.Struct, frozen=True, omit_defaults=True):
    """The contract's sign to Cluster API: `provisioned` becomes true once and stays."""

    provisioned: bool | None = None


class VSphereMachineStatus(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Status of a VSphereMachine."""

    initialization: Initialization | None = None
    addresses: tuple[MachineAddress, ...] = ()
    network: tuple[NetworkStatus, ...] = ()
    conditions: tuple[Condition, ...] = ()


class TemplateMeta(msgspec.Struct, frozen=True, omit_defaults=True):
    """Labels and annotations of what a template makes."""

    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class MachineTemplateResource(msgspec.Struct, frozen=True, omit_defaults=True):
    """The machine that a template makes."""

    metadata: TemplateMeta | None = None
    spec: VSphereMachineSpec = VSphereMachineSpec()


class VSphereMachineTemplateSpec(msgspec.Struct, frozen=True, omit_defaults=True):
    """Spec of a VSphereMachineTemplate."""

    template: MachineTemplateResource = MachineTemplateResource()


class Endpoint(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a cluster's API server is reached; host "" and port 0 while nobody said."""

    host: str = ""
    port: int = 0


class IdentityRef(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whose credentials a cluster uses: kind Secret, same namespace, keys `username` and `password`."""

    kind: str = ""
    name: str = ""


class SelectorRequirement(msgspec.Struct, frozen=True, omit_defaults=True):
    """meta/v1 LabelSelectorRequirement."""

    key: str = ""
    operator: str = ""
    values: tuple[str, ...] = ()


class LabelSelector(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """meta/v1 LabelSelector."""

    match_labels: dict[str, str] | None = None
    match_expressions: tuple[SelectorRequirement, ...] = ()


class VSphereClusterSpec(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """Spec of a VSphereCluster; an absent failure domain selector means none, an empty one all zones of the server."""

    server: str = ""
    thumbprint: str = ""
    control_plane_endpoint: Endpoint | None = None
    identity_ref: IdentityRef | None = None
    failure_domain_selector: LabelSelector | None = None


class FailureDomain(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A zone that Cluster API may spread machines over."""

    name: str
    control_plane: bool | None = None
    attributes: dict[str, str] | None = None


class VSphereClusterStatus(
    msgspec.Struct,
    frozen=True,
    omit_defaults=True,
    kw_only=True,
    rename={"failure_domains": "failureDomains", "vcenter_version": "vCenterVersion"},
):
    """Status of a VSphereCluster."""

    initialization: Initialization | None = None
    failure_domains: tuple[FailureDomain, ...] = ()
    vcenter_version: str = ""
    conditions: tuple[Condition, ...] = ()


class TagTarget(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A region or zone: tag `name` in `tag_category`, on objects of `type` (Datacenter, ComputeCluster, HostGroup)."""

    name: str = ""
    type: str = ""
    tag_category: str = ""


class HostGroups(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """The groups that a VM-host rule joins."""

    vm_group_name: str = ""
    host_group_name: str = ""


class NetworkConfiguration(
    msgspec.Struct,
    frozen=True,
    omit_defaults=True,
    kw_only=True,
    rename={
        "network_name": "networkName",
        "dhcp4_overrides": "dhcp4Overrides",
        "dhcp6_overrides": "dhcp6Overrides",
        "search_domains": "searchDomains",
        "addresses_from_pools": "addressesFromPools",
    },
):
    """A network of a failure domain, for the device of the same index."""

    network_name: str = ""
    dhcp4: bool | None = None
    dhcp6: bool | None = None
    nameservers: tuple[str, ...] = ()
    search_domains: tuple[str, ...] = ()
    dhcp4_overrides: DHCPOverrides | None = None
    dhcp6_overrides: DHCPOverrides | None = None
    addresses_from_pools: tuple[PoolRef, ...] = ()


class Topology(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """Where the machines of a failure domain are placed."""

    datacenter: str = ""
    compute_cluster: str = ""
    hosts: HostGroups | None = None
    networks: tuple[str, ...] = ()
    network_configurations: tuple[NetworkConfiguration, ...] = ()
    datastore: str = ""


class VSphereFailureDomainSpec(msgspec.Struct, frozen=True, omit_defaults=True):
    """Spec of a VSphereFailureDomain."""

    region: TagTarget = TagTarget()
    zone: TagTarget = TagTarget()
    topology: Topology = Topology()


class PlacementConstraint(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Resource pool and folder of a zone's machines."""

    resource_pool: str = ""
    folder: str = ""


class VSphereDeploymentZoneSpec(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """Spec of a VSphereDeploymentZone."""

    server: str = ""
    failure_domain: str = ""
    control_plane: bool = True
    placement_constraint: PlacementConstraint | None = None


class VSphereDeploymentZoneStatus(msgspec.Struct, frozen=True, omit_defaults=True):
    """Status of a VSphereDeploymentZone; `ready` is absent until it was looked at once."""

    ready: bool | None = None
    conditions: tuple[Condition, ...] = ()


def with_fields(part: Raw, **fields: Any) -> Raw:
    """Raw spec or status with top-level fields set by their JSON names, None removes one; all others stay.

    >>> bytes(with_fields(raw({"a": 1, "kept": []}), a=2, gone=None))
    b'{"a":2,"kept":[]}'
    """
    current = msgspec.json.decode(part) if part is not EMPTY and memoryview(part) else None
    merged: dict[str, Any] = {**(current or {}), **fields}
    return raw({name: value for name, value in merged.items() if value is not None})
