import asyncio

import pytest
from msgspec.structs import replace

from services.runtime.cache.store import ADDED, DELETED, MODIFIED, Store
from services.runtime.kube.objects import KubeObject, ObjectKey, ObjectMeta, raw, view


def made(name, version, *, uid="", pools=(), namespace="ns", **meta):
    return KubeObject(
        kind="Thing",
        metadata=ObjectMeta(
            name=name, namespace=namespace, uid=uid or f"uid-{name}", resourceVersion=str(version), **meta
        ),
        spec=raw(list(pools)),
    )


def key(name, namespace="ns"):
    return ObjectKey(namespace, name)


class Told:
    """A handler that writes down what it was told, and keeps its own copy from that alone."""

    def __init__(self, store):
        self.changes = []
        self.copy = {}
        store.subscribe(self)

    def __call__(self, old, new):
        self.changes.append((rv(old), rv(new)))
        self.copy.pop((old or new).key, None)
        if new is not None:
            self.copy[new.key] = new

    def news(self):
        changes, self.changes = self.changes, []
        return changes


def rv(obj):
    return None if obj is None else int(obj.metadata.resourceVersion)


@pytest.fixture
def store():
    return Store("things", {"pool": lambda obj: view(obj.spec, list)})


@pytest.fixture
def told(store):
    return Told(store)


# What a list and a watch do


def test_a_list_adds_changes_and_removes(store, told):
    store.replace([made("a", 1), made("b", 2), made("c", 3)], "5")
    assert told.news() == [(None, 1), (None, 2), (None, 3)]
    store.replace([made("d", 6), made("c", 7), made("a", 1)], "9")
    assert told.news() == [(2, None), (None, 6), (3, 7)]
    assert {obj.metadata.name for obj in store.values()} == {"a", "c", "d"}


def test_what_vanished_is_told_before_what_is_new(store, told):
    store.replace([made("a", 1)], "5")
    told.news()
    store.replace([made("b", 6)], "9")
    assert told.news() == [(1, None), (None, 6)]


def test_an_object_that_was_replaced_while_nobody_watched_is_told_as_two_changes(store, told):
    store.replace([made("a", 1, uid="one", pools=["p"])], "5")
    store.replace([made("a", 7, uid="two", pools=["p"])], "9")
    assert told.news() == [(None, 1), (1, None), (None, 7)]
    assert list(store.keys("pool", "p")) == [key("a")]


def test_events_add_change_and_remove(store, told):
    store.replace([], "5")
    store.apply(ADDED, made("a", 6))
    store.apply(MODIFIED, made("a", 7))
    store.apply(DELETED, made("a", 8))
    store.apply(DELETED, made("never-seen", 9))
    assert told.news() == [(None, 6), (6, 7), (7, None)]
    assert len(store) == 0


def test_an_event_the_store_is_past_is_ignored(store, told):
    store.replace([made("a", 5)], "5")
    told.news()
    store.apply(MODIFIED, made("a", 4))
    store.apply(MODIFIED, made("a", 5))
    store.apply(DELETED, made("a", 4))
    assert told.news() == []
    assert rv(store.get(key("a"))) == 5


def test_a_list_of_one_namespace_leaves_the_others_alone(store, told):
    store.expect("x")
    store.expect("y")
    store.replace([made("a", 1, namespace="x")], "5", scope="x")
    assert not store.synced
    store.replace([made("a", 2, namespace="y")], "6", scope="y")
    assert store.synced
    store.replace([], "9", scope="x")
    assert told.news() == [(None, 1), (None, 2), (1, None)]
    assert [obj.key for obj in store.values()] == [key("a", "y")]


async def test_waiting_for_sync_ends_with_the_last_feed():
    store = Store("things")
    store.expect("x")
    store.expect("y")
    waiting = asyncio.ensure_future(store.wait_synced())
    store.replace([], "1", scope="x")
    await asyncio.sleep(0)
    assert not waiting.done()
    store.replace([], "1", scope="y")
    await waiting
    store.expect("y")
    assert store.synced


