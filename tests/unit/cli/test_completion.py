"""What a shell is told may follow: the walk along the parser, the protocol, and a real bash."""

from __future__ import annotations

import argparse
import subprocess
import sys

import pytest
import yaml

from services import access, cli
from services.completion import command, names, scripts
from services.completion.words import Word, complete
from services.console import OK, CommandLine, complete_with
from services.ipam.cli import command as ipam
from services.machine_controller.cli import command as machine
from services.podpreset.cli import command as podpreset
from tests.support import shells


@pytest.fixture(autouse=True)
def _nowhere(monkeypatch, tmp_path):
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def parser():
    line = CommandLine(prog="p")
    commands = line.add_subparsers()
    show = commands.add_parser("show", help="show it")
    show.add_argument("--all", action="store_true", help="all of it")
    show.add_argument("--form", choices=("table", "text"), help="how, %(default)s", default="table")
    show.add_argument("--tag", action="append", help="repeatable")
    complete_with(show.add_argument("--pool"), "pools")
    complete_with(show.add_argument("-f", "--file"), access.FILES)
    group = show.add_mutually_exclusive_group()
    group.add_argument("-n", "--namespace", action="append")
    group.add_argument("-A", action="store_true")
    commands.add_parser("shut", help="shut it").add_argument("shell", choices=("bash", "zsh"))
    return line


WORDS = [
    ([], "", ["show", "shut"]),
    ([], "sho", ["show"]),
    (["shut"], "", ["bash", "zsh"]),
    (["shut", "bash"], "", []),
    ([], "x", []),
    (["show"], "--a", ["--all"]),
    (["show"], "", []),
    (["show", "--all"], "--a", []),
    (["show", "--tag", "x"], "--t", ["--tag"]),
    (["show", "--form"], "t", ["table", "text"]),
    (["show", "--form"], "ta", ["table"]),
    (["show"], "--form=te", ["--form=text"]),
    (["show", "--form=text"], "--f", ["--file"]),
    (["show", "--form", "text"], "--form", []),
    (["show", "-n", "x"], "-A", []),
    (["show", "-n", "x"], "--n", ["--namespace"]),
    (["show", "-A"], "--n", []),
    (["show", "--pool", "show"], "--al", ["--all"]),
    (["show", "--unknown"], "--al", ["--all"]),
    (["nothing"], "sh", ["show", "shut"]),
    (["shut"], "", ["bash", "zsh"]),
    (["shut"], "z", ["zsh"]),
]


@pytest.mark.parametrize(("given", "current", "expected"), WORDS)
def test_the_words_that_may_follow_are_those_that_the_parser_would_take(given, current, expected):
    assert [word.text for word in complete(parser(), given, current).words] == expected


@pytest.mark.parametrize(
    ("given", "current", "expected"),
    [
        (["show", "--pool"], "", ("pools", "")),
        (["show"], "--pool=a", ("pools", "--pool=")),
        (["show", "-f"], "a", (access.FILES, "")),
        (["show"], "--file=a", (access.FILES, "--file=")),
        (["show"], "--all=a", ("", "--all=")),
        (["show"], "a", ("", "")),
    ],
)
def test_where_a_name_is_expected_its_kind_is_said(given, current, expected):
    answer = complete(parser(), given, current)
    assert (answer.words, answer.names, answer.prefix) == ((), *expected)


def test_a_word_comes_with_the_help_of_what_it_is():
    assert complete(parser(), [], "show").words == (Word("show", "show it"),)
    assert complete(parser(), ["show"], "--form").words == (Word("--form", "how, table"),)


def test_long_flags_come_before_short_ones():
    flags = [word.text for word in complete(parser(), ["show"], "-").words]
    assert flags == sorted(flags, key=lambda flag: (not flag.startswith("--"), flag))
    assert {"-h", "--help", "-A"} <= set(flags)


@pytest.mark.parametrize("module", [ipam, podpreset, machine, command])
def test_every_flag_with_names_or_files_is_completed_and_says_of_what(module):
    """A metavar says what a flag takes; these are the ones that can be looked up."""
    known = {"NS": access.NAMESPACES, "FILE": access.FILES, "PATH": access.FILES, "POOL": "pools"}
    waiting, found = [module.parser()], 0
    while waiting:
        line = waiting.pop()
        for action in line._actions:
            if isinstance(action, argparse._SubParsersAction):
                waiting += action.choices.values()
            elif action.metavar in known and action.dest != "resource_pool":
                assert getattr(action, "completer", None) == known[action.metavar], (line.prog, action.option_strings)
                found += 1
    assert found or module is command


# -- the protocol --------------------------------------------------------------------------------------------------


def ask(capsys, *given):
    assert cli.main([cli.COMPLETE, *given]) == OK
    *lines, directive = capsys.readouterr().out.splitlines()
    return [line.partition("\t")[0] for line in lines], directive


