"""Names that a shell offers: of pools, presets and namespaces in the cluster, of contexts in the kubeconfig.

Invariants: nothing here fails or waits for long, since it runs while somebody types: no cluster means no names. Of each
resource one page is read at most, and metadata alone.
Must not know: what the names are completed for.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from services import access
from services.runtime.kube.errors import KubeError
from services.runtime.kube.objects import KubeObject, decode_page
from services.runtime.kube.resource import Resource
from services.runtime.kube.transport import Client

if TYPE_CHECKING:
    import argparse

SECONDS = 2.0
"""How long a key press may wait for the API server, unless VARIABLE says otherwise."""
VARIABLE = "GROUNDWORK_COMPLETION_SECONDS"
LIMIT = 500
_METADATA = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"

_RESOURCES = {
    access.NAMESPACES: (Resource("", "v1", "namespaces", "Namespace", namespaced=False),),
    "pools": (
        Resource("ipam.metal3.io", "v1alpha1", "ippools", "IPPool", namespaced=True),
        Resource("ipam.groundwork.dev", "v1alpha1", "globalippools", "GlobalIPPool", namespaced=False),
    ),
    "presets": (
        Resource("reach.spectrocloud.com", "v1alpha1", "podpresets", "PodPreset", namespaced=True),
        Resource("reach.spectrocloud.com", "v1alpha1", "clusterpodpresets", "ClusterPodPreset", namespaced=False),
    ),
}


class Name(NamedTuple):
    """The name of an object."""

    kind: str
    namespace: str
    name: str


async def find(kind: str, options: argparse.Namespace) -> list[str]:
    """Return the names of a kind, as its flag takes them; none where they cannot be had."""
    if kind == access.CONTEXTS:
        return access.contexts(options.kubeconfig)
    if kind not in _RESOURCES:
        return []
    try:
        async with asyncio.timeout(seconds := patience()):
            found = await _read(_RESOURCES[kind], options, seconds)
    except (KubeError, OSError, TimeoutError, msgspec.MsgspecError):
        return []
    return written(kind, found)


def patience() -> float:
    """Seconds that may be waited."""
    try:
        return max(0.0, float(os.environ.get(VARIABLE) or SECONDS))
    except ValueError:
        return SECONDS


def written(kind: str, found: list[Name]) -> list[str]:
    """Return names in the form that a flag takes."""
    whole = [f"{each.namespace}/{each.name}" if kind == "pools" and each.namespace else each.name for each in found]
    return sorted(set(whole))


async def _read(resources: tuple[Resource, ...], options: argparse.Namespace, seconds: float) -> list[Name]:
    connection = await access.connect(options)
    async with Client(connection, user_agent="groundwork-completion", timeout=seconds) as client:
        pages = await asyncio.gather(*(_page(client, resource) for resource in resources))
    return [name for page in pages for name in page]


async def _page(client: Client, resource: Resource) -> list[Name]:
    body = await client.raw("GET", f"{resource.path()}?limit={LIMIT}", headers={"Accept": _METADATA})
    items = decode_page(body, KubeObject).items or ()
    return [Name(resource.kind, obj.metadata.namespace, obj.metadata.name) for obj in items]
