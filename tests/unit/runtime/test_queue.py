import asyncio
import gc

import pytest

from services.runtime import metrics
from services.runtime.queue import MAX_DELAY, QueueShutDownError, WorkQueue, backoff
from tests.support.virtual_time import LoopClock, settle, virtual_time


def make(name="q"):
    return WorkQueue(name, LoopClock())


async def take(queue):
    """Get a key and hand it back at once."""
    key = await queue.get()
    queue.done(key)
    return key


def sample(name, /, **labels):
    return metrics.REGISTRY.get_sample_value(name, labels)


# -- order and deduplication


@virtual_time
async def test_keys_come_out_in_the_order_they_went_in():
    queue = make()
    for key in "bca":
        queue.add(key)
    assert [await take(queue) for _ in range(3)] == ["b", "c", "a"]


@virtual_time
async def test_a_key_that_is_added_twice_is_handed_out_once():
    queue = make()
    queue.add("a")
    queue.add("a")
    assert len(queue) == 1
    assert await take(queue) == "a"
    assert len(queue) == 0


@virtual_time
async def test_a_key_added_while_it_is_processed_runs_once_more():
    queue = make()
    queue.add("a")
    key = await queue.get()
    queue.add("a")
    queue.add("a")
    assert len(queue) == 0, "no second worker may get it"
    queue.done(key)
    assert len(queue) == 1
    assert await take(queue) == "a"
    assert len(queue) == 0


@virtual_time
async def test_a_key_is_never_with_two_workers_at_a_time():
    queue = make()
    queue.add("a")
    first = await queue.get()
    queue.add("a")
    second = asyncio.create_task(queue.get())
    await settle()
    assert not second.done()
    queue.done(first)
    assert await second == "a"


@virtual_time
async def test_a_worker_that_waits_is_woken_by_an_add():
    queue = make()
    getter = asyncio.create_task(queue.get())
    await settle()
    queue.add("a")
    assert await getter == "a"


@virtual_time
async def test_each_of_several_keys_wakes_another_waiting_worker():
    queue = make()
    getters = [asyncio.create_task(queue.get()) for _ in range(3)]
    await settle()
    for key in "abc":
        queue.add(key)
    assert sorted(await asyncio.gather(*getters)) == ["a", "b", "c"]


# -- cancellation of a waiting worker


@virtual_time
async def test_a_cancelled_worker_takes_no_key_with_it():
    queue = make()
    cancelled, other = (asyncio.create_task(queue.get()) for _ in range(2))
    await settle()
    cancelled.cancel()
    queue.add("a")
    assert await other == "a"
    assert cancelled.cancelled()


@virtual_time
async def test_a_worker_that_is_cancelled_in_the_turn_it_was_woken_passes_its_key_on():
    queue = make()
    cancelled, other = (asyncio.create_task(queue.get()) for _ in range(2))
    await settle()
    queue.add("a")
    cancelled.cancel()
    assert await other == "a"
    assert cancelled.cancelled()


@virtual_time
async def test_cancelled_workers_leave_nothing_behind():
    queue = make()
    getters = [asyncio.create_task(queue.get()) for _ in range(100)]
    await settle()
    for getter in getters:
        getter.cancel()
    await settle()
    assert not queue._getters


# -- delays


@virtual_time
async def test_a_delayed_key_comes_when_its_time_has_come():
    queue = make()
    queue.add_after("a", 3600)
    await asyncio.sleep(3599.9)
    assert len(queue) == 0
    await asyncio.sleep(0.2)
    assert len(queue) == 1


@pytest.mark.parametrize("delays", [(10, 5), (5, 10), (5, 5), (9, 7, 5, 8, 30)])
def test_of_several_delays_the_earliest_wins_and_the_key_comes_once(delays):
    @virtual_time
    async def scenario():
        queue = make()
        for delay in delays:
            queue.add_after("a", delay)
        assert await take(queue) == "a"
        came = asyncio.get_running_loop().time()
        await asyncio.sleep(100)
        return came, len(queue)

    assert scenario() == (pytest.approx(5), 0)


@virtual_time
async def test_a_delay_that_was_overtaken_has_no_effect_on_later_ones():
    queue = make()
    queue.add_after("a", 10)
    queue.add_after("a", 5)
    assert await take(queue) == "a"
    queue.add_after("a", 20)
    queue.add_after("b", 7)
    assert await take(queue) == "b"
    assert await take(queue) == "a"
    assert asyncio.get_running_loop().time() == pytest.approx(25)


