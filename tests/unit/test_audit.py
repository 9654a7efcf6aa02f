"""The audit of the locked packages: each check passes what is fine and fails on a package planted to be bad."""

import contextlib
import datetime as dt
import email.message
import http.server
import importlib.metadata
import json
import threading
import zipfile

import pytest

from tools.audit import __main__ as audit
from tools.audit import advisories, licences, lock, page

PINS = [lock.Pin("goodlib", "1.2.0"), lock.Pin("bad-lib", "2.0.0")]
EMPTY_PAGE = "# Page\n\n<!-- packages: written by python -m tools.audit --write -->\n<!-- end of packages -->\n"


def metadata(*fields):
    message = email.message.Message()
    for name, value in fields:
        message[name] = value
    return message


def classifier(name):
    return ("Classifier", f"License :: OSI Approved :: {name}")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([("License-Expression", "Apache-2.0 AND MIT")], "Apache-2.0 AND MIT"),
        ([("License-Expression", "apache-2.0 or bsd-3-clause")], "Apache-2.0 OR BSD-3-Clause"),
        ([("License-Expression", "MIT"), classifier("GNU General Public License v3 (GPLv3)")], "MIT"),
        ([("License", "MIT License"), classifier("MIT License")], "MIT"),
        ([("License", "MIT License"), classifier("Apache Software License")], "Apache-2.0 AND MIT"),
        ([("License", "Apache 2.0")], "Apache-2.0"),
        ([("License", "License :: OSI Approved :: Apache Software License")], "Apache-2.0"),
        ([("License", "see LICENSE"), classifier("Mozilla Public License 2.0 (MPL 2.0)")], "MPL-2.0"),
        ([("License", "GPL-3.0-only")], "GPL-3.0-only"),
        ([("License", "MIT"), classifier("GNU Affero General Public License v3")], ""),
        ([("License", "BSD")], ""),
        ([classifier("BSD License")], ""),
        ([("License", "free for good people")], ""),
        ([("License-Expression", "No-Such-1.0")], ""),
        ([], ""),
    ],
)
def test_a_licence_is_what_the_metadata_state_or_unknown(fields, expected):
    assert licences.stated(metadata(*fields)) == expected


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("MIT", True),
        ("MIT AND Apache-2.0", True),
        ("MIT AND GPL-3.0-only", False),
        ("MIT OR GPL-3.0-only", True),
        ("GPL-3.0-only OR MIT", True),
        ("(GPL-2.0-only OR MIT) AND ISC", True),
        ("GPL-2.0-only OR MIT AND AGPL-3.0-only", False),
        ("(LGPL-3.0-only OR GPL-2.0-only) AND MIT", False),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("GPL-3.0-only WITH GCC-exception-3.1", False),
        ("LicenseRef-Own", False),
        ("MIT AND", False),
        ("", False),
    ],
)
def test_an_expression_is_met_by_allowed_licences_alone(expression, expected):
    assert licences.acceptable(expression) is expected


def test_the_lock_is_read_with_its_conditions():
    text = (
        "# a comment\nGood_Lib==1.2.0 \\\n    --hash=sha256:00\n    # via other==9\n"
        "extra==3 ; python_full_version < '3' and os_name != 'x' \\\n    --hash=sha256:00\nplain==4\n"
    )
    assert lock.parse(text) == [
        lock.Pin("good-lib", "1.2.0"),
        lock.Pin("extra", "3", "python_full_version < '3' and os_name != 'x'"),
        lock.Pin("plain", "4"),
    ]
    assert [pin.applies for pin in lock.parse(text)] == [True, False, True]


def test_a_lock_without_packages_is_refused(tmp_path):
    empty = tmp_path / "empty.lock"
    empty.write_text("# nothing\n")
    with pytest.raises(ValueError, match="pins no package"):
        lock.read(empty)


def record(name="bad-lib", ecosystem="PyPI", **more):
    affected = {"package": {"ecosystem": ecosystem, "name": name}, **more.pop("affected", {})}
    return {"id": "PYSEC-2026-1", "modified": "2026-11-20T10:00:00Z", "affected": [affected], **more}


def between(*events, kind="ECOSYSTEM"):
    return {"ranges": [{"type": kind, "events": [dict([event]) for event in events]}]}


