"""The pages about the command line, held against what it is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from services import cli
from services.podpreset.cli.stale import Reason
from services.proxyenv.clients import Client, Verdict, bypasses

DOCS = Path(__file__).resolve().parents[3] / "docs"
PAGE = (DOCS / "reference" / "cli.md").read_text()
LETTERS = {Verdict.DIRECT: "d", Verdict.PROXIED: "p", Verdict.CRASH: "X"}
ROWS = re.findall(r"^\| `([^`]+)`, (\S+) \| ([dpX |]+) \|$", PAGE, re.MULTILINE)


def section(command):
    return PAGE.partition(f"## groundwork podpreset {command}\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize("command", ["render", "explain", "diff", "lint", "convert", "stale", "export"])
def test_the_help_of_every_command_is_in_its_page(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "110")
    with pytest.raises(SystemExit):
        cli.main(["podpreset", command, "--help"])
    # Releases of Python write options in different ways.
    shown, written = (set(re.findall(r"--[a-z-]+", text)) for text in (capsys.readouterr().out, section(command)))
    assert shown == written
    assert f"| `{command}` |" in PAGE


@pytest.mark.parametrize(("entry", "target", "letters"), ROWS, ids=[f"{row[0]} {row[1]}" for row in ROWS])
def test_the_table_of_clients_says_what_the_models_say(entry, target, letters):
    found = re.fullmatch(r"(.*?)(?::(\d+))?", target.replace("\\", "")) if target.count(":") == 1 else None
    host, port = (found[1], found[2]) if found else (target.replace("\\", ""), None)
    answers = [bypasses(client, entry, host, int(port) if port else None) for client in Client]
    assert " ".join(LETTERS[answer] for answer in answers) == letters.replace(" | ", " ")


def test_the_table_of_clients_is_long():
    assert len(ROWS) == 20


def test_every_reason_of_staleness_is_explained():
    page = (DOCS / "tasks" / "find-stale-pods.md").read_text()
    assert {f"`{reason}`" for reason in Reason} <= set(re.findall(r"^\| (`\w+`) \|", page, re.MULTILINE))
