"""What must be true whatever failed, checked on what `evidence` saw and on what users asked for.

Responsible for: `doubles`, which must not be true for a moment; `at_rest`, once everything is whole again; and
`nothing_left`, when users have deleted all of theirs. Every answer names the objects.
Invariants: pure, and shares no code with the services.

A scene is `{kind of evidence.PATHS: objects, "vms": VMs of vcsim, "capv": the stand-in's VCenter}`. Wishes are what
users want to be there:
- pools    {(namespace, name): spec}
- claims   {(kind, namespace, name): {"pool": name, "pin": address or None, "object": as written}}
- machines {(namespace, name): spec of the VSphereMachine as written}; of CAPV or of the machine controller
- clusters {(namespace, name): spec of the VSphereCluster as written}; of CAPV
- pods     {(namespace, name): {"object": as written, "values": values of the preset that it may have}}
- presets  {name: spec}
- places   {"claims", "capv", "site", "pods": namespace}
"""

from __future__ import annotations

import ipaddress
from collections import defaultdict

from tests.support import capv_outside, outside

VARIABLE = "FAULTS"
"""The environment variable that the preset sets."""
_REFUSALS = {"PoolExhausted", "PoolNotReady", "AllocationFailed"}
_TEMPLATES = ("DC0_", "tpl-")


def key(obj):
    """Namespace and name."""
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


def condition(obj, type_="Ready"):
    """A condition of an object; {} when there is none."""
    rows = obj.get("status", {}).get("conditions", [])
    return next((row for row in rows if row["type"] == type_), {})


def own_vms(scene):
    """VMs that the inventory did not have at first."""
    return [vm for vm in scene["vms"] if not vm["name"].startswith(_TEMPLATES)]


# What must never be, not even for a moment


def doubles(scene):
    """`{identities of the objects involved: what is wrong}`.

    The lists of a scene are of different moments: only what is found in two scenes that follow each other, with the
    same identities, was so at one moment between them.
    """
    entries = []
    for kind, ref in (("metal3", "claim"), ("capi", "claimRef")):
        for obj in scene[kind]:
            claim = (kind, obj["metadata"]["namespace"], obj["spec"][ref]["name"])
            entries.append((obj["metadata"]["uid"], claim, str(ipaddress.ip_address(obj["spec"]["address"]))))
    vms = [(vm["id"], vm) for vm in own_vms(scene)]
    guests = [(id_, vm["name"], address) for id_, vm in vms for address in guest_addresses(vm)]
    return {
        **_shared("address", entries, lambda entry: entry[2], lambda at, who: f"{at} is held twice: {who}"),
        **_shared("claim", entries, lambda entry: entry[1], lambda claim, have: f"{claim} has several: {have}"),
        **_shared("name", vms, lambda entry: entry[1]["name"], lambda name, have: f"{len(have)} VMs are named {name}"),
        **_shared("uuid", vms, lambda entry: entry[1]["instanceUuid"], lambda uid, have: f"{len(have)} VMs are {uid}"),
        **_shared("guest", guests, lambda entry: entry[2], lambda at, who: f"{at} is used by several VMs: {who}"),
    }


def _shared(what, entries, of, text):
    """`{identity: text(what is shared, who shares it)}` for everything that more than one entry has."""
    found = defaultdict(list)
    for entry in entries:
        found[of(entry)].append(entry)
    return {
        (what, *sorted(entry[0] for entry in some)): text(value, [entry[1] for entry in some])
        for value, some in found.items()
        if len(some) > 1
    }


def guest_addresses(vm):
    """Addresses that VMware Tools report, link-local ones left out."""
    lists = (vm.get("addresses") or {}).values()
    return [text for some in lists for text in some or () if not text.startswith("fe80")]


# What must be true at rest


def at_rest(scene, wishes):
    """What is wrong, one line each; empty when everything is served or honestly refused, and nothing is left over."""
    return [
        *doubles(scene).values(),
        *outside.violations(ledger(scene)),
        *_claims(scene, wishes),
        *_pools(scene, wishes),
        *_capv(scene, wishes),
        *_site(scene, wishes),
        *_pods(scene, wishes),
        *_presets(scene, wishes),
    ]


def nothing_left(scene):
    """What is still there although users have deleted everything that could hold it."""
    machines = ("VSphereMachine", "VSphereVM", "Machine", "VSphereCluster", "Cluster")
    for kind in ("IPClaim", "IPAddressClaim", "metal3", "capi", *machines, "Pod"):
        yield from (f"{kind} {key(obj)} is left" for obj in scene[kind])
    yield from (f"{obj['spec']['address']} is still reserved" for obj in ledger(scene)["held"])
    yield from (f"VM {vm['name']} is left" for vm in own_vms(scene))
    yield from (f"CAPV's VM {vm.namespace}/{vm.name} is left" for vm in scene["capv"].alive())


