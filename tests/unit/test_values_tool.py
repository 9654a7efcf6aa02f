"""Reading the chart's values with what is said of them."""

from __future__ import annotations

import pytest

from tools import docs, values

TEXT = """\
# What all share.
# Second line.

# Names of things.
names: []
# How it is.
security:
  drop: [ALL]
  deep:
    more: 1

# One service.
ipam:
  # Run it.
  enabled: true
  spread:
    # Where to.
    zones:
      - {key: zone}
      # Not a value's.
      - key: host
        weight: 3
    # How far.
    skew: 1
"""


def read(tmp_path, text):
    path = tmp_path / "values.yaml"
    path.write_text(text)
    return values.read(path)


def test_each_value_has_its_default_and_what_stands_above_it(tmp_path):
    single, ipam = read(tmp_path, TEXT)
    assert (single.name, single.comment) == ("", "What all share. Second line.")
    assert single.values == [
        values.Value("names", [], "Names of things."),
        values.Value("security", {"drop": ["ALL"], "deep": {"more": 1}}, "How it is."),
    ]
    assert (ipam.name, ipam.comment) == ("ipam", "One service.")
    assert ipam.values == [
        values.Value("ipam.enabled", True, "Run it."),
        values.Value("ipam.spread.zones", [{"key": "zone"}, {"key": "host", "weight": 3}], "Where to."),
        values.Value("ipam.spread.skew", 1, "How far."),
    ]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("# Said.\na: 1\nb: 2\n", "nothing is said of b"),
        ("# Said.\na:\n  # Said.\n  b: 1\n  c: 2\n", "nothing is said of a.c"),
        ("# Said.\na:\n   # Said.\n   b: 1\n", "line 4: indented by 3"),
    ],
)
def test_a_value_that_is_not_explained_is_named(tmp_path, text, complaint):
    with pytest.raises(values.ValuesError, match=complaint):
        read(tmp_path, text)


def test_the_chart_explains_every_value():
    found = [value for block in values.read(docs.CHART / "values.yaml") for value in block.values]
    assert len({value.path for value in found}) == len(found) > 100
    assert all(value.comment.endswith((".", ":")) for value in found)
