"""Everything that a fault run is about: control plane, vCenter, six processes of four services, and the stand-ins.

Responsible for: starting it all in the right order, the gate before each process, and the Service before the webhook.
Invariant: two allocators and two webhooks run, and each process elects a leader among its kind with a short Lease.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import yaml

from tests.faults import network as networks
from tests.faults.gate import Gate
from tests.faults.plan import LEASE_SECONDS
from tests.faults.replica import Replica, faketime
from tests.integration.proxy import kubeconfig_at
from tests.support.capv import Capv, VCenter
from tests.support.capv_cluster_api import ClusterApi, GarbageCollector
from tests.support.hooks import Balancer
from tests.support.kube import Kube, eventually
from tests.support.machine_site import Guests
from tests.support.vcenter import Vcsim
from tests.support.webhook import CONFIGURATION
from tools import capi
from tools.cluster import Cluster
from tools.paths import ROOT
from tools.process import free_ports

PLACES = {"claims": "fault-claims", "capv": "fault-capv", "site": "fault-site", "pods": "fault-pods"}
CERTIFICATES = "groundwork-podpreset-certificates"
CONFIGURATION_NAME = "groundwork-podpreset"
_KINDS = {"VSphereMachine", "VSphereVM", "VSphereCluster", "VSphereMachineTemplate", "VSphereDeploymentZone"}
_KINDS |= {"VSphereFailureDomain", "Machine"}
_GUEST_SECONDS = 0.3
_READY_SECONDS = 0.5
_START_SECONDS = 180.0


def possible():
    """What this machine has that some faults need."""
    return {name for name, found in (("netns", networks.possible()), ("faketime", faketime())) if found}


class Estate:
    """See `running`."""

    def __init__(self, folder, seed, having, lease):
        self.folder = folder
        self.lease = lease
        self.seed = seed
        self.having = having
        self.cluster = self.sim = self.kube = self.network = None
        self.replicas, self.gates = {}, {}
        self.balancer = Balancer()
        self.vcenter = VCenter()
        self.stand_ins = []

    @classmethod
    @contextlib.asynccontextmanager
    async def running(cls, folder, seed, having, lease=LEASE_SECONDS):
        """Everything ready, for the body of the `async with`; logs go to `folder`."""
        estate = cls(Path(folder), seed, having, lease)
        async with contextlib.AsyncExitStack() as stack:
            await estate._start(stack)
            yield estate

    async def _start(self, stack):
        self.cluster = stack.enter_context(Cluster.temporary())
        self.sim = stack.enter_context(Vcsim.running(cluster=1))
        await asyncio.to_thread(self._define)
        self.kube = await stack.enter_async_context(Kube.connect(self.cluster.kubeconfig))
        client, places = self.kube.client, list(PLACES.values())
        self.stand_ins = [
            Capv(client, self.vcenter, [PLACES["capv"]]),
            ClusterApi(client, [PLACES["capv"], PLACES["site"]]),
            GarbageCollector(client, places),
        ]
        for part in (*self.stand_ins, Guests(self.sim, every=_GUEST_SECONDS), self.balancer):
            await stack.enter_async_context(part.running() if hasattr(part, "running") else part)
        await asyncio.to_thread(self._configure_webhook)
        if "netns" in self.having:
            self.network = stack.enter_context(networks.made())
        await self._add_replicas(stack)
        watching = asyncio.create_task(self._watch_readiness())
        stack.push_async_callback(_cancelled, watching)
        await eventually(self.all_ready, within=_START_SECONDS)

    def _define(self):
        found = [
            crd
            for crd in capi.crds("machines.cluster.x-k8s.io", "infrastructure.cluster.x-k8s.io")
            if crd["spec"]["names"]["kind"] in _KINDS
        ]
        self.cluster.install_crds(ROOT / "deploy" / "crds", *capi.crds(), *found)
        self.cluster.apply(
            *({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in PLACES.values())
        )

    def _configure_webhook(self):
        """The configuration that users get, for the pods of one namespace: they are admitted with it or not at all."""
        made = yaml.safe_load(CONFIGURATION.read_text())
        (hook,) = made["webhooks"]
        hook["clientConfig"] = {"url": f"https://127.0.0.1:{self.balancer.port}/mutate"}
        hook["namespaceSelector"]["matchLabels"] = {"kubernetes.io/metadata.name": PLACES["pods"]}
        hook["failurePolicy"] = "Fail"
        self.cluster.apply(made)

    async def _add_replicas(self, stack):
        renew, retry = self.lease * 2 / 3, self.lease / 6
        common = [
            "--lease-namespace=default",
            f"--lease-duration={self.lease:g}s",
            f"--renew-deadline={renew:g}s",
            f"--retry-period={retry:g}s",
        ]
        webhook = [
            f"--cert-secret={CERTIFICATES}",
            f"--webhook-configuration={CONFIGURATION_NAME}",
            "--cert-name=127.0.0.1",
            "--status-period=1s",
            "--drain-seconds=1",
        ]
        self.webhook_ports = dict(zip(("webhook-a", "webhook-b"), free_ports(2), strict=True))
        for name, module, flags in (
            ("ipam-a", "ipam", ["--orphan-grace-seconds=2"]),
            ("ipam-b", "ipam", ["--orphan-grace-seconds=2"]),
            ("integrator", "capv_integrator", ["--orphan-grace-seconds=2"]),
            *(
                (name, "podpreset", [*webhook, f"--webhook-address=127.0.0.1:{port}"])
                for name, port in self.webhook_ports.items()
            ),
            ("machines", "machine_controller", ["--all", f"--watch-namespace={PLACES['site']}"]),
        ):
            inside = self.network if name == "ipam-b" else None
            host = inside.host if inside else "127.0.0.1"
            gate = await stack.enter_async_context(Gate(self.cluster.kubeconfig, f"{self.seed} {name}", (host,)))
            kubeconfig = kubeconfig_at(self.cluster.kubeconfig, gate.url(host), self.folder / f"{name}.kubeconfig")
            options = {"host": inside.inside, "prefix": inside.command} if inside else {}
            replica = Replica(
                name,
                f"services.{module}",
                self.folder,
                [f"--kubeconfig={kubeconfig}", *common, *flags],
                **options,
            )
            self.gates[name], self.replicas[name] = gate, replica
            await stack.enter_async_context(replica.kept_running())

    async def _watch_readiness(self):
        """As endpoints of a Service: only replicas that say they are ready are sent new connections."""
        while True:
            names = list(self.webhook_ports)
            ready = await asyncio.gather(*(asyncio.to_thread(self.replicas[name].ready) for name in names))
            self.balancer.backends = [self.webhook_ports[name] for name, yes in zip(names, ready, strict=True) if yes]
            await asyncio.sleep(_READY_SECONDS)

    async def all_ready(self):
        """Whether every process says that it is ready."""
        asked = [asyncio.to_thread(replica.ready) for replica in self.replicas.values()]
        return all(await asyncio.gather(*asked))

    def mistakes(self):
        """What the stand-ins did wrong themselves."""
        return [mistake for part in self.stand_ins for mistake in part.mistakes]


async def _cancelled(task):
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
