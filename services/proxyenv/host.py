"""The NO_PROXY list of a node's operating system: what a cluster knows of itself, and what its nodes know besides.

Responsible for: which facts belong into a node's list, and the shorter list for programs that cannot read all of it.
Invariants: loopback comes first, each entry once; what is not known is told, never guessed.
Must not know: where facts come from, where the list is written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from services.proxyenv import lists
from services.proxyenv.complete import NAMES, Completion, Facts, complete

if TYPE_CHECKING:
    from services.proxyenv.lists import Items

LOOPBACK = ("localhost", "127.0.0.1", "::1")
NODE_NETWORK = "node-network"
ENDPOINT = "control-plane-endpoint"
VCENTER = "vcenter"


class HostFacts(NamedTuple):
    """What is known of a node's surroundings: the cluster's facts, networks as CIDRs, addresses or host names."""

    cluster: Facts = Facts()
    node_networks: tuple[str, ...] = ()
    endpoint: tuple[str, ...] = ()
    vcenter: tuple[str, ...] = ()


def complete_host(facts: HostFacts, own: Items = ()) -> Completion:
    """Return every entry that is known, after the user's `own` ones; `missing` are names without facts."""
    cluster = complete(NAMES, facts.cluster)
    known = {NODE_NETWORK: facts.node_networks, ENDPOINT: facts.endpoint, VCENTER: facts.vcenter}
    entries = (*LOOPBACK, *own, *cluster.entries, *(entry for found in known.values() for entry in found))
    missing = (*cluster.missing, *(name for name, found in known.items() if not found))
    return Completion(entries=lists.collapsed(lists.unique(entries)), missing=missing)


def for_login_shells(items: Items) -> Items:
    """Return items without those that make a client fail in every process that has them: see `lists.problems`."""
    return tuple(item for item in items if not lists.is_ipv6_range(item) and not item.startswith("["))
