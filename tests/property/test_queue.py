"""The work queue against a model of it that is too simple to be wrong: lists, no heap, no timer, no event loop."""

import asyncio

from hypothesis import settings, strategies
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from services.runtime.queue import QueueShutDownError, WorkQueue
from tests.support.virtual_time import LoopClock, VirtualTimeLoop, settle

KEYS = strategies.integers(min_value=0, max_value=7)
# Halves are exact in binary, so that the model and the loop agree on what comes first.
SECONDS = strategies.integers(min_value=-1, max_value=40).map(lambda halves: halves / 2)


class Model:
    """What client-go's workqueue does, as lists."""

    def __init__(self):
        self.now = 0.0
        self.ready = []
        self.dirty = set()
        self.in_hand = set()
        self.waiting = []  # [when, key], in the order they were asked for
        self.open = True

    def add(self, key):
        if self.open and key not in self.dirty:
            self.dirty.add(key)
            if key not in self.in_hand:
                self.ready.append(key)

    def add_after(self, key, seconds):
        if not self.open:
            return
        if seconds <= 0:
            self.add(key)
            return
        when = self.now + seconds
        if any(known <= when for known, waiting in self.waiting if waiting == key):
            return
        self.waiting = [entry for entry in self.waiting if entry[1] != key]
        self.waiting.append((when, key))

    def get(self):
        key = self.ready.pop(0)
        self.dirty.remove(key)
        self.in_hand.add(key)
        return key

    def done(self, key):
        self.in_hand.remove(key)
        if key in self.dirty:
            self.ready.append(key)

    def advance(self, seconds):
        self.now += seconds
        due = sorted((entry for entry in self.waiting if entry[0] <= self.now), key=lambda entry: entry[0])
        self.waiting = [entry for entry in self.waiting if entry[0] > self.now]
        for _, key in due:
            self.add(key)

    def shut_down(self, *, discard):
        self.open = False
        self.waiting = []
        if discard:
            self.ready = []
            self.dirty = set()


class QueueMachine(RuleBasedStateMachine):
    @initialize()
    def start(self):
        self.loop = VirtualTimeLoop()
        self.queue = WorkQueue("property", LoopClock())
        self.model = Model()

    def teardown(self):
        if hasattr(self, "loop"):
            self.run(self.cancel_timer())
            self.loop.close()

    async def cancel_timer(self):
        self.queue.shut_down()
        await settle()

    def run(self, coroutine):
        return self.loop.run_until_complete(coroutine)

    async def call(self, function, *arguments, **options):
        """Call on the loop, and let a timer that was started or cancelled take note."""
        function(*arguments, **options)
        await settle(3)

    @rule(key=KEYS)
    def add(self, key):
        self.run(self.call(self.queue.add, key))
        self.model.add(key)

    @rule(key=KEYS, seconds=SECONDS)
    def add_after(self, key, seconds):
        self.run(self.call(self.queue.add_after, key, seconds))
        self.model.add_after(key, seconds)

    @precondition(lambda self: self.model.ready)
    @rule()
    def get(self):
        assert self.run(self.queue.get()) == self.model.get()

    @precondition(lambda self: self.model.in_hand)
    @rule(data=strategies.data())
    def done(self, data):
        key = data.draw(strategies.sampled_from(sorted(self.model.in_hand)))
        self.run(self.call(self.queue.done, key))
        self.model.done(key)

    @rule(seconds=SECONDS.filter(lambda seconds: seconds > 0))
    def let_time_pass(self, seconds):
        self.run(asyncio.sleep(seconds))
        self.run(settle(3))
        self.model.advance(seconds)

    @precondition(lambda self: self.model.open)
    @rule(discard=strategies.booleans())
    def shut_down(self, discard):
        self.run(self.call(self.queue.shut_down, discard=discard))
        self.model.shut_down(discard=discard)

    @precondition(lambda self: not self.model.open and not self.model.ready)
    @rule()
    def get_when_it_is_over(self):
        try:
            self.run(self.queue.get())
        except QueueShutDownError:
            return
        raise AssertionError("a queue that is shut down and empty handed out a key")

    @invariant()
    def the_queue_is_what_the_model_says(self):
        if hasattr(self, "queue"):
            assert list(self.queue._ready) == self.model.ready
            assert set(self.queue._dirty) == self.model.dirty
            assert set(self.queue.processing) == self.model.in_hand
            assert {key: when for when, key in self.model.waiting} == self.queue._waiting
            assert len(self.queue) == len(self.model.ready)


TestQueue = QueueMachine.TestCase
TestQueue.settings = settings(max_examples=150, stateful_step_count=40)
