"""The machine controller put together: stores, reflectors, connections and controllers.

Responsible for: wiring only; every rule is elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.machine_controller import api, contract
from services.machine_controller.bootstrap import Reader
from services.machine_controller.caches import Caches
from services.machine_controller.claims import ClaimWriter
from services.machine_controller.clusters import ClusterReconciler
from services.machine_controller.connections import Connections
from services.machine_controller.credentials import Identities
from services.machine_controller.gather import Gathering
from services.machine_controller.guard import refuse_beside_capv
from services.machine_controller.machines import MachineReconciler
from services.machine_controller.objects import Writer
from services.machine_controller.probes import Probes
from services.machine_controller.sight import Sights
from services.machine_controller.slots import Slots
from services.machine_controller.steps import Steps
from services.machine_controller.vsphere.vcenter import VCenters
from services.machine_controller.zones import caches as zone_caches
from services.machine_controller.zones.identity import Secrets
from services.machine_controller.zones.service import add_zones
from services.runtime.controller import Controller
from services.runtime.follow import Follower
from services.runtime.kube.discovery import Discovery
from services.runtime.kube.events import EventRecorder

if TYPE_CHECKING:
    from services.machine_controller.settings import MachineSettings
    from services.runtime.kube.objects import ObjectKey
    from services.runtime.main import Service

_DEADLINE_SECONDS = 240.0
"""A step asks vCenter a few questions, each of which has a deadline of its own."""


async def build(service: Service[MachineSettings]) -> None:
    """Add the machine controller's parts to the manager. Raises SettingsError where CAPV's controllers run."""
    settings, manager, clock = service.settings, service.manager, service.clock
    await refuse_beside_capv(service.unguarded, settings.capv_lease, clock)
    events = EventRecorder(service.unguarded, settings.program, clock)
    discovery = Discovery(service.unguarded, clock)

    def queue_machine(key: ObjectKey) -> None:
        machines.queue.add(key)

    def queue_cluster(key: ObjectKey) -> None:
        clusters.queue.add(key)

    default = settings.identity_secret

    def identity_changed(secret: ObjectKey) -> None:
        connections.renew(secret)
        machine_probes.forget()
        cluster_probes.forget()
        if secret == default:
            sights.retry()
            caches.queue_all()
        else:
            sights.retry(set(caches.queue_identity(secret)))
        zones.look_again()

    def identity_unused(secret: ObjectKey) -> None:
        if secret not in (default, settings.zone_tags_secret):
            connections.drop(secret)

    caches = Caches(queue_machine, queue_cluster, identity_unused)
    identities = Identities(service.unguarded, clock, identity_changed)
    connections = Connections(
        identities,
        default=default,
        insecure=settings.insecure_vcenter,
        vcenters=VCenters(clock=clock, threads=settings.vcenter_threads),
    )
    sights = Sights(queue_machine)
    slots = Slots(settings.clones, queue_machine)
    machine_probes, cluster_probes = Probes(queue_machine), Probes(queue_cluster)
    gathering = Gathering(caches, connections, sights, slots, everything=settings.all)
    writer = Writer(service.client, caches, clock)
    machines: Controller[ObjectKey] = Controller(
        "vsphere-machine",
        MachineReconciler(
            caches,
            gathering,
            sights,
            slots,
            machine_probes,
            Steps(writer, ClaimWriter(service.client, caches), Reader(service.unguarded), slots, clock),
            writer,
            events,
            clock,
        ).reconcile,
        workers=settings.workers,
        deadline=_DEADLINE_SECONDS,
        clock=clock,
        group=lambda key: key.namespace,  # many machines of one tenant do not delay the one of another
        settled=lambda key: caches.stores.machines.get(key) is None,
    )
    stores = caches.stores
    zones = add_zones(
        service,
        zone_caches.Stores(stores.zones, stores.domains, stores.clusters, stores.owners),
        connections,
        Secrets(own=default, tags=settings.zone_tags_secret),
        events,
        period=settings.zone_period,
        taken=gathering.taken,
        paused=lambda cluster: contract.is_paused(cluster, caches.capi_cluster_of(cluster)),
        published=queue_cluster,
    )
    clusters: Controller[ObjectKey] = Controller(
        "vsphere-cluster",
        ClusterReconciler(
            service.client,
            caches,
            connections,
            cluster_probes,
            clock,
            taken=gathering.taken,
            held_by_zones=zones.holds,
        ).reconcile,
        workers=4,
        deadline=_DEADLINE_SECONDS,
        clock=clock,
        group=lambda key: key.namespace,
    )
    caches.subscribe()

    follow = Follower(service, discovery, caches.served.__setitem__).follow
    follow(stores.machines, (api.VSPHERE_MACHINES,))
    follow(stores.clusters, (api.VSPHERE_CLUSTERS,))
    follow(stores.owners, contract.MACHINES)
    follow(stores.capi_clusters, contract.CLUSTERS)
    follow(stores.claims, contract.IP_ADDRESS_CLAIMS, label_selector=contract.CLUSTER_NAME_LABEL)
    follow(stores.zones, (api.VSPHERE_DEPLOYMENT_ZONES,))
    follow(stores.domains, (api.VSPHERE_FAILURE_DOMAINS,))

    manager.add_runnable("discovery", discovery.run, needs_leader=False, needs_caches=False)
    manager.add_runnable("events", events.run, needs_leader=False, needs_caches=False)
    # Secrets and vCenters are only for the one that leads.
    manager.add_runnable("credentials", identities.run, needs_leader=True)
    manager.add_runnable("vcenters", connections.run, needs_leader=True)
    manager.add_controller(machines)
    manager.add_controller(clusters)
