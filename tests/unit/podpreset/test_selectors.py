"""Label selectors as Kubernetes evaluates them, and what it would refuse."""

import fnmatch

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.podpreset.api import LabelSelector
from services.podpreset.selectors import compile_globs, compile_selector

NOTHING, B, C, BOTH = {}, {"a": "b"}, {"a": "c"}, {"a": "b", "x": "y"}


def selector(**fields):
    return compile_selector(msgspec.convert(fields, LabelSelector), "spec.selector")


def requirement(operator, *values, key="a"):
    return {"key": key, "operator": operator, **({"values": list(values)} if values else {})}


@pytest.mark.parametrize(
    ("fields", "selected"),
    [
        ({}, [NOTHING, B, C, BOTH]),
        ({"matchLabels": {}, "matchExpressions": []}, [NOTHING, B, C, BOTH]),
        ({"matchLabels": None, "matchExpressions": None}, [NOTHING, B, C, BOTH]),
        ({"matchLabels": {"a": "b"}}, [B, BOTH]),
        ({"matchLabels": {"a": ""}}, []),
        ({"matchLabels": {"a": "b", "x": "y"}}, [BOTH]),
        ({"matchExpressions": [requirement("In", "b", "c")]}, [B, C, BOTH]),
        ({"matchExpressions": [requirement("In", "z")]}, []),
        ({"matchExpressions": [requirement("NotIn", "b")]}, [NOTHING, C]),
        ({"matchExpressions": [requirement("Exists")]}, [B, C, BOTH]),
        ({"matchExpressions": [requirement("DoesNotExist")]}, [NOTHING]),
        ({"matchExpressions": [requirement("Exists"), requirement("DoesNotExist", key="x")]}, [B, C]),
        ({"matchLabels": {"x": "y"}, "matchExpressions": [requirement("In", "b")]}, [BOTH]),
        ({"matchLabels": {"x": "y"}, "matchExpressions": [requirement("NotIn", "b")]}, []),
    ],
)
def test_a_selector_selects_as_in_kubernetes(fields, selected):
    compiled = selector(**fields)
    assert compiled.problems == ()
    assert [labels for labels in (NOTHING, B, C, BOTH) if compiled.match(labels)] == selected


def test_an_absent_selector_selects_everything():
    assert compile_selector(None, "spec.selector").match({"a": "b"})


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        (
            {"matchExpressions": [requirement("Has")]},
            "matchExpressions[0].operator: 'Has', expected In, NotIn, Exists or",
        ),
        ({"matchExpressions": [requirement("In")]}, "matchExpressions[0].values: empty, expected at least one for In"),
        ({"matchExpressions": [requirement("NotIn")]}, "matchExpressions[0].values: empty, expected at least one for"),
        ({"matchExpressions": [requirement("Exists", "b")]}, "matchExpressions[0].values: ['b'], expected none for"),
        ({"matchExpressions": [requirement("DoesNotExist", "b")]}, "matchExpressions[0].values: ['b'], expected none"),
        (
            {"matchExpressions": [requirement("In", "not valid")]},
            "matchExpressions[0].values: 'not valid', expected a label",
        ),
        (
            {"matchExpressions": [requirement("Exists", key="-a")]},
            "matchExpressions[0].key: '-a', expected a label key",
        ),
        ({"matchLabels": {"": "b"}}, "matchLabels: '', expected a label key"),
        ({"matchLabels": {"a/b/c": "b"}}, "matchLabels: 'a/b/c', expected a label key"),
        ({"matchLabels": {"/b": "b"}}, "matchLabels: '/b', expected a label key"),
        ({"matchLabels": {"UPPER.com/b": "b"}}, "matchLabels: 'UPPER.com/b', expected a label key"),
        ({"matchLabels": {"x" * 254 + "/b": "b"}}, "matchLabels: 'xxx"),
        ({"matchLabels": {"x" * 64: "b"}}, "matchLabels: 'xxx"),
        ({"matchLabels": {"a": "b-"}}, "matchLabels[a]: 'b-', expected a label value"),
        ({"matchLabels": {"a": "x" * 64}}, "matchLabels[a]: 'xxx"),
    ],
)
def test_a_selector_that_kubernetes_refuses_selects_nothing_and_says_why(fields, problem):
    compiled = selector(**fields)
    (found,) = compiled.problems
    assert found.startswith(f"spec.selector.{problem}")
    assert not any(compiled.match(labels) for labels in (NOTHING, B, C, BOTH))


def test_keys_and_values_that_kubernetes_takes_are_taken():
    labels = {"app.kubernetes.io/name": "a_B.c-1", "A": "", "x" * 63: "y" * 63, "x" * 253 + "/" + "y" * 63: "z"}
    compiled = selector(matchLabels=labels)
    assert compiled.problems == ()
    assert compiled.match(labels)


@pytest.mark.parametrize(
    ("globs", "name", "matches"),
    [
        (["app"], "app", True),
        (["app"], "app-1", False),
        (["app*"], "app-1", True),
        (["*-proxy"], "istio-proxy", True),
        (["a?p"], "app", True),
        (["a?p"], "ap", False),
        (["a", "b"], "b", True),
        (["a.c"], "abc", False),
        (["[ab]"], "a", False),
        (["*"], "", True),
        (["**"], "app", True),
        (["a*b*c"], "abbc", True),
        (["a*b*c"], "acb", False),
        (["ab*ba"], "aba", False),
        (["*?b*b?"], "abba", True),
    ],
)
def test_globs_match_whole_names(globs, name, matches):
    assert compile_globs(globs)(name) == matches


@given(st.text("ab*?", max_size=8), st.text("ab", max_size=8))
def test_a_glob_matches_as_a_file_name_does(glob, name):
    assert compile_globs([glob])(name) == fnmatch.fnmatchcase(name, glob)


@pytest.mark.parametrize("glob", ["*a" * 30 + "*b", "*a?" * 20 + "*b", "a*" * 31 + "b", "*" * 63 + "b"])
def test_a_glob_of_many_asterisks_says_no_at_once(glob):
    matches = compile_globs([glob] * 64)
    assert not matches("a" * 63)
    assert not matches("a" * 3_000_000)


def test_a_name_that_no_container_can_have_is_not_looked_at():
    assert compile_globs(["*"])("a" * 63)
    assert not compile_globs(["*"])("a" * 64)


def test_no_globs_are_no_test():
    assert compile_globs(()) is None


def test_every_problem_of_a_selector_is_told():
    bad = selector(
        matchLabels={"": "b", "-": "c d"},
        matchExpressions=[requirement("Has", key="-a"), requirement("Exists", "b", key="-b")],
    )
    assert [problem.removeprefix("spec.selector.") for problem in bad.problems] == [
        "matchLabels: '', expected a label key",
        "matchLabels: '-', expected a label key",
        "matchLabels[-]: 'c d', expected a label value",
        "matchExpressions[0].key: '-a', expected a label key",
        "matchExpressions[0].operator: 'Has', expected In, NotIn, Exists or DoesNotExist",
        "matchExpressions[1].key: '-b', expected a label key",
        "matchExpressions[1].values: ['b'], expected none for Exists",
    ]


def test_a_glob_matches_a_name_of_any_characters():
    assert compile_globs(["a*b"])("a\nb")
    assert compile_globs(["a?b"])("a\nb")
