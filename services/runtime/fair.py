"""Keys that are ready, handed out to their groups in turn, so that a flood in one group delays no other.

Responsible for: round robin over groups (a pool, a namespace), first in, first out within one.
Invariants: a group waits for at most one key of every other group before its own next one; every operation is O(1).
Must not know: what a key or a group is, deduplication, time.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

K = TypeVar("K")


class FairQueue(Generic[K]):
    """Without a `group` function it is a plain queue."""

    __slots__ = ("_group", "_groups", "_length")

    def __init__(self, group: Callable[[K], Hashable] | None = None) -> None:
        self._group = group
        self._groups: OrderedDict[Hashable, deque[K]] = OrderedDict()
        self._length = 0

    def __len__(self) -> int:
        """Number of keys in all groups."""
        return self._length

    def __iter__(self) -> Iterator[K]:
        """All keys, group by group; without groups, in the order in which they will be handed out."""
        for keys in self._groups.values():
            yield from keys

    def append(self, key: K) -> None:
        """Put a key behind the others of its group, which is asked for now."""
        group = self._group(key) if self._group is not None else None
        keys = self._groups.get(group)
        if keys is None:
            keys = self._groups[group] = deque()
        keys.append(key)
        self._length += 1

    def popleft(self) -> K:
        """Take the first key of the group whose turn it is; that group then goes to the end. IndexError when empty."""
        if not self._groups:
            raise IndexError("no key is ready")
        group, keys = next(iter(self._groups.items()))
        key = keys.popleft()
        self._length -= 1
        if keys:
            self._groups.move_to_end(group)
        else:
            del self._groups[group]
        return key

    def clear(self) -> None:
        """Drop everything."""
        self._groups.clear()
        self._length = 0
