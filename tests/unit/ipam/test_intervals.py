"""Parsing addresses, and the set of free ones."""

import random
import re

import pytest

from services.ipam import intervals
from services.ipam.intervals import FreeSet, Interval, point


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("192.168.0.1", "192.168.0.1"),
        ("0.0.0.0", "0.0.0.0"),
        ("255.255.255.255", "255.255.255.255"),
        ("2001:db8::0005", "2001:db8::5"),
        ("2001:0DB8:0:0:0:0:0:5", "2001:db8::5"),
        ("::", "::"),
        ("::1.2.3.4", "::102:304"),
    ],
)
def test_an_address_has_one_canonical_text(written, canonical):
    assert intervals.canonical(written) == canonical


@pytest.mark.parametrize(
    "written",
    [
        "",
        "abc",
        "1.2.3",
        "1.2.3.4.5",
        "1.2.3.256",
        "192.168.000.1",
        " 1.2.3.4",
        "1.2.3.4/32",
        "fe80::1%eth0",
        "::ffff:192.168.0.1",
        "::ffff:c0a8:1",
        "2001:db8:::1",
        "2001:db8::1::2",
        "12345::",
    ],
)
def test_what_the_api_server_does_not_take_for_an_address_is_none_here(written):
    with pytest.raises(ValueError, match=r".+"):
        point(written)


def test_the_families_lie_apart_on_the_number_line():
    assert point("255.255.255.255") == 2**32 - 1
    assert point("::") == 2**128
    assert point("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff") == 2**129 - 1
    assert point("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff") < intervals.BEYOND
    assert [intervals.is_v6(point(a)) for a in ("255.255.255.255", "::")] == [False, True]
    assert intervals.text(intervals.family_last(point("10.0.0.1"))) == "255.255.255.255"
    assert intervals.text(intervals.family_last(point("::1"))) == "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"


