"""`python -m tools.dashboards`: makes the JSON in deploy/chart/files/dashboards from the tables of this package.

`--check` writes nothing and exits 1 with a line for each file that is out of date; otherwise the exit code is 0.
Invariants: the same tables give the same bytes; ids and places follow from the order of panels, so that a diff of the
JSON shows what changed. Must not know: what is shown, or which metrics exist; tests compare with what services show.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tools.dashboards.addresses import CLAIMS, POOLS
from tools.dashboards.machines import MACHINES, VCENTER
from tools.dashboards.model import Dashboard, Panel, Row, Variable
from tools.dashboards.services import ADMISSIONS, CONTROLLERS

if TYPE_CHECKING:
    from collections.abc import Sequence

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "chart" / "files" / "dashboards"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
DASHBOARDS = (POOLS, CLAIMS, MACHINES, ADMISSIONS, VCENTER, CONTROLLERS)
_COLUMNS, _HEIGHT, _STAT_HEIGHT = 24, 8, 4


def content(dashboard: Dashboard) -> dict[str, Any]:
    """What Grafana imports. Schema 39 is of Grafana 10.4; newer ones convert it."""
    return {
        "annotations": {"list": []},
        "description": dashboard.description,
        "editable": True,
        "graphTooltip": 1,
        "links": [
            {"title": "Groundwork", "type": "dashboards", "tags": ["groundwork"], "asDropdown": True, "keepTime": True}
        ],
        "panels": _placed(dashboard.panels),
        "refresh": "30s",
        "schemaVersion": 39,
        "tags": ["groundwork"],
        "templating": {"list": [_source(), *(_variable(variable) for variable in dashboard.variables)]},
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "browser",
        "title": dashboard.title,
        "uid": f"groundwork-{dashboard.name}",
    }


def _placed(panels: Sequence[Panel | Row]) -> list[dict[str, Any]]:
    """Panels from left to right and from top to bottom."""
    found: list[dict[str, Any]] = []
    x = y = height = 0
    for number, panel in enumerate(panels, 1):
        width = _COLUMNS if isinstance(panel, Row) else panel.width
        if x + width > _COLUMNS:
            x, y, height = 0, y + height, 0
        tall = 1 if isinstance(panel, Row) else _STAT_HEIGHT if panel.kind == "stat" else _HEIGHT
        place = {"x": x, "y": y, "w": width, "h": tall}
        if isinstance(panel, Row):
            shown: dict[str, Any] = {"type": "row", "title": panel.title, "collapsed": False, "panels": []}
        else:
            shown = _panel(panel)
        found.append({"id": number, "gridPos": place, **shown})
        x, height = x + width, max(height, tall)
    return found


def _panel(panel: Panel) -> dict[str, Any]:
    targets = [
        {"refId": chr(ord("A") + number), "datasource": SOURCE, "expr": expression, "legendFormat": legend or "__auto"}
        for number, (expression, legend) in enumerate(panel.asks)
    ]
    if panel.kind == "stat":
        options: dict[str, Any] = {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "none"}
        custom: dict[str, Any] = {}
    else:
        options = {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
        custom = {"custom": {"fillOpacity": 20, "stacking": {"mode": "normal"}}} if panel.stacked else {}
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": SOURCE,
        "fieldConfig": {"defaults": {"unit": panel.unit, **custom}, "overrides": []},
        "options": options,
        "targets": targets,
    }


def _source() -> dict[str, Any]:
    return {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}


def _variable(variable: Variable) -> dict[str, Any]:
    return {
        "name": variable.name,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": f"label_values({variable.metric}, {variable.label})", "refId": variable.name},
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        # Also what has no such label: a GlobalIPPool has no namespace.
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
        "sort": 1,
    }


def outdated(folder: Path = FOLDER) -> dict[Path, str]:
    """Files that are missing or differ from what they should be, with that; "" for one that should not be there."""
    wanted = {folder / f"{board.name}.json": json.dumps(content(board), indent=2) + "\n" for board in DASHBOARDS}
    found = {path: path.read_text(encoding="utf-8") for path in folder.glob("*.json")}
    return {path: wanted.get(path, "") for path in wanted | found if wanted.get(path) != found.get(path)}


def main(arguments: Sequence[str]) -> int:
    """Write the dashboards, or with --check tell which are out of date."""
    parser = argparse.ArgumentParser(prog="python -m tools.dashboards", description="Make the chart's dashboards.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a dashboard is out of date")
    options = parser.parse_args(arguments)
    stale = outdated()
    for path, text in stale.items():
        if options.check:
            print(f"{path}: out of date, run: python -m tools.dashboards")
        elif text:
            path.write_text(text, encoding="utf-8")
        else:
            path.unlink()
    return 1 if stale and options.check else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
