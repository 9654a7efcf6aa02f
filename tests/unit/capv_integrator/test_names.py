"""Names of claims."""

from __future__ import annotations

import re

from services.capv_integrator.api import PoolRef
from services.capv_integrator.names import ENDPOINT, claim_name

POOL = PoolRef("ipam.metal3.io", "IPPool", "ns", "pool")


def test_a_name_says_whose_it_is_and_never_changes():
    # A released version must find the claims of the one before it: this very text is part of the contract.
    assert claim_name("VSphereMachine", "ns", "worker-1", "0", POOL) == "worker-1-0-kgi5sew45fnbxahf"
    assert claim_name("VSphereCluster", "ns", "c1", ENDPOINT, POOL).startswith("c1-endpoint-")


def test_each_part_of_what_a_claim_is_for_makes_another_name():
    base = ("VSphereMachine", "ns", "m", "0", POOL)
    others = [
        ("VSphereCluster", *base[1:]),
        ("VSphereMachine", "other", "m", "0", POOL),
        ("VSphereMachine", "ns", "n", "0", POOL),
        ("VSphereMachine", "ns", "m", "1", POOL),
        *[(*base[:4], POOL._replace(**{field: "x"})) for field in POOL._fields],
        ("VSphereMachine", "nsm", "", "0", POOL),
    ]
    assert len({claim_name(*parts) for parts in [base, *others]}) == len(others) + 1


def test_a_long_name_is_cut_to_a_dns_label():
    for length in range(30, 253):
        name = claim_name("VSphereMachine", "ns", "a" * (length - 2) + ".-"[length % 2] + "b", "12", POOL)
        assert len(name) <= 63
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", name)
