"""How pools, addresses and discrepancies look: tables for people, plain data for programs.

Responsible for: columns, bars, large numbers and ages; the field names of the JSON and YAML output.
Invariants: the same rows give the same text; a bar is empty only when everything is free and full only when nothing is.
Must not know: where rows come from, the clock (`now` is Unix seconds).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from services import output
from services.ipam import api, intervals
from services.runtime.kube.conditions import parse_timestamp

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.ipam.api import ClaimKey, PoolKey
    from services.ipam.cli.overview import AddressRow, PoolRow
    from services.ipam.cli.verify import Discrepancy

BAR_WIDTH = 10
_PLAIN_BELOW = 10**10
_OFFSET_BELOW = 10**6
_MINUTE, _HOUR, _DAY, _YEAR = 60, 3600, 86_400, 31_536_000


def number(value: int) -> str:
    """Digits, or for what is too long to read a power of two: `2^64`, `2^64-3`, `~2^79.6`."""
    if abs(value) < _PLAIN_BELOW:
        return str(value)
    exponent = value.bit_length()
    nearest = min((exponent - 1, exponent), key=lambda power: abs(value - (1 << power)))
    offset = value - (1 << nearest)
    if abs(offset) < _OFFSET_BELOW:
        return f"2^{nearest}{offset:+d}" if offset else f"2^{nearest}"
    return f"~2^{math.log2(value):.1f}".removesuffix(".0")


def bar(fill: float | None) -> str:
    """`[####------] 41%`; `<1%` and `>99%` keep nearly from reading as none and all."""
    if fill is None:
        return ""
    filled = round(fill * BAR_WIDTH)
    percent = f"{fill:.0%}"
    if 0 < fill < 1:
        filled = min(max(filled, 1), BAR_WIDTH - 1)
        percent = {"0%": "<1%", "100%": ">99%"}.get(percent, percent)
    return f"[{'#' * filled}{'-' * (BAR_WIDTH - filled)}] {percent}"


def age(since: str, now: float) -> str:
    """Time since a timestamp as kubectl shortens it: `90s`, `15m`, `30h`, `12d`, `3y`; "" for none that can be read."""
    if not since:
        return ""
    try:
        seconds = max(0, int(now - parse_timestamp(since).timestamp()))
    except ValueError:  # what the API server takes for a date, such as one of the year 0
        return ""
    for limit, unit, letter in ((2 * _MINUTE, 1, "s"), (2 * _HOUR, _MINUTE, "m"), (2 * _DAY, _HOUR, "h")):
        if seconds < limit:
            return f"{seconds // unit}{letter}"
    return f"{seconds // _DAY}d" if seconds < 2 * _YEAR else f"{seconds // _YEAR}y"


# -- pools ---------------------------------------------------------------------------------------------------------

_POOL_COLUMNS = (
    *("NAMESPACE", "KIND", "NAME", "DOMAIN", "TOTAL", "USED", "FREE", "RESERVED", "COOLING", "OUT-OF-RANGE"),
    *("FILL", "READY"),
)


def pools(rows: Sequence[PoolRow], *, wide: bool) -> str:
    """Table of pools."""

    def cells(row: PoolRow) -> list[str]:
        counts = (row.total, row.used, row.free, row.reserved, row.cooling, row.out_of_range)
        ready = "True" if row.ready else f"False ({row.reason})"
        shown = [row.key.namespace, row.key.kind, row.key.name, row.domain, *map(number, counts), bar(row.fill), ready]
        return [*shown, row.status, row.ranges, row.message] if wide else shown

    return output.table((*_POOL_COLUMNS, *(("STATUS", "RANGES", "MESSAGE") if wide else ())), map(cells, rows))


def pool_data(row: PoolRow) -> dict[str, Any]:
    """Plain data of a pool; counts are exact integers, however large."""
    return {
        "kind": row.key.kind,
        "namespace": row.key.namespace,
        "name": row.key.name,
        "domain": row.domain,
        "total": row.total,
        "used": row.used,
        "free": row.free,
        "reserved": row.reserved,
        "cooling": row.cooling,
        "outOfRange": row.out_of_range,
        "fill": None if row.fill is None else round(row.fill, 4),
        "ready": row.ready,
        "reason": row.reason,
        "message": row.message,
        "ranges": row.ranges,
        "status": row.status,
    }


def pool_name(row: PoolRow) -> str:
    """Name of a pool as kubectl takes it."""
    group = api.METAL3_GROUP if row.key.kind == api.IP_POOLS.kind else api.OWN_GROUP
    return f"{row.key.kind.lower()}.{group}/{row.key.name}"


# -- addresses -----------------------------------------------------------------------------------------------------

_ADDRESS_COLUMNS = ("ADDRESS", "DOMAIN", "STATE", "POOL", "CLAIM", "IPADDRESS", "AGE", "DESCRIPTION")


def addresses(rows: Sequence[AddressRow], now: float, *, wide: bool) -> str:
    """Table of addresses."""

    def cells(row: AddressRow) -> list[str]:
        shown = [
            intervals.text(row.at),
            row.domain,
            row.state,
            ", ".join(str(pool) for pool in row.pools),
            str(row.claim or ""),
            row.address_object,
            age(row.since, now),
            row.description,
        ]
        return [*shown, row.reservation] if wide else shown

    return output.table((*_ADDRESS_COLUMNS, *(("IPRESERVATION",) if wide else ())), map(cells, rows))


def address_data(row: AddressRow) -> dict[str, Any]:
    """Plain data of an address and one of its holders."""
    return {
        "address": intervals.text(row.at),
        "domain": row.domain,
        "state": row.state,
        "pools": [_key_data(pool) for pool in row.pools],
        "claim": None if row.claim is None else _key_data(row.claim),
        "ipAddress": row.address_object,
        "since": row.since,
        "description": row.description,
        "ipReservation": row.reservation,
    }


def address_names(row: AddressRow) -> list[str]:
    """Names of the IPAddresses of a row; of its IPReservation where it has none."""
    if row.claim is None or not row.address_object:
        return [f"ipreservation.{api.OWN_GROUP}/{row.reservation}"] if row.reservation else []
    group = api.METAL3_GROUP if row.claim.kind == api.IP_CLAIMS.kind else api.CAPI_GROUP
    return [f"ipaddress.{group}/{name.rpartition('/')[2]}" for name in row.address_object.split(", ")]


def _key_data(key: PoolKey | ClaimKey) -> dict[str, str]:
    return {"kind": key.kind, "namespace": key.namespace, "name": key.name}


# -- discrepancies -------------------------------------------------------------------------------------------------


def discrepancies(found: Sequence[Discrepancy], summary: str) -> str:
    """Paragraph for each discrepancy and a last line that sums up."""
    lines = []
    for item in found:
        mark = "note" if item.information else "DISCREPANCY"
        lines += [f"{mark} {item.kind}: {item.subject}", f"  what:  {item.wrong}", f"  to do: {item.action}", ""]
    return "\n".join([*lines, summary, ""])


def discrepancy_data(item: Discrepancy) -> dict[str, Any]:
    """Plain data of a discrepancy."""
    return {
        "kind": item.kind,
        "object": item.subject,
        "wrong": item.wrong,
        "action": item.action,
        "information": item.information,
    }
