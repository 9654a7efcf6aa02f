"""Several presets folded into what a container gets if it has nothing of its own.

Responsible for: layers, merge strategies between them, and conflicts within one.
Rules: ClusterPodPresets by (priority, name), then PodPresets by (priority, name). A preset of a later layer (narrower
scope or higher priority) has the last word, by its own strategy. Within a layer lists merge; of two values that differ
the first by name stays, and the conflict is reported. A volume and all mounts of it stand or fall together.
Invariants: the result depends on the set of presets alone, not on the order in which they were listed; it is shared by
all pods with these presets, so nobody changes it.
Must not know: pods.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from services.podpreset import api, cabundle
from services.podpreset.api import PresetKey
from services.podpreset.compiled import Json, Mount, Preset, Source, Variable, Volume
from services.podpreset.decision import Conflict
from services.podpreset.sameness import same
from services.proxyenv import lists, names
from services.proxyenv.complete import Facts, complete

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Item = TypeVar("Item", bound=Source | Volume | Mount)

_REFERENCE = re.compile(r"\$(?:\$|\(([^)]*)\))")
"""`$(NAME)`; `$$` is a dollar sign."""
_MILD = (False, False, False)
"""Neither force nor strict nor collapsed, the last fields of a Variable."""


class Step(NamedTuple):
    """What one preset did to a variable: `set`, `replaced`, `appended`, `prepended`, `agreed` or `conflicted`."""

    preset: PresetKey
    action: str


class Value(Struct, frozen=True):
    """A variable as the presets together have it."""

    names: tuple[str, ...]
    """The spellings under which it is set."""
    value: str
    value_from: Json | None
    multi: bool
    items: lists.Items
    strategy: str
    force: bool
    strict: PresetKey | None
    """A preset that wants the whole pod left alone if the container's own value is another."""
    owner: Preset
    """Who gave it the value, or the last who changed it."""
    steps: tuple[Step, ...]
    origins: tuple[tuple[str, PresetKey], ...]
    """Who gave each item of a list first, or the whole of a single value under the empty string."""
    written: str
    """What the owner wrote, before it was merged with broader layers."""
    collapsed: bool = False
    """Whether `*` stands for other items that presets name."""
    text: str | None = None
    """The value as its owner wrote it, before it was brought into normal form; None for one that was merged."""
    volume: str = ""
    """The volume without which it must not be set."""
    entries: tuple[Json, ...] = ()
    """What is put into the env of a container, one for each spelling."""


class Held(NamedTuple, Generic[Item]):
    """An envFrom, volume or mount with those who agree on it, in the order of application."""

    item: Item
    owners: tuple[Preset, ...]

    @property
    def policy(self) -> str:
        """The strictest of its owners' conflict policies."""
        return max((owner.policy for owner in self.owners), key=api.CONFLICT_POLICIES.index)


class Volumes(NamedTuple):
    """The volumes of a pod by name; `lost` are those whose preset gives neither them nor mounts of them."""

    held: dict[str, Held[Volume]]
    lost: frozenset[tuple[PresetKey, str]]
    bare: frozenset[str]
    """Those that no preset mounts, which are for the pod as it is."""
    conflicts: tuple[Conflict, ...]


class Effective(NamedTuple):
    """What a container gets that has nothing of its own."""

    presets: tuple[Preset, ...]
    values: tuple[Value, ...]
    positions: dict[str, int]
    """Where in `values` each name is, in lower case where letter case does not count."""
    env: tuple[Json, ...]
    sources: tuple[Held[Source], ...]
    mounts: tuple[Held[Mount], ...]
    conflicts: tuple[Conflict, ...]
    warnings: tuple[str, ...]


