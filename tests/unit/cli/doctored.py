"""What the tables of the doctor's checks are made of: a moment, a service, and what a check says."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import msgspec

from services.doctor import checks
from services.doctor.seen import (
    Service,
    Unread,
    Why,
)
from services.runtime.kube.objects import KubeObject

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
OLD = "2026-11-01T11:00:00Z"
SYSTEM = "groundwork-system"
DAY = timedelta(days=1)
DENIED = Unread("things", Why.FORBIDDEN, "no")


def service(component="ipam", **changes):
    name = f"groundwork-{component}"
    plain = Service(component, SYSTEM, name, name, replicas=2, available=2, trouble="", flags={})
    return plain._replace(**changes)


def said(check, seen):
    """What a check says: (level, object, what)."""
    return [(str(item.level), item.subject, item.what) for item in checks.CHECKS[check].decide(seen)]


def levels(check, seen):
    return [str(item.level) for item in checks.CHECKS[check].decide(seen)]


def obj(plain, **meta):
    plain = {**plain, "metadata": {"creationTimestamp": OLD, "generation": 1, **plain["metadata"], **meta}}
    return msgspec.json.decode(json.dumps(plain), type=KubeObject)
