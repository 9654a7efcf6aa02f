"""The kinds of values a setting can have: how their text is read, and what a message says was expected.

Responsible for: parsers as values (`Parser`), and how a field shows on the command line (`Flag`).

Invariants: a parser is pure and raises ValueError, nothing else, on what it does not take.

Must not know: argparse, the environment, which settings there are.
"""

import dataclasses
import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

__all__ = [
    "Address",
    "Flag",
    "Parser",
    "address",
    "boolean",
    "choice",
    "duration",
    "host",
    "namespace",
    "service",
    "text",
    "whole",
]

_DNS_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_UNITS: Final[Mapping[str, float]] = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001, "": 1.0}
_DURATION: Final = re.compile(r"\d+(\.\d+)?|(\d+(\.\d+)?(h|ms|m|s))+")
_DURATION_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|s|)")
_MAX_PORT: Final = 65535
_MAX_NAME: Final = 253


class Address(NamedTuple):
    """Where a server listens. An empty host means every address, port 0 one that the kernel picks."""

    host: str
    port: int

    def __str__(self) -> str:
        """Return host:port, with brackets around an IPv6 address."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclasses.dataclass(frozen=True, slots=True)
class Parser:
    """Turns the text of a setting into its value, or raises ValueError; `expects` completes "expected ..."."""

    parse: Callable[[str], Any]
    expects: str


@dataclasses.dataclass(frozen=True, slots=True)
class Flag:
    """Annotation of a field: how it shows on the command line.

    With `boolean` as parser the flag is a pair, `--x` and `--no-x`. `aliases` are whole flags (`--other-name`). The
    values of a repeatable flag become a tuple.
    """

    help: str
    parser: Parser
    metavar: str = "VALUE"
    aliases: tuple[str, ...] = ()
    repeatable: bool = False


def whole(minimum: int, maximum: int) -> Parser:
    """Expect a whole number within two bounds."""

    def parse(value: str) -> int:
        number = int(value)
        if not minimum <= number <= maximum:
            raise ValueError
        return number

    return Parser(parse, f"a whole number from {minimum} to {maximum}")


def choice(*allowed: str) -> Parser:
    """Expect one of a few words, in any case."""

    def parse(value: str) -> str:
        folded = value.lower()
        if folded not in allowed:
            raise ValueError
        return folded

    return Parser(parse, f"one of {', '.join(allowed)}")


def _parse_text(value: str) -> str:
    if not value:
        raise ValueError
    return value


def _parse_boolean(value: str) -> bool:
    words = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
    if value.lower() not in words:
        raise ValueError
    return words[value.lower()]


def _parse_label(value: str) -> str:
    if not _DNS_LABEL.fullmatch(value):
        raise ValueError
    return value


def _parse_host(value: str) -> str:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        labels = value.removeprefix("*.").lower().split(".")
        if len(value) > _MAX_NAME or not all(_DNS_LABEL.fullmatch(label) for label in labels):
            raise
        return value.lower()


def _parse_address(value: str) -> Address:
    host, colon, port = value.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > _MAX_PORT:
        raise ValueError
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError
    return Address(host, int(port))


def _parse_duration(value: str) -> float:
    if not _DURATION.fullmatch(value):
        raise ValueError
    seconds = sum(float(number) * _UNITS[unit] for number, unit in _DURATION_PART.findall(value))
    if seconds <= 0:
        raise ValueError
    return seconds


text: Final = Parser(_parse_text, "a text that is not empty")
boolean: Final = Parser(_parse_boolean, "true or false")
namespace: Final = Parser(_parse_label, "the name of a namespace (a DNS label)")
service: Final = Parser(_parse_label, "the name of a Service (a DNS label)")
host: Final = Parser(_parse_host, "a DNS name or an IP address")
duration: Final = Parser(_parse_duration, "a duration above zero such as 15s, 500ms or 1m30s")
"""Seconds, written as Go and Kubernetes write durations; a number without a unit counts as seconds."""
address: Final = Parser(_parse_address, "HOST:PORT, [IPV6]:PORT or :PORT")
