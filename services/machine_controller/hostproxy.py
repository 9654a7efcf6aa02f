"""Proxy settings of a cluster's nodes: read from what a user wrote, checked, completed, and made safe to quote.

Responsible for: the settings as a value. A URL is brought into a form that is the same to every reader: what is not
plain in user name and password is percent-encoded, so that no shell, systemd, apt or dnf sees a character of its own.
Invariants: a password is in no repr and in no error; the NO_PROXY list is the one that `services.proxyenv` completes;
certificates are whole PEM certificates.
Must not know: how settings get onto a host (see `hostscript`).
Sources: RFC 3986 3.2.1 (user information), kubernetes/kubeadm#701 (why a proxy must never be in kubeadm's shell).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from cryptography import x509

from services.machine_controller.guestinfo.problems import InvalidError, Problem
from services.proxyenv import host, lists, names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from services.proxyenv.host import HostFacts

_HIDDEN = "(not shown)"
_KEYS = {"httpproxy": "http_proxy", "httpsproxy": "https_proxy", "noproxy": "no_proxy"}
_CA_KEYS = ("ca.crt", "caBundle", "ca-bundle.crt")
_URL = re.compile(
    r"(?:(?P<scheme>[A-Za-z][-+.A-Za-z0-9]*)://)?"
    r"(?:(?P<user>.*)@)?"
    r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9]([-A-Za-z0-9._]*[A-Za-z0-9])?)"
    r"(?::(?P<port>[0-9]{1,5}))?/?\Z"
)
_SCHEMES = ("http", "https")
_MAX_PORT = 65_535
_NOT_ENCODED = re.compile(r"%(?![0-9A-Fa-f]{2})")
_NO_PROXY_ITEM = re.compile(r"[A-Za-z0-9_*.:/\[\]-]+\Z")
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----\s.*?\s-----END CERTIFICATE-----", re.DOTALL)


class HostProxy(NamedTuple):
    """Settings for a host: URLs (empty for none), NO_PROXY entries, PEM certificates to be trusted."""

    http: str = ""
    https: str = ""
    no_proxy: tuple[str, ...] = ()
    certificates: tuple[str, ...] = ()

    @classmethod
    def read(cls, values: Mapping[str, str]) -> HostProxy:
        """Read the data of a Secret or ConfigMap.

        Keys: `httpProxy`, `httpsProxy` and `noProxy`, or the names of the variables; `ca.crt` or `caBundle`. Other keys
        are left alone. Raises InvalidError with every mistake; what it shows of a URL is the field.
        """
        problems: list[Problem] = []
        found: dict[str, tuple[str, str]] = {}
        for key, value in values.items():
            family = _KEYS.get(key.lower().replace("-", "").replace("_", "")) or names.family(key)
            if family in {"http_proxy", "https_proxy", names.NO_PROXY} and value.strip():
                found[family] = (key, value.strip())
        certificates = tuple(
            certificate for key in _CA_KEYS for certificate in _certificates(key, values.get(key, ""), problems)
        )
        items = _no_proxy(*found.get(names.NO_PROXY, ("", "")), problems)
        urls = [_url(*found.get(family, ("", "")), problems) for family in ("http_proxy", "https_proxy")]
        if problems:
            raise InvalidError(problems)
        return cls(urls[0], urls[1], items, tuple(dict.fromkeys(certificates)))

    def completed(self, facts: HostFacts) -> HostProxy:
        """The settings with everything in NO_PROXY that must be reached directly; unchanged where there is no proxy."""
        if not (self.http or self.https):
            return self
        return self._replace(no_proxy=host.complete_host(facts, self.no_proxy).entries)

    def variables(self, *, login: bool = False) -> dict[str, str]:
        """The variables in both spellings; for `login` shells without entries that some clients fail on."""
        items = host.for_login_shells(self.no_proxy) if login else self.no_proxy
        values = {"http_proxy": self.http, "https_proxy": self.https, names.NO_PROXY: lists.join(items)}
        if not (self.http or self.https):
            return {}
        return {spelling: value for name, value in values.items() if value for spelling in names.spellings(name)}

    @property
    def secret(self) -> bool:
        """Whether there is a password or user name in it."""
        return "@" in self.http or "@" in self.https

    @property
    def empty(self) -> bool:
        """Whether there is nothing to set up."""
        return not (self.http or self.https or self.certificates)

    def __repr__(self) -> str:
        """Without user names and passwords."""
        urls = ", ".join(f"{name}={_shown(url)!r}" for name, url in (("http", self.http), ("https", self.https)))
        return f"HostProxy({urls}, no_proxy={self.no_proxy}, {len(self.certificates)} certificates)"


def _shown(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}***@{rest.rpartition('@')[2]}" if "@" in rest else url


def _url(key: str, text: str, problems: list[Problem]) -> str:
    if not text:
        return ""
    match = _URL.match(text)
    expected = ""
    if match is None or any(ord(character) < ord(" ") or ord(character) == 127 for character in text):  # noqa: PLR2004 - DEL
        expected = "a URL such as http://user:password@proxy.example:3128"
    elif (match["scheme"] or "http").lower() not in _SCHEMES:
        expected = "a URL that begins with http:// or https://"
    elif match["port"] and not 0 < int(match["port"]) <= _MAX_PORT:
        expected = f"a port from 1 to {_MAX_PORT}"
    if expected or match is None:
        problems.append(Problem(key, _HIDDEN, expected))
        return ""
    user = match["user"]
    name, colon, password = (user or "").partition(":")
    credentials = f"{_encoded(name)}{colon}{_encoded(password)}@" if user else ""
    port = f":{match['port']}" if match["port"] else ""
    return f"{(match['scheme'] or 'http').lower()}://{credentials}{match['host']}{port}"


def _encoded(text: str) -> str:
    """Percent-encode all but letters, digits and `-._~`; what is encoded already stays."""
    return quote(_NOT_ENCODED.sub("%25", text), safe="%")


def _no_proxy(key: str, text: str, problems: list[Problem]) -> tuple[str, ...]:
    items = lists.split(text)
    problems += [
        Problem(key, item, "host names, addresses and CIDRs, separated by commas")
        for item in items
        if not _NO_PROXY_ITEM.match(item)
    ]
    return lists.collapsed(items)


def _certificates(key: str, text: str, problems: list[Problem]) -> list[str]:
    found = _CERTIFICATE.findall(text)
    if text.strip() and not found:
        problems.append(Problem(key, _HIDDEN, "certificates in PEM form"))
    for index, certificate in enumerate(found):
        try:
            x509.load_pem_x509_certificate(certificate.encode())
        except ValueError:
            problems.append(Problem(key, f"certificate {index + 1}", "a certificate that can be read"))
    return ["\n".join(line.strip() for line in certificate.splitlines()) + "\n" for certificate in found]
