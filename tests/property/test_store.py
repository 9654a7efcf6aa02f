"""The store under every interleaving of lists, watches, late answers and the writes of others.

The server here is a model: a revision counter, the current objects and the history. What is tested is the store alone;
its reflector meets a real server in the integration tests.
"""

from __future__ import annotations

import pytest
from hypothesis import settings, strategies
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from services.runtime.cache.store import ADDED, DELETED, MODIFIED, Store
from services.runtime.kube.objects import KubeObject, ObjectKey, ObjectMeta, raw, version, view

# Few keys, so that things happen to the same object; two namespaces, so that feeds can differ.
KEYS = strategies.sampled_from([ObjectKey("x", "a"), ObjectKey("x", "b"), ObjectKey("y", "a")])
ANSWERED = strategies.sampled_from([True, True, False])
VALUES = strategies.lists(strategies.sampled_from(["p", "q"]), max_size=2)


def level(obj):
    return version(obj.metadata.resourceVersion)


class Server:
    """Objects, their history, and the answers that are still on their way to whoever wrote."""

    def __init__(self):
        self.revision = 10
        self.objects = {}
        self.history = []  # (type, object)
        self.uids = 0

    def put(self, key, value):
        self.revision += 1
        known = self.objects.get(key)
        if known is None:
            self.uids += 1
        uid = known.metadata.uid if known else f"uid-{self.uids}"
        obj = self._made(key, uid, value)
        self.objects[key] = obj
        self.history.append((MODIFIED if known else ADDED, obj))
        return obj

    def delete(self, key):
        self.revision += 1
        known = self.objects.pop(key)
        self.history.append((DELETED, self._made(key, known.metadata.uid, [])))
        return known

    def _made(self, key, uid, value):
        meta = ObjectMeta(namespace=key.namespace, name=key.name, uid=uid, resourceVersion=str(self.revision))
        return KubeObject(kind="Thing", metadata=meta, spec=raw(value))