def test_the_same_state_in_another_version_of_the_api_takes_the_place_of_what_is_known(store, told):
    old = replace(made("a", 1), apiVersion="things.example.org/v1")
    new = replace(old, apiVersion="things.example.org/v2")
    store.replace([old], "5")
    assert store.known(new) is new
    store.replace([new], "6")
    assert store.get(key("a")) is new
    assert told.news() == [(None, 1), (1, 1)]


def test_a_list_reuses_what_is_known_and_unchanged(store):
    store.replace([made("a", 1), made("b", 2)], "5")
    have = store.get(key("a"))
    assert store.known(made("a", 1)) is have
    for other in (made("a", 3), made("a", 1, uid="another"), made("c", 1)):
        assert store.known(other) is other


def test_versions_that_are_no_numbers_are_taken_as_they_come(store):
    seen = []
    store.subscribe(lambda _, new: seen.append(new and new.metadata.resourceVersion))
    store.replace([], "")
    for version in ("abc", "abc", "aaa"):
        store.apply(MODIFIED, made("a", version))
    store.apply(DELETED, made("a", "aaa"))
    assert seen == ["abc", "aaa", None]


# Handlers


def test_a_late_subscriber_is_told_what_is_there(store):
    store.replace([made("a", 1), made("b", 2)], "5")
    assert Told(store).news() == [(None, 1), (None, 2)]


def test_a_handler_that_fails_is_logged_and_keeps_nothing_from_the_others(store, told, logged):
    def failing(old, new):
        raise LookupError("no such thing")

    store.subscribe(failing)
    later = Told(store)
    store.apply(ADDED, made("a", 1))
    store.apply(DELETED, made("a", 2))
    assert told.news() == later.news() == [(None, 1), (1, None)]
    assert [(record["msg"], record["object"]) for record in logged()] == [("Handler failed", "ns/a")] * 2


# Indexes


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        (["p"], ["p"], {"p": 1, "q": 0}),
        (["p"], ["q"], {"p": 0, "q": 1}),
        (["p"], ["p", "q"], {"p": 1, "q": 1}),
        (["p", "q"], ["q"], {"p": 0, "q": 1}),
        (["p"], [], {"p": 0}),
        ([], ["p"], {"p": 1}),
        (["p", "p"], ["p"], {"p": 1}),
    ],
)
def test_an_index_follows_its_objects(store, before, after, found):
    store.apply(ADDED, made("a", 1, pools=before))
    store.apply(MODIFIED, made("a", 2, pools=after))
    assert {value: len(store.keys("pool", value)) for value in found} == found
    store.apply(DELETED, made("a", 3))
    assert [len(store.keys("pool", value)) for value in found] == [0] * len(found)


def test_objects_of_one_value_come_oldest_first(store):
    for version, name in enumerate(["c", "a", "b"], start=1):
        store.apply(ADDED, made(name, version, pools=["p"]))
    store.apply(MODIFIED, made("c", 9, pools=["p"]))
    assert [obj.metadata.name for obj in store.by_index("pool", "p")] == ["c", "a", "b"]
    assert rv(store.by_index("pool", "p")[0]) == 9
    assert store.by_index("pool", "unknown") == []


def test_one_tuple_as_a_value_is_not_two_values():
    store = Store("things", {"pair": lambda obj: view(obj.spec, list)[:0] or PAIRS[obj.metadata.resourceVersion]})
    store.apply(ADDED, made("a", 1))
    assert len(store.keys("pair", ("x", "y"))) == 1
    store.apply(MODIFIED, made("a", 2))
    assert len(store.keys("pair", ("x", "y"))) == 0
    assert len(store.keys("pair", "x")) == len(store.keys("pair", "y")) == 1


PAIRS = {"1": [("x", "y")], "2": ["x", "y"]}


def test_an_index_function_that_fails_is_logged_and_finds_nothing(logged):
    store = Store("things", {"pool": lambda obj: {"1": ["p"]}[obj.metadata.resourceVersion]})
    store.apply(ADDED, made("a", 1))
    store.apply(MODIFIED, made("a", 2))
    assert len(store) == 1
    assert store.by_index("pool", "p") == []
    assert [record["msg"] for record in logged()] == ["Index function failed"]


