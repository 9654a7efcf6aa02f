"""The local copy of a resource: objects by key, named indexes, handlers, and read-your-writes.

Responsible for: being at every moment a state that the server had, moved on by writes of our own that the watch has not
shown yet; telling handlers each change of that state exactly once, in order.
Invariants:
- The fold of what a handler was called with equals the store's content.
- An object never goes back to an older resourceVersion, except when a relist says so.
- A write of our own (`observe`, `forget`) is visible until the watch has caught up with it, and no longer: what the
  watch has already passed is not resurrected by an answer that arrives late.
Resource versions are compared as numbers, which Kubernetes allows within one resource. Events of one feed (one
namespace or all of them: a scope) must come in the order of the watch.
Must not know: HTTP, where events come from. Everything is synchronous and belongs to one event loop.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from msgspec import Struct

from services.runtime import log
from services.runtime.kube.objects import KubeObject, ObjectKey, version

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable, Iterable, Mapping

T = TypeVar("T", bound=KubeObject)

ADDED = "ADDED"
MODIFIED = "MODIFIED"
DELETED = "DELETED"

_logger = log.get("runtime.cache")


def either(old: T | None, new: T | None) -> T:
    """The object that a handler was called about: as it is now, or as it was last."""
    obj = new if new is not None else old
    assert obj is not None, "a handler is called about something"
    return obj


class _Many(tuple[Any, ...]):
    """None or several index values of one object; a single one is stored bare, since there are a hundred thousand."""

    __slots__ = ()


class _Bucket(dict[ObjectKey, None]):
    """The keys under one index value in insertion order, and the one instance of that value all of them refer to."""

    __slots__ = ("value",)

    def __init__(self, value: Hashable) -> None:
        super().__init__()
        self.value = value


class _Gone(Struct):
    """A deletion of our own that the watch has not shown yet."""

    uid: str
    version: int  # of the object when it was deleted: what is older belongs to the past, whatever its uid
    relisted: bool = False  # a list still contained it; the next one is certain to be younger than the deletion


class Store(Generic[T]):
    """Objects of one resource. `indexes` maps a name to the function that gives the values an object is found under.

    An index function is called once for each state of an object; it must be pure. One that raises is logged and counts
    as giving no values.
    """

    def __init__(self, name: str, indexes: Mapping[str, Callable[[T], Iterable[Hashable]]] | None = None) -> None:
        self.name = name
        # A record is the object followed by its value or values in each index.
        self._records: dict[ObjectKey, tuple[Any, ...]] = {}
        self._functions = tuple((indexes or {}).values())
        self._positions = {index: position for position, index in enumerate(indexes or {})}
        self._buckets: tuple[dict[Hashable, ObjectKey | _Bucket], ...] = tuple({} for _ in self._functions)
        self._handlers: list[Callable[[T | None, T | None], None]] = []
        self._progress: dict[str, int] = {}  # scope -> the resourceVersion up to which its feed has told everything
        self._own: dict[ObjectKey, int] = {}  # writes of our own that the watch has not shown yet
        self._gone: dict[ObjectKey, _Gone] = {}
        self._awaited: set[str] = set()
        self._synced = asyncio.Event()

    # -- reading ---------------------------------------------------------------------------------------------------

    def get(self, key: ObjectKey) -> T | None:
        """Return the object, or None."""
        record = self._records.get(key)
        return None if record is None else record[0]

    def keys(self, index: str, value: Hashable) -> Collection[ObjectKey]:
        """Return the keys under an index value, oldest first. A live view: copy it before awaiting or writing."""
        bucket = self._buckets[self._positions[index]].get(value)
        if bucket is None:
            return ()
        return bucket.keys() if isinstance(bucket, _Bucket) else (bucket,)

    def indexed(self, index: str) -> list[Hashable]:
        """Return the values of an index under which there is something."""
        return list(self._buckets[self._positions[index]])

    def by_index(self, index: str, value: Hashable) -> list[T]:
        """Return the objects under an index value, oldest first."""
        records = self._records
        return [records[key][0] for key in self.keys(index, value)]

    def values(self) -> list[T]:
        """Return all objects."""
        return [record[0] for record in self._records.values()]

    def __len__(self) -> int:
        """Return how many objects there are."""
        return len(self._records)

    def __contains__(self, key: ObjectKey) -> bool:
        """Whether there is an object of that key."""
        return key in self._records

    def subscribe(self, handler: Callable[[T | None, T | None], None]) -> None:
        """Call `handler(old, new)` for each change from now on; old is None for a new object, new for one that is gone.

        What the store holds already is told at once. A handler must be quick, must not await and must not write to the
        store; one that raises is logged and does not keep the change from the others. An object that was replaced by
        one of the same name is told as two changes: the uid of `old` and `new` never differs.
        """
        self._handlers.append(handler)
        for record in list(self._records.values()):
            self._call(handler, None, record[0])

    @property
    def synced(self) -> bool:
        """Whether every feed has delivered a complete list."""
        return self._synced.is_set()

    async def wait_synced(self) -> None:
        """Return once `synced`."""
        await self._synced.wait()

    # -- fed by reflectors -----------------------------------------------------------------------------------------

    def expect(self, scope: str = "") -> None:
        """Announce a feed: the store is not synced before that namespace ("" for all of them) was listed."""
        if scope not in self._progress:
            self._awaited.add(scope)
            self._synced.clear()

    def known(self, obj: T) -> T:
        """Return our instance of `obj` if we have this very state of it: a list need not hold everything twice."""
        record = self._records.get(obj.key)
        if record is None:
            return obj
        have: T = record[0]
        return have if have.metadata.uid == obj.metadata.uid and _same_state(have, obj) else obj

    def replace(self, items: Iterable[T], resource_version: str, scope: str = "") -> None:
        """Take a complete list of `scope` (a namespace, "" for everything) as the truth at `resource_version`.

        What is not in it any more is told as gone, before what is new. Only writes of our own that are younger than the
        list stand against it.
        """
        level = version(resource_version)
        listed = {item.key: item for item in items}
        self._hide_gone(listed, level, scope)
        kept = {key for key, own in self._own.items() if own > level and _within(key, scope)}
        self._own = {key: own for key, own in self._own.items() if key in kept or not _within(key, scope)}
        self._progress[scope] = level
        for key in [key for key in self._records if key not in listed and key not in kept and _within(key, scope)]:
            self._remove(key)
        for key, item in listed.items():
            if key not in kept:
                self._put(key, item)
        self._awaited.discard(scope)
        if not self._awaited:
            self._synced.set()

    def apply(self, type_: str, obj: T) -> None:
        """Take one event of the watch: ADDED, MODIFIED or DELETED."""
        key = obj.key
        level = version(obj.metadata.resourceVersion)
        self._reach(key.namespace if key.namespace in self._progress else "", level)
        if self._gone and not self._passes_gone(key, obj, type_, level):
            return
        record = self._records.get(key)
        if record is not None:
            current = version(record[0].metadata.resourceVersion)
            if level < current or (level == current > 0 and type_ != DELETED):
                if level == current:
                    self._own.pop(key, None)
                return
        if self._own:
            self._own.pop(key, None)
        if type_ == DELETED:
            self._remove(key)
        else:
            self._put(key, obj)

    def advance(self, resource_version: str, scope: str = "") -> None:
        """Take a bookmark: the feed of `scope` has told everything up to `resource_version`."""
        self._reach(scope, version(resource_version))

    # -- read-your-writes ------------------------------------------------------------------------------------------

    def observe(self, obj: T) -> None:
        """Make a successful write of our own visible at once; `obj` is what the server answered.

        Older events of the object are ignored from now on, and the watch's own copy of this state fires no handler.
        Nothing happens when the watch is further than this write already. A write that took the last finalizer off an
        object being deleted removed it; that is a `forget`.
        """
        key = obj.key
        if obj.finalized:
            self.forget(key, obj.metadata.uid)
            return
        level = version(obj.metadata.resourceVersion)
        if level <= self._progress.get(key.namespace, self._progress.get("", 0)):
            return
        gone = self._gone.get(key)
        if gone is not None:
            if obj.metadata.uid == gone.uid or level < gone.version:
                return
            del self._gone[key]
        record = self._records.get(key)
        if record is not None and level <= version(record[0].metadata.resourceVersion):
            return
        self._own[key] = level
        self._put(key, obj)

    def forget(self, key: ObjectKey, uid: str) -> None:
        """Make a deletion of our own visible at once: the server answered that the object of that uid is gone.

        Late events of that uid are ignored until the watch shows the deletion or a list contradicts it.
        """
        record = self._records.get(key)
        if record is None or record[0].metadata.uid != uid:
            return
        self._own.pop(key, None)
        self._gone[key] = _Gone(uid, version(record[0].metadata.resourceVersion))
        self._remove(key)

    def _reach(self, scope: str, level: int) -> None:
        if level > self._progress.get(scope, 0):
            self._progress[scope] = level

    def _passes_gone(self, key: ObjectKey, obj: T, type_: str, level: int) -> bool:
        """Whether an event is about something younger than our deletion of that key, whose memory then ends."""
        gone = self._gone.get(key)
        if gone is None:
            return True
        if level < gone.version:
            return False
        if type_ == DELETED:
            del self._gone[key]
        return obj.metadata.uid != gone.uid

    def _hide_gone(self, listed: dict[ObjectKey, T], level: int, scope: str) -> None:
        """Take out of a list what we know to be deleted, and forget deletions that the list confirms.

        The list may have been asked for before the deletion, so a first sight of the deleted uid proves nothing; a
        second list was asked for after it, and is right (a restored backup).
        """
        for key, gone in list(self._gone.items()):
            if not _within(key, scope):
                continue
            item = listed.get(key)
            if item is None:
                if gone.version <= level:
                    del self._gone[key]
            elif item.metadata.uid == gone.uid and not gone.relisted:
                gone.relisted = True
                del listed[key]
            elif item.metadata.uid != gone.uid and version(item.metadata.resourceVersion) < gone.version:
                del listed[key]
            else:
                del self._gone[key]

    # -- state and handlers ----------------------------------------------------------------------------------------

    def _put(self, key: ObjectKey, obj: T) -> None:
        record = self._records.get(key)
        if record is None:
            self._records[key] = self._indexed(key, obj, None)
            self._fire(None, obj)
            return
        old: T = record[0]
        if old.metadata.uid != obj.metadata.uid:
            self._remove(key)
            self._put(key, obj)
        elif not _same_state(old, obj):
            self._records[key] = self._indexed(key, obj, record)
            self._fire(old, obj)

    def _remove(self, key: ObjectKey) -> None:
        record = self._records.pop(key, None)
        if record is not None:
            for position, buckets in enumerate(self._buckets):
                for value in _each(record[position + 1]):
                    _discard(buckets, value, key)
            self._fire(record[0], None)

    def _indexed(self, key: ObjectKey, obj: T, old: tuple[Any, ...] | None) -> tuple[Any, ...]:
        """Return the record of `obj`, after moving `key` from the buckets of the `old` record to the right ones."""
        record: list[Any] = [obj]
        for position, function in enumerate(self._functions):
            new = self._evaluate(function, obj)
            if old is not None:
                before = old[position + 1]
                if type(before) is type(new) and before == new:
                    record.append(before)
                    continue
                # The key of the first sight stays in use, so that one instance serves all buckets.
                for value in _each(before):
                    _discard(self._buckets[position], value, key)
            added = tuple([_insert(self._buckets[position], value, key) for value in _each(new)])
            record.append(added[0] if len(added) == 1 else _Many(added))
        return tuple(record)

    def _evaluate(self, function: Callable[[T], Iterable[Hashable]], obj: T) -> Any:
        try:
            values = tuple(dict.fromkeys(function(obj)))
        except Exception:  # one odd object must not stop the feed of all the others
            _logger.exception("Index function failed", store=self.name, object=str(obj.key))
            return _Many()
        return values[0] if len(values) == 1 else _Many(values)

    def _fire(self, old: T | None, new: T | None) -> None:
        for handler in self._handlers:
            self._call(handler, old, new)

    def _call(self, handler: Callable[[T | None, T | None], None], old: T | None, new: T | None) -> None:
        try:
            handler(old, new)
        except Exception:  # as above: the other handlers and objects go on
            changed = new or old
            _logger.exception("Handler failed", store=self.name, object=str(changed.key) if changed else "")


def _same_state(one: KubeObject, other: KubeObject) -> bool:
    """Whether two sights of an object are the same; another version of the API may show the same state otherwise."""
    return one.metadata.resourceVersion == other.metadata.resourceVersion and one.apiVersion == other.apiVersion


def _within(key: ObjectKey, scope: str) -> bool:
    return not scope or key.namespace == scope


def _each(values: Any) -> tuple[Any, ...]:
    return values if isinstance(values, _Many) else (values,)


def _insert(buckets: dict[Hashable, ObjectKey | _Bucket], value: Hashable, key: ObjectKey) -> Hashable:
    """Put `key` under `value`; returns the instance of the value to keep."""
    bucket = buckets.get(value)
    if bucket is None:
        buckets[value] = key
        return value
    if not isinstance(bucket, _Bucket):
        if bucket == key:
            return value
        first, bucket = bucket, _Bucket(value)
        bucket[first] = None
        buckets[value] = bucket
    bucket[key] = None
    return bucket.value


def _discard(buckets: dict[Hashable, ObjectKey | _Bucket], value: Hashable, key: ObjectKey) -> None:
    bucket = buckets.get(value)
    if isinstance(bucket, _Bucket):
        bucket.pop(key, None)
        if bucket:
            return
    elif bucket != key:
        return
    del buckets[value]
