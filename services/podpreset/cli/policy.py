"""A preset as a MutatingAdmissionPolicy, for clusters that shall do without the webhook.

Responsible for: saying what a policy cannot do, and writing the rest in CEL so that a container gets the very env that
the webhook would give it (`services.podpreset.variables` has the rules; the tests compare both on an API server).
How: one mutation for each variable, the last first, since each puts what it adds before what is there. A mutation
writes the whole env of the containers that it changes. CEL has no `let`: `[x].map(name, ...)[0]` binds a name.
Invariants: a preset that cannot be expressed gives no policy at all. A second pass changes nothing.
Must not know: files, the cluster.
Source: admissionregistration.k8s.io/v1 (Kubernetes 1.36), CEL libraries of Kubernetes: lists, two-variable
comprehensions, optional types.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from services.podpreset import api, pods
from services.podpreset.compiled import source_key
from services.podpreset.layers import fold, fold_volumes
from services.proxyenv import lists, names
from services.proxyenv.complete import complete

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from services.podpreset.compiled import Preset
    from services.podpreset.layers import Value
    from services.proxyenv.complete import Facts

Json = dict[str, Any]

API_VERSION = "admissionregistration.k8s.io/v1"
KIND = "MutatingAdmissionPolicy"
COMMENT = (
    "Kubernetes 1.36 and later. Ephemeral containers are not covered, nor Windows pods by proxy variables.",
    "Remove the preset from the webhook's care before this is applied: both would do the same, one after the other.",
)
"""What whoever applies it should know."""
_GROUPS = ("containers", "initContainers")
_OWN_NAMESPACES = ("kube-system", "kube-node-lease")


class Exported(NamedTuple):
    """The policy and its binding, or the reasons why there are none."""

    objects: tuple[Json, ...]
    reasons: tuple[str, ...] = ()


def export(preset: Preset, others: Sequence[Preset], facts: Facts) -> Exported:
    """Express `preset`; `others` are all presets there are, of which a policy cannot know."""
    reasons = tuple(_reasons(preset, others, facts))
    if reasons:
        return Exported((), reasons)
    return Exported((_policy(preset, facts), _binding(preset)))


# -- what cannot be ------------------------------------------------------------------------------------------------


def _reasons(preset: Preset, others: Sequence[Preset], facts: Facts) -> Iterator[str]:
    yield from preset.problems
    spec = preset.spec
    for field, given in (("volumes", spec.volumes), ("volumeMounts", spec.volume_mounts)):
        if given:
            yield f"spec.{field}: CEL cannot tell whether what a pod has under that name is the same"
    if spec.ca_bundle is not None:
        yield "spec.caBundle: needs a volume, and CEL cannot tell whether what a pod has under that name is the same"
    if preset.policy == api.SKIP_ALL:
        yield "spec.conflictPolicy: SkipAll needs to know of all conflicts before anything is changed"
    elif preset.policy == api.REJECT:
        yield "spec.conflictPolicy: Reject, but a policy that changes pods cannot refuse them"
    missing = complete(preset.include, facts).missing
    if missing:
        yield f"spec.noProxy.include: {', '.join(missing)} is not known: give it by a flag, or --live"
    mine = _gives(preset)
    for other in others:
        if other.key != preset.key and _may_meet(preset, other):
            for what in [item for item in _gives(other) if item in mine]:
                yield f"{what}: {other.key} gives it too, and policies know nothing of each other: make it one"


def _gives(preset: Preset) -> list[str]:
    found = [f"env {names.family(variable.name) or variable.name}" for variable in preset.variables]
    if preset.include:
        found.append(f"env {names.NO_PROXY}")
    return list(dict.fromkeys([*found, *(f"envFrom {source.label}" for source in preset.sources)]))


def _may_meet(one: Preset, other: Preset) -> bool:
    return one.key.namespace == other.key.namespace or api.CLUSTER_KIND in {one.key.kind, other.key.kind}


# -- the objects ---------------------------------------------------------------------------------------------------


def _name(preset: Preset) -> str:
    key = preset.key
    return f"{key.kind.lower()}-{f'{key.namespace}-' if key.namespace else ''}{key.name}"


def _policy(preset: Preset, facts: Facts) -> Json:
    values = fold([preset], fold_volumes([preset]), facts, ignore_case=False).values
    annotations = "object.metadata.?annotations"
    conditions = {
        "is-no-mirror-pod": f"!({_quote(api.MIRROR_ANNOTATION)} in {annotations}.orValue({{}}))",
        "is-not-excluded": f"{annotations}[?{_quote(api.EXCLUDE)}].orValue('') != {_quote(api.EXCLUDE_VALUE)}",
    }
    if any(names.family(name) for value in values for name in value.names):
        # The two spellings are one variable there.
        conditions["is-not-for-windows"] = " && ".join(
            f"object.spec.{field}.orValue('') != {_quote(pods.WINDOWS)}"
            for field in ("?os.?name", *(f"?nodeSelector[?{_quote(label)}]" for label in pods.OS_LABELS))
        )
    expressions = [_add_sources(preset)] if preset.sources else []
    expressions += [_for_containers(preset, "env", _env(value), _env_changes(value)) for value in reversed(values)]
    expressions.append(_annotate(preset))
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": _name(preset)},
        "spec": {
            "matchConstraints": {
                "matchPolicy": "Equivalent",
                "resourceRules": [
                    {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
                ],
            },
            "matchConditions": [{"name": name, "expression": test} for name, test in conditions.items()],
            "failurePolicy": "Ignore",
            "reinvocationPolicy": "IfNeeded",
            "mutations": [
                {"patchType": "JSONPatch", "jsonPatch": {"expression": expression}} for expression in expressions
            ],
        },
    }


def _binding(preset: Preset) -> Json:
    spec = preset.spec
    spaces = _selector(getattr(spec, "namespace_selector", None))
    expressions: list[Json] = spaces.setdefault("matchExpressions", [])
    label = api.NAMESPACE_NAME_LABEL
    expressions.append({"key": label, "operator": "NotIn", "values": list(_OWN_NAMESPACES)})
    expressions.append({"key": api.EXCLUDE, "operator": "NotIn", "values": [api.EXCLUDE_VALUE]})
    if preset.key.kind == api.NAMESPACED_KIND:
        expressions.append({"key": label, "operator": "In", "values": [preset.key.namespace]})
    resources: Json = {"namespaceSelector": spaces}
    selector = _selector(spec.selector)
    if selector:
        resources["objectSelector"] = selector
    return {
        "apiVersion": API_VERSION,
        "kind": f"{KIND}Binding",
        "metadata": {"name": _name(preset)},
        "spec": {"policyName": _name(preset), "matchResources": resources},
    }


def _selector(selector: api.LabelSelector | None) -> Json:
    made: Json = {}
    if selector is not None and selector.match_labels:
        made["matchLabels"] = dict(selector.match_labels)
    if selector is not None and selector.match_expressions:
        made["matchExpressions"] = [
            {
                "key": item.key,
                "operator": item.operator,
                **({"values": list(item.values)} if item.values else {}),
            }
            for item in selector.match_expressions
        ]
    return made


# -- CEL -----------------------------------------------------------------------------------------------------------


def _quote(text: str) -> str:
    """Return a CEL string; the escapes of JSON are among those of CEL."""
    return json.dumps(text)


def _literal(value: Any) -> str:
    """Return JSON as CEL; `dyn` because lists and maps may not hold values of several types otherwise."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_quote(key)}: dyn({_literal(item)})" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(f"dyn({_literal(item)})" for item in value) + "]"
    return json.dumps(value)


