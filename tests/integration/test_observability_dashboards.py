"""The dashboards: made from their tables, in the shape that Grafana wants, and alike in what people rely on."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.support.prometheus import ROOT, dashboards, panels
from tools.dashboards import __main__ as tool

BOARDS = [pytest.param(board, id=name) for name, board in dashboards().items()]
COLUMNS = 24


def test_the_files_are_what_the_tables_say():
    command = [sys.executable, "-m", "tools.dashboards", "--check"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_a_file_that_differs_is_missing_or_is_nobody_s_is_named(tmp_path):
    for path, text in tool.outdated(tmp_path).items():
        path.write_text(text)
    assert tool.outdated(tmp_path) == {}
    (tmp_path / "pools.json").write_text("{}")
    (tmp_path / "claims.json").unlink()
    (tmp_path / "old.json").write_text("{}")
    found = tool.outdated(tmp_path)
    assert {path.name for path in found} == {"pools.json", "claims.json", "old.json"}
    assert found[tmp_path / "old.json"] == ""


@pytest.mark.parametrize("board", BOARDS)
def test_it_takes_any_data_source_and_can_be_told_from_the_others(board):
    variables = {variable["name"]: variable for variable in board["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    for panel in panels(board):
        assert {panel["datasource"]["uid"], *(target["datasource"]["uid"] for target in panel["targets"])} == {
            "${datasource}"
        }
    assert board["uid"].startswith("groundwork-")
    assert board["tags"] == ["groundwork"]
    assert len({other["uid"] for other in dashboards().values()}) == len(dashboards())
    assert len({other["title"] for other in dashboards().values()}) == len(dashboards())


@pytest.mark.parametrize("board", BOARDS)
def test_every_variable_that_a_panel_uses_is_one_of_the_dashboard(board):
    known = {variable["name"] for variable in board["templating"]["list"]} | {"__rate_interval"}
    for panel in panels(board):
        for target in panel["targets"]:
            assert set(re.findall(r"\$(\w+)", target["expr"])) <= known, panel["title"]


@pytest.mark.parametrize("board", BOARDS)
def test_panels_neither_overlap_nor_stick_out_and_have_names_of_their_own(board):
    taken = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < COLUMNS
        taken |= cells
    titles = [panel["title"] for panel in board["panels"]]
    assert len(set(titles)) == len(titles)
    assert len({panel["id"] for panel in board["panels"]}) == len(titles)
    for panel in panels(board):
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references) > 0
