"""The cluster that a run takes place on: its own, so that nothing a former run left makes the next one slower.

Responsible for: CRDs, namespace, pool and credentials; waiting until the API server is done with starting.
"""

from __future__ import annotations

import os
import time
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from services.ipam import api
from services.runtime.kube import config
from services.runtime.kube.resource import CUSTOM_RESOURCE_DEFINITIONS, EVENTS
from services.runtime.kube.transport import Client
from services.runtime.leader import LEASES
from tests.bench import load
from tests.bench.party import Usage
from tools import capi
from tools.cluster import Cluster

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

_CRDS = Path(__file__).resolve().parents[2] / "deploy" / "crds"
_GROUPS = (api.METAL3_GROUP, api.OWN_GROUP, api.CAPI_GROUP, api.CLUSTERS[0].group)
_SETTLE_SECONDS = 40.0
_QUIET_SECONDS = 3
_QUIET_CORES = 0.15


class Stage(NamedTuple):
    """A running cluster, and the credentials that everybody on it uses.

    They are a ServiceAccount's, as in production: the API server remembers a token that it has verified, but verifies a
    client certificate with every request.
    """

    cluster: Cluster
    kubeconfig: Path

    def usage(self, **pids: int) -> Usage:
        """CPU time from now on: of the control plane, of this process, and of others by name."""
        etcd, server = self.cluster.etcd.daemon.pid, self.cluster.apiserver.daemon.pid
        if etcd is None or server is None:
            raise load.BenchError("the cluster has died")
        return Usage({"server": server, "etcd": etcd, "bench": os.getpid(), **pids})

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        """A client of the bench's own."""
        async with Client(await config.load(self.kubeconfig), user_agent="groundwork-bench") as client:
            yield client

    def settle(self) -> None:
        """Wait until the API server is through with what it does after its start (OpenAPI, RBAC, informers)."""
        deadline, quiet = time.monotonic() + _SETTLE_SECONDS, 0
        while quiet < _QUIET_SECONDS and time.monotonic() < deadline:
            usage = self.usage()
            time.sleep(1.0)
            quiet = quiet + 1 if usage.so_far()[0]["server"] < _QUIET_CORES else 0


@contextmanager
def stage(*definitions: Mapping[str, Any], groups: Sequence[str] = ()) -> Iterator[Stage]:
    """Set one up for the body of the `with`, with more definitions and rights on more API groups if given."""
    with Cluster.temporary() as cluster:
        cluster.install_crds(_CRDS, *capi.crds(), *definitions)
        cluster.apply(*load.manifests())
        allowed = [(group, "*") for group in (*_GROUPS, *groups)] + [("", "pods")]
        allowed += [(other.group, other.plural) for other in (LEASES, EVENTS, CUSTOM_RESOURCE_DEFINITIONS)]
        rules = [{"apiGroups": [group], "resources": [plural], "verbs": ["*"]} for group, plural in allowed]
        ready = Stage(cluster, cluster.service_account_kubeconfig("groundwork-system", "bench", rules))
        ready.settle()
        yield ready
