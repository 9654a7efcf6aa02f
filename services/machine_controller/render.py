"""All that a VM is told at its first boot, put together: from a machine, its cluster, bootstrap data and addresses.

Responsible for: which of the parts in `guestinfo` a machine gets, the proxy settings completed with what is known of
the machine's surroundings, and kube-vip for control planes whose cluster asks for it.
Invariants: pure; the same input gives the same keys. Every mistake is told before there is a VM: `check` renders with
MAC addresses that nobody has.
Must not know: where the input comes from, how it reaches the VM.
"""

from __future__ import annotations

import contextlib
import ipaddress
from typing import TYPE_CHECKING, NamedTuple

from services.machine_controller import api, contract, hostscript, kubevip
from services.machine_controller.guestinfo import ignition
from services.machine_controller.guestinfo.extraconfig import ExtraConfig, at_clone, at_power_on
from services.machine_controller.guestinfo.metadata import metadata
from services.machine_controller.guestinfo.network import GatewayStyle, network_config
from services.machine_controller.guestinfo.problems import InvalidError, Problem
from services.machine_controller.guestinfo.userdata import Format, UserData
from services.machine_controller.guestinfo.vendordata import Kind, Part, vendordata
from services.machine_controller.hostproxy import HostProxy
from services.machine_controller.vsphere.errors import VSphereError
from services.machine_controller.vsphere.values import Server
from services.proxyenv.complete import Facts
from services.proxyenv.host import HostFacts
from services.runtime.kube.objects import KubeObject, view

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from services.machine_controller.guestinfo.nic import BoundAddress
    from services.machine_controller.placement import Placement

_VENDORDATA = "vendordata"
_HOST_PART = "10-host-setup.sh"
_TRUE = "true"


class Guest(NamedTuple):
    """What is rendered for one machine.

    `bound` are the addresses from pools by device, `proxy` the values that a Secret or ConfigMap has.
    """

    name: str
    instance_id: str
    control_plane: bool
    placement: Placement
    bound: Sequence[Sequence[BoundAddress]]
    custom: Mapping[str, str]
    cluster: KubeObject
    """The VSphereCluster."""
    capi_cluster: KubeObject | None
    proxy: Mapping[str, str]
    bootstrap: UserData


def proxy_source(cluster: KubeObject) -> tuple[str, str]:
    """Kind and name of the object that has a VSphereCluster's proxy settings; "" where annotations have them all."""
    annotations = cluster.metadata.annotations or {}
    if name := annotations.get(api.PROXY_SECRET_ANNOTATION, ""):
        return "Secret", name
    return ("ConfigMap", name) if (name := annotations.get(api.PROXY_CONFIG_MAP_ANNOTATION, "")) else ("", "")


def render(guest: Guest, macs: Sequence[str]) -> ExtraConfig:
    """Return every key; `macs` in the order of the devices. Raises InvalidError and TooLargeError."""
    annotations = guest.cluster.metadata.annotations or {}
    proxy = _proxy(guest, annotations)
    vip = _kube_vip(guest, annotations) if guest.control_plane else None
    bootstrap, vendor = guest.bootstrap, b""
    if bootstrap.format is Format.IGNITION:
        files, units = hostscript.ignition_parts(proxy)
        if vip is not None:
            more_files, more_units = kubevip.ignition_parts(vip)
            files, units = [*files, *more_files], [*units, *more_units]
        bootstrap = UserData(bootstrap.format, ignition.with_parts(bootstrap.value, files, units))
    else:
        script = hostscript.host_script(proxy)
        parts = [Part(Kind.BOOTHOOK, _HOST_PART, script)] if script else []
        vendor = vendordata([*parts, *(kubevip.vendor_parts(vip) if vip is not None else ())])
    first = at_clone(bootstrap, vendor, guest.custom)
    network = network_config(guest.placement.network, macs, guest.bound, style=_style(annotations))
    data = metadata(guest.name, network, instance_id=guest.instance_id, redact=_redact(annotations, proxy, vendor))
    return ExtraConfig({**first, **at_power_on(data, first)})