@pytest.mark.parametrize("delay", [0, -1])
def test_a_delay_that_is_over_adds_at_once_and_needs_no_loop(delay):
    queue = WorkQueue("no-loop")
    queue.add_after("a", delay)
    assert len(queue) == 1


@virtual_time
async def test_a_key_that_waits_can_be_added_meanwhile_and_then_comes_twice():
    queue = make()
    queue.add_after("a", 10)
    queue.add("a")
    assert await take(queue) == "a"
    assert asyncio.get_running_loop().time() == 0
    assert await take(queue) == "a"
    assert asyncio.get_running_loop().time() == pytest.approx(10)


@virtual_time
async def test_delayed_keys_come_in_the_order_of_their_times():
    queue = make()
    for key, delay in (("c", 3), ("a", 1), ("d", 4), ("b", 2)):
        queue.add_after(key, delay)
    assert [await take(queue) for _ in range(4)] == ["a", "b", "c", "d"]


@virtual_time
async def test_keys_without_an_order_can_wait_for_the_same_moment():
    queue = make()
    first, second = object(), object()
    queue.add_after(first, 1)
    queue.add_after(second, 1)
    assert [await take(queue), await take(queue)] == [first, second]


@virtual_time
async def test_a_delay_that_ends_while_the_key_is_processed_runs_it_once_more():
    queue = make()
    queue.add("a")
    key = await queue.get()
    queue.add_after("a", 1)
    await asyncio.sleep(2)
    assert len(queue) == 0
    queue.done(key)
    assert await take(queue) == "a"


@virtual_time
async def test_ever_earlier_delays_of_one_key_do_not_pile_up():
    queue = make()
    for delay in range(10_000, 0, -1):
        queue.add_after("a", delay)
    assert len(queue._heap) < 100
    assert await take(queue) == "a"
    assert asyncio.get_running_loop().time() == pytest.approx(1)


# -- backoff


@pytest.mark.parametrize(
    ("failures", "seconds"),
    [(0, 0.005), (1, 0.01), (2, 0.02), (7, 0.64), (13, 40.96), (14, MAX_DELAY), (100, MAX_DELAY), (10**9, MAX_DELAY)],
)
def test_the_backoff_doubles_from_5_ms_to_60_s(failures, seconds):
    assert backoff(failures, 0.0) == pytest.approx(seconds)
    assert backoff(failures, 1.0) == pytest.approx(seconds * 0.75)


@virtual_time
async def test_a_key_that_keeps_failing_comes_back_ever_later():
    queue = make()
    queue.add("a")
    gaps = []
    for _ in range(16):
        before = asyncio.get_running_loop().time()
        key = await queue.get()
        gaps.append(asyncio.get_running_loop().time() - before)
        queue.add_rate_limited(key)
        queue.done(key)
    nominal = [0, *(min(60, 0.005 * 2**n) for n in range(15))]
    assert all(0.75 * want - 1e-6 <= gap <= want + 1e-6 for gap, want in zip(gaps, nominal, strict=True)), gaps
    assert queue.retries("a") == 16


@virtual_time
async def test_a_forgotten_key_starts_over_with_the_shortest_backoff():
    queue = make()
    for _ in range(10):
        queue.add_rate_limited("a")
    queue.forget("a")
    assert queue.retries("a") == 0
    queue.add_rate_limited("b")
    queue.forget("b")
    await asyncio.sleep(0.006)
    assert sorted([await take(queue), await take(queue)]) == ["a", "b"], "forgetting does not take back a delayed add"


@virtual_time
async def test_keys_fail_apart():
    queue = make()
    for _ in range(10):
        queue.add_rate_limited("a")
    assert (queue.retries("a"), queue.retries("b")) == (10, 0)


# -- shut down


@virtual_time
async def test_a_queue_that_shuts_down_hands_out_what_is_ready_and_then_ends():
    queue = make()
    queue.add("a")
    queue.add_after("later", 1)
    queue.shut_down()
    queue.add("refused")
    queue.add_after("refused", 1)
    queue.add_rate_limited("refused")
    assert await take(queue) == "a"
    with pytest.raises(QueueShutDownError):
        await queue.get()
    await asyncio.sleep(10)
    assert len(queue) == 0


