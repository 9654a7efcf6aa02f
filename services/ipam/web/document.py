"""The frame of every page: head, header, footer, and how a page keeps itself up to date.

Responsible for: what all pages have in common. A page works without scripts: it is then loaded anew as a whole.
Invariant: a page names no other host, and holds neither scripts nor styles of its own, so that the strictest
Content-Security-Policy fits.
Must not know: pools.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlencode

from services.ipam.web import charts
from services.ipam.web.markup import Child, Markup, element, joined
from services.ipam.web.states import LOOKS, State
from services.ipam.web.words import moment
from services.runtime.kube.conditions import timestamp
from services.runtime.settings import version

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from services.ipam.web.facts import Scene

REFRESH_SECONDS = 5
_ROLES = {
    "leader": ("leader", "This replica holds the Lease and gives addresses"),
    "standby": ("standby", "Another replica holds the Lease; what is shown is read from the API server all the same"),
    "alone": ("no election", "This process works without leader election"),
}


def document(
    scene: Scene, title: str, path: str, query: Mapping[str, str], *content: Child, still: bool = False
) -> bytes:
    """Return a whole page. `path` and `query` are its own address; `still`: it does not keep itself up to date."""
    others = {key: value for key, value in query.items() if key != "refresh"}
    here = f"{path}?{urlencode(others)}" if others else path
    paused = f"{path}?{urlencode({**others, 'refresh': 'off'})}"
    head = [
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"{title} · Groundwork IPAM"),
        element("link", rel="icon", href="/static/icon.svg", type="image/svg+xml"),
        element("link", rel="stylesheet", href="/static/status.css"),
    ]
    if not still:
        again = element("meta", http_equiv="refresh", content=str(REFRESH_SECONDS))
        head += [element("noscript", again), element("script", src="/static/status.js", defer=True)]
    name, meaning = _ROLES[scene.role]
    switch = (
        element("a", "Resume", href=here, id="refresh") if still else element("a", "Pause", href=paused, id="refresh")
    )
    header = element(
        "header",
        element("a", "Skip to content", href="#content", class_="skip"),
        element("a", element("strong", "Groundwork"), " IPAM", href="/", class_="brand", id="home"),
        element(
            "p",
            element("span", name, class_=f"chip role-{scene.role}", title=meaning),
            element("span", scene.replica, class_="replica", title="This replica"),
            element(
                "span",
                "as of ",
                element("time", moment(timestamp(scene.now)), datetime=timestamp(scene.now), id="as-of"),
                class_="as-of",
            ),
            element("span", "paused" if still else f"every {REFRESH_SECONDS} s", class_="every"),
            switch,
            class_="scene",
        ),
    )
    notes: list[Markup] = []
    if scene.missing:
        text = f"Not complete yet: still reading {', '.join(scene.missing)}."
        notes.append(element("p", text, class_="note bad", role="status"))
    if scene.namespaces:
        text = f"Only these namespaces are watched: {', '.join(scene.namespaces)}."
        notes.append(element("p", text, class_="note"))
    body = element(
        "body",
        charts.patterns(),
        header,
        element("p", class_="note bad", id="stale", role="alert", hidden=True),
        element("main", *notes, *content, id="content", tabindex="-1"),
        element(
            "footer",
            element("p", "Read-only. All times are in UTC. ", element("a", "status.json", href="/status.json")),
            element("p", f"groundwork {version()}"),
        ),
    )
    page = element("html", element("head", *head), body, lang="en")
    return f"<!DOCTYPE html>\n{page}\n".encode()


def message(title: str, text: str) -> bytes:
    """Return a page that needs nothing known: for errors."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", f"{title} · Groundwork IPAM"),
        element("link", rel="stylesheet", href="/static/status.css"),
    )
    main = element("main", element("h1", title), element("p", text), element("p", element("a", "All pools", href="/")))
    return f"<!DOCTYPE html>\n{element('html', head, element('body', main), lang='en')}\n".encode()


def table(caption: str, columns: Iterable[str], rows: Iterable[Iterable[Child]], class_: str = "") -> Markup:
    """Return a table whose first column heads its rows; on narrow screens each cell shows its column's name."""
    names = list(columns)
    lines = [
        element(
            "tr",
            *(
                element(
                    "th" if place == 0 else "td",
                    element("span", cell),
                    scope="row" if place == 0 else None,
                    data_label=name,
                )
                for place, (name, cell) in enumerate(zip(names, row, strict=True))
            ),
        )
        for row in rows
    ]
    return element(
        "table",
        element("caption", caption),
        element("thead", element("tr", *(element("th", name, scope="col") for name in names))),
        element("tbody", *lines),
        class_=f"list {class_}".strip(),
    )


def badge(state: State) -> Markup:
    """Return a state by mark and name."""
    look = LOOKS[state]
    return joined((element("span", look.mark, class_=f"key s-{state.value}", aria_hidden="true"), " ", look.label))


def legend(states: Collection[State]) -> Markup:
    """Return what the marks of a map mean, those that occur in it."""
    items = [
        element("li", badge(state), element("span", f": {look.meaning}", class_="meaning"))
        for state, look in LOOKS.items()
        if state in states and state is not State.OUTSIDE
    ]
    return element("ul", *items, class_="legend", aria_label="What the marks mean")
