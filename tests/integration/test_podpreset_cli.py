"""`groundwork podpreset` over a running cluster: presets as they are there, and what files would change."""

from __future__ import annotations

import functools
import json
import sys
from io import StringIO
from pathlib import Path

import pytest
import yaml

from services import cli, console
from services.console import FOUND, OK, UNUSABLE
from services.podpreset.cli import inputs
from tools.cluster import Cluster

CRDS = Path(__file__).resolve().parents[2] / "deploy" / "crds"
GROUP = "reach.spectrocloud.com/v1alpha1"
READ = [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list"]}]


def preset(name, namespace="", **spec):
    kind = "PodPreset" if namespace else "ClusterPodPreset"
    meta = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": GROUP, "kind": kind, "metadata": meta, "spec": spec}


def env(**values):
    return [{"name": name, "value": value} for name, value in values.items()]


def namespace(name, **labels):
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def template(app, **values):
    containers = [{"name": "app", "image": "x", "env": env(**values)}]
    return {"metadata": {"labels": {"app": app}}, "spec": {"containers": containers}}


def workload(kind, name, space, app, **values):
    spec = {"selector": {"matchLabels": {"app": app}}, "template": template(app, **values)}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name, "namespace": space}, "spec": spec}


PROXY = preset(
    "proxy",
    namespaceSelector={"matchLabels": {"proxy": "yes"}},
    env=env(HTTP_PROXY="http://u:hunter2@p:3128", NO_PROXY=".corp"),
    noProxy={"include": ["service-cidr", "api-server"]},
)
TEAM = preset("team", "shop", env=env(NO_PROXY="mysql"))
SELECTED = preset("selected", "plain", selector={"matchLabels": {"app": "db"}}, env=env(A="1"))
OBJECTS = (
    namespace("shop", proxy="yes"),
    namespace("plain"),
    PROXY,
    TEAM,
    SELECTED,
    workload("Deployment", "web", "shop", "web", NO_PROXY="own"),
    workload("DaemonSet", "db", "plain", "db"),
)


def pod(name, space):
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": space},
        "spec": template("x")["spec"],
    }


POD = pod("p", "shop")


@pytest.fixture(scope="module")
def source(control_plane):
    """A cluster with presets and workloads, which nobody carries out."""
    with Cluster.temporary() as cluster:
        cluster.install_crds(CRDS)
        cluster.apply(*OBJECTS)
        yield cluster


@pytest.fixture
def run(source, monkeypatch, capsys):
    monkeypatch.setattr(inputs, "Progress", functools.partial(console.Progress, clock=lambda: 0.0))

    def run(*arguments, files=(), kubeconfig=None):
        extra = []
        if files:
            monkeypatch.setattr(sys, "stdin", StringIO("\n---\n".join(json.dumps(obj) for obj in files)))
            extra = ["-f", "-"]
        where = ["--kubeconfig", str(kubeconfig or source.kubeconfig)]
        code = cli.main(["podpreset", *arguments, *extra, *where])
        return code, *capsys.readouterr()

    return run


def variables(obj):
    (container,) = obj["spec"]["containers"]
    return {item["name"]: item["value"] for item in container["env"]}


# -- looking -------------------------------------------------------------------------------------------------------


def test_a_pod_of_a_file_gets_what_the_presets_of_the_cluster_give(run):
    code, out, err = run("render", "--live", files=[POD])
    assert code == OK
    given = variables(yaml.safe_load(out))
    assert given["http_proxy"] == "http://***@p:3128"
    first, cidr, *addresses, last = given["NO_PROXY"].split(",")
    assert (first, cidr, last) == (".corp", "10.0.0.0/24", "mysql")
    assert addresses  # of the API server, whatever they are here
    assert given["NO_PROXY"] == given["no_proxy"]
    assert "hunter2" not in out + err


