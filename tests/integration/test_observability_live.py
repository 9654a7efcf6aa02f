"""A real Prometheus scrapes all four services: what alerts and dashboards ask for is there, and can be asked.

The services are processes with a Lease each, on the session's API server and a simulated vCenter, and have had
something of everything to do.
"""

from __future__ import annotations

import asyncio
import http
from contextlib import AsyncExitStack, ExitStack
from typing import NamedTuple

import pytest

from services.machine_controller import api as machine_api
from services.podpreset.api import POD_PRESETS
from tests.support.allocator import Allocator
from tests.support.capv_services import Integrator
from tests.support.kube import Kube, eventually, manifest
from tests.support.machine_site import MachineController, Site
from tests.support.presets import EXCLUDE, pod, ready
from tests.support.prometheus import (
    TARGET_LABELS,
    Prometheus,
    alert_files,
    alerts,
    dashboard_expressions,
    expressions,
    used,
)
from tests.support.tenant import Tenant
from tests.support.vcenter import Vcsim
from tests.support.waiting import blocking_until
from tests.support.webhook import Webhook
from tools import capi

DEFINITIONS = ("machines.cluster.x-k8s.io", "infrastructure.cluster.x-k8s.io")
KINDS = {
    *("VSphereMachine", "VSphereVM", "VSphereCluster", "VSphereMachineTemplate"),
    *("VSphereDeploymentZone", "VSphereFailureDomain", "Machine"),
}
SERVICES = {
    "ipam": Allocator,
    "capv-integrator": Integrator,
    "machine-controller": MachineController,
    "podpreset": Webhook,
}
FIRING = {
    "GroundworkClaimsWaiting",
    "GroundworkMachinesWaiting",
    "GroundworkMachinesNotProvisioned",
    "GroundworkZoneNotReady",
    "GroundworkAdmissionErrors",
    "GroundworkPresetInvalid",
}
"""What `told` gives reason for; an alert is pending until its time has come."""


class Watched(NamedTuple):
    """The server, once it has scraped what the services did in a namespace."""

    prometheus: Prometheus
    namespace: str


async def told(site, webhook):
    """Give each service something of everything to do."""
    tenant = site.tenant
    await site.identity()
    await tenant.pool("nodes", "10.0.0.10-10.0.0.49", gateway="10.0.0.1", dnsServers=["10.0.0.2"])
    await tenant.pool("small", "10.0.1.10")
    await site.cluster()
    zone = {"server": str(site.sim.server), "failureDomain": "nowhere"}
    zones = machine_api.VSPHERE_DEPLOYMENT_ZONES
    await site.kube.create(zones, manifest(zones, site.namespace, spec=zone))
    # Tried again a second later, and counted.
    site.sim.fault("PowerOnVM_Task", "InvalidState", message="not now", times=1)
    await site.machine("m1")
    await site.machine("m2", pools="nowhere")
    await tenant.give("first", "small")
    await tenant.claim("second", "small")
    await tenant.give("gone", "nodes")
    await tenant.release("gone")
    volume = {"name": "v", "emptyDir": {}}
    good = {"volumes": [volume], "volumeMounts": [{"name": "v", "mountPath": "/v"}]}
    bad = {"selector": {"matchLabels": {"not a label": "x"}}, **good}
    for name, spec in (("good", good), ("bad", bad)):
        await site.kube.create(POD_PRESETS, manifest(POD_PRESETS, name, site.namespace, spec))
        await eventually(lambda name=name: site.kube.get(POD_PRESETS, name, site.namespace), ready)
    differs = pod("p", volumes=[{"name": "v", "configMap": {"name": "other"}}])
    for reviewed in (pod("p"), differs, pod("p", annotations={EXCLUDE: "true"})):
        await asyncio.to_thread(webhook.review, reviewed, namespace=site.namespace)
    status, _ = await asyncio.to_thread(webhook.post, b"no review")
    assert status == http.HTTPStatus.BAD_REQUEST
    await site.provisioned("m1")


async def played(kubeconfig, namespace, sim, webhook):
    """Tell the story, with the stand-ins for Cluster API, the garbage collector and guests beside it."""
    async with AsyncExitStack() as stack:
        kube = await stack.enter_async_context(Kube.connect(kubeconfig))
        site = Site(kube, kubeconfig, sim, Tenant(kube, namespace, namespace), {})
        for part in (site.guests, site.cluster_api, site.gc):
            await stack.enter_async_context(part.running())
        await told(site, webhook)


