"""The status page for scripts: the same facts as JSON.

Responsible for: names and shapes of /status.json and of a pool's status.json. Times are RFC 3339 in UTC; counts are
those of a pool's `status.ipAddresses`; fields are added, never renamed.
Must not know: where facts are read from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from services.ipam import intervals
from services.runtime.kube.conditions import plain, timestamp

if TYPE_CHECKING:
    from services.ipam.api import ClaimKey, PoolKey
    from services.ipam.web.facts import Crowd, Overview, PoolLine, PoolPage, Scene

Json = dict[str, Any]


def overview_report(scene: Scene, overview: Overview) -> bytes:
    """Return every pool, and the claims that waited longest."""
    report = {
        **_scene(scene),
        "totals": {
            "pools": len(overview.pools),
            "used": sum(line.held for line in overview.pools),
            "waiting": overview.crowd.waiting,
            "returning": overview.crowd.returning,
        },
        "pools": [_line(line) for line in sorted(overview.pools, key=lambda line: line.key)],
        "unserved": _crowd(overview.crowd),
    }
    return msgspec.json.encode(report)


def pool_report(scene: Scene, page: PoolPage) -> bytes:
    """Return one pool with a page of what is taken; `next` is the address from which to ask on, null at the end."""
    survey = page.survey
    report = {
        **_scene(scene),
        "pool": _line(page.line),
        "problems": list(page.problems),
        "unserved": _crowd(page.crowd),
        "taken": survey.taken,
        "addresses": [
            {
                "address": intervals.text(entry.at),
                "state": entry.state.value,
                "claims": [_claim(key) for key in entry.claims],
                "owner": entry.owner,
                "cluster": entry.cluster,
                "since": entry.since or None,
                "note": entry.note,
            }
            for entry in survey.entries
        ],
        "next": intervals.text(survey.entries[-1].at + 1) if survey.more else None,
        "history": [sample._asdict() for sample in page.samples],
    }
    return msgspec.json.encode(report)


def _scene(scene: Scene) -> Json:
    return {
        "asOf": timestamp(scene.now),
        "replica": scene.replica,
        "role": scene.role,
        "watchedNamespaces": list(scene.namespaces),
        "notReadYet": list(scene.missing),
    }


def _line(line: PoolLine) -> Json:
    return {
        **_pool(line.key),
        "domain": line.domain,
        "ranges": line.ranges,
        "addresses": msgspec.to_builtins(line.counts),
        "waiting": line.waiting,
        "returning": line.returning,
        "paused": line.paused,
        "conditions": plain(line.conditions),
    }


def _crowd(crowd: Crowd) -> list[Json]:
    return [
        {
            "claim": _claim(item.key),
            "pool": _pool(item.pool),
            "since": item.since or None,
            "returning": item.returning,
            "reason": item.reason,
            "message": item.message,
            "owner": item.owner,
        }
        for item in crowd.oldest
    ]


def _pool(key: PoolKey) -> Json:
    return key._asdict()


def _claim(key: ClaimKey) -> Json:
    return key._asdict()