@pytest.mark.parametrize(
    ("affected", "hit", "missed"),
    [
        (between(("introduced", "0"), ("fixed", "2.0.1")), ["0.1", "2.0.0", "2.0.1rc1"], ["2.0.1", "3"]),
        (between(("introduced", "0")), ["0.0.1.dev1", "99"], []),
        (between(("introduced", "1.5"), ("last_affected", "2.0")), ["1.5", "2.0", "2.0.0"], ["1.4", "2.0.1"]),
        (
            between(("fixed", "3.2"), ("introduced", "3.0"), ("fixed", "2.1"), ("introduced", "2.0")),
            ["2.0.5", "3.1"],
            ["1.9", "2.1", "2.9", "3.2"],
        ),
        (between(("introduced", "0"), kind="GIT"), [], ["1.0"]),
        ({"versions": ["1.0", "1.1"]}, ["1.1"], ["1.2"]),
        ({}, [], ["1.0"]),
    ],
)
def test_a_version_is_affected_by_the_rules_of_the_schema(affected, hit, missed):
    found = record(affected=affected)
    assert [version for version in hit + missed if advisories.affects(found, "bad-lib", version)] == hit


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (record("Bad_Lib", affected={"versions": ["2.0.0"]}), True),
        (record(affected={"versions": ["2.0.0"]}, withdrawn="2026-01-01T00:00:00Z"), False),
        (record(ecosystem="npm", affected={"versions": ["2.0.0"]}), False),
        (record("bad-library", affected={"versions": ["2.0.0"]}), False),
    ],
)
def test_a_record_counts_for_its_own_package_while_it_stands(found, expected):
    assert advisories.affects(found, "bad-lib", "2.0.0") is expected


def archive(folder, *records):
    path = folder / "all.zip"
    with zipfile.ZipFile(path, "w") as out:
        for number, content in enumerate(records):
            out.writestr(f"{number}.json", json.dumps(content))
    return path


def test_an_archive_and_a_folder_of_records_give_the_same_findings(tmp_path):
    records = [
        record("Bad.Lib", affected=between(("introduced", "0"), ("fixed", "2.1")), summary="it is bad"),
        record("other", affected={"versions": ["2.0.0"]}, modified="2026-11-22T00:00:00Z"),
    ]
    folder = tmp_path / "records"
    folder.mkdir()
    for number, content in enumerate(records):
        (folder / f"{number}.json").write_text(json.dumps(content, indent=1))
    expected = advisories.Answer([advisories.Finding("bad-lib", "2.0.0", "PYSEC-2026-1", "it is bad")], 2, "2026-11-22")
    assert advisories.search(archive(tmp_path, *records), PINS) == expected
    assert advisories.search(folder, PINS) == expected


def test_what_holds_no_advisories_is_not_taken_for_a_clean_answer(tmp_path):
    (tmp_path / "text.zip").write_text("no archive")
    for source in (tmp_path, tmp_path / "text.zip", tmp_path / "missing.zip", archive(tmp_path)):
        with pytest.raises(advisories.AdvisoryError):
            advisories.search(source, PINS)


@contextlib.contextmanager
def osv_service(answer, status=200):
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1/querybatch", asked
        finally:
            server.shutdown()
            thread.join()


def test_the_service_is_asked_about_every_package():
    with osv_service({"results": [{}, {"vulns": [{"id": "PYSEC-2026-1"}]}]}) as (url, asked):
        answer = advisories.ask(PINS, url)
    assert answer.findings == [advisories.Finding("bad-lib", "2.0.0", "PYSEC-2026-1", "")]
    (question,) = asked
    assert [(query["package"], query["version"]) for query in question["queries"]] == [
        ({"name": "goodlib", "ecosystem": "PyPI"}, "1.2.0"),
        ({"name": "bad-lib", "ecosystem": "PyPI"}, "2.0.0"),
    ]


