"""The checker of fault runs is able to fail: each kind of violation, planted in a sound scene, is found and named."""

from __future__ import annotations

import copy
import subprocess
import sys
from types import SimpleNamespace

import pytest

from tests.faults import evidence, invariants
from tests.faults.runner import Watchman
from tools.paths import ROOT

PLACES = {"claims": "claims", "capv": "capv", "site": "site", "pods": "pods"}
POOL = {
    "namePrefix": "p",
    "prefix": 24,
    "gateway": "10.0.0.1",
    "pools": [{"start": "10.0.0.2", "end": "10.0.0.4"}],
    "excludedAddresses": ["10.0.0.4"],
}
DEVICE = {"networkName": "net"}
SPEC = {"template": "ubuntu", "network": {"devices": [DEVICE]}}


def meta(name, namespace, **more):
    return {"name": name, "namespace": namespace, "uid": f"uid-{namespace}-{name}", **more}


def ready(status="True", reason="AddressAllocated", message=""):
    return [{"type": "Ready", "status": status, "reason": reason, "message": message}]


class Scene:
    """A sound scene and what users wanted of it, put together with few words."""

    def __init__(self):
        self.seen = {kind: [] for kind in evidence.PATHS}
        self.seen |= {"vms": [{"name": "DC0_VM", "id": "vm-0", "instanceUuid": "u", "addresses": None}]}
        self.made = []
        self.seen["capv"] = SimpleNamespace(wrong=[], alive=lambda: self.made)
        kinds = ("pools", "claims", "machines", "clusters", "pods", "presets")
        self.wishes = {kind: {} for kind in kinds} | {"places": PLACES}
        self.wishes["pools"]["claims", "pool"] = POOL
        status = {"ipAddresses": {"total": 2, "outOfRange": 0}}
        self.seen["IPPool"] = [{"metadata": meta("pool", "claims"), "spec": copy.deepcopy(POOL), "status": status}]
        self.claim("a", "10.0.0.2")
        self.claim("b", "10.0.0.3", kind="IPAddressClaim", pin="10.0.0.3")
        self.claim("c", None)
        self.capv_machine("node", "10.1.0.2")
        self.site_machine("vm", "10.2.0.2")
        self.capv_cluster("east", "10.1.0.9")
        self.pod("app")
        self.wishes["presets"]["faults"] = {"env": [{"name": invariants.VARIABLE, "value": "v2"}]}
        self.seen["ClusterPodPreset"] = [
            {
                "metadata": {"name": "faults", "generation": 2},
                "spec": {"env": [{"name": invariants.VARIABLE, "value": "v2"}]},
                "status": {"observedGeneration": 2, "conditions": ready()},
            }
        ]

    def claim(self, name, address, *, kind="IPClaim", namespace="claims", pool="pool", pin=None, owners=()):
        written = {"metadata": {"labels": {"team": "a"}}, "spec": {"poolRef": {"name": pool}}}
        status = {"conditions": ready("False", "PoolExhausted", "none is left")}
        if address is not None:
            self.hold(kind, namespace, name, address, pool)
            ref = {"name": f"ip-{name}"}
            status = {"conditions": ready(), "address" if kind == "IPClaim" else "addressRef": ref}
        more = {"labels": {"team": "a"}, "ownerReferences": list(owners)}
        claim = {"metadata": meta(name, namespace, **more), "spec": copy.deepcopy(written["spec"]), "status": status}
        self.seen[kind].append(claim)
        if namespace == "claims":
            self.wishes["claims"][kind, namespace, name] = {"pool": pool, "pin": pin, "object": written}

    def hold(self, kind, namespace, name, address, pool):
        group, refs = ("metal3", ("claim", "pool")) if kind == "IPClaim" else ("capi", ("claimRef", "poolRef"))
        spec = {"address": address, refs[0]: {"name": name}, refs[1]: {"name": pool}}
        self.seen[group].append({"metadata": meta(f"ip-{name}", namespace), "spec": spec})
        claim = {"kind": kind, "namespace": namespace, "name": name}
        self.seen["reservations"].append({"metadata": {"name": address}, "spec": {"address": address, "claim": claim}})

    def _machine(self, name, namespace, address, **status):
        spec = {**SPEC, "network": {"devices": [{**DEVICE, "ipAddrs": [f"{address}/24"]}]}}
        found = {"metadata": meta(name, namespace), "spec": copy.deepcopy(spec), "status": status}
        self.seen["VSphereMachine"].append(found)
        self.wishes["machines"][namespace, name] = copy.deepcopy(SPEC)
        owner = {"kind": "VSphereMachine", "name": name, "uid": found["metadata"]["uid"]}
        self.claim(f"{name}-0", address, kind="IPAddressClaim", namespace=namespace, pool="nodes", owners=[owner])
        return found

    def capv_machine(self, name, address):
        self._machine(name, "capv", address)
        owner = {"kind": "VSphereMachine", "name": name, "uid": f"uid-capv-{name}"}
        written = meta(name, "capv", ownerReferences=[owner], managedFields=[{"manager": "capv"}])
        self.seen["VSphereVM"].append({"metadata": written, "spec": {}})
        self.made.append(SimpleNamespace(namespace="capv", name=name, addresses=[address], from_pools=[], on=True))

    def capv_cluster(self, name, address):
        found = {"metadata": meta(name, "capv"), "spec": {"controlPlaneEndpoint": {"host": address, "port": 6443}}}
        self.seen["VSphereCluster"].append(found)
        self.wishes["clusters"]["capv", name] = {}
        owner = {"kind": "VSphereCluster", "name": name, "uid": found["metadata"]["uid"]}
        self.claim(f"{name}-vip", address, kind="IPAddressClaim", namespace="capv", pool="vips", owners=[owner])

    def site_machine(self, name, address):
        found = self._machine(name, "site", address, conditions=ready())
        vm = {"id": f"vm-{name}", "name": name, "instanceUuid": found["metadata"]["uid"]}
        self.seen["vms"].append({**vm, "addresses": {"00:50": [address, "fe80::1"], "00:51": None}})

    def pod(self, name):
        own = {"name": "app", "env": [{"name": "OWN", "value": "1"}]}
        given = {"name": "app", "env": [{"name": invariants.VARIABLE, "value": "v2"}, {"name": "OWN", "value": "1"}]}
        self.seen["Pod"].append({"metadata": meta(name, "pods"), "spec": {"containers": [given]}})
        obj = {"metadata": {"name": name}, "spec": {"containers": [own]}}
        self.wishes["pods"]["pods", name] = {"object": obj, "values": ["v1", "v2"]}

    def one(self, kind, name):
        return next(obj for obj in self.seen[kind] if obj["metadata"]["name"] == name)

    def drop(self, kind, name):
        self.seen[kind].remove(self.one(kind, name))

    def wrong(self):
        return invariants.at_rest(self.seen, self.wishes)