def test_a_preset_of_a_file_takes_the_place_of_the_clusters(run):
    _, out, _ = run("render", "--live", files=[POD, preset("team", "shop", env=env(NO_PROXY="other"))])
    assert variables(yaml.safe_load(out))["NO_PROXY"].endswith(",other")


def test_a_namespace_is_as_the_cluster_labels_it_unless_a_file_says_otherwise(run):
    elsewhere = pod("p", "plain")
    _, out, _ = run("explain", "--live", files=[elsewhere])
    assert "passes over ClusterPodPreset proxy: spec.namespaceSelector does not match" in out
    _, out, _ = run("explain", "--live", files=[elsewhere, namespace("plain", proxy="yes")])
    assert "gets ClusterPodPreset proxy" in out


def test_a_diff_shows_what_new_presets_change_in_all_workloads_there_are(run):
    code, out, _ = run("diff", "--live", files=[preset("team", "shop", env=env(NO_PROXY="other"))])
    assert code == FOUND
    changed = [line for line in out.splitlines() if line.startswith(("---", "+++", "-", "+"))]
    assert changed[0] == "--- Deployment shop/web (now)"
    assert any(line.startswith("+") and line.endswith(",other") for line in changed)
    assert "DaemonSet" not in out
    code, out, _ = run("diff", "--live", files=[TEAM])
    assert (code, out) == (OK, "")
    code, out, _ = run("diff", "--live", "-n", "plain", files=[preset("team", "shop", env=env(NO_PROXY="other"))])
    assert (code, out) == (OK, "")


def test_without_new_presets_a_diff_shows_what_those_of_the_cluster_do(run):
    code, out, _ = run("diff", "--live")
    assert code == FOUND
    assert "+++ DaemonSet plain/db (with presets)" in out
    assert "+++ Deployment shop/web (with presets)" in out


def test_lint_looks_at_presets_and_workloads_of_the_cluster(run):
    code, out, _ = run("lint", "--live", "-ojson")
    assert code == FOUND
    assert {item["where"].split(":")[0] for item in json.loads(out)} == {"ClusterPodPreset proxy"}
    _, out, _ = run("lint", "--live", "--workloads", files=[workload("Deployment", "x", "shop", "x", no_proxy="10.*")])
    assert "Deployment shop/x: container app: env no_proxy" in out
    assert "looked at 3 presets and 3 pods and workloads" in out
    code, out, _ = run("lint", "--live", "--workloads", "--host", "mysql", "-ojson")
    assert [row["where"] for row in json.loads(out)] == [
        "Deployment shop/web: container app",
        "DaemonSet plain/db: container app",
    ]
    assert {verdict for row in json.loads(out) for verdict in row["clients"].values()} == {"direct"}
    assert code == OK


def test_a_preset_of_the_cluster_can_be_exported(run, source):
    code, out, err = run("export", "--live", "--to", "mutatingadmissionpolicy")
    assert code == FOUND
    assert "ClusterPodPreset proxy cannot be a policy: env no_proxy: PodPreset shop/team gives it too" in err
    made, binding = yaml.safe_load_all(out)
    assert made["metadata"]["name"] == binding["metadata"]["name"] == "podpreset-plain-selected"
    source.kubectl("apply", "--dry-run=server", "-f", "-", input=out)


# -- stale ---------------------------------------------------------------------------------------------------------


def owned_by(obj, **meta):
    return {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "controller": True, **meta}


def created(source, obj):
    """Create an object and return its name and uid, for owner references."""
    text = source.kubectl("create", "-f", "-", "-ojson", input=json.dumps(obj))
    meta = json.loads(text)["metadata"]
    return {"name": meta["name"], "uid": meta["uid"]}


