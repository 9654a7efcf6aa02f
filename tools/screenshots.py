"""`python -m tools.screenshots`: the pictures of the status page in docs/images, taken of an allocator at work.

Starts a cluster of its own and the allocator, makes pools and claims as they are in an incident (one pool is full, one
has a mistake in its spec), opens the page in Chromium and writes the pictures. Takes about two minutes.
Invariant: what is shown was done by the allocator; nothing on the page is made up.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
import urllib.request
import uuid
from typing import TYPE_CHECKING, Any

from tools import capi, chromium
from tools.cluster import Cluster
from tools.demo.stage import Stage
from tools.paths import ROOT
from tools.process import free_ports
from tools.progress import say

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

IMAGES = ROOT / "docs" / "images"
REPLICA = "groundwork-ipam-5d8c7b9f64-x2kqz"
EXPECTED = {"machines": (127, 9), "small": (8, 0), "storage": (36, 0), "management": (40, 0), "bench": (9, 0)}
"""Used and cooling addresses of each pool when the pictures are taken."""
REASONS = {"PoolExhausted", "PoolNotReady", "AllocationFailed", "Paused", "StillUsed"}
"""Why claims wait then."""
_GROUP = "ipam.metal3.io/v1alpha1"
_OWN_GROUP = "ipam.groundwork.dev/v1alpha1"
_CAPI_GROUP = "ipam.cluster.x-k8s.io/v1beta2"
_WAVE_SECONDS = 12.0
_TALLEST = 1800
_PATIENCE_SECONDS = 120.0

Json = dict[str, Any]


def _object(api: str, kind: str, name: str, namespace: str, spec: Json, **metadata: Any) -> Json:
    where = {"namespace": namespace} if namespace else {}
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name, **where, **metadata}, "spec": spec}


def _pool(name: str, namespace: str, *blocks: Json, **spec: Any) -> Json:
    kind, group = ("IPPool", _GROUP) if namespace else ("GlobalIPPool", _OWN_GROUP)
    return _object(group, kind, name, namespace, {"namePrefix": name, "pools": list(blocks), **spec})


def _claim(name: str, namespace: str, pool: str, *, cluster: str = "", machine: str = "", **metadata: Any) -> Json:
    """An IPAddressClaim, as Cluster API's controllers make them."""
    kind = "GlobalIPPool" if pool == "management" else "IPPool"
    group = _OWN_GROUP if kind == "GlobalIPPool" else _GROUP
    spec = {"poolRef": {"apiGroup": group.partition("/")[0], "kind": kind, "name": pool}}
    if machine:
        version = "infrastructure.cluster.x-k8s.io/v1beta1"
        owner = {"apiVersion": version, "kind": "VSphereMachine", "name": machine, "uid": str(uuid.uuid4())}
        metadata["ownerReferences"] = [{**owner, "controller": True}]
    if cluster:
        metadata["labels"] = {"cluster.x-k8s.io/cluster-name": cluster}
    return _object(_CAPI_GROUP, "IPAddressClaim", name, namespace, spec, **metadata)


def _metal3_claim(name: str, namespace: str, pool: str, **metadata: Any) -> Json:
    return _object(_GROUP, "IPClaim", name, namespace, {"pool": {"name": pool}}, **metadata)


def _machines(cluster: str, namespace: str, pool: str, count: int, first: int = 0) -> list[Json]:
    names = [f"{cluster}-worker-{number:03d}" for number in range(first, first + count)]
    return [_claim(f"{name}-eth0", namespace, pool, cluster=cluster, machine=name) for name in names]


def _clusters(namespace: str, *names: str) -> list[Json]:
    infrastructure = {"apiGroup": "infrastructure.cluster.x-k8s.io", "kind": "VSphereCluster"}
    return [
        _object(
            "cluster.x-k8s.io/v1beta2",
            "Cluster",
            name,
            namespace,
            {"infrastructureRef": {**infrastructure, "name": name}},
        )
        for name in names
    ]


