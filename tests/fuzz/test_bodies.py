"""Whatever somebody sends to the webhook: a review is answered, and anything else refused as what it is."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.runtime.admission import BadReview, decode
from tests.fuzz.schemas import ANYTHING, TEXTS, outcome

FIELDS = ("uid", "namespace", "name", "operation", "subResource", "dryRun", "object", "oldObject", "resource")
REQUESTS = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(FIELDS, TEXTS | ANYTHING),
)
REVIEWS = st.fixed_dictionaries(
    {},
    optional={
        "apiVersion": st.just("admission.k8s.io/v1") | TEXTS,
        "kind": st.just("AdmissionReview") | TEXTS,
        "request": REQUESTS | ANYTHING,
    },
)


@given(st.binary(max_size=200) | ANYTHING.map(lambda value: json.dumps(value).encode()), TEXTS)
def test_any_bytes_are_a_review_or_refused(body, content_type):
    for kind in ("application/json", content_type):
        review, refusal = outcome(lambda kind=kind: decode(body, kind), BadReview)
        assert refusal != "without a reason"
        assert review is None or review.uid


@given(REVIEWS, st.integers(0, 400))
def test_what_looks_like_a_review_is_one_or_refused_also_when_it_is_cut_off(review, cut):
    body = json.dumps(review).encode()
    for sent in (body, body[:cut], body + b"}"):
        request, refusal = outcome(lambda sent=sent: decode(sent), BadReview)
        assert refusal != "without a reason"
        assert request is None or request.uid


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'{"request":{"object":'])
def test_nesting_without_end_is_refused(opening):
    with pytest.raises(BadReview):
        decode(opening * 100_000)
