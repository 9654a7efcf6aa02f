"""Signing in, staying signed in, and what is trusted."""

from __future__ import annotations

import asyncio
import io
import logging
import threading

import pytest

from services.machine_controller.vsphere.access import FIRST_PAUSE
from services.machine_controller.vsphere.calls import Threads
from services.machine_controller.vsphere.credentials import Credentials, Trust
from services.machine_controller.vsphere.errors import (
    AuthenticationFailed,
    CertificateMismatch,
    DeadlineExceeded,
    InvalidValue,
    Overloaded,
    PermissionDenied,
    TaskFailed,
    Unreachable,
)
from services.machine_controller.vsphere.session import current_time
from services.machine_controller.vsphere.values import Server
from services.machine_controller.vsphere.vcenter import VCenters
from services.runtime import log
from tests.support.proxy import Proxy
from tests.support.vcenter import PASSWORD, USER
from tests.support.waiting import until


class _Clock:
    """Time that stands still until it is moved; sleeping waits for that."""

    def __init__(self):
        self.time = 1000.0
        self._moved = asyncio.Event()

    def monotonic(self):
        return self.time

    async def sleep(self, seconds):
        end = self.time + seconds
        while self.time < end:
            await self._moved.wait()
            self._moved.clear()

    def move(self, seconds):
        self.time += seconds
        self._moved.set()


async def test_calls_that_start_at_once_sign_in_once(sim, vc):
    await asyncio.gather(*(vc.check() for _ in range(50)))
    stats = sim.stats()
    assert stats["calls"]["Login"] == 1
    assert stats["sessions"] == 1
    assert stats["peakConnections"] <= 4


async def test_equal_identities_share_a_session_and_others_do_not(sim, vcenters, vc):
    again = vcenters.get(sim.server, "test/credentials", sim.credentials, sim.trust)
    other = vcenters.get(sim.server, "test/other", sim.credentials, sim.trust)
    assert again is vc
    await asyncio.gather(vc.check(), again.check(), other.check())
    assert sim.stats()["sessions"] == 2


async def test_closing_signs_out(sim):
    async with VCenters() as connections:
        await connections.get(sim.server, "a", sim.credentials, sim.trust).check()
        assert sim.stats()["sessions"] == 1
    assert sim.wait_stats(lambda stats: not stats["connections"])["sessions"] == 0


async def test_an_expired_session_is_renewed_once_and_the_calls_are_repeated(sim, vc):
    await vc.check()
    sim.expire()
    names = await asyncio.gather(*(vc.inventory.names([]) for _ in range(3)), *(vc.check() for _ in range(20)))
    assert len(names) == 23
    assert sim.stats()["calls"]["Login"] == 2


async def test_a_server_that_forgets_every_session_is_unreachable(sim, vc):
    sim.fault("CurrentTime", "NotAuthenticated")
    with pytest.raises(Unreachable, match="forgets sessions"):
        await vc.check()
    assert sim.stats()["calls"]["Login"] == 2


async def test_calls_go_on_after_a_restart(sim, vc):
    await vc.check()
    sim.down()
    try:
        with pytest.raises(Unreachable) as caught:
            await vc.check()
        assert not caught.value.outcome_unknown
    finally:
        sim.up()
    assert (await vc.check()).version
    assert sim.stats()["sessions"] == 1


async def test_an_idle_session_is_kept_alive(sim):
    clock = _Clock()
    async with VCenters(clock=clock) as connections:
        await connections.get(sim.server, "a", sim.credentials, sim.trust).check()
        before = sim.stats()["calls"]["CurrentTime"]
        await asyncio.sleep(0)
        clock.move(301)
        await until(lambda: sim.stats()["calls"]["CurrentTime"] > before)


async def test_a_wrong_password_is_tried_once_until_the_pause_is_over(sim):
    clock = _Clock()
    async with VCenters(clock=clock) as connections:
        vc = connections.get(sim.server, "a", Credentials(USER, "canary-wrong"), sim.trust)
        for _ in range(5):
            with pytest.raises(AuthenticationFailed) as caught:
                await vc.check()
            assert "canary" not in str(caught.value)
            assert USER in str(caught.value)
        assert sim.stats()["calls"]["Login"] == 1
        clock.move(FIRST_PAUSE + 1)
        with pytest.raises(AuthenticationFailed):
            await vc.check()
        clock.move(FIRST_PAUSE + 1)  # the second pause is longer
        with pytest.raises(AuthenticationFailed):
            await vc.check()
        assert sim.stats()["calls"]["Login"] == 2


