"""The reflector's table over any sequence of outcomes."""

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
STEPS = strategies.integers(min_value=0, max_value=100)
RETRY_AFTER = strategies.none() | strategies.floats(min_value=0.001, max_value=1e6)
TROUBLES = strategies.sampled_from(Trouble)


@strategies.composite
def outcome_of(draw, action, last, populated):
    """Something that can come of an action; versions grow within a watch and go anywhere in a list."""
    match action:
        case Pause():
            return Resumed(draw(strategies.booleans()) and action.until_change)
        case List():
            failed = strategies.builds(
                ListFailed, TROUBLES, populated=strategies.just(populated), retry_after=RETRY_AFTER
            )
            return draw(failed | strategies.builds(Listed, STEPS.map(lambda number: str(number + 1))))
        case Watch(resource_version=resource_version):
            delivered = draw(strategies.booleans())
            end = str(int(resource_version) + draw(STEPS)) if delivered else resource_version
            return WatchEnded(end, delivered, draw(strategies.none() | TROUBLES), draw(RETRY_AFTER))


@given(strategies.data())
def test_whatever_happens_the_invariants_hold(data):
    state, action = step(State(), Resumed(), 0.0)
    last = None  # the version up to which the store was told, None before a list
    populated = False
    unserved = 0
    for _ in range(data.draw(strategies.integers(1, 40))):
        outcome = data.draw(outcome_of(action, last, populated))
        previous, (state, action) = action, step(state, outcome, data.draw(SPREADS))

        if isinstance(outcome, Listed):
            last, populated = version(outcome.resource_version), data.draw(strategies.booleans())
        elif isinstance(outcome, WatchEnded):
            assert version(outcome.resource_version) >= last
            last = version(outcome.resource_version)
        if isinstance(outcome, ListFailed):
            unserved = unserved + 1 if outcome.trouble is Trouble.UNSERVED else 0
        elif isinstance(outcome, Listed):
            unserved = 0

        if isinstance(action, Watch):
            assert version(action.resource_version) == last, "a watch resumes exactly where the store is"
        if isinstance(action, Pause):
            bound = MAX_DELAY
            if getattr(outcome, "retry_after", None) is not None:
                bound = RETRY_AFTER_LIMIT + BASE_DELAY
                assert action.seconds >= min(outcome.retry_after, RETRY_AFTER_LIMIT), "the server's wish wins"
            else:
                assert action.seconds >= MIN_DELAY
            assert action.seconds <= bound
            if action.clear:
                assert unserved >= UNSERVED_LIMIT or not populated, "a store is not emptied lightly"
                populated = False
        elif isinstance(previous, Watch):
            gave = isinstance(outcome, WatchEnded) and outcome.delivered
            expired = outcome.trouble in {Trouble.EXPIRED, Trouble.REWOUND}
            assert gave or (expired and action == List()), "no reconnection without a delay or something delivered"
        if isinstance(previous, List) and not isinstance(outcome, Listed):
            assert isinstance(action, Pause), "a failed list is never repeated at once"


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