def waves() -> Iterator[list[Json]]:
    """Objects to apply, one wave after the other."""
    yield [
        *({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in ("prod", "edge", "lab")),
        *_clusters("prod", "payments", "search"),
        *_clusters("edge", "store-17"),
        _pool(
            "machines",
            "prod",
            {"start": "10.20.30.0", "end": "10.20.30.255", "prefix": 24},
            gateway="10.20.30.1",
            excludedAddresses=["10.20.30.96-10.20.30.111"],
            preAllocations={"payments-vip": "10.20.30.10", "search-vip": "10.20.30.11"},
            reuseDelaySeconds=900,
        ),
        _pool("small", "edge", {"start": "10.50.0.10", "end": "10.50.0.17", "prefix": 27}, gateway="10.50.0.1"),
        _pool("storage", "prod", {"subnet": "2001:db8:20::/64"}),
        _pool("management", "", {"subnet": "10.64.0.0/16"}, excludedAddresses=["10.64.128.0/18"]),
        _pool(
            "bench",
            "lab",
            {"start": "192.0.2.10", "end": "192.0.2.59", "prefix": 24},
            preAllocations={"gateway": "192.0.2.1"},
        ),
        _object(
            _OWN_GROUP,
            "IPReservation",
            "default.10.20.30.20",
            "",
            {"domain": "default", "address": "10.20.30.20", "description": "load balancer of the old site"},
        ),
        *_machines("payments", "prod", "machines", 60),
        *_machines("store-17", "edge", "small", 5),
    ]
    yield [
        *_machines("search", "prod", "machines", 50),
        *_machines("search", "prod", "storage", 36, first=100),
        *_machines("payments", "prod", "management", 40, first=200),
        *(_metal3_claim(f"bmc-{number:02d}", "lab", "bench") for number in range(9)),
        _metal3_claim("payments-vip", "prod", "machines"),
    ]
    yield [
        *_machines("payments", "prod", "machines", 24, first=60),
        *_machines("store-17", "edge", "small", 6, first=5),
        _claim("rack-4", "lab", "benches", machine="rack-4"),
        _claim("dns", "prod", "machines", machine="dns-0", annotations={"ipAddress": "10.20.30.100"}),
        _claim("later", "prod", "machines", annotations={"cluster.x-k8s.io/paused": ""}),
        _claim("drains", "prod", "machines", machine="drains-0", finalizers=["example.com/backup"]),
    ]


def _play(stage: Stage, url: str) -> None:
    """Bring about what the pictures show."""
    for wave in waves():
        stage.cluster.apply(*wave)
        time.sleep(_WAVE_SECONDS)
    leaving = [f"payments-worker-{number:03d}-eth0" for number in range(30, 39)]
    claims = "ipaddressclaims.ipam.cluster.x-k8s.io"
    stage.cluster.kubectl("delete", claims, "--namespace=prod", "--wait=false", "drains", *leaving)
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not _as_told(_status(url)):
        stage.promise(time.monotonic() < deadline, "everything is served but what cannot be")
        time.sleep(0.5)
    time.sleep(_WAVE_SECONDS)


def _as_told(status: Json) -> bool:
    counts = {pool["name"]: pool["addresses"] for pool in status["pools"]}
    reasons = {item["reason"] for item in status["unserved"]}
    seen = {name: (counts[name]["used"], counts[name]["cooling"]) for name in EXPECTED}
    return seen == EXPECTED and reasons >= REASONS


def _status(url: str) -> Json:
    with urllib.request.urlopen(f"{url}/status.json", timeout=30) as answer:  # noqa: S310 - http of our own
        status: Json = json.load(answer)
    return status


async def _photograph(url: str, folder: Path) -> None:
    views = (
        ("status-page", f"{url}/"),
        ("status-page-pool", f"{url}/pools/IPPool/prod/machines"),
        ("status-page-ipv6", f"{url}/pools/IPPool/prod/storage"),
    )
    async with chromium.Chromium.running() as browser:
        for name, address in views:
            async with browser.tab() as tab:
                await tab.goto(address)
                if tab.complaints:
                    raise chromium.ChromiumError(f"{address}: {tab.complaints}")
                await tab.screenshot(folder / f"{name}.png", _TALLEST)
                say(f"wrote {name}.png")


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.screenshots", description=__doc__.partition("\n")[0])
    parser.add_argument("--hold", action="store_true", help="keep everything running until Enter is pressed")
    options = parser.parse_args(arguments)
    chromium.ensure()
    os.environ["HOSTNAME"] = REPLICA
    IMAGES.mkdir(exist_ok=True)
    with Cluster.temporary() as cluster, Stage(cluster) as stage:
        cluster.install_crds(ROOT / "deploy" / "crds", *capi.crds())
        (port,) = free_ports(1)
        stage.start("services.ipam", "--web", f"--web-address=127.0.0.1:{port}", "--lease-namespace=default")
        url = f"http://127.0.0.1:{port}"
        _play(stage, url)
        asyncio.run(_photograph(url, IMAGES))
        if options.hold:
            input(f"{url} - Enter ends it ")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
