"""How seven HTTP clients read a NO_PROXY list: which hosts each of them reaches without the proxy.

Responsible for: one matcher per client, down to what the client does with entries that make no sense. There is no
specification to follow: the variables are a custom, and every client has rules of its own.
Modelled and measured: curl 7.88, Go 1.26 net/http, OpenJDK 17 (`http.nonProxyHosts`, which has the list with `|` for
`,`, since Java reads no variable), CPython 3.11 urllib, requests 2.34, httpx 0.28, aiohttp 3.14 with trust_env.
Invariants: a host is what a URL has, without brackets round an IPv6 address; its port is None when the URL has none.
Must not know: which list is a good one (see `probes`), which variable a client takes the list from (see `variables`).
"""

from __future__ import annotations

import enum
import ipaddress
import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

DEFAULT_PORTS = {"http": 80, "https": 443}
JAVA_ALWAYS_DIRECT = "localhost|127.*|[::1]|0.0.0.0|[::0]"
"""What OpenJDK adds to a `http.nonProxyHosts` that is not empty (sun.net.spi.DefaultProxySelector)."""


class Client(enum.StrEnum):
    """A client, or a library that stands for all programs written with it."""

    CURL = "curl"
    GO = "Go"
    JAVA = "Java"
    URLLIB = "urllib"
    REQUESTS = "requests"
    HTTPX = "httpx"
    AIOHTTP = "aiohttp"


class Verdict(enum.StrEnum):
    """What a client does with a request when a proxy is set for it."""

    DIRECT = "direct"
    PROXIED = "proxied"
    CRASH = "crash"
    """The list makes the client raise when it is constructed, whatever host it was to talk to."""


class Target(NamedTuple):
    """Where a request goes."""

    host: str
    port: int | None
    scheme: str

    @property
    def address(self) -> IPAddress | None:
        """The host as an address, None when it is a name."""
        return _address(self.host)

    @property
    def bracketed(self) -> str:
        """The host as a URL has it."""
        return f"[{self.host}]" if ":" in self.host else self.host


class _CrashError(Exception):
    """The client raises when it reads the list."""


def bypasses(client: Client, no_proxy: str, host: str, port: int | None = None, scheme: str = "http") -> Verdict:
    """Whether `client` reaches `host` directly when `no_proxy` is its list and a proxy is set for `scheme`.

    `port` is what the URL says, None when it leaves it to the scheme (http or https).
    """
    target = Target(host.lower().removeprefix("[").removesuffix("]"), port, scheme)
    try:
        direct = _MODELS[client](no_proxy, target)
    except _CrashError:
        return Verdict.CRASH
    return Verdict.DIRECT if direct else Verdict.PROXIED


def _address(text: str) -> IPAddress | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


# -- curl: lib/noproxy.c -------------------------------------------------------------------------------------------


def _curl(no_proxy: str, target: Target) -> bool:
    if no_proxy == "*":
        return True
    # A blank separates as a comma does: only here.
    tokens = [token for token in re.split("[ \t,]+", no_proxy) if token]
    if isinstance(target.address, ipaddress.IPv4Address):
        return any(_curl_network(token, target.address) for token in tokens)
    # An IPv6 address comes without its brackets and is taken for a name: text is compared, a CIDR never matches.
    name = _without_last_dot(target.host)
    tails = (_without_last_dot(token).removeprefix(".").lower() for token in tokens)
    return any(name == tail or name.endswith(f".{tail}") for tail in tails if tail)


def _without_last_dot(name: str) -> str:
    return name.removesuffix(".")


def _curl_network(token: str, address: ipaddress.IPv4Address) -> bool:
    network, _, bits = token.partition("/")
    digits = re.match(r"\d+", bits)
    length = int(digits[0]) if digits else 0
    base = _address(network)
    if not isinstance(base, ipaddress.IPv4Address) or length > ipaddress.IPV4LENGTH:
        return False
    shift = ipaddress.IPV4LENGTH - length if length else 0  # /0 is read as "no length"
    return int(base) >> shift == int(address) >> shift


# -- Go: golang.org/x/net/http/httpproxy ---------------------------------------------------------------------------


