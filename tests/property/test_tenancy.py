"""Whom a pool gives addresses to, over all that its list, the claim and the ledger can say."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.ipam import api
from services.ipam.decide import Bind, decide
from tests.unit.ipam.worlds import CAPI, METAL3, Setting, a_claim, at, holding

NAMESPACES = ("a", "b", "c")
KEPT, OTHER = "10.0.0.11", "10.0.0.12"

lists = st.none() | st.lists(st.sampled_from([*NAMESPACES, "*"]), unique=True).map(tuple)
keys = st.sampled_from(["claim", *(f"{namespace}/claim" for namespace in NAMESPACES)])


def may_take(owner, namespace, allowed):
    """The rule as the page for administrators has it."""
    if namespace == owner:
        return True
    if allowed is None:
        return owner == ""
    return namespace in allowed or "*" in allowed


@given(
    owner=st.sampled_from(["", *NAMESPACES]),
    namespace=st.sampled_from(NAMESPACES),
    kind=st.sampled_from([METAL3, CAPI]),
    allowed=lists,
    kept=st.dictionaries(keys, st.just(KEPT), max_size=1),
    asks=st.sampled_from([None, KEPT, OTHER]),
    forged=st.booleans(),
    reserved=st.booleans(),
    told=st.booleans(),
)
def test_a_claim_gets_nothing_of_a_pool_that_does_not_serve_it_and_nothing_kept_for_another(
    owner, namespace, kind, allowed, kept, asks, forged, reserved, told
):
    setting = Setting(pre_allocations=kept)
    setting.state.key = setting.state.key._replace(kind="IPPool" if owner else "GlobalIPPool", namespace=owner)
    key = kind._replace(namespace=namespace)
    annotations = {} if asks is None else {api.REQUESTED_ADDRESS_ANNOTATION: asks}
    status = {"address": {"name": "p-10-0-0-10"}, "addressRef": {"name": "p-10-0-0-10"}} if told else None
    claim = a_claim(key, annotations=annotations, status=status)
    holdings = (holding("10.0.0.10", key=key),) if forged else ()
    world = setting.world(
        key, claim=claim, allowed=allowed, holdings=holdings, reserved=(at("10.0.0.10"),) if reserved else ()
    )
    decision = decide(world, setting.choose)
    if reserved:
        assert decision == Bind(at("10.0.0.10")), "what the ledger says it has, it keeps"
    elif not may_take(owner, namespace, allowed):
        assert decision.token == "NamespaceNotAllowed"
    elif isinstance(decision, Bind) and decision.at == at(KEPT) and kept:
        assert set(kept) <= {f"{namespace}/claim", *(["claim"] if owner == namespace else [])}
    elif forged:
        assert decision == Bind(at("10.0.0.10"))
