"""What to do next about the certificates a service makes for itself: pure rules over a Secret and the published CAs.

Responsible for: the life of an authority (CA) and of the server certificate (leaf) that it signs, kept in one Secret:

    tls.crt, tls.key          the leaf that is served
    ca.crt, ca.key            the CA that signed it
    next-ca.crt, next-ca.key  the CA that will, while clients are told of it
    old-ca.crt                CAs that have signed leaves which somebody may still serve

Clients trust the CAs that the webhook configuration publishes (`caBundle`): all of those. The order of a rotation is
therefore: make the next CA, publish it beside the old one, wait until every API server has seen that, and only then
sign with it.

Invariants: no client is shown a leaf whose CA was not published before. A CA is published until it expires, for as long
as the Secret or a running process remembers it. Steps repeat safely: each starts from what is there, none from what was
meant to be there. Names that another replica asked for stay until the leaf is renewed for its age, so that two
replicas with different settings do not renew it in turn.

Must not know: the API server, time (it is an input), where keys are used.
"""

from __future__ import annotations

import datetime as dt
import enum
from typing import TYPE_CHECKING, Final, NamedTuple

from services.runtime import pki
from services.runtime.pki import Certificate, Pair, PkiError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

__all__ = ["Decision", "Lifetimes", "Step", "carried_out", "decide", "issuer", "published"]

TLS_CRT: Final = "tls.crt"
TLS_KEY: Final = "tls.key"
CA_CRT: Final = "ca.crt"
CA_KEY: Final = "ca.key"
NEXT_CRT: Final = "next-ca.crt"
NEXT_KEY: Final = "next-ca.key"
OLD_CRT: Final = "old-ca.crt"

Bundles = tuple[frozenset[str], ...]
"""Fingerprints of the CAs in the caBundle of each webhook."""


class Lifetimes(NamedTuple):
    """How long things last. Each is renewed when a third of its life is left."""

    authority: dt.timedelta = dt.timedelta(days=3650)
    leaf: dt.timedelta = dt.timedelta(days=90)
    overlap: dt.timedelta = dt.timedelta(minutes=5)
    """Between making a CA and signing with it: API servers learn of a changed configuration by a watch."""


class Step(enum.Enum):
    """What can be done; the values are for metrics and logs."""

    CREATE = "create"
    """There is no Secret: make one, with a CA and a leaf."""
    REPLACE = "replace"
    """The CA cannot be used any more: make another and a leaf, at once."""
    RENEW = "renew"
    """Sign a new leaf with the CA there is."""
    PREPARE = "prepare"
    """Make the CA that will follow."""
    PROMOTE = "promote"
    """Sign with it from now on."""
    PUBLISH = "publish"
    """Write the bundle into the webhook configuration."""
    WAIT = "wait"
    """Nothing, until `Decision.at` or until something changes."""


class Decision(NamedTuple):
    """The next step, why, and when to look again if it is to wait."""

    step: Step
    reason: str
    at: dt.datetime | None = None


class _Contents(NamedTuple):
    """What of a Secret can be used; None for what cannot, with the reason in `problems`."""

    authority: Certificate | None
    following: Certificate | None
    old: tuple[Certificate, ...]
    leaf: Certificate | None
    problems: Mapping[str, str]

    def bundle(self, now: dt.datetime) -> list[Certificate]:
        every = [found for found in (self.authority, self.following, *self.old) if found is not None]
        return [certificate for certificate in every if certificate.not_after > now]


def decide(
    data: Mapping[str, bytes] | None,
    now: dt.datetime,
    bundles: Bundles | None,
    names: Collection[str],
    lifetimes: Lifetimes,
) -> Decision:
    """Return the next step.

    `data` is the Secret's, None when there is none. `bundles` is what each webhook of the configuration publishes
    (`published`), None when nobody asked for publishing. `names` are what the leaf has to be valid for.
    """
    if data is None:
        return Decision(Step.CREATE, "there is no Secret")
    contents = _read(data)
    authority, following, leaf = contents.authority, contents.following, contents.leaf
    if authority is None or not authority.valid(now):
        why = contents.problems.get(CA_CRT) or _why_not("CA", authority, now)
        return Decision(Step.PROMOTE if _usable(following, now) else Step.REPLACE, why)
    if leaf is None:
        return Decision(Step.RENEW, contents.problems.get(TLS_CRT, "there is no certificate"))
    if not leaf.valid(now):
        return Decision(Step.RENEW, _why_not("certificate", leaf, now))
    if missing := sorted(set(names) - leaf.names):
        return Decision(Step.RENEW, f"the certificate is not for {', '.join(missing)}")
    if now >= _leaf_renewal(leaf, authority, lifetimes):
        return Decision(Step.RENEW, "two thirds of the certificate's life are over")
    wanted = frozenset(certificate.fingerprint for certificate in contents.bundle(now))
    everywhere = all(bundle == wanted for bundle in bundles or ())
    if not _usable(following, now):
        if now >= _renewal(authority, lifetimes.authority):
            return Decision(Step.PREPARE, "two thirds of the CA's life are over")
    elif everywhere and following is not None and now >= following.made + lifetimes.overlap:
        return Decision(Step.PROMOTE, "the next CA is published")
    if not everywhere:
        return Decision(Step.PUBLISH, "a webhook does not publish our CAs")
    return Decision(Step.WAIT, "", min(_moments(contents, now, lifetimes)))


