"""Prometheus and promtool, as the tests of alerts and dashboards use them.

Responsible for: the sources of rules and dashboards and the expressions in them; running promtool's unit tests from
Python values; a server that scrapes given addresses, and what it is asked over its API.
Invariants: expressions are taken apart by Prometheus' own parser, never here; the server ends with the `with`.
"""

from __future__ import annotations

import http.client
import json
import re
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode

import yaml

from tools import binaries
from tools.process import Daemon, free_ports

ROOT = Path(__file__).resolve().parents[2]
ALERTS = ROOT / "deploy" / "chart" / "files" / "alerts"
DASHBOARDS = ROOT / "deploy" / "chart" / "files" / "dashboards"
TARGET_LABELS = {"job", "instance", "namespace", "pod", "service", "container", "endpoint", "process"}
"""Labels that a scrape adds; `process` comes from a service of several processes."""
_START_SECONDS = 120.0
_VARIABLE = re.compile(r"\$(\w+)|\$\{(\w+)\}")


def alert_files():
    """The files of rules, in order."""
    return sorted(ALERTS.glob("*.yaml"))


def alerts():
    """Every alerting rule, as it stands in its file."""
    documents = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in alert_files()]
    return [rule for document in documents for group in document["groups"] for rule in group["rules"]]


def dashboards():
    """Dashboards by the names of their files."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(DASHBOARDS.glob("*.json"))}


def panels(dashboard):
    """Panels that show something; rows only have a title."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def plain(expression):
    """A dashboard's expression as Prometheus gets it: Grafana fills variables in before."""
    fixed = {"__rate_interval": "1m", "__range": "5m", "__interval": "1m"}
    return _VARIABLE.sub(lambda found: fixed.get(found[1] or found[2], ".*"), expression)


def dashboard_expressions():
    """What the panels and variables of all dashboards ask for, as (where, expression)."""
    found = []
    for name, dashboard in dashboards().items():
        for panel in panels(dashboard):
            found += [(f"{name}: {panel['title']}", plain(target["expr"])) for target in panel["targets"]]
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query":
                asked = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
                found.append((f"{name}: ${variable['name']}", f"count by ({asked[2]}) ({plain(asked[1])})"))
    return found


def expressions():
    """Every expression of alerts and dashboards, as (where, expression)."""
    return [(rule["alert"], rule["expr"]) for rule in alerts()] + dashboard_expressions()


def promtool(*arguments, cwd=None):
    """Run promtool; its exit code and everything it printed."""
    command = [binaries.ensure("promtool")["promtool"], *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return done.returncode, done.stdout


class Used(NamedTuple):
    """Metrics that an expression reads, with the names of the labels it reads of each by matching; and by grouping."""

    matched: dict[str, set[str]]
    grouped: set[str]


def used(tree):
    """What a parsed expression reads; `tree` as the API's parse_query gives it."""
    result = Used({}, set())
    _walk(tree, result)
    return result


def _walk(node, result):
    if isinstance(node, list):
        for each in node:
            _walk(each, result)
        return
    if not isinstance(node, dict):
        return
    if node.get("type") == "vectorSelector" or ("matchers" in node and "name" in node):
        names = {matcher["name"] for matcher in node["matchers"]} - {"__name__"}
        result.matched.setdefault(node["name"], set()).update(names)
        return
    if node.get("type") == "aggregation":
        result.grouped.update(node["grouping"])
    if node.get("matching"):
        result.grouped.update(node["matching"]["labels"])
        result.grouped.update(node["matching"]["include"] or ())
    for value in node.values():
        _walk(value, result)


class Prometheus:
    """A server; `targets` are (address, labels) that it scrapes every second, `rules` files that it evaluates."""

    def __init__(self, folder, targets, rules):
        self._daemon = Daemon("prometheus", folder)
        (self.port,) = free_ports(1)
        self._folder = folder
        jobs = [
            {
                "job_name": labels["job"],
                "honor_labels": True,
                "static_configs": [{"targets": [address], "labels": {k: v for k, v in labels.items() if k != "job"}}],
            }
            for address, labels in targets
        ]
        timing = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        config = {"global": timing, "rule_files": [str(path) for path in rules], "scrape_configs": jobs}
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))

    @classmethod
    @contextmanager
    def running(cls, folder, targets=(), rules=()):
        server = cls(folder, targets, rules)
        server.start()
        try:
            yield server
        finally:
            server._daemon.stop()

    def start(self):
        """Return once it answers."""
        program = str(binaries.ensure("prometheus")["prometheus"])
        flags = [
            f"--config.file={self._folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={self._folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
        ]
        self._daemon.start([program, *flags], tethered=True)
        self._daemon.wait_ready(self._ready, timeout=_START_SECONDS)

    def parse(self, expression):
        """The tree of an expression; an expression that cannot be parsed is an AssertionError."""
        return self._data("parse_query", query=expression)

    def query(self, expression):
        """The samples of an instant query, as (labels, value)."""
        found = self._data("query", query=expression)["result"]
        return [(sample["metric"], float(sample["value"][1])) for sample in found]

    def series(self, metric):
        """The label sets under which a metric was scraped."""
        return self._data("series", **{"match[]": metric})

    def metrics(self):
        """Names of all metrics that were scraped."""
        return set(self._data("label/__name__/values"))

    def targets(self):
        """Health of each target by its job."""
        return {t["labels"]["job"]: t["health"] for t in self._data("targets")["activeTargets"]}

    def rules(self):
        """Every rule as the server sees it."""
        return [rule for group in self._data("rules")["groups"] for rule in group["rules"]]

    def _ready(self):
        try:
            return self._get("/-/ready")[0] == http.HTTPStatus.OK
        except OSError:
            return False

    def _data(self, what, **parameters):
        status, body = self._get(f"/api/v1/{what}?{urlencode(parameters)}")
        assert status == http.HTTPStatus.OK, (parameters, body)
        return json.loads(body)["data"]

    def _get(self, path):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()
