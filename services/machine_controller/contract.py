"""The objects of Cluster API and Kubernetes that machines are made with, as typed views.

Responsible for: names of resources and the few fields that are read of a Cluster, a Machine, an IPAddressClaim, an
IPAddress, a Secret and a ConfigMap. Each resource of Cluster API is a row of candidates, the newest version first; one
Struct reads the fields of all of them.
Invariants: what a Secret holds is in no repr.
Must not know: when anything is read or written.
Sources: cluster-api v1.14 api/core and api/ipam, the contracts "Bootstrap" and "IPAM" of the Cluster API book.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING

import msgspec

from services import clusterapi
from services.runtime.kube.objects import KubeObject, ObjectKey, view
from services.runtime.kube.resource import Resource

if TYPE_CHECKING:
    from collections.abc import Collection

CLUSTER_GROUP = clusterapi.CLUSTER_GROUP
IPAM_GROUP = clusterapi.IPAM_GROUP
CLUSTER_NAME_LABEL = clusterapi.CLUSTER_NAME_LABEL
CONTROL_PLANE_LABEL = "cluster.x-k8s.io/control-plane"
PAUSED_ANNOTATION = clusterapi.PAUSED_ANNOTATION
MACHINES = clusterapi.MACHINES
CLUSTERS = clusterapi.CLUSTERS
IP_ADDRESS_CLAIMS = clusterapi.IP_ADDRESS_CLAIMS
IP_ADDRESSES = clusterapi.IP_ADDRESSES
SECRETS = Resource("", "v1", "secrets", "Secret", namespaced=True)
CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap", namespaced=True)


class Bootstrap(msgspec.Struct, frozen=True, rename="camel"):
    """`spec.bootstrap` of a Machine; the name comes when the data is there."""

    data_secret_name: str | None = None


class MachineSpec(msgspec.Struct, frozen=True, rename="camel"):
    """Spec of a Machine."""

    cluster_name: str = ""
    failure_domain: str | None = None
    bootstrap: Bootstrap = Bootstrap()


class Endpoint(msgspec.Struct, frozen=True):
    """`controlPlaneEndpoint` of a Cluster."""

    host: str = ""
    port: int = 0


class Blocks(msgspec.Struct, frozen=True, rename="camel"):
    """Networks as CIDRs."""

    cidr_blocks: tuple[str, ...] = ()


class ClusterNetwork(msgspec.Struct, frozen=True):
    """`clusterNetwork` of a Cluster."""

    services: Blocks | None = None
    pods: Blocks | None = None


class ClusterSpec(msgspec.Struct, frozen=True, rename="camel"):
    """Spec of a Cluster."""

    paused: bool | None = None
    control_plane_endpoint: Endpoint | None = None
    cluster_network: ClusterNetwork | None = None


class ClusterInitialization(msgspec.Struct, frozen=True, rename="camel"):
    """`status.initialization` of a Cluster, v1beta2."""

    infrastructure_provisioned: bool | None = None
    control_plane_initialized: bool | None = None


class ClusterStatus(msgspec.Struct, frozen=True, rename="camel"):
    """Status of a Cluster; `infrastructureReady` is v1beta1's word."""

    initialization: ClusterInitialization | None = None
    infrastructure_ready: bool | None = None


class PoolRef(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """`poolRef` of an IPAddressClaim."""

    api_group: str = ""
    kind: str = ""
    name: str = ""


class ClaimSpec(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Spec of an IPAddressClaim."""

    pool_ref: PoolRef = PoolRef()


class AddressRef(msgspec.Struct, frozen=True):
    """Name of an IPAddress in the claim's namespace."""

    name: str = ""


class ClaimCondition(msgspec.Struct, frozen=True):
    """A condition of a claim, of either version."""

    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""


class ClaimStatus(msgspec.Struct, frozen=True, rename="camel"):
    """Status of an IPAddressClaim."""

    address_ref: AddressRef | None = None
    conditions: tuple[ClaimCondition, ...] = ()


class AddressSpec(msgspec.Struct, frozen=True):
    """Spec of an IPAddress; `prefix` is missing where a provider does not know it."""

    address: str = ""
    prefix: int | None = None
    gateway: str | None = None


class Secret(KubeObject, frozen=True, omit_defaults=True, kw_only=True):
    """A Secret; its repr has the keys alone."""

    type: str = ""
    data: dict[str, str] | None = None

    def __repr__(self) -> str:
        return f"Secret({self.key}, keys {sorted(self.data or {})})"

    def value(self, key: str) -> bytes | None:
        """Content of a key; None when there is none, or nothing that is base64."""
        text = (self.data or {}).get(key)
        try:
            return base64.b64decode(text, validate=True) if text is not None else None
        except binascii.Error:
            return None

    def texts(self) -> dict[str, str]:
        """Contents that are text."""
        values = {key: self.value(key) for key in self.data or {}}
        return {key: value.decode() for key, value in values.items() if value is not None and _is_text(value)}


def _is_text(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


class ConfigMap(KubeObject, frozen=True, omit_defaults=True, kw_only=True):
    """A ConfigMap."""

    data: dict[str, str] | None = None


def is_paused(*objects: KubeObject | None) -> bool:
    """Whether one of the objects carries the pause annotation, whatever its value; a Cluster may say so in its spec."""
    return any(
        PAUSED_ANNOTATION in (obj.metadata.annotations or {})
        or (obj.kind == "Cluster" and bool(view(obj.spec, ClusterSpec).paused))
        for obj in objects
        if obj is not None
    )


def infrastructure_provisioned(cluster: KubeObject) -> bool:
    """Whether Cluster API has seen the cluster's infrastructure ready."""
    status = view(cluster.status, ClusterStatus)
    initialization = status.initialization
    modern = initialization is not None and bool(initialization.infrastructure_provisioned)
    return modern or bool(status.infrastructure_ready)


def owner(obj: KubeObject, kind: str, groups: Collection[str] = (CLUSTER_GROUP,)) -> ObjectKey | None:
    """Key of the owner of some kind, in the same namespace."""
    for ref in obj.metadata.ownerReferences:
        if ref.kind == kind and ref.apiVersion.partition("/")[0] in groups:
            return ObjectKey(obj.metadata.namespace, ref.name)
    return None


def cluster_name(obj: KubeObject) -> str:
    """Name of the Cluster that an object says it belongs to, or ""."""
    label = (obj.metadata.labels or {}).get(CLUSTER_NAME_LABEL, "")
    key = owner(obj, "Cluster")
    return label or (key.name if key is not None else "")
