"""`python -m tools.audit`: whether what requirements.lock names may be shipped, and what is known against it.

    python -m tools.audit [--advisories FILE|FOLDER | --online [URL]] [--ignore ID ...] [--write]

Licences are always checked, offline, in well under a second. Vulnerabilities need advisory data: OSV's archive of PyPI
(also by $GROUNDWORK_ADVISORIES), or its service with --online; without either the output says that they were not
checked. Exit code: 0 nothing to object to, 1 something is, 2 the advisories cannot be read.
"""

from __future__ import annotations

import argparse
import datetime as dt
import importlib.metadata
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tools import paths
from tools.audit import advisories, licences, lock, page
from tools.audit.advisories import AdvisoryError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tools.audit.lock import Pin

LOCK = paths.ROOT / "requirements.lock"
PAGE = paths.ROOT / "docs" / "reference" / "licences.md"
MAX_AGE_DAYS = 30


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.audit", description="licences and known vulnerabilities")
    parser.add_argument("--lock", type=Path, default=LOCK, help="lock file (default: requirements.lock)")
    parser.add_argument("--page", type=Path, default=PAGE, help=argparse.SUPPRESS)
    parser.add_argument("--write", action="store_true", help="write the table of docs/reference/licences.md")
    parser.add_argument("--ignore", action="append", default=[], metavar="ID", help="an advisory that was looked at")
    source = parser.add_mutually_exclusive_group()
    given = os.environ.get("GROUNDWORK_ADVISORIES", "")
    source.add_argument(
        "--advisories",
        type=Path,
        default=Path(given) if given else None,
        metavar="PATH",
        help="OSV's all.zip of PyPI, or a folder of records (default: $GROUNDWORK_ADVISORIES)",
    )
    source.add_argument(
        "--online", nargs="?", const=advisories.OSV, default="", metavar="URL", help="ask OSV's service"
    )
    return parser


def found_licences(pins: Sequence[Pin]) -> dict[str, str | None]:
    """Return the licence of each package: "" when it is unknown, None when this Python does not install the package."""
    answer: dict[str, str | None] = {}
    for pin in pins:
        try:
            metadata = importlib.metadata.metadata(pin.name)
        except importlib.metadata.PackageNotFoundError:
            answer[pin.name] = "" if pin.applies else None
        else:
            answer[pin.name] = licences.stated(metadata) if metadata["Version"] == pin.version else ""
    return answer


def licence_problems(found: dict[str, str | None]) -> list[str]:
    """Return a line for each package that may not be shipped, with what to do about it."""
    problems = []
    for name, licence in found.items():
        if licence == "":
            problems.append(
                f"{name}: its metadata names no licence, or the locked version is not installed (run make). Read its "
                "licence file; when that is an allowed one, teach tools/audit/licences.py the words that the package "
                "uses, else do without it"
            )
        elif licence is not None and not licences.acceptable(licence):
            problems.append(
                f"{name}: {licence} is not on the list in tools/audit/licences.py. Add it there when it may be shipped "
                "beside Apache-2.0, else do without the package"
            )
    return problems


def vulnerability_problems(answer: advisories.Answer, ignored: Sequence[str], today: dt.date) -> list[str]:
    """Return a line for each finding that is not ignored, and one when the data are too old to trust."""
    problems = [
        f"{found.package} {found.version}: {found.advisory} {found.summary}".rstrip()
        + " (take a fixed version with `make lock`; --ignore ID when it does not concern us)"
        for found in answer.findings
        if found.advisory not in ignored
    ]
    if answer.newest and (today - dt.date.fromisoformat(answer.newest)).days > MAX_AGE_DAYS:
        problems.append(
            f"the newest advisory is of {answer.newest}, more than {MAX_AGE_DAYS} days ago: fetch the advisories anew"
        )
    return problems


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what was checked and what was found; returns the exit code."""
    given = _parser().parse_args(arguments)
    pins = lock.read(given.lock)
    licensed = found_licences(pins)
    problems = licence_problems(licensed)
    current = given.page.read_text()
    wanted = page.rendered(current, licensed)
    if given.write:
        given.page.write_text(wanted)
    elif wanted != current:
        problems.append(f"{given.page.name} is not up to date: run python -m tools.audit --write")
    print(f"licences: {len(pins)} packages")
    try:
        if given.online or given.advisories:
            answer = advisories.ask(pins, given.online) if given.online else advisories.search(given.advisories, pins)
            problems += vulnerability_problems(answer, given.ignore, dt.datetime.now(dt.UTC).date())
            print(f"known vulnerabilities: {len(pins)} packages against {answer.newest or 'the service of today'}")
        else:
            print("known vulnerabilities: NOT CHECKED, since no advisories were given; make audit asks OSV's service")
    except AdvisoryError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