@virtual_time
async def test_a_queue_that_discards_on_shut_down_hands_out_nothing_more():
    queue = make()
    queue.add("a")
    in_hand = await queue.get()
    queue.add("a")
    queue.add("b")
    queue.shut_down(discard=True)
    queue.done(in_hand)
    assert len(queue) == 0
    with pytest.raises(QueueShutDownError):
        await queue.get()


@virtual_time
async def test_a_key_that_became_dirty_before_the_shut_down_is_processed_once_more():
    queue = make()
    queue.add("a")
    in_hand = await queue.get()
    queue.add("a")
    queue.shut_down()
    queue.done(in_hand)
    assert await take(queue) == "a"


@virtual_time
async def test_shutting_down_wakes_every_waiting_worker():
    queue = make()
    getters = [asyncio.create_task(queue.get()) for _ in range(5)]
    await settle()
    queue.shut_down()
    queue.shut_down()
    results = await asyncio.gather(*getters, return_exceptions=True)
    assert all(isinstance(result, QueueShutDownError) for result in results)


@virtual_time
async def test_a_queue_is_idle_when_nothing_is_ready_and_nothing_in_hand():
    queue = make()
    await queue.wait_idle()
    queue.add("a")
    queue.add_after("later", 100)
    idle = asyncio.create_task(queue.wait_idle())
    await settle()
    assert not idle.done()
    key = await queue.get()
    queue.add("a")
    queue.done(key)
    await settle()
    assert not idle.done(), "the key is to run once more"
    await take(queue)
    await idle
    assert asyncio.get_running_loop().time() == 0


# -- size


@virtual_time
async def test_fifty_thousand_keys_pass_through_in_order():
    queue = make()
    for key in range(50_000):
        queue.add(key)
    for key in range(50_000):
        queue.add_after(key, 1000 - key / 100)
    assert [await take(queue) for _ in range(50_000)] == list(range(50_000))
    assert [await take(queue) for _ in range(50_000)] == list(range(49_999, -1, -1))


# -- metrics


@virtual_time
async def test_the_metrics_tell_what_the_queue_did():
    queue = make("measured")
    labels = {"name": "measured", "controller": "measured"}
    queue.add("a")
    queue.add("a")
    queue.add("b")
    queue.add_after("c", 5)
    assert sample("workqueue_depth", **labels) == 2
    assert sample("workqueue_adds_total", **labels) == 2
    assert sample("workqueue_retries_total", **labels) == 1
    await asyncio.sleep(2)
    key = await queue.get()
    await queue.get()
    await asyncio.sleep(3)
    assert sample("workqueue_queue_duration_seconds_sum", **labels) == pytest.approx(4)
    assert sample("workqueue_unfinished_work_seconds", **labels) == pytest.approx(6)
    assert sample("workqueue_longest_running_processor_seconds", **labels) == pytest.approx(3)
    queue.done(key)
    assert sample("workqueue_work_duration_seconds_count", **labels) == 1
    assert sample("workqueue_work_duration_seconds_sum", **labels) == pytest.approx(3)
    assert sample("workqueue_unfinished_work_seconds", **labels) == pytest.approx(3)


def test_the_registry_keeps_no_queue_alive():
    queue = WorkQueue("gone")
    queue.add("a")
    assert sample("workqueue_depth", name="gone", controller="gone") == 1
    del queue
    gc.collect()
    assert sample("workqueue_depth", name="gone", controller="gone") == 0
    assert sample("workqueue_longest_running_processor_seconds", name="gone", controller="gone") == 0


# -- before anybody works


@virtual_time
async def test_a_queue_that_nobody_takes_from_keeps_only_what_is_left_to_be_done():
    there = set(range(300))
    queue = WorkQueue("standby", LoopClock(), settled=lambda key: key not in there)
    for key in range(50_000):
        queue.add(key)
        assert len(queue) <= 2_000
    for key in range(300):
        queue.add(key)
    assert {key for key in [await take(queue) for _ in range(len(queue))] if key in there} == there


@virtual_time
async def test_a_queue_that_is_worked_on_hands_out_what_is_settled_too():
    queue = WorkQueue("leader", LoopClock(), settled=lambda _: True)
    queue.add("first")
    assert await take(queue) == "first"
    for key in range(5_000):
        queue.add(key)
    assert len(queue) == 5_000