class StoreMachine(RuleBasedStateMachine):
    SCOPES = ("",)

    def __init__(self):
        super().__init__()
        self.server = Server()
        self.store = Store("things", {"value": lambda obj: view(obj.spec, list)})
        self.folded = {}
        self.store.subscribe(self._fold)
        self.position = {}  # scope -> revision up to which its watch has delivered
        self.listing = {}  # scope -> (revision, objects) of a list that was answered but not taken over yet
        self.answers = []
        self.floor = {}  # key -> version of our newest write that was observed
        self.forgotten = set()

    def _fold(self, old, new):
        assert old is not None or new is not None
        if old is None:
            assert new.key not in self.folded
        else:
            assert self.folded.pop(old.key) is old
        if new is not None:
            assert old is None or (old.key == new.key and old.metadata.uid == new.metadata.uid)
            self.folded[new.key] = new

    @initialize(keys=strategies.lists(KEYS, max_size=3))
    def something_exists(self, keys):
        for key in keys:
            self.server.put(key, ["p"])
        for scope in self.SCOPES:
            self.listing[scope] = self._listed(scope)
            self._take_over(scope)

    # Writes

    @rule(key=KEYS, value=VALUES)
    def another_writes(self, key, value):
        self.server.put(key, value)

    @precondition(lambda self: self.server.objects)
    @rule(data=strategies.data())
    def another_deletes(self, data):
        self.server.delete(data.draw(strategies.sampled_from(sorted(self.server.objects))))

    @rule(key=KEYS, value=VALUES, answered=ANSWERED)
    def we_write(self, key, value, answered):
        obj = self.server.put(key, value)
        self._answer(lambda: self._observe(obj), answered)

    @precondition(lambda self: self.server.objects)
    @rule(data=strategies.data(), by_finalizer=strategies.booleans(), answered=ANSWERED)
    def we_delete(self, data, by_finalizer, answered):
        obj = self.server.delete(data.draw(strategies.sampled_from(sorted(self.server.objects))))
        self._answer(lambda: self._forget(obj, by_finalizer), answered)

    @rule(key=KEYS, value=VALUES, answered=ANSWERED)
    def another_writes_and_we_write(self, key, value, answered):
        self.server.put(key, ["p", "q"])
        self.we_write(key, value, answered)

    @rule(key=KEYS, value=VALUES, answered=ANSWERED, deleted=strategies.booleans())
    def the_object_is_replaced(self, key, value, answered, deleted):
        """By others or by us: whatever was there is deleted, and an object of the same name is ours."""
        if key in self.server.objects:
            obj = self.server.delete(key)
            if deleted:
                self._answer(lambda: self._forget(obj, by_finalizer=False), answered)
        self.we_write(key, value, answered)

    def _answer(self, answer, at_once):
        if at_once:
            answer()
        else:
            self.answers.append(answer)

    def _observe(self, obj):
        self.store.observe(obj)
        self.floor[obj.key] = max(level(obj), self.floor.get(obj.key, 0))

    def _forget(self, obj, by_finalizer):
        seen = self.store.get(obj.key)
        if by_finalizer:
            meta = ObjectMeta(
                namespace=obj.key.namespace,
                name=obj.key.name,
                uid=obj.metadata.uid,
                resourceVersion=obj.metadata.resourceVersion,
                deletionTimestamp="now",
            )
            self.store.observe(KubeObject(kind="Thing", metadata=meta))
        else:
            self.store.forget(obj.key, obj.metadata.uid)
        # What the store has never seen may still flash up: its creation and its deletion are both on their way.
        if seen is not None and seen.metadata.uid == obj.metadata.uid:
            self.forgotten.add(obj.metadata.uid)

    @precondition(lambda self: self.answers)
    @rule(data=strategies.data())
    def an_answer_arrives(self, data):
        self.answers.pop(data.draw(strategies.integers(0, len(self.answers) - 1)))()

    # The feed

    @rule(data=strategies.data())
    def a_list_is_answered(self, data):
        scope = data.draw(strategies.sampled_from(self.SCOPES))
        self.listing[scope] = self._listed(scope)

    @precondition(lambda self: self.listing)
    @rule(data=strategies.data())
    def a_list_is_taken_over(self, data):
        self._take_over(data.draw(strategies.sampled_from(sorted(self.listing))))

    def _listed(self, scope):
        objects = [obj for obj in self.server.objects.values() if not scope or obj.metadata.namespace == scope]
        return self.server.revision, objects

    def _take_over(self, scope):
        revision, objects = self.listing.pop(scope)
        self.store.replace(objects, str(revision), scope)
        self.position[scope] = revision

    def _following(self):
        return [scope for scope in self.SCOPES if scope not in self.listing]

    @precondition(_following)
    @rule(data=strategies.data(), count=strategies.integers(1, 4))
    def the_watch_delivers(self, data, count):
        scope = data.draw(strategies.sampled_from(self._following()))
        for type_, obj in self._undelivered(scope)[:count]:
            self.store.apply(type_, obj)
            self.position[scope] = level(obj)

    @precondition(_following)
    @rule(data=strategies.data())
    def a_bookmark_arrives(self, data):
        scope = data.draw(strategies.sampled_from(self._following()))
        undelivered = self._undelivered(scope)
        self.position[scope] = level(undelivered[0][1]) - 1 if undelivered else self.server.revision
        self.store.advance(str(self.position[scope]), scope)

    def _undelivered(self, scope):
        return [
            (type_, obj)
            for type_, obj in self.server.history
            if level(obj) > self.position[scope] and (not scope or obj.metadata.namespace == scope)
        ]

    @rule(answers_first=strategies.booleans())
    def everything_arrives(self, answers_first):
        """At rest the store is what the server has, whichever way the news came."""
        if answers_first:
            self._all_answers()
        for scope in sorted(self.listing):
            self._take_over(scope)
        for scope in self.SCOPES:
            for type_, obj in self._undelivered(scope):
                self.store.apply(type_, obj)
                self.position[scope] = level(obj)
        self._all_answers()
        assert {obj.key: obj for obj in self.store.values()} == self.server.objects
        assert not self.store._own
        assert not self.store._gone

    def _all_answers(self):
        for answer in self.answers:
            answer()
        self.answers.clear()

    # What holds at every moment

    @invariant()
    def what_handlers_were_told_is_what_the_store_holds(self):
        assert self.folded == {obj.key: obj for obj in self.store.values()}

    @invariant()
    def the_index_finds_exactly_what_is_there(self):
        for value in ("p", "q"):
            expected = {obj.key for obj in self.store.values() if value in view(obj.spec, list)}
            found = list(self.store.keys("value", value))
            assert len(found) == len(expected)
            assert set(found) == expected

    @invariant()
    def every_object_is_a_state_that_the_server_had(self):
        history = {(obj.key, level(obj)) for _, obj in self.server.history}
        assert all((obj.key, level(obj)) in history for obj in self.store.values())

    @invariant()
    def our_own_writes_are_never_rolled_back(self):
        for key, floor in self.floor.items():
            seen = self.store.get(key)
            if seen is None:
                deletions = [level(obj) for type_, obj in self.server.history if type_ == DELETED and obj.key == key]
                assert deletions
                assert deletions[-1] > floor
            else:
                assert level(seen) >= floor

    @invariant()
    def what_we_deleted_stays_deleted(self):
        assert not self.forgotten & {obj.metadata.uid for obj in self.store.values()}


class ScopedStoreMachine(StoreMachine):
    SCOPES = ("x", "y")


@pytest.mark.parametrize("machine", [StoreMachine, ScopedStoreMachine], ids=["one feed", "a feed per namespace"])
def test_any_interleaving_ends_with_the_servers_state(machine):
    run_state_machine_as_test(machine, settings=settings(max_examples=120, stateful_step_count=50))
