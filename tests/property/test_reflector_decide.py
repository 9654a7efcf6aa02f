"""The reflector's table over any sequence of outcomes."""

from typing import NamedTuple

from hypothesis import given, strategies

from services.runtime.cache.decide import (
    BASE_DELAY,
    MAX_DELAY,
    MIN_DELAY,
    RETRY_AFTER_LIMIT,
    UNSERVED_LIMIT,
    List,
    Listed,
    ListFailed,
    Pause,
    Resumed,
    State,
    Trouble,
    Watch,
    WatchEnded,
    step,
)
from services.runtime.kube.objects import version

SPREADS = strategies.floats(min_value=0, max_value=1, exclude_max=True)


class Chance(NamedTuple):
    """What decides how an action turns out; which of it counts depends on the action."""

    trouble: Trouble | None
    progress: int
    retry_after: float | None
    flag: bool
    spread: float


CHANCES = strategies.builds(
    Chance,
    strategies.none() | strategies.sampled_from(Trouble),
    strategies.integers(min_value=0, max_value=100),
    strategies.none() | strategies.floats(min_value=0.001, max_value=1e6),
    strategies.booleans(),
    SPREADS,
)


def outcome_of(action, chance, *, populated):
    """Something that can come of an action; versions grow within a watch and go anywhere in a list."""
    match action:
        case Pause():
            return Resumed(changed=chance.flag and action.until_change)
        case List() if chance.trouble is None:
            return Listed(str(chance.progress + 1))
        case List():
            return ListFailed(chance.trouble, populated, chance.retry_after)
        case Watch(resource_version=resource_version):
            end = int(resource_version) + (chance.progress if chance.flag else 0)
            return WatchEnded(str(end), chance.flag, chance.trouble, chance.retry_after, lasted=chance.spread * 20)


@given(strategies.lists(CHANCES, max_size=60))
def test_whatever_happens_the_invariants_hold(chances):
    state, action = step(State(), Resumed(), 0.0)
    last = None  # the version up to which the store was told, None before a list
    populated = False
    unserved = 0
    for chance in chances:
        outcome = outcome_of(action, chance, populated=populated)
        previous, (state, action) = action, step(state, outcome, chance.spread)

        match outcome:
            case Listed():
                last, populated, unserved = version(outcome.resource_version), chance.flag, 0
            case ListFailed():
                unserved = unserved + 1 if outcome.trouble is Trouble.UNSERVED else 0
            case WatchEnded():
                last = version(outcome.resource_version)

        if isinstance(action, Watch):
            assert version(action.resource_version) == last, "a watch resumes exactly where the store is"
        if isinstance(action, Pause):
            retry_after = getattr(outcome, "retry_after", None)
            if retry_after is None:
                assert MIN_DELAY <= action.seconds <= MAX_DELAY
            else:
                wished = min(retry_after, RETRY_AFTER_LIMIT)
                assert wished <= action.seconds <= wished + BASE_DELAY, "the server's wish wins"
            if action.clear:
                assert unserved >= UNSERVED_LIMIT or not populated, "a store is not emptied lightly"
                populated = False
        elif isinstance(previous, Watch):
            expired = outcome.trouble in {Trouble.EXPIRED, Trouble.REWOUND, Trouble.SUPERSEDED}
            assert outcome.delivered or (expired and action == List()), "nothing is reopened at once for nothing"
        elif isinstance(previous, List):
            assert isinstance(outcome, Listed), "a failed list is never repeated at once"


@given(strategies.lists(SPREADS, min_size=2, max_size=30))
def test_lists_that_expire_at_once_do_not_follow_each_other_without_end(spreads):
    """A server that lists but refuses every watch as too old is asked ever more slowly."""
    state, action = step(State(), Resumed(), 0.0)
    immediate = 0
    for spread in spreads:
        if isinstance(action, List):
            state, action = step(state, Listed("5"), spread)
        assert isinstance(action, Watch)
        state, action = step(state, WatchEnded("5", delivered=False, trouble=Trouble.EXPIRED), spread)
        immediate += isinstance(action, List)
        if isinstance(action, Pause):
            state, action = step(state, Resumed(), spread)
    assert immediate == 1
