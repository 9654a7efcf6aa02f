"""The checks by name: what each is for and what it needs to be read.

Invariant: a check reads only the fields of Seen that it names here, so what is not needed is not read.
Must not know: how anything is read or printed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from services.doctor import addresses, admission, installation, surroundings
from services.doctor.finding import Finding, Level

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from services.doctor.seen import Seen


class Check(NamedTuple):
    """One check."""

    decide: Callable[[Seen], Iterator[Finding]]
    needs: tuple[str, ...]
    """Fields of Seen."""
    summary: str


CHECKS: dict[str, Check] = {
    "apiserver": Check(surroundings.apiserver, (), "the API server's version is supported"),
    "definitions": Check(
        installation.definitions,
        ("installed", "services"),
        "the CRDs are installed, in use, and have the fields of this version",
    ),
    "services": Check(installation.services, ("services",), "the Deployments of Groundwork have their pods"),
    "leaders": Check(installation.leaders, ("services", "leases"), "one process of each service leads"),
    "rights": Check(installation.rights, ("services", "denied"), "the ServiceAccounts may do what they have to"),
    "webhook": Check(
        admission.webhook, ("services", "hooks"), "the webhook has a CA that is valid and endpoints that are ready"
    ),
    "certificates": Check(
        admission.certificates,
        ("services", "hooks", "served"),
        "the webhook's certificate is valid, for its name, from a trusted CA",
    ),
    "admission": Check(
        admission.admission, ("services", "hooks", "trial"), "a pod, created as a dry run, passes the webhook"
    ),
    "pools": Check(addresses.pools, ("books",), "pools have no mistakes, addresses left, and share none by accident"),
    "claims": Check(addresses.claims, ("books",), "no claim waits for an address"),
    "ledger": Check(addresses.ledger, ("books", "again"), "claims, IPAddresses and IPReservations agree"),
    "capi": Check(
        surroundings.capi, ("installed", "providers", "services"), "Cluster API's and CAPV's versions and contracts"
    ),
    "providers": Check(
        surroundings.providers, ("providers", "services"), "nobody else serves the same pools or machines"
    ),
    "presets": Check(surroundings.presets, ("services", "hooks", "stale"), "pods have what presets say now"),
}
NOTHING = "nothing to look at: what it is about is not there, or could not be read"
"""What is said where a check has no finding."""


def parts(chosen: Collection[str]) -> set[str]:
    """Fields of Seen that the chosen checks need."""
    return {part for name in chosen for part in CHECKS[name].needs}


def run(seen: Seen, chosen: Iterable[str]) -> list[Finding]:
    """Every finding of the chosen checks, of each at least one, and what could not be read."""
    wanted = set(chosen)
    found: list[Finding] = []
    for name, check in CHECKS.items():
        if name in wanted:
            try:
                found += list(check.decide(seen)) or [Finding(Level.INFO, name, "", NOTHING)]
            except msgspec.ValidationError as error:
                what = f"an object does not have the shape of its definition, so this was not checked: {error}"
                action = "groundwork ipam verify; install this version's deploy/crds, then correct the object"
                found.append(Finding(Level.ERROR, name, "", what, action))
    return [*found, *surroundings.access(seen)]
