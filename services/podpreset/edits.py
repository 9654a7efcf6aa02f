"""What is done to one container, and the container that comes of it.

Responsible for: the few kinds of edits there are: nothing is ever removed or moved.
Invariant: positions in an edit are those of the container as it came.
Must not know: presets, how edits are found or sent.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from msgspec import Struct

from services.podpreset.decision import Conflict

Json = dict[str, Any]


class Change(NamedTuple):
    """A new state of the entry `at` of a container's env; `json` is its new value, or the whole entry."""

    at: int
    name: str
    json: Any
    whole: bool
    had_value: bool


class Edits(Struct):
    """What is done to one container."""

    first: tuple[Json, ...] = ()
    """Put before its env."""
    changes: list[Change] = []
    after: list[tuple[int, Json]] = []
    """Put behind the entry of its env with this index."""
    sources: list[Json] = []
    """Put before its envFrom."""
    mounts: list[Json] = []
    """Put behind its volumeMounts."""
    conflicts: list[Conflict] = []
    warnings: list[str] = []

    def __bool__(self) -> bool:
        return bool(self.first or self.changes or self.after or self.sources or self.mounts)


def apply(container: Json, edits: Edits) -> Json:
    """Return a container in plain JSON with the edits made to it, which patches have to agree with."""
    env = [dict(entry) for entry in container.get("env") or ()]
    for change in edits.changes:
        env[change.at] = change.json if change.whole else {**env[change.at], "value": change.json}
    for index, entry in sorted(edits.after, key=lambda at: at[0], reverse=True):
        env.insert(index + 1, entry)
    merged = {
        "env": [*edits.first, *env],
        "envFrom": [*edits.sources, *(container.get("envFrom") or ())],
        "volumeMounts": [*(container.get("volumeMounts") or ()), *edits.mounts],
    }
    changed = {
        "env": bool(edits.first or edits.changes or edits.after),
        "envFrom": bool(edits.sources),
        "volumeMounts": bool(edits.mounts),
    }
    return {**container, **{key: value for key, value in merged.items() if changed[key]}}
