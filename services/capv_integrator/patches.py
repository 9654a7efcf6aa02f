"""JSON patches (RFC 6902) that complete the objects of others.

Responsible for: what is written into a VSphereMachine, a VSphereCluster and their conditions, and the tests that make
the API server refuse it when what it was computed from has changed.
Invariants: a patch adds and never replaces a value that means something; the list of devices is tested as a whole, so
an index means the device that was seen. What cannot be tested (a field that is not there) is guarded by the
resourceVersion instead.
Must not know: how a patch reaches the API server, what happens when it is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from services.capv_integrator import api
from services.capv_integrator.annotations import IPV4, IPV6, words
from services.capv_integrator.claimobjects import set_condition
from services.runtime.kube import conditions
from services.runtime.kube.conditions import Condition
from services.runtime.kube.objects import KubeObject, view

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from services.capv_integrator.claimobjects import Address, Claim
    from services.capv_integrator.waiting import Device

Operation = dict[str, Any]
_DEVICES = "/spec/network/devices"
_ENDPOINT = "/spec/controlPlaneEndpoint"
_OLD_STYLE = f"{api.INFRASTRUCTURE_GROUP}/v1beta1"


def machine_patch(
    machine: KubeObject,
    devices: Sequence[Device],
    answers: Mapping[int, Sequence[Claim]],
    search_domains: Sequence[str] = (),
) -> list[Operation]:
    """Write the addresses of bound claims into the devices of those indexes; fields that have a value keep it.

    A device that a failure domain adds is appended with what CAPV made of it, as are those before it that are missing.
    """
    own = api.devices_of(machine)
    operations: list[Operation] = []
    grown = [_grown(device) for device in devices[len(own or ()) : max(answers) + 1]]
    for index, claims in sorted(answers.items()):
        addresses = [claim.address for claim in claims if claim.address is not None]
        fields = device_fields(devices[index].effective, addresses, search_domains)
        if index >= len(own or ()):
            grown[index - len(own or ())] |= fields
            continue
        operations += [{"op": "add", "path": f"{_DEVICES}/{index}/{name}", "value": v} for name, v in fields.items()]
    if own is None:
        spec: dict[str, Any] = view(machine.spec, dict[str, Any])
        place, value = (_DEVICES, grown) if "network" in spec else ("/spec/network", {"devices": grown})
        operations = [_same_version(machine), {"op": "add", "path": place, "value": value}]
    else:
        operations.insert(0, {"op": "test", "path": _DEVICES, "value": own})
        operations += [{"op": "add", "path": f"{_DEVICES}/-", "value": device} for device in grown]
    return [*operations, *_record(machine, [claim.name for claims in answers.values() for claim in claims])]


def device_fields(
    device: Mapping[str, Any], addresses: Sequence[Address], search_domains: Sequence[str] = ()
) -> dict[str, Any]:
    """Fields to add to a device that waits: its addresses, and what else it has no value for."""
    fields: dict[str, Any] = {"ipAddrs": [address.cidr for address in addresses]}
    for name, family in (("gateway4", IPV4), ("gateway6", IPV6)):
        gateway = next((a.gateway for a in addresses if a.family == family and a.gateway), "")
        if gateway:
            fields[name] = gateway
    servers = dict.fromkeys(server for address in addresses for server in address.dns_servers)
    domains = search_domains or dict.fromkeys(domain for address in addresses for domain in address.search_domains)
    fields |= {"nameservers": list(servers)} if servers else {}
    fields |= {"searchDomains": list(domains)} if domains else {}
    return {name: value for name, value in fields.items() if not device.get(name)}


def cluster_patch(cluster: KubeObject, claim: Claim) -> list[Operation]:
    """Write the address of a bound claim as the control-plane endpoint; a port that is set stays."""
    assert claim.address is not None
    seen = view(cluster.spec, api.VSphereClusterSpec).control_plane_endpoint
    guard = _same_version(cluster) if seen is None else {"op": "test", "path": _ENDPOINT, "value": seen}
    port = (seen or {}).get("port") or api.DEFAULT_PORT
    value = {**(seen or {}), "host": claim.address.text, "port": port}
    return [guard, {"op": "add", "path": _ENDPOINT, "value": value}, *_record(cluster, [claim.name])]


def condition_patch(owner: KubeObject, condition: Condition, now: datetime) -> list[Operation]:
    """Set a condition in the status of a VSphereMachine or VSphereCluster of either version; nothing if it is there."""
    status: dict[str, Any] = view(owner.status, dict[str, Any])
    changed = set_condition(status, condition, now, old_style=owner.apiVersion == _OLD_STYLE)
    if changed == status:
        return []
    seen = status.get("conditions")
    if seen:
        return [
            {"op": "test", "path": "/status/conditions", "value": seen},
            {"op": "replace", "path": "/status/conditions", "value": changed["conditions"]},
        ]
    place, value = ("/status/conditions", changed["conditions"]) if status else ("/status", changed)
    return [_same_version(owner), {"op": "add", "path": place, "value": value}]


def condition_of(owner: KubeObject) -> Condition | None:
    """Our condition as it stands on a VSphereMachine or VSphereCluster."""
    status: dict[str, Any] = view(owner.status, dict[str, Any])
    for row in status.get("conditions") or ():
        if row.get("type") == api.OWNER_CONDITION:
            return Condition(api.OWNER_CONDITION, row.get("status"), row.get("reason") or "", row.get("message") or "")
    return None


def unserved(reason: str, message: str) -> Condition:
    """The condition of an owner that has to wait for somebody to mend something."""
    return Condition(api.OWNER_CONDITION, conditions.FALSE, reason, message)


def served() -> Condition:
    """The condition of an owner that had to wait and does not any more."""
    return Condition(api.OWNER_CONDITION, conditions.TRUE, "NothingWaits", "")


def _grown(device: Device) -> dict[str, Any]:
    """A device that only the failure domain knows, as it has to stand in the list of the VSphereMachine."""
    return {name: value for name, value in device.effective.items() if value not in (None, "", [], {})}


def _record(owner: KubeObject, names: Iterable[str]) -> list[Operation]:
    """Note, in the same write, whose addresses they are."""
    annotations = owner.metadata.annotations
    value = ",".join(dict.fromkeys([*words((annotations or {}).get(api.CLAIMS_ANNOTATION, "")), *names]))
    if not annotations:
        entry = {api.CLAIMS_ANNOTATION: value}
        return [_same_version(owner), {"op": "add", "path": "/metadata/annotations", "value": entry}]
    key = api.CLAIMS_ANNOTATION.replace("/", "~1")
    return [{"op": "add", "path": f"/metadata/annotations/{key}", "value": value}]


def _same_version(obj: KubeObject) -> Operation:
    return {"op": "test", "path": "/metadata/resourceVersion", "value": obj.metadata.resourceVersion}
