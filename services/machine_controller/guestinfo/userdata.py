"""Bootstrap data of a machine, as the bootstrap provider wrote it.

Responsible for: which guestinfo key each format of the bootstrap Secret goes to.
Invariants: the value is never changed, not by a byte; it holds join tokens and keys, so it is in no repr and no error.
Must not know: what the data says.
Source: Cluster API's bootstrap contract (`data.value`, `data.format`), CAPV's names of the keys.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

from services.machine_controller.guestinfo.problems import InvalidError, Problem

USERDATA = "guestinfo.userdata"
IGNITION = "guestinfo.ignition.config.data"


class Format(enum.StrEnum):
    """Formats of bootstrap data."""

    CLOUD_CONFIG = "cloud-config"
    IGNITION = "ignition"


class UserData(NamedTuple):
    """Bootstrap data: its format and bytes."""

    format: Format
    value: bytes

    @classmethod
    def read(cls, value: bytes, format_: str = "") -> UserData:
        """Data of a bootstrap Secret, `format_` as in its `data.format`, empty for the default cloud-config.

        Raises InvalidError for a format that no image reads and for data that is empty.
        """
        try:
            known = Format(format_ or Format.CLOUD_CONFIG)
        except ValueError:
            formats = " or ".join(Format)
            raise InvalidError([Problem("data.format", format_, formats)]) from None
        if not value:
            raise InvalidError([Problem("data.value", "", "bootstrap data")])
        return cls(known, value)

    @property
    def key(self) -> str:
        """The guestinfo key that carries it."""
        return IGNITION if self.format is Format.IGNITION else USERDATA

    def __repr__(self) -> str:
        """Size only."""
        return f"UserData({self.format}, {len(self.value)} bytes)"
