"""Whether vCenters answer is found out without anybody waiting for it."""

from __future__ import annotations

import asyncio

import pytest

from services.machine_controller.probes import AT_ONCE, Probes
from services.machine_controller.vsphere.errors import Unreachable
from services.machine_controller.vsphere.session import About
from services.runtime.kube.objects import ObjectKey

ABOUT = About("vCenter", "8.0.3", "1", "u")
A, B = ObjectKey("ns", "a"), ObjectKey("ns", "b")


class VCenter:
    """Answers once it is let."""

    def __init__(self):
        self.asked = 0
        self.answer = asyncio.get_running_loop().create_future()

    async def check(self):
        self.asked += 1
        return await asyncio.shield(self.answer)


async def turns():
    for _ in range(5):
        await asyncio.sleep(0)


async def test_all_who_want_to_know_are_woken_by_one_answer():
    woken, vcenter = [], VCenter()
    probes = Probes(woken.append)
    for key in (A, B, A):
        assert probes.outcome(key, vcenter) is None
        probes.done(key)
    await turns()
    assert (vcenter.asked, woken) == (1, [])
    vcenter.answer.set_result(ABOUT)
    await turns()
    assert sorted(woken) == [A, B]
    assert probes.outcome(A, vcenter) is ABOUT
    probes.done(A)
    assert probes.outcome(A, vcenter) is None  # another look asks again
    assert probes.outcome(B, vcenter) is ABOUT


@pytest.mark.parametrize("error", [Unreachable("vc", "no route"), ZeroDivisionError()])
async def test_why_there_is_no_answer_is_raised_where_it_was_asked_for(error):
    woken, vcenter = [], VCenter()
    probes = Probes(woken.append)
    probes.outcome(A, vcenter)
    vcenter.answer.set_exception(error)
    await turns()
    assert woken == [A]
    with pytest.raises(type(error)):
        probes.outcome(A, vcenter)


async def test_a_look_at_several_keeps_what_the_first_has_said_until_it_is_over():
    woken = []
    first, second = VCenter(), VCenter()
    probes = Probes(woken.append)
    for vcenter in (first, second):
        assert probes.outcome(A, vcenter) is None
        vcenter.answer.set_result(ABOUT)
        await turns()
        probes.outcome(A, first)
    assert probes.outcome(A, first) is probes.outcome(A, second) is ABOUT
    assert (first.asked, second.asked) == (1, 1)


async def test_one_that_hangs_holds_up_none_but_those_of_its_own_namespace_and_these_only_in_number():
    woken = []
    probes = Probes(woken.append)
    hanging = [VCenter() for _ in range(AT_ONCE + 3)]
    for number, vcenter in enumerate(hanging):
        assert probes.outcome(ObjectKey("bad", str(number)), vcenter) is None
    good = VCenter()
    good.answer.set_result(ABOUT)
    probes.outcome(A, good)
    await turns()
    assert woken == [A]
    assert sum(vcenter.asked for vcenter in hanging) == AT_ONCE
    hanging[0].answer.set_result(ABOUT)
    await turns()
    assert sum(vcenter.asked for vcenter in hanging) == AT_ONCE + 1
    for vcenter in hanging[1:]:
        vcenter.answer.set_result(ABOUT)
    await turns()


async def test_other_credentials_are_asked_about_anew_and_an_old_answer_counts_for_nothing():
    woken, vcenter = [], VCenter()
    probes = Probes(woken.append)
    probes.outcome(A, vcenter)
    probes.outcome(B, vcenter)
    await turns()
    probes.forget()
    old, vcenter.answer = vcenter.answer, asyncio.get_running_loop().create_future()
    assert probes.outcome(A, vcenter) is None
    old.set_exception(Unreachable("vc", "x"))
    await turns()
    assert vcenter.asked == 2
    assert sorted(woken) == [A, B]
    assert probes.outcome(A, vcenter) is None
    vcenter.answer.set_result(ABOUT)
    await turns()
    assert probes.outcome(A, vcenter) is ABOUT