def fold_volumes(presets: Sequence[Preset]) -> Volumes:
    """Fold the volumes of presets that are in the order of application."""
    table: dict[str, Held[Volume]] = {}
    lost: set[tuple[PresetKey, str]] = set()
    conflicts: list[Conflict] = []
    for preset in presets:
        for volume in preset.volumes:
            rival = _rival(table.get(volume.name), preset, volume)
            if rival is None:
                table[volume.name] = _held(table.get(volume.name), preset, volume)
            else:
                lost.add((preset.key, volume.name))
                conflicts.append(_conflict(preset, volume_label(volume.name), rival))
    mounted = {mount.volume for preset in presets for mount in preset.mounts}
    return Volumes(table, frozenset(lost), frozenset(table.keys() - mounted), tuple(conflicts))


def fold(presets: Sequence[Preset], volumes: Volumes, facts: Facts, *, ignore_case: bool) -> Effective:
    """Fold what the presets of one container give; they are among those of `volumes`, in the order of application."""
    conflicts: list[Conflict] = []
    mounts = _fold_mounts(presets, volumes, conflicts)
    warnings: list[str] = []
    values = _fold_env(presets, facts, conflicts, warnings, ignore_case=ignore_case)
    if any(held.item.volume == cabundle.VOLUME for held in mounts):
        _add_ca_variables(volumes.held[cabundle.VOLUME].owners[0], values, windows=ignore_case)
    whole = tuple([replace(value, entries=_entries(value)) for value in _expandable([*values.values()])])
    spelled = [(name, at) for at, value in enumerate(whole) for name in value.names]
    return Effective(
        presets=tuple(presets),
        values=whole,
        positions={name.lower() if ignore_case else name: at for name, at in spelled},
        env=tuple([entry for value in whole for entry in value.entries]),
        sources=_fold_sources(presets, conflicts),
        mounts=mounts,
        conflicts=tuple(conflicts),
        warnings=(
            *warnings,
            *[f"{value.names[0]}: * stands for all other items" for value in whole if value.collapsed],
        ),
    )


# -- lists of objects ----------------------------------------------------------------------------------------------


def _rival(held: Held[Item] | None, preset: Preset, item: Item) -> Preset | None:
    """Return the preset with which an item conflicts, None when it is taken."""
    if held is None or same(held.item.json, item.json):
        return None
    narrower = preset.layer > held.owners[-1].layer
    return None if narrower and item.replaces else held.owners[-1]


def _held(held: Held[Item] | None, preset: Preset, item: Item) -> Held[Item]:
    if held is not None and same(held.item.json, item.json):
        return Held(held.item, (*held.owners, preset))
    return Held(item, (preset,))


def _conflict(preset: Preset, item: str, rival: Preset) -> Conflict:
    policy = max(preset.policy, rival.policy, key=api.CONFLICT_POLICIES.index)
    return Conflict(preset.key, item, str(rival.key), policy)


def volume_label(name: str) -> str:
    """Return how a volume is named in conflicts."""
    return "caBundle" if name == cabundle.VOLUME else f"volume {name}"


def _fold_sources(presets: Sequence[Preset], conflicts: list[Conflict]) -> tuple[Held[Source], ...]:
    table: dict[tuple[str, str, str], Held[Source]] = {}
    for preset in presets:
        for source in preset.sources:
            rival = _rival(table.get(source.key), preset, source)
            if rival is None:
                table[source.key] = _held(table.get(source.key), preset, source)
            else:
                conflicts.append(_conflict(preset, f"envFrom {source.label}", rival))
    return tuple(table.values())


def _fold_mounts(presets: Sequence[Preset], volumes: Volumes, conflicts: list[Conflict]) -> tuple[Held[Mount], ...]:
    """One mount conflicts: none of its volume by this preset is taken."""
    table: dict[str, Held[Mount]] = {}
    for preset in presets:
        for volume in dict.fromkeys(mount.volume for mount in preset.mounts):
            if (preset.key, volume) in volumes.lost:
                continue
            unit = [mount for mount in preset.mounts if mount.volume == volume]
            against = [(mount, _rival(table.get(mount.path), preset, mount)) for mount in unit]
            refused = [(mount, rival) for mount, rival in against if rival is not None]
            conflicts += [_conflict(preset, f"volumeMount {mount.path}", rival) for mount, rival in refused]
            if not refused:
                table.update({mount.path: _held(table.get(mount.path), preset, mount) for mount in unit})
    return tuple(table.values())


