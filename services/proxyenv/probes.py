"""What an entry of NO_PROXY is meant to reach, and which clients do not reach it by that entry.

Responsible for: reading the intent off the form of an entry (`10.*` is for addresses that begin so), and asking the
models of the clients about one host that it is for. So a complaint is never more than what the models say.
Invariant: an entry whose intent cannot be read has no probe, and is told apart from one that works.
Must not know: where lists come from, how complaints are shown.
"""

from __future__ import annotations

import enum
import ipaddress
import re
from typing import TYPE_CHECKING, NamedTuple

from services.proxyenv.clients import Client, Verdict, bypasses

if TYPE_CHECKING:
    from collections.abc import Iterable

_OCTETS = 4
_LABEL = r"[a-z0-9_]([-a-z0-9_]*[a-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*", re.IGNORECASE)
_ADDRESS_PREFIX = re.compile(r"\d{1,3}(\.\d{1,3}){0,2}\.")
_ADDRESS_GLOB = re.compile(r"(\d{1,3}\.){1,3}\*(\.\*)*")


class Form(enum.Enum):
    """What an entry looks like."""

    EVERYTHING = "everything"
    ADDRESS = "address"
    NETWORK = "network"
    BRACKETS = "address in brackets"
    GLOB = "glob of addresses"
    PREFIX = "beginning of an address"
    WILDCARD = "wildcard"
    SUFFIX = "suffix"
    NAME = "name"
    BLANK = "blank inside"
    UNKNOWN = "no host"


class Probe(NamedTuple):
    """An entry as it is understood: a host that it is for, empty when none can be told."""

    entry: str
    form: Form
    host: str = ""
    port: int | None = None
    last_dot: bool = False


def probe(entry: str) -> Probe:
    """Read one entry, trimmed."""
    if entry == "*":
        return Probe(entry, Form.EVERYTHING, "host.example")
    if entry.split() != [entry]:
        return Probe(entry, Form.BLANK)
    bare, port = _without_port(entry)
    if bare.startswith("[") and bare.endswith("]"):
        inside = bare[1:-1]
        return Probe(entry, Form.BRACKETS, inside, port) if _is_address(inside) else Probe(entry, Form.UNKNOWN)
    if _is_address(bare):
        return Probe(entry, Form.ADDRESS, bare, port)
    network = _network(bare)
    if network is not None:
        return Probe(entry, Form.NETWORK, str(network[min(1, network.num_addresses - 1)]), port)
    if _ADDRESS_GLOB.fullmatch(bare):
        return Probe(entry, Form.GLOB, _filled(bare.replace(".*", "")), port)
    if _ADDRESS_PREFIX.fullmatch(bare):
        return Probe(entry, Form.PREFIX, _filled(bare.removesuffix(".")), port)
    return _name_probe(entry, bare, port)


def _name_probe(entry: str, bare: str, port: int | None) -> Probe:
    last_dot = bare.endswith(".")
    name = bare.removesuffix(".")
    for begin, form in (("*.", Form.WILDCARD), (".", Form.SUFFIX), ("", Form.NAME)):
        domain = name.removeprefix(begin)
        if name.startswith(begin) and _NAME.fullmatch(domain):
            host = domain if form is Form.NAME else f"host.{domain}"
            return Probe(entry, form, host.lower(), port, last_dot)
    return Probe(entry, Form.UNKNOWN)


def missed_by(read: Probe, clients: Iterable[Client] = Client) -> dict[Client, Verdict]:
    """Clients that do not reach the probe's host directly by its entry alone, and what they do instead."""
    if not read.host:
        return {}
    answers = {client: bypasses(client, read.entry, read.host, read.port) for client in clients}
    return {client: verdict for client, verdict in answers.items() if verdict is not Verdict.DIRECT}


def crashed_by(entry: str, clients: Iterable[Client] = Client) -> list[Client]:
    """Clients that raise when they read the entry."""
    return [client for client in clients if bypasses(client, entry, "host.example") is Verdict.CRASH]


def _without_port(entry: str) -> tuple[str, int | None]:
    found = re.fullmatch(r"(\[[^\]]*\]|[^:\[\]]+):(\d{1,5})", entry)
    return (found[1], int(found[2])) if found else (entry, None)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    if "/" not in text:
        return None
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def _filled(octets: str) -> str:
    """Complete the beginning of an IPv4 address."""
    given = octets.split(".")
    return ".".join([*given, *["1"] * (_OCTETS - len(given))])
