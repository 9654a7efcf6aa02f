"""Which environment variables are proxy variables, and how they are spelled.

Invariant: a proxy variable is known by its name in all lower case or all upper case; a mixed spelling is some other
variable, as no client reads it.
Source: what curl, Go's net/http, Python's urllib and requests read, and the proxy variables that Docker predefines.
Must not know: values, presets.
"""

from __future__ import annotations

NO_PROXY = "no_proxy"
LOWER = ("http_proxy", "https_proxy", "ftp_proxy", "all_proxy", NO_PROXY)
"""The proxy variables in lower case."""

_FAMILY = {spelling: name for name in LOWER for spelling in (name, name.upper())}


def family(name: str) -> str | None:
    """Return the lower-case name of a proxy variable, None for any other."""
    return _FAMILY.get(name)


def is_no_proxy(name: str) -> bool:
    """Tell whether a variable is `NO_PROXY` or `no_proxy`, the one that holds a list."""
    return _FAMILY.get(name) == NO_PROXY


def spellings(name: str, *, ignore_case: bool = False) -> tuple[str, ...]:
    """Return the names under which a variable is set: upper and lower case for a proxy variable, else its own.

    Both, because Go prefers the upper case, curl and Python the lower, and curl ignores HTTP_PROXY. With `ignore_case`
    (Windows, where both are one variable) a proxy variable has the upper-case spelling alone.
    """
    lower = _FAMILY.get(name)
    if lower is None:
        return (name,)
    return (lower.upper(),) if ignore_case else (lower.upper(), lower)
