"""The tables of docs/reference/podpreset-merge.md, row by row, and that they leave nothing out."""

import itertools
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.podpreset import api
from services.proxyenv import lists
from tests.support.podpresets import (
    admit,
    admitted,
    cluster_preset,
    container,
    container_of,
    env_of,
    pod,
    preset,
    var,
    world,
)

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "podpreset-merge.md"
DYNAMIC = {"secretKeyRef": {"name": "s", "key": "k"}}
CODE = re.compile(r"`([^`]*)`")


def section(title):
    return PAGE.read_text().partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def tables(title):
    """The tables under a heading, each a list of rows, each a list of cells, each a list of what is in backticks."""
    found = []
    for block in re.findall(r"(?:^\|.*\n)+", section(title), re.MULTILINE):
        _, _, *lines = [[cell.strip() for cell in line.strip().strip("|").split(" | ")] for line in block.splitlines()]
        found.append([[CODE.findall(cell) or cell for cell in line] for line in lines])
    return found


def rows(title, at=0):
    return [pytest.param(*row, id=" | ".join(map(shown, row))) for row in tables(title)[at]]


def shown(cell):
    return cell if isinstance(cell, str) else " ".join(cell)


def text(cell):
    """The one value of a cell; None for `nothing`."""
    if cell == "nothing":
        return None
    (value,) = cell
    return "" if value == '""' else value


def sourced(name, value):
    """An entry of an env; `(valueFrom)` stands for a value from a Secret."""
    return {"name": name, "valueFrom": DYNAMIC} if value == "(valueFrom)" else {"name": name, "value": value}


def item(name, value, **metadata):
    """An item of a preset's env."""
    written = {key: word for key, word in metadata.items() if word}
    return {**sourced(name, value), **({"metadata": written} if written else {})}


def pairs(cell):
    """An env written as `A=1` `B=2`."""
    if cell == "nothing":
        return []
    split = [found.partition("=") for found in cell]
    return [sourced(name, "" if value == '""' else value) for name, _, value in split]


def ends_with(body):
    return [sourced(name, "(valueFrom)" if value == DYNAMIC else value) for name, value in env_of(body)]


def value_of(body, name):
    found = dict(env_of(body)).get(name)
    return "(valueFrom)" if found == DYNAMIC else found


# -- the rows ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "type_", "strategy", "taken"), rows("Defaults"))
@pytest.mark.parametrize("spelling", ["merge_strategy", "mergeStrategy"])
def test_what_is_not_written_is_taken_as_the_page_says(name, type_, strategy, taken, spelling):
    written = item(text(name), "v", **{"type": text(type_), spelling: text(strategy)})
    (variable,) = preset(env=[written]).variables
    assert [api.MULTI if variable.multi else api.SINGLE, variable.strategy] == taken


@pytest.mark.parametrize(("written", "given_"), rows("Lists"))
def test_a_list_is_given_in_normal_form(written, given_):
    after = admitted(pod(), preset(env=[item("NO_PROXY", text(written))]))
    assert value_of(after, "NO_PROXY") == text(given_)
    assert value_of(after, "no_proxy") == text(given_)


@pytest.mark.parametrize(("type_", "strategy", "broader", "narrower", "together"), rows("Between layers"))
@pytest.mark.parametrize("scope", ["a narrower scope", "a higher priority"])
def test_the_narrower_preset_has_the_last_word(type_, strategy, broader, narrower, together, scope):
    presets = []
    if text(broader) is not None:
        metadata = {"type": None if text(broader) == "(valueFrom)" else text(type_)}
        spec = {"env": [item("LIST", text(broader), **metadata)]}
        presets.append(cluster_preset("z", **spec) if scope == "a narrower scope" else preset("z", **spec))
    if text(narrower) is not None:
        metadata = {"type": text(type_), "merge_strategy": text(strategy)}
        spec = {"env": [item("LIST", text(narrower), **metadata)], "priority": 5}
        presets.append(preset("a", **spec))
    decision, after = admit(pod(), world(*presets))
    assert value_of(after, "LIST") == text(together)
    assert decision.conflicts == ()


@pytest.mark.parametrize(("first", "second", "together", "conflict"), rows("Within a layer"))
@pytest.mark.parametrize("make", [preset, cluster_preset])
def test_within_a_layer_lists_merge_and_else_the_first_stays(first, second, together, conflict, make):
    presets = []
    for name, (type_, strategy, value) in (("a", first), ("b", second)):
        metadata = {"type": type_, "merge_strategy": strategy}
        presets.append(make(name, env=[item("LIST", value, **metadata)]))
    decision, after = admit(pod(), world(*reversed(presets)))
    assert value_of(after, "LIST") == text(together)
    assert [(c.preset.name, c.item) for c in decision.conflicts] == ([("b", "env LIST")] if conflict == "yes" else [])


