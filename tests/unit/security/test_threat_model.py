"""The threat model keeps its word: every threat has tests, and every test it names exists."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
TEXT = (ROOT / "THREAT_MODEL.md").read_text()
ROW = re.compile(r"^\| ([A-Z]\d+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
ROWS = {match[1]: match[4] for match in ROW.finditer(TEXT)}


@cache
def names_in(path):
    """Names of the tests of a file."""
    found = ast.walk(ast.parse((ROOT / path).read_text()))
    return {node.name for node in found if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_no_row_is_of_another_form_and_no_threat_has_the_name_of_another():
    rows = [line for line in TEXT.splitlines() if re.match(r"\| [A-Z]", line)]
    assert len(rows) == len(ROWS) > 30


@pytest.mark.parametrize("tests", ROWS.values(), ids=ROWS.keys())
def test_each_threat_has_tests_and_they_exist(tests):
    named = NAMED.findall(tests)
    assert named
    assert NAMED.sub("", tests).strip() == "", "nothing but tests"
    missing = [f"{path}::{name}" for path, name in named if name not in names_in(path)]
    assert missing == []


@pytest.mark.parametrize("page", ["THREAT_MODEL.md", "SECURITY.md"])
def test_what_the_pages_at_the_top_lead_to_is_there(page):
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (ROOT / page).read_text())
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
