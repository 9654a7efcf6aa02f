"""Hypothesis strategies for JSON that passes the schema of a CustomResourceDefinition and makes no sense.

Responsible for: types, enums, bounds, required fields and free-form parts of OpenAPI v3 as CRDs use it, and `outcome`.
Rules in CEL and patterns are left to the API server: what it would refuse may come out here, too, and must not crash
anything either.
"""

from __future__ import annotations

import functools
import string

import yaml
from hypothesis import strategies as st

from tools.paths import ROOT

CRDS = ROOT / "deploy" / "crds"
_MOST_ITEMS = 3
_INT32, _INT64 = 2**31 - 1, 2**63 - 1
WORDS = st.sampled_from(
    [
        *("", " ", "0", "-1", "a", "A", "a b", "a/b", "a,b", "..", "*", "$(X)", "%s", "{{.}}", "null", "true", "~"),
        *("\x00", "\n", "\r\n", "\u2028", "\ufeff", "é", "\U0001f4a3", "a\u0301", "\u202ea", "x" * 300, "é" * 64),
        *("10.0.0.1", "10.0.0.10", "010.0.0.1", "10.0.0.256", "10.0.0.1/24", "10.0.0.0/0", "10.0.0.0/33", "0.0.0.0"),
        *("10.0.0.1-10.0.0.9", "10.0.0.9-10.0.0.1", "-", "10.0.0.1-", "255.255.255.255", "127.0.0.1", "224.0.0.1"),
        *(
            "::",
            "::1",
            "fe80::1%eth0",
            "::ffff:10.0.0.1",
            "2001:db8::/0",
            "2001:db8::/64",
            "2001:db8::1-10.0.0.1",
            ":::",
        ),
        *("eth0", "00:50:56:00:00:01", "zz:zz", "http://u:p@h:1/", "http://[::1", "://", "HTTP_PROXY", "=", "1e400"),
        *("In", "Exists", "app", "kubernetes.io/metadata.name", "ReadOnlyMany", "/", "/../etc", "a" * 64, "-a", "a-"),
    ]
)
TEXTS = WORDS | st.text(max_size=12) | st.text(string.digits + ".:/-", max_size=20)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-_INT64, _INT64) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=4,
)


def outcome(call, *refusals):
    """`(what a call returned, "")`, or `(None, the text of its refusal)`; any other exception is a crash."""
    try:
        return call(), ""
    except refusals as error:
        return None, str(error) or "without a reason"


@functools.cache
def definition(kind):
    """The CRD of a kind in deploy/crds."""
    for path in sorted(CRDS.rglob("*.yaml")):
        found = yaml.safe_load(path.read_text())
        if found["spec"]["names"]["kind"] == kind:
            return found
    raise KeyError(kind)


@functools.cache
def specs(kind):
    """Specs of a kind."""
    schema = definition(kind)["spec"]["versions"][-1]["schema"]["openAPIV3Schema"]
    return values(schema["properties"]["spec"])


def values(schema):
    """JSON of one schema."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if schema.get("x-kubernetes-int-or-string"):
        return st.integers(-1, 1 << 20) | TEXTS
    kind = schema.get("type")
    if kind == "object":
        return _objects(schema)
    if kind == "array":
        return st.lists(values(schema["items"]), min_size=schema.get("minItems", 0), max_size=_most(schema))
    if kind == "integer":
        limit = _INT32 if schema.get("format") == "int32" else _INT64
        return st.integers(schema.get("minimum", -limit), schema.get("maximum", limit))
    simple = {"string": TEXTS, "boolean": st.booleans(), "number": st.floats(allow_nan=False, allow_infinity=False)}
    return simple.get(kind, ANYTHING)


def _most(schema):
    return max(schema.get("minItems", 0), min(_MOST_ITEMS, schema.get("maxItems", _MOST_ITEMS)))


def _objects(schema):
    if "properties" in schema:
        required = set(schema.get("required", ()))
        fields = {name: values(one) for name, one in schema["properties"].items()}
        return st.fixed_dictionaries(
            {name: field for name, field in fields.items() if name in required},
            optional={name: field for name, field in fields.items() if name not in required},
        )
    more = schema.get("additionalProperties")
    inner = values(more) if isinstance(more, dict) else ANYTHING
    return st.dictionaries(TEXTS, inner, max_size=_MOST_ITEMS)
