"""Comma-separated lists: normal form, merging, and what is wrong with one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.proxyenv import lists

ITEMS = st.lists(st.sampled_from(["a", "A", "b", " b", "c ", "", "*", "10.0.0.0/8", "x y"]), max_size=5)
TEXTS = ITEMS.map(",".join)


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("", ()),
        (",", ()),
        ("a", ("a",)),
        ("a,b", ("a", "b")),
        (" a , b ", ("a", "b")),
        ("a,,b,", ("a", "b")),
        ("\ta\n,b", ("a", "b")),
        ("Example.com,b,example.COM", ("Example.com", "b")),
        ("*,a", ("*", "a")),
        ("fd00::/8,[::1],10.0.0.0/8", ("fd00::/8", "[::1]", "10.0.0.0/8")),
        ("a b", ("a b",)),
    ],
)
def test_a_list_is_split_trimmed_and_rid_of_repetitions(text, items):
    assert lists.split(text) == items


@pytest.mark.parametrize(
    ("text", "normal"), [("a, b,,A", "a,b"), ("a,*,b", "*"), ("*", "*"), ("*.a", "*.a"), ("", ""), (" ", "")]
)
def test_the_normal_form_has_no_blanks_and_a_star_alone(text, normal):
    assert lists.normal(text) == normal


@pytest.mark.parametrize(
    ("text", "wanted", "appended", "prepended"),
    [
        ("a,b", ("c",), "a,b,c", "c,a,b"),
        ("a,b", ("b", "c"), "a,b,c", "b,c,a"),
        ("a, b ,", ("B",), "a, b ,", "a, b ,"),
        ("a, b ,", ("c",), "a,b,c", "c,a,b"),
        ("", ("a",), "a", "a"),
        ("a", (), "a", "a"),
        ("a,*", ("b",), "a,*", "a,*"),
        ("a", ("*",), "*", "*"),
    ],
)
def test_a_list_gets_what_it_lacks_and_else_stays_byte_for_byte(text, wanted, appended, prepended):
    assert lists.append(text, wanted) == appended
    assert lists.prepend(text, wanted) == prepended


@given(TEXTS, ITEMS)
def test_nothing_is_lost_by_a_merge_and_a_second_one_changes_nothing(text, more):
    wanted = lists.collapsed(lists.unique(more))
    for merge in (lists.append, lists.prepend):
        once = merge(text, wanted)
        assert merge(once, wanted) == once
        held = {item.lower() for item in lists.split(once)}
        assert "*" in held or held == {item.lower() for item in (*lists.split(text), *wanted)}


@given(TEXTS)
def test_the_normal_form_is_its_own_and_means_the_same(text):
    normal = lists.normal(text)
    assert lists.normal(normal) == normal
    assert "*" in lists.split(text) or lists.same(text, normal)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [("a,b", "A , B,", True), ("a,b", "b,a", False), ("a", "a,b", False), ("", ",", True), ("a,a", "a", True)],
)
def test_lists_are_the_same_whatever_their_blanks_and_letter_case(one, other, same):
    assert lists.same(one, other) == same


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b", []),
        ("*", []),
        (" a , b,", []),
        ("a b,c", ["'a b' holds a blank"]),
        ("a,*", ["* beside other items"]),
        ("fd00::/8", ["'fd00::/8' makes httpx fail"]),
        ("fd00::1/8", ["'fd00::1/8' makes httpx fail"]),
        ("[fd00::1]", ["'[fd00::1]' makes httpx fail"]),
        ("fd00::1,10.0.0.0/8,host/x", []),
        ("fd00::/x,a/b:c", []),
    ],
)
def test_problems_are_told_by_item(text, words):
    found = lists.problems(text)
    assert len(found) == len(words)
    assert all(problem.startswith(start) for problem, start in zip(found, words, strict=True))
