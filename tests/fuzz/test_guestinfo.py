"""What a VM is told, from annotations, Secrets and bootstrap data of any content: rendered, or refused with reasons."""

from __future__ import annotations

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.machine_controller import api
from services.machine_controller.api import Network, NetworkDevice
from services.machine_controller.guestinfo.encode import MalformedError, TooLargeError, decoded
from services.machine_controller.guestinfo.problems import InvalidError
from services.machine_controller.guestinfo.userdata import UserData
from services.machine_controller.placement import Placement
from services.machine_controller.render import Guest, render
from services.runtime.kube.objects import KubeObject, ObjectMeta, raw
from tests.fuzz.schemas import TEXTS, outcome, specs

MAC = "00:50:56:AA:BB:01"
KEYS = [value for name, value in vars(api).items() if name.endswith("_ANNOTATION") and isinstance(value, str)]
PROXY = st.dictionaries(st.sampled_from(["httpProxy", "httpsProxy", "noProxy", "ca.crt", "x"]), TEXTS, max_size=4)
DEVICE = NetworkDevice(network_name="lan", ip_addrs=("10.0.0.5/24",), gateway4="10.0.0.1")
BOOTSTRAPS = st.binary(max_size=60) | st.sampled_from(
    [b"#cloud-config\n", b'{"ignition":{"version":"3.3.0"}}', b'{"ignition":{}}', b"{}", b"[]", b"null", b"\xff\xfe"]
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    annotations=st.dictionaries(st.sampled_from(KEYS), TEXTS, max_size=4),
    cluster=specs("VSphereCluster"),
    proxy=PROXY,
    custom=st.dictionaries(TEXTS, TEXTS, max_size=3),
    bootstrap=BOOTSTRAPS,
    format_=st.sampled_from(["", "cloud-config", "ignition", "other"]),
    control_plane=st.booleans(),
    name=st.sampled_from(["m1", "m1.example.org", "m" * 63]),
)
def test_a_guest_is_told_everything_or_the_machine_says_why_not(
    annotations, cluster, proxy, custom, bootstrap, format_, control_plane, name
):
    of = KubeObject(
        kind="VSphereCluster", metadata=ObjectMeta(name="c", namespace="n", annotations=annotations), spec=raw(cluster)
    )

    def rendered():
        guest = Guest(
            name=name,
            instance_id="u1",
            control_plane=control_plane,
            placement=Placement(cluster.get("server", ""), "", "", "", "", Network(devices=(DEVICE,))),
            bound=[()],
            custom=custom,
            cluster=of,
            capi_cluster=None,
            proxy=proxy,
            bootstrap=UserData.read(bootstrap, format_),
        )
        return render(guest, [MAC])

    keys, refusal = outcome(rendered, InvalidError, TooLargeError)
    assert refusal != "without a reason"
    assert keys is None or yaml.safe_load(decoded("guestinfo.metadata", keys))["hostname"] == name


@given(
    st.dictionaries(
        st.sampled_from(["guestinfo.metadata", "guestinfo.metadata.encoding"]),
        TEXTS | st.sampled_from(["gzip+base64", "base64", "gz", "H4sIAAAAAAAA", "e30="]),
    )
)
def test_what_others_wrote_into_a_vm_can_be_read_or_is_malformed(values):
    found, refusal = outcome(lambda: decoded("guestinfo.metadata", values), MalformedError)
    assert refusal != "without a reason"
    assert isinstance(found, bytes | None)
