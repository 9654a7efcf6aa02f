"""Crashes, replicas and handovers: whatever happens to the integrator, each machine has one address and keeps it."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack

import pytest

from tests.support.capv_services import Integrator
from tests.support.capv_witness import Cutting
from tests.support.capv_world import USE
from tests.support.kube import eventually

CLUSTER = "integrator.groundwork.dev/cluster"
COURTESY = {"update status ipaddressclaims", "update status ipclaims"}
"""Claims are told that their address was written when nothing else is to do, so at any moment of a test."""
VIP = {USE: "endpoints", CLUSTER: "prod"}


async def cut_everywhere(world, act):
    """Repeat `act(round)`, each time cutting the integrator off at its next write, until it gets through uncut.

    Each write is hit twice: before it is sent, and when it was carried out and its answer is lost. Returns the writes.
    """
    cuts = []
    for number in range(100):
        cutting = Cutting(number // 2, sent=bool(number % 2), passing=COURTESY)
        world.integrator.watch(cutting)
        acting = asyncio.create_task(act(number))
        cut = asyncio.create_task(cutting.cut.wait())
        await asyncio.wait({acting, cut}, return_when=asyncio.FIRST_COMPLETED)
        cut.cancel()
        if not cutting.cut.is_set():
            await acting
            assert cuts, "no write was seen"
            return cuts
        cuts.append(cutting.write)
        world.integrator.watch(Cutting(-1, sent=False))
        await world.integrator.restart()
        await acting
    raise AssertionError(f"never got through: {cuts}")


async def test_an_integrator_that_dies_at_any_write_for_a_machine_goes_on_after_its_restart(world):
    await world.pool("v4", "10.0.0.10-10.0.0.99")
    await world.pool("v6", "2001:db8::10-2001:db8::99")
    await world.cluster()

    async def serve(number):
        await world.machine(f"m{number}", pools="v4, v6")
        assert len(await world.addressed(f"m{number}")) == 2

    cuts = await cut_everywhere(world, serve)
    assert {"create ipaddressclaims", "patch vspheremachines"} <= set(cuts)


async def test_an_integrator_that_dies_at_any_write_of_a_deletion_goes_on_after_its_restart(world):
    await world.pool("vlan-7", "10.0.0.10-10.0.0.99")
    await world.cluster()

    for number in range(12):
        await world.machine(f"m{number}", pools="vlan-7")
    await world.addressed(*(f"m{number}" for number in range(12)))

    async def end(number):
        await world.delete(f"m{number}")
        await world.gone(f"m{number}")
        await eventually(lambda: world.claims_of(f"m{number}"), lambda claims: claims == [])

    cuts = await cut_everywhere(world, end)
    assert cuts == ["delete ipaddressclaims"] * 2 + ["update ipaddressclaims"] * 2


async def test_an_integrator_that_dies_at_any_write_for_an_endpoint_goes_on_after_its_restart(world):
    await world.pool("vip", "10.0.0.10-10.0.0.99", labels={USE: "endpoints"}, annotations={CLUSTER: "*"})

    async def serve(number):
        await world.cluster(f"c{number}", endpoint=None)
        await world.endpoint(f"c{number}")

    cuts = await cut_everywhere(world, serve)
    assert {"create ipaddressclaims", "patch vsphereclusters"} <= set(cuts)


async def test_what_happened_while_it_was_down_is_made_up_for(world):
    await world.pool("vlan-7", "10.0.0.10-10.0.0.99")
    await world.cluster()
    for name in ("stays", "goes"):
        await world.machine(name, pools="vlan-7")
    await world.addressed("stays", "goes")
    await world.integrator.stop()
    await world.delete("goes")
    await world.gone("goes")
    await world.machine("comes", pools="vlan-7")
    await world.integrator.start()
    await world.addressed("comes")
    await eventually(lambda: world.claims_of("goes"), lambda claims: claims == [])
    assert len(await world.tenant.held()) == 2


async def test_claims_of_machines_that_are_not_there_yet_are_kept_for_a_while(start_world):
    world = await start_world(integrator={"orphan_grace_seconds": 3600})
    await world.pool("vlan-7", "10.0.0.10-10.0.0.99")
    await world.cluster()
    await world.machine("m1", pools="vlan-7", bootstrap=False)
    await world.written_to("m1")
    await world.integrator.stop()
    await world.delete("m1")
    await world.gone("m1")
    await world.integrator.start()
    await world.settled()
    assert len(await world.claims_of("m1")) == 1, "a restore may be under way: the machine was never seen"
    await world.integrator.stop()
    world.integrators[0] = world.other_integrator(orphan_grace_seconds=0)
    await world.integrator.start()
    await world.nothing_left()
    await world.integrator.stop()


async def test_two_integrators_at_once_do_no_harm(start_world):
    """Nobody should run it so; but a leader that hangs may come back for a moment."""
    world = await start_world(integrators=2)
    await world.pool("vlan-7", "10.0.0.10-10.0.0.99")
    await world.pool("v6", "2001:db8::10-2001:db8::99")
    await world.pool("vip", "10.0.9.9-10.0.9.9", labels=VIP)
    await world.cluster(endpoint=None)
    names = [f"m{number}" for number in range(12)]
    await asyncio.gather(*(world.machine(name, pools="vlan-7, v6") for name in names))
    given = await world.addressed(*names)
    assert len({address for pair in given for address in pair}) == 24
    assert await world.endpoint() == "10.0.9.9:6443"
    await world.sound()
    await world.delete(*names[:6])
    await world.gone(*names[:6])


async def test_processes_that_are_killed_over_and_over_serve_everybody_once(start_world, capv_cluster, tmp_path):
    world = await start_world(integrators=0)
    await world.pool("vlan-7", "10.0.0.10-10.0.0.99")
    await world.cluster()
    flags = [f"--watch-namespace={world.namespace}", "--orphan-grace-seconds=0"]
    chance = random.Random(7)
    with Integrator.running(tmp_path, capv_cluster.kubeconfig, *flags) as process:
        names = [f"m{number}" for number in range(20)]
        making = asyncio.create_task(_one_by_one(world, names))
        for _ in range(3):
            await asyncio.sleep(chance.uniform(0.1, 0.5))
            await asyncio.to_thread(process.kill)
            await asyncio.to_thread(process.start)
        await making
        given = [address for (address,) in await world.addressed(*names)]
        assert len(set(given)) == len(names)
        await world.delete(*names[:10])
        await asyncio.to_thread(process.kill)
        await asyncio.to_thread(process.start)
        await world.gone(*names[:10])
        await world.sound()


async def _one_by_one(world, names):
    for name in names:
        await world.machine(name, pools="vlan-7")


async def test_of_two_replicas_one_works_and_the_other_takes_over(start_world, capv_cluster, tmp_path):
    world = await start_world(integrators=0)
    await world.pool("vlan-7", "10.0.0.10-10.0.0.99")
    await world.cluster()
    flags = [
        f"--watch-namespace={world.namespace}",
        f"--lease-namespace={world.namespace}",
        "--leader-election",
        "--lease-duration=3s",
        "--renew-deadline=2s",
        "--retry-period=500ms",
    ]
    async with AsyncExitStack() as stack:
        replicas = []
        for number in range(2):
            folder = tmp_path / str(number)
            folder.mkdir()
            replicas.append(stack.enter_context(Integrator.running(folder, capv_cluster.kubeconfig, *flags)))

        def leaders():
            return [r for r in replicas if any(row["msg"] == "Became the leader" for row in r.records())]

        async def leading():
            return leaders()

        (leader,) = await eventually(leading)
        await world.machine("m1", pools="vlan-7")
        await world.addressed("m1")
        await world.machine("m2", pools="vlan-7")
        await asyncio.to_thread(leader.kill)
        await world.addressed("m2")
        await world.machine("m3", pools="vlan-7")
        await world.addressed("m3")
        assert leaders() == replicas or leaders() == replicas[::-1]
        await asyncio.to_thread(leader.start)
        await world.delete("m1")
        await world.gone("m1")
        await world.sound()


@pytest.mark.parametrize("service", ["allocator", "integrator"])
async def test_a_service_that_comes_later_than_everything_else_catches_up(world, service):
    await getattr(world, service).stop()
    await world.pool("vlan-7", "10.0.0.10-10.0.0.99")
    await world.cluster()
    names = [f"m{number}" for number in range(5)]
    for name in names:
        await world.machine(name, pools="vlan-7")
    await getattr(world, service).start()
    assert len({address for (address,) in await world.addressed(*names)}) == 5
