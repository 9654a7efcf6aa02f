"""The allocator put together: stores, reflectors, the ledger and two controllers.

Responsible for: wiring only; every rule is elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.ipam import api, poolobjects
from services.ipam.caches import Caches
from services.ipam.claims import ClaimReconciler
from services.ipam.ledger import Ledger
from services.ipam.pools import PoolReconciler
from services.ipam.poolwriter import PoolWriter
from services.ipam.reservations import ReservationWriter
from services.ipam.web.part import StatusPage
from services.runtime.controller import Controller
from services.runtime.follow import Follower
from services.runtime.kube.discovery import Discovery
from services.runtime.kube.events import EventRecorder
from services.runtime.listener import bind

if TYPE_CHECKING:
    from services.ipam.api import ClaimKey, PoolKey
    from services.ipam.settings import IpamSettings
    from services.runtime.main import Service

STATUS_DEBOUNCE_SECONDS = 1.0
"""Pool status is at most this old while claims come and go, and written at most that often."""
SETTLE_SECONDS = 1.0
"""How long to leave a claim that carries our finalizer and nothing else: after a restore or a crash the watches have
yet to show what belongs to it. Twice that without leader election, when another replica may be at it."""


async def build(service: Service[IpamSettings]) -> None:
    """Add the allocator's parts to the manager."""
    settings, manager, clock = service.settings, service.manager, service.clock
    events = EventRecorder(service.unguarded, settings.program, clock)
    discovery = Discovery(service.unguarded, clock)

    def queue_claim(key: ClaimKey) -> None:
        claims.queue.add(key)

    def queue_pool(key: PoolKey) -> None:
        pools.queue.add(key)

    def touch_pool(key: PoolKey) -> None:
        pools.queue.add_after(key, STATUS_DEBOUNCE_SECONDS)

    ledger = Ledger(queue_claim, touch_pool)
    caches = Caches(ledger, queue_claim, queue_pool, touch_pool, settings.watch_namespace)
    reservations = ReservationWriter(service.client, caches, clock, sticky_limit=settings.sticky_limit)
    writer = PoolWriter(service.client, caches)
    claim_reconciler = ClaimReconciler(
        service.client,
        caches,
        reservations,
        writer,
        events,
        clock,
        orphan_grace=settings.orphan_grace_seconds,
        settle_seconds=SETTLE_SECONDS if settings.leader_election else 2 * SETTLE_SECONDS,
    )
    pool_reconciler = PoolReconciler(
        service.client, caches, reservations, writer, events, clock, sticky_seconds=settings.sticky_seconds
    )
    claims = Controller(
        "ipam-claim",
        claim_reconciler.reconcile,
        workers=settings.workers,
        clock=clock,
        group=caches.group_of,  # ten thousand claims of one pool do not delay the one claim of another
        settled=caches.claim_settled,
    )
    pools = Controller(
        "ipam-pool",
        pool_reconciler.reconcile,
        workers=2,
        clock=clock,
        settled=caches.pool_settled,
    )
    caches.subscribe()

    follow = Follower(service, discovery).follow
    follow(caches.reservations, (api.IP_RESERVATIONS,))
    for kind, store in caches.pools.items():
        follow(store, (poolobjects.RESOURCES[kind],))
    for kind, store in caches.addresses.items():
        follow(store, api.address_resources(kind))
    for kind, store in caches.claims.items():
        follow(store, api.claim_resources(kind))
    follow(caches.clusters, api.CLUSTERS)

    manager.add_runnable("discovery", discovery.run, needs_leader=False, needs_caches=False)
    manager.add_runnable("events", events.run, needs_leader=False, needs_caches=False)
    manager.add_controller(claims)
    manager.add_controller(pools)
    if settings.web:
        StatusPage(caches, settings, clock).add_to(manager, bind(settings.web_address))