# -- env -----------------------------------------------------------------------------------------------------------


def _fold_env(
    presets: Sequence[Preset], facts: Facts, conflicts: list[Conflict], warnings: list[str], *, ignore_case: bool
) -> dict[str, Value]:
    table: dict[str, Value] = {}
    for preset in presets:
        given: dict[str, Variable] = {}
        for variable in _completed(preset, facts):
            key = names.family(variable.name) or variable.name
            key = key.lower() if ignore_case else key
            first = given.setdefault(key, variable)
            if first is not variable:  # names that are one where letter case does not count
                if not same((first.value, first.value_from), (variable.value, variable.value_from)):
                    warnings.append(f"{preset.key}: {variable.name} is {first.name} on Windows, which is set before it")
                continue
            held = table.get(key)
            if held is None:
                table[key] = _first(preset, variable, ignore_case=ignore_case)
            elif preset.layer > held.owner.layer:
                table[key] = _narrowed(held, preset, variable)
            else:
                table[key] = _joined(held, preset, variable, conflicts)
    return table


def _completed(preset: Preset, facts: Facts) -> Iterator[Variable]:
    """Yield the variables of a preset; its NO_PROXY with what the cluster is known to need."""
    entries = complete(preset.include, facts).entries if preset.include else ()
    there = False
    for variable in preset.variables:
        if not names.is_no_proxy(variable.name):
            yield variable
            continue
        there = True
        if not entries or variable.value_from is not None:
            yield variable
            continue
        items = variable.items if variable.multi else lists.split(variable.value)
        items = lists.collapsed((*items, *lists.missing(items, entries)))
        yield variable._replace(value=lists.join(items), items=items if variable.multi else (), text=None)
    if entries and not there:
        yield Variable("NO_PROXY", lists.join(entries), None, True, entries, api.APPEND, *_MILD)


def _entries(value: Value) -> tuple[Json, ...]:
    if value.value_from is not None:
        return tuple([{"name": name, "valueFrom": value.value_from} for name in value.names])
    return tuple([{"name": name, "value": value.value} for name in value.names])


def _expandable(values: list[Value]) -> list[Value]:
    """Return the values with those that one refers to as `$(NAME)` before it; apart from that the order stays.

    The kubelet expands what it has seen, and a narrower preset writes its reference where a broader one had the value.
    """
    places = {name: at for at, value in enumerate(values) for name in value.names}
    wanted = [[places[name] for name in _REFERENCE.findall(value.value) if name in places] for value in values]
    if not any(wanted):
        return values
    order: dict[int, Value] = {}
    entered: set[int] = set()
    for first in range(len(values)):
        path = [first]
        while path:
            at = path[-1]
            entered.add(at)
            lacking = [before for before in wanted[at] if before not in entered]  # none twice, so circles end
            if lacking:
                path += reversed(lacking)
            else:
                order.setdefault(at, values[at])
                path.pop()
    return [*order.values()]


def _first(preset: Preset, variable: Variable, *, ignore_case: bool) -> Value:
    return Value(
        names=names.spellings(variable.name, ignore_case=ignore_case),
        value=variable.value,
        value_from=variable.value_from,
        multi=variable.multi,
        items=variable.items,
        strategy=variable.strategy,
        force=variable.force,
        strict=preset.key if variable.strict else None,
        owner=preset,
        steps=(Step(preset.key, "set"),),
        origins=_origins(variable, preset),
        written=variable.value,
        collapsed=variable.collapsed,
        text=variable.text,
    )


def _origins(variable: Variable, preset: Preset) -> tuple[tuple[str, PresetKey], ...]:
    return tuple((item, preset.key) for item in (variable.items if variable.multi else ("",)))


