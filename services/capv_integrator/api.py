"""The objects of others that the integrator reads and completes, as typed views, and the words it adds to them.

Responsible for: names of resources, the few fields that are read, labels, annotations and finalizers of our own. Every
resource of Cluster API and CAPV is a row of candidates, the newest version first; a field that has the same JSON name
in all of them is read by one Struct.
Invariants: a view has only what is read; what is written goes back as a patch or with every unknown field in place.
Must not know: when anything is read or written.
Sources: cluster-api v1.14 api/core and api/ipam, cluster-api-provider-vsphere v1.16 apis/{v1beta1,v1beta2}, metal3
ip-address-manager api/v1alpha1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from services import clusterapi
from services.runtime.kube.objects import view
from services.runtime.kube.resource import Resource

if TYPE_CHECKING:
    from services.runtime.kube.objects import KubeObject

INFRASTRUCTURE_GROUP = "infrastructure.cluster.x-k8s.io"
CLUSTER_GROUP = clusterapi.CLUSTER_GROUP
IPAM_GROUP = clusterapi.IPAM_GROUP
METAL3_GROUP = "ipam.metal3.io"
OWN_GROUP = "ipam.groundwork.dev"


VSPHERE_MACHINES = clusterapi.versions(INFRASTRUCTURE_GROUP, "vspheremachines", "VSphereMachine")
VSPHERE_VMS = clusterapi.versions(INFRASTRUCTURE_GROUP, "vspherevms", "VSphereVM")
VSPHERE_CLUSTERS = clusterapi.versions(INFRASTRUCTURE_GROUP, "vsphereclusters", "VSphereCluster")
VSPHERE_MACHINE_TEMPLATES = clusterapi.versions(
    INFRASTRUCTURE_GROUP, "vspheremachinetemplates", "VSphereMachineTemplate"
)
MACHINES = clusterapi.MACHINES
CLUSTERS = clusterapi.CLUSTERS
IP_ADDRESS_CLAIMS = clusterapi.IP_ADDRESS_CLAIMS
IP_ADDRESSES = clusterapi.IP_ADDRESSES
METAL3_CLAIMS = (Resource(METAL3_GROUP, "v1alpha1", "ipclaims", "IPClaim", namespaced=True),)
METAL3_ADDRESSES = (Resource(METAL3_GROUP, "v1alpha1", "ipaddresses", "IPAddress", namespaced=True),)

CLAIMS = {"IPAddressClaim": IP_ADDRESS_CLAIMS, "IPClaim": METAL3_CLAIMS}
"""Resources of each kind of claim, the preferred kind first."""
ADDRESSES = {"IPAddressClaim": IP_ADDRESSES, "IPClaim": METAL3_ADDRESSES}
"""Resources of the IPAddresses made for a kind of claim."""

POOLS = {
    "IPPool": (Resource(METAL3_GROUP, "v1alpha1", "ippools", "IPPool", namespaced=True),),
    "InClusterIPPool": tuple(
        Resource(IPAM_GROUP, version, "inclusterippools", "InClusterIPPool", namespaced=True)
        for version in ("v1alpha2", "v1alpha1")
    ),
    "GlobalIPPool": (Resource(OWN_GROUP, "v1alpha1", "globalippools", "GlobalIPPool", namespaced=False),),
    "GlobalInClusterIPPool": tuple(
        Resource(IPAM_GROUP, version, "globalinclusterippools", "GlobalInClusterIPPool", namespaced=False)
        for version in ("v1alpha2", "v1alpha1")
    ),
}
"""Kinds of pool whose objects are looked at; a name without a kind is looked for in this order."""

OWNERS = {"VSphereMachine": VSPHERE_MACHINES, "VSphereCluster": VSPHERE_CLUSTERS}
"""Resources of the kinds that claims are made for."""

_BY_TYPE = {
    (resource.api_version, resource.kind): resource
    for row in (VSPHERE_MACHINES, VSPHERE_CLUSTERS, IP_ADDRESS_CLAIMS, METAL3_CLAIMS)
    for resource in row
}


def resource_of(obj: KubeObject) -> Resource:
    """Resource that an object which is written to (a claim or its owner) was read from."""
    return _BY_TYPE[obj.apiVersion, obj.kind]


# Words of Cluster API, clusterctl and CAPV.

CLUSTER_NAME_LABEL = clusterapi.CLUSTER_NAME_LABEL
PAUSED_ANNOTATION = clusterapi.PAUSED_ANNOTATION
TEMPLATE_ANNOTATION = "cluster.x-k8s.io/cloned-from-name"
MOVE_LABEL = "clusterctl.cluster.x-k8s.io/move-hierarchy"
"""clusterctl moves an object with this label and all that it owns, whoever owns it."""
WAITING_REASON = "WaitingForStaticIPAllocation"
WAITING_CONDITIONS = ("VirtualMachineProvisioned", "VMProvisioned")
READY = "Ready"
DEFAULT_PORT = 6443

# Words of the old integrator (spectrocloud cluster-api-provider-vsphere-static-ip), which stay understood.

OLD_POOL_NAME_LABEL = "cluster.x-k8s.io/ip-pool-name"
OLD_POOL_GROUP_LABEL = "cluster.x-k8s.io/ip-pool-group"
OLD_NETWORK_LABEL = "cluster.x-k8s.io/network-name"
OLD_POOL_NAMESPACE_ANNOTATION = "cluster.x-k8s.io/ip-pool-namespace"
OLD_SEARCH_DOMAINS_ANNOTATION = "cluster.x-k8s.io/dns-search-domains"

PLACED_DEVICES_ANNOTATION = "machine.groundwork.dev/devices"
"""On a VSphereMachine, where the machine controller runs instead of CAPV: what CAPV writes into the VSphereVM."""

# Words of our own.

PREFIX = "integrator.groundwork.dev"
POOLS_ANNOTATION = f"{PREFIX}/pools"
"""On a VSphereMachine, VSphereMachineTemplate or VSphereCluster: which pools; see `annotations`."""
SEARCH_DOMAINS_ANNOTATION = f"{PREFIX}/search-domains"
"""On the same and on pools: search domains, separated by commas."""
NETWORK_KEY = f"{PREFIX}/network"
FAILURE_DOMAIN_KEY = f"{PREFIX}/failure-domain"
CLUSTER_KEY = f"{PREFIX}/cluster"
"""Labels of pools, or annotations (several values, separated by commas): whose NICs may be served out of them."""
USE_LABEL = f"{PREFIX}/use"
USE_ENDPOINTS = "endpoints"
"""Value of `USE_LABEL` on pools that are for control-plane endpoints, not for NICs."""
CLAIMS_ANNOTATION = f"{PREFIX}/claims"
"""On a VSphereMachine or VSphereCluster: the claims whose addresses were written into it, separated by commas."""
OWNER_KIND_LABEL = f"{PREFIX}/owner-kind"
"""On claims: VSphereMachine or VSphereCluster. Claims without it are not ours."""
OWNER_ANNOTATION = f"{PREFIX}/owner"
"""On claims: name of the owner, in the same namespace."""
DEVICE_ANNOTATION = f"{PREFIX}/device"
"""On claims of a VSphereMachine: index of the device in spec.network.devices."""
FAMILY_ANNOTATION = f"{PREFIX}/family"
"""On claims: `ipv4` or `ipv6`."""
CLAIM_FINALIZER = f"{PREFIX}/in-use"
CLAIM_CONDITION = f"{PREFIX}/Written"
"""Condition of a claim: its address stands in the spec of its owner."""
OWNER_CONDITION = f"{PREFIX}/StaticAddresses"
"""Condition of a VSphereMachine or VSphereCluster that could not be served at some time."""


class PoolRef(NamedTuple):
    """Identity of a pool of any provider; namespace is empty for one of cluster scope."""

    group: str
    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        """`IPPool ns/name`, the form used in messages."""
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


class Network(msgspec.Struct, frozen=True):
    """`network` of a VSphereMachine or VSphereVM; a device stays as it came, since its text is tested in patches."""

    devices: list[dict[str, Any]] | None = None


class VSphereMachineSpec(msgspec.Struct, frozen=True):
    """Spec of a VSphereMachine or VSphereVM."""

    network: Network = Network()


class VSphereClusterSpec(msgspec.Struct, frozen=True, rename="camel"):
    """Spec of a VSphereCluster. v1beta1 writes an empty endpoint as host "" and port 0, v1beta2 leaves it out."""

    control_plane_endpoint: dict[str, Any] | None = None


class MachineSpec(msgspec.Struct, frozen=True, rename="camel"):
    """Spec of Cluster API's Machine."""

    cluster_name: str = ""
    failure_domain: str | None = None


