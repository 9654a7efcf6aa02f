"""A NO_PROXY list as Java's property `http.nonProxyHosts`.

Responsible for: patterns that reach what the list means. Java reads no proxy variables, knows no suffix, no CIDR and no
port, but a star at the beginning or the end of a pattern; so a network becomes the prefixes of its addresses.
Invariant: what cannot be said in Java's patterns is returned, never dropped in silence.
Source: java.net, "Networking Properties"; sun.net.spi.DefaultProxySelector.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

_OCTET_BITS = 8


class JavaHosts(NamedTuple):
    """`hosts` is the value of the property; `left_out` the entries that Java has no pattern for."""

    hosts: str
    left_out: tuple[str, ...]


def java_non_proxy_hosts(no_proxy: str) -> JavaHosts:
    """Translate a NO_PROXY list. A network of addresses takes at most 128 patterns."""
    patterns: dict[str, None] = {}
    left_out: list[str] = []
    for entry in (item.strip() for item in no_proxy.split(",")):
        if not entry:
            continue
        found = list(_patterns(entry.lower()))
        patterns.update(dict.fromkeys(found))
        if not found:
            left_out.append(entry)
    return JavaHosts("|".join(patterns), tuple(left_out))


def _patterns(entry: str) -> Iterator[str]:
    try:
        network = ipaddress.ip_network(entry.removeprefix("[").removesuffix("]"), strict=False)
    except ValueError:
        yield from _names(entry)
        return
    if isinstance(network, ipaddress.IPv4Network):
        yield from _networks(network)
    elif network.prefixlen == ipaddress.IPV6LENGTH:
        yield f"[{network.network_address}]"  # the host of a URL is compared with its brackets, as text


def _networks(network: ipaddress.IPv4Network) -> Iterator[str]:
    octets = -(-network.prefixlen // _OCTET_BITS)
    for part in network.subnets(new_prefix=octets * _OCTET_BITS):
        prefix = ".".join(str(part.network_address).split(".")[:octets])
        yield prefix if octets == ipaddress.IPV4LENGTH // _OCTET_BITS else f"{prefix}.*".removeprefix(".")


def _names(entry: str) -> Iterator[str]:
    name = entry.removesuffix(".")
    inner = name.removeprefix("*").removesuffix("*")
    if name == "*":
        yield name
    elif not name or set(inner) & set(" \t*|:/[]"):  # no port, and a star at the ends alone
        return
    elif re.fullmatch(r"\d{1,3}(\.\d{1,3}){0,2}", name) and entry.endswith("."):  # 192.168. means what begins so
        yield f"{entry}*"
    elif name.startswith("."):
        yield f"*{name}"
    elif "*" in name:
        yield name
    else:
        yield from (name, f"*.{name}")
