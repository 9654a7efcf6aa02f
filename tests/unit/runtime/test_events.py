"""What an event recorder keeps and drops before anything is sent; the sending is tested on a real API server."""

import pytest

from services.runtime import metrics
from services.runtime.kube.events import BUFFER, BURST, NOTE_LIMIT, REFILL, SERIES_WINDOW, EventRecorder, Regarding
from services.runtime.kube.objects import KubeObject, ObjectMeta
from tests.support.virtual_time import LoopClock, virtual_time


def thing(name="a", uid=""):
    return KubeObject(
        apiVersion="v1", kind="Thing", metadata=ObjectMeta(name=name, namespace="ns", uid=uid or f"uid-{name}")
    )


@pytest.fixture
def recorder():
    # Nothing is sent before `run`, so no client is needed.
    return EventRecorder(None, "groundwork.dev/test", LoopClock())


@pytest.fixture
def dropped():
    """How many events were dropped since the test began, by reason."""

    def now(reason):
        return metrics.REGISTRY.get_sample_value("groundwork_events_dropped_total", {"reason": reason}) or 0

    before = {reason: now(reason) for reason in ("buffer", "rate", "failed")}
    return lambda reason: now(reason) - before[reason]


def waiting(recorder):
    return [(series.regarding.name, series.note, series.count) for series in recorder._new]


@virtual_time
async def test_the_same_thing_said_again_adds_to_a_series(recorder):
    for _ in range(3):
        recorder.event(thing(), "Warning", "Broken", "no address left")
    recorder.event(thing(), "Warning", "Broken", "another message")
    recorder.event(thing(), "Normal", "Broken", "no address left")
    recorder.event(thing("b"), "Warning", "Broken", "no address left")
    assert waiting(recorder) == [
        ("a", "no address left", 3),
        ("a", "another message", 1),
        ("a", "no address left", 1),
        ("b", "no address left", 1),
    ]


@pytest.mark.parametrize(("pause", "events"), [(SERIES_WINDOW - 1, 1), (SERIES_WINDOW, 2)])
def test_a_series_ends_when_nothing_was_said_for_a_while(recorder, pause, events):
    @virtual_time
    async def scenario():
        recorder.event(thing(), "Warning", "Broken", "m")
        await LoopClock().sleep(pause)
        recorder.event(thing(), "Warning", "Broken", "m")
        assert len(waiting(recorder)) == events

    scenario()


@virtual_time
async def test_an_object_that_says_too_much_is_cut_short_and_others_are_not(recorder, dropped):
    for number in range(BURST + 5):
        recorder.event(thing(), "Normal", "Counting", str(number))
    recorder.event(thing("b"), "Normal", "Counting", "0")
    assert len(waiting(recorder)) == BURST + 1
    assert dropped("rate") == 5
    await LoopClock().sleep(REFILL)
    recorder.event(thing(), "Normal", "Counting", "again")
    recorder.event(thing(), "Normal", "Counting", "and again")
    assert waiting(recorder)[-1] == ("a", "again", 1)
    assert dropped("rate") == 6


@virtual_time
async def test_what_cannot_be_sent_in_time_is_dropped_oldest_first(recorder, dropped):
    for number in range(BUFFER + 2):
        recorder.event(thing(f"n{number}"), "Normal", "Bound", "m")
    assert len(waiting(recorder)) == BUFFER
    assert waiting(recorder)[0] == ("n2", "m", 1)
    assert dropped("buffer") == 2
    recorder.event(thing("n0"), "Normal", "Bound", "m")
    assert waiting(recorder)[-1] == ("n0", "m", 1), "what was dropped is not a series to add to"


@virtual_time
async def test_more_objects_than_are_remembered_do_no_harm(recorder):
    for number in range(10_000):
        recorder.event(thing(f"n{number}"), "Normal", "Bound", "m")
    assert len(recorder._series) <= 4096
    assert len(recorder._allowances) <= 4096


@pytest.mark.parametrize(
    ("message", "note"),
    [
        ("x" * 2000, "x" * NOTE_LIMIT),
        ("ü" * 600, "ü" * (NOTE_LIMIT // 2)),
        ("x" + "ü" * 600, "x" + "ü" * (NOTE_LIMIT // 2 - 1)),
        ("", ""),
    ],
)
def test_a_message_is_cut_to_what_the_server_takes_and_stays_text(recorder, message, note):
    @virtual_time
    async def scenario():
        recorder.event(thing(), "Normal", "Long", message)
        assert waiting(recorder)[0][1] == note

    scenario()


def test_a_reference_names_the_object():
    obj = KubeObject(
        apiVersion="v1", kind="Thing", metadata=ObjectMeta(name="a", namespace="ns", uid="u", resourceVersion="7")
    )
    assert Regarding.of(obj) == Regarding("v1", "Thing", "ns", "a", "u", "7")
