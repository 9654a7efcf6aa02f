"""The chart's PrometheusRule and dashboards: the files of the source, with what the values change in them."""

from __future__ import annotations

import functools
import json
import re
import subprocess

import pytest
import yaml

from tests.support.prometheus import ROOT, alert_files, alerts, dashboards, expressions
from tools import binaries

CHART = ROOT / "deploy" / "chart"
SERVICES = {
    "ipam": "ipam",
    "capvIntegrator": "capv-integrator",
    "machineController": "machine-controller",
    "podpreset": "podpreset",
}
ALL = [f"{key}.enabled=true" for key in SERVICES]
RULE, DASHBOARDS = "metrics.prometheusRule.enabled=true", "metrics.dashboards.enabled=true"
THRESHOLD = re.compile(r"([\d.]+) # (\w+)")
BASE = "metrics.prometheusRule.runbookBaseUrl"


def helm(*values):
    """`helm template` with values set: exit code, output, complaint."""
    sets = [f"--set={value}" for value in values]
    command = [binaries.ensure("helm")["helm"], "template", "groundwork", str(CHART), "--namespace=system", *sets]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


@functools.cache
def rendered(*values):
    """Objects of `helm template` as (kind, name): object."""
    code, output, complaint = helm(*values)
    assert code == 0, complaint
    return {(o["kind"], o["metadata"]["name"]): o for o in yaml.safe_load_all(output) if o}


def sources():
    """Groups of rules by the files that they stand in."""
    return {path.stem: yaml.safe_load(path.read_text(encoding="utf-8"))["groups"] for path in alert_files()}


def groups(objects):
    return objects["PrometheusRule", "groundwork"]["spec"]["groups"]


def by_name(found):
    return {group["name"]: group for group in found}


def defaults():
    return yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))["metrics"]["prometheusRule"][
        "thresholds"
    ]


def test_nothing_is_made_unless_it_is_asked_for():
    assert not [key for key in rendered() if key[0] == "PrometheusRule" or "dashboard" in key[1]]


def test_the_rule_has_the_groups_of_the_source_as_they_are():
    found = groups(rendered(RULE, *ALL))
    assert by_name(found) == by_name(group for file in sources().values() for group in file)


@pytest.mark.parametrize(("key", "component"), SERVICES.items())
def test_a_service_that_is_off_has_no_alerts(key, component):
    found = by_name(groups(rendered(RULE, *ALL, f"{key}.enabled=false")))
    own = {group["name"] for group in sources()[component]}
    assert own == {f"groundwork-{component}"}
    assert set(by_name(group for file in sources().values() for group in file)) - set(found) == own


def test_every_threshold_has_a_value_of_the_same_name_and_number_and_no_other():
    named = {name: float(number) for rule in alerts() for number, name in THRESHOLD.findall(rule["expr"])}
    assert named == defaults()


def test_each_threshold_is_changed_where_it_is_named_and_nowhere_else():
    wanted = {name: number + 0.25 for number, name in enumerate(sorted(defaults()), 100)}
    sets = [f"metrics.prometheusRule.thresholds.{name}={number}" for name, number in wanted.items()]
    expected = [group for file in sources().values() for group in file]
    for group in expected:
        for rule in group["rules"]:
            rule["expr"] = THRESHOLD.sub(lambda found: f"{wanted[found[2]]} # {found[2]}", rule["expr"])
    assert by_name(groups(rendered(RULE, *ALL, *sets))) == by_name(expected)


@pytest.mark.parametrize(
    ("threshold", "complaint"),
    [
        ("poolFreePercnt=5", "poolFreePercnt: no alert has it"),
        ("poolFreePercent=few", "poolFreePercent: few is no number"),
    ],
)
def test_a_threshold_that_no_alert_has_or_that_is_no_number_is_refused(threshold, complaint):
    code, _, said = helm(RULE, f"metrics.prometheusRule.thresholds.{threshold}")
    assert code == 1
    assert complaint in said


@pytest.mark.parametrize("base", ["https://example.org/runbooks", "https://example.org/runbooks/"])
def test_links_lead_to_where_the_values_say_that_runbooks_are(base):
    links = {
        rule["annotations"]["runbook_url"]
        for g in groups(rendered(RULE, *ALL, f"{BASE}={base}"))
        for rule in g["rules"]
    }
    assert links == {f"https://example.org/runbooks/{rule['alert']}.md" for rule in alerts()}


def test_every_alert_tells_what_it_is_and_what_to_do_and_has_its_runbook():
    for rule in alerts():
        assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["annotations"]["runbook_url"] == f"docs/runbooks/{rule['alert']}.md"
        assert (ROOT / rule["annotations"]["runbook_url"]).is_file(), rule["alert"]
    pages = {path.stem for path in (ROOT / "docs" / "runbooks").glob("*.md")}
    assert pages == {rule["alert"] for rule in alerts()}


@pytest.mark.parametrize("name", sorted({rule["alert"] for rule in alerts()}))
def test_a_runbook_says_what_it_means_how_to_look_and_how_to_mend(name):
    text = (ROOT / "docs" / "runbooks" / f"{name}.md").read_text(encoding="utf-8")
    assert text.startswith(f"# {name}\n")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["What it means", "Look", "Mend"]
    assert "```console\n$ " in text


def test_each_dashboard_is_a_config_map_that_grafana_s_sidecar_finds():
    objects = rendered(DASHBOARDS)
    found = {name: obj for (kind, name), obj in objects.items() if kind == "ConfigMap" and "dashboard" in name}
    assert set(found) == {f"groundwork-dashboard-{name}" for name in dashboards()}
    for name, dashboard in dashboards().items():
        obj = found[f"groundwork-dashboard-{name}"]
        assert obj["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert obj["metadata"]["labels"]["app.kubernetes.io/part-of"] == "groundwork"
        ((file, text),) = obj["data"].items()
        assert file == f"groundwork-{name}.json"
        assert json.loads(text) == dashboard
        assert text == (CHART / "files" / "dashboards" / f"{name}.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(("what", "kind"), [("prometheusRule", "PrometheusRule"), ("dashboards", "ConfigMap")])
def test_labels_annotations_and_namespace_are_those_of_the_values(what, kind):
    at = f"metrics.{what}"
    wishes = [f"{at}.enabled=true", f"{at}.namespace=monitoring", f"{at}.labels.release=prom", f"{at}.annotations.a=b"]
    found = [obj for (k, _), obj in rendered(*wishes).items() if k == kind]
    assert found
    for obj in found:
        assert obj["metadata"]["namespace"] == "monitoring"
        assert obj["metadata"]["labels"]["release"] == "prom"
        assert obj["metadata"]["labels"]["app.kubernetes.io/instance"] == "groundwork"
        assert obj["metadata"]["annotations"] == {"a": "b"}


def test_both_are_in_the_namespace_of_the_services_by_default():
    for (kind, name), obj in rendered(RULE, DASHBOARDS, "namespaceOverride=elsewhere").items():
        if kind == "PrometheusRule" or "dashboard" in name:
            assert obj["metadata"]["namespace"] == "elsewhere"


def test_alerts_and_dashboards_ask_for_something():
    assert len(expressions()) > len(alerts()) + len(dashboards())
