"""The webhook put together: stores, reflectors, the server, and the status of presets.

Responsible for: wiring only; every rule is elsewhere.

Every replica, and every process of one, serves from caches of its own and asks the API server nothing while it decides.
The leader alone writes readiness and counts; the counts are those of pods that exist, so it need not know who served
them. Conflicts leave no trace on a pod: the first process of each replica writes those that it met. Those that other
processes of `--processes` met show in metrics, which are of all of them, and not in the status.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from services.podpreset import metrics
from services.podpreset.conflicts import ConflictReporter
from services.podpreset.facts import FactFinder
from services.podpreset.presets import NAMESPACES, RESOURCES, Caches
from services.podpreset.reviewer import Reviewer
from services.podpreset.status import PODS, CarriedPresets, StatusReconciler
from services.runtime.cache.reflector import Reflector
from services.runtime.controller import Controller
from services.runtime.kube.discovery import Discovery
from services.runtime.kube.events import EventRecorder
from services.runtime.kube.objects import KubeObject
from services.runtime.webhook import add_webhook

if TYPE_CHECKING:
    from services.podpreset.api import PresetKey
    from services.podpreset.settings import PodPresetSettings
    from services.runtime.clock import Clock
    from services.runtime.main import Service

__all__ = ["PATH", "build", "untouched"]

PATH = "/mutate"
"""Where reviews are answered; deploy/webhook names it too."""


async def build(service: Service[PodPresetSettings]) -> None:
    """Add the webhook's parts to the manager."""
    settings, manager, clock = service.settings, service.manager, service.clock
    events = EventRecorder(service.unguarded, settings.program, clock)
    discovery = Discovery(service.unguarded, clock)
    follow = functools.partial(Reflector[KubeObject], service.unguarded, clock=clock, discovery=discovery)

    def preset_changed(key: PresetKey) -> None:
        status.queue.add(key)

    def pods_changed(annotation: str, namespace: str) -> None:
        key = caches.carried_by(annotation, namespace)
        if key is not None:
            status.queue.add_after(key, settings.status_period)

    async def count_all() -> None:
        await carried.store.wait_synced()
        for key in caches.all():
            status.queue.add(key)

    caches = Caches(preset_changed, untouched(service))
    carried = CarriedPresets(pods_changed)
    reconciler = StatusReconciler(service.client, caches, carried, events, clock)
    status = Controller("podpreset-status", reconciler.reconcile, workers=settings.workers, clock=clock)
    facts = FactFinder(
        lambda: caches.set_facts(facts.facts),
        service_cidrs=settings.service_cidr,
        pod_cidrs=settings.pod_cidr,
        api_server=settings.api_server,
        metadata=settings.metadata_address,
    )
    caches.set_facts(facts.facts)

    for kind, store in caches.presets.items():
        scopes = (settings.watch_namespace if RESOURCES[kind].namespaced else ()) or ("",)
        for namespace in scopes:
            reflector = follow(functools.partial(discovery.pick, (RESOURCES[kind],)), store, namespace=namespace)
            manager.add_reflector(reflector)
            _show_age(kind, reflector, clock)
    namespaces = follow(NAMESPACES, caches.namespaces, metadata_only=True)
    manager.add_reflector(namespaces)
    _show_age("Namespace", namespaces, clock)
    for found in facts.reflectors(service.unguarded, discovery, clock):
        manager.add_reflector(found)
    manager.add_runnable("discovery", discovery.run, needs_leader=False, needs_caches=False)

    reporter = None
    if service.first:
        reporter = ConflictReporter(service.unguarded, caches, clock, period=settings.status_period)
        manager.add_runnable("events", events.run, needs_leader=False, needs_caches=False)
        manager.add_runnable("conflicts", reporter.run, needs_leader=False)
        manager.add_controller(status)
        if settings.count_pods:
            for namespace in settings.watch_namespace or ("",):
                counted = follow(PODS, carried.store, namespace=namespace, metadata_only=True)
                manager.add_runnable("reflector Pod", counted.run, needs_leader=True)
            manager.add_runnable("count pods", count_all, needs_leader=True)
    add_webhook(service, {PATH: Reviewer(caches, reporter)})


def untouched(service: Service[PodPresetSettings]) -> set[str]:
    """Return the namespaces to leave alone. `default` is where a service thinks it is that runs outside of a pod."""
    return {*service.settings.untouched_namespace, *({service.namespace} - {"default"})}


def _show_age(resource: str, reflector: Reflector[KubeObject], clock: Clock) -> None:
    def age() -> float:
        heard = reflector.last_contact
        return float("inf") if heard is None else clock.monotonic() - heard

    metrics.CACHE_AGE.labels(resource).set_function(age)
