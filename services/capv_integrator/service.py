"""The integrator put together: stores, reflectors and three controllers.

Responsible for: wiring only; every rule is elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.capv_integrator import api
from services.capv_integrator.caches import CLUSTER, MACHINE, Caches
from services.capv_integrator.claims import ClaimWriter
from services.capv_integrator.decide import WAITING_FOR_ADDRESS
from services.capv_integrator.reconciler import Reconciler
from services.capv_integrator.reports import Reporter
from services.capv_integrator.waitinglist import WaitingList
from services.runtime.controller import Controller
from services.runtime.follow import Follower
from services.runtime.kube.discovery import Discovery
from services.runtime.kube.events import EventRecorder

if TYPE_CHECKING:
    from services.capv_integrator.claimobjects import OwnerKey
    from services.capv_integrator.settings import IntegratorSettings
    from services.runtime.main import Service


async def build(service: Service[IntegratorSettings]) -> None:
    """Add the integrator's parts to the manager."""
    settings, manager, clock = service.settings, service.manager, service.clock
    events = EventRecorder(service.unguarded, settings.program, clock)
    discovery = Discovery(service.unguarded, clock)
    waiting = WaitingList()

    def queue(key: OwnerKey) -> None:
        controllers[key.kind].queue.add(key)

    caches = Caches(queue, waiting.keys)
    claim_writer = ClaimWriter(service.client, caches, clock, lambda: waiting.waiting_for(WAITING_FOR_ADDRESS) > 0)
    marks = Controller("capv-claim", claim_writer.mark, workers=1, clock=clock)
    reconciler = Reconciler(
        service.client,
        caches,
        claim_writer,
        Reporter(service.client, caches, waiting, events, clock),
        clock,
        queue_mark=marks.queue.add,
        orphan_grace=settings.orphan_grace_seconds,
    )
    controllers: dict[str, Controller[OwnerKey]] = {
        MACHINE: Controller(
            "capv-machine",
            reconciler.reconcile,
            workers=settings.workers,
            clock=clock,
            group=lambda key: key.namespace,  # a thousand machines of one tenant do not delay the one of another
            settled=caches.settled,
        ),
        CLUSTER: Controller("capv-cluster", reconciler.reconcile, workers=2, clock=clock, settled=caches.settled),
    }
    caches.subscribe()

    follow = Follower(service, discovery, caches.serves).follow
    stores = caches.stores
    for kind, owners in stores.owners.items():
        follow(owners, api.OWNERS[kind])
    follow(stores.vms, api.VSPHERE_VMS)
    follow(stores.templates, api.VSPHERE_MACHINE_TEMPLATES, metadata_only=True)
    follow(stores.machines, api.MACHINES)
    follow(stores.clusters, api.CLUSTERS)
    for kind, pools in stores.pools.items():
        follow(pools, api.POOLS[kind])
    for kind, claims in stores.claims.items():
        follow(claims, api.CLAIMS[kind], label_selector=api.OWNER_KIND_LABEL)
    for kind, addresses in stores.addresses.items():
        follow(addresses, api.ADDRESSES[kind])

    manager.add_runnable("discovery", discovery.run, needs_leader=False, needs_caches=False)
    manager.add_runnable("events", events.run, needs_leader=False, needs_caches=False)
    for controller in controllers.values():
        manager.add_controller(controller)
    manager.add_controller(marks)
