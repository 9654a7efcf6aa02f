"""What users do all the while: claims, machines and pods come and go, pools and the preset are edited.

Responsible for: acting as users and their tools do, trying again when an answer is no answer, and remembering in
`wishes` what should be there; `invariants` has its form.
Invariants: names are never used twice; a wish stands once the API server has said yes. `rest` returns when nothing is
under way, and nothing begins before `resume`.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
from collections import deque

from services.runtime.kube.errors import AlreadyExists, ApiError, ConnectionFailed, NotFound
from services.runtime.kube.resource import Resource
from tests.faults.estate import PLACES
from tests.faults.invariants import VARIABLE
from tests.support.capv_parts import CLUSTER_NAME, METAL3, METAL3_CLAIMS, Versions
from tests.support.capv_world import USE
from tests.support.kube import manifest
from tests.support.machine_site import NETWORK, TEMPLATE
from tests.support.vcenter import PASSWORD, USER

_POOLS = Resource(METAL3, "v1alpha1", "ippools", "IPPool", namespaced=True)
_PODS = Resource("", "v1", "pods", "Pod", namespaced=True)
_SECRETS = Resource("", "v1", "secrets", "Secret", namespaced=True)
_PRESETS = Resource("reach.spectrocloud.com", "v1alpha1", "clusterpodpresets", "ClusterPodPreset", namespaced=False)
_V = Versions()
_POOLS_ANNOTATION = "integrator.groundwork.dev/pools"
_CLUSTERS_ANNOTATION = "integrator.groundwork.dev/cluster"
_PAUSED = "cluster.x-k8s.io/paused"
_PRESET = "faults"
_AGAIN_SECONDS = (0.1, 0.5)
_CALL_SECONDS = 12.0
_PAUSED_SECONDS = 0.3
RANGES = {
    "wide": ("10.10.0", 2, 250),
    "narrow": ("10.11.0", 10, 15),
    "twin-a": ("10.12.0", 10, 40),
    "twin-b": ("10.12.0", 20, 50),
}
SHARE = {"claim": 12, "machine": 3, "vm": 3, "cluster": 2, "pod": 8, "pool": 2, "pause": 1, "preset": 1}
MOST = {"claim": 45, "machine": 5, "vm": 4, "cluster": 4, "pod": 15}
_LASTING = "prod"
"""The clusters that machines are in."""


class Users:
    """`kube` goes straight to the API server."""

    def __init__(self, kube, sim, seed, *, pace=0.05):
        self.kube = kube
        self._sim = sim
        self._rng = random.Random(f"{seed} users")
        self._pace = pace
        self._number = 0
        self._free = asyncio.Event()
        self._busy = 0
        self._quiet = asyncio.Event()
        self._editing = asyncio.Lock()
        self.done = dict.fromkeys(SHARE, 0)
        self.retries = 0
        self.answers = deque(maxlen=5)
        """The last answers that were none."""
        self.values = []
        kinds = ("pools", "claims", "machines", "clusters", "pods", "presets")
        self.wishes = {kind: {} for kind in kinds} | {"places": PLACES}

    # Beginning, resting, and leaving

    async def move_in(self):
        """Make what the rest goes by."""
        for name, (net, first, last) in RANGES.items():
            await self._make_pool(PLACES["claims"], name, net, first, last)
        await self._make_pool(PLACES["capv"], "nodes", "10.20.0", 10, 99)
        await self._make_pool(PLACES["site"], "nodes", "10.30.0", 10, 99)
        metadata = {"labels": {USE: "endpoints"}, "annotations": {_CLUSTERS_ANNOTATION: "*"}}
        await self._make_pool(PLACES["capv"], "vips", "10.21.0", 10, 19, **metadata)
        texts = {"username": USER, "password": PASSWORD, "ca.crt": self._sim.ca.decode()}
        data = {key: base64.b64encode(value.encode()).decode() for key, value in texts.items()}
        await self._create(_SECRETS, {**manifest(_SECRETS, "vcenter", PLACES["site"]), "data": data})
        identity = {"identityRef": {"kind": "Secret", "name": "vcenter"}}
        endpoint = {"controlPlaneEndpoint": {"host": "10.255.255.1", "port": 6443}}
        await self._make_cluster(PLACES["capv"], _LASTING, {"server": "vcenter.example.org", **endpoint})
        await self._make_cluster(PLACES["site"], _LASTING, {"server": str(self._sim.server), **identity, **endpoint})
        await self._edit_preset()

    async def run(self, count=4):
        """Act until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(self._act())

    def resume(self):
        self._free.set()

    async def rest(self):
        """Return once nothing is under way."""
        self._free.clear()
        while self._busy:
            self._quiet.clear()
            await self._quiet.wait()

    def forget_values(self):
        """From now on pods are to have the preset as it is."""
        self.values = self.values[-1:]

    async def move_out(self):
        """Delete every claim, machine, pod and cluster."""
        for kind, namespace, name in list(self.wishes["claims"]):
            await self._delete(METAL3_CLAIMS if kind == "IPClaim" else _V.claims, name, namespace)
        for namespace, name in list(self.wishes["machines"]):
            await self._delete(_V.machines, name, namespace)
        for namespace, name in list(self.wishes["pods"]):
            await self._delete(_PODS, name, namespace)
        for namespace, name in [*self.wishes["clusters"], (PLACES["site"], _LASTING)]:
            await self._delete(_V.clusters, name, namespace)
        for kind in ("claims", "machines", "pods", "clusters"):
            self.wishes[kind].clear()

    async def probe(self):
        """What a pod would be given now: the values of the preset's variable, asked for some times."""
        found = set()
        for _ in range(4):
            pod = _pod(f"probe-{self._next()}")
            made = await self.kube._send("POST", _PODS.path(PLACES["pods"]) + "?dryRun=All", pod)
            env = made["spec"]["containers"][0].get("env", [])
            found |= {entry.get("value") for entry in env if entry["name"] == VARIABLE} or {None}
        return found

    # Acting

    async def _act(self):
        kinds, weights = list(SHARE), list(SHARE.values())
        while True:
            await self._free.wait()
            self._busy += 1
            try:
                (kind,) = self._rng.choices(kinds, weights)
                await getattr(self, f"_any_{kind}")()
                self.done[kind] += 1
            finally:
                self._busy -= 1
                self._quiet.set()
            await asyncio.sleep(self._rng.uniform(0, 2 * self._pace))

    def _next(self):
        self._number += 1
        return self._number

    def _one_goes(self, names, most):
        """A name that is to be deleted, or None when there is room for one more."""
        names = sorted(names)
        return self._rng.choice(names) if names and self._rng.random() < len(names) / most else None

    async def _any_claim(self):
        gone = self._one_goes(self.wishes["claims"], MOST["claim"])
        place = PLACES["claims"]
        if gone is not None:
            del self.wishes["claims"][gone]
            await self._delete(METAL3_CLAIMS if gone[0] == "IPClaim" else _V.claims, gone[2], place)
            return
        pool = self._rng.choice(list(RANGES))
        name, labels = f"c{self._next()}", {"team": self._rng.choice("abc")}
        net, first, last = RANGES[pool]
        pin = f"{net}.{self._rng.randint(first, last)}" if self._rng.random() < 0.2 else None
        annotations = {"note": "ours", **({"ipAddress": pin} if pin else {})}
        if self._rng.random() < 0.5:
            resource, spec = METAL3_CLAIMS, {"pool": {"name": pool}}
        else:
            resource, spec = _V.claims, {"poolRef": {"apiGroup": METAL3, "kind": "IPPool", "name": pool}}
        obj = manifest(resource, name, place, spec, labels=labels, annotations=annotations)
        await self._create(resource, obj)
        self.wishes["claims"][resource.kind, place, name] = {"pool": pool, "pin": pin, "object": obj}

    async def _any_machine(self):
        device = {"networkName": "VM Network"}
        clone = {"template": "ubuntu-2404", "datacenter": "*", "numCPUs": 2, "memoryMiB": 4096}
        await self._come_or_go(PLACES["capv"], MOST["machine"], {**clone, "network": {"devices": [device]}})

    async def _any_vm(self):
        spec = {"template": TEMPLATE, "network": {"devices": [{"networkName": NETWORK}]}}
        await self._come_or_go(PLACES["site"], MOST["vm"], spec)

    async def _come_or_go(self, place, most, spec):
        gone = self._one_goes([name for name in self.wishes["machines"] if name[0] == place], most)
        if gone is not None:
            del self.wishes["machines"][gone]
            await self._delete(_V.machines, gone[1], place)
            return
        name, labels = f"m{self._next()}", {CLUSTER_NAME: "prod"}
        resource = _V.vsphere_machines
        obj = manifest(resource, name, place, spec, labels=labels, annotations={_POOLS_ANNOTATION: "nodes"})
        defaulted = await self._create(resource, obj, query="?dryRun=All")
        await self._create(resource, obj)
        ref = {"apiGroup": resource.group, "kind": resource.kind, "name": name}
        machine = {"clusterName": "prod", "infrastructureRef": ref, "bootstrap": {"dataSecretName": f"{name}-boot"}}
        await self._create(_V.machines, manifest(_V.machines, name, place, machine, labels=labels))
        data = {"value": base64.b64encode(f"#cloud-config\nruncmd: [kubeadm join {name}]\n".encode()).decode()}
        await self._create(_SECRETS, {**manifest(_SECRETS, f"{name}-boot", place), "data": data})
        await self._insist(lambda: self._owned(_V.machines, resource, place, name))
        self.wishes["machines"][place, name] = defaulted["spec"]

    async def _owned(self, resource, infrastructure, place, name):
        """Cluster API has tied the two together: nobody deletes the first before that."""
        owner = await self.kube.get(resource, name, place)
        infra = await self.kube.get(infrastructure, name, place)
        if not owner["metadata"].get("finalizers") or not infra["metadata"].get("ownerReferences"):
            raise TimeoutError(f"Cluster API has not seen {place}/{name}")

    async def _any_cluster(self):
        """One that leaves its endpoint to the integrator."""
        place = PLACES["capv"]
        names = [name for _, name in self.wishes["clusters"] if name != _LASTING]
        gone = self._one_goes(names, MOST["cluster"])
        if gone is not None:
            del self.wishes["clusters"][place, gone]
            await self._delete(_V.clusters, gone, place)
            return
        await self._make_cluster(place, f"k{self._next()}", {"server": "vcenter.example.org"})

    async def _any_pod(self):
        gone = self._one_goes(self.wishes["pods"], MOST["pod"])
        if gone is not None:
            del self.wishes["pods"][gone]
            await self._delete(_PODS, gone[1], gone[0])
            return
        obj = _pod(f"p{self._next()}")
        obj["spec"]["containers"][0]["env"] = [{"name": "OWN", "value": str(self._next())}]
        await self._create(_PODS, obj)
        self.wishes["pods"][PLACES["pods"], obj["metadata"]["name"]] = {"object": obj, "values": list(self.values)}

    async def _any_pool(self):
        """Another end and other exclusions: what is held stays held."""
        async with self._editing:
            name = self._rng.choice(list(RANGES))
            key = (PLACES["claims"], name)
            net, first, last = RANGES[name]
            end = self._rng.randint((first + last) // 2, last)
            spec = {
                **self.wishes["pools"][key],
                "pools": [{"start": f"{net}.{first}", "end": f"{net}.{end}"}],
                "excludedAddresses": [
                    f"{net}.{self._rng.randint(first, last)}" for _ in range(self._rng.randint(0, 3))
                ],
            }
            await self._edit(_POOLS, name, key[0], spec=spec)
            self.wishes["pools"][key] = spec

    async def _any_pause(self):
        """A pool is paused for a moment."""
        async with self._editing:
            name = self._rng.choice(list(RANGES))
            for value in ("", None):
                await self._edit(_POOLS, name, PLACES["claims"], metadata={"annotations": {_PAUSED: value}})
                await asyncio.sleep(_PAUSED_SECONDS)

    async def _any_preset(self):
        await self._edit_preset()

    async def _edit_preset(self):
        async with self._editing:
            self.values.append(f"v{self._next()}")
            spec = {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": PLACES["pods"]}},
                "env": [{"name": VARIABLE, "value": self.values[-1]}],
            }
            if _PRESET in self.wishes["presets"]:
                await self._edit(_PRESETS, _PRESET, spec=spec)
            else:
                await self._create(_PRESETS, manifest(_PRESETS, _PRESET, "", spec))
            self.wishes["presets"][_PRESET] = spec

    async def _make_pool(self, place, name, net, first, last, **metadata):
        spec = {
            "namePrefix": name,
            "prefix": 24,
            "gateway": f"{net}.1",
            "pools": [{"start": f"{net}.{first}", "end": f"{net}.{last}"}],
        }
        await self._create(_POOLS, manifest(_POOLS, name, place, spec, **metadata))
        self.wishes["pools"][place, name] = spec

    async def _make_cluster(self, place, name, spec):
        ref = {"apiGroup": _V.vsphere_clusters.group, "kind": "VSphereCluster", "name": name}
        await self._create(_V.clusters, manifest(_V.clusters, name, place, {"infrastructureRef": ref}))
        obj = manifest(_V.vsphere_clusters, name, place, spec)
        made = await self._create(_V.vsphere_clusters, obj, query="?dryRun=All")
        await self._create(_V.vsphere_clusters, obj)
        await self._insist(lambda: self._owned(_V.clusters, _V.vsphere_clusters, place, name))
        if place == PLACES["capv"]:
            self.wishes["clusters"][place, name] = made["spec"]

    # Patience

    async def _create(self, resource, obj, *, query=""):
        path = resource.path(obj["metadata"].get("namespace", "")) + query

        async def create():
            try:
                return await self.kube._send("POST", path, obj)
            except AlreadyExists:
                return obj  # by an earlier try whose answer was lost

        return await self._insist(create)

    async def _edit(self, resource, name, namespace="", *, metadata=None, **change):
        """Patch what was just read: an earlier try that the server gets to later must not undo what came after it."""

        async def edit():
            seen = await self.kube.get(resource, name, namespace)
            versioned = {**(metadata or {}), "resourceVersion": seen["metadata"]["resourceVersion"]}
            await self.kube.patch(resource, name, namespace, metadata=versioned, **change)

        await self._insist(edit)

    async def _delete(self, resource, name, namespace):
        async def delete():
            try:
                await self.kube.delete(resource, name, namespace)
            except NotFound:
                # Also what a server says that has just started and does not serve the kind yet.
                await self.kube.client.raw("GET", resource.path(namespace) + "?limit=1")

        await self._insist(delete)

    async def _insist(self, call):
        """The answer of a call that is made until it has one."""
        while True:
            try:
                async with asyncio.timeout(_CALL_SECONDS):
                    return await call()
            except (ConnectionFailed, TimeoutError) as error:
                answer = repr(error)
            except ApiError as error:
                if error.status in {400, 401, 403, 422} and "webhook" not in error.message:
                    raise
                answer = str(error)
            self.answers.append(answer)
            self.retries += 1
            await asyncio.sleep(self._rng.uniform(*_AGAIN_SECONDS))


def _pod(name):
    spec = {"containers": [{"name": "app", "image": "registry.invalid/image"}]}
    return manifest(_PODS, name, PLACES["pods"], spec, labels={"app": "faults"})


def plain(wishes):
    """The wishes as JSON, for a report."""
    return json.dumps(
        {kind: {str(name): wish for name, wish in found.items()} for kind, found in wishes.items()}, indent=1
    )
