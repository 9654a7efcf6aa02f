"""The command line without a cluster: subcommands, flags, one-line errors, exit codes, progress."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import yaml

from services import cli, console, output
from services.console import FOUND, INTERRUPTED, OK, UNUSABLE, CommandLine, Progress, UnusableError
from services.ipam.cli import command as ipam
from services.runtime.kube import errors

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def _nowhere(monkeypatch, tmp_path):
    """No cluster by accident: neither the environment's nor the user's own."""
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


# -- groundwork ----------------------------------------------------------------------------------------------------


def test_the_help_names_every_subcommand(capsys):
    assert cli.main(["--help"]) == OK
    shown = capsys.readouterr().out
    for name, subcommand in cli.SUBCOMMANDS.items():
        assert name in shown
        assert subcommand.summary in shown


def test_no_arguments_print_the_help_as_an_error(capsys):
    assert cli.main([]) == UNUSABLE
    out, err = capsys.readouterr()
    assert out == ""
    assert "ipam" in err


def test_an_unknown_subcommand_is_one_line_that_names_the_known_ones(capsys):
    assert cli.main(["ipan"]) == UNUSABLE
    out, err = capsys.readouterr()
    assert out == ""
    assert (
        err == f"groundwork: 'ipan' is no subcommand: use one of {', '.join(cli.SUBCOMMANDS)} (see groundwork --help)\n"
    )


def test_the_version_is_shown(capsys):
    assert cli.main(["--version"]) == OK
    assert capsys.readouterr().out == f"groundwork {console.version()}\n"


def test_help_loads_no_service():
    script = (
        "import sys; from services import cli; cli.main(['--help']); print([m for m in sys.modules if 'ipam' in m])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")


def test_every_subcommand_answers_help_and_says_what_its_exit_codes_mean(capsys):
    for command in ("pools", "addresses", "verify", "export", "import"):
        with pytest.raises(SystemExit) as exit_:
            cli.main(["ipam", command, "--help"])
        assert exit_.value.code == 0
        shown = capsys.readouterr().out
        assert "exit codes:\n  0  " in shown
        assert ("  1  " in shown) == (command in {"verify", "import"})


# -- flags ---------------------------------------------------------------------------------------------------------

WRONG = {
    "no command": ([], "no COMMAND: use one of pools, addresses, verify, export, import"),
    "an unknown command": (["pool"], "invalid choice: 'pool'"),
    "an unknown flag": (["pools", "--all"], "unrecognized arguments: --all"),
    "an abbreviated flag": (["verify", "--sett", "3"], "unrecognized arguments: --sett 3"),
    "an output that the command does not have": (["verify", "-o", "wide"], "invalid choice: 'wide'"),
    "a state that does not exist": (["addresses", "--state", "free"], "invalid choice: 'free'"),
    "an address that is none": (["addresses", "--address", "10.0.0"], "--address"),
    "a range of two families": (["addresses", "--address", "10.0.0.1-::1"], "mixes IPv4 and IPv6"),
    "a pool with too many parts": (
        ["addresses", "--pool", "a/b/c"],
        "'a/b/c' is no pool: write NAME or NAMESPACE/NAME",
    ),
    "a pause that is no number": (["verify", "--settle", "soon"], "'soon' is no number of seconds"),
    "a pause below zero": (["verify", "--settle", "-1"], "'-1' is no number of seconds"),
    "an endless pause": (["verify", "--settle", "inf"], "'inf' is no number of seconds"),
    "a kubeconfig that does not exist": (["pools", "--kubeconfig", "/does/not/exist"], "does not exist"),
    "no kubeconfig at all": (["pools"], "give --kubeconfig PATH or set KUBECONFIG"),
    "a file to import that does not exist": (["import", "-f", "/does/not/exist"], "cannot read /does/not/exist"),
}


@pytest.mark.parametrize(("arguments", "message"), WRONG.values(), ids=WRONG)
def test_a_mistake_is_one_line_on_stderr_and_exit_code_2(arguments, message, capsys):
    assert ipam.main(arguments) == UNUSABLE
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("groundwork ipam")
    assert message in err


STREAMS = {
    "no YAML": ("a: b: c", "not YAML"),
    "no object": ("just text", "document 1: "),
    "another kind": ("{apiVersion: v1, kind: Secret, metadata: {name: s}}", "document 1: Secret of v1 is not"),
    "another group's kind": (
        "{apiVersion: example.org/v1, kind: IPPool, metadata: {name: p}}",
        "is not the allocator's",
    ),
    "no namespace": ("{apiVersion: ipam.metal3.io/v1alpha1, kind: IPPool, metadata: {name: p}}", "needs a name and a"),
}


@pytest.mark.parametrize(("text", "message"), STREAMS.values(), ids=STREAMS)
def test_a_stream_that_cannot_be_read_is_one_line_and_touches_no_cluster(text, message, tmp_path, capsys):
    path = tmp_path / "stream.yaml"
    path.write_text(text)
    assert ipam.main(["import", "-f", str(path)]) == UNUSABLE
    err = capsys.readouterr().err
    assert err.startswith(f"groundwork ipam: {path}: ")
    assert message in err
    assert err.count("\n") == 1


def test_an_import_from_a_terminal_asks_for_a_file(monkeypatch, capsys):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stdin", Terminal())
    assert ipam.main(["import"]) == UNUSABLE
    assert "give -f FILE or pipe an export in" in capsys.readouterr().err


def test_the_users_own_kubeconfig_is_used_when_nothing_else_says_where_the_cluster_is(tmp_path, capsys):
    folder = tmp_path / ".kube"
    folder.mkdir()
    (folder / "config").write_text("{}")
    assert ipam.main(["pools"]) == UNUSABLE
    assert f"the kubeconfig {folder / 'config'}" in capsys.readouterr().err


# -- running a command ---------------------------------------------------------------------------------------------


def parser_of(work):
    parser = CommandLine(prog="prog")
    parser.set_defaults(work=work)
    return parser


ENDINGS = {
    "a wrong flag": (UnusableError("no such thing"), UNUSABLE, "prog: no such thing\n"),
    "an answer of several lines": (
        errors.Invalid(422, "Invalid", "one\n  two"),
        UNUSABLE,
        "prog: the API server answers 422 Invalid: one two\n",
    ),
    "credentials refused": (errors.Unauthorized(401, "Unauthorized", "no"), UNUSABLE, "renew the kubeconfig\n"),
    "no permission": (errors.Forbidden(403, "Forbidden", "no"), UNUSABLE, "ask for a role that allows it\n"),
    "no network": (
        errors.ConnectionFailed("refused"),
        UNUSABLE,
        "check that it is up and that the kubeconfig names it\n",
    ),
    "no answer": (errors.RequestTimeout("slow"), UNUSABLE, "check that it is up and that the kubeconfig names it\n"),
    "an object of another shape": (msgspec.ValidationError("Expected `str`"), UNUSABLE, "deploy/crds\n"),
    "a page instead of an answer": (errors.Unreadable("malformed"), UNUSABLE, "a login page before it?\n"),
    "a page instead of a list of what is served": (msgspec.DecodeError("?"), UNUSABLE, "a login page before it?\n"),
    "Ctrl-C": (KeyboardInterrupt(), INTERRUPTED, "prog: interrupted\n"),
}


@pytest.mark.parametrize(("error", "code", "message"), ENDINGS.values(), ids=ENDINGS)
def test_whatever_ends_a_command_is_one_line_and_an_exit_code(error, code, message, capsys):
    async def work(_):
        raise error

    assert console.run(parser_of(work), []) == code
    err = capsys.readouterr().err
    assert err.endswith(message)
    assert err.count("\n") == 1


def test_the_exit_code_of_a_command_is_passed_on():
    async def work(_):
        return FOUND

    assert console.run(parser_of(work), []) == FOUND


def test_a_reader_that_goes_away_ends_the_command_quietly():
    script = (
        "import sys; from services import console\n"
        "async def work(_):\n"
        "    for _ in range(100_000): print('line')\n"
        "    return 0\n"
        "parser = console.CommandLine(prog='prog'); parser.set_defaults(work=work)\n"
        "sys.exit(console.run(parser, []))\n"
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"line\n"
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == console.BROKEN_PIPE


# -- output --------------------------------------------------------------------------------------------------------


def test_a_table_is_aligned_and_shows_a_dash_for_nothing():
    assert output.table(("A", "LONGER"), [("wide cell", "x"), ("", "")]) == (
        "A           LONGER\nwide cell   x\n-           -\n"
    )


def test_structured_output_is_read_back_as_it_was():
    value = [{"total": 2**64, "name": "ü", "address": "1:2"}]
    assert json.loads(output.structured(value, "json")) == value
    assert yaml.safe_load(output.structured(value, "yaml")) == value


class Screen(io.StringIO):
    def __init__(self, *, terminal):
        super().__init__()
        self._terminal = terminal

    def isatty(self):
        return self._terminal


def shown(*, terminal, moments):
    """What Progress writes when looked at from second to second."""
    now = [0.0]
    screen = Screen(terminal=terminal)
    progress = Progress(screen, clock=lambda: now[0])
    progress.step("reading")
    for moment in moments:
        now[0] = moment
        progress.tick()
    return screen.getvalue()


@pytest.mark.parametrize(
    ("terminal", "moments", "expected"),
    [
        (True, [1.9], ""),
        (True, [2.0, 2.1, 2.5], "\r\x1b[Kreading (2 s)\r\x1b[Kreading (2 s)"),
        (False, [9.9], ""),
        (False, [10.0, 19.0, 20.5], "reading (10 s)\nreading (20 s)\n"),
    ],
)
def test_progress_shows_what_takes_long_and_nothing_else(terminal, moments, expected):
    assert shown(terminal=terminal, moments=moments) == expected


def test_progress_counts_and_cleans_up_after_itself():
    now = [0.0]
    screen = Screen(terminal=True)
    with Progress(screen, clock=lambda: now[0]) as progress:
        progress.step("creating", 7)
        progress.advance()
        now[0] = 3.0
        progress.tick()
    assert screen.getvalue().startswith("\r\x1b[Kcreating 1/7 (3 s)")
    assert screen.getvalue().endswith("\r\x1b[K")


def test_progress_does_not_write_over_a_question():
    now = [0.0]
    screen = Screen(terminal=True)
    progress = Progress(screen, clock=lambda: now[0])
    progress.step("signing in")
    now[0] = 3.0
    progress.tick()
    with progress.quiet():
        screen.write("Make these changes? [y/N] ")
        now[0] = 9.0
        progress.tick()
        assert screen.getvalue().endswith("\r\x1b[KMake these changes? [y/N] ")
    progress.tick()
    assert screen.getvalue().endswith("\r\x1b[Ksigning in (9 s)")


def test_what_other_yaml_readers_take_for_a_number_is_quoted():
    text = output.structured({"hash": "5894e6", "also": "1e3", "word": "e6", "plain": "10.0.0.1"}, "yaml")
    assert text == "hash: '5894e6'\nalso: '1e3'\nword: e6\nplain: 10.0.0.1\n"


def test_an_export_goes_to_what_a_link_points_to_and_into_a_pipe(tmp_path):
    link, target, pipe = tmp_path / "link", tmp_path / "target", tmp_path / "pipe"
    target.write_text("old")
    link.symlink_to(target)
    ipam._write_file(link, ["new"])
    assert (link.is_symlink(), target.read_text()) == (True, "new")
    os.mkfifo(pipe)
    with os.fdopen(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)) as reader:
        ipam._write_file(pipe, ["piped"])
        assert (pipe.is_fifo(), reader.read()) == (True, "piped")
    with pytest.raises(UnusableError, match="cannot write"):
        ipam._write_file(tmp_path, ["x"])