@pytest.fixture
def scene():
    return Scene()


def test_a_sound_scene_has_nothing_wrong(scene):
    assert scene.wrong() == []


def address_twice(scene):
    scene.hold("IPClaim", "claims", "c", "10.0.0.2", "pool")


def claim_with_two(scene):
    scene.hold("IPClaim", "claims", "a", "10.0.0.4", "pool")


def address_without_claim(scene):
    del scene.wishes["claims"]["IPClaim", "claims", "a"]
    scene.drop("IPClaim", "a")


def reservation_without_address(scene):
    scene.drop("metal3", "ip-a")


def address_without_reservation(scene):
    scene.drop("reservations", "10.0.0.2")


def claim_lost(scene):
    scene.drop("IPClaim", "c")


def claim_not_gone(scene):
    del scene.wishes["claims"]["IPClaim", "claims", "c"]


def claim_changed(scene):
    scene.one("IPClaim", "c")["spec"]["poolRef"]["name"] = "other"


def label_lost(scene):
    scene.one("IPClaim", "c")["metadata"]["labels"] = {}


def silent(scene):
    scene.one("IPClaim", "c")["status"] = {}


def dishonest(scene):
    scene.wishes["pools"]["claims", "pool"] = {**POOL, "excludedAddresses": []}


def other_than_pinned(scene):
    scene.wishes["claims"]["IPAddressClaim", "claims", "b"]["pin"] = "10.0.0.2"


