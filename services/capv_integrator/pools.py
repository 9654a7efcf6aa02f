"""Which pools may serve a NIC or an endpoint: every way there is, in order of precedence, and which of them it is.

1. the annotation `integrator.groundwork.dev/pools`, on the VSphereMachine (VSphereCluster), then on its template;
2. the labels of the old integrator, on the same;
3. labels and annotations of pools for network, failure domain and cluster.
Responsible for: finding the candidates, grouped by family, and picking one of a family.
Invariants: what is named and does not exist is refused, never replaced by something else: a machine brought up with
another network or with one family of two cannot be mended. Without a name and without a match there is no candidate.
Must not know: claims, the API server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from services.capv_integrator import api
from services.capv_integrator.annotations import (
    IPV4,
    KNOWN_GROUPS,
    AnnotationError,
    PoolName,
    parse_pools,
    same_network,
)
from services.capv_integrator.api import PoolRef

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from services.capv_integrator.poolobjects import Pool, PoolBook

_NAMED_AT_MOST = 5


class Source(NamedTuple):
    """An object that may say which pools: the VSphereMachine or VSphereCluster itself, or its template."""

    what: str
    annotations: Mapping[str, str]
    labels: Mapping[str, str]


class Seeker(NamedTuple):
    """Who looks for a pool."""

    namespace: str
    cluster: str
    failure_domain: str
    at: int | None
    """Index of the device; None for an endpoint."""
    network: str
    sources: tuple[Source, ...]
    """In order of precedence."""
    old_namespace: str = ""
    """Where the old integrator's labels look, when not in `namespace`."""


class Candidate(NamedTuple):
    """A pool that may be used."""

    ref: PoolRef
    family: str
    pool: Pool | None
    """None when it is of a kind that only its provider knows."""


class Refusal(NamedTuple):
    """No pool, and why: a word for conditions, Events and metrics, and a text for people."""

    reason: str
    message: str


Found = tuple[Candidate, ...]


def find(seeker: Seeker, pools: PoolBook) -> Found | Refusal:
    """Return the candidates, at least one, or why there is none."""
    for source in seeker.sources:
        text = source.annotations.get(api.POOLS_ANNOTATION)
        if text is None:
            continue
        try:
            choices = parse_pools(text)
        except AnnotationError as error:
            message = f"annotation {api.POOLS_ANNOTATION} of {source.what}: {error}"
            return Refusal("AnnotationInvalid", message)
        if seeker.at is None and choices.by_device:
            message = f"annotation {api.POOLS_ANNOTATION} of {source.what}: an endpoint has no devices"
            return Refusal("AnnotationInvalid", message)
        names = choices.rest if seeker.at is None else choices.of(seeker.at, seeker.network)
        if names:
            return _named(names, seeker, pools, f"annotation {api.POOLS_ANNOTATION} of {source.what}")
    for source in seeker.sources:
        old = _old_labels(source, seeker, pools)
        if old is not None:
            return old
    return _labelled(seeker, pools)


def choose(candidates: Iterable[Candidate], taken: Callable[[PoolRef], int]) -> Candidate:
    """Pick the candidate with most free addresses, ties by name; exhausted ones only when all are.

    `taken`: addresses of a pool that claims of ours are about to get. A pool whose provider counts nothing goes after
    those that are known to have some.
    """

    def order(candidate: Candidate) -> tuple[bool, bool, int, str, str, str]:
        ref, pool = candidate.ref, candidate.pool
        free = pool.free if pool is not None else None
        less = -(free - taken(ref)) if free is not None else 0
        return (not can_serve(candidate, taken), free is None, less, ref.name, ref.kind, ref.namespace)

    return min(candidates, key=order)


def can_serve(candidate: Candidate, taken: Callable[[PoolRef], int]) -> bool:
    """Tell whether a pool has something to give, as far as is known."""
    pool = candidate.pool
    return pool is None or pool.available is None or pool.available > taken(candidate.ref)


def by_family(candidates: Found) -> dict[str, tuple[Candidate, ...]]:
    """Candidates of each family, families in the order of their first candidates."""
    families: dict[str, tuple[Candidate, ...]] = {}
    for candidate in candidates:
        families[candidate.family] = (*families.get(candidate.family, ()), candidate)
    return families


# 1. Pools by name


def _named(names: Sequence[PoolName], seeker: Seeker, pools: PoolBook, where: str) -> Found | Refusal:
    found = []
    for name in names:
        candidate = _resolve(name, seeker.namespace, pools)
        if candidate is None:
            kind = "pool" if not name.kind else name.kind
            message = f"{where}: there is no {kind} {name}; {_existing(seeker, pools)}"
            return Refusal("PoolNotFound", message)
        if isinstance(candidate, Refusal):
            return candidate._replace(message=f"{where}: {candidate.message}")
        found.append(candidate)
    return tuple({(candidate.ref, candidate.family): candidate for candidate in found}.values())