async def test_corrected_credentials_work_at_once(sim, vcenters):
    vc = vcenters.get(sim.server, "a", Credentials(USER, "wrong"), sim.trust)
    with pytest.raises(AuthenticationFailed):
        await vc.check()
    assert vcenters.get(sim.server, "a", sim.credentials, sim.trust) is vc
    assert await vc.check()


async def test_replaced_credentials_end_the_old_session(sim, vc):
    await vc.check()
    sim.users({USER: PASSWORD, "second": "two"})
    assert vc.replace(Credentials("second", "two"), sim.trust)
    assert not vc.replace(Credentials("second", "two"), sim.trust)
    await vc.check()
    stats = sim.wait_stats(lambda stats: stats["calls"].get("Logout") == 1)
    assert stats["sessions"] == 1


@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
async def test_a_thumbprint_is_enough_to_trust_a_server(sim, vcenters, algorithm):
    trust = Trust(thumbprint=sim.thumbprint(algorithm))
    vc = vcenters.get(sim.server, "a", sim.credentials, trust)
    assert await vc.check()
    assert await vc.tags.categories() is not None


@pytest.mark.parametrize(
    "trust",
    [
        pytest.param(Trust(thumbprint="AB:" * 31 + "AB"), id="another thumbprint"),
        pytest.param(Trust(thumbprint="ab" * 20), id="another SHA-1 thumbprint"),
        pytest.param(Trust(), id="the authorities of the system"),
    ],
)
async def test_a_server_that_is_not_trusted_gets_no_request(sim, vcenters, trust):
    vc = vcenters.get(sim.server, "a", sim.credentials, trust)
    with pytest.raises(CertificateMismatch) as caught:
        await vc.check()
    with pytest.raises(CertificateMismatch):
        await vc.tags.categories()
    if trust.thumbprint:
        assert caught.value.sha256 == sim.thumbprint()  # what to configure if the administrator finds it right
    assert sim.stats()["calls"] == {}


async def test_a_thumbprint_counts_even_if_the_authority_vouches_for_the_certificate(sim, vcenters):
    vc = vcenters.get(sim.server, "a", sim.credentials, Trust(ca=sim.ca.decode(), thumbprint="ab" * 32))
    with pytest.raises(CertificateMismatch):
        await vc.check()


async def test_a_certificate_for_another_name_is_not_trusted(sim, vcenters):
    vc = vcenters.get(Server("127.0.0.2", sim.port), "a", sim.credentials, sim.trust)
    with pytest.raises((CertificateMismatch, Unreachable)):
        await vc.check()


async def test_insecure_has_to_be_asked_for(sim, vcenters):
    assert await vcenters.get(sim.server, "a", sim.credentials, Trust(insecure=True)).check()
    with pytest.raises(InvalidValue):
        Trust(insecure=True, ca=sim.ca.decode())


async def test_proxies_of_the_environment_are_not_used(sim, vc, monkeypatch):
    for variable in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    assert await vc.check()
    assert await vc.tags.categories() is not None


async def test_something_else_that_listens_there_is_no_vcenter(sim, vcenters):
    sim.request("RetrieveServiceContent", status=200, body="<html>captive portal</html>")
    with pytest.raises(Unreachable):
        await vcenters.get(sim.server, "a", sim.credentials, sim.trust).check()


async def test_a_server_that_is_starting_is_unreachable(sim, vc):
    sim.request("*", status=503)
    with pytest.raises(Unreachable, match="503"):
        await vc.check()
    sim.release()
    assert await vc.check()


async def test_a_call_that_hangs_ends_at_its_deadline_and_frees_its_thread(sim, vc):
    await vc.check()
    sim.request("CurrentTime", hold=True)
    with pytest.raises(DeadlineExceeded) as caught:
        await vc._session.call("wait", current_time, seconds=0.2)
    assert caught.value.outcome_unknown
    await until(lambda: vc.stats().running == 0)
    sim.release()
    assert await vc.check()


async def test_calls_that_wait_for_a_thread_beyond_their_deadline_were_never_sent(sim, vc):
    await vc.check()
    sim.request("CurrentTime", hold=True)
    running = [asyncio.create_task(vc.check()) for _ in range(4)]  # as many as there are threads
    await until(lambda: vc.stats().running == 4)
    sim.wait_stats(lambda stats: stats["inFlight"] == 4)
    waiting = (vc._session.call("wait", current_time, seconds=0.2) for _ in range(20))
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(answer, DeadlineExceeded) for answer in answers)
    assert not any(answer.outcome_unknown for answer in answers)
    assert sim.stats()["calls"]["CurrentTime"] == 5
    sim.release()
    assert all(await asyncio.gather(*running))


