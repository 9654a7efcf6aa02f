"""The allocator's rules once more, in the plainest way there is, for tests to compare with.

Everything is a list, set or dict of `ipaddress` objects; every answer is found by enumeration, so pools must be small.
Pools, claims and domains are whatever hashable the test uses for them. Shares no code with the services.
"""

from __future__ import annotations

import ipaddress

FREE, HELD, ADMIN, RELEASED = "free", "held", "admin", "released"


def address(text):
    """An address object; ValueError if `text` is none that a pool may hold."""
    found = ipaddress.ip_address(text)
    if "%" in text or getattr(found, "ipv4_mapped", None) is not None:
        raise ValueError(text)
    return found


def order(ip):
    """Sort key over both families."""
    return ip.version, int(ip)


def between(first, last):
    """All addresses of a closed range."""
    return [type(first)(number) for number in range(int(first), int(last) + 1)]


def ends(network):
    """What a network does not give to hosts: nothing of a point-to-point one, and no broadcast in IPv6."""
    if network.num_addresses <= 2:
        return set()
    return {network[0]} if network.version == 6 else {network[0], network[-1]}


def block(text):
    """Addresses of `a`, `a-b` or a CIDR."""
    if "-" in text:
        first, last = text.split("-")
        return set(between(address(first.strip()), address(last.strip())))
    return set(ipaddress.ip_network(text, strict=False))


def span(entry, *, whole):
    """All addresses of an entry of `spec.pools`, in order."""
    if not entry.get("subnet"):
        return between(address(entry["start"]), address(entry["end"]))
    written, network = ipaddress.ip_interface(entry["subnet"]).ip, ipaddress.ip_interface(entry["subnet"]).network
    at_the_first = written == network[0] and (whole or not ends(network))
    first = written if at_the_first or written == network[-1] else written + 1
    return between(
        address(entry["start"]) if entry.get("start") else first,
        address(entry["end"]) if entry.get("end") else network[-1],
    )


class PoolModel:
    """One pool's spec (the keywords are those of the API, whole = allocateReservedAddresses), by enumeration.

    Knows only specs without mistakes, save for preAllocations.
    """

    def __init__(self, entries, *, prefix=None, gateway="", excluded=(), pre=None, whole=False):
        ranges = [span(entry, whole=whole) for entry in entries]
        networks = [ipaddress.ip_interface(entry["subnet"]).network for entry in entries if entry.get("subnet")]
        self.prefixes = []
        for entry, addresses in zip(entries, ranges, strict=True):
            own = ipaddress.ip_interface(entry["subnet"]).network.prefixlen if entry.get("subnet") else None
            length = next((n for n in (entry.get("prefix"), prefix, own) if n is not None), None)
            self.prefixes.append(length)
            if length is not None:
                networks += [ipaddress.ip_network((ip, length), strict=False) for ip in addresses]
        self.covered = {ip for addresses in ranges for ip in addresses}
        self.excluded = {ip for text in excluded for ip in block(text)}
        gateways = [gateway, *(entry.get("gateway", "") for entry in entries)]
        reserved = {address(g) for g in gateways if g} | {ip for network in networks for ip in ends(network)}
        self.reserved = set() if whole else reserved & self.covered
        self.giving = []  # for each entry what it gives: nothing that an earlier one covers
        seen = self.excluded | self.reserved
        for addresses in ranges:
            self.giving.append([ip for ip in addresses if ip not in seen])
            seen = seen | set(addresses)
        self.assignable = {ip for addresses in self.giving for ip in addresses}
        self.pre = {}  # name -> address
        for name, text in (pre or {}).items():
            ip = address(text)
            if ip in self.assignable and ip not in self.pre.values():
                self.pre[name] = ip


