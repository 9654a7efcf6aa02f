"""What is wrong with the values that a guest's configuration is made of.

Invariant: a problem names the field, the value and what would do; none of them is a secret.
Must not know: who is told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence


class Problem(NamedTuple):
    """One mistake: `field` is a path below the object, e.g. `spec.network.devices[0].mtu`."""

    field: str
    value: object
    expected: str

    def __str__(self) -> str:
        """`spec.network.devices[0].mtu: 20: at least 68`."""
        shown = repr(self.value) if isinstance(self.value, str) else str(self.value)
        return f"{self.field}: {shown}: {self.expected}"


class InvalidError(ValueError):
    """Values that cannot be carried out; `problems` has all of them."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = tuple(problems)