def ledger(scene):
    """The scene as `outside` has it."""
    return {
        **{kind: scene[kind] for kind in ("IPClaim", "IPAddressClaim", "metal3", "capi", "reservations")},
        "held": [obj for obj in scene["reservations"] if "claim" in obj["spec"]],
    }


def _differs(written, found, path=""):
    """Where `found` does not have what was `written`; more than that may be there."""
    if isinstance(written, dict):
        for name, value in written.items():
            if not isinstance(found, dict) or name not in found:
                yield f"{path}.{name} is gone"
            else:
                yield from _differs(value, found[name], f"{path}.{name}")
    elif isinstance(written, list) and isinstance(found, list) and len(found) >= len(written):
        # Items with a name may have others before them, but keep their order.
        names = [item.get("name") if isinstance(item, dict) else None for item in found]
        at = 0
        for number, value in enumerate(written):
            name = value.get("name") if isinstance(value, dict) else None
            at = names.index(name, at) if name in names[at:] and name is not None else min(at, len(found) - 1)
            yield from _differs(value, found[at], f"{path}[{number}]")
            at += 1
    elif written != found:
        yield f"{path} was {written} and is {found}"


def _meta(obj):
    """What users write of metadata."""
    return {name: obj["metadata"][name] for name in ("labels", "annotations") if name in obj["metadata"]}


def _claims(scene, wishes):
    place = wishes["places"]["claims"]
    have = {k: claim for k, claim in outside.claims(scene).items() if k[1] == place}
    addresses = outside.addresses(scene)
    taken = {address for items in addresses.values() for _, address in items}
    for name, claim in have.items():
        if name not in wishes["claims"]:
            yield f"{name} was deleted and is still there with {claim['metadata'].get('finalizers')}"
    for name, wish in wishes["claims"].items():
        claim = have.get(name)
        if claim is None or "deletionTimestamp" in claim["metadata"]:
            yield f"{name} is lost"
            continue
        yield from (f"{name}: {text}" for text in _differs(wish["object"]["spec"], claim["spec"], "spec"))
        yield from (f"{name}: {text}" for text in _differs(_meta(wish["object"]), claim["metadata"], "metadata"))
        held = [address for _, address in addresses.get(name, [])]
        pool = wishes["pools"][place, wish["pool"]]
        yield from (f"{name} {text}" for text in _served(wish, claim, held, taken, assignable(pool)))


def _served(wish, claim, held, taken, possible):
    """Whether one claim has what it may have, or is told why not."""
    pin = ipaddress.ip_address(wish["pin"]) if wish["pin"] else None
    ready = condition(claim)
    if held:
        if pin is not None and held != [pin]:
            yield f"asked for {pin} and has {held}"
        return
    obtainable = (possible - taken) & ({pin} if pin is not None else possible)
    if not ready:
        yield "has no address and is not told why"
    elif ready["status"] != "False" or ready["reason"] not in _REFUSALS or not ready["message"]:
        yield f"has no address and is told {ready}"
    elif obtainable:
        yield f"is refused ({ready['message']}) although {min(obtainable)} is free"


def assignable(spec):
    """Addresses that a pool of ranges may give."""
    found = set()
    for entry in spec["pools"]:
        first, last = ipaddress.ip_address(entry["start"]), ipaddress.ip_address(entry["end"])
        found |= {type(first)(number) for number in range(int(first), int(last) + 1)}
    never = {ipaddress.ip_address(text) for text in (*spec.get("excludedAddresses", ()), spec["gateway"])}
    return found - never


def _pools(scene, wishes):
    have = {key(obj): obj for obj in scene["IPPool"]}
    through = defaultdict(list)
    for kind, ref in (("metal3", "pool"), ("capi", "poolRef")):
        for obj in scene[kind]:
            pool = (obj["metadata"]["namespace"], obj["spec"][ref]["name"])
            through[pool].append(ipaddress.ip_address(obj["spec"]["address"]))
    for name, spec in wishes["pools"].items():
        obj = have.get(name)
        if obj is None:
            yield f"IPPool {name} is lost"
            continue
        yield from (f"IPPool {name}: {text}" for text in _differs(spec, obj["spec"], "spec"))
        counts = obj.get("status", {}).get("ipAddresses", {})
        possible = assignable(spec)
        beyond = sum(address not in possible for address in through[name])
        if counts.get("total") != len(possible):
            yield f"IPPool {name} counts {counts.get('total')} addresses and has {len(possible)}"
        if counts.get("outOfRange", 0) != beyond:
            yield f"IPPool {name} counts {counts.get('outOfRange', 0)} out of range, there are {beyond}"


