"""What must be true of machines, claims, addresses and VMs at rest, as somebody outside sees it.

Responsible for: the invariants of the integrator on plain JSON and on the list of VMs that were made. Shares no code
with the service, so that a mistake of its does not hide itself.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json

INTEGRATOR = "groundwork-capv-integrator"
MAY_ADD = {"ipAddrs", "gateway4", "gateway6", "nameservers", "searchDomains"}
_METAL3 = "/apis/ipam.metal3.io/v1alpha1"


async def look(client, versions, namespaces):
    """All objects of interest in some namespaces, by kind."""
    paths = {
        "machines": versions.vsphere_machines.path(),
        "vms": versions.vsphere_vms.path(),
        "clusters": versions.vsphere_clusters.path(),
        "metal3 claims": f"{_METAL3}/ipclaims",
        "metal3 addresses": f"{_METAL3}/ipaddresses",
    }
    if versions.ipam:
        paths |= {"claims": versions.claims.path(), "addresses": versions.addresses.path()}

    async def items(path):
        found = json.loads(await client.raw("GET", path))["items"]
        return [obj for obj in found if obj["metadata"]["namespace"] in namespaces]

    state = dict(zip(paths, await asyncio.gather(*map(items, paths.values())), strict=True))
    state["claims"] = [*state.get("claims", []), *state.pop("metal3 claims")]
    state["addresses"] = [*state.get("addresses", []), *state.pop("metal3 addresses")]
    return state


def key(obj):
    """Namespace and name."""
    return obj["metadata"]["namespace"], obj["metadata"]["name"]


def devices(obj):
    """spec.network.devices."""
    return obj["spec"].get("network", {}).get("devices", [])


def ips(obj):
    """Static addresses of a machine or VM, or the endpoint of a cluster, which may be a name."""
    host = obj["spec"].get("controlPlaneEndpoint", {}).get("host")
    if host:
        return [host]
    return [str(ipaddress.ip_interface(text).ip) for device in devices(obj) for text in device.get("ipAddrs", [])]


def held(state):
    """`{(owner kind, namespace, owner name): [address]}` for everything that the integrator claimed."""
    by_claim = {}
    for address in state["addresses"]:
        spec = address["spec"]
        claim = (spec.get("claimRef") or spec["claim"])["name"]
        by_claim.setdefault((address["metadata"]["namespace"], claim), []).append(spec["address"])
    found = {}
    for claim in state["claims"]:
        for ref in claim["metadata"].get("ownerReferences", []):
            owner = (ref["kind"], claim["metadata"]["namespace"], ref["name"])
            found.setdefault(owner, []).extend(by_claim.get(key(claim), []))
    return found


def violations(state, vcenter, written):
    """What is wrong, one line each. `written`: specs as users wrote them, by kind, namespace and name."""
    return [
        *vcenter.wrong,
        *_claims(state),
        *_addresses(state, written),
        *_vms(state, vcenter),
        *_fields(state, written),
    ]


def _claims(state):
    owners = {("VSphereMachine", *key(obj)): obj["metadata"]["uid"] for obj in state["machines"]}
    owners |= {("VSphereCluster", *key(obj)): obj["metadata"]["uid"] for obj in state["clusters"]}
    owners |= {("VSphereVM", *key(obj)): obj["metadata"]["uid"] for obj in state["vms"]}
    for claim in state["claims"]:
        refs = claim["metadata"].get("ownerReferences", [])
        theirs = [(ref["kind"], claim["metadata"]["namespace"], ref["name"]) for ref in refs]
        if len(refs) != 1:
            yield f"claim {key(claim)} has owners {refs}"
        elif owners.get(theirs[0]) != refs[0]["uid"]:
            yield f"claim {key(claim)} belongs to {theirs[0]}, which does not exist with uid {refs[0]['uid']}"
        if "deletionTimestamp" in claim["metadata"]:
            yield f"claim {key(claim)} does not go away: {claim['metadata']['finalizers']}"
    names = {key(claim) for claim in state["claims"]}
    for address in state["addresses"]:
        spec = address["spec"]
        if (address["metadata"]["namespace"], (spec.get("claimRef") or spec["claim"])["name"]) not in names:
            yield f"address {spec['address']} has no claim"


def _addresses(state, written):
    """Every address that was not a user's own is held for the object that it stands in, and for nothing else."""
    have = held(state)
    for kind, objects in (("VSphereMachine", state["machines"]), ("VSphereCluster", state["clusters"])):
        for obj in objects:
            own = ips({"spec": written.get((kind, *key(obj)), {})})
            wanted = sorted(ip for ip in ips(obj) if ip not in own)
            claimed = sorted(have.get((kind, *key(obj)), []))
            if wanted != claimed:
                yield f"{kind} {key(obj)} says {wanted} and holds {claimed}"


def _vms(state, vcenter):
    """Every VM has the addresses of its machine; none exists without."""
    machines = {}
    for vm in state["vms"]:
        (owner,) = vm["metadata"]["ownerReferences"]
        found = [m for m in state["machines"] if key(m) == (vm["metadata"]["namespace"], owner["name"])]
        machines[key(vm)] = found[0] if found else None
        managers = {entry["manager"] for entry in vm["metadata"]["managedFields"]}
        if INTEGRATOR in managers:
            yield f"VSphereVM {key(vm)} was written by the integrator"
    for vm in vcenter.alive():
        machine = machines.get((vm.namespace, vm.name))
        if machine is None:
            yield f"VM {vm.namespace}/{vm.name} has no VSphereMachine"
            continue
        static = [ip for ip in vm.addresses if ip not in vm.from_pools]
        if sorted(static) != sorted(ips(machine)):
            yield f"VM {vm.namespace}/{vm.name} was made with {static}, its VSphereMachine says {ips(machine)}"


def _fields(state, written):
    """Nothing that a user wrote is changed, and only what was missing is added."""
    for kind, objects in (("VSphereMachine", state["machines"]), ("VSphereCluster", state["clusters"])):
        for obj in objects:
            wanted = written.get((kind, *key(obj)))
            if wanted is not None:
                yield from (f"{kind} {key(obj)}: {text}" for text in _changed(wanted, obj["spec"]))


def _changed(wanted, spec):
    for name in wanted.keys() | spec.keys():
        if name == "network":
            before, after = wanted["network"].get("devices", []), spec["network"].get("devices", [])
            if len(after) < len(before):
                yield f"devices were lost: {after}"
            for at, device in enumerate(before[: len(after)]):
                for field in device.keys() | after[at].keys():
                    same = device.get(field) == after[at].get(field)
                    if not same and (field in device or field not in MAY_ADD):
                        yield f"device {at}: {field} was {device.get(field)} and is {after[at].get(field)}"
        elif name == "controlPlaneEndpoint":
            endpoint = wanted.get(name) or {}
            for field in ("host", "port"):
                if endpoint.get(field) and endpoint[field] != spec.get(name, {}).get(field):
                    yield f"{field} was {endpoint[field]} and is {spec.get(name)}"
        elif name != "providerID" and wanted.get(name) != spec.get(name):
            yield f"{name} was {wanted.get(name)} and is {spec.get(name)}"