def _resolve(name: PoolName, namespace: str, pools: PoolBook) -> Candidate | Refusal | None:
    if name.kind and KNOWN_GROUPS.get(name.kind) != name.group:
        if name.namespace not in {"", namespace}:
            return Refusal("PoolNotAllowed", f"{name} is in another namespace, where only an IPPool can be")
        return Candidate(PoolRef(name.group, name.kind, "", name.name), name.family or IPV4, None)
    wanted = name.namespace or namespace
    order = list(api.POOLS)
    where = (wanted,) if name.namespace else (wanted, "")
    matching = [pool for pool in pools.of(*where) if pool.ref.name == name.name and name.kind in {"", pool.ref.kind}]
    if not matching:
        return None
    pool = min(matching, key=lambda found: order.index(found.ref.kind))
    if not pool.serves(namespace) or (pool.ref.namespace not in {"", namespace} and pool.ref.kind != "IPPool"):
        return Refusal("PoolNotAllowed", f"{pool.ref} does not serve namespace {namespace} (spec.allowedNamespaces)")
    return Candidate(pool.ref, name.family or pool.family, pool)


# 2. The old integrator's labels


def _old_labels(source: Source, seeker: Seeker, pools: PoolBook) -> Found | Refusal | None:
    namespace = seeker.old_namespace
    name = source.labels.get(api.OLD_POOL_NAME_LABEL)
    if name:
        where = f"label {api.OLD_POOL_NAME_LABEL} of {source.what}"
        return _named((PoolName(name, namespace),), seeker, pools, where)
    keys = (api.OLD_POOL_GROUP_LABEL, api.OLD_NETWORK_LABEL)
    wanted = {key: source.labels[key] for key in keys if source.labels.get(key)}
    if not wanted:
        return None
    found = [
        Candidate(pool.ref, pool.family, pool)
        for pool in (pools.of(namespace) if namespace else pools.of(seeker.namespace, ""))
        if pool.usable and pool.serves(seeker.namespace) and wanted.items() <= pool.labels.items()
    ]
    if found:
        return tuple(found)
    words = " and ".join(f"{key}={value}" for key, value in wanted.items())
    message = f"no pool has {words}, which {source.what} asks for; {_existing(seeker, pools)}"
    return Refusal("NoPoolMatches", message)


# 3. What pools say of themselves


def _labelled(seeker: Seeker, pools: PoolBook) -> Found | Refusal:
    reach = pools.of(seeker.namespace, "")
    found = [Candidate(pool.ref, pool.family, pool) for pool in reach if pool.usable and _offers(pool, seeker)]
    if found:
        return tuple(found)
    if seeker.at is None:
        looked = f"{api.USE_LABEL}={api.USE_ENDPOINTS} and {api.CLUSTER_KEY} {seeker.cluster}"
    else:
        facts = {"network": seeker.network, "failure domain": seeker.failure_domain, "cluster": seeker.cluster}
        looked = ", ".join(f"{name} {value}" for name, value in facts.items() if value)
    message = f"no pool is named by annotation or label, and none is labelled for {looked}; {_existing(seeker, pools)}"
    return Refusal("NoPoolMatches", message)


def _offers(pool: Pool, seeker: Seeker) -> bool:
    """Tell whether a pool is labelled for the seeker: every key that it carries matches, and it carries one."""
    if not pool.selectors or not pool.serves(seeker.namespace):
        return False
    endpoint = seeker.at is None
    if endpoint != (pool.labels.get(api.USE_LABEL) == api.USE_ENDPOINTS):
        return False
    owner = pool.labels.get(api.CLUSTER_NAME_LABEL)
    if owner is not None and pool.ref.namespace and owner != seeker.cluster:
        return False  # it goes with another cluster
    return all(_matches(key, values, seeker) for key, values in pool.selectors.items())


def _matches(key: str, values: Iterable[str], seeker: Seeker) -> bool:
    if key == api.NETWORK_KEY:
        return seeker.at is not None and any(value == "*" or same_network(value, seeker.network) for value in values)
    if key == api.FAILURE_DOMAIN_KEY:
        return bool(seeker.failure_domain) and any(value in {"*", seeker.failure_domain} for value in values)
    return any(value in {"*", seeker.cluster, f"{seeker.namespace}/{seeker.cluster}"} for value in values)


def _existing(seeker: Seeker, pools: PoolBook) -> str:
    """What there is, for a message that stays the same while nothing changes."""
    names = sorted(str(pool.ref) for pool in pools.of(seeker.namespace, ""))
    if not names:
        return f"there is no pool in namespace {seeker.namespace} and none of cluster scope"
    more = f" and {len(names) - _NAMED_AT_MOST} more" if len(names) > _NAMED_AT_MOST else ""
    return f"there are {', '.join(names[:_NAMED_AT_MOST])}{more}"
