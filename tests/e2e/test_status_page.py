"""The status page in Chromium: what an operator sees and does, in light, dark and narrow, with scripts and without.

Needs no node: an API server, the allocator and a browser.
"""

from __future__ import annotations

import pytest

from services.ipam.api import IP_POOLS
from tests.support.allocator import Allocator
from tests.support.kube import Kube, eventually
from tests.support.tenant import CAPI, KINDS, Tenant
from tools import chromium
from tools.process import free_ports

TEXT = "document.body.innerText"
WIDTH = "document.documentElement.scrollWidth"


def count(selector):
    return f"document.querySelectorAll({selector!r}).length"


@pytest.fixture(scope="module")
def browser_program():
    """Installs the browser where that is needed, before anything waits for it."""
    return chromium.ensure()


@pytest.fixture(scope="module")
def allocator(cluster, browser_program, tmp_path_factory):
    flags = ("--web", f"--web-address=127.0.0.1:{free_ports(1)[0]}")
    with Allocator.running(tmp_path_factory.mktemp("allocator"), cluster.kubeconfig, *flags) as running:
        running.url = "http://" + next(r["address"] for r in running.records() if r["msg"] == "Serving the status page")
        yield running


@pytest.fixture
async def kube(cluster):
    async with Kube.connect(cluster.kubeconfig) as kube:
        yield kube


@pytest.fixture
async def tenant(allocator, kube):
    """Somebody with a pool of 12 addresses: 5 held, 2 excluded, 1 pre-allocated, 4 free; and a full pool."""
    tenant = await Tenant.create(kube)
    excluded = ["10.9.0.3", "10.9.0.4"]
    await tenant.pool("pool", "10.9.0.1-10.9.0.12", excludedAddresses=excluded, preAllocations={"vip": "10.9.0.9"})
    for number in range(5):
        await tenant.give(f"m-{number}", kind=KINDS[number % 2])
    await tenant.pool("full", "10.9.1.1-10.9.1.1")
    await tenant.give("holder", "full")
    await tenant.claim("waits", "full", kind=CAPI)
    await tenant.refused("waits", "PoolExhausted", CAPI)
    yield tenant
    for kind in KINDS:
        for claim in await kube.list(tenant.api(kind).claims, tenant.namespace):
            await tenant.release(claim["metadata"]["name"], kind)
    for name in ("pool", "full"):
        await kube.delete(IP_POOLS, name, tenant.namespace)
        await kube.gone(IP_POOLS, name, tenant.namespace)


@pytest.fixture
async def browser():
    async with chromium.Chromium.running() as browser:
        yield browser


def quiet(tab, allocator):
    """Nothing went wrong in the page, and it asked nobody but the allocator."""
    assert tab.complaints == []
    assert [url for url in tab.requests if not url.startswith(allocator.url + "/")] == []
    return True


async def shown(tab, expression, wanted):
    """Wait until the page shows something: it keeps itself up to date."""
    return await eventually(lambda: tab.evaluate(expression), lambda seen: seen == wanted)


async def test_an_operator_finds_what_waits_and_goes_on_to_the_pool(tenant, allocator, browser):
    async with browser.tab() as tab:
        await tab.goto(allocator.url + "/")
        assert "Exhausted IP Pools" in await tab.evaluate(TEXT)
        assert await tab.evaluate(count(".waiting tbody tr")) == 1
        assert await tab.evaluate(count(".cards > li")) == 2
        first = await tab.evaluate("document.querySelector('.cards h3 a').innerText")
        assert first == f"{tenant.namespace}/full", "what needs to be looked at comes first"
        await tab.click(f"#IPPool-{tenant.namespace}-pool")
        await tab.loaded()
        assert await tab.evaluate("location.pathname") == f"/pools/IPPool/{tenant.namespace}/pool"
        cells = {
            name: await tab.evaluate(count(f".map .s-{name}")) for name in ("held", "excluded", "preallocated", "free")
        }
        assert cells == {"held": 5, "excluded": 2, "preallocated": 1, "free": 4}
        assert await tab.evaluate(count(".holders tbody tr")) == 6
        ground = "[...document.querySelectorAll('.map td[title]')].map(cell => getComputedStyle(cell).backgroundColor)"
        assert len(set(await tab.evaluate(ground))) == 4, "the style sheet is in force"
        assert quiet(tab, allocator)


