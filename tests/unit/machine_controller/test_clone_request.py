"""What vCenter is asked for by a clone: the request itself, as the simulator leaves out much of it."""

from __future__ import annotations

import pytest

from services.machine_controller.vsphere.refs import managed
from services.machine_controller.vsphere.values import CloneSpec, Ref
from services.machine_controller.vsphere.vms import _clone_spec


class Api:
    """References to objects, with nothing to send calls with."""

    @staticmethod
    def object(reference):
        return managed(reference, None)


def request(*hardware, **fields):
    """The CloneSpec of vCenter for one of ours, of a template with this hardware."""
    spec = CloneSpec(
        name="m1",
        template=Ref("VirtualMachine", "vm-t"),
        folder=Ref("Folder", "group-v1"),
        pool=Ref("ResourcePool", "resgroup-1"),
        instance_uuid="00000000-0000-0000-0000-000000000001",
        **fields,
    )
    return _clone_spec(Api, spec, {"config.hardware.device": list(hardware)})


def test_disks_show_their_uuids_to_the_guest_so_that_a_csi_driver_finds_its_volumes():
    assert request().config.flags.diskUuidEnabled is True


@pytest.mark.parametrize(
    ("cpus", "cores_per_socket", "asked"),
    [
        (0, 0, (None, None)),  # as the template has them
        (6, 0, (6, 6)),
        (6, 2, (6, 2)),
        (0, 2, (None, 2)),
    ],
)
def test_all_cpus_are_in_one_socket_unless_its_cores_are_told(cpus, cores_per_socket, asked):
    config = request(cpus=cpus, cores_per_socket=cores_per_socket).config
    assert (config.numCPUs, config.numCoresPerSocket) == asked