def _let(name: str, value: str, body: str) -> str:
    return f"[{value}].map({name}, {body})[0]"


def _for_containers(preset: Preset, field: str, new: str, changes: str = "") -> str:
    """Return an expression that gives `field` of each selected container the value `new`, if it `changes`.

    Both are expressions over `own`, what the field has now. A group is its name and its containers.
    """
    groups = ", ".join(f"[dyn({_quote(name)}), dyn(object.spec.?{name}.orValue([]))]" for name in _GROUPS)
    own = f"c.?{field}.orValue([])"
    tests = [*_selected(preset), *([_let("own", own, changes)] if changes else [])]
    path = f"'/spec/' + group[0] + '/' + string(i) + '/{field}'"
    patch = f"JSONPatch{{op: 'add', path: {path}, value: {_let('own', own, new)}}}"
    return f"[{groups}].map(group, group[1].transformList(i, c, {' && '.join(tests) or 'true'}, {patch})).flatten()"


def _selected(preset: Preset) -> Iterator[str]:
    selector = preset.spec.container_selector
    if selector is not None and not selector.init:
        yield f"(group[0] == {_quote(_GROUPS[0])} || c.?restartPolicy.orValue('') == 'Always')"
    if selector is not None and selector.names:
        globs = "|".join(map(_glob, selector.names))
        yield f"c.name.matches({_quote(f'^({globs})$')})"