def test_an_index_function_is_called_once_for_each_state():
    calls = []
    store = Store("things", {"pool": lambda obj: calls.append(rv(obj)) or ["p"]})
    store.replace([made("a", 1)], "1")
    store.apply(MODIFIED, made("a", 2))
    store.apply(MODIFIED, made("a", 2))
    store.apply(DELETED, made("a", 3))
    store.replace([], "4")
    assert calls == [1, 2]


# Read your writes


def test_a_write_of_our_own_is_seen_at_once_and_told_once(store, told):
    store.replace([made("a", 1)], "5")
    told.news()
    store.observe(made("a", 7))
    store.observe(made("b", 8))
    assert told.news() == [(1, 7), (None, 8)]
    store.apply(MODIFIED, made("a", 7))
    store.apply(ADDED, made("b", 8))
    assert told.news() == []
    store.apply(MODIFIED, made("a", 9))
    assert told.news() == [(7, 9)]


def test_older_events_do_not_roll_an_own_write_back(store, told):
    store.replace([made("a", 1)], "5")
    store.observe(made("a", 9))
    told.news()
    store.apply(MODIFIED, made("a", 6))
    store.apply(MODIFIED, made("a", 7))
    assert told.news() == []
    assert rv(store.get(key("a"))) == 9


def test_the_deletion_of_an_earlier_object_of_that_name_does_not_remove_our_new_one(store, told):
    store.replace([made("a", 1, uid="old")], "5")
    store.observe(made("a", 9, uid="new"))
    told.news()
    store.apply(DELETED, made("a", 8, uid="old"))
    assert told.news() == []
    assert store.get(key("a")).metadata.uid == "new"


def test_a_list_older_than_an_own_write_does_not_undo_it(store, told):
    store.replace([made("a", 1), made("b", 2)], "5")
    store.observe(made("a", 9))
    store.observe(made("c", 10))
    told.news()
    store.replace([made("a", 6)], "8")
    assert told.news() == [(2, None)]
    assert {obj.metadata.name: rv(obj) for obj in store.values()} == {"a": 9, "c": 10}


def test_a_list_younger_than_an_own_write_decides(store, told):
    store.replace([], "5")
    store.observe(made("a", 7))
    store.observe(made("b", 8))
    told.news()
    store.replace([made("b", 9)], "9")
    assert told.news() == [(7, None), (8, 9)]


def test_an_own_write_that_the_watch_has_shown_is_not_protected_any_more(store, told):
    store.replace([], "5")
    store.observe(made("a", 9))
    store.apply(ADDED, made("a", 9))
    store.replace([], "7")
    assert told.news() == [(None, 9), (9, None)]


@pytest.mark.parametrize("passed_by", ["the deletion", "another object", "a bookmark", "a list"])
def test_an_answer_that_comes_after_the_watch_has_passed_it_resurrects_nothing(store, told, passed_by):
    store.replace([], "5")
    if passed_by == "the deletion":
        store.apply(ADDED, made("a", 6))
        store.apply(DELETED, made("a", 8))
    elif passed_by == "another object":
        store.apply(ADDED, made("b", 8))
    elif passed_by == "a bookmark":
        store.advance("8")
    else:
        store.replace([], "8")
    told.news()
    store.observe(made("a", 6))
    assert told.news() == []
    assert store.get(key("a")) is None


def test_how_far_a_watch_is_counts_for_its_own_namespace_only(store, told):
    store.replace([], "5", scope="x")
    store.replace([], "5", scope="y")
    store.apply(ADDED, made("a", 20, namespace="x"))
    store.observe(made("b", 10, namespace="y"))
    store.observe(made("b", 10, namespace="x"))
    assert told.news() == [(None, 20), (None, 10)]
    assert key("b", "y") in store
    assert key("b", "x") not in store


def test_an_older_answer_does_not_replace_a_younger_one(store, told):
    store.replace([], "5")
    store.observe(made("a", 9))
    store.observe(made("a", 8))
    assert told.news() == [(None, 9)]


