"""Which variable a client takes its proxy and its NO_PROXY list from, when several are set.

Responsible for: letter cases, ALL_PROXY and empty values, client by client. `HTTP_PROXY=x` alone is not seen by curl,
`no_proxy=""` hides NO_PROXY from urllib and not from curl: which is why both spellings must always be set and equal.
Sources: curl lib/url.c detect_proxy, golang.org/x/net/http/httpproxy FromEnvironment, urllib.request
getproxies_environment (which requests, httpx and aiohttp build on).
Invariant: a variable that a client treats as unset is the empty string here.
Must not know: what the list means (see `clients`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from services.proxyenv.clients import Client, Verdict, bypasses

if TYPE_CHECKING:
    from collections.abc import Mapping

_URLLIB_FAMILY = frozenset({Client.URLLIB, Client.REQUESTS, Client.HTTPX, Client.AIOHTTP})
_KNOW_ALL_PROXY = frozenset({Client.CURL, Client.REQUESTS, Client.HTTPX})


class Settings(NamedTuple):
    """What a client has read: the proxy for a scheme and the list; empty where there is none."""

    proxy: str
    no_proxy: str


def settings(client: Client, environment: Mapping[str, str], scheme: str = "http") -> Settings:
    """What `client` takes from `environment` for requests with `scheme` (http or https)."""
    if client is Client.JAVA:
        return Settings("", "")
    proxy = _read(client, environment, scheme)
    if not proxy and client in _KNOW_ALL_PROXY:
        proxy = _read(client, environment, "all")
    return Settings(proxy, _read(client, environment, "no"))


def reaches(
    client: Client, environment: Mapping[str, str], host: str, port: int | None = None, scheme: str = "http"
) -> Verdict:
    """What a program with `client` and these variables does with a request to `host`; see `clients.bypasses`."""
    proxy, no_proxy = settings(client, environment, scheme)
    verdict = bypasses(client, no_proxy, host, port, scheme)
    # A list that makes a client raise does so without a proxy as well.
    return Verdict.DIRECT if not proxy and verdict is Verdict.PROXIED else verdict


def _read(client: Client, environment: Mapping[str, str], what: str) -> str:
    lower_name, upper_name = f"{what}_proxy", f"{what}_proxy".upper()
    lower, upper = environment.get(lower_name), environment.get(upper_name) or ""
    if client is Client.GO:
        return upper or lower or ""
    if client is Client.CURL and what == "http":
        # A CGI program gets the request header Proxy as HTTP_PROXY: whoever sends it must not choose the proxy.
        return lower or ""
    if client in _URLLIB_FAMILY and lower == "" and not (client is Client.REQUESTS and what == "no"):
        return ""
    return lower or upper