def _moments(contents: _Contents, now: dt.datetime, lifetimes: Lifetimes) -> list[dt.datetime]:
    """Return when something falls due: renewals, the end of the overlap, CAs that expire."""
    assert contents.leaf is not None, "decided before"
    assert contents.authority is not None, "decided before"
    due = [_leaf_renewal(contents.leaf, contents.authority, lifetimes)]
    if contents.following is not None and _usable(contents.following, now):
        due.append(contents.following.made + lifetimes.overlap)
    else:
        due.append(_renewal(contents.authority, lifetimes.authority))
    due.extend(certificate.not_after for certificate in contents.bundle(now))
    return due


def carried_out(
    step: Step,
    data: Mapping[str, bytes] | None,
    now: dt.datetime,
    names: Collection[str],
    lifetimes: Lifetimes,
    *,
    label: str,
    remembered: bytes = b"",
) -> dict[str, bytes]:
    """Return the Secret's data after a step (one that writes the Secret).

    `label` begins the names of CAs. `remembered` are CAs that were in use before the Secret was lost: they stay
    published. Entries that are not ours are kept. Raises `PkiError` for names that no certificate can have.
    """
    result = dict(data or {})
    contents = _read(result)
    old = [*contents.old]
    authority = Pair(result.get(CA_CRT, b""), result.get(CA_KEY, b""))
    match step:
        case Step.CREATE | Step.REPLACE:
            # Without its key a CA signs nothing more, but leaves that it has signed may be served.
            for text in (result.get(CA_CRT, b""), result.get(NEXT_CRT, b""), remembered):
                old += _readable(text)
            authority = pki.make_authority(label, now, lifetimes.authority)
        case Step.PROMOTE:
            old += filter(None, (contents.authority,))
            authority = Pair(result[NEXT_CRT], result[NEXT_KEY])
        case Step.PREPARE:
            result[NEXT_CRT], result[NEXT_KEY] = pki.make_authority(label, now, lifetimes.authority)
            return result
        case Step.RENEW:
            if contents.leaf is not None and now < _renewal(contents.leaf, lifetimes.leaf):  # not for its age
                names = [*names, *sorted(contents.leaf.names.difference(names))]
        case _:
            raise ValueError(step)
    result[CA_CRT], result[CA_KEY] = authority
    result[TLS_CRT], result[TLS_KEY] = pki.issue(authority, names, now, lifetimes.leaf)
    if step is not Step.RENEW:
        result.pop(NEXT_CRT, None)
        result.pop(NEXT_KEY, None)
        result[OLD_CRT] = pki.join([certificate for certificate in old if certificate.not_after > now])
    return result


def bundle(data: Mapping[str, bytes], now: dt.datetime) -> bytes:
    """Return what is to be published: every CA of the Secret that has not expired."""
    return pki.join(_read(data).bundle(now))


def issuer(data: Mapping[str, bytes]) -> str | None:
    """Return the fingerprint of the CA that signed the leaf; None when the Secret does not have both."""
    contents = _read(data)
    return contents.authority.fingerprint if contents.authority and contents.leaf else None


def published(bundles: Collection[bytes]) -> Bundles:
    """Return what each caBundle publishes; one that cannot be read publishes nothing."""
    return tuple(frozenset(certificate.fingerprint for certificate in _readable(text)) for text in bundles)


def _renewal(certificate: Certificate, life: dt.timedelta) -> dt.datetime:
    """Return when to replace it: two thirds into its life, or into the one configured if that is shorter."""
    return certificate.made + min(life, certificate.not_after - certificate.made) * 2 / 3


def _leaf_renewal(leaf: Certificate, authority: Certificate, lifetimes: Lifetimes) -> dt.datetime:
    """As `_renewal`; a leaf that ends with its CA gains nothing before there is another CA."""
    return leaf.not_after if leaf.not_after >= authority.not_after else _renewal(leaf, lifetimes.leaf)


def _usable(certificate: Certificate | None, now: dt.datetime) -> bool:
    return certificate is not None and certificate.valid(now)


def _why_not(what: str, certificate: Certificate | None, now: dt.datetime) -> str:
    if certificate is not None and certificate.not_after > now:
        return f"the {what} is not valid yet: a clock was ahead when it was made"
    return f"the {what} has expired"


def _read(data: Mapping[str, bytes]) -> _Contents:
    problems: dict[str, str] = {}
    authority = _read_pair(data, CA_CRT, CA_KEY, problems, authority=True)
    following = _read_pair(data, NEXT_CRT, NEXT_KEY, problems, authority=True)
    leaf = _read_pair(data, TLS_CRT, TLS_KEY, problems, authority=False)
    if leaf is not None and (authority is None or not leaf.issued_by(authority)):
        problems[TLS_CRT] = "the certificate is not from the CA"
        leaf = None
    return _Contents(authority, following, tuple(_readable(data.get(OLD_CRT, b""))), leaf, problems)


def _read_pair(
    data: Mapping[str, bytes], crt: str, key: str, problems: dict[str, str], *, authority: bool
) -> Certificate | None:
    try:
        certificate = pki.read(data.get(crt, b""))
        together = pki.matches(certificate, data.get(key, b""))
    except PkiError as error:
        problems[crt] = f"{crt} cannot be used: {error}"
        return None
    if not together:
        problems[crt] = f"{crt} cannot be used: it does not belong to {key}"
    elif certificate.authority is not authority:
        problems[crt] = f"{crt} cannot be used: it is {'no' if authority else 'a'} CA"
    else:
        return certificate
    return None


def _readable(text: bytes) -> list[Certificate]:
    try:
        return pki.read_all(text)
    except PkiError:
        return []
