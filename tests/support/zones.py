"""Failure domains as tests need them: a vCenter to break and mend, objects as users write them, the service beside it.

Responsible for: what an administrator does in vCenter (renaming, tagging, rules) and in the cluster (objects, Secrets).
Invariant: everything that a world makes has a name of its own, so that worlds on one vCenter do not see one another.
"""

from __future__ import annotations

import base64
import uuid
from contextlib import asynccontextmanager, suppress

from pyVmomi import vim

from services.machine_controller import api, contract
from services.machine_controller import service as machine_controller
from services.machine_controller.settings import MachineSettings
from services.machine_controller.vsphere.values import AffinityRule, Cardinality
from services.machine_controller.vsphere.vcenter import VCenters
from services.runtime.kube.errors import NotFound
from services.runtime.kube.objects import ObjectKey
from tests.support.capv_services import InProcess
from tests.support.kube import Kube, eventually, manifest
from tests.support.vcenter import PASSWORD, USER

PERIOD = 0.3
OPERATOR, OPERATOR_PASSWORD = "operator@vsphere.local", "canary-0perator"
ZONES, DOMAINS = api.VSPHERE_DEPLOYMENT_ZONES, api.VSPHERE_FAILURE_DOMAINS
MACHINES, CLUSTERS = contract.MACHINES[0], contract.CLUSTERS[0]


def secret(name, namespace, sim, password=OPERATOR_PASSWORD):
    content = {"username": OPERATOR, "password": password, "ca.crt": sim.ca.decode()}
    data = {key: base64.b64encode(value.encode()).decode() for key, value in content.items()}
    return {**manifest(contract.SECRETS, name, namespace), "data": data}


def condition(obj, type_):
    """A condition of an object as `(status, reason, message)`; None when there is none."""
    rows = (obj or {}).get("status", {}).get("conditions", ())
    return next(((row["status"], row["reason"], row["message"]) for row in rows if row["type"] == type_), None)


