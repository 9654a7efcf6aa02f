"""The words of Cluster API that more than one service speaks: groups, resources, labels and annotations.

Invariant: each resource is a row of candidates, the newest version first.
Must not know: any service, what is read of an object, when.
Sources: cluster-api v1.14 api/core and api/ipam; the Cluster API book.
"""

from __future__ import annotations

from services.runtime.kube.resource import Resource

CLUSTER_GROUP = "cluster.x-k8s.io"
IPAM_GROUP = "ipam.cluster.x-k8s.io"
CLUSTER_NAME_LABEL = "cluster.x-k8s.io/cluster-name"
PAUSED_ANNOTATION = "cluster.x-k8s.io/paused"


def versions(group: str, plural: str, kind: str) -> tuple[Resource, ...]:
    """Candidates for a namespaced resource of the contract: v1beta2, or v1beta1 where that is all there is."""
    return tuple(Resource(group, version, plural, kind, namespaced=True) for version in ("v1beta2", "v1beta1"))


MACHINES = versions(CLUSTER_GROUP, "machines", "Machine")
CLUSTERS = versions(CLUSTER_GROUP, "clusters", "Cluster")
IP_ADDRESS_CLAIMS = versions(IPAM_GROUP, "ipaddressclaims", "IPAddressClaim")
IP_ADDRESSES = versions(IPAM_GROUP, "ipaddresses", "IPAddress")
