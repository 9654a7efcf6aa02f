"""Numbers, times and names as a reader wants them.

Responsible for: the texts that several parts of the page share. Times are in UTC and say so.
Must not know: HTML.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from services.ipam import api
from services.ipam.poolstate import MAX_INT64
from services.runtime.kube.conditions import parse_timestamp

if TYPE_CHECKING:
    from datetime import datetime

    from services.ipam.api import PoolKey

_MILLION = 1_000_000
_UNITS = ((86_400, "d"), (3600, "h"), (60, "m"), (1, "s"))
_TWO_UNITS_BELOW = 10


def grouped(number: int) -> str:
    """Return a count with its digits in groups; a very large one as 1.8e19, since nobody counts its digits."""
    if number == MAX_INT64:  # saturated: at least so many
        return "over 9e18"
    if number >= _MILLION * _MILLION:
        digits = len(str(number)) - 1
        return f"{number / 10**digits:.1f}e{digits}"
    return f"{number:,}"


def percent(share: float) -> str:
    """Return a share of one; only nothing and all are 0 % and 100 %."""
    whole = round(100 * share)
    if share > 0 and whole == 0:
        return "under 1 %"
    return "over 99 %" if share < 1 and whole == 100 else f"{whole} %"  # noqa: PLR2004 - of a hundred


def moment(text: str) -> str:
    """Return an RFC 3339 time for reading, "" for one that is none."""
    try:
        return parse_timestamp(text).strftime("%Y-%m-%d %H:%M:%S UTC")
    except ValueError:
        return ""


def age(text: str, now: datetime) -> str:
    """Return how long ago an RFC 3339 time was, as kubectl does: `45s`, `3m20s`, `12d`."""
    try:
        seconds = max(0, int((now - parse_timestamp(text)).total_seconds()))
    except ValueError:
        return "-"
    for index, (size, unit) in enumerate(_UNITS):
        count, rest = divmod(seconds, size)
        if count:
            finer, name = _UNITS[min(index + 1, len(_UNITS) - 1)]
            more = rest // finer if count < _TWO_UNITS_BELOW and name != unit else 0
            return f"{count}{unit}{more}{name}" if more else f"{count}{unit}"
    return "0s"


def pool_path(pool: PoolKey) -> str:
    """Return the address of a pool's page."""
    parts = (pool.kind, pool.namespace, pool.name) if pool.kind == api.IP_POOLS.kind else (pool.kind, pool.name)
    return "/pools/" + "/".join(quote(part, safe="") for part in parts)