def without_words(scene):
    scene.one("IPClaim", "c")["status"]["conditions"] = ready("False", "PoolExhausted", "")


def pool_lost(scene):
    scene.drop("IPPool", "pool")


def pool_changed(scene):
    scene.one("IPPool", "pool")["spec"]["gateway"] = "10.0.0.9"


def pool_miscounts(scene):
    scene.one("IPPool", "pool")["status"]["ipAddresses"]["total"] = 3


def pool_overlooks(scene):
    scene.one("IPPool", "pool")["status"]["ipAddresses"]["outOfRange"] = 1


def capv_vm_doubled(scene):
    scene.made.append(scene.made[0])


def capv_vm_orphaned(scene):
    scene.made.append(SimpleNamespace(namespace="capv", name="old", addresses=[], from_pools=[], on=True))


def capv_vm_missing(scene):
    scene.made.clear()


def capv_history(scene):
    scene.seen["capv"].wrong.append("10.1.0.2 is used by two")


def capv_field_changed(scene):
    scene.one("VSphereMachine", "node")["spec"]["template"] = "other"


def capv_address_lost(scene):
    scene.one("VSphereMachine", "node")["spec"]["network"]["devices"][0]["ipAddrs"] = []


def cluster_without_endpoint(scene):
    scene.one("VSphereCluster", "east")["spec"].clear()


def cluster_with_other_endpoint(scene):
    scene.one("VSphereCluster", "east")["spec"]["controlPlaneEndpoint"]["host"] = "10.1.0.8"


def cluster_lost(scene):
    scene.wishes["clusters"]["capv", "west"] = {}


def cluster_not_gone(scene):
    scene.wishes["clusters"].clear()


def site_vm_doubled(scene):
    scene.seen["vms"].append({**scene.seen["vms"][-1], "id": "vm-again", "addresses": {}})


def site_vm_orphaned(scene):
    scene.seen["vms"].append({"id": "vm-x", "name": "x", "instanceUuid": "x", "addresses": {}})


def site_vm_missing(scene):
    scene.seen["vms"].pop()


def site_not_ready(scene):
    scene.one("VSphereMachine", "vm")["status"]["conditions"] = ready("False", "TaskFailed", "no space")


def site_not_gone(scene):
    del scene.wishes["machines"]["site", "vm"]


def site_lost(scene):
    scene.wishes["machines"]["site", "more"] = SPEC


def site_field_changed(scene):
    scene.one("VSphereMachine", "vm")["spec"]["template"] = "other"


def site_vm_with_other_address(scene):
    scene.seen["vms"][-1]["addresses"] = {"00:50": ["10.2.0.9"]}


def site_address_shared(scene):
    scene.seen["vms"].append(
        {"id": "vm-y", "name": "y", "instanceUuid": "y", "addresses": {"00:52": ["10.2.0.2"]}},
    )


def pod_not_admitted(scene):
    scene.drop("Pod", "app")


def pod_without_preset(scene):
    scene.one("Pod", "app")["spec"]["containers"][0]["env"].pop(0)


def pod_with_old_preset(scene):
    scene.one("Pod", "app")["spec"]["containers"][0]["env"][0]["value"] = "v0"


def pod_changed(scene):
    scene.one("Pod", "app")["spec"]["containers"][0]["env"][1]["value"] = "2"


def pod_not_gone(scene):
    scene.wishes["pods"].clear()


def preset_lost(scene):
    scene.seen["ClusterPodPreset"].clear()


def preset_changed(scene):
    scene.seen["ClusterPodPreset"][0]["spec"]["env"][0]["value"] = "v9"


def preset_not_told(scene):
    scene.seen["ClusterPodPreset"][0]["status"]["observedGeneration"] = 1


