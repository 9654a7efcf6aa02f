"""The status page in tests: pages read as a browser and a screen reader would, and an allocator's caches by hand.

Responsible for: `Read`, which fails on markup that is not well formed or that the page's own policy would stop, and
`Site`, caches filled with objects as the API server would send them.
"""

from __future__ import annotations

from datetime import timedelta
from html.parser import HTMLParser

from services.ipam import api, kinds
from services.ipam.caches import Caches
from services.ipam.ledger import Ledger
from services.ipam.settings import IpamSettings
from services.ipam.web.part import StatusPage
from services.runtime.kube.objects import KubeObject, ObjectMeta, OwnerReference, raw
from tests.support.virtual_time import START

VOID = {"br", "hr", "input", "link", "meta"}
FORBIDDEN = {"style", "iframe", "object", "embed", "base"}
CREATED = "2026-01-01T00:00:00Z"


class Read(HTMLParser):
    """A page: `text`, `tags` as (name, attributes, the text inside), `ids`."""

    def __init__(self, body):
        super().__init__(convert_charrefs=True)
        self.tags, self.ids, self._open, self._texts = [], [], [], []
        self.feed(body.decode())
        self.close()
        assert self._open == [], "every element is closed"
        assert len(self.ids) == len(set(self.ids)), "no id twice"
        self.text = "".join(self._texts)

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert tag not in FORBIDDEN, tag
        assert len(names) == len(set(names)), f"{tag} has an attribute twice"
        assert "style" not in names, "the policy allows no style attribute"
        assert not [name for name in names if name.startswith("on")], "nor scripts in attributes"
        attributes = dict(attrs)
        for name in ("href", "src", "action"):
            if name in attributes:
                assert attributes[name].startswith(("/", "#")), f"{name}={attributes[name]} stays on this host"
        if "id" in attributes:
            self.ids.append(attributes["id"])
        entry = [tag, attributes, ""]
        self.tags.append(entry)
        if tag not in VOID:
            self._open.append(entry)

    def handle_endtag(self, tag):
        assert self._open, f"</{tag}> closes nothing"
        assert self._open[-1][0] == tag, f"</{tag}> closes <{self._open[-1][0]}>"
        self._open.pop()

    def handle_data(self, data):
        assert not self._open or self._open[-1][0] != "script", "the policy allows no script in the page"
        self._texts.append(data)
        for entry in self._open:
            entry[2] += data

    def all(self, tag, class_=None):
        """(attributes, text) of each element of a name, and of a class if given."""
        return [
            (attributes, text)
            for name, attributes, text in self.tags
            if name == tag and (class_ is None or class_ in (attributes.get("class") or "").split())
        ]

    def cells(self, state):
        """How many cells of the maps are in a state."""
        return len(self.all("td", f"s-{state}"))

    def rows(self, class_):
        """Texts of the cells of each row of the tables of a class."""
        found, inside = [], False
        for name, attributes, text in self.tags:
            if name == "table":
                inside = class_ in (attributes.get("class") or "").split()
            elif inside and name == "tr":
                found.append([])
            elif inside and name in {"td", "th"} and found:
                found[-1].append(text)
        return found[1:]


class StillClock:
    """Time that moves when it is told to, and at 2026-01-01 by default."""

    def __init__(self):
        self.elapsed = 0.0

    def monotonic(self):
        return self.elapsed

    def now(self):
        return START + timedelta(seconds=self.elapsed)

    async def sleep(self, seconds):
        self.elapsed += seconds


class Site:
    """Caches of an allocator, and its status page; nothing runs."""

    def __init__(self, **settings):
        self.ledger = Ledger()
        quiet = lambda _: None  # noqa: E731 - what the queues would be told
        self.caches = Caches(self.ledger, quiet, quiet, quiet)
        self.caches.subscribe()
        self._version = 0
        self.clock = StillClock()
        self.page = StatusPage(self.caches, IpamSettings(**settings), self.clock, "replica-1")

    def ready(self):
        """Let every list have been read."""
        caches = self.caches
        stores = (*caches.pools.values(), *caches.claims.values(), *caches.addresses.values())
        for store in (*stores, caches.reservations, caches.clusters):
            store.replace(store.values(), str(self._version))
        return self

    def _apply(self, store, resource, name, namespace, spec, status=None, **metadata):
        self._version += 1
        meta = {"uid": f"uid-{self._version}", "creationTimestamp": CREATED, **metadata}
        obj = KubeObject(
            apiVersion=resource.api_version,
            kind=resource.kind,
            metadata=ObjectMeta(name=name, namespace=namespace, resourceVersion=str(self._version), **meta),
            spec=raw(spec),
            **({"status": raw(status)} if status is not None else {}),
        )
        store.apply("ADDED", obj)

    def pool(self, name, *entries, namespace="ns", says=(), **spec):
        """An IPPool; `says` are type and reason of a condition that is False."""
        resource = api.IP_POOLS if namespace else api.GLOBAL_IP_POOLS
        spec = {"namePrefix": "p", "prefix": 24, "pools": list(entries), **spec}
        status = None
        if says:
            row = {"type": says[0], "status": "False", "reason": says[1], "message": "", "lastTransitionTime": CREATED}
            status = {"conditions": [row]}
        self._apply(self.caches.pools[resource.kind], resource, name, namespace, spec, status)

    def claim(self, name, pool="pool", *, reason="", message="", namespace="ns", owner="", **metadata):
        """An IPClaim; with a reason, one that was refused."""
        status = None
        if reason:
            ready = {"type": "Ready", "status": "False", "reason": reason, "message": message}
            status = {"errorMessage": message, "conditions": [ready]}
        if owner:
            metadata["ownerReferences"] = (OwnerReference(apiVersion="v1", kind="Machine", name=owner, uid="u"),)
        store = self.caches.claims[kinds.METAL3]
        self._apply(store, api.IP_CLAIMS, name, namespace, {"pool": {"name": pool}}, status, **metadata)

    def bound(self, name, ip, pool="pool", *, namespace="ns", domain="default", **metadata):
        """A claim that has its address, with all that belongs to it."""
        store = self.caches.claims[kinds.METAL3]
        status = {"address": {"name": f"p-{name}", "namespace": namespace}}
        self._apply(store, api.IP_CLAIMS, name, namespace, {"pool": {"name": pool}}, status, **metadata)
        spec = {"claim": {"name": name, "namespace": namespace}, "pool": {"name": pool}, "address": ip}
        self._apply(self.caches.addresses[kinds.METAL3], api.IP_ADDRESSES, f"p-{name}", namespace, spec)
        claim = {"kind": "IPClaim", "namespace": namespace, "name": name}
        pool = {"kind": "IPPool", "namespace": namespace, "name": pool}
        self.reservation(ip, domain=domain, claim=claim, pool=pool)

    def reservation(self, ip, *, domain="default", **spec):
        spec = {"domain": domain, "address": ip, **spec}
        self._apply(self.caches.reservations, api.IP_RESERVATIONS, f"{domain}.{ip}", "", spec)

    async def get(self, path, **query):
        """The page at a path, read; None when there is none."""
        page = await self.page.show(tuple(path.split("/")[1:]), query)
        return None if page is None else Read(page.body)
