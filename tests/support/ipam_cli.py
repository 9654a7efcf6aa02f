"""`groundwork ipam` as tests use it: objects as users write them, the command line in this process, planted changes.

Responsible for: running the command line, and undoing what a test plants.
Invariant: nothing here starts an allocator or a cluster.
"""

from __future__ import annotations

import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout
from typing import NamedTuple

from services import cli
from services.ipam.cli import command as ipam
from services.runtime.clock import SystemClock

CLAIMS = ("ipclaims.ipam.metal3.io", "ipaddressclaims.ipam.cluster.x-k8s.io")
ADDRESSES = ("ipaddresses.ipam.metal3.io", "ipaddresses.ipam.cluster.x-k8s.io")


def namespace(name):
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def pool(name, space, **spec):
    kind, group = ("IPPool", "ipam.metal3.io") if space else ("GlobalIPPool", "ipam.groundwork.dev")
    meta = {"name": name, **({"namespace": space} if space else {})}
    return {"apiVersion": f"{group}/v1alpha1", "kind": kind, "metadata": meta, "spec": {"namePrefix": name, **spec}}


def ip_claim(name, space, reference, **meta):
    return {
        "apiVersion": "ipam.metal3.io/v1alpha1",
        "kind": "IPClaim",
        "metadata": {"name": name, "namespace": space, **meta},
        "spec": {"pool": reference},
    }


def capi_claim(name, space, group, kind, pool_name):
    return {
        "apiVersion": "ipam.cluster.x-k8s.io/v1beta2",
        "kind": "IPAddressClaim",
        "metadata": {"name": name, "namespace": space},
        "spec": {"poolRef": {"apiGroup": group, "kind": kind, "name": pool_name}},
    }


def ip_address(name, space, claim, at, pool_name="lab"):
    return {
        "apiVersion": "ipam.metal3.io/v1alpha1",
        "kind": "IPAddress",
        "metadata": {"name": name, "namespace": space},
        "spec": {"address": at, "claim": {"name": claim, "namespace": space}, "pool": {"name": pool_name}},
    }


def capi_address(name, space, at, pool_name="lab"):
    return {
        "apiVersion": "ipam.cluster.x-k8s.io/v1beta2",
        "kind": "IPAddress",
        "metadata": {"name": name, "namespace": space},
        "spec": {
            "address": at,
            "claimRef": {"name": name},
            "poolRef": {"apiGroup": "ipam.metal3.io", "kind": "IPPool", "name": pool_name},
            "prefix": 24,
        },
    }


def reservation(at, claim=None, **spec):
    if claim:
        kind, space, name = claim
        spec["claim"] = {"kind": kind, "namespace": space, "name": name}
    return {
        "apiVersion": "ipam.groundwork.dev/v1alpha1",
        "kind": "IPReservation",
        "metadata": {"name": f"default.{at}"},
        "spec": {"address": at, **spec},
    }


class Answer(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def data(self):
        return json.loads(self.out)


def run(cluster, *arguments, kubeconfig=None, stdin=""):
    """Run the command line in this process: starting Python anew each time would take longer than all the rest."""
    out, err, before = io.StringIO(), io.StringIO(), sys.stdin
    sys.stdin = io.StringIO(stdin)
    try:
        with redirect_stdout(out), redirect_stderr(err):
            code = cli.main(["ipam", *arguments, f"--kubeconfig={kubeconfig or cluster.kubeconfig}"])
    finally:
        sys.stdin = before
    return Answer(code, out.getvalue(), err.getvalue())


def listed(cluster, *resources):
    """Objects of some resources in all namespaces, by kind, namespace and name."""
    found = json.loads(cluster.kubectl("get", ",".join(resources), "--all-namespaces", "--output=json"))["items"]
    return {
        (obj["apiVersion"].partition("/")[0], obj["metadata"].get("namespace", ""), obj["metadata"]["name"]): obj
        for obj in found
    }


def holders(cluster):
    """What must not change: names and addresses of IPAddresses with their claims, and the names in claims' status."""
    addresses = {
        key: (obj["spec"]["address"], obj["spec"].get("claim", obj["spec"].get("claimRef"))["name"])
        for key, obj in listed(cluster, *ADDRESSES).items()
    }
    claims = {}
    for key, obj in listed(cluster, *CLAIMS).items():
        status = obj.get("status", {})
        claims[key] = (status.get("address") or status.get("addressRef") or {}).get("name")
    return addresses, claims


def all_bound(cluster):
    return all(holders(cluster)[1].values())


class New(NamedTuple):
    """An object that is not there, with a status if it has one."""

    obj: dict

    def carry_out(self, cluster):
        meta = self.obj["metadata"]
        api = self.obj["apiVersion"].split("/")
        where = [f"{self.obj['kind']}.{api[-1]}.{api[0]}", meta["name"]]
        where += [f"--namespace={meta['namespace']}"] if "namespace" in meta else []
        cluster.apply({key: value for key, value in self.obj.items() if key != "status"})
        if "status" in self.obj:
            patch = json.dumps({"status": self.obj["status"]})
            cluster.kubectl("patch", *where, "--subresource=status", "--type=merge", f"--patch={patch}")
        return lambda: cluster.kubectl("delete", *where)


class Patch(NamedTuple):
    """A merge patch of an object, and the one that undoes it."""

    where: tuple
    change: dict
    back: dict

    def carry_out(self, cluster):
        self._send(cluster, self.change)
        return lambda: self._send(cluster, self.back)

    def _send(self, cluster, patch):
        cluster.kubectl("patch", *self.where, "--type=merge", f"--patch={json.dumps(patch)}")


class Gone(NamedTuple):
    """An object removed by force, and brought back as it was."""

    where: tuple

    def carry_out(self, cluster):
        obj = json.loads(cluster.kubectl("get", *self.where, "--output=json"))
        cluster.kubectl("patch", *self.where, "--type=merge", '--patch={"metadata":{"finalizers":null}}')
        cluster.kubectl("delete", *self.where)
        for field in ("uid", "resourceVersion", "creationTimestamp", "managedFields", "generation"):
            obj["metadata"].pop(field, None)
        back = New(obj)
        return lambda: back.carry_out(cluster)


class At:
    """A clock for the command line that does something when it is about to sleep, instead of sleeping."""

    def __init__(self, monkeypatch, **actions):
        """`actions`: what to do in the sleeps, by their order: `first`, `second`; later ones are slept."""
        self.left = [actions[name] for name in ("first", "second") if name in actions]
        outer = self

        class Clock(SystemClock):
            async def sleep(self, seconds):
                if outer.left:
                    outer.left.pop(0)()
                else:
                    await super().sleep(seconds)

        monkeypatch.setattr(ipam, "SystemClock", Clock)
