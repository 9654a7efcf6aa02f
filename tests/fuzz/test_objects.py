"""Objects that the API server would store and that make no sense: each is read, judged and answered, never a crash."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.ipam.api import PoolSpec
from services.ipam.space import PoolSpace
from services.machine_controller import api as machines
from services.machine_controller.guestinfo.metadata import metadata
from services.machine_controller.guestinfo.network import network_config
from services.machine_controller.guestinfo.problems import InvalidError
from services.podpreset import pods
from services.podpreset.compiled import compile_preset
from services.runtime.kube.objects import KubeObject, ObjectMeta, raw, view
from tests.fuzz.schemas import ANYTHING, outcome, specs
from tests.support.podpresets import admit, container, pod, world

QUICK = settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
OWN = container(env=[{"name": "HTTP_PROXY", "value": "http://own"}], volumeMounts=[{"name": "own", "mountPath": "/x"}])
PODS = st.builds(
    pod,
    st.just(OWN),
    labels=st.sampled_from([None, {}, {"app": "a"}]),
    volumes=st.sampled_from([[], [{"name": "own", "emptyDir": {}}]]),
)


@QUICK
@given(st.sampled_from(["IPPool", "GlobalIPPool"]).flatmap(specs))
def test_every_pool_can_be_read_and_what_is_wrong_with_it_is_named(spec):
    space = PoolSpace(view(raw(spec), PoolSpec))
    assert all(str(problem) for problem in space.problems)


@pytest.mark.parametrize("kind", ["ClusterPodPreset", "PodPreset"])
@QUICK
@given(data=st.data())
def test_every_preset_can_be_compiled_and_pods_are_admitted_under_it(kind, data):
    metadata_ = ObjectMeta(name="p", namespace="team" if kind == "PodPreset" else "", resourceVersion="1")
    preset = compile_preset(KubeObject(kind=kind, metadata=metadata_, spec=raw(data.draw(specs(kind)))))
    body = data.draw(PODS)
    decision, patched = admit(body, world(preset))
    assert decision.allowed
    own = body["spec"]["containers"][0]
    assert patched["spec"]["containers"][0]["name"] == own["name"]
    if not preset.usable:
        assert patched == body


@QUICK
@given(specs("VSphereMachine"))
def test_every_machine_can_be_read_and_its_network_is_rendered_or_refused_with_a_reason(spec):
    read = view(raw(spec), machines.VSphereMachineSpec)
    devices = read.network.devices
    macs = [f"00:50:56:00:00:{number:02x}" for number in range(len(devices))]

    def rendered():
        return metadata("m1", network_config(read.network, macs, [()] * len(devices)), instance_id="u1")

    assert outcome(rendered, InvalidError)[1] != "without a reason"


@pytest.mark.parametrize(
    ("kind", "struct"),
    [
        ("VSphereCluster", machines.VSphereClusterSpec),
        ("VSphereMachineTemplate", machines.VSphereMachineTemplateSpec),
        ("VSphereDeploymentZone", machines.VSphereDeploymentZoneSpec),
        ("VSphereFailureDomain", machines.VSphereFailureDomainSpec),
    ],
)
@QUICK
@given(data=st.data())
def test_what_passes_the_schema_can_be_read(kind, struct, data):
    assert isinstance(view(raw(data.draw(specs(kind))), struct), struct)


@QUICK
@given(st.dictionaries(st.sampled_from(["metadata", "spec", "containers", "env", "x"]), ANYTHING, max_size=4))
def test_a_pod_of_any_shape_is_admitted_or_refused_as_unreadable(body):
    read, refusal = outcome(lambda: pods.read(json.dumps(body).encode()), msgspec.MsgspecError)
    assert (read is None) == bool(refusal)