@pytest.mark.parametrize(("given_", "type_", "strategy", "override", "own", "ends"), rows("The container's own value"))
def test_what_the_container_has_is_kept_as_the_page_says(given_, type_, strategy, override, own, ends):
    metadata = {"type": text(type_), "merge_strategy": text(strategy), "override": text(override)}
    one = preset(env=[item("LIST", text(given_), **metadata)])
    before = pod(container(env=[] if text(own) is None else [sourced("LIST", text(own))]))
    decision, after = admit(before, world(one))
    assert value_of(after, "LIST") == text(ends)
    assert len(env_of(after)) == 1
    assert decision.conflicts == ()


@pytest.mark.parametrize(("given_", "own", "ends"), rows("Letter case"))
def test_both_letter_cases_come_out_as_the_page_says(given_, own, ends):
    (entry,) = pairs(given_)
    after = admitted(pod(container(env=pairs(own))), preset(env=[entry]))
    assert ends_with(after) == pairs(ends)


@pytest.mark.parametrize(("given_", "own", "ends"), rows("Letter case", 1))
def test_a_windows_pod_gets_one_spelling(given_, own, ends):
    (entry,) = pairs(given_)
    after = admitted(pod(container(env=pairs(own)), os={"name": "windows"}), preset(env=[entry]))
    assert ends_with(after) == pairs(ends)


@pytest.mark.parametrize(("given_", "own", "ends", "conflict"), rows("envFrom, volumes and mounts", 1))
def test_env_from_come_out_as_the_page_says(given_, own, ends, conflict):
    sources = [] if own == "nothing" else list(map(json.loads, own))
    before = pod(container(envFrom=sources))
    decision, after = admit(before, world(preset(envFrom=list(map(json.loads, given_)))))
    assert container_of(after)["envFrom"] == list(map(json.loads, ends))
    assert len(decision.conflicts) == (conflict == "yes")


def volumes(cell):
    split = [] if cell == "nothing" else [found.split("=") for found in cell]
    return [{"name": name, "configMap": {"name": config_map}} for name, config_map in split]


def mounts(cell):
    split = [] if cell == "nothing" else [found.split(":") for found in cell]
    return [{"name": name, "mountPath": path} for name, path in split]


@pytest.mark.parametrize(
    ("own", "own_mounts", "then", "mounts_then", "conflict"), rows("envFrom, volumes and mounts", 2)
)
def test_volumes_and_mounts_come_out_as_the_page_says(own, own_mounts, then, mounts_then, conflict):
    before = pod(container(volumeMounts=mounts(own_mounts)), volumes=volumes(own))
    one = preset(volumes=volumes(["v=a"]), volumeMounts=mounts(["v:/v"]))
    decision, after = admit(before, world(one))
    assert after["spec"]["volumes"] == volumes(then)
    assert container_of(after)["volumeMounts"] == mounts(mounts_then)
    assert len(decision.conflicts) == (conflict == "yes")


VOLUME = {"volumes": volumes(["v=a"]), "volumeMounts": mounts(["v:/v"])}
DIFFERENCES = {
    "a variable of another preset of the layer": (pod(), [{"env": [var("X", "1")]}, {"env": [var("X", "2")]}]),
    "a volume of another preset of the layer": (pod(), [VOLUME, {"volumes": volumes(["v=b"])}]),
    "the pod's own volume": (pod(volumes=volumes(["v=b"])), [VOLUME]),
    "the container's own mount at the path": (pod(container(volumeMounts=mounts(["w:/v"]))), [VOLUME]),
    "the container's own envFrom": (
        pod(container(envFrom=[{"configMapRef": {"name": "a", "optional": True}}])),
        [{"envFrom": [{"configMapRef": {"name": "a"}}]}],
    ),
    "the container's own single value": (pod(container(env=[var("X", "1")])), [{"env": [var("X", "2")]}]),
    "the container's own empty value": (pod(container(env=[var("X", "")])), [{"env": [var("X", "2")]}]),
    "the container's own valueFrom": (
        pod(container(env=[sourced("X", "(valueFrom)")])),
        [{"env": [var("X", "2")]}],
    ),
    "the container's own list": (pod(container(env=[var("NO_PROXY", "a")])), [{"env": [var("NO_PROXY", "b")]}]),
    "the container's own list, the preset's type written as": (
        pod(container(env=[var("NO_PROXY", "a")])),
        [{"env": [var("NO_PROXY", "b", type="multi")]}],
    ),
    "a variable of a narrower layer": (
        pod(),
        [{"env": [var("X", "1")]}, {"env": [var("X", "2")], "priority": 1}],
    ),
}