def test_workloads_whose_pods_are_behind_are_listed(run, source):
    source.apply(namespace("old"), preset("team", "old", env=env(A="1")))
    deployment = workload("Deployment", "web", "old", "web")
    replica_set = workload("ReplicaSet", "web-abc", "old", "web")
    owner = owned_by(deployment, **created(source, deployment))
    replica_set["metadata"]["ownerReferences"] = [owner]
    owner = owned_by(replica_set, **created(source, replica_set))
    # A webhook would do what `render` does.
    _, out, _ = run("render", "--live", files=[deployment])
    made = yaml.safe_load(out)
    for name in ("web-abc-1", "web-abc-2"):
        created(source, {**made, "metadata": {**made["metadata"], "name": name, "ownerReferences": [owner]}})
    code, out, err = run("stale", "-n", "old")
    assert (code, out, err) == (OK, "", "none of 2 pods is stale\n")
    source.apply(preset("team", "old", env=env(A="2")))
    code, out, _ = run("stale", "-n", "old")
    assert code == FOUND
    assert [line.split() for line in out.splitlines()] == [
        ["NAMESPACE", "KIND", "NAME", "PODS", "STALE", "REASON"],
        ["old", "Deployment", "web", "2", "2", "older"],
    ]
    _, out, _ = run("stale", "-n", "old", "-ojson")
    (row,) = json.loads(out)
    assert row["stalePods"] == ["web-abc-1", "web-abc-2"]
    assert run("stale", "-n", "shop")[0] == OK


def test_a_pod_that_nobody_owns_and_one_that_is_over_are_told_apart(run, source):
    source.apply(namespace("bare"), preset("team", "bare", env=env(A="1")))
    for name in ("alone", "over"):
        created(source, pod(name, "bare"))
    patch = json.dumps({"status": {"phase": "Succeeded"}})
    source.kubectl("patch", "pod", "over", "-n", "bare", "--subresource=status", "--type=merge", "-p", patch)
    _, out, _ = run("stale", "-n", "bare", "-ojson")
    assert json.loads(out) == [
        {"kind": "Pod", "namespace": "bare", "name": "alone", "pods": 1, "stalePods": ["alone"], "reason": "without"}
    ]


# -- rights and errors ---------------------------------------------------------------------------------------------


def test_looking_needs_no_right_to_write(run, source):
    reader = source.service_account_kubeconfig("kube-system", "preset-reader", READ)
    assert run("render", "--live", files=[POD], kubeconfig=reader)[0] == OK
    assert run("lint", "--live", "--workloads", kubeconfig=reader)[0] == FOUND
    assert run("stale", "-n", "shop", kubeconfig=reader)[0] == OK
    assert run("diff", "--live", kubeconfig=reader)[0] == FOUND


def test_someone_without_rights_is_told_so_in_one_line(run, source):
    nobody = source.service_account_kubeconfig("kube-system", "preset-nobody", [])
    for command in (("lint", "--live"), ("stale",)):
        code, out, err = run(*command, kubeconfig=nobody)
        assert (code, out) == (UNUSABLE, "")
        assert "not permitted" in err
        assert err.count("\n") == 1


def test_a_cluster_without_the_definitions_is_unusable(run, source):
    with Cluster.temporary() as bare:
        code, _, err = run("lint", "--live", kubeconfig=bare.kubeconfig)
    assert code == UNUSABLE
    assert "does not serve clusterpodpresets.v1alpha1.reach.spectrocloud.com" in err
    assert "kubectl apply -f deploy/crds" in err


def test_what_convert_writes_is_accepted_by_the_api_server(run, source, capsys):
    golden = Path(__file__).resolve().parents[1] / "unit" / "podpreset_cli" / "golden" / "foreign.yaml"
    cli.main(["podpreset", "convert", "-f", str(golden)])
    out, _ = capsys.readouterr()
    objects = [{**obj, "metadata": {**obj["metadata"], "namespace": "shop"}} for obj in yaml.safe_load_all(out)]
    text = "\n---\n".join(json.dumps(obj) for obj in objects)
    assert source.kubectl("apply", "--dry-run=server", "-f", "-", input=text).count("created") == len(objects)
