import msgspec
import pytest

from services.runtime.cache.decide import (
    SETTLED_LIMIT,
    SILENT_LIMIT,
    STEADY,
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
    backoff,
    classify,
    opened,
    rewound,
    step,
)
from services.runtime.kube import errors

HALF = 0.5  # the jitter of these tests
FIRST, SECOND, THIRD = (backoff(attempt, HALF) for attempt in range(3))


def ended(trouble=None, *, delivered, resource_version="7", retry_after=None, lasted=0.0):
    return WatchEnded(resource_version, delivered, trouble, retry_after, lasted)


# One row: a state, what happened, and what is done about it.
TABLE = {
    "it starts with a list": (State(), Resumed(), List()),
    "a list is followed by a watch from its version": (State(attempt=2), Listed("5"), Watch("5")),
    "a watch that the server closed after delivering goes on at once": (
        State("5", attempt=3),
        ended(delivered=True),
        Watch("7"),
    ),
    "a watch that ended with nothing waits before it goes on": (State("5"), ended(delivered=False), Pause(FIRST)),
    "and waits longer each time": (State("5", attempt=2, silent=1), ended(delivered=False), Pause(THIRD)),
    "after the wait it goes on from where it was": (State("7", attempt=1), Resumed(), Watch("7")),
    "an expired version means a list at once": (State("5"), ended(Trouble.EXPIRED, delivered=False), List()),
    "an expired version right after a list means a wait first": (
        State("5", attempt=1),
        ended(Trouble.EXPIRED, delivered=False),
        Pause(SECOND),
    ),
    "a rewound history means a list at once": (State("9"), ended(Trouble.REWOUND, delivered=True), List()),
    "a preferred version means a list at once": (State("9"), ended(Trouble.SUPERSEDED, delivered=False), List()),
    "a lost connection waits": (State("5"), ended(Trouble.UNREACHABLE, delivered=False), Pause(FIRST)),
    "a lost connection that had delivered waits shortly": (
        State("5", attempt=6),
        ended(Trouble.UNREACHABLE, delivered=True),
        Pause(FIRST),
    ),
    "a lost connection that had been open for a while waits shortly": (
        State("5", attempt=6),
        ended(Trouble.UNREACHABLE, delivered=False, lasted=STEADY),
        Pause(FIRST),
    ),
    "a silent connection is opened again": (State("5"), ended(Trouble.SILENT, delivered=False), Pause(FIRST)),
    "an overloaded server is left alone for as long as it asks": (
        State("5", attempt=4),
        ended(Trouble.OVERLOADED, delivered=False, retry_after=3.0),
        Pause(3.4),
    ),
    "but not for hours": (State("5"), ended(Trouble.OVERLOADED, delivered=False, retry_after=9999.0), Pause(120.4)),
    "a refused watch waits": (State("5"), ended(Trouble.DENIED, delivered=False), Pause(FIRST)),
    "a watch of what is not served any more waits for a change": (
        State("5"),
        ended(Trouble.UNSERVED, delivered=False),
        Pause(FIRST, until_change=True),
    ),
    "a failed list waits": (State(), ListFailed(Trouble.UNREACHABLE, populated=True), Pause(FIRST)),
    "a failed list waits for as long as the server asks": (
        State(),
        ListFailed(Trouble.OVERLOADED, populated=False, retry_after=1.0),
        Pause(1.4),
    ),
    "a refused list waits": (State(attempt=1), ListFailed(Trouble.DENIED, populated=False), Pause(SECOND)),
    "an empty store is empty as soon as the resource is not served": (
        State(),
        ListFailed(Trouble.UNSERVED, populated=False),
        Pause(FIRST, until_change=True, clear=True),
    ),
    "a store with objects is not emptied on the first word": (
        State(),
        ListFailed(Trouble.UNSERVED, populated=True),
        Pause(FIRST, until_change=True),
    ),
    "but on the third": (
        State(unserved=UNSERVED_LIMIT - 1),
        ListFailed(Trouble.UNSERVED, populated=True),
        Pause(FIRST, until_change=True, clear=True),
    ),
    "a change of what is served starts over": (State(attempt=9), Resumed(changed=True), List()),
}


@pytest.mark.parametrize(("state", "outcome", "action"), TABLE.values(), ids=TABLE)
def test_each_outcome_has_its_action(state, outcome, action):
    assert step(state, outcome, HALF)[1] == action