@pytest.mark.parametrize(
    ("given", "expected", "directive"),
    [
        ([""], list(cli.SUBCOMMANDS), ":4"),
        (["--con"], ["--context"], ":4"),
        (["ip"], ["ipam"], ":4"),
        (["--context", "x", "ip"], ["ipam"], ":4"),
        (["--context", "x", "ipam", "po"], ["pools"], ":4"),
        (["ipam", "verify", "--stri"], ["--strict"], ":4"),
        (["ipam", "pools", "-o", "n"], ["name"], ":4"),
        (["ipam", "pools", "--kubeconfig", ""], [], ":0"),
        (["ipam", "pools", "--kubeconfig="], [], ":0"),
        (["ipam", "pools", "-n", ""], [], ":4"),
        (["podpreset", "lint", "--client", "c"], ["curl"], ":4"),
        (["machine", "zones", ""], ["discover", "plan", "apply"], ":4"),
        (["machine", "zones", "apply", "-f", ""], [], ":0"),
        (["completion", ""], ["bash", "zsh", "fish"], ":4"),
        (["nothing", "such", "--x"], [], ":4"),
    ],
)
def test_the_answer_ends_with_what_else_may_follow(capsys, given, expected, directive):
    assert ask(capsys, *given) == (expected, directive)


def test_nothing_given_is_answered_as_an_empty_word(capsys):
    assert ask(capsys)[0] == list(cli.SUBCOMMANDS)


def test_contexts_come_from_the_kubeconfig_that_the_line_names(capsys, tmp_path):
    files = [tmp_path / "first", tmp_path / "second"]
    for file in files:
        contexts = [{"name": f"{file.name}-{role}"} for role in ("admin", "view")]
        file.write_text(yaml.safe_dump({"contexts": contexts}))
    line = ["ipam", "pools", f"--kubeconfig={files[0]}"]
    assert ask(capsys, *line, "--context", "")[0] == ["first-admin", "first-view"]
    assert ask(capsys, *line, "--context=first-v")[0] == ["--context=first-view"]
    both = f"{files[0]}:{files[1]}:{tmp_path / 'missing'}"
    assert ask(capsys, "ipam", "pools", "--kubeconfig", both, "--context", "second")[0] == [
        "second-admin",
        "second-view",
    ]


@pytest.mark.parametrize("content", ["", "[]", "contexts: 3", "contexts: [{}]", "{", "contexts: [1]"])
def test_a_kubeconfig_that_is_none_has_no_contexts(tmp_path, content):
    path = tmp_path / "config"
    path.write_text(content)
    assert access.contexts(str(path)) == []


def test_names_are_written_as_their_flag_takes_them():
    found = [names.Name("IPPool", "b", "x"), names.Name("IPPool", "a", "x"), names.Name("GlobalIPPool", "", "x")]
    assert names.written("pools", found) == ["a/x", "b/x", "x"]
    assert names.written("presets", [names.Name("PodPreset", "b", "x"), names.Name("PodPreset", "a", "x")]) == ["x"]


@pytest.mark.parametrize(
    ("said", "seconds"), [(None, 2.0), ("", 2.0), ("5", 5.0), ("0.5", 0.5), ("-1", 0.0), ("x", 2.0)]
)
def test_how_long_a_key_press_may_wait_can_be_said(monkeypatch, said, seconds):
    monkeypatch.delenv(names.VARIABLE, raising=False)
    if said is not None:
        monkeypatch.setenv(names.VARIABLE, said)
    assert names.patience() == seconds


def test_only_the_service_that_is_named_is_imported():
    script = (
        "import sys; from services import cli; cli.main(['__complete', 'machine', '']);"
        "print([m for m in sys.modules if m.startswith(('services.ipam', 'services.podpreset'))])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=shells.ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")


# -- scripts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", scripts.SHELLS)
def test_a_script_asks_the_command_and_lists_nothing_itself(capsys, shell):
    assert cli.main(["completion", shell]) == OK
    text = capsys.readouterr().out
    assert "groundwork" in text
    assert "__complete" in text
    assert "@NAME@" not in text
    assert "ipam" not in text


def test_an_unknown_shell_is_one_line(capsys):
    assert cli.main(["completion", "csh"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.fixture(scope="module")
def bash(tmp_path_factory):
    folder = shells.install(tmp_path_factory.mktemp("bin"))
    (folder / "some.yaml").write_text("")
    with shells.Bash(folder) as bash:
        bash.run(f"cd {folder}; source <(groundwork completion bash); echo loa''ded")
        bash.until("loaded")
        yield bash


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("groundwork ipa", ["groundwork", "ipam"]),
        ("groundwork ipam ver", ["groundwork", "ipam", "verify"]),
        ("groundwork ipam addresses --stat", ["groundwork", "ipam", "addresses", "--state"]),
        ("groundwork ipam addresses --state conf", ["groundwork", "ipam", "addresses", "--state", "conflict"]),
        ("groundwork ipam addresses --state=conf", ["groundwork", "ipam", "addresses", "--state=conflict"]),
        ("groundwork ipam export -f som", ["groundwork", "ipam", "export", "-f", "some.yaml"]),
        ("groundwork ipam export --filename=som", ["groundwork", "ipam", "export", "--filename=some.yaml"]),
        ("groundwork ipam som", ["groundwork", "ipam", "som"]),
    ],
)
def test_bash_completes_subcommands_flags_choices_and_files(bash, line, words):
    assert bash.completed(line) == words