def check(guest: Guest) -> None:
    """Raise what `render` would raise once the VM is there."""
    devices = guest.placement.network.devices
    render(guest, [device.mac_addr or f"00:00:00:00:00:{index:02x}" for index, device in enumerate(devices)])


def _style(annotations: Mapping[str, str]) -> GatewayStyle:
    text = annotations.get(api.GATEWAY_STYLE_ANNOTATION, GatewayStyle.ROUTES)
    try:
        return GatewayStyle(text)
    except ValueError:
        raise _problem(api.GATEWAY_STYLE_ANNOTATION, text, " or ".join(GatewayStyle)) from None


def _redact(annotations: Mapping[str, str], proxy: HostProxy, vendor: bytes) -> list[str]:
    text = annotations.get(api.REDACT_ANNOTATION)
    if text is None:
        # A password in the proxy's URL is for the host alone, not for whoever may read the VM's settings in vCenter.
        return [_VENDORDATA] if proxy.secret and vendor else []
    return [word for word in (part.strip() for part in text.split(",")) if word]


def _proxy(guest: Guest, annotations: Mapping[str, str]) -> HostProxy:
    keys = {
        "httpProxy": api.HTTP_PROXY_ANNOTATION,
        "httpsProxy": api.HTTPS_PROXY_ANNOTATION,
        "noProxy": api.NO_PROXY_ANNOTATION,
    }
    own = {key: annotations[name] for key, name in keys.items() if annotations.get(name)}
    return HostProxy.read(guest.proxy or own).completed(_facts(guest))


def _facts(guest: Guest) -> HostFacts:
    spec = view(guest.capi_cluster.spec, contract.ClusterSpec) if guest.capi_cluster is not None else None
    network = (spec.cluster_network if spec is not None else None) or contract.ClusterNetwork()
    host = endpoint(guest.cluster, guest.capi_cluster)[0]
    vcenter: tuple[str, ...] = ()
    with contextlib.suppress(VSphereError):
        vcenter = (Server.parse(guest.placement.server).host,)
    return HostFacts(
        cluster=Facts(
            service_cidrs=network.services.cidr_blocks if network.services is not None else (),
            pod_cidrs=network.pods.cidr_blocks if network.pods is not None else (),
        ),
        node_networks=_node_networks(guest),
        endpoint=(host,) if host else (),
        vcenter=vcenter,
    )


def endpoint(cluster: KubeObject, capi_cluster: KubeObject | None) -> tuple[str, int]:
    """Host and port of the control plane; "" and 0 while nobody said."""
    own = view(cluster.spec, api.VSphereClusterSpec).control_plane_endpoint
    if own is not None and own.host:
        return own.host, own.port
    known = view(capi_cluster.spec, contract.ClusterSpec).control_plane_endpoint if capi_cluster is not None else None
    return (known.host, known.port) if known is not None else ("", 0)


def _node_networks(guest: Guest) -> tuple[str, ...]:
    """Networks that the machine is in: other nodes are there."""
    texts = [text for device in guest.placement.network.devices for text in device.ip_addrs]
    texts += [f"{a.address}/{a.prefix}" for bound in guest.bound for a in bound if a.prefix is not None]
    found: dict[str, None] = {}
    for text in texts:
        try:
            network = ipaddress.ip_interface(text).network
        except ValueError:
            continue  # told as a mistake where the address is rendered
        if network.num_addresses > 1:
            found[str(network)] = None
    return tuple(found)


def _kube_vip(guest: Guest, annotations: Mapping[str, str]) -> kubevip.KubeVip | None:
    image = annotations.get(api.KUBE_VIP_IMAGE_ANNOTATION, "")
    if not image:
        return None
    host, port = endpoint(guest.cluster, guest.capi_cluster)
    if not host:
        raise _problem("spec.controlPlaneEndpoint.host", "", "an address for kube-vip")
    defaults = kubevip.KubeVip(image=image, address=host)
    return defaults._replace(
        port=port or defaults.port,
        interface=annotations.get(api.KUBE_VIP_INTERFACE_ANNOTATION, ""),
        services=annotations.get(api.KUBE_VIP_SERVICES_ANNOTATION) == _TRUE,
    )


def _problem(field: str, value: object, expected: str) -> InvalidError:
    return InvalidError([Problem(field, value, expected)])