def _capv(scene, wishes):
    places = {wishes["places"]["capv"]}
    state = {
        "machines": _within(scene["VSphereMachine"], places),
        "vms": _within(scene["VSphereVM"], places),
        "clusters": _within(scene["VSphereCluster"], places),
        "claims": _within([*scene["IPClaim"], *scene["IPAddressClaim"]], places),
        "addresses": _within([*scene["metal3"], *scene["capi"]], places),
    }
    written = {("VSphereMachine", *name): spec for name, spec in wishes["machines"].items()}
    written |= {("VSphereCluster", *name): spec for name, spec in wishes["clusters"].items()}
    yield from capv_outside.violations(state, scene["capv"], written)
    clusters = {key(obj): obj for obj in state["clusters"]}
    yield from (f"VSphereCluster {name} is lost" for name in wishes["clusters"].keys() - clusters.keys())
    for name, obj in clusters.items():
        if name not in wishes["clusters"]:
            yield f"VSphereCluster {name} was deleted and is still there"
        elif not capv_outside.ips(obj):
            yield f"VSphereCluster {name} has no endpoint"
    have = {key(obj) for obj in state["machines"]}
    wanted = {name for name in wishes["machines"] if name[0] in places}
    yield from (f"VSphereMachine {name} is lost" for name in wanted - have)
    yield from (f"VSphereMachine {name} was deleted and is still there" for name in have - wanted)
    for name in wanted & have:
        alive = [vm for vm in scene["capv"].alive() if (vm.namespace, vm.name) == name]
        if len([vm for vm in alive if vm.on]) != 1:
            yield f"VSphereMachine {name} has {len(alive)} VMs, {sum(vm.on for vm in alive)} of them on"


def _within(objects, places):
    return [obj for obj in objects if obj["metadata"].get("namespace") in places]


def _site(scene, wishes):
    """Machines of the machine controller, and vcsim's VMs."""
    place = wishes["places"]["site"]
    have = {obj["metadata"]["name"]: obj for obj in _within(scene["VSphereMachine"], {place})}
    wanted = {name: spec for (where, name), spec in wishes["machines"].items() if where == place}
    vms = {vm["instanceUuid"]: vm for vm in own_vms(scene)}
    known = {obj["metadata"]["uid"] for obj in have.values()}
    yield from (f"VM {vm['name']} is an orphan" for uuid, vm in vms.items() if uuid not in known)
    yield from (f"VSphereMachine {place}/{name} was deleted and is still there" for name in have.keys() - wanted.keys())
    claimed = capv_outside.held(
        {
            "claims": _within([*scene["IPClaim"], *scene["IPAddressClaim"]], {place}),
            "addresses": _within([*scene["metal3"], *scene["capi"]], {place}),
        }
    )
    for name, spec in wanted.items():
        obj = have.get(name)
        if obj is None:
            yield f"VSphereMachine {place}/{name} is lost"
            continue
        yield from (f"VSphereMachine {place}/{name}: {text}" for text in _differs(spec, obj["spec"], "spec"))
        vm = vms.get(obj["metadata"]["uid"])
        ready = condition(obj)
        if ready.get("status") != "True":
            yield f"VSphereMachine {place}/{name} is not ready: {ready.get('reason')}: {ready.get('message')}"
        elif vm is None:
            yield f"VSphereMachine {place}/{name} is ready and has no VM"
        elif sorted(guest_addresses(vm)) != sorted(capv_outside.ips(obj)):
            yield f"VM {name} has {guest_addresses(vm)}, its VSphereMachine says {capv_outside.ips(obj)}"
        if sorted(claimed.get(("VSphereMachine", place, name), [])) != sorted(capv_outside.ips(obj)):
            yield f"VSphereMachine {place}/{name} says {capv_outside.ips(obj)} and holds {claimed}"


def _pods(scene, wishes):
    place = wishes["places"]["pods"]
    have = {key(obj): obj for obj in _within(scene["Pod"], {place})}
    yield from (f"Pod {name} was deleted and is still there" for name in have.keys() - wishes["pods"].keys())
    for name, wish in wishes["pods"].items():
        pod = have.get(name)
        if pod is None:
            yield f"Pod {name} is lost"
            continue
        yield from (f"Pod {name}: {text}" for text in _differs(wish["object"]["spec"], pod["spec"], "spec"))
        yield from (f"Pod {name}: {text}" for text in _differs(_meta(wish["object"]), pod["metadata"], "metadata"))
        for container in pod["spec"]["containers"]:
            values = [env.get("value") for env in container.get("env", []) if env["name"] == VARIABLE]
            if len(values) != 1 or values[0] not in wish["values"]:
                yield f"Pod {name} was admitted with {VARIABLE}={values}, allowed were {wish['values']}"


def _presets(scene, wishes):
    have = {obj["metadata"]["name"]: obj for obj in scene["ClusterPodPreset"]}
    for name, spec in wishes["presets"].items():
        if name not in have:
            yield f"ClusterPodPreset {name} is lost"
            continue
        yield from (f"ClusterPodPreset {name}: {text}" for text in _differs(spec, have[name]["spec"], "spec"))
        status = have[name].get("status", {})
        if (status.get("observedGeneration"), condition(have[name]).get("status")) != (
            have[name]["metadata"]["generation"],
            "True",
        ):
            yield f"ClusterPodPreset {name} is not told to be ready: {status}"
