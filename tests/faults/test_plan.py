"""Plans of fault runs: drawn alike from the same seed, complete, and replayable."""

from __future__ import annotations

from tests.faults import inject, plan, runner

EVERYTHING = plan.available({"netns", "faketime"})


def test_the_same_seed_draws_the_same_plan_and_another_one_another():
    assert plan.draw(7, 100, EVERYTHING) == plan.draw(7, 100, EVERYTHING)
    assert plan.draw(7, 100, EVERYTHING) != plan.draw(8, 100, EVERYTHING)


def test_a_longer_plan_begins_as_a_shorter_one():
    assert plan.draw(7, 200, EVERYTHING)[:100] == plan.draw(7, 100, EVERYTHING)


def test_a_default_run_makes_faults_of_every_kind():
    assert {fault.kind for fault in plan.draw(1, 500, EVERYTHING)} == set(plan.KINDS)


def test_every_kind_can_be_made():
    assert inject._KINDS.keys() == plan.KINDS.keys()


def test_what_a_machine_lacks_is_left_out():
    assert plan.KINDS.keys() - plan.available(set()).keys() == {"clock jump", "partition of its network namespace"}


def test_faults_that_take_a_minute_to_be_noticed_stay_together():
    late = {(f.number - 1) // plan.BATCH for f in plan.draw(3, 1000, EVERYTHING) if plan.KINDS[f.kind].patient}
    assert late
    assert {batch % plan._PATIENT for batch in late} == {plan._PATIENT - 1}
    assert not any(plan.KINDS[f.kind].patient for f in plan.draw(3, 1000, EVERYTHING, patient=False))


def test_a_dense_plan_has_the_same_faults_in_less_time_and_those_that_take_a_minute_in_fewer_rests():
    usual, dense = (plan.draw(3, 1000, EVERYTHING, patient=False, dense=dense) for dense in (1, 5))
    assert [(f.kind, f.target, f.seconds) for f in usual] == [(f.kind, f.target, f.seconds) for f in dense]
    assert sum(f.gap for f in dense) < sum(f.gap for f in usual) / 4
    late = [f for f in plan.draw(3, 2000, EVERYTHING, dense=5) if plan.KINDS[f.kind].patient]
    assert {(f.number - 1) // (5 * plan.BATCH) % plan._PATIENT for f in late} == {plan._PATIENT - 1}


def test_a_plan_is_read_as_it_was_written():
    faults = plan.draw(5, 50, EVERYTHING)
    assert plan.load(plan.dump(faults)) == faults


def test_a_plan_is_printed_without_anything_being_made(capsys):
    assert runner.main(["--plan-only", "--seed", "5", "--faults", "3", "--only", "kill", "--only", "kill etcd"]) == 0
    kinds = {name: kind for name, kind in plan.KINDS.items() if name in {"kill", "kill etcd"}}
    assert plan.load(capsys.readouterr().out) == plan.draw(5, 3, kinds)