@pytest.mark.parametrize(("answer", "status"), [({"results": [{}]}, 200), ({}, 200), ({"results": []}, 500), ([], 200)])
def test_half_an_answer_of_the_service_is_none(answer, status):
    with osv_service(answer, status) as (url, _), pytest.raises(advisories.AdvisoryError):
        advisories.ask(PINS, url)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Installs packages as pip would leave them; returns the command line that audits them."""
    packages = tmp_path / "site-packages"
    page_file = tmp_path / "page.md"
    page_file.write_text(EMPTY_PAGE)
    monkeypatch.syspath_prepend(str(packages))
    monkeypatch.delenv("GROUNDWORK_ADVISORIES", raising=False)

    def install(*listed):
        lines = []
        for name, version, expression in listed:
            folder = packages / f"{name}-{version}.dist-info"
            folder.mkdir(parents=True)
            stated = f"License-Expression: {expression}\n" if expression else ""
            (folder / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n{stated}\n")
            lines.append(f"{name}=={version} \\\n    --hash=sha256:00\n")
        importlib.invalidate_caches()
        (tmp_path / "some.lock").write_text("".join(lines))
        arguments = ["--lock", str(tmp_path / "some.lock"), "--page", str(page_file)]
        assert audit.main([*arguments, "--write"]) in {0, 1}
        return arguments

    return install


def test_allowed_packages_pass_and_the_output_says_what_was_not_checked(installed, capsys):
    arguments = installed(("goodlib", "1.2.0", "MIT"))
    capsys.readouterr()
    assert audit.main(arguments) == 0
    shown = capsys.readouterr()
    assert "licences: 1 packages" in shown.out
    assert "NOT CHECKED" in shown.out
    assert shown.err == ""


@pytest.mark.parametrize(
    ("expression", "said"), [("AGPL-3.0-only", "AGPL-3.0-only is not on the list"), ("", "names no licence")]
)
def test_a_planted_package_with_a_bad_licence_fails(installed, capsys, expression, said):
    arguments = installed(("goodlib", "1.2.0", "MIT"), ("badlib", "2.0.0", expression))
    capsys.readouterr()
    assert audit.main(arguments) == 1
    shown = capsys.readouterr().err
    assert "badlib" in shown
    assert said in shown
    assert "else do without" in shown
    assert "goodlib" not in shown


def test_a_locked_version_that_is_not_installed_fails(installed, tmp_path, capsys):
    arguments = installed(("goodlib", "1.2.0", "MIT"))
    (tmp_path / "some.lock").write_text("goodlib==1.3.0\nmissinglib==1\n")
    assert audit.main(arguments) == 1
    shown = capsys.readouterr().err
    assert "goodlib: its metadata names no licence, or the locked version is not installed" in shown
    assert "missinglib" in shown


def test_a_planted_vulnerability_fails_until_it_is_ignored(installed, tmp_path, capsys):
    today = dt.datetime.now(dt.UTC).isoformat()
    arguments = installed(("badlib", "2.0.0", "MIT"))
    source = archive(
        tmp_path, record("badlib", affected=between(("introduced", "0"), ("fixed", "2.1")), modified=today)
    )
    arguments += ["--advisories", str(source)]
    capsys.readouterr()
    assert audit.main(arguments) == 1
    assert "badlib 2.0.0: PYSEC-2026-1" in capsys.readouterr().err
    assert audit.main([*arguments, "--ignore", "PYSEC-2026-1"]) == 0
    assert "NOT CHECKED" not in capsys.readouterr().out


def test_old_advisories_fail_even_when_they_name_nothing(installed, tmp_path, capsys):
    arguments = installed(("goodlib", "1.2.0", "MIT"))
    source = archive(tmp_path, record("other", modified="2025-01-01T00:00:00Z"))
    assert audit.main([*arguments, "--advisories", str(source)]) == 1
    assert "fetch the advisories anew" in capsys.readouterr().err


def test_a_service_that_does_not_answer_is_an_error_and_no_pass(installed, capsys):
    arguments = installed(("goodlib", "1.2.0", "MIT"))
    with osv_service({}, 503) as (url, _):
        assert audit.main([*arguments, "--online", url]) == 2
    assert "no answer" in capsys.readouterr().err
    with osv_service({"results": [{"vulns": [{"id": "PYSEC-2026-9"}]}]}) as (url, _):
        assert audit.main([*arguments, "--online", url]) == 1
    assert "PYSEC-2026-9" in capsys.readouterr().err


def test_a_page_that_is_not_up_to_date_fails(installed, tmp_path, capsys):
    arguments = installed(("goodlib", "1.2.0", "MIT"))
    page_file = tmp_path / "page.md"
    assert "| goodlib | MIT |" in page_file.read_text()
    page_file.write_text(page_file.read_text().replace("| goodlib | MIT |\n", ""))
    assert audit.main(arguments) == 1
    assert "not up to date" in capsys.readouterr().err


def test_the_row_of_a_package_that_is_not_installed_here_stays():
    text = page.rendered(EMPTY_PAGE, {"backport": "PSF-2.0", "other": "MIT"})
    assert page.rendered(text, {"backport": None, "other": "MIT"}) == text
    assert page.rows(text) == {"backport": "PSF-2.0", "other": "MIT"}
    with pytest.raises(ValueError, match="has no lines"):
        page.rendered("# Page", {})
