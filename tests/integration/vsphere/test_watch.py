"""What happens in vCenter is heard, through everything that happens to the connection."""

from __future__ import annotations

import asyncio

from services.machine_controller.vsphere.credentials import Credentials
from services.machine_controller.vsphere.values import ExtraConfig, Gone, PowerState, Ref, ToolsState
from services.machine_controller.vsphere.vcenter import VCenters
from tests.support.vcenter import PASSWORD, USER
from tests.support.waiting import until


class _Heard(list):
    """Collects what one who follows hears."""

    @property
    def latest(self):
        return self[-1] if self else None


async def test_a_followed_vm_is_told_at_once_and_at_each_change(sim, vc, made, name):
    vm = await made(name)
    heard = _Heard()
    stop = vc.watch.follow(vm.ref, heard.append)
    await until(lambda: heard)
    assert heard[0] == vm
    await vc.vms.power_on(vm.ref)
    await until(lambda: heard.latest.power is PowerState.ON)
    (nic,) = await vc.vms.nics(vm.ref)
    sim.report(name, addresses={nic.mac: ["10.0.0.9", "FE80:0::1"]}, host_name="node-1", tools=ToolsState.RUNNING.value)
    await until(lambda: "10.0.0.9" in heard.latest.guest.addresses())
    assert heard.latest.guest.by_mac() == {nic.mac: ("10.0.0.9", "fe80::1")}
    await until(lambda: heard.latest.guest.host_name == "node-1")
    assert heard.latest.guest.tools is ToolsState.RUNNING
    version = heard.latest.change_version
    await vc.vms.reconfigure(vm.ref, ExtraConfig({"guestinfo.metadata": "x"}))
    await until(lambda: heard.latest.change_version != version)
    sim.change(name, "rename", name=f"{name}-moved")
    await until(lambda: heard.latest.name == f"{name}-moved")
    stop()
    count = len(heard)
    sim.change(f"{name}-moved", "powerOff")
    assert len(heard) == count
    assert vc.watch.last(vm.ref) is None


async def test_a_vm_destroyed_by_somebody_else_is_gone(sim, vc, made, name):
    vm = await made(name)
    heard = _Heard()
    vc.watch.follow(vm.ref, heard.append)
    await until(lambda: heard)
    sim.change(name, "destroy")
    await until(lambda: heard.latest == Gone(vm.ref))
    assert vc.watch.last(vm.ref) is None


async def test_what_does_not_exist_is_gone_at_once(vc):
    heard = _Heard()
    vc.watch.follow(Ref("VirtualMachine", "vm-999999"), heard.append)
    await until(lambda: heard)
    assert heard == [Gone(Ref("VirtualMachine", "vm-999999"))]


async def test_several_may_follow_one_object_and_one_that_fails_harms_nobody(vc, made, name):
    vm = await made(name)
    first, second = _Heard(), _Heard()

    def broken(update):
        raise RuntimeError("a follower's own mistake")

    vc.watch.follow(vm.ref, broken)
    vc.watch.follow(vm.ref, first.append)
    await until(lambda: first)
    vc.watch.follow(vm.ref, second.append)  # hears what is known already
    await until(lambda: second)
    await vc.vms.power_on(vm.ref)
    await until(lambda: first.latest.power is second.latest.power is PowerState.ON)


async def test_an_object_followed_anew_while_still_listed_is_told_again(vc, made, name):
    vm = await made(name)
    heard = _Heard()
    vc.watch.follow(vm.ref, heard.append)
    await until(lambda: heard)
    for _ in range(3):
        again = _Heard()
        stop = vc.watch.follow(vm.ref, again.append)
        await until(lambda seen=again: seen)
        stop()
    other = await made(f"{name}-b")
    alone = _Heard()
    vc.watch.follow(other.ref, alone.append)()  # followed and let go within one turn of the loop
    stop = vc.watch.follow(other.ref, alone.append)
    await until(lambda: alone)
    stop()
    stop = vc.watch.follow(other.ref, alone.append)
    await until(lambda: len(alone) > 1)


class _Unwalked(dict):
    """Objects that are followed, of which there may be thousands: one more must not cost a look at each."""

    def __iter__(self):
        raise AssertionError("every object that is followed was looked at")

    keys = values = items = __iter__


async def test_one_more_object_costs_no_look_at_all_that_are_followed(vc, made, name):
    first, second, third = [await made(f"{name}-{number}") for number in range(3)]
    heard = _Heard()
    vc.watch.follow(first.ref, heard.append)
    await until(lambda: heard)
    vc.watch._followed = _Unwalked(vc.watch._followed)
    stop = vc.watch.follow(second.ref, heard.append)
    await until(lambda: heard.latest.ref == second.ref)
    stop()
    vc.watch.follow(third.ref, heard.append)
    await until(lambda: heard.latest.ref == third.ref)
    vc.watch.follow(Ref("VirtualMachine", "vm-999999"), heard.append)
    await until(lambda: isinstance(heard.latest, Gone))


