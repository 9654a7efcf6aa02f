"""The extraConfig of a VM: our guestinfo keys beside the user's own VMX keys.

Responsible for: one map of all keys, the total size, and what has to be written to a VM that has some of them.
Invariants: a key that we need is ours; a user's key of the same name is refused, never dropped in silence. Values are
in no repr. A redacted value (`---`) counts as written: the VM has read it.
Must not know: vCenter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from services.machine_controller.guestinfo.encode import MAX_TOTAL, REDACTED, SUFFIX, TooLargeError, encoded
from services.machine_controller.guestinfo.metadata import METADATA
from services.machine_controller.guestinfo.problems import InvalidError, Problem
from services.machine_controller.guestinfo.userdata import IGNITION, USERDATA, UserData
from services.machine_controller.guestinfo.vendordata import VENDORDATA

if TYPE_CHECKING:
    from collections.abc import Iterator

RESERVED = frozenset(name for key in (METADATA, USERDATA, VENDORDATA, IGNITION) for name in (key, f"{key}{SUFFIX}"))
"""Keys that are written by us alone, whether a VM needs them or not."""
_SPEC_FIELD = "spec.customVMXKeys"


class ExtraConfig(Mapping[str, str]):
    """Keys and values, immutable; shows keys and lengths only."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = dict(values)

    def __getitem__(self, key: str) -> str:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        """Lengths instead of values."""
        return f"ExtraConfig({', '.join(f'{key}: {len(value)}' for key, value in self._values.items())})"


def at_clone(user_data: UserData, vendor_data: bytes = b"", custom: Mapping[str, str] | None = None) -> ExtraConfig:
    """Keys that a VM gets when it is cloned, before its MAC addresses are known.

    `custom` are the user's VMX keys. Raises InvalidError when one of them is ours, TooLargeError.
    """
    keys = custom or {}
    problems = [
        Problem(f"{_SPEC_FIELD}[{key}]", key, "a key that is not written by the machine controller")
        for key in sorted(keys)
        if key.lower() in RESERVED
    ]
    if problems:
        raise InvalidError(problems)
    values = {**keys, **encoded(user_data.key, user_data.value)}
    if vendor_data:
        values |= encoded(VENDORDATA, vendor_data)
    _limit(values)
    return ExtraConfig(values)


def at_power_on(metadata: bytes, others: Mapping[str, str]) -> ExtraConfig:
    """Keys that a VM gets when its MAC addresses are known; `others` is what `at_clone` gave. Raises TooLargeError."""
    values = encoded(METADATA, metadata)
    _limit({**others, **values})
    return ExtraConfig(values)


def changes(wanted: Mapping[str, str], observed: Mapping[str, str], *, rewrite_redacted: bool = False) -> ExtraConfig:
    """Those of `wanted` that a VM does not have; a redacted one only with `rewrite_redacted`.

    That is for a VM which read its data and then lost power, so that it would boot for good without it.
    """

    def written(key: str) -> bool:
        seen = observed.get(key)
        if seen == wanted[key]:
            return True
        value_key = key.removesuffix(SUFFIX)
        redacted = value_key in RESERVED and observed.get(value_key) in REDACTED
        return redacted and value_key in observed and not rewrite_redacted

    return ExtraConfig({key: value for key, value in wanted.items() if not written(key)})


def redacted(observed: Mapping[str, str]) -> list[str]:
    """Keys of ours whose value a VM has replaced after it read them."""
    return sorted(key for key in RESERVED if not key.endswith(SUFFIX) and observed.get(key) in REDACTED)


def _limit(values: Mapping[str, str]) -> None:
    size = sum(len(key) + len(value) for key, value in values.items())
    if size > MAX_TOTAL:
        raise TooLargeError("extraConfig", size, MAX_TOTAL)