async def test_a_lost_route_ends_a_call_at_its_deadline(sim, vcenters):
    async with Proxy("127.0.0.1", sim.port) as route:
        vc = vcenters.get(Server("127.0.0.1", route.port), "a", sim.credentials, sim.trust)
        await vc.check()
        route.stall()
        for _ in range(6):  # the first uses the open connection, the others hang in a handshake
            with pytest.raises(DeadlineExceeded):
                await vc._session.call("wait", current_time, seconds=0.1)
        await until(lambda: vc.stats().running == 0)
        route.resume()
        assert await vc.check()
        await vcenters.forget(Server("127.0.0.1", route.port), "a")


async def test_calls_beyond_the_waiting_room_are_refused():
    threads = Threads("vc", size=1, limit=2)
    done = threading.Event()
    calls = [asyncio.create_task(threads.run("wait", done.wait, seconds=30)) for _ in range(3)]
    await until(lambda: (threads.running, threads.waiting) == (1, 2))
    with pytest.raises(Overloaded):
        await threads.run("wait", done.wait, seconds=30)
    done.set()
    assert await asyncio.gather(*calls) == [True] * 3
    await threads.aclose()


async def test_a_cancelled_call_frees_its_thread(sim, vc):
    await vc.check()
    sim.request("CurrentTime", hold=True)
    call = asyncio.create_task(vc.check())
    await until(lambda: vc.stats().running == 1)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await until(lambda: vc.stats().running == 0)


async def test_a_connection_that_breaks_leaves_the_outcome_open(sim, vc):
    await vc.check()
    sim.request("CurrentTime", drop="after", times=1)
    with pytest.raises(Unreachable) as caught:
        await vc.check()
    assert caught.value.outcome_unknown
    assert await vc.check()


async def test_a_connection_that_was_closed_while_idle_is_not_used_again(sim, vc):
    await vc.check()
    sim.down()
    sim.up()
    # The session is lost as well, so this signs in anew: no call may fail over the dead connection.
    assert await vc.check()


async def test_faults_become_errors_of_our_own(sim, vc):
    await vc.check()
    fields = {"privilegeId": "VirtualMachine.Provisioning.Clone", "object": {"type": "Folder", "value": "group-2"}}
    sim.fault("CurrentTime", "NoPermission", fields=fields, times=1)
    with pytest.raises(PermissionDenied) as denied:
        await vc.check()
    assert (denied.value.privilege, denied.value.target) == ("VirtualMachine.Provisioning.Clone", "Folder:group-2")
    sim.fault("CurrentTime", "NotSupported", message="Not here.", times=1)
    with pytest.raises(TaskFailed) as failed:
        await vc.check()
    assert (failed.value.fault, failed.value.message) == ("NotSupported", "Not here.")


async def test_a_closed_connection_refuses_calls(sim, vcenters):
    vc = vcenters.get(sim.server, "a", sim.credentials, sim.trust)
    await vc.check()
    await vcenters.forget(sim.server, "a")
    with pytest.raises(Unreachable, match="closed"):
        await vc.check()
    with pytest.raises(Unreachable, match="closed"):
        await vc.tags.categories()


async def test_no_password_reaches_a_log_or_a_message(sim, vcenters):
    written = io.StringIO()
    log.configure("debug", "text", written)
    logging.getLogger("aiohttp").setLevel(logging.DEBUG)
    try:
        wrong = vcenters.get(sim.server, "wrong", Credentials(USER, "canary-wrong"), sim.trust)
        right = vcenters.get(sim.server, "right", sim.credentials, sim.trust)
        sim.fault("CurrentTime", "NotAuthenticated", times=1)
        await right.check()
        sim.request("Login", drop="after", times=1)
        sim.expire()
        shown = [repr(sim.credentials), str(sim.credentials), repr(right), repr(right._session), repr(right._access)]
        for call in (right.check, wrong.check, wrong.tags.categories):
            with pytest.raises((AuthenticationFailed, Unreachable)) as caught:
                await call()
            shown.append(repr(caught.value))
            log.get("test").error("It failed", error=caught.value, credentials=sim.credentials, vcenter=right)
    finally:
        logging.basicConfig(force=True)
    assert "It failed" in written.getvalue()
    assert "canary" not in written.getvalue() + "".join(shown)