def test_a_deletion_of_our_own_is_seen_at_once_and_late_events_of_it_are_ignored(store, told):
    store.replace([made("a", 1)], "5")
    told.news()
    store.forget(key("a"), "uid-a")
    assert told.news() == [(1, None)]
    store.apply(MODIFIED, made("a", 6))
    store.apply(MODIFIED, made("a", 7))
    store.apply(DELETED, made("a", 8))
    assert told.news() == []
    store.apply(ADDED, made("a", 9, uid="new"))
    assert told.news() == [(None, 9)]


@pytest.mark.parametrize("seen_as", ["an own write", "an event"])
def test_a_new_object_of_that_name_is_seen_before_the_watch_shows_the_deletion(store, told, seen_as):
    store.replace([made("a", 1)], "5")
    store.forget(key("a"), "uid-a")
    if seen_as == "an own write":
        store.observe(made("a", 9, uid="new"))
        store.apply(MODIFIED, made("a", 6))
        store.apply(DELETED, made("a", 8))
    store.apply(ADDED, made("a", 9, uid="new"))
    assert told.news() == [(None, 1), (1, None), (None, 9)]
    assert store.get(key("a")).metadata.uid == "new"


def test_events_older_than_a_deleted_object_are_about_its_predecessor(store, told):
    store.replace([made("a", 1, uid="one")], "5")
    store.observe(made("a", 9, uid="two"))
    store.forget(key("a"), "two")
    told.news()
    for type_, version, uid in [(MODIFIED, 6, "one"), (DELETED, 7, "one"), (ADDED, 9, "two"), (DELETED, 10, "two")]:
        store.apply(type_, made("a", version, uid=uid))
    assert told.news() == []
    assert len(store) == 0


def test_an_answer_about_an_object_we_deleted_does_not_bring_it_back(store, told):
    store.replace([made("a", 1)], "5")
    store.forget(key("a"), "uid-a")
    told.news()
    store.observe(made("a", 6))
    assert told.news() == []


def test_the_write_that_takes_the_last_finalizer_off_is_a_deletion(store, told):
    store.replace([made("a", 1, deletionTimestamp="t", finalizers=("f",))], "5")
    store.observe(made("a", 1, deletionTimestamp="t", deletionGracePeriodSeconds=0))
    assert told.news() == [(None, 1), (1, None)]
    store.observe(made("never-seen", 9, deletionTimestamp="t"))
    assert told.news() == []


@pytest.mark.parametrize(("name", "uid"), [("a", "another"), ("unknown", "uid-a")])
def test_only_the_very_object_is_forgotten(store, told, name, uid):
    store.replace([made("a", 1)], "5")
    store.forget(key(name), uid)
    assert told.news() == [(None, 1)]


def test_a_list_from_before_our_deletion_does_not_bring_the_object_back_but_the_next_list_is_right(store, told):
    store.replace([made("a", 1)], "5")
    store.forget(key("a"), "uid-a")
    told.news()
    store.replace([made("a", 6)], "6")
    assert told.news() == []
    store.replace([made("a", 6)], "7")
    assert told.news() == [(None, 6)]


def test_a_list_without_the_deleted_object_settles_it(store, told):
    store.replace([made("a", 1)], "5")
    store.forget(key("a"), "uid-a")
    store.replace([], "9")
    store.replace([made("a", 1)], "10")
    assert told.news() == [(None, 1), (1, None), (None, 1)]


@pytest.mark.parametrize("listed", [[], [made("a", 6, uid="predecessor")]], ids=["nothing", "its predecessor"])
def test_a_list_older_than_the_deleted_object_settles_nothing(store, told, listed):
    store.replace([], "5")
    store.observe(made("a", 9))
    store.forget(key("a"), "uid-a")
    told.news()
    store.replace(listed, "7")
    store.apply(DELETED, made("a", 8, uid="predecessor"))
    store.apply(ADDED, made("a", 9))
    store.apply(DELETED, made("a", 10))
    assert told.news() == []