class Slot:
    """What takes one address."""

    def __init__(self):
        self.reservation = None  # (use, claim, pool, reusable_at)
        self.holdings = []  # [(name, claim, pool)] in order of arrival
        self.pending = None  # (claim, pool)

    def state(self):
        """(use, pool it is held through, reusable_at)."""
        if self.reservation is not None and self.reservation[0] == HELD:
            return HELD, self.reservation[2], 0.0
        if self.holdings:
            return HELD, self.holdings[0][2], 0.0
        if self.pending is not None:
            return HELD, self.pending[1], 0.0
        if self.reservation is not None:
            return self.reservation[0], None, self.reservation[3] if self.reservation[0] == RELEASED else 0.0
        return FREE, None, 0.0

    def holders(self):
        """[(claim, pool or None)] of everything that says who holds it, picks in flight apart."""
        found = [(claim, pool) for _, claim, pool in self.holdings]
        if self.reservation is not None and self.reservation[0] == HELD and self.reservation[1] is not None:
            found.append((self.reservation[1], self.reservation[2]))
        return found


class LedgerModel:
    """All domains, pools and waiting claims."""

    def __init__(self):
        self.slots = {}  # (domain, address) -> Slot
        self.pools = {}  # pool -> (domain, PoolModel, random_order)
        self.home = {}  # pool -> domain in which its holdings are placed
        self.objects = {}  # holding name -> (claim, pool, address)
        self.placed = {}  # holding name -> domain
        self.queue = {}  # claim -> (pool, age)
        self.watch = {}  # claim -> (domain, address)

    def slot(self, domain, ip):
        """Slot of an address, made on demand."""
        return self.slots.setdefault((domain, ip), Slot())

    def state(self, domain, ip):
        """As `Slot.state`."""
        return self.slots[domain, ip].state() if (domain, ip) in self.slots else Slot().state()

    # Changes

    def set_pool(self, pool, domain, model, *, random_order):
        """Register or replace; a pool that changes its domain loses its queue and takes its holdings along."""
        if self.home.get(pool, domain) != domain:
            self.remove_pool(pool)
            for name in [n for n, (_, p, _) in self.objects.items() if p == pool]:
                self._lift(name)
        self.pools[pool] = (domain, model, random_order)
        self.home[pool] = domain
        for name, (_, p, _) in self.objects.items():
            if p == pool and name not in self.placed:
                self._place(name)

    def remove_pool(self, pool):
        """Forget a pool; its waiters wait no longer."""
        self.pools.pop(pool, None)
        self.queue = {claim: entry for claim, entry in self.queue.items() if entry[0] != pool}
        if not any(p == pool for _, p, _ in self.objects.values()):
            self.home.pop(pool, None)

    def _place(self, name):
        claim, pool, ip = self.objects[name]
        if pool in self.home:
            self.placed[name] = self.home[pool]
            self.slot(self.home[pool], ip).holdings.append((name, claim, pool))

    def _lift(self, name):
        domain = self.placed.pop(name, None)
        if domain is not None:
            slot = self.slot(domain, self.objects[name][2])
            slot.holdings = [h for h in slot.holdings if h[0] != name]

    def add_holding(self, name, claim, pool, ip):
        """An IPAddress came."""
        self.objects[name] = (claim, pool, ip)
        self._place(name)

    def remove_holding(self, name):
        """An IPAddress went."""
        self._lift(name)
        _, pool, _ = self.objects.pop(name)
        if pool not in self.pools and not any(p == pool for _, p, _ in self.objects.values()):
            self.home.pop(pool, None)

    def leave(self, claim):
        """A claim waits for nothing any more."""
        self.queue.pop(claim, None)
        self.watch.pop(claim, None)

    # Answers

    def obtainable(self, pool):
        """Addresses that a claim without a wish could get, cooling ones included."""
        domain, model, _ = self.pools[pool]
        kept = set(model.pre.values())
        return {ip for ip in model.assignable - kept if self.state(domain, ip)[0] in {FREE, RELEASED}}

    def free(self, pool):
        """Addresses that nothing takes, one list for each range in order."""
        domain, model, _ = self.pools[pool]
        kept = set(model.pre.values())
        return [[ip for ip in some if ip not in kept and self.state(domain, ip)[0] == FREE] for some in model.giving]

    def counts(self, pool, now):
        """The six numbers of status."""
        domain, model, _ = self.pools[pool]
        used = free = reserved = cooling = 0
        for ip in model.assignable:
            use, _, reusable_at = self.state(domain, ip)
            if use == HELD:
                used += 1
            elif use == ADMIN or ip in model.pre.values():
                reserved += 1
            elif use == RELEASED and reusable_at > now:
                cooling += 1
            else:
                free += 1
        beyond = sum(ip not in model.assignable for ip in self.held(pool))
        total = len(model.assignable)
        return {
            "total": total, "used": used, "free": free, "reserved": reserved, "cooling": cooling, "out_of_range": beyond
        }  # fmt: skip

    def held(self, pool):
        """Addresses held through a pool."""
        domain = self.pools[pool][0]
        return {ip for (d, ip), slot in self.slots.items() if d == domain and slot.state()[:2] == (HELD, pool)}

    def waiting(self, pool):
        """Claims in the queue of a pool, oldest first."""
        return [claim for _, claim in sorted((age, claim) for claim, (p, age) in self.queue.items() if p == pool)]

    def eligible(self, pool):
        """Waiters of a pool that could be served now."""
        return set(self.waiting(pool)[: len(self.obtainable(pool))])

    def all_eligible(self):
        """Waiters of all pools that could be served now."""
        return {claim for pool in self.pools for claim in self.eligible(pool)}

    def freed(self):
        """Claims that wait for an address which nobody holds or reserves."""
        return {claim for claim, (domain, ip) in self.watch.items() if self.state(domain, ip)[0] in {FREE, RELEASED}}

    def overlaps(self, pool):
        """Pools of the same domain that cover an address which this pool covers."""
        domain, model, _ = self.pools[pool]
        return {p for p, (d, m, _) in self.pools.items() if p != pool and d == domain and m.covered & model.covered}

    def conflicts(self, domain):
        """Address -> (claims, pools) for each that more than one claim holds."""
        found = {}
        for (d, ip), slot in self.slots.items():
            holders = slot.holders()
            if d == domain and len({claim for claim, _ in holders}) > 1:
                found[ip] = ({claim for claim, _ in holders}, {pool for _, pool in holders if pool is not None})
        return found

    def choice(self, pool, claim, age, requested, now, *, name):
        """`(addresses of which any may be given, None)`, or `(set(), token)`."""
        if requested is not None:
            token = self._refusal(pool, claim, requested, now, name)
            return (set(), token) if token else ({requested}, None)
        obtainable = self.obtainable(pool)
        older = sum((a, c) < (age, claim) for c, (p, a) in self.queue.items() if p == pool)
        if older >= len(obtainable):
            return set(), "PoolExhausted"
        domain, _, random_order = self.pools[pool]
        for addresses in self.free(pool):
            if addresses:
                return (set(addresses) if random_order else {min(addresses, key=order)}), None
        soonest = min(obtainable, key=lambda ip: (self.state(domain, ip)[2], order(ip)))
        return {soonest}, None

    def _refusal(self, pool, claim, ip, now, name):
        domain, model, _ = self.pools[pool]
        if ip not in model.covered:
            return "AddressOutsidePool"
        if ip in model.excluded or ip in model.reserved:
            return "AddressExcluded"
        if any(kept == ip and owner != name for owner, kept in model.pre.items()):
            return "AddressReserved"
        use, _, reusable_at = self.state(domain, ip)
        if use == RELEASED:
            last = self.slots[domain, ip].reservation[1]
            return "AddressCooling" if reusable_at > now and last != claim and self.obtainable(pool) - {ip} else None
        return {FREE: None, HELD: "AddressTaken", ADMIN: "AddressReserved"}[use]