def _glob(glob: str) -> str:
    return "".join({"*": ".*", "?": "."}.get(letter, letter) for letter in glob)


def _add_sources(preset: Preset) -> str:
    lacking = [
        f"(own.exists(o, {_same_source(source.json)}) ? [] : [dyn({_literal(source.json)})])"
        for source in preset.sources
    ]
    changes = " || ".join(f"!own.exists(o, {_same_source(source.json)})" for source in preset.sources)
    return _for_containers(preset, "envFrom", f"{' + '.join(lacking)} + own", changes)


def _same_source(source: Json) -> str:
    prefix, config_map, secret = map(_quote, source_key(source))
    return (
        f"o.?prefix.orValue('') == {prefix} && o.?configMapRef.?name.orValue('') == {config_map}"
        f" && o.?secretRef.?name.orValue('') == {secret}"
    )


def _annotate(preset: Preset) -> str:
    key, value = _quote(preset.annotation), _quote(preset.hash)
    return (
        "has(object.metadata.annotations)"
        f" ? [JSONPatch{{op: 'add', path: '/metadata/annotations/' + jsonpatch.escapeKey({key}), value: {value}}}]"
        f" : [JSONPatch{{op: 'add', path: '/metadata/annotations', value: {{{key}: {value}}}}}]"
    )


# -- a variable ----------------------------------------------------------------------------------------------------


_VALUE = "h.?value.orValue('')"


def _env_changes(value: Value) -> str:
    """Return a test of `own` that holds where the env may become another; none where that takes as long to find out."""
    if value.multi or value.force:
        return ""
    return f"!({' && '.join(f'own.exists(e, e.name == {_quote(name)})' for name in value.names)})"


def _is_one_of(value: Value) -> str:
    return f"e.name in [{', '.join(map(_quote, value.names))}]"


def _env(value: Value) -> str:
    """Return the new env as an expression over `own`.

    `held` are the container's own entries of the variable; `now` is what they become: a list of one, or of none where
    they stay as they are.
    """
    first = "[" + ", ".join(f"dyn({_literal(entry)})" for entry in value.entries) + "]"
    if value.multi or value.force:
        settled = _let("now", _now(value), _settled(value, _CHANGED[value.value_from is None]))
    else:
        settled = _settled(value, "e")
    return _let("held", f"own.filter(e, {_is_one_of(value)})", f"size(held) == 0 ? {first} + own : {settled}")


_CHANGED = {
    literal: f"(size(now) == 0 ? dyn(e) : dyn({{'name': dyn(e.name), '{field}': now[0]}}))"
    for literal, field in ((True, "value"), (False, "valueFrom"))
}


