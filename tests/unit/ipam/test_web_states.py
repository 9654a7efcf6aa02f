"""What each address is used for on the status page, against the plainest model; the map that it makes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ipam import intervals
from services.ipam.api import ClaimKey, PoolKey
from services.ipam.intervals import Interval
from services.ipam.ledger import Ledger
from services.ipam.slots import Holding, Reservation, Use
from services.ipam.space import PoolSpace
from services.ipam.web import maps
from services.ipam.web.states import COUNTED, LOOKS, State, state_of
from tests.support import oracle
from tests.support.pool_specs import FOUR, NAMES, SIX, pool_spec, specs, universe

ONE, TWO = PoolKey("IPPool", "ns", "one"), PoolKey("IPPool", "ns", "two")
CLAIMS = tuple(ClaimKey("IPClaim", "ns", name) for name in NAMES)
NOW = 1000.0
WHOLE = {"entries": [{"start": str(FOUR[0]), "end": str(FOUR[-1])}, {"start": str(SIX[0]), "end": str(SIX[-1])}]}

uses = st.one_of(
    st.tuples(st.just(oracle.HELD), st.sampled_from(CLAIMS), st.sampled_from((ONE, TWO)), st.just(0.0)),
    st.tuples(st.just(oracle.ADMIN), st.none(), st.none(), st.just(0.0)),
    st.tuples(st.just(oracle.RELEASED), st.sampled_from(CLAIMS), st.just(ONE), st.sampled_from((0.0, NOW, NOW + 9))),
)
USES = {oracle.HELD: Use.HELD, oracle.ADMIN: Use.ADMIN, oracle.RELEASED: Use.RELEASED}


def naive(world, pool, ip, leaving):
    """The state of an address by the words of the documentation."""
    _, model, _ = world.pools[pool]
    if ip not in model.assignable:
        if ip in world.held(pool):
            return State.OUT_OF_RANGE
        return State.EXCLUDED if ip in model.covered else State.OUTSIDE
    use, via, reusable_at = world.state("default", ip)
    if use == oracle.HELD:
        claims = {claim for claim, _ in world.slot("default", ip).holders()}
        if len(claims) > 1:
            return State.CONFLICT
        if via != pool:
            return State.ELSEWHERE
        return State.RETURNING if claims & leaving else State.HELD
    if use == oracle.ADMIN:
        return State.RESERVED
    if ip in model.pre.values():
        return State.PRE_ALLOCATED
    if use == oracle.RELEASED:
        return State.COOLING if reusable_at > NOW else State.REMEMBERED
    return State.FREE


@given(
    spec=specs(FOUR, SIX),
    reserved=st.dictionaries(universe(FOUR, SIX), uses, max_size=30),
    holdings=st.dictionaries(
        universe(FOUR, SIX), st.tuples(st.sampled_from(CLAIMS), st.sampled_from((ONE, TWO))), max_size=8
    ),
    leaving=st.sets(st.sampled_from(CLAIMS)),
)
def test_every_address_is_in_the_state_that_a_naive_model_says_and_the_counts_are_their_sums(
    spec, reserved, holdings, leaving
):
    ledger, world = Ledger(), oracle.LedgerModel()
    for pool, keywords in ((ONE, spec), (TWO, WHOLE)):
        ledger.set_pool(pool, "default", PoolSpace(pool_spec(**keywords)), random_order=False)
        world.set_pool(pool, "default", oracle.PoolModel(**keywords), random_order=False)
    for ip, (use, claim, via, until) in reserved.items():
        at = intervals.point(str(ip))
        ledger.set_reservation("default", at, Reservation(str(ip), USES[use], claim, via, until))
        world.slot("default", ip).reservation = (use, claim, via, until)
    for number, (ip, (claim, pool)) in enumerate(holdings.items()):
        at = intervals.point(str(ip))
        ledger.set_holding(None, Holding("IPClaim", "ns", f"a-{number}", claim, pool, at))
        world.add_holding(f"a-{number}", claim, pool, ip)
    for pool in (ONE, TWO):
        state = ledger.pools[pool]
        seen = {}
        for ip in [*FOUR, *SIX]:
            at = intervals.point(str(ip))
            seen[at] = state_of(state, at, ledger.slot("default", at), NOW, leaving.__contains__)
            assert seen[at] is naive(world, pool, ip, leaving), ip
        counts = state.counts(NOW)
        for name, states in COUNTED.items():
            assert sum(what in states for what in seen.values()) == getattr(counts, name)
        assert sum(what is State.OUT_OF_RANGE for what in seen.values()) == counts.out_of_range
        for layout in maps.layouts(state.space.spans):
            assert {at for row in layout.rows for at in range(row, row + maps.ROW)} >= set(covered(state, layout))


def covered(state, layout):
    """Addresses of the pool's ranges of a layout's family."""
    v6 = intervals.is_v6(layout.rows[0])
    return [at for first, last in state.space.spans for at in range(first, last + 1) if intervals.is_v6(at) is v6]


def test_states_differ_by_mark_and_not_by_color_alone():
    marks = [LOOKS[state].mark for state in LOOKS if state not in {State.REMEMBERED, State.OUTSIDE}]
    assert len(set(marks)) == len(marks)
    assert set(LOOKS) == set(State)


def block(text):
    return intervals.parse_block(text)


@pytest.mark.parametrize(
    ("spans", "shift", "rows"),
    [
        (["10.0.0.0/24"], 0, 16),
        (["10.0.0.5-10.0.0.6"], 0, 1),
        (["10.0.0.0/22"], 0, 64),
        (["10.0.0.0/21"], 3, 16),
        (["10.0.0.0/22", "10.9.0.0/32"], 3, 9),
        (["10.0.0.0/8"], 16, 16),
        (["0.0.0.0/0"], 24, 16),
        (["2001:db8::/64"], 56, 16),
        (["::/0"], 120, 16),
    ],
)
def test_a_map_has_few_rows_however_large_the_pool(spans, shift, rows):
    (layout,) = maps.layouts([block(text) for text in spans])
    assert (layout.shift, len(layout.rows)) == (shift, rows)
    assert len(layout.rows) <= maps.EXACT_ROWS
    for text in spans:
        assert covers(layout, block(text).first)
        assert covers(layout, block(text).last)


def covers(layout, at):
    return any(row <= at < row + (maps.ROW << layout.shift) for row in layout.rows)


@given(
    st.lists(st.tuples(st.integers(0, 60_000), st.integers(0, 4000)), min_size=1, max_size=12),
    st.lists(st.integers(0, 64_000), max_size=50),
    st.lists(st.tuples(st.integers(0, 60_000), st.integers(0, 900)), max_size=6),
)
def test_cells_of_a_coarse_map_sum_up_what_enumeration_finds(ranges, taken, holes):
    spans = intervals.merge(Interval(first, first + more) for first, more in ranges)
    pieces = intervals.subtract(spans, [Interval(first, first + more) for first, more in holes])
    (layout,) = maps.layouts(spans, exact_rows=0)
    tally = maps.Tally(layout)
    for span in spans:
        tally.cover(span)
    for piece in pieces:
        tally.give(piece)
    inside = {at for first, last in spans for at in range(first, last + 1)}
    given_ = {at for first, last in pieces for at in range(first, last + 1)}
    held = set(taken) & given_
    for at in held:
        tally.take(at, State.HELD)
    tally.take(intervals.V6_BASE, State.HELD)
    cells = [cell for row in layout.rows for cell in layout.cells(row)]
    for cell in cells:
        points = range(cell.first, cell.last + 1)
        found = tally.block(cell.first)
        assert found.size == sum(at in inside for at in points)
        assert found.assignable == sum(at in given_ for at in points)
        assert found.taken == found.states[State.HELD] == sum(at in held for at in points)
    assert sum(tally.block(cell.first).size for cell in cells) == len(inside)
