"""That a canary is found: a search that finds nothing would pass every test that uses it."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote

import pytest

from tests.support.canaries import Canaries

WAYS = {
    "as it is": lambda word: f"password: {word}!",
    "in JSON": lambda word: json.dumps({"a": [f"http://u:{word}@p"]}),
    "percent-encoded": lambda word: quote(f"u:{word}@p", safe=""),
    "in a repr": lambda word: repr(f"\n{word}".encode()),
    "in hexadecimal": lambda word: f"x{word}".encode().hex(),
    "back to front": lambda word: f"x{word}"[::-1],
    **{
        f"in base64, behind {n}": lambda word, n=n: base64.b64encode(b"#" * n + word.encode() + b"tail").decode()
        for n in range(7)
    },
    "in base64 for URLs": lambda word: base64.urlsafe_b64encode(b"??" + word.encode()).decode(),
    "in base64 twice in a line": lambda word: "a" + base64.b64encode(f"user:{word}".encode()).decode() + "b",
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
def test_a_canary_is_found_whatever_it_was_turned_into(way):
    canaries = Canaries()
    word = canaries.new("the password")
    canaries.new("another")
    assert canaries.found("nothing", way(word)).keys() == {"the password"}


def test_other_text_holds_none():
    canaries = Canaries()
    canaries.new("the password")
    assert canaries.found("canary", base64.b64encode(bytes(range(256))).decode()) == {}
