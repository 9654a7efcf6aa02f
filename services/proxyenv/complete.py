"""Entries of NO_PROXY that a cluster knows of itself, each by a name of its own.

Responsible for: turning names such as `service-cidr` into entries, from facts that someone else found.
Invariants: the entries come in the order of the names asked for, each once; what is not known is told, never guessed.
Must not know: where facts come from, what a list is merged with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

METADATA_ADDRESS = "169.254.169.254"
"""Where the clouds' instance metadata is; AWS, Azure, GCP and OpenStack agree on it."""

SVC = ".svc"
CLUSTER_LOCAL = ".cluster.local"
SERVICE_CIDR = "service-cidr"
POD_CIDR = "pod-cidr"
API_SERVER = "api-server"
METADATA = "metadata"
NAMES = (SVC, CLUSTER_LOCAL, SERVICE_CIDR, POD_CIDR, API_SERVER, METADATA)


class Facts(NamedTuple):
    """What is known of the cluster: CIDRs, and addresses or host names."""

    service_cidrs: tuple[str, ...] = ()
    pod_cidrs: tuple[str, ...] = ()
    api_server: tuple[str, ...] = ()
    metadata: tuple[str, ...] = (METADATA_ADDRESS,)


class Completion(NamedTuple):
    """`entries` for a list, `missing` names of which nothing is known, `unknown` names that mean nothing."""

    entries: tuple[str, ...]
    missing: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


def complete(include: Sequence[str], facts: Facts) -> Completion:
    """Return the entries that `include` (of `NAMES`) asks for."""
    known = {
        SVC: (SVC,),
        CLUSTER_LOCAL: (CLUSTER_LOCAL,),
        SERVICE_CIDR: facts.service_cidrs,
        POD_CIDR: facts.pod_cidrs,
        API_SERVER: facts.api_server,
        METADATA: facts.metadata,
    }
    entries = dict.fromkeys(entry for name in include for entry in known.get(name, ()))
    return Completion(
        entries=tuple(entries),
        missing=tuple(name for name in include if name in known and not known[name]),
        unknown=tuple(name for name in include if name not in known),
    )
