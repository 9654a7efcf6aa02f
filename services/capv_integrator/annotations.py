"""What users write to say which pools serve what: the grammar of our annotations and labels.

    integrator.groundwork.dev/pools = choice *( ";" choice )
    choice = [ device "=" ] pool *( "," pool )
    device = index / network            ; place in spec.network.devices, or its networkName
    pool   = [ "ipv4:" / "ipv6:" ] [ kind [ "." group ] "/" ] [ namespace "/" ] name

    vlan-7                                    every device that waits, out of the pool vlan-7
    vlan-7, vlan-7-spare, vlan-7-v6           the one of the two IPv4 pools with more free addresses, and an IPv6 one
    0=vlan-7; VM Network=GlobalIPPool/storage by index, and by network
    ipv6:NetBoxPrefix.ipam.example.org/v6     a kind of a provider that the integrator does not know

A choice without a device is for the devices that no other choice names; an index goes before a network. Pools of one
family are alternatives, one of each family is used. Spaces around the separators do not matter.
Responsible for: parsing, and matching a device. Invariant: what cannot be understood raises; nothing is guessed.
Must not know: which pools exist.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from services.capv_integrator import api

if TYPE_CHECKING:
    from collections.abc import Mapping

IPV4 = "ipv4"
IPV6 = "ipv6"
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_KIND = re.compile(r"[A-Z][-A-Za-z0-9]*")
_INDEX = re.compile(r"0|[1-9][0-9]*")
KNOWN_GROUPS = {kind: resources[0].group for kind, resources in api.POOLS.items()}


class AnnotationError(ValueError):
    """An annotation does not follow the grammar; the text says what is wrong with which part."""


class PoolName(NamedTuple):
    """One pool as it was written; an empty kind means any of the known ones, an empty namespace the machine's own."""

    name: str
    namespace: str = ""
    kind: str = ""
    group: str = ""
    family: str = ""
    """`ipv4`, `ipv6`, or "" for what the pool itself says."""

    def __str__(self) -> str:
        """As a user would write it, without the family."""
        kind = self.kind if KNOWN_GROUPS.get(self.kind, "") == self.group else f"{self.kind}.{self.group}"
        return "/".join(part for part in (kind, self.namespace, self.name) if part)


class Choices(NamedTuple):
    """A parsed annotation."""

    by_device: Mapping[str, tuple[PoolName, ...]]
    rest: tuple[PoolName, ...] = ()
    """Pools for devices that are not in `by_device`."""

    def of(self, index: int, network: str) -> tuple[PoolName, ...]:
        """Pools for a device; none when the annotation says nothing about it."""
        named = self.by_device.get(str(index))
        if named is None:
            by_network = ((device, pools) for device, pools in self.by_device.items() if not _INDEX.fullmatch(device))
            named = next((pools for device, pools in by_network if same_network(device, network)), None)
        return self.rest if named is None else named


def parse_pools(text: str) -> Choices:
    """Parse `integrator.groundwork.dev/pools`. Raises AnnotationError."""
    by_device: dict[str, tuple[PoolName, ...]] = {}
    rest: tuple[PoolName, ...] = ()
    for choice in text.split(";"):
        # A network's name may hold "=", a pool's cannot.
        device, separator, pools = choice.rpartition("=")
        device = device.strip()
        names = tuple(_pool(part.strip()) for part in pools.split(","))
        if separator and not device:
            raise AnnotationError(f"{choice.strip()!r} names no device before '='")
        if device in by_device or (not device and rest):
            raise AnnotationError(f"{device or 'the rest of the devices'!r} is chosen for twice")
        if device:
            by_device[device] = names
        else:
            rest = names
    return Choices(by_device, rest)


def _pool(text: str) -> PoolName:
    family, separator, reference = text.rpartition(":")
    if separator and family not in {IPV4, IPV6}:
        raise AnnotationError(f"{text!r}: before ':' stands ipv4 or ipv6")
    parts = reference.split("/")
    kind = group = ""
    if len(parts) > 1 and parts[0][:1].isupper():
        kind, _, group = parts.pop(0).partition(".")
        group = group or KNOWN_GROUPS.get(kind, "")
        if not _KIND.fullmatch(kind) or (group and not _NAME.fullmatch(group)):
            raise AnnotationError(f"{text!r} names no kind of pool")
        if not group:
            raise AnnotationError(f"{text!r}: kind {kind} needs its API group, as in {kind}.ipam.example.org/name")
    if len(parts) not in {1, 2} or not all(_NAME.fullmatch(part) for part in parts):
        raise AnnotationError(f"{text!r} is not a pool: [kind/][namespace/]name")
    namespace = parts[0] if len(parts) > 1 else ""
    return PoolName(parts[-1], namespace, kind, group, family)


def same_network(wanted: str, network: str) -> bool:
    """Tell whether a user means that network: its name as CAPV has it, or the last part of its inventory path."""
    return wanted == network or ("/" not in wanted and wanted == network.rpartition("/")[2])


def words(text: str) -> tuple[str, ...]:
    """Parts of a comma list, without empty ones."""
    return tuple(part for part in (item.strip() for item in text.split(",")) if part)