class Endpoint(msgspec.Struct, frozen=True):
    """`controlPlaneEndpoint` of Cluster API's Cluster."""

    host: str = ""
    port: int = 0


class ClusterSpec(msgspec.Struct, frozen=True, rename="camel"):
    """Spec of Cluster API's Cluster."""

    paused: bool | None = None
    control_plane_endpoint: Endpoint = Endpoint()


class CapiPoolRef(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """`poolRef` of the Cluster API contract; `apiGroup` is optional in v1beta1 only."""

    api_group: str = ""
    kind: str = ""
    name: str = ""


class NameRef(msgspec.Struct, frozen=True, omit_defaults=True):
    """A reference by name, with a namespace in metal3's API."""

    name: str = ""
    namespace: str = ""


class ClaimSpec(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Spec of IPAddressClaim."""

    cluster_name: str = ""
    pool_ref: CapiPoolRef = CapiPoolRef()


class ClaimStatus(msgspec.Struct, frozen=True, rename="camel"):
    """The part of IPAddressClaim's status that is the same in v1beta1 and v1beta2."""

    address_ref: NameRef | None = None


class ObjectRef(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """The fields of core/v1 ObjectReference that are used here."""

    api_version: str = ""
    kind: str = ""
    namespace: str = ""
    name: str = ""


class Metal3ClaimSpec(msgspec.Struct, frozen=True):
    """Spec of metal3's IPClaim."""

    pool: ObjectRef = ObjectRef()


class Metal3ClaimStatus(msgspec.Struct, frozen=True, rename="camel"):
    """Status of metal3's IPClaim."""

    address: NameRef | None = None
    error_message: str | None = None


class AddressSpec(msgspec.Struct, frozen=True, rename="camel"):
    """What the IPAddresses of both groups say; `dnsServers` and `claim` are metal3's, `claimRef` Cluster API's."""

    address: str = ""
    prefix: int | None = None
    gateway: str | None = None
    dns_servers: tuple[str, ...] | None = None
    claim: NameRef = NameRef()
    claim_ref: NameRef = NameRef()


def devices_of(obj: KubeObject) -> list[dict[str, Any]] | None:
    """`spec.network.devices` of a VSphereMachine or VSphereVM; None when it is not there."""
    return view(obj.spec, VSphereMachineSpec).network.devices


def placed_devices(obj: KubeObject) -> list[dict[str, Any]] | None:
    """Devices that a failure domain gives a VSphereMachine, where there are no VSphereVMs; None when nobody said."""
    text = (obj.metadata.annotations or {}).get(PLACED_DEVICES_ANNOTATION)
    try:
        return msgspec.json.decode(text, type=list[dict[str, Any]]) if text else None
    except msgspec.DecodeError:
        return None