def _narrowed(held: Value, preset: Preset, variable: Variable) -> Value:
    """Apply a variable of a narrower layer: its type, strategy and override count from here on."""
    strict = preset.key if variable.strict else None
    if variable.strategy == api.REPLACE or held.value_from is not None or variable.value_from is not None:
        return replace(
            held,
            value=variable.value,
            value_from=variable.value_from,
            multi=variable.multi,
            items=variable.items,
            strategy=variable.strategy,
            force=variable.force,
            strict=strict,
            owner=preset,
            steps=(*held.steps, Step(preset.key, "replaced")),
            origins=_origins(variable, preset),
            written=variable.value,
            collapsed=variable.collapsed,
            text=variable.text,
        )
    broader = held if held.multi else _as_list(held)
    merged = _merged(broader, preset, variable)
    return replace(
        merged,
        strategy=variable.strategy,
        force=variable.force,
        strict=strict or held.strict,
        owner=preset,
        written=variable.value,
    )


def _joined(held: Value, preset: Preset, variable: Variable, conflicts: list[Conflict]) -> Value:
    """Apply a variable of the same layer: lists that merge do, of other values the first stays."""
    strict = held.strict or (preset.key if variable.strict else None)
    if _agree(held, variable):
        return replace(held, strict=strict, steps=(*held.steps, Step(preset.key, "agreed")))
    mergeable = held.multi and variable.multi and variable.strategy != api.REPLACE and strict is None
    if mergeable:
        return _merged(held, preset, variable)
    conflicts.append(_conflict(preset, f"env {held.names[0]}", held.owner))
    return replace(held, steps=(*held.steps, Step(preset.key, "conflicted")))


def _agree(held: Value, variable: Variable) -> bool:
    if held.value_from is not None or variable.value_from is not None:
        return held.value_from is not None and same(held.value_from, variable.value_from)
    if not (held.multi and variable.multi):
        return held.written == variable.value
    return held.strategy == variable.strategy and lists.same(held.written, variable.value)


def _as_list(held: Value) -> Value:
    """Read a broader single value as the list that a narrower preset takes it for."""
    items = lists.collapsed(lists.split(held.value))
    giver = held.origins[0][1]
    return replace(held, multi=True, items=items, origins=tuple((item, giver) for item in items))


def _merged(held: Value, preset: Preset, variable: Variable) -> Value:
    """Append or prepend the items of a variable to those of a list."""
    lacking = lists.missing(held.items, variable.items)
    origins = held.origins
    if lacking and variable.strategy == api.PREPEND:
        givers = {item.lower(): giver for item, giver in held.origins}
        rest = set(lists.missing(variable.items, held.items))
        first = [(item, givers.get(item.lower(), preset.key)) for item in variable.items]
        origins = (*first, *[origin for origin in held.origins if origin[0] in rest])
    elif lacking:
        origins = (*held.origins, *[(item, preset.key) for item in lacking])
    everything = tuple(origin for origin in origins if origin[0] == lists.EVERYTHING)
    others = len({*held.items, *variable.items}) > 1
    origins = everything or origins
    items = tuple(item for item, _ in origins)
    return replace(
        held,
        value=lists.join(items),
        items=items,
        steps=(*held.steps, Step(preset.key, f"{variable.strategy}ed")),
        origins=origins,
        collapsed=held.collapsed or variable.collapsed or bool(everything and others),
        text=None,
    )


def _add_ca_variables(owner: Preset, values: dict[str, Value], *, windows: bool) -> None:
    """Tell programs of the bundle by the variables that no preset sets."""
    for name in cabundle.VARIABLES:
        given = Variable(name, cabundle.path(windows=windows), None, False, (), api.REPLACE, *_MILD)
        value = replace(_first(owner, given, ignore_case=windows), volume=cabundle.VOLUME)
        values.setdefault(name.lower() if windows else name, value)
