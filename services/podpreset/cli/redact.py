"""Hiding what must not be on a screen or in a CI log: credentials in values of variables.

Responsible for: the user part of URLs, and whole values of variables whose names say that they are secret.
Invariant: a value is shown as it is only where neither holds.
Must not know: pods, presets.
"""

from __future__ import annotations

import re
from typing import Any

HIDDEN = "***"

_USER_PART = re.compile(r"(?<=://)[^/?#\s]*@")
_USER_PART_WITHOUT_SCHEME = re.compile(r"^[^\s/@,:]+:[^\s/@,]+@(?=[^\s/@,]+)")
_SECRET_NAME = re.compile(
    r"(pass(word|wd|phrase)?|secret|token|credentials?|api_?key|access_?key|private_?key|auth)$", re.IGNORECASE
)


def value(name: str, text: str) -> str:
    """Return the value of variable `name` as it may be shown."""
    if _SECRET_NAME.search(name) and text:
        return HIDDEN
    return _USER_PART_WITHOUT_SCHEME.sub(f"{HIDDEN}@", _USER_PART.sub(f"{HIDDEN}@", text))


def pod(data: Any) -> Any:
    """Return a copy of a pod or any part of one with the values of all its variables as they may be shown."""
    if isinstance(data, dict):
        shown = {key: pod(item) for key, item in data.items()}
        if isinstance(data.get("name"), str) and isinstance(data.get("value"), str):
            shown["value"] = value(data["name"], data["value"])
        return shown
    return [pod(item) for item in data] if isinstance(data, list) else data
