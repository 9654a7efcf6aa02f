"""Which way requests to one host go: a row for each list, an answer for each client.

Responsible for: reading the host that was asked for; the lists that presets give and the variables that containers
would have; and Java, which is taken to be given the list in its own form, since it reads no variable.
Must not know: how it is shown.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from services.podpreset.cli.lint import containers
from services.podpreset.layers import fold, fold_volumes
from services.proxyenv import names
from services.proxyenv.clients import Client, Verdict, bypasses, java_bypasses
from services.proxyenv.javahosts import java_non_proxy_hosts
from services.proxyenv.precedence import reaches, settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from services.podpreset.cli.whatif import Admitted
    from services.podpreset.compiled import Preset
    from services.proxyenv.complete import Facts

_DESTINATION = re.compile(r"(?:(https?)://)?(\[[0-9a-fA-F:.]+\]|[^\s:/,\[\]@]+)(?::(\d{1,5}))?/?")
_BARE_IPV6 = re.compile(r"[0-9a-fA-F]*:[0-9a-fA-F:.]*:[0-9a-fA-F:.]*")
_PORTS = 65535

Ways = dict[Client, Verdict]


class Destination(NamedTuple):
    """A host that is asked for; no port means the scheme's."""

    scheme: str
    host: str
    port: int | None


def parse_destination(text: str) -> Destination:
    """Read `HOST`, `HOST:PORT` or either with `http://` or `https://` before it. Raises ValueError."""
    if _BARE_IPV6.fullmatch(text):
        return Destination("http", text, None)
    found = _DESTINATION.fullmatch(text)
    if found is None or int(found[3] or 0) > _PORTS:
        raise ValueError(f"{text!r} is no host: write HOST or HOST:PORT, an IPv6 address with a port in brackets")
    return Destination(found[1] or "http", found[2].strip("[]"), int(found[3]) if found[3] else None)


def of_list(no_proxy: str, to: Destination, clients: Iterable[Client]) -> Ways:
    """Ways of a list alone, a proxy being set."""
    return {
        client: _java(no_proxy, to)
        if client is Client.JAVA
        else bypasses(client, no_proxy, to.host, to.port, to.scheme)
        for client in clients
    }


def of_preset(preset: Preset, facts: Facts, to: Destination, clients: Sequence[Client]) -> Iterator[tuple[str, Ways]]:
    """Yield the list that a preset alone gives, if it gives one."""
    for value in fold([preset], fold_volumes([preset]), facts, ignore_case=False).values:
        if names.is_no_proxy(value.names[0]) and value.value_from is None:
            yield f"{preset.key}: env {value.names[0]}", of_list(value.value, to, clients)


def of_containers(admitted: Admitted, to: Destination, clients: Sequence[Client]) -> Iterator[tuple[str, Ways]]:
    """Yield the containers of a pod with the variables that they would have, if they are literal."""
    for container in containers(admitted.pod):
        environment = {
            str(item["name"]): str(item.get("value") or "")
            for item in container.get("env") or ()
            if isinstance(item, dict) and item.get("name") and not item.get("valueFrom")
        }
        ways = {
            client: _java_of(environment, to)
            if client is Client.JAVA
            else reaches(client, environment, to.host, to.port, to.scheme)
            for client in clients
        }
        yield f"{admitted.workload}: container {container.get('name', '')}", ways


def _java_of(environment: dict[str, str], to: Destination) -> Verdict:
    read = settings(Client.GO, environment, to.scheme)
    return _java(read.no_proxy, to) if read.proxy else Verdict.DIRECT


def _java(no_proxy: str, to: Destination) -> Verdict:
    direct = java_bypasses(java_non_proxy_hosts(no_proxy).hosts, to.host)
    return Verdict.DIRECT if direct else Verdict.PROXIED


def disagree(rows: Iterable[Ways]) -> bool:
    """Whether in one of the rows clients go different ways, or one of them goes none."""
    return any(len(set(ways.values())) > 1 or Verdict.CRASH in ways.values() for ways in rows)