def policy_rows():
    lines = re.findall(
        r"^\| ([^|`]+?)(?: `multi`)? \| (\w+) \| (\w+) \| (\w+) \|$", section("Conflict policy"), re.MULTILINE
    )
    return [
        pytest.param(what, policy, outcome, id=f"{what}: {policy}")
        for what, *outcomes in lines
        for policy, outcome in zip(api.CONFLICT_POLICIES, outcomes, strict=True)
    ]


@pytest.mark.parametrize(("what", "policy", "outcome"), policy_rows())
def test_a_conflict_has_the_outcome_of_its_policy(what, policy, outcome):
    # The variable that nothing differs about shows that the rest of a preset is still applied, or is not.
    before, specs = DIFFERENCES[what]
    specs = [{**specs[0], "env": [*specs[0].get("env", []), var("REST", "r")]}, *specs[1:]]
    presets = [preset(f"p{at}", conflictPolicy=policy, **spec) for at, spec in enumerate(specs)]
    decision, after = admit(before, world(*presets))
    assert decision.outcome == outcome
    assert ("REST" in dict(env_of(after))) == (outcome == "patched")
    assert (after == before) == (outcome != "patched")
    assert decision.allowed == (outcome != "rejected")


# -- nothing is left out -------------------------------------------------------------------------------------------


def test_every_difference_is_in_the_table_of_policies():
    assert {row.values[0] for row in policy_rows()} == set(DIFFERENCES)


def test_every_type_strategy_and_presence_is_in_the_table_of_layers():
    table = tables("Between layers")[0]
    seen = {
        (*type_, *strategy, broader != "nothing", narrower != "nothing")
        for type_, strategy, broader, narrower, _ in table
    }
    kinds = [("single", "replace"), ("multi", "replace"), ("multi", "append"), ("multi", "prepend")]
    wanted = {(*kind, *here) for kind in kinds for here in [(True, False), (False, True), (True, True)]}
    assert wanted <= seen


def test_every_type_override_and_kind_of_own_value_is_in_the_table_of_containers():
    table = tables("The container's own value")[0]
    kinds = {"nothing": "nothing", '""': "empty", "(valueFrom)": "dynamic"}
    seen = {(*type_, shown(override), kinds.get(shown(own), "literal")) for _, type_, _, override, own, _ in table}
    wanted = set(itertools.product(["single", "multi"], ["nothing", "force"], ["empty", "dynamic", "literal"]))
    assert wanted <= seen


# -- beyond the examples -------------------------------------------------------------------------------------------

ITEMS = st.lists(st.sampled_from(["a", "b", "c", "D", "d", "10.0.0.0/8", "*", "", " e "]), max_size=4)
STRATEGIES = st.sampled_from(api.STRATEGIES)


def unique(items):
    """The normal form of a list, by the words of the page."""
    kept = []
    for entry in (written.strip() for written in items):
        if entry and entry.lower() not in {before.lower() for before in kept}:
            kept.append(entry)
    return ["*"] if "*" in kept else kept


def layered(layers):
    """What lists of several layers come to, by the words of the page."""
    together = unique(layers[0][1])
    for strategy, items in layers[1:]:
        mine = unique(items)
        everything = {entry.lower() for entry in mine} <= {entry.lower() for entry in together} or together == ["*"]
        if strategy == "replace":
            together = mine
        elif not everything:
            together = unique([*together, *mine] if strategy == "append" else [*mine, *together])
    return together


@given(st.lists(st.tuples(STRATEGIES, ITEMS), min_size=1, max_size=5), st.none() | ITEMS)
def test_any_lists_of_any_layers_come_to_what_the_page_says(layers, own):
    presets = [
        preset(f"p{at}", priority=at, env=[item("NO_PROXY", ",".join(items), type="multi", merge_strategy=strategy)])
        for at, (strategy, items) in enumerate(layers)
    ]
    before = pod(container(env=[] if own is None else [var("no_proxy", ",".join(own))]))
    after = admitted(before, *presets)
    together = layered(layers)
    if own is None:
        wanted = ",".join(together)
    else:
        wanted = written = ",".join(own)
        mine = lists.split(written)
        complete = "*" in mine or {entry.lower() for entry in together} <= {entry.lower() for entry in mine}
        if written and not complete:
            wanted = ",".join(unique([*mine, *together]))
    assert value_of(after, "NO_PROXY") == value_of(after, "no_proxy") == wanted