def _settled(value: Value, entry: str) -> str:
    """Return the env of a container that has the variable: its entries changed, the missing spelling behind them."""
    if len(value.names) == 1:
        return "own" if entry == "e" else f"own.map(e, {_is_one_of(value)} ? {entry} : dyn(e))"
    upper, lower = map(_quote, value.names)
    other = f"(e.name == {upper} ? {lower} : {upper})"
    lonely = f"!held.exists(o, o.name == {other}) && own.map(o, o.name).lastIndexOf(e.name) == j"
    mirrored = _let("m", f"dyn({entry})", f"[m, {_renamed('m', other)}]")
    body = f"{_is_one_of(value)} ? ({lonely} ? {mirrored} : [dyn({entry})]) : [dyn(e)]"
    return f"own.transformList(j, e, {body}).flatten()"


def _renamed(entry: str, name: str) -> str:
    return (
        f"(has({entry}.valueFrom) ? dyn({{'name': dyn({name}), 'valueFrom': dyn({entry}.valueFrom)}})"
        f" : dyn({{'name': dyn({name}), 'value': dyn({entry}.?value.orValue(''))}}))"
    )


def _now(value: Value) -> str:
    """Return what becomes of `held`, the entries of the variable that the container has: `[new]`, or `[]`."""
    dynamic = "held.exists(h, has(h.valueFrom))"
    if not value.multi:
        given = _quote(value.value) if value.value_from is None else _literal(value.value_from)
        return f"({dynamic} ? [] : [dyn({given})])"
    alone = [dynamic, *(f"held.filter(h, h.name == {_quote(name)}).size() > 1" for name in value.names)]
    text = "held[0].?value.orValue('')"
    if len(value.names) > 1:  # the upper case counts where both are set
        upper = _quote(value.names[0])
        text = f"(held.exists(h, h.name == {upper}) ? held.filter(h, h.name == {upper}) : held)[0].?value.orValue('')"
        texts = f"held.map(h, {_items(_VALUE)}.map(x, x.lowerAscii()).join(','))"
        alone.append(f"(size(held) > 1 && {_let('texts', texts, 'texts[0] != texts[1]')})")
    if not value.force:
        alone.append("text == ''")
    return _let("text", text, f"({' || '.join(alone)} ? [] : {_merged(value)})")


def _items(text: str) -> str:
    """Return the items of the list `text`: trimmed, none empty, none twice in any letter case."""
    trimmed = f"{text}.split(',').map(x, x.trim()).filter(x, x != '')"
    unique = "all.transformList(k, x, low.indexOf(low[k]) == k, x)"
    return _let("all", trimmed, _let("low", "all.map(y, y.lowerAscii())", unique))


def _merged(value: Value) -> str:
    """Return `[new]` if the list `text` lacks an item, as `services.proxyenv.lists` merges them, else `[]`."""
    if value.force and value.strategy == api.REPLACE:
        return f"(text == {_quote(value.value)} ? [] : [dyn({_quote(value.value)})])"
    everything = _quote(lists.EVERYTHING)
    wanted = "[" + ", ".join(map(_quote, value.items)) + "]"
    if lists.EVERYTHING in value.items:
        joined = everything
    elif value.force and value.strategy == api.PREPEND:
        known = "[" + ", ".join(_quote(item.lower()) for item in value.items) + "]"
        joined = f"({wanted} + items.filter(x, !(x.lowerAscii() in {known}))).join(',')"
    else:
        joined = "(items + lacking).join(',')"
    lacking = _let("low", "items.map(x, x.lowerAscii())", f"{wanted}.filter(w, !(w.lowerAscii() in low))")
    changed = _let("lacking", lacking, f"size(lacking) == 0 ? [] : [dyn({joined})]")
    return _let("items", _items("text"), f"{everything} in items ? [] : {changed}")
