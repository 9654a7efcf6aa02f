"""What the status page answers to whom, and with which headers: the rules that keep it from being a way in.

Responsible for: the headers of every answer, and which names in a request's Host are answered. The page has no secrets
but tells names of machines and clusters: a web page of somebody else's, opened in the browser of an operator who has
forwarded the port, must not be able to read it, embed it or make it run anything.
Invariant: a Host that somebody outside could make resolve to this address (DNS rebinding) is refused; names that only
the cluster or the own machine resolve, addresses, and names given by `--web-host` are answered.
Must not know: what is shown.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
METHODS: Final = ("GET", "HEAD")
_INSIDE: Final = (".localhost", ".svc", ".cluster.local")


def answers(host: str, allowed: Collection[str] = ()) -> bool:
    """Tell whether a request with this Host header (a name, with or without port) is answered."""
    name = _name_of(host).lower().rstrip(".")
    if not name:
        return False
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return "." not in name or name.endswith(_INSIDE) or name in allowed
    return True


def _name_of(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if ":" in host else host
