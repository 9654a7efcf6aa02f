"""The state of the allocator's objects as somebody outside sees it, and what must be true of it.

Responsible for: the invariants of the ledger, checked on plain JSON. Shares no code with the services, so that
a mistake in theirs does not hide itself.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json

METAL3 = "/apis/ipam.metal3.io/v1alpha1"
CAPI = "/apis/ipam.cluster.x-k8s.io/v1beta2"
OWN = "/apis/ipam.groundwork.dev/v1alpha1"
PATHS = {
    "IPClaim": f"{METAL3}/ipclaims",
    "IPAddressClaim": f"{CAPI}/ipaddressclaims",
    "metal3": f"{METAL3}/ipaddresses",
    "capi": f"{CAPI}/ipaddresses",
    "reservations": f"{OWN}/ipreservations",
}


async def snapshot(client, namespaces=()):
    """Every object of interest, by kind; of the given namespaces only, if any."""

    async def items(name):
        found = json.loads(await client.raw("GET", PATHS[name], timeout=60))["items"]
        return [o for o in found if not namespaces or o["metadata"].get("namespace") in namespaces]

    kinds = [name for name in PATHS if name != "reservations"]
    result = dict(zip(kinds, await asyncio.gather(*(items(name) for name in kinds)), strict=True))
    reservations = json.loads(await client.raw("GET", PATHS["reservations"], timeout=60))["items"]
    held = [r for r in reservations if "claim" in r["spec"]]
    result["held"] = [r for r in held if not namespaces or r["spec"]["claim"]["namespace"] in namespaces]
    result["reservations"] = reservations
    return result


def bound_name(claim):
    """Name of the IPAddress that a claim's status names, or None."""
    status = claim.get("status", {})
    return (status.get("address") or status.get("addressRef") or {}).get("name")


def is_ready(claim):
    """Whether the claim says Ready=True."""
    return any(c["type"] == "Ready" and c["status"] == "True" for c in claim.get("status", {}).get("conditions", []))


def addresses(state):
    """`{(claim kind, namespace, claim name): [(IPAddress name, address)]}`."""
    found = {}
    for kind, group, ref in (("IPClaim", "metal3", "claim"), ("IPAddressClaim", "capi", "claimRef")):
        for obj in state[group]:
            key = (kind, obj["metadata"]["namespace"], obj["spec"][ref]["name"])
            found.setdefault(key, []).append((obj["metadata"]["name"], ipaddress.ip_address(obj["spec"]["address"])))
    return found


def claims(state):
    """`{(kind, namespace, name): claim}`."""
    return {
        (kind, c["metadata"]["namespace"], c["metadata"]["name"]): c
        for kind in ("IPClaim", "IPAddressClaim")
        for c in state[kind]
    }


def violations(state):
    """What is wrong at rest, one line each; empty when the ledger is sound. Assumes one domain."""
    wrong = []
    holders = {}
    have = addresses(state)
    asked = claims(state)
    for key, items in have.items():
        for name, address in items:
            holders.setdefault(address, []).append((key, name))
        if len(items) > 1:
            wrong.append(f"{key} has {len(items)} addresses: {items}")
        if key not in asked:
            wrong.append(f"{items} belong to {key}, which does not exist")
    wrong += [f"{address} is held twice: {who}" for address, who in holders.items() if len(who) > 1]
    reserved = {}
    for obj in state["held"]:
        ref = obj["spec"]["claim"]
        reserved[ipaddress.ip_address(obj["spec"]["address"])] = (ref["kind"], ref["namespace"], ref["name"])
    for address, key in reserved.items():
        if [item for item in have.get(key, []) if item[1] == address] == []:
            wrong.append(f"{address} is reserved for {key}, which has {have.get(key)}")
    for key, items in have.items():
        wrong += [f"{address} of {key} is not reserved" for _, address in items if reserved.get(address) != key]
    for key, claim in asked.items():
        name = bound_name(claim)
        if name is not None and name not in [item[0] for item in have.get(key, [])]:
            wrong.append(f"{key} says it has {name}, which does not exist")
        if is_ready(claim) != (name is not None):
            wrong.append(f"{key} is Ready={is_ready(claim)} with address {name}")
    return wrong