def _go(no_proxy: str, target: Target) -> bool:
    address = target.address
    if target.host == "localhost" or (address is not None and _unmapped(address).is_loopback):
        return True
    port = str(target.port or DEFAULT_PORTS[target.scheme])
    entries = [entry.strip().lower() for entry in no_proxy.split(",")]
    # What stands before the `*` does not count either: it is the same answer.
    return any(entry == "*" or _go_entry(entry, target.host, address, port) for entry in entries if entry)


def _go_entry(entry: str, host: str, address: IPAddress | None, port: str) -> bool:
    network = _network(entry)
    if network is not None:
        return address is not None and _unmapped(address) in network
    name, entry_port = _split_host_port(entry)
    if not name or (entry_port and entry_port != port):
        return False
    own = _address(name)
    if own is not None:
        return address is not None and _unmapped(own) == _unmapped(address)
    if address is not None:
        return False
    name = name[1:] if name.startswith("*.") else name
    return host.endswith(name) if name.startswith(".") else host == name or host.endswith(f".{name}")


def _unmapped(address: IPAddress) -> IPAddress:
    """Return an IPv4 address that is written as IPv6 as what it is: Go keeps both in one form."""
    return address.ipv4_mapped or address if isinstance(address, ipaddress.IPv6Address) else address