class World:
    """One namespace, one tag category for each of region and zone, and a service that looks at zones all the time."""

    def __init__(self, kube, vc, sim, cluster, namespace):
        self.kube = kube
        self.vc = vc
        self.sim = sim
        self.cluster = cluster
        self.namespace = namespace
        self.id = uuid.uuid4().hex[:8]
        self.tags = {}
        self._made = []

    @classmethod
    @asynccontextmanager
    async def start(cls, cluster, namespace, sim, **settings):
        async with Kube.connect(cluster.kubeconfig) as kube, VCenters() as vcenters:
            vc = vcenters.get(sim.server, "administrator", sim.credentials, sim.trust)
            world = cls(kube, vc, sim, cluster, namespace)
            sim.users({USER: PASSWORD, OPERATOR: OPERATOR_PASSWORD})
            await kube.create(contract.SECRETS, secret("vcenter", namespace, sim))
            world.running = world.service(**settings)
            await world.running.start()
            try:
                yield world
                await world._delete_all()
            finally:
                # Not the one that was started here: a test may have put another in its place.
                if world.running.running_now:
                    await world.running.stop()
                await world._untag()

    def service(self, kubeconfig=None, **settings):
        return InProcess(
            machine_controller,
            MachineSettings,
            kubeconfig or self.cluster.kubeconfig,
            **{"identity_secret": ObjectKey(self.namespace, "vcenter"), "zone_period": PERIOD, "all": True, **settings},
        )

    def name(self, text):
        return f"{text}-{self.id}"

    @property
    def server(self):
        return str(self.sim.server)

    # Objects

    def domain(self, name="a", **topology):
        """A failure domain: its region the datacenter, its zone a cluster."""
        spec = {
            "region": {"name": "eu", "type": "Datacenter", "tagCategory": self.name("region")},
            "zone": {"name": name, "type": "ComputeCluster", "tagCategory": self.name("zone")},
            "topology": {"datacenter": "DC0", "computeCluster": "DC0_C0", **topology},
        }
        return manifest(DOMAINS, self.name(name), spec=spec)

    def zone(self, name="a", domain=None, **spec):
        spec = {"server": self.server, "failureDomain": self.name(domain or name), **spec}
        return manifest(ZONES, self.name(name), spec=spec, labels={"world": self.id})

    def vsphere_cluster(self, name="c", **spec):
        endpoint = {"host": "192.0.2.10", "port": 6443}
        spec = {"server": self.server, "controlPlaneEndpoint": endpoint, **spec}
        labels = {contract.CLUSTER_NAME_LABEL: name}
        return manifest(api.VSPHERE_CLUSTERS, name, self.namespace, spec, labels=labels)

    def capi_cluster(self, name="c"):
        reference = {"apiGroup": api.GROUP, "kind": "VSphereCluster", "name": name}
        return manifest(CLUSTERS, name, self.namespace, {"infrastructureRef": reference})

    async def create(self, *objects):
        resources = {each.kind: each for each in (ZONES, DOMAINS, MACHINES, CLUSTERS, api.VSPHERE_CLUSTERS)}
        for obj in objects:
            resource = resources[obj["kind"]]
            created = await self.kube.create(resource, obj)
            self.made(resource, obj["metadata"]["name"], obj["metadata"].get("namespace", ""))
        return created

    def made(self, resource, name, namespace=""):
        """Have an object deleted in the end that somebody else has made."""
        self._made.append((resource, name, namespace))

    async def _delete_all(self):
        for resource, name, namespace in reversed(self._made):
            with suppress(NotFound):
                await self.kube.force_delete(resource, name, namespace)

    async def get(self, name="a"):
        return await self.kube.find(ZONES, self.name(name))

    async def full(self):
        """A zone that names everything that can be named, ready."""
        await self.hosts("vms", self.name("rack"))
        await self.vc.rules.set_hosts(await self.object("cluster", "DC0_C0"), "elsewhere", ())
        await self.folder(self.name("k8s"))
        await self.tagged()
        await self.datastore(self.name("fast"))
        await self.network(self.name("lan"))
        groups = {"vmGroupName": "vms", "hostGroupName": self.name("rack")}
        domain = self.domain(datastore=self.name("fast"), networks=["VM Network", self.name("lan")], hosts=groups)
        constraint = {"resourcePool": "DC0_C0_RP1", "folder": self.name("k8s")}
        await self.create(domain, self.zone(placementConstraint=constraint))
        return await self.ready()

    async def ready(self, name="a"):
        """Wait until a zone is ready, and return it."""
        return await eventually(lambda: self.get(name), lambda zone: zone and zone.get("status", {}).get("ready"))

    async def becomes(self, type_, status, reason, name="a"):
        """Wait until a condition of a zone has this status and reason; returns the zone."""

        def holds(zone):
            return (condition(zone, type_) or ())[:2] == (status, reason)

        zone = await eventually(lambda: self.get(name), holds)
        assert zone["status"]["ready"] is (reason in {"Ready", "Available", "Validated"})
        return zone

    async def reasons(self, obj):
        return [event["reason"] for event in await self.kube.events(obj)]

    # vCenter

    async def object(self, kind, name):
        datacenter = await self.vc.inventory.datacenter("*")
        self.vc.inventory.forget()
        if kind == "datacenter":
            return datacenter.ref
        return (await getattr(self.vc.inventory, kind)(datacenter, name)).ref

    async def rename(self, kind, old, new):
        """Rename a datacenter, cluster, folder or resource_pool."""
        ref = await self.object(kind, old)

        def work(api_):
            target = api_.object(ref)
            if kind == "resource_pool":  # the simulator renames pools in no other way
                target.UpdateConfig(name=new)
            else:
                target.Rename_Task(newName=new)

        await self.vc._session.call("rename", work)
        self.vc.inventory.forget()

    async def folder(self, name):
        root = await self.object("folder", "")
        await self.vc._session.call("create a folder", lambda a: a.object(root).CreateFolder(name=name)._moId)
        self.vc.inventory.forget()

    async def datastore(self, name):
        """A datastore that hosts of DC0_C0 see."""
        folder = self.sim._folder / name
        folder.mkdir(exist_ok=True)
        host = (await self.vc.inventory.cluster(await self.vc.inventory.datacenter(), "DC0_C0")).hosts[0]

        def work(api_):
            system = api_.object(host).configManager.datastoreSystem
            system.CreateLocalDatastore(name=name, path=str(folder))

        await self.vc._session.call("create a datastore", work)

    async def network(self, name):
        """A distributed port group that all hosts see."""
        switch = (await self.vc.inventory.network(await self.vc.inventory.datacenter(), "DC0_DVPG0")).ref

        def work(api_):
            spec = vim.dvs.DistributedVirtualPortgroup.ConfigSpec(name=name, type="earlyBinding", numPorts=1)
            api_.object(switch).config.distributedVirtualSwitch.AddDVPortgroup_Task(spec=[spec])

        await self.vc._session.call("create a port group", work)

    async def destroy(self, kind, name):
        ref = await self.object(kind, name)
        await self.vc._session.call("destroy", lambda api_: api_.object(ref).Destroy_Task()._moId)
        self.vc.inventory.forget()

    async def hosts(self, vm_group, host_group, *, enabled=True, rule="keep", count=2):
        """A VM-host rule of DC0_C0 with its groups; returns the hosts."""
        ref = await self.object("cluster", "DC0_C0")
        hosts = (await self.vc.inventory.cluster(await self.vc.inventory.datacenter(), "DC0_C0")).hosts[:count]
        await self.vc.rules.set_vms(ref, vm_group)
        await self.vc.rules.set_hosts(ref, host_group, hosts)
        await self.vc.rules.set_rule(ref, AffinityRule(self.name(rule), vm_group, host_group, enabled=enabled))
        return hosts

    async def tag(self, what, name, *targets):
        """Attach a tag of this world's category for "region" or "zone"; category and tag are made when missing."""
        category = await self.vc.tags.category(self.name(what))
        if category is None:
            category = await self.vc.tags.create_category(self.name(what), cardinality=Cardinality.SINGLE)
        tags = {tag.name: tag for tag in await self.vc.tags.tags(category.id)}
        tag = tags.get(name) or await self.vc.tags.create_tag(name, category.id)
        self.tags[what, name] = tag
        for target in targets:
            await self.vc.tags.attach(tag.id, target)
        return tag

    async def tagged(self):
        """The region and the zone that `domain` wants."""
        await self.tag("region", "eu", await self.object("datacenter", "DC0"))
        await self.tag("zone", "a", await self.object("cluster", "DC0_C0"))

    async def _untag(self):
        for category in await self.vc.tags.categories():
            if category.name.endswith(self.id):
                await self.vc.tags.delete_category(category.id)