async def test_nothing_is_polled_while_nothing_happens(sim, vc, made, name):
    vms = await asyncio.gather(*(made(f"{name}-{i}") for i in range(5)))
    heard = _Heard()
    for vm in vms:
        vc.watch.follow(vm.ref, heard.append)
    await until(lambda: len(heard) == 5)
    await asyncio.sleep(0.2)
    sim.forget_stats()
    await asyncio.sleep(0.5)
    stats = sim.stats()
    assert stats["calls"] == {}
    assert stats["inFlight"] == 1  # the long poll


async def test_two_hundred_tasks_and_vms_share_one_long_poll(sim, vc, made, name):
    vm = await made(name)
    await asyncio.gather(*(made(f"{name}-{i}") for i in range(10)))
    heard = _Heard()
    for _ in range(200):
        vc.watch.follow(vm.ref, heard.append)
    await until(lambda: len(heard) == 200)
    stats = sim.stats()
    assert stats["calls"]["CreatePropertyCollector"] == 1
    assert stats["sessions"] == 1


async def test_changes_made_while_vcenter_was_down_are_heard_when_it_is_back(sim, vc, made, name):
    vm, doomed = await made(name), await made(f"{name}-doomed")
    heard, last = _Heard(), _Heard()
    vc.watch.follow(vm.ref, heard.append)
    vc.watch.follow(doomed.ref, last.append)
    await until(lambda: heard and last)
    sim.down()
    sim.change(name, "powerOn")
    sim.change(doomed.name, "destroy")
    await until(lambda: not vc.watch.connected)
    sim.up()
    await until(lambda: heard.latest.power is PowerState.ON)
    await until(lambda: last.latest == Gone(doomed.ref))
    sim.change(name, "powerOff")
    await until(lambda: heard.latest.power is PowerState.OFF)


async def test_a_clone_in_flight_is_waited_for_over_a_restart(sim, vc, spec_for, name):
    sim.task("cloneVm", hold=True)
    waiting = asyncio.create_task(vc.watch.finished(await vc.vms.clone(await spec_for(name))))
    await until(lambda: vc.watch.connected)
    sim.down()
    await until(lambda: not vc.watch.connected)
    sim.up()
    sim.release()
    assert (await waiting).error is None


async def test_an_expired_session_is_renewed_under_the_watch(sim, vc, made, name):
    vm = await made(name)
    heard = _Heard()
    vc.watch.follow(vm.ref, heard.append)
    await until(lambda: heard)
    sim.expire()
    sim.change(name, "powerOn")
    await until(lambda: heard.latest.power is PowerState.ON)
    await until(lambda: vc.stats().logins == 2)
    sim.change(name, "powerOff")
    await until(lambda: heard.latest.power is PowerState.OFF)


async def test_a_poll_that_breaks_is_taken_up_again(sim, vc, made, name):
    vm = await made(name)
    heard = _Heard()
    vc.watch.follow(vm.ref, heard.append)
    await until(lambda: heard)
    sim.request("WaitForUpdatesEx", drop="after", times=2)
    sim.change(name, "powerOn")
    await until(lambda: heard.latest.power is PowerState.ON)
    assert vc.stats().logins == 1


async def test_replaced_credentials_carry_the_watch_along(sim, vc, made, name):
    vm = await made(name)
    heard = _Heard()
    vc.watch.follow(vm.ref, heard.append)
    await until(lambda: heard)
    sim.users({USER: PASSWORD, "second": "two"})
    vc.replace(Credentials("second", "two"), sim.trust)
    sim.change(name, "powerOn")
    await until(lambda: heard.latest.power is PowerState.ON)
    stats = sim.wait_stats(lambda stats: stats["calls"].get("Logout") == 1)
    assert stats["sessions"] == 1


async def test_corrected_credentials_wake_a_watch_that_pauses(sim, vcenters, vc, made, name):
    vm = await made(name)
    broken = vcenters.get(sim.server, "other", Credentials(USER, "wrong"), sim.trust)
    heard = _Heard()
    broken.watch.follow(vm.ref, heard.append)
    await until(lambda: sim.stats()["calls"]["Login"] == 2)
    broken.replace(sim.credentials, sim.trust)
    await until(lambda: heard)


async def test_closing_ends_the_poll_at_once_and_leaves_nothing(sim, made, name):
    vm = await made(name)
    async with VCenters() as connections:
        vc = connections.get(sim.server, "own", sim.credentials, sim.trust)
        heard = _Heard()
        vc.watch.follow(vm.ref, heard.append)
        await until(lambda: heard)
        sim.forget_stats()
    calls = sim.stats()["calls"]
    assert calls["CancelWaitForUpdates"] == 1
    assert calls["Logout"] == 1
