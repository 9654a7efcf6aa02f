"""The variables that presets give, merged with those that one container has itself.

Responsible for: the rules that protect the container: its own value stays, an empty one is an opt-out, a valueFrom is
never touched, lists keep their items first. docs/reference/podpreset-merge.md has them as a table.
Invariants: nothing that the container has is removed, reordered or set twice; merging once more changes nothing; two
letter cases of a proxy variable are equal wherever one of them is set here. What is injected comes first, so that
`$(NAME)` in the container's own env expands.
Must not know: other containers, where in the pod the container is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from services.podpreset import api, explain
from services.podpreset.decision import Conflict, rival_of
from services.podpreset.edits import Change
from services.podpreset.explain import Fate, Row
from services.podpreset.sameness import same
from services.proxyenv import lists

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from services.podpreset.edits import Edits, Json
    from services.podpreset.explain import Rows
    from services.podpreset.layers import Effective, Value
    from services.podpreset.pods import Container, OwnEnv

    Owned = list[tuple[int, OwnEnv]]


def merge_env(
    container: Container,
    effective: Effective,
    edits: Edits,
    *,
    withheld: Collection[str] = (),
    ignore_case: bool = False,
    rows: Rows | None = None,
) -> None:
    """Merge the variables. Those that need one of the volumes `withheld` are left out."""
    positions = effective.positions
    owned: dict[str, Owned] = {}
    for index, own in enumerate(container.env or ()):
        name = own.name.lower() if ignore_case else own.name
        if name in positions:
            owned.setdefault(name, []).append((index, own))
    if rows is None and not withheld and not owned:
        edits.first = effective.env
        return
    met = {positions[name] for name in owned}
    first: list[Json] = []
    for at, value in enumerate(effective.values):
        if value.volume and value.volume in withheld:
            if rows is not None and at not in met:
                rows += [row._replace(value=None) for row in _rows(container, value, value.names, Fate.UNAVAILABLE)]
        elif at in met:
            held = [owned.get(name.lower() if ignore_case else name, []) for name in value.names]
            _Meeting(container, value, held, edits, rows).settle()
        else:
            first += value.entries
            if rows is not None:
                rows += _rows(container, value, value.names, Fate.ADDED)
    edits.first = tuple(first)


class _Meeting:
    """One variable of the presets and the container's own entries of it, by spelling."""

    def __init__(self, container: Container, value: Value, held: list[Owned], edits: Edits, rows: Rows | None) -> None:
        self.container = container
        self.value = value
        self.held = held
        self.edits = edits
        self.rows = rows
        self.entries = [entry for owned in held for entry in owned]
        self.texts = [owned[-1][1].value or "" for owned in held if owned]
        self.dynamic = any(own.valueFrom is not None for _, own in self.entries)

    def settle(self) -> None:
        """Decide, and write it down."""
        value = self.value
        fate = self._fate()
        set_names = tuple(name for name, owned in zip(value.names, self.held, strict=True) if owned)
        text: str | None = None
        if fate is Fate.CONFLICT:
            assert value.strict is not None
            item = f"env {set_names[0]}"
            self.edits.conflicts.append(Conflict(value.strict, item, rival_of(self.container.name), api.SKIP_ALL))
        elif fate in {Fate.FORCED, Fate.MERGED}:
            text = self._write(fate)
        if self.rows is not None:
            self.rows += self._rows(fate, text)
        if fate is not Fate.CONFLICT:
            self._mirror(fate, text)
            self._warn(fate, set_names, text)

    def _fate(self) -> Fate:
        value = self.value
        if value.strict is not None and not value.force and not self._equal():
            return Fate.CONFLICT
        if self.dynamic:
            return Fate.DYNAMIC
        if value.force and not value.multi:
            return Fate.FORCED if value.value_from is not None or any(self._differs()) else Fate.PRESENT
        if len(self.entries) > len(self.texts):
            return Fate.REPEATED
        if self._cases_differ():
            return Fate.DIFFERING
        text = self.texts[0]
        if value.force:
            return Fate.PRESENT if self._forced(text) == text else Fate.FORCED
        if not text:
            return Fate.OPTED_OUT if value.value or value.value_from is not None else Fate.PRESENT
        if value.multi:
            return Fate.MERGED if lists.missing(lists.split(text), value.items) else Fate.PRESENT
        return Fate.PRESENT if value.value_from is None and text == value.value else Fate.KEPT

    def _equal(self) -> bool:
        """Whether every entry is what the presets give."""
        value = self.value
        if value.value_from is not None:
            return all(own.valueFrom is not None and same(own.valueFrom, value.value_from) for _, own in self.entries)
        return not self.dynamic and all(self._is_given(own.value or "") for _, own in self.entries)

    def _is_given(self, text: str) -> bool:
        """Whether a container that has this text has what the presets give, be it in the words of the preset."""
        value = self.value
        return text in {value.value, value.text} or (value.multi and lists.same(text, value.value))

    def _differs(self) -> list[bool]:
        return [(own.value or "") != self.value.value for _, own in self.entries]

    def _cases_differ(self) -> bool:
        if len(self.texts) == 1:
            return False
        one, other = self.texts
        return not lists.same(one, other) if self.value.multi else one != other

    def _forced(self, text: str) -> str:
        """Return the list that replaces the container's own, by the strategy of the preset."""
        value = self.value
        if value.strategy == api.REPLACE:
            return value.value
        return lists.prepend(text, value.items) if value.strategy == api.PREPEND else lists.append(text, value.items)

    def _write(self, fate: Fate) -> str | None:
        """Change the entries; returns the new value, None when it is no literal."""
        value = self.value
        if value.value_from is not None:
            for index, own in self.entries:
                entry = {"name": own.name, "valueFrom": value.value_from}
                self.edits.changes.append(Change(index, own.name, entry, whole=True, had_value=True))
            return None
        if not value.multi:
            text = value.value
        elif fate is Fate.FORCED:
            text = self._forced(self.texts[0])
        else:
            text = lists.append(self.texts[0], value.items)
        for index, own in self.entries:
            if (own.value or "") != text:
                had_value = own.value is not None
                self.edits.changes.append(Change(index, own.name, text, whole=False, had_value=had_value))
        return text

    def _mirror(self, fate: Fate, text: str | None) -> None:
        """Give the spelling that the container lacks the value of the other, directly behind it."""
        names = self.value.names
        if len(names) == 1 or all(self.held):
            return
        missing = names[0] if self.held[1] else names[1]
        index, own = (self.held[1] or self.held[0])[-1]
        if text is not None:
            entry: Json = {"name": missing, "value": text}
        elif fate is Fate.FORCED:
            entry = {"name": missing, "valueFrom": self.value.value_from}
        elif own.valueFrom is not None:
            entry = {"name": missing, "valueFrom": own.valueFrom}
        else:
            entry = {"name": missing, "value": own.value or ""}
        self.edits.after.append((index, entry))
        if self.rows is not None:
            given = entry.get("value", entry.get("valueFrom"))
            giver = (("", explain.CONTAINER),)
            row = Row(self.container.name, "env", missing, Fate.MIRRORED, given, giver, self.value.steps)
            self.rows.append(row)

    def _warn(self, fate: Fate, names: tuple[str, ...], text: str | None) -> None:
        said = ""
        if fate is Fate.DYNAMIC and self.value.multi:
            said = f"{names[0]} has a valueFrom, with which nothing can be merged"
        elif fate is Fate.REPEATED and self.value.multi:
            said = f"{names[0]} is set more than once, and stays as it is"
        elif fate is Fate.DIFFERING:
            said = f"{' and '.join(names)} differ, and stay as they are"
        elif text == lists.EVERYTHING and self.value.multi:
            said = f"{names[0]}: * stands for all other items"
        if said:
            self.edits.warnings.append(f"{rival_of(self.container.name)}: {said}")

    def _rows(self, fate: Fate, text: str | None) -> Rows:
        value = self.value
        rows = []
        for owned in self.held:
            if not owned:
                continue
            own = owned[-1][1]
            before = own.valueFrom if own.valueFrom is not None else (own.value or "")
            if fate is Fate.FORCED:
                now: Any = value.value_from if text is None else text
            else:
                now = before if text is None else text
            givers = self._givers(fate, now, own)
            rows.append(Row(self.container.name, "env", own.name, fate, now, givers, value.steps))
        return rows

    def _givers(self, fate: Fate, now: Any, own: OwnEnv) -> tuple[tuple[str, str], ...]:
        value = self.value
        if fate not in {Fate.FORCED, Fate.MERGED} or (fate is Fate.FORCED and not value.multi):
            return _givers(value) if fate is Fate.FORCED else (("", explain.CONTAINER),)
        mine = {item.lower() for item in lists.split(own.value or "")}
        givers = {item.lower(): str(giver) for item, giver in value.origins}
        return tuple(
            (item, explain.CONTAINER if item.lower() in mine else givers[item.lower()]) for item in lists.split(now)
        )


def _givers(value: Value) -> tuple[tuple[str, str], ...]:
    return tuple((item, str(giver)) for item, giver in value.origins)


def _rows(container: Container, value: Value, names: Iterable[str], fate: Fate) -> Rows:
    given = value.value if value.value_from is None else value.value_from
    return [Row(container.name, "env", name, fate, given, _givers(value), value.steps) for name in names]
