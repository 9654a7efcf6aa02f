"""The status page's pages as they are read: numbers, names, who waits and why; nothing that is named becomes markup."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from services.ipam.web import document, part, words
from services.ipam.web.history import MOST, History, Sample
from services.ipam.web.markup import Markup, element
from services.ipam.web.server import AskedWrongError
from services.ipam.web.states import State
from services.ipam.web.survey import ENTRIES
from tests.support.ledger_world import ALL, ONE
from tests.support.status_page import Read, Site
from tests.support.virtual_time import START

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>&amp;"
POOL = "/pools/IPPool/ns/pool"
STATIC = Path(part.__file__).parent / "static"


@pytest.fixture
async def site():
    return Site()


def small_pool(site, **spec):
    site.pool("pool", {"start": "10.0.0.0", "end": "10.0.0.31"}, **spec)
    return site


async def test_a_pools_map_has_a_cell_for_each_address_in_its_state(site):
    small_pool(
        site,
        gateway="10.0.0.1",
        excludedAddresses=["10.0.0.8-10.0.0.11"],
        preAllocations={"vip": "10.0.0.20"},
        prefix=27,
    )
    for number in range(2, 6):
        site.bound(f"m-{number}", f"10.0.0.{number}")
    site.bound("away", "10.0.9.9")
    site.reservation("10.0.0.21", description="the printer")
    claim = {"kind": "IPClaim", "namespace": "ns", "name": "gone"}
    later = {"releasedAt": "2026-01-01T00:00:00Z", "reusableAt": "2026-01-01T01:00:00Z", "lastClaim": claim}
    site.reservation("10.0.0.22", **later)
    site.reservation("10.0.0.23", **{**later, "reusableAt": "2025-12-31T00:00:00Z"})
    page = await site.ready().get(POOL)
    found = {state.value: page.cells(state.value) for state in State}
    assert found == {
        "held": 4, "reserved": 1, "preallocated": 1, "cooling": 1, "remembered": 1, "excluded": 7, "outofrange": 1,
        "free": 32 - 15, "outside": 15, "conflict": 0, "returning": 0, "elsewhere": 0,
    }  # fmt: skip
    titles = {attributes["title"] for attributes, _ in page.all("td") if "title" in attributes}
    assert "10.0.0.2: held (IPClaim ns/m-2)" in titles
    assert "10.0.0.20: pre-allocated (for vip)" in titles
    assert "10.0.0.1: never given (gateway)" in titles
    assert "10.0.0.22: cooling (last IPClaim ns/gone)" in titles
    rows = {row[0]: row for row in page.rows("holders")}
    assert rows["10.0.0.21"][6] == "the printer"
    assert rows["10.0.0.22"][6] == "until 2026-01-01T01:00:00Z"
    assert "outside the pool's ranges" in rows["10.0.9.9"][6]
    assert list(rows) == [
        "10.0.0.2",
        "10.0.0.3",
        "10.0.0.4",
        "10.0.0.5",
        *(f"10.0.0.{n}" for n in range(20, 24)),
        "10.0.9.9",
    ]


async def test_who_holds_an_address_is_told_with_owner_cluster_and_age(site):
    small_pool(site)
    labels = {"cluster.x-k8s.io/cluster-name": "blue"}
    site.bound("one", "10.0.0.2", labels=labels, ownerReferences=())
    site.claim("two", owner="machine-7", reason="PoolExhausted", message="nothing left")
    page = await site.ready().get(POOL)
    (row,) = page.rows("holders")
    assert row[:6] == ["10.0.0.2", "H held", "IPClaim ns/one", "-", "blue", "0s"]
    (waits,) = page.rows("waiting")
    assert waits == ["IPClaim ns/two", "0s", "PoolExhausted", "nothing left", "Machine machine-7"]


async def test_a_claim_that_is_being_deleted_is_shown_apart_from_those_that_wait(site):
    small_pool(site)
    site.bound("leaves", "10.0.0.2", deletionTimestamp="2026-01-01T00:00:00Z", finalizers=("example.com/backup",))
    site.claim("new")
    page = await site.ready().get("/")
    assert "1 claim waits for an address; 1 is being deleted and not gone" in page.text
    assert [row[3] for row in page.rows("waiting")] == ["Pending", "StillUsed"]
    assert "example.com/backup" in page.text
    assert (await site.get(POOL)).cells("returning") == 1


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda site: site.claim("c", reason="PoolExhausted", message="none"), "PoolExhausted"),
        (lambda site: site.claim("c", annotations={"cluster.x-k8s.io/paused": ""}, reason="Old"), "Paused"),
        (lambda site: site.claim("c", "missing"), "PoolNotFound"),
        (lambda site: site.claim("c"), "Pending"),
    ],
)
async def test_the_first_page_says_what_waits_and_why(site, make, reason):
    make(small_pool(site))
    page = await site.ready().get("/")
    ((_, _, _, told, *_),) = page.rows("waiting")
    assert told == reason
    assert "1 claim waits" in page.text
    report = json.loads((await site.page.show(("status.json",), {})).body)
    assert [(item["claim"]["name"], item["reason"]) for item in report["unserved"]] == [("c", reason)]
    assert report["totals"]["waiting"] == 1


async def test_when_nothing_waits_the_page_says_so(site):
    page = await small_pool(site).ready().get("/")
    assert "No claim waits." in page.text


async def test_pools_that_need_to_be_looked_at_come_first(site):
    for name, last in (("roomy", 9), ("broken", 9), ("full", 1), ("wanted", 9)):
        site.pool(name, {"start": f"10.{len(name)}.0.1", "end": f"10.{len(name)}.0.{last}"}, domain=name)
    site.bound("holder", "10.4.0.1", "full", domain="full")
    site.claim("waits", "wanted")
    report = await site.ready().get("/")
    names = [text for attributes, text in report.all("a") if attributes.get("id", "").startswith("IPPool-ns-")]
    assert names[:2] == ["ns/wanted", "ns/full"]
    assert "PoolExhausted" in report.text


async def test_what_others_write_is_shown_as_text_and_never_becomes_markup(site):
    small_pool(site, preAllocations={EVIL: "10.0.0.9"})
    site.bound("one", "10.0.0.2", labels={"cluster.x-k8s.io/cluster-name": EVIL})
    site.claim("two", reason=EVIL, message=EVIL, owner=EVIL, annotations={"ipAddress": EVIL})
    site.reservation("10.0.0.3", description=EVIL)
    site.claim("three", EVIL)
    site.ready()
    for path in ("/", POOL):
        page = await site.get(path)
        assert EVIL in page.text, "it is there"
        assert [attributes for attributes, _ in page.all("script")] == [{"src": "/static/status.js", "defer": None}]
        assert page.all("img") == []
    asked = (await site.get(POOL, **{"from": "10.0.0.1", "refresh": EVIL, "block": "10.0.0.0/30"})).all("input")
    assert {attributes["name"]: attributes["value"] for attributes, _ in asked} == {
        "from": "10.0.0.1", "block": "10.0.0.0/30"
    }  # fmt: skip


def test_an_element_escapes_what_is_not_markup():
    assert element("p", "<b>", Markup("<i>"), title='"x') == '<p title="&quot;x">&lt;b&gt;<i></p>'
    assert element("input", disabled=True, hidden=False, value=None) == "<input disabled>"


async def test_the_page_of_a_large_pool_is_bounded_and_opens_row_by_row(site):
    site.pool("pool", {"subnet": "10.0.0.0/8"})
    for number in range(300):
        site.bound(f"m-{number:03d}", f"10.{number % 2 * 128}.{number // 100}.{number % 100 + 1}")
    page = await site.ready().get(POOL)
    assert len(page.all("td")) < 3000
    links = [attributes["href"] for attributes, _ in page.all("a") if attributes.get("id", "").startswith("row-")]
    assert len(links) == 16
    assert links[0] == f"{POOL}?block=10.0.0.0%2F12"
    assert len(page.rows("holders")) == ENTRIES
    following = next(attributes["href"] for attributes, text in page.all("a") if text == "Next (100 more)")
    start = re.search(r"from=([^#]*)#holders", following)[1]
    assert len((await site.get(POOL, **{"from": start})).rows("holders")) == 100
    inner = await site.get(POOL, block="10.128.0.0/24")
    assert inner.cells("held") == 50
    assert "Shown: 10.128.0.0/24" in inner.text


async def test_of_an_ipv6_pool_the_held_addresses_are_shown(site):
    site.pool("pool", {"subnet": "2001:db8::/64"}, prefix=64)
    site.bound("one", "2001:db8::5")
    page = await site.ready().get(POOL)
    assert "2001:db8::5: held (IPClaim ns/one)" in {attributes.get("title") for attributes, _ in page.all("td")}
    assert "1.8e19" in page.text
    assert "under 1 % taken" in (await site.get("/")).text
    overview = await site.get("/")
    (small,) = overview.all("svg", "small-map")
    assert small[0]["aria-label"].startswith("Map of the addresses of IPPool ns/pool: 1 held")


async def test_addresses_of_pools_that_overlap_tell_through_which_they_are_held(site):
    small_pool(site)
    site.pool("other", {"start": "10.0.0.0", "end": "10.0.0.31"})
    site.bound("one", "10.0.0.2", "other")
    page = await site.ready().get(POOL)
    assert page.cells("elsewhere") == 1
    ((*_, note),) = page.rows("holders")
    assert note == "through IPPool ns/other"


async def test_a_page_says_what_has_not_been_read_yet(site):
    page = await site.get("/")
    assert "Not complete yet: still reading IPPool" in page.text
    assert "Not complete" not in (await site.ready().get("/")).text


@pytest.mark.parametrize(
    ("path", "query"),
    [
        (POOL, {"block": "10.0.0.0/99"}),
        (POOL, {"block": EVIL}),
        (POOL, {"from": "x"}),
        (POOL, {"hours": "7"}),
        ("/", {"page": "-1"}),
        ("/", {"page": "\u0663"}),
    ],
)
async def test_a_query_that_makes_no_sense_is_refused(site, path, query):
    small_pool(site).ready()
    with pytest.raises(AskedWrongError):
        await site.get(path, **query)


@pytest.mark.parametrize(
    "path",
    ["/x", "/pools", "/pools/IPPool", "/pools/IPPool/ns", "/pools/IPPool/ns/none", "/pools/IPPool/ns/pool/x",
     "/pools/GlobalIPPool", "/pools/GlobalIPPool/ns/pool", "/pools/IPPool/ns/pool/status.json/x", "//"],
)  # fmt: skip
async def test_a_path_that_names_nothing_is_no_page(site, path):
    assert await small_pool(site).ready().get(path) is None


async def test_roles_and_watched_namespaces_are_named():
    site = Site(watch_namespace=("a", "b")).ready()
    assert ("standby" in (await site.get("/")).text, site.page.scene().role) == (True, "standby")
    await site.page._lead()
    assert "leader" in (await site.get("/")).text
    assert "Only these namespaces are watched: a, b." in (await site.get("/")).text
    alone = Site(leader_election=False)
    assert "no election" in (await alone.get("/")).text


async def test_a_page_can_be_held_still(site):
    site.ready()
    moving, still = await site.get("/"), await site.get("/", refresh="off")
    assert [a["http-equiv"] for a, _ in moving.all("meta") if "http-equiv" in a] == ["refresh"]
    assert moving.all("script")
    assert not still.all("script")
    assert not [a for a, _ in still.all("meta") if "http-equiv" in a]


async def test_samples_become_fill_over_time(site):
    small_pool(site)
    for number in range(1, 6):
        site.bound(f"m-{number}", f"10.0.0.{number}")
        await site.page.sample()
    site.claim("waits", reason="PoolExhausted")
    await site.page.sample()
    page = await site.ready().get(POOL)
    (fill,) = page.all("svg", "fill")
    assert "5 used now, between 1 and 5 before; at most 1 claims waited" in fill[0]["aria-label"]
    report = json.loads((await site.page.show(("pools", "IPPool", "ns", "pool", "status.json"), {})).body)
    assert [sample["used"] for sample in report["history"]][:5] == [1, 2, 3, 4, 5]


# -- history -------------------------------------------------------------------------------------------------------


def sample(at, used, waiting=0):
    return Sample(at, 10**6, used, 0, 0, waiting)


def test_equal_counts_in_a_row_are_one_sample():
    history = History()
    for at in range(10):
        history.add(ONE, sample(at, at // 5))
    assert [(s.at, s.used) for s in history.samples(ONE)] == [(0, 0), (5, 1)]


def test_the_number_of_samples_is_bounded_and_recent_ones_stay():
    history = History()
    for at in range(100 * MOST):
        history.add(ONE, sample(at, at))
    kept = [s.at for s in history.samples(ONE)]
    assert len(kept) <= MOST
    assert kept == sorted(kept)
    assert kept[0] == 0
    assert kept[-MOST // 4 :] == list(range(100 * MOST - MOST // 4, 100 * MOST))


def test_the_history_of_a_pool_that_is_gone_is_forgotten():
    history = History()
    history.add(ONE, sample(1, 1))
    history.add(ALL, sample(1, 1))
    history.keep({ALL})
    assert (history.samples(ONE), len(history.samples(ALL))) == ([], 1)


# -- words and colors ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (1234567, "1,234,567"), (1 << 64, "1.8e19"), ((1 << 63) - 1, "over 9e18"), (1 << 128, "3.4e38")],
)
def test_counts_are_readable_however_large(number, text):
    assert words.grouped(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (59, "59s"),
        (60, "1m"),
        (200, "3m20s"),
        (36_000, "10h"),
        (100_000, "1d3h"),
        (9_000_000, "104d"),
        (-5, "0s"),
    ],
)
def test_ages_are_told_as_kubectl_does(seconds, text):
    now = datetime.fromtimestamp(START.timestamp() + seconds, tz=UTC)
    assert words.age("2026-01-01T00:00:00Z", now) == text


@pytest.mark.parametrize(
    ("share", "text"), [(0, "0 %"), (0.001, "under 1 %"), (0.5, "50 %"), (0.999, "over 99 %"), (1, "100 %")]
)
def test_only_nothing_and_all_are_round(share, text):
    assert words.percent(share) == text


def luminance(color):
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one, other):
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_every_pair_of_colors_can_be_read(scheme):
    blocks = re.findall(r":root \{(.*?)\}", (STATIC / "status.css").read_text(), re.DOTALL)
    assert len(blocks) == 2
    colors = dict(re.findall(r"--([\w-]+): (#\w{6});", blocks[scheme]))
    pairs = [(name, f"{name.removesuffix('-fg')}-bg") for name in colors if name.endswith("-fg")]
    pairs += [(front, back) for front in ("text", "quiet", "link") for back in ("page", "card")]
    assert len(pairs) >= 20
    assert {
        pair: contrast(colors[pair[0]], colors[pair[1]])
        for pair in pairs
        if contrast(colors[pair[0]], colors[pair[1]]) < 4.5
    } == {}


def test_every_state_has_its_colors():
    css = (STATIC / "status.css").read_text()
    for state in set(State) - {State.OUTSIDE}:
        assert f".s-{state.value} {{" in css
        assert f".bg-{state.value} {{" in css


def test_the_error_page_is_well_formed():
    page = Read(document.message(EVIL, EVIL))
    assert EVIL in page.text


async def test_of_a_pool_of_both_families_the_held_addresses_of_both_are_shown(site):
    site.pool("pool", {"subnet": "10.0.0.0/24"}, {"subnet": "2001:db8::/64"})
    for number in range(1, 255):
        site.bound(f"m-{number}", f"10.0.0.{number}")
    site.bound("six", "2001:db8::5")
    page = await site.ready().get(POOL)
    titles = [attributes.get("title") for attributes, _ in page.all("td")]
    assert "2001:db8::5: held (IPClaim ns/six)" in titles
    assert titles.count("10.0.0.7: held (IPClaim ns/m-7)") == 1
    ((small, _),) = (await site.get("/")).all("svg", "small-map")
    assert "255 held" in small["aria-label"]


async def test_claims_of_a_pool_that_is_gone_are_told_apart_by_whether_they_leave(site):
    small_pool(site)
    leaving = {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ("example.com/backup",)}
    site.claim("seeks", "gone")
    site.claim("leaves", "gone", **leaving)
    site.bound("was-bound", "10.9.9.9", "gone", **leaving)
    page = await site.ready().get("/")
    assert "1 claim waits for an address; 2 are being deleted and not gone" in page.text


async def test_a_pool_with_a_mistake_comes_before_one_that_is_full(site):
    says = ("AddressesAvailable", "PoolExhausted")
    site.pool("full", {"start": "10.4.0.1", "end": "10.4.0.1"}, domain="full", says=says)
    site.bound("holder", "10.4.0.1", "full", domain="full")
    site.pool("broken", {"start": "10.5.0.1", "end": "10.5.0.9"}, domain="broken", says=("Ready", "InvalidSpec"))
    page = await site.ready().get("/")
    names = [text for attributes, text in page.all("a") if attributes.get("id", "").startswith("IPPool-ns-")]
    assert names == ["ns/broken", "ns/full"]


async def test_an_address_that_two_pools_cover_is_counted_once_in_the_totals(site):
    small_pool(site)
    site.pool("other", {"start": "10.0.0.0", "end": "10.0.0.31"})
    site.bound("one", "10.0.0.2", "other")
    report = json.loads((await site.ready().page.show(("status.json",), {})).body)
    assert report["totals"]["used"] == 1
