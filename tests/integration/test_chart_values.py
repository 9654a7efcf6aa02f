"""Every value of the chart: that it changes what it should, and that what it cannot be is refused by its name."""

from __future__ import annotations

import json
import re
from collections import Counter

import pytest

from tests.support.chart import CHART, KEYS, RELEASE, helm, merged, nested, render, values
from tests.support.chart_rows import ROWS, SHARED

BASE = {"machineController": {"enabled": True}}
"""What rows are compared with: the defaults, and the service that is not installed by default."""
ELSEWHERE = ("metrics.prometheusRule.", "metrics.dashboards.")
"""Blocks that have tests of their own."""


def leaves(found, path=""):
    """Dotted paths of the values; a list or an empty map is one value."""
    for name, value in found.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value


def objects(found, path=""):
    """Dotted paths of the maps that have names of their own."""
    yield path
    for name, value in found.items():
        if isinstance(value, dict) and value and name not in FREE:
            yield from objects(value, f"{path}{name}.")


FREE = {
    "strategy",
    "podSecurityContext",
    "securityContext",
    "requests",
    "limits",
    "thresholds",
    "labels",
    "annotations",
}
"""Maps that are Kubernetes' own: any name will do."""


def test_every_value_has_a_row_and_every_row_is_about_a_value():
    known = Counter(row.path for row in ROWS)
    wanted = {path for path, _ in leaves(values()) if not path.startswith(ELSEWHERE)}
    assert set(known) == wanted
    assert {path for path, count in known.items() if count > 1} == set()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.path)
def test_a_value_changes_what_it_should(row):
    group = [other for other in ROWS if other.group == row.group]
    own = BASE if row.path != "machineController.enabled" else {}
    given = merged(own, *(merged(other.also, nested(other.path, other.given)) for other in group))
    assert not row.holds(render(own)), "holds by default"
    assert row.holds(render(given))


@pytest.mark.parametrize("name", SHARED)
def test_the_block_of_a_service_may_say_differently_what_all_share(name):
    given = merged(BASE, *({"ipam": {each: value}} for each, (value, _) in SHARED.items()))
    _, holds = SHARED[name]
    assert holds(render(given), "ipam")
    for other in KEYS.values():
        if other != "ipam":
            assert not holds(render(given), other)


def test_a_list_or_a_map_that_is_left_out_is_an_empty_one():
    """As in a file of values with a name and nothing behind it."""
    names = {name for name, value in values().items() if value in ([], {})} | {*SHARED} - {"logLevel", "logFormat"}
    rendering = render(dict.fromkeys(names))
    assert len(rendering.of("Deployment")) == 3
    for component in ("ipam", "capv-integrator", "podpreset"):
        assert not _strategy(rendering, component)
        assert [volume["name"] for volume in rendering.pod(component)["volumes"]] == ["tmp"]
        assert [mount["name"] for mount in rendering.container(component)["volumeMounts"]] == ["tmp"]


def _strategy(rendering, component):
    return rendering.one("Deployment", component)["spec"]["strategy"]


def wrong(value):
    """A value of another type."""
    return {"not": ["this"]} if not isinstance(value, dict) else ["not", {"this": 1}]


def refused(given):
    """What helm says of values that it refuses, a line for each."""
    text = helm("template", RELEASE, str(CHART), "--values=-", given=json.dumps(given), fails=True)
    return re.findall(r"at '([^']*)': (.*)", text)


def test_a_value_of_another_type_is_refused_by_its_name():
    found = {
        path: value for path, value in leaves(values()) if not path.startswith("metrics.prometheusRule.thresholds")
    }
    free = [path for path in found if {*path.split(".")[:-1]} & (FREE - {"requests", "limits"})]
    checked = {path: value for path, value in found.items() if path not in free}
    named = {
        where.strip("/").replace("/", ".")
        for where, _ in refused(merged(*(nested(p, wrong(v)) for p, v in checked.items())))
    }
    assert {path for path in checked if path not in named} == set()


def test_a_value_that_does_not_exist_is_refused_where_it_stands():
    paths = [path for path in objects(values()) if path]
    given = merged(*(nested(f"{path}mistaken", True) for path in paths), {"mistaken": True})
    named = {where.strip("/").replace("/", ".") for where, text in refused(given) if "mistaken" in text}
    assert named == {path.strip(".") for path in [*paths, ""]}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("logLevel", "verbose"),
        ("image.digest", "latest"),
        ("image.repository", ""),
        ("watchNamespaces", ["No_Name"]),
        ("ipam.extraArgs", ["workers=3"]),
        ("ipam.replicaCount", -1),
        ("ipam.podDisruptionBudget.minAvailable", "101%"),
        ("metrics.serviceMonitor.interval", "often"),
        ("metrics.service.port", 70000),
        ("networkPolicy.apiServer.cidrs", ["10.0.0.1"]),
        ("podpreset.webhook.failurePolicy", "Never"),
        ("podpreset.webhook.timeoutSeconds", 31),
        ("podpreset.drainSeconds", 301),
        ("fullnameOverride", "No_Name"),
        ("nameOverride", "a.b"),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_its_name(path, value):
    wrongs = [(where.strip("/").replace("/", "."), text) for where, text in refused(nested(path, value))]
    assert [where for where, _ in wrongs if where == path or where.startswith(f"{path}.")]


def test_an_account_of_the_user_s_has_to_be_named():
    text = helm("template", RELEASE, str(CHART), "--set=ipam.serviceAccount.create=false", fails=True)
    assert "ipam.serviceAccount.name: needed when create is false" in text


@pytest.mark.parametrize("value", ["metrics.serviceMonitor.enabled", "metrics.prometheusRule.enabled"])
def test_what_needs_metrics_is_refused_without_them(value):
    text = helm("template", RELEASE, str(CHART), "--set=metrics.enabled=false", f"--set={value}=true", fails=True)
    assert f"{value}: needs metrics.enabled" in text
