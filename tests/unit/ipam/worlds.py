"""Worlds for the tables of `decide`: a claim, a pool and what is known of them, all values."""

from __future__ import annotations

import random

from services.ipam import api, intervals, kinds
from services.ipam.api import ClaimKey, PoolKey, PoolRange, PoolSpec
from services.ipam.decide import ClusterState, Pool, World, decide
from services.ipam.ledger import Ledger
from services.ipam.slots import Holding, Reservation, Use
from services.ipam.space import PoolSpace
from services.runtime.kube.objects import KubeObject, ObjectMeta, raw

NOW = 1_000_000.0
POOL = PoolKey("IPPool", "ns", "pool")
METAL3 = ClaimKey("IPClaim", "ns", "claim")
CAPI = ClaimKey("IPAddressClaim", "ns", "claim")
OWN_FINALIZER = {"IPClaim": "ipclaim.ipam.metal3.io", "IPAddressClaim": "ipam.metal3.io/ipaddressclaim"}

BOUND = {"address": {"name": "p-10-0-0-10", "namespace": "ns"}}
"""Status of a claim that has its address."""


def at(text):
    return intervals.point(text)


def pool_spec(**fields):
    fields.setdefault("pools", (PoolRange(start="10.0.0.10", end="10.0.0.12"),))
    fields.setdefault("prefix", 24)
    return PoolSpec(name_prefix="p", **fields)


class Setting:
    """A ledger with one pool; `world(...)` gives the World of a claim in it, `choose` the choice that goes with it."""

    def __init__(self, **spec):
        self.ledger = Ledger()
        self.spec = pool_spec(**spec)
        self.state = self.ledger.set_pool(
            POOL, self.spec.domain, PoolSpace(self.spec), random_order=self.spec.allocation_strategy == "random"
        )

    def held_by_others(self, *texts):
        for text in texts:
            other = ClaimKey("IPClaim", "ns", f"holder-of-{text}")
            self.ledger.set_reservation("default", at(text), Reservation(f"default.{text}", Use.HELD, other, POOL))

    def choose(self, state, claim, requested):
        return self.ledger.choose(state, claim.key, ("2026", 0), requested, NOW, random.Random(1))

    def world(self, key=METAL3, *, claim=None, gone=False, paused=False, deleting=False, allowed=None, **known):
        given = None if gone else claim or a_claim(key)
        known.setdefault("pool", Pool(self.state, paused, deleting, allowed))
        defaults = {"cluster": ClusterState.NONE, "holdings": (), "reserved": (), "sticky": None}
        return World(key=key, now=NOW, claim=given, **{**defaults, **known})


def a_claim(key=METAL3, *, pool="pool", finalizers=(), deleting=False, status=None, api_version=None, **meta):
    """A claim read from an object."""
    if key.kind == "IPClaim":
        spec, group = {"pool": {"name": pool}}, api.IP_CLAIMS.api_version
    else:
        spec = {"poolRef": {"apiGroup": "ipam.metal3.io", "kind": "IPPool", "name": pool}}
        group = api_version or api.CAPI_CLAIMS[0].api_version
    obj = KubeObject(
        apiVersion=group,
        kind=key.kind,
        metadata=ObjectMeta(
            name=key.name,
            namespace=key.namespace,
            uid="uid-of-claim",
            generation=3,
            finalizers=tuple(finalizers),
            deletionTimestamp="2026-01-01T00:00:00Z" if deleting else None,
            **meta,
        ),
        spec=raw(spec),
        **({} if status is None else {"status": raw(status)}),
    )
    return kinds.read_claim(key.kind, obj)


def holding(text, name="p-10-0-0-10", key=METAL3):
    return Holding(key.kind, key.namespace, name, key, POOL, at(text))


def decided(setting, **known):
    """What is decided about a claim in a setting."""
    return decide(setting.world(**known), setting.choose)


def global_pool(**spec):
    """A setting whose pool is a GlobalIPPool."""
    setting = Setting(**spec)
    setting.state.key = setting.state.key._replace(kind="GlobalIPPool", namespace="")
    return setting
