"""Whether two pieces of a pod say the same, once the API server has filled in its defaults.

Responsible for: recognising what a preset gave when the pod comes by again, with `defaultMode: 420` and the like added
to it by then.
Invariant: the relation is symmetric; an absent field equals its default or, where none is known, its zero value.
Source: core/v1 defaults (kubernetes pkg/apis/core/v1/defaults.go).
Must not know: presets.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

_DEFAULTS: dict[str, tuple[Any, ...]] = {
    "apiVersion": ("v1",),
    "cachingMode": ("ReadWrite",),
    "defaultMode": (420,),
    "divisor": ("0",),
    "expirationSeconds": (3600,),
    "fsType": ("ext4", "xfs"),
    "iscsiInterface": ("default",),
    "keyring": ("/etc/ceph/keyring",),
    "kind": ("Shared",),
    "maxExpirationSeconds": (86400,),
    "pool": ("rbd",),
    "pullPolicy": ("Always", "IfNotPresent"),
    "storageMode": ("ThinProvisioned",),
    "user": ("admin",),
    "volumeMode": ("Filesystem",),
}
_ZEROES: tuple[Any, ...] = (None, False, 0, "", [])
_QUANTITIES = frozenset({"divisor", "sizeLimit", "storage"})
_QUANTITY = re.compile(r"([0-9]*\.?[0-9]+)(?:([numkMGTPE]|[KMGTPE]i)|[eE]([+-]?[0-9]{1,2}))?")
_QUANTITY_LENGTH = 64
"""Characters that are looked at: trying a long row of digits in every way takes long."""
_SCALES = {
    **{
        suffix: Fraction(1000) ** power
        for suffix, power in zip("numkMGTPE", (-3, -2, -1, 1, 2, 3, 4, 5, 6), strict=True)
    },
    **{f"{suffix}i": Fraction(1024) ** power for power, suffix in enumerate("KMGTPE", 1)},
}


def same(one: Any, other: Any) -> bool:
    """Tell whether two JSON values mean the same to the API server."""
    if one == other:
        return True
    if isinstance(one, dict) and isinstance(other, dict):
        return all(_same_field(key, one, other) for key in one.keys() | other.keys())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(same(left, right) for left, right in zip(one, other, strict=True))
    return False


def kept(given: Any, known: Any, own: Any) -> Any:
    """Return what of `given` an API server may have kept that made `own` of it: what is in that, and what is `known`.

    A field that it does not know, a misspelled one or that of a later Kubernetes, it drops without a word.
    """
    if isinstance(given, dict):
        known, own = (value if isinstance(value, dict) else {} for value in (known, own))
        return {
            key: kept(value, known.get(key), own.get(key)) for key, value in given.items() if key in known or key in own
        }
    lists = all(isinstance(value, list) for value in (given, known, own))
    if lists and len(given) == len(known) == len(own):
        return [kept(*items) for items in zip(given, known, own, strict=True)]
    return given


def _same_field(key: str, one: dict[str, Any], other: dict[str, Any]) -> bool:
    if key in one and key in other:
        left, right = one[key], other[key]
        return same(left, right) or (key in _QUANTITIES and _same_quantity(left, right))
    value = one[key] if key in one else other[key]
    if isinstance(value, dict):  # up to Kubernetes 1.33 an empty metadata is written as {creationTimestamp: null}
        return all(field is None for field in value.values())
    return value in _DEFAULTS.get(key, _ZEROES) or value is None or value == ""


def _same_quantity(one: Any, other: Any) -> bool:
    quantity = _quantity(one)
    return quantity is not None and quantity == _quantity(other)


def _quantity(text: Any) -> Fraction | None:
    """Value of a resource quantity such as `1Gi`; None for what is none."""
    written = str(text)
    found = _QUANTITY.fullmatch(written) if len(written) <= _QUANTITY_LENGTH else None
    if found is None:
        return None
    number, suffix, exponent = found.groups()
    return Fraction(number) * (_SCALES[suffix] if suffix else Fraction(10) ** int(exponent or 0))
