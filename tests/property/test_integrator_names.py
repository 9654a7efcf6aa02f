"""Names of claims never collide and are always valid."""

from __future__ import annotations

import re

from hypothesis import assume, given
from hypothesis import strategies as st

from services.capv_integrator.api import PoolRef
from services.capv_integrator.names import ENDPOINT, claim_name

WORD = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,70}[a-z0-9])?", fullmatch=True)
SUBDOMAIN = st.lists(WORD, min_size=1, max_size=3).map(".".join)
PLACES = st.one_of(st.integers(0, 127).map(str), st.just(ENDPOINT))
POOLS = st.builds(
    PoolRef,
    st.sampled_from(["ipam.metal3.io", "ipam.cluster.x-k8s.io"]),
    st.sampled_from(["IPPool", "InClusterIPPool"]),
    WORD,
    SUBDOMAIN,
)
CLAIMS = st.tuples(st.sampled_from(["VSphereMachine", "VSphereCluster"]), WORD, SUBDOMAIN, PLACES, POOLS)


@given(CLAIMS, CLAIMS)
def test_different_claims_have_different_names(one, other):
    assume(one != other)
    assert claim_name(*one) != claim_name(*other)


@given(st.text("ab-0", min_size=1, max_size=4), st.text("ab-0", max_size=4), st.text("ab-0", max_size=4))
def test_a_part_cannot_pass_for_the_end_of_the_one_before_it(a, b, c):
    pool = PoolRef("g", "k", "n", "p")
    one = claim_name("VSphereMachine", a + b, c, "0", pool)
    other = claim_name("VSphereMachine", a, b + c, "0", pool)
    assert (one == other) is ((a + b, c) == (a, b + c))


@given(CLAIMS)
def test_every_name_is_one_that_kubernetes_takes(claim):
    name = claim_name(*claim)
    assert len(name) <= 63
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*", name)
    assert name.rpartition("-")[0].endswith(f"-{claim[3]}")
