"""What somebody may expect of every subcommand who knows one of them: the same flags, the same words, the same help."""

from __future__ import annotations

import argparse
import importlib
import re

import pytest

from services import cli
from services.console import OK, UNUSABLE

PARSERS = [importlib.import_module(each.module).parser(f"groundwork {name}") for name, each in cli.SUBCOMMANDS.items()]
LISTINGS = {"groundwork ipam pools", "groundwork ipam addresses", "groundwork podpreset stale"}
"""Commands that list objects of the cluster."""


def leaves(line):
    """Every command below a parser that does something itself."""
    below = [action for action in line._actions if isinstance(action, argparse._SubParsersAction)]
    return [leaf for action in below for each in action.choices.values() for leaf in leaves(each)] or [line]


COMMANDS = {leaf.prog: leaf for line in PARSERS for leaf in leaves(line)}


def flags(line):
    return {name: action for action in line._actions for name in action.option_strings}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_flag_has_one_meaning_and_one_long_name_everywhere(name):
    found = flags(COMMANDS[name])
    for short, long in (("-n", "--namespace"), ("-A", "--all-namespaces"), ("-f", "--filename"), ("-o", "--output")):
        assert (short in found) == (long in found)
        assert found.get(short) is found.get(long)
    assert ("--context" in found) == ("--kubeconfig" in found)
    assert all(action.help for action in found.values())
    assert found.get("--all-namespaces") is None or found["--namespace"].default == []


@pytest.mark.parametrize("name", COMMANDS)
def test_an_output_says_its_default_which_is_the_first_choice(name):
    action = flags(COMMANDS[name]).get("--output")
    if action is not None:
        assert action.help == "default: %(default)s"
        assert action.default == action.choices[0]


@pytest.mark.parametrize("name", sorted(LISTINGS))
def test_what_lists_objects_does_it_as_kubectl(name):
    found = flags(COMMANDS[name])
    assert set(found["--output"].choices) == {"table", "wide", "json", "yaml", "name"}
    assert {"--namespace", "--all-namespaces", "--context", "--kubeconfig"} <= set(found)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_says_what_its_exit_codes_mean(name):
    codes = COMMANDS[name].epilog.partition("exit codes:\n")[2]
    assert re.match(r"  0  .+\n(  1  .+\n)?  2  .+", codes)


@pytest.mark.parametrize("line", PARSERS, ids=lambda line: line.prog)
def test_a_summary_in_a_list_of_commands_is_short_and_begins_small(line):
    for action in line._actions:
        for choice in getattr(action, "_choices_actions", ()):
            assert len(choice.help) <= 110
            assert choice.help[0].islower() or choice.help.startswith("VSphere")
            assert not choice.help.endswith(".")


@pytest.mark.parametrize(
    ("arguments", "known"),
    [
        (["ipam"], "pools, addresses, verify"),
        (["podpreset"], "render, explain"),
        (["machine"], "kube-vip, zones"),
        (["machine", "zones"], "discover, plan, apply"),
    ],
)
def test_without_a_command_the_known_ones_are_named(capsys, arguments, known):
    assert cli.main(arguments) == UNUSABLE
    out, err = capsys.readouterr()
    assert out == ""
    assert f"no COMMAND: use one of {known}" in err
    assert f"(see groundwork {' '.join(arguments)} --help)" in err


@pytest.mark.parametrize(
    ("given", "front", "rest"),
    [
        ([], [], []),
        (["ipam", "-n", "a"], [], ["ipam", "-n", "a"]),
        (["-n", "a", "ipam", "pools"], ["-n", "a"], ["ipam", "pools"]),
        (["--context=c", "-A", "ipam"], ["--context=c", "-A"], ["ipam"]),
        (
            ["--kubeconfig", "k", "--namespace=b", "doctor", "-q"],
            ["--kubeconfig", "k", "--namespace=b"],
            ["doctor", "-q"],
        ),
        (["-n"], ["-n"], []),
        (["--help"], [], ["--help"]),
    ],
)
def test_flags_in_front_are_told_from_the_subcommand(given, front, rest):
    assert cli.split(given) == (front, rest)


def test_a_flag_in_front_that_a_subcommand_does_not_know_is_a_mistake(capsys):
    assert cli.main(["-A", "completion", "bash"]) == UNUSABLE
    assert "unrecognized arguments: -A" in capsys.readouterr().err


def test_flags_alone_are_answered_with_the_help(capsys):
    assert cli.main(["-n", "a"]) == UNUSABLE
    assert "usage: groundwork" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["--version", "version"])
def test_the_version_is_asked_for_as_a_flag_or_as_a_word(capsys, word):
    assert cli.main([word]) == OK
    assert capsys.readouterr().out.startswith("groundwork ")
