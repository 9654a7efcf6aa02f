import json

from hypothesis import given
from hypothesis import strategies as st

from services.runtime.kube.nesting import DEEPEST, deeper, shallow

JSON = st.recursive(st.none() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))


def lists(levels):
    return b"[" * levels + b"]" * levels


@given(JSON)
def test_what_is_not_deep_stays_byte_for_byte(value):
    text = json.dumps(value).encode()
    assert shallow(text) == text


def test_what_is_too_deep_becomes_null_and_all_else_stays():
    for over in (1, 2, 5000):
        text = b'{"a":"]}","b":' + lists(DEEPEST - 1 + over) + b',"c":"[{"}'
        kept = b"[" * (DEEPEST - 1) + b"null" + b"]" * (DEEPEST - 1)
        assert shallow(text) == b'{"a":"]}","b":' + kept + b',"c":"[{"}'
    assert shallow(b"[" + lists(DEEPEST) + b"," + lists(DEEPEST) + b"]").count(b"null") == 2
    assert shallow(lists(DEEPEST)) == lists(DEEPEST)


def test_marks_in_strings_are_no_levels():
    text = rb'["[[[[", "\"[[[[", "\\", {"{{{{\\\"{": 1}]'
    assert not deeper(text, 2)
    assert deeper(text, 1)


def test_any_text_ends_whether_it_is_json_or_not():
    for text in (b"", b"]]]]", b'"' * 99_999, b'["\\' * 50_000, b"[" * 500_000, b'"' + b"\\" * 500_000):
        assert shallow(text) == text
        assert not deeper(text, 3)
