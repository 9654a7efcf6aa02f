"""A short fault run, as `python -m tests.faults.runner` makes long ones: every kind of place is hit once at least."""

from __future__ import annotations

import json

from tests.faults import plan, runner
from tests.faults.estate import possible
from tools.progress import say

SEED = 20_261_123
FAULTS = 25
SLOW = {"pause beyond the lease", "expire every watch", "partition of its network namespace"}
"""Of the long runs alone, since they take a Lease or the start of an API server each."""


async def test_services_heal_from_faults_of_many_kinds_at_once(control_plane, tmp_path):
    kinds = {name: kind for name, kind in plan.available(possible() - {"netns"}).items() if name not in SLOW}
    faults = plan.draw(SEED, FAULTS, kinds, patient=False)
    report, wrong = await runner.run(faults, SEED, tmp_path, patience=240.0, having=set(), lease=15.0)
    say(json.dumps(report))
    assert wrong is None, f"seed {SEED}: {wrong}"
    assert report["tracebacks"] == {}
    assert report["mistakes_of_stand_ins"] == []
    assert report["users"]["claim"] > 0