@pytest.mark.parametrize(
    ("address", "prefix", "first", "last"),
    [
        ("192.168.1.10", 24, "192.168.1.0", "192.168.1.255"),
        ("192.168.1.10", 32, "192.168.1.10", "192.168.1.10"),
        ("192.168.1.11", 31, "192.168.1.10", "192.168.1.11"),
        ("192.168.1.10", 0, "0.0.0.0", "255.255.255.255"),
        ("2001:db8::5", 64, "2001:db8::", "2001:db8::ffff:ffff:ffff:ffff"),
        ("2001:db8::5", 0, "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("2001:db8::5", 128, "2001:db8::5", "2001:db8::5"),
    ],
)
def test_a_network_is_found_around_any_of_its_addresses(address, prefix, first, last):
    assert intervals.network_of(point(address), prefix) == (point(first), point(last))


@pytest.mark.parametrize(("address", "prefix"), [("10.0.0.1", 33), ("10.0.0.1", -1), ("::1", 129), ("::1", -1)])
def test_a_prefix_length_must_fit_the_family(address, prefix):
    with pytest.raises(ValueError, match=f"prefix length {prefix} is not between"):
        intervals.network_of(point(address), prefix)


def test_a_subnet_keeps_the_address_as_written():
    assert intervals.subnet("192.168.1.10/24") == (point("192.168.1.10"), 24)
    assert intervals.subnet("2001:db8::5/64") == (point("2001:db8::5"), 64)


@pytest.mark.parametrize(
    "written",
    [
        "",
        "10.0.0.0",
        "10.0.0.0/",
        "/24",
        "10.0.0.0/33",
        "10.0.0.0/-1",
        "10.0.0.0/24/8",
        "10.0.0.0/a",
        "10.0.0.0/255.0.0.0",
        "10.0.0.0/\N{SUPERSCRIPT TWO}",
        "10.0.0.0/ 24",
        "::/129",
    ],
)
def test_what_is_no_subnet_is_refused(written):
    with pytest.raises(ValueError, match=r".+"):
        intervals.subnet(written)


@pytest.mark.parametrize(
    ("block", "first", "last"),
    [
        ("10.0.0.5", "10.0.0.5", "10.0.0.5"),
        ("10.0.0.5-10.0.0.9", "10.0.0.5", "10.0.0.9"),
        ("10.0.0.5 - 10.0.0.9", "10.0.0.5", "10.0.0.9"),
        ("10.0.0.5-10.0.0.5", "10.0.0.5", "10.0.0.5"),
        ("10.0.0.5/30", "10.0.0.4", "10.0.0.7"),
        ("2001:db8::1-2001:db8::f", "2001:db8::1", "2001:db8::f"),
        ("2001:db8::1/126", "2001:db8::", "2001:db8::3"),
    ],
)
def test_a_block_is_an_address_a_range_or_a_cidr(block, first, last):
    assert intervals.parse_block(block) == (point(first), point(last))


@pytest.mark.parametrize(
    ("block", "why"),
    [
        ("10.0.0.9-10.0.0.5", "ends before it starts"),
        ("10.0.0.9-::1", "mixes IPv4 and IPv6"),
        ("::1-10.0.0.9", "mixes IPv4 and IPv6"),
        ("10.0.0.1-10.0.0.2-10.0.0.3", "does not appear to be"),
        ("10.0.0.0/24-10.0.1.0/24", "does not appear to be"),
        ("-10.0.0.1", "does not appear to be"),
        ("10.0.0.1-", "does not appear to be"),
        ("10.0.0.0/40", "prefix length 40"),
        ("", "does not appear to be"),
    ],
)
def test_what_is_no_block_is_refused_and_says_why(block, why):
    with pytest.raises(ValueError, match=why):
        intervals.parse_block(block)


def test_adjacent_intervals_merge_but_the_families_never_do():
    assert intervals.merge([Interval(5, 6), Interval(1, 2), Interval(3, 4), Interval(2, 3)]) == [(1, 6)]
    last_of_v4, first_of_v6 = Interval(2**32 - 1, 2**32 - 1), Interval(2**128, 2**128)
    assert intervals.merge([first_of_v6, last_of_v4]) == [last_of_v4, first_of_v6]


@pytest.mark.parametrize(
    ("items", "holes", "left"),
    [
        ([(1, 9)], [], [(1, 9)]),
        ([(1, 9)], [(1, 9)], []),
        ([(1, 9)], [(0, 20)], []),
        ([(1, 9)], [(1, 1)], [(2, 9)]),
        ([(1, 9)], [(9, 12)], [(1, 8)]),
        ([(1, 9)], [(4, 5), (7, 7)], [(1, 3), (6, 6), (8, 9)]),
        ([(1, 3), (6, 9)], [(3, 6)], [(1, 2), (7, 9)]),
        ([(1, 3), (6, 9)], [(4, 5)], [(1, 3), (6, 9)]),
        ([], [(1, 2)], []),
    ],
)
def test_holes_are_cut_out(items, holes, left):
    assert intervals.subtract([Interval(*i) for i in items], [Interval(*h) for h in holes]) == left


def test_taking_and_returning_keeps_the_fewest_intervals():
    free = FreeSet([Interval(1, 5)])
    assert free.remove(3)
    assert list(free) == [(1, 2), (4, 5)]
    assert not free.remove(3)
    assert free.remove(1)
    assert free.remove(5)
    assert list(free) == [(2, 2), (4, 4)]
    assert free.add(3)
    assert list(free) == [(2, 4)]
    assert not free.add(3)
    assert free.count == 3
    assert [at in free for at in (1, 2, 4, 5)] == [False, True, True, False]


def test_an_empty_set_has_neither_a_lowest_nor_a_random_point():
    assert FreeSet().lowest() is None
    assert FreeSet().random(random.Random(1)) is None


def test_a_random_choice_finds_every_point_about_as_often():
    free = FreeSet([Interval(10, 13), Interval(20, 23)])
    rng = random.Random(1)
    found = [free.random(rng) for _ in range(8000)]
    assert {at: abs(found.count(at) - 1000) < 150 for at in found} == dict.fromkeys(
        [10, 11, 12, 13, 20, 21, 22, 23], True
    )


def test_a_random_choice_in_a_vast_sparse_set_still_ends():
    free = FreeSet(
        [Interval(point("2001:db8::"), point("2001:db8::")), Interval(point("2001:db8:1::"), point("2001:db8:1::"))]
    )
    rng = random.Random(1)
    assert {free.random(rng) for _ in range(50)} == {point("2001:db8:1::")}
    free.remove(point("2001:db8:1::"))
    assert free.random(rng) == point("2001:db8::")


def test_a_subnet_of_2_to_64_with_100000_addresses_taken_in_order_is_one_interval():
    network = intervals.network_of(point("2001:db8::"), 64)
    free = FreeSet([network])
    for at in range(network.first, network.first + 100_000):
        assert free.lowest() == at
        assert free.remove(at)
    assert list(free) == [(network.first + 100_000, network.last)]
    assert free.count == 2**64 - 100_000
    middle = network.first + 2**63
    assert free.remove(middle)
    assert middle not in free
    assert len(list(free)) == 2


def test_a_subtraction_takes_out_each_hole_wherever_it_lies():
    spans = [Interval(10, 20), Interval(30, 40)]
    holes = [Interval(n, n) for n in (1, 3, 5, 12, 22, 24, 26, 28, 35)]
    assert intervals.subtract(spans, holes) == [
        Interval(10, 11),
        Interval(13, 20),
        Interval(30, 34),
        Interval(36, 40),
    ]


def test_the_lowest_address_of_a_family_is_in_its_networks():
    for address, prefix, last in (("::", 64, "::ffff:ffff:ffff:ffff"), ("0.0.0.0", 24, "0.0.0.255")):
        assert intervals.network_of(point(address), prefix) == (point(address), point(last))


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_point_that_is_in_a_set_is_not_added_again(at):
    free = intervals.FreeSet([Interval(1, 3)])
    assert not free.add(at)
    assert (list(free), free.count) == ([Interval(1, 3)], 3)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("fe80::1%eth0", "'fe80::1%eth0' has a zone id"),
        ("::ffff:10.0.0.1", "'::ffff:10.0.0.1' is an IPv4 address in IPv6 notation"),
    ],
)
def test_a_second_name_for_an_address_is_refused_by_name(text, why):
    with pytest.raises(ValueError, match=f"^{re.escape(why)}$"):
        point(text)