def _network(entry: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    if not re.fullmatch(r"[^/]+/\d+", entry):
        return None
    try:
        return ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return None


def _split_host_port(entry: str) -> tuple[str, str]:
    """Go's net.SplitHostPort; what it refuses is a host without port."""
    if entry.startswith("["):
        host, bracket, rest = entry[1:].partition("]")
        well_formed = bracket and rest.startswith(":") and not set(host + rest[1:]) & set("[]") and ":" not in rest[1:]
        return (host, rest[1:]) if well_formed else (entry, "")
    host, colon, port = entry.rpartition(":")
    if not colon or ":" in host or set(entry) & set("[]"):
        return entry, ""
    return host, port


# -- Java: sun.net.spi.DefaultProxySelector ------------------------------------------------------------------------


def _java(no_proxy: str, target: Target) -> bool:
    return java_bypasses(no_proxy.replace(",", "|"), target.host)


def java_bypasses(non_proxy_hosts: str, host: str) -> bool:
    """Whether Java reaches `host` directly when its property `http.nonProxyHosts` is that (`|` separates)."""
    target = Target(host.lower(), None, "http")
    patterns = f"{non_proxy_hosts}|{JAVA_ALWAYS_DIRECT}" if non_proxy_hosts else ""
    return any(_java_pattern(pattern.lower(), target.bracketed) for pattern in patterns.split("|") if pattern)


def _java_pattern(pattern: str, host: str) -> bool:
    # A star counts at either end and is a letter anywhere else; a pattern of one star is both ends.
    body = pattern.removeprefix("*")
    if body == pattern:
        return host.startswith(pattern[:-1]) if pattern.endswith("*") else host == pattern
    return body[:-1] in host if body.endswith("*") else host.endswith(body)


# -- CPython urllib: urllib.request.proxy_bypass_environment -------------------------------------------------------


def _urllib(no_proxy: str, target: Target) -> bool:
    with_port = target.bracketed if target.port is None else f"{target.bracketed}:{target.port}"
    return _proxy_bypass(no_proxy, with_port)


def _proxy_bypass(no_proxy: str, host: str) -> bool:
    if no_proxy == "*":
        return True
    # The port of a bare IPv6 address is its last group, which is how the library splits it too.
    ported = re.fullmatch(r"(.*):([0-9]*)", host, re.DOTALL)
    names = {host, ported[1]} if ported else {host}
    tails = (entry.strip().lstrip(".").lower() for entry in no_proxy.split(",") if entry.strip())
    return any(name == tail or name.endswith(f".{tail}") for tail in tails for name in names)


# -- requests: requests.utils.should_bypass_proxies ----------------------------------------------------------------


def _requests(no_proxy: str, target: Target) -> bool:
    # What its own rules do not match is asked of urllib, without the port.
    entries = [entry for entry in no_proxy.replace(" ", "").split(",") if entry]
    return _requests_own(entries, target) or _proxy_bypass(no_proxy, target.host)


def _requests_own(entries: Iterable[str], target: Target) -> bool:
    address = target.address
    if isinstance(address, ipaddress.IPv4Address):
        for entry in entries:
            network = _network(entry)
            usable = isinstance(network, ipaddress.IPv4Network) and network.prefixlen
            if (usable and network is not None and address in network) or entry == target.host:
                return True
        return False
    names = {target.host, f"{target.host}:{target.port}" if target.port else target.host}
    tails = (entry.lstrip(".") for entry in entries)
    return any(name == tail or name.endswith(f".{tail}") for tail in tails for name in names)


# -- httpx: httpx._utils.get_environment_proxies and URLPattern ----------------------------------------------------


def _httpx(no_proxy: str, target: Target) -> bool:
    entries = [entry.strip() for entry in no_proxy.split(",")]
    if "*" in entries:  # found before any entry is parsed, but not before a proxy is
        return True
    patterns = [_httpx_pattern(entry) for entry in entries if entry]
    port = None if target.port == DEFAULT_PORTS[target.scheme] else target.port
    return any(pattern.matches(target, port) for pattern in patterns)


class _HttpxPattern(NamedTuple):
    scheme: str
    host: str
    port: int | None

    def matches(self, target: Target, port: int | None) -> bool:
        if self.scheme not in {"", "all", target.scheme} or (self.port is not None and self.port != port):
            return False
        if self.host in {"", "*"}:  # without a port the proxy's own pattern is found first
            return self.port is not None
        if self.host.startswith("*."):
            return target.host.endswith(self.host[1:]) and target.host != self.host[1:]
        if self.host.startswith("*"):
            return target.host == self.host[1:] or target.host.endswith(f".{self.host[1:]}")
        return target.host == self.host


_SCHEME = r"([a-zA-Z][a-zA-Z0-9+.-]*)?"


def _httpx_pattern(entry: str) -> _HttpxPattern:
    """Return what httpx makes of an entry; it parses it as the authority of a URL, and raises where that is none."""
    scheme, separator, rest = entry.partition("://")
    if not separator:
        scheme, rest = "all", _httpx_authority(entry)
    if any(char.isascii() and not char.isprintable() for char in entry) or scheme.startswith("::"):
        raise _CrashError
    if not re.fullmatch(_SCHEME, scheme):
        return _HttpxPattern("", "", None)  # all of it is taken for a path
    authority = re.split("[/?#]", rest, maxsplit=1)[0].rpartition("@")[2]
    found = re.match(r"(\[.*\]|[^:]*):?(.*)", authority, re.DOTALL)
    assert found is not None  # everything in it may be empty
    host, port = found[1], found[2]
    if host.startswith("["):
        host = host[1:-1]  # keeps its letter case, and is compared as text
        if not isinstance(_address(host), ipaddress.IPv6Address):
            raise _CrashError
    elif not host.isascii():
        # A name of other letters gets a star before it, which no internationalised name may have.
        raise _CrashError
    elif re.fullmatch(r"[0-9]+(\.[0-9]+){3}", host) and _address(host) is None:
        raise _CrashError
    if port and not re.fullmatch(r"\s*[+-]?\d+(_\d+)*\s*", port):  # what int() takes
        raise _CrashError
    return _HttpxPattern(scheme.lower(), host if ":" in host else host.lower(), int(port) if port else None)


def _httpx_authority(entry: str) -> str:
    base = _address(entry.partition("/")[0])
    if isinstance(base, ipaddress.IPv4Address) or entry.lower() == "localhost":
        return entry
    return f"[{entry}]" if isinstance(base, ipaddress.IPv6Address) else f"*{entry}"


# -- aiohttp: aiohttp.helpers.get_env_proxy_for_url ----------------------------------------------------------------


def _aiohttp(no_proxy: str, target: Target) -> bool:
    return _proxy_bypass(no_proxy, target.host)  # asks urllib, without port and brackets


_MODELS: dict[Client, Callable[[str, Target], bool]] = {
    Client.CURL: _curl,
    Client.GO: _go,
    Client.JAVA: _java,
    Client.URLLIB: _urllib,
    Client.REQUESTS: _requests,
    Client.HTTPX: _httpx,
    Client.AIOHTTP: _aiohttp,
}
