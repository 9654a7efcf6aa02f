"""What can be set about zones; the machine controller's settings are these and its own."""

from __future__ import annotations

import dataclasses
import re
from typing import Annotated

from services.runtime.flags import Parser
from services.runtime.kube.objects import ObjectKey
from services.runtime.settings import Flag, Settings, duration

_SECRET = re.compile(r"([a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?)/([a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?)")


def _parse_secret(value: str) -> ObjectKey:
    match = _SECRET.fullmatch(value)
    if match is None:
        raise ValueError
    return ObjectKey(match[1], match[2])


secret = Parser(_parse_secret, "NAMESPACE/NAME of a Secret")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ZoneSettings(Settings):
    """Settings of zones."""

    zone_period: Annotated[
        float, Flag("between two looks at a zone that is ready, since vCenter tells of no change", duration, "TIME")
    ] = 300.0
    zone_tags_secret: Annotated[
        ObjectKey | None,
        Flag(
            "Secret with the vCenter user that makes and attaches tags of failure domains whose annotation asks for it",
            secret,
            "NS/NAME",
        ),
    ] = None
