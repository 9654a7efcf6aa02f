"""What is gathered of one machine out of the stores and what was seen of its VM."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from services.machine_controller.caches import Caches
from services.machine_controller.connections import Connection
from services.machine_controller.gather import Gathering
from services.machine_controller.phases import Look
from services.machine_controller.sight import Sights
from services.machine_controller.slots import Slots
from services.machine_controller.vsphere.values import Guest, GuestNic, PowerState, Ref, VirtualMachine
from services.runtime.kube.objects import KubeObject, ObjectKey, ObjectMeta, raw

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
CLUSTER = {"cluster.x-k8s.io/cluster-name": "prod"}


class NoConnections:
    """Credentials that are on their way."""

    def get(self, *_, **__):
        return Connection()


def gathered(host, assigned, reported):
    """The subject of machine m1 that was assigned addresses, when its guest reports some, in a cluster at `host`."""
    caches = Caches(lambda _: None, lambda _: None, lambda _: None)
    meta = {"namespace": "ns", "resourceVersion": "1", "labels": CLUSTER}
    endpoint = {"controlPlaneEndpoint": {"host": host, "port": 6443}, "server": "vc"}
    caches.stores.clusters.apply(
        "ADDED", KubeObject(kind="VSphereCluster", metadata=ObjectMeta(name="prod", **meta), spec=raw(endpoint))
    )
    devices = {"network": {"devices": [{"networkName": "n", "ipAddrs": assigned}]}}
    machine = KubeObject(kind="VSphereMachine", metadata=ObjectMeta(name="m1", uid="u1", **meta), spec=raw(devices))
    caches.stores.machines.apply("ADDED", machine)
    sights = Sights(lambda _: None)
    sight = sights.of(machine.key, "u1")
    guest = Guest(nics=(GuestNic(mac="m", addresses=tuple(reported), connected=True),))
    sight.look = Look.PRESENT
    sight.vm = VirtualMachine(ref=Ref("VirtualMachine", "vm-1"), power=PowerState.ON, guest=guest)
    gathering = Gathering(caches, NoConnections(), sights, Slots(1, lambda _: None), everything=True)
    return gathering.subject(ObjectKey("ns", "m1"), 0.0, NOW)


@pytest.mark.parametrize(
    ("host", "assigned", "reported", "shared", "missing"),
    [
        ("10.0.0.5", ["10.0.0.5/24"], ["10.0.0.5"], "", ()),
        ("FD00:0::5", ["fd00::5/64"], ["fd00::5"], "", ()),
        ("10.0.0.5", ["10.0.0.5/24"], [], "", ("10.0.0.5",)),
        ("10.0.0.9", ["10.0.0.5/24"], ["10.0.0.5", "10.0.0.9"], "10.0.0.9", ()),
        ("10.0.0.9", ["10.0.0.5/24"], ["10.0.0.9"], "10.0.0.9", ("10.0.0.5",)),
        ("prod.example", ["10.0.0.5/24"], ["10.0.0.5"], "prod.example", ()),
        ("", ["10.0.0.5/24"], ["10.0.0.5"], "", ()),
    ],
)
def test_an_endpoint_that_a_machine_was_assigned_is_its_own_address(host, assigned, reported, shared, missing):
    subject = gathered(host, assigned, reported)
    assert subject.shared == shared
    assert subject.world.missing == missing