PLANTED = [
    (address_twice, "10.0.0.2 is held twice"),
    (claim_with_two, "has several"),
    (address_without_claim, "which does not exist"),
    (reservation_without_address, "10.0.0.2 is reserved for"),
    (address_without_reservation, "10.0.0.2 of ('IPClaim', 'claims', 'a') is not reserved"),
    (claim_lost, "('IPClaim', 'claims', 'c') is lost"),
    (claim_not_gone, "('IPClaim', 'claims', 'c') was deleted and is still there"),
    (claim_changed, "spec.poolRef.name was pool and is other"),
    (label_lost, "metadata.labels.team is gone"),
    (silent, "is not told why"),
    (dishonest, "although 10.0.0.4 is free"),
    (other_than_pinned, "asked for 10.0.0.2 and has"),
    (without_words, "has no address and is told"),
    (pool_lost, "IPPool ('claims', 'pool') is lost"),
    (pool_changed, "spec.gateway was 10.0.0.1 and is 10.0.0.9"),
    (pool_miscounts, "counts 3 addresses and has 2"),
    (pool_overlooks, "counts 1 out of range, there are 0"),
    (capv_vm_doubled, "has 2 VMs"),
    (capv_vm_orphaned, "VM capv/old has no VSphereMachine"),
    (capv_vm_missing, "has 0 VMs"),
    (capv_history, "10.1.0.2 is used by two"),
    (capv_field_changed, "template was ubuntu and is other"),
    (capv_address_lost, "says [] and holds ['10.1.0.2']"),
    (cluster_without_endpoint, "VSphereCluster ('capv', 'east') has no endpoint"),
    (cluster_with_other_endpoint, "says ['10.1.0.8'] and holds ['10.1.0.9']"),
    (cluster_lost, "VSphereCluster ('capv', 'west') is lost"),
    (cluster_not_gone, "VSphereCluster ('capv', 'east') was deleted and is still there"),
    (site_vm_doubled, "2 VMs are uid-site-vm"),
    (site_vm_orphaned, "VM x is an orphan"),
    (site_vm_missing, "is ready and has no VM"),
    (site_not_ready, "is not ready: TaskFailed: no space"),
    (site_not_gone, "VSphereMachine site/vm was deleted and is still there"),
    (site_lost, "VSphereMachine site/more is lost"),
    (site_field_changed, "template was ubuntu and is other"),
    (site_vm_with_other_address, "VM vm has ['10.2.0.9']"),
    (site_address_shared, "10.2.0.2 is used by several VMs"),
    (pod_not_admitted, "Pod ('pods', 'app') is lost"),
    (pod_without_preset, "was admitted with FAULTS=[]"),
    (pod_with_old_preset, "was admitted with FAULTS=['v0']"),
    (pod_changed, "value was 1 and is 2"),
    (pod_not_gone, "Pod ('pods', 'app') was deleted and is still there"),
    (preset_lost, "ClusterPodPreset faults is lost"),
    (preset_changed, "value was v2 and is v9"),
    (preset_not_told, "is not told to be ready"),
]


@pytest.mark.parametrize(("plant", "named"), PLANTED, ids=[plant.__name__ for plant, _ in PLANTED])
def test_a_planted_violation_is_named(scene, plant, named):
    plant(scene)
    assert [line for line in scene.wrong() if named in line], scene.wrong()


def test_what_users_have_deleted_and_is_still_there_is_named(scene):
    left = list(invariants.nothing_left(scene.seen))
    for named in (
        "IPClaim ('claims', 'a') is left",
        "capi ('claims', 'ip-b') is left",
        "10.0.0.2 is still reserved",
        "VM vm is left",
        "VSphereCluster ('capv', 'east') is left",
        "CAPV's VM capv/node is left",
        "Pod ('pods', 'app') is left",
    ):
        assert named in left


def test_an_address_that_moved_between_two_lists_is_no_violation_and_one_that_stays_double_is(scene):
    watchman = Watchman(None)
    watchman.consider(invariants.doubles(scene.seen))
    address_twice(scene)
    watchman.consider(invariants.doubles(scene.seen))
    assert watchman.found == {}, "once may be two moments"
    watchman.consider(invariants.doubles(scene.seen))
    assert "10.0.0.2 is held twice" in "".join(watchman.found.values())


def test_the_checker_shares_no_code_with_the_services():
    code = (
        "import sys, tests.faults.evidence, tests.faults.invariants;"
        "sys.exit(any(name.partition('.')[0] == 'services' for name in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
