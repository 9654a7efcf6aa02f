"""Objects of the allocator as the API server would return them, for tests of what reads them.

`bound` gives the three objects of a claim that has its address, as a healthy allocator leaves them; tests then break
what they are about.
"""

from __future__ import annotations

from ipaddress import ip_address

from services.ipam import api
from services.ipam.cli.snapshot import Snapshot
from services.runtime.kube.objects import KubeObject, ObjectMeta, raw

CREATED = "2026-01-01T00:00:00Z"
GROUPS = {"IPClaim": "ipam.metal3.io/v1alpha1", "IPAddressClaim": "ipam.cluster.x-k8s.io/v1beta2"}


def pool(name="p", namespace="a", *, status=None, deleting=False, annotations=None, **spec):
    """An IPPool, or a GlobalIPPool without a namespace; spec in Python's names, one /24 unless given."""
    kind, group = ("IPPool", api.METAL3_GROUP) if namespace else ("GlobalIPPool", api.OWN_GROUP)
    spec = {"pools": [{"start": "10.0.0.1", "end": "10.0.0.99"}], "prefix": 24, "namePrefix": name} | spec
    return _object(f"{group}/v1alpha1", kind, name, namespace, spec, status, deleting=deleting, annotations=annotations)


def claim(name, namespace="a", *, kind="IPClaim", of="p", named="", protected=True, deleting=False, **meta):
    """A claim for a pool written `p` (an IPPool of its namespace), `ns/p` or `global:p`."""
    spec = {"pool": _metal3_pool(of)} if kind == "IPClaim" else {"poolRef": _capi_pool(of)}
    reference = {"address": {"name": named}} if kind == "IPClaim" else {"addressRef": {"name": named}}
    finalizers = api.CLAIM_FINALIZERS[kind][:1] if protected else ()
    status = reference if named else None
    return _object(GROUPS[kind], kind, name, namespace, spec, status, deleting=deleting, finalizers=finalizers, **meta)


def address(name, of_claim, at, namespace="a", *, kind="IPClaim", of="p", protected=True, deleting=False, **spec):
    """An IPAddress of the group that belongs to a kind of claim."""
    spec = {"address": at, "prefix": 24} | spec
    if kind == "IPClaim":
        spec |= {"claim": {"name": of_claim, "namespace": namespace}, "pool": _metal3_pool(of)}
    else:
        spec |= {"claimRef": {"name": of_claim}, "poolRef": _capi_pool(of)}
    finalizers = api.ADDRESS_FINALIZERS[kind][:1] if protected else ()
    return _object(GROUPS[kind], "IPAddress", name, namespace, spec, deleting=deleting, finalizers=finalizers)


def reservation(at, of_claim="", namespace="a", *, kind="IPClaim", of="p", domain="default", name="", **spec):
    """An IPReservation: held with a claim, else an administrator's or what `spec` makes of it."""
    spec = {"domain": domain, "address": at} | spec
    if of_claim:
        spec["claim"] = {"kind": kind, "namespace": namespace, "name": of_claim, "uid": "11-22"}
        spec["pool"] = _reservation_pool(of, namespace)
    return _object(f"{api.OWN_GROUP}/v1alpha1", "IPReservation", name or lock(domain, at), "", spec)


def lock(domain, at):
    """Name of the IPReservation of an address."""
    ip = ip_address(at)
    return f"{domain}.{at}" if ip.version == 4 else f"{domain}.{ip.exploded.replace(':', '-')}"


def bound(name, at, namespace="a", *, kind="IPClaim", of="p", domain="default"):
    """Claim, IPAddress and IPReservation of a claim that has its address."""
    named = name if kind == "IPAddressClaim" else f"{of.rpartition('/')[2].rpartition(':')[2]}-{at.replace('.', '-')}"
    return (
        claim(name, namespace, kind=kind, of=of, named=named),
        address(named, name, at, namespace, kind=kind, of=of),
        reservation(at, name, namespace, kind=kind, of=of, domain=domain),
    )


def snapshot(*objects, capi_version="v1beta2"):
    """A snapshot of objects, in any nesting of tuples and lists."""
    fields = {"pools": [], "claims": [], "addresses": [], "reservations": []}
    kinds = {"IPPool": "pools", "GlobalIPPool": "pools", "IPAddress": "addresses", "IPReservation": "reservations"}
    for obj in _flat(objects):
        fields[kinds.get(obj.kind, "claims")].append(obj)
    return Snapshot(**{name: tuple(found) for name, found in fields.items()}, capi_version=capi_version)


def _flat(objects):
    for item in objects:
        if isinstance(item, KubeObject):
            yield item
        else:
            yield from _flat(item)


def _object(
    api_version,
    kind,
    name,
    namespace,
    spec,
    status=None,
    *,
    deleting=False,
    finalizers=(),
    **meta,
):
    return KubeObject(
        apiVersion=api_version,
        kind=kind,
        metadata=ObjectMeta(
            name=name,
            namespace=namespace,
            uid=f"uid-of-{name}",
            resourceVersion="7",
            generation=1,
            creationTimestamp=CREATED,
            deletionTimestamp=CREATED if deleting else None,
            finalizers=tuple(finalizers),
            **meta,
        ),
        spec=raw(spec),
        **({"status": raw(status)} if status else {}),
    )


def _metal3_pool(of):
    if of.startswith("global:"):
        return {"apiVersion": f"{api.OWN_GROUP}/v1alpha1", "kind": "GlobalIPPool", "name": of.removeprefix("global:")}
    namespace, _, name = of.rpartition("/")
    return {"name": name, "namespace": namespace} if namespace else {"name": name}


def _capi_pool(of):
    if of.startswith("global:"):
        return {"apiGroup": api.OWN_GROUP, "kind": "GlobalIPPool", "name": of.removeprefix("global:")}
    group, _, name = of.rpartition("!")
    return {"apiGroup": group or api.METAL3_GROUP, "kind": "InClusterIPPool" if group else "IPPool", "name": name}


def _reservation_pool(of, namespace):
    if of.startswith("global:"):
        return {"kind": "GlobalIPPool", "namespace": "", "name": of.removeprefix("global:")}
    other, _, name = of.rpartition("/")
    return {"kind": "IPPool", "namespace": other or namespace, "name": name}