@pytest.fixture(scope="module")
def watched(cluster, tmp_path_factory):
    """Prometheus beside all services, which go on for the tests of this module."""
    cluster.install_crds(*[crd for crd in capi.crds(*DEFINITIONS) if crd["spec"]["names"]["kind"] in KINDS])
    folder = tmp_path_factory.mktemp("observed")
    # The webhook leaves the namespace of its Lease alone.
    namespace, leases = "observed", "observed-leases"
    for name in (namespace, leases):
        cluster.kubectl("create", "namespace", name)
    with ExitStack() as stack:
        sim = stack.enter_context(Vcsim.running(cluster=1))
        services = {}
        for name, kind in SERVICES.items():
            (folder / name).mkdir()
            flags = [f"--watch-namespace={namespace}", "--leader-election", f"--lease-namespace={leases}"]
            flags += ["--all"] if kind is MachineController else []
            services[name] = stack.enter_context(kind.running(folder / name, cluster.kubeconfig, *flags))
        # A zone belongs to no namespace: it must not be there for the tests of others.
        zone = f"vspheredeploymentzones.{machine_api.GROUP}/{namespace}"
        stack.callback(cluster.kubectl, "delete", "--ignore-not-found", zone)
        targets = [
            (services[name].address, {"job": name, "namespace": "groundwork-system", "pod": f"{name}-0"})
            for name in services
        ]
        (folder / "prometheus").mkdir()
        prometheus = stack.enter_context(Prometheus.running(folder / "prometheus", targets, alert_files()))
        # A rate is seen only of what happens after the first look.
        seen = 'groundwork_webhook_requests_total{result="bad"} == 0'
        blocking_until(
            lambda: len(prometheus.query("up == 1")) == len(targets) and prometheus.query(seen),
            limit=120.0,
            why="not every target is scraped",
        )
        asyncio.run(played(cluster.kubeconfig, namespace, sim, services["podpreset"]))

        def scraped():
            provisioned = prometheus.query('groundwork_machine_phase{phase="Provisioned"} == 1')
            reviewed = prometheus.query('rate(groundwork_webhook_requests_total{result="bad"}[5m]) > 0')
            return provisioned and reviewed

        blocking_until(scraped, limit=120.0, why="what the services did is not scraped")
        yield Watched(prometheus, namespace)


def test_every_target_is_scraped(watched):
    assert watched.prometheus.targets() == dict.fromkeys(SERVICES, "up")


def test_every_metric_that_an_alert_or_a_dashboard_names_is_scraped(watched):
    scraped = watched.prometheus.metrics()
    missing = {
        f"{where}: {metric}"
        for where, expression in expressions()
        for metric in used(watched.prometheus.parse(expression)).matched
        if metric not in scraped
    }
    assert missing == set()


def test_every_label_that_an_alert_or_a_dashboard_names_is_one_of_its_metrics(watched):
    labels = {}
    unknown = set()
    for where, expression in expressions():
        read = used(watched.prometheus.parse(expression))
        for metric in read.matched:
            if metric not in labels:
                labels[metric] = {name for series in watched.prometheus.series(metric) for name in series}
        known = set().union(TARGET_LABELS, *(labels[metric] for metric in read.matched))
        unknown |= {f"{where}: {name}" for name in read.grouped - known}
        unknown |= {
            f"{where}: {metric}{{{name}}}"
            for metric, names in read.matched.items()
            for name in names - labels[metric] - TARGET_LABELS
        }
    assert unknown == set()


def test_a_metric_or_label_that_does_not_exist_would_be_seen(watched):
    read = used(watched.prometheus.parse('sum by (colour) (rate(no_such_total{shape="x"}[5m])) * on (size) y'))
    assert read.matched == {"no_such_total": {"shape"}, "y": set()}
    assert read.grouped == {"colour", "size"}
    assert not watched.prometheus.series("no_such_total")


def test_every_rule_is_evaluated_without_an_error(watched):
    def evaluated():
        rules = watched.prometheus.rules()
        return rules if all(rule["health"] != "unknown" for rule in rules) else None

    rules = blocking_until(evaluated, why="rules are not evaluated")
    assert len(rules) == len(alerts())
    assert {rule["name"]: rule.get("lastError", "") for rule in rules if rule["health"] != "ok"} == {}


def test_the_alerts_that_there_is_a_reason_for_are_about_to_fire_and_no_others(watched):
    def active():
        # Two writers that meet make a reconciliation fail once; with so few of them that is a large share. And a
        # GlobalIPPool belongs to no namespace: those of other tests are seen too.
        found = {rule["name"] for rule in watched.prometheus.rules() if rule["state"] != "inactive"}
        return found - {"GroundworkReconcileErrors", "GroundworkPoolNearlyExhausted"}

    blocking_until(lambda: active() == FIRING, why=f"{active()} are active")


def test_a_pool_s_namespace_is_kept_where_the_scrape_adds_one_of_its_own(watched):
    found = watched.prometheus.query('groundwork_ipam_claims_waiting{pool="small"}')
    assert [(labels["namespace"], value) for labels, value in found] == [(watched.namespace, 1.0)]


@pytest.mark.parametrize(("where", "expression"), dashboard_expressions())
def test_every_question_of_a_dashboard_has_an_answer(watched, where, expression):
    # Two scrapes make a rate; what compares metrics that have no label in common would stay empty.
    blocking_until(lambda: watched.prometheus.query(expression), why=where)