async def test_the_page_keeps_itself_up_to_date_and_leaves_focus_and_place_alone(tenant, allocator, browser):
    async with browser.tab(height=300) as tab:
        await tab.goto(f"{allocator.url}/pools/IPPool/{tenant.namespace}/pool")
        await tab.evaluate("document.getElementById('hours-6').focus()")
        await tab.evaluate("window.scrollTo(0, 200); window.here = true")
        await tenant.give("more")
        await shown(tab, count(".map .s-held"), 6)
        assert await tab.evaluate("[document.activeElement.id, window.scrollY, window.here]") == ["hours-6", 200, True]
        assert quiet(tab, allocator)


async def test_the_page_says_when_it_is_old_and_recovers(tenant, allocator, browser):
    async with browser.tab() as tab:
        await tab.goto(allocator.url + "/")
        assert await tab.evaluate("document.getElementById('stale').hidden") is True
        allocator.stop()
        await shown(tab, "document.getElementById('stale').innerText.endsWith('does not answer.')", True)
        assert "This is old, from 2" in await tab.evaluate(TEXT)
        allocator.start()
        await shown(tab, "document.getElementById('stale').hidden", True)


async def test_it_works_without_scripts(tenant, allocator, browser):
    async with browser.tab(scripts=False) as tab:
        await tab.goto(f"{allocator.url}/pools/IPPool/{tenant.namespace}/pool")
        # The DevTools may evaluate where the page's own scripts are off.
        before = await tab.evaluate("document.getElementById('as-of').dateTime")
        await tenant.give("more")
        await shown(tab, count(".map .s-held"), 6)
        assert await tab.evaluate("document.getElementById('as-of').dateTime") > before
        assert not any(url.endswith(".js") for url in tab.requests)
        await tab.click("#refresh")
        await shown(tab, "location.search", "?refresh=off")
        assert quiet(tab, allocator)


@pytest.mark.parametrize("path", ["/", "pool"])
async def test_it_fits_a_narrow_screen_and_is_dark_in_the_dark(tenant, allocator, browser, path):
    url = allocator.url + (path if path == "/" else f"/pools/IPPool/{tenant.namespace}/pool")
    ground = "getComputedStyle(document.documentElement).backgroundColor.match(/\\d+/g).map(Number)"
    async with browser.tab(width=400, dark=True) as tab:
        await tab.goto(url)
        assert await tab.evaluate(WIDTH) == 400, "nothing sticks out"
        assert max(await tab.evaluate(ground)) < 64
        assert quiet(tab, allocator)
    async with browser.tab() as tab:
        await tab.goto(url)
        assert min(await tab.evaluate(ground)) > 192


async def test_it_can_be_used_with_the_keyboard_alone(tenant, allocator, browser):
    async with browser.tab() as tab:
        await tab.goto(allocator.url + "/?refresh=off")
        await tab.press("Tab", 9)
        assert await tab.evaluate("document.activeElement.innerText") == "Skip to content"
        seen = []
        for _ in range(await tab.evaluate(count("a")) - 1):
            await tab.press("Tab", 9)
            seen.append(await tab.evaluate("document.activeElement.getAttribute('href')"))
            visible = "getComputedStyle(document.activeElement).outlineStyle"
            assert await tab.evaluate(visible) == "solid", "where the focus is can be seen"
        assert f"/pools/IPPool/{tenant.namespace}/full" in seen
        await tab.evaluate(f"document.getElementById('IPPool-{tenant.namespace}-full').focus()")
        await tab.press("Enter", 13)
        await shown(tab, "location.pathname", f"/pools/IPPool/{tenant.namespace}/full")


async def test_no_other_page_can_frame_it_or_read_it(allocator, browser):
    async with browser.tab() as tab:
        await tab.goto("data:text/html,<body></body>")
        script = f"fetch('{allocator.url}/status.json').then(() => 'read', () => 'refused')"
        assert await tab.evaluate(script) == "refused"