@pytest.mark.parametrize(
    "trouble",
    [Trouble.EXPIRED, Trouble.REWOUND, Trouble.SUPERSEDED, Trouble.UNSERVED, Trouble.BROKEN],
    ids=lambda trouble: trouble.value,
)
def test_a_watch_that_cannot_go_on_is_followed_by_a_list(trouble):
    state, action = step(State("5", attempt=1), ended(trouble, delivered=False), HALF)
    assert isinstance(action, Pause)
    assert step(state, Resumed(), HALF)[1] == List()


@pytest.mark.parametrize(
    "trouble",
    [None, Trouble.UNREACHABLE, Trouble.OVERLOADED, Trouble.SILENT, Trouble.DENIED],
    ids=lambda trouble: trouble.value if trouble else "closed",
)
def test_an_interrupted_watch_goes_on_from_the_last_version_it_told(trouble):
    state, _ = step(State("5"), ended(trouble, delivered=False), HALF)
    assert step(state, Resumed(), HALF)[1] == Watch("7")


def test_a_version_from_which_nothing_comes_again_and_again_is_not_trusted():
    state, actions = State("5"), []
    for _ in range(SILENT_LIMIT):
        state, _ = step(state, ended(Trouble.SILENT, delivered=False), HALF)
        state, action = step(state, Resumed(), HALF)
        actions.append(action)
    assert actions == [Watch("7")] * (SILENT_LIMIT - 1) + [List()]


def test_the_word_that_a_resource_is_not_served_must_come_in_a_row():
    state = State()
    for _ in range(UNSERVED_LIMIT - 1):
        state, _ = step(state, ListFailed(Trouble.UNSERVED, populated=True), HALF)
    state, _ = step(state, ListFailed(Trouble.UNREACHABLE, populated=True), HALF)
    _, action = step(state, ListFailed(Trouble.UNSERVED, populated=True), HALF)
    assert not action.clear


def test_after_enough_words_that_a_resource_is_not_served_nothing_but_a_change_can_help():
    state, settled = State(), []
    for _ in range(SETTLED_LIMIT + 1):
        state, action = step(state, ListFailed(Trouble.UNSERVED, populated=False), HALF)
        settled.append(action.settled)
    assert settled == [False] * (SETTLED_LIMIT - 1) + [True, True]
    _, action = step(state, ListFailed(Trouble.UNREACHABLE, populated=False), HALF)
    assert not action.settled
    # What has just been installed is served a little later.
    state, _ = step(state, Resumed(changed=True), HALF)
    _, action = step(state, ListFailed(Trouble.UNSERVED, populated=False), HALF)
    assert action == Pause(FIRST, until_change=True, clear=True)


def test_trouble_is_over_with_a_list_or_an_accepted_watch():
    state, _ = step(State("5"), ended(Trouble.DENIED, delivered=False), HALF)
    assert state.trouble is Trouble.DENIED
    assert step(state, Resumed(), HALF)[0].trouble is Trouble.DENIED
    assert step(state, Listed("9"), HALF)[0].trouble is None
    assert opened(state).trouble is None
    assert opened(state).attempt == state.attempt


def test_delays_grow_from_under_a_second_to_half_a_minute():
    assert [backoff(attempt, 0.999999) for attempt in range(8)] == pytest.approx(
        [0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0], rel=1e-3
    )


@pytest.mark.parametrize(
    ("last", "event", "result"),
    [("9", "8", True), ("9", "9", False), ("9", "10", False), ("", "8", False), ("9", "", False), ("x", "y", False)],
)
def test_a_history_is_rewound_when_its_versions_go_back(last, event, result):
    assert rewound(last, event) is result


@pytest.mark.parametrize(
    ("error", "trouble"),
    [
        (errors.Gone(410), Trouble.EXPIRED),
        (errors.Unauthorized(401), Trouble.DENIED),
        (errors.Forbidden(403), Trouble.DENIED),
        (errors.NotFound(404), Trouble.UNSERVED),
        (errors.TooManyRequests(429), Trouble.OVERLOADED),
        (errors.ServerError(503), Trouble.OVERLOADED),
        (errors.ConnectionFailed("reset"), Trouble.UNREACHABLE),
        (errors.RequestTimeout("slow"), Trouble.UNREACHABLE),
        (errors.Unreadable("<html>"), Trouble.BROKEN),
        (TimeoutError(), Trouble.SILENT),
        (errors.BadRequest(400), Trouble.BROKEN),
        (msgspec.ValidationError("odd"), Trouble.BROKEN),
        (msgspec.DecodeError("odd"), Trouble.BROKEN),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value.value,
)
def test_each_error_has_its_name(error, trouble):
    assert classify(error) is trouble


def test_an_error_that_is_a_bug_of_ours_is_not_given_a_name():
    with pytest.raises(KeyError):
        classify(KeyError("bug"))
