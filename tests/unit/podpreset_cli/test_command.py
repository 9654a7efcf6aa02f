"""`groundwork podpreset` on files: whole outputs, exit codes, one-line errors, nothing secret."""

from __future__ import annotations

import json
import os
import sys
from io import StringIO
from pathlib import Path

import pytest
import yaml

from services import cli
from services.console import FOUND, OK, UNUSABLE
from services.podpreset.cli import convert, lint

GOLDEN = Path(__file__).parent / "golden"
SHOP = ("-f", str(GOLDEN / "shop.yaml"))
FOREIGN = ("-f", str(GOLDEN / "foreign.yaml"))


@pytest.fixture(autouse=True)
def _nowhere(monkeypatch, tmp_path):
    """No cluster by accident: neither the environment's nor the user's own."""
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def run(capsys):
    def run(*arguments):
        code = cli.main(["podpreset", *arguments])
        return code, *capsys.readouterr()

    return run


# -- whole outputs -------------------------------------------------------------------------------------------------

OUTPUTS = [
    ("render.yaml", OK, ["render", *SHOP]),
    ("explain.txt", OK, ["explain", *SHOP, "--service-cidr", "10.96.0.0/12"]),
    ("diff.txt", FOUND, ["diff", *SHOP]),
    ("lint.txt", FOUND, ["lint", *SHOP]),
    ("host.txt", FOUND, ["lint", *SHOP, "--host", "http://10.1.2.3:8080"]),
    ("convert.yaml", FOUND, ["convert", *FOREIGN]),
    ("policy.yaml", FOUND, ["export", "--to", "mutatingadmissionpolicy", *SHOP]),
]


@pytest.mark.parametrize(("name", "code", "arguments"), OUTPUTS, ids=[row[0] for row in OUTPUTS])
def test_a_command_prints_what_is_kept_beside_this_test(run, name, code, arguments):
    got, out, err = run(*arguments)
    text = f"{out}# stderr:\n{err}" if err else out
    path = GOLDEN / name
    if os.environ.get("GROUNDWORK_WRITE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()
    assert got == code


@pytest.mark.parametrize("command", ["render", "explain", "diff", "lint"])
def test_credentials_are_shown_to_whoever_asks_and_to_nobody_else(run, command):
    _, *texts = run(command, *SHOP)
    assert "hunter2" not in "".join(texts)
    _, *texts = run(command, *SHOP, "--show-credentials")
    assert ("hunter2" in "".join(texts)) == (command != "lint")


def test_json_has_what_yaml_and_tables_have(run):
    _, text, _ = run("render", *SHOP)
    _, data, _ = run("render", *SHOP, "-ojson")
    assert list(yaml.safe_load_all(text)) == json.loads(data)["items"]
    _, data, _ = run("explain", *SHOP, "-ojson")
    (web, nightly, safe) = json.loads(data)
    assert web["presets"] == ["ClusterPodPreset proxy", "PodPreset shop/team"]
    assert nightly["skipped"] == "excluded-pod"
    assert safe["outcome"] == "unmatched"
    assert safe["passedOver"][0]["reason"] == "spec.namespaceSelector does not match"
    (merged,) = [item for item in web["items"] if item["name"] == "no_proxy" and item["container"] == "app"]
    assert {"item": "mysql", "by": "PodPreset shop/team"} in merged["from"]
    _, data, _ = run("lint", *SHOP, "-ojson")
    assert {item["rule"] for item in json.loads(data)} >= {"no-match", "client-crash", "credentials"}
    _, data, _ = run("lint", *SHOP, "-oyaml", "--host", "mysql")
    assert yaml.safe_load(data)[0]["clients"]["Go"] == "direct"


def test_an_object_alone_is_no_list(run):
    _, data, _ = run("convert", *FOREIGN, "-ojson")
    assert json.loads(data)["kind"] == "List"
    _, data, _ = run("export", "--to", "mutatingadmissionpolicy", *SHOP, "--preset", "database", "-ojson")
    assert [item["kind"] for item in json.loads(data)["items"]] == [
        "MutatingAdmissionPolicy",
        "MutatingAdmissionPolicyBinding",
    ]


# -- lint ----------------------------------------------------------------------------------------------------------

LINTED = [
    (["--no-proxy", "localhost,mysql,10.0.0.1"], OK),
    (["--no-proxy", ".svc"], OK),  # a note alone
    (["--no-proxy", "10.0.0.0/8"], FOUND),
    (["--no-proxy", "10.0.0.0/8", "--client", "go", "--client", "curl"], OK),
    (["--no-proxy", "10.0.0.0/8", "--ignore", "no-match"], OK),
    (["--no-proxy", "fd00::/8", "--ignore", "no-match"], FOUND),
    (["--no-proxy", "10.0.0.0/8", "--host", "10.1.1.1"], FOUND),
    (["--no-proxy", "10.0.0.0/8", "--host", "10.1.1.1", "--client", "go", "--client", "curl"], OK),
    (["--no-proxy", "mysql", "--host", "example.com"], OK),
    (["--no-proxy", "fd00::/8", "--host", "example.com", "--client", "httpx"], FOUND),
]


@pytest.mark.parametrize(("arguments", "code"), LINTED)
def test_lint_finds_what_matters_to_the_clients_in_use(run, arguments, code):
    got, out, err = run("lint", *arguments)
    assert (got, err) == (code, "")
    assert out


def test_a_preset_alone_tells_which_way_its_list_sends(run):
    code, out, _ = run("lint", "-f", str(GOLDEN / "policy_source.yaml"), "--host", "kube.svc", "-ojson")
    (row,) = json.loads(out)
    assert row["where"] == "ClusterPodPreset proxy: env NO_PROXY"
    assert set(row["clients"].values()) == {"direct"}
    assert code == OK


# -- input ---------------------------------------------------------------------------------------------------------


def test_stdin_is_read(run, monkeypatch):
    monkeypatch.setattr(sys, "stdin", StringIO((GOLDEN / "shop.yaml").read_text()))
    code, out, _ = run("diff", "-f", "-")
    assert code == FOUND
    assert "+      value: own,localhost" in out


def test_a_folder_is_read_in_the_order_of_names(run, tmp_path):
    presets, pods = (GOLDEN / "shop.yaml").read_text().split("---\napiVersion: apps/v1", 1)
    (tmp_path / "b.yml").write_text(presets)
    (tmp_path / "a.yaml").write_text(f"apiVersion: apps/v1{pods}")
    (tmp_path / "notes.txt").write_text("{")
    assert run("render", "-f", str(tmp_path)) == run("render", *SHOP)


def test_objects_without_a_namespace_are_put_where_the_user_says(run, tmp_path):
    path = tmp_path / "pod.yaml"
    path.write_text(
        "kind: Pod\napiVersion: v1\nmetadata: {name: p, labels: {app: db}}\nspec: {containers: [{name: c}]}\n"
    )
    _, out, _ = run("render", *SHOP, "-f", str(path), "-n", "shop")
    (pod,) = [item for item in yaml.safe_load_all(out) if item["metadata"].get("name") == "p"]
    assert {"name": "PGSSLMODE", "value": "require"} in pod["spec"]["containers"][0]["env"]
    _, out, _ = run("render", *SHOP, "-f", str(path))
    assert "PGSSLMODE" not in out


def test_a_namespace_that_is_left_alone_can_be_named(run):
    _, out, _ = run("explain", *SHOP, "--untouched-namespace", "shop")
    assert "Deployment shop/web: skipped (system-namespace)" in out


REFUSING = """
apiVersion: reach.spectrocloud.com/v1alpha1
kind: ClusterPodPreset
metadata: {name: strict}
spec: {conflictPolicy: Reject, env: [{name: A, value: b}], envFrom: [{configMapRef: {name: c}}]}
---
apiVersion: v1
kind: Pod
metadata: {name: p}
spec: {containers: [{name: app, envFrom: [{configMapRef: {name: c, optional: true}}]}]}
"""


@pytest.mark.parametrize("command", ["render", "explain"])
def test_a_pod_that_would_be_refused_is_found(run, command, tmp_path):
    (tmp_path / "all.yaml").write_text(REFUSING)
    code, *texts = run(command, "-f", str(tmp_path))
    assert code == FOUND
    assert "envFrom ConfigMap c differs from that of container app" in "".join(texts)


# -- errors --------------------------------------------------------------------------------------------------------

BROKEN = {
    "not YAML": "a: [",
    "no Kubernetes object": "a: b",
    "metadata is no mapping": "{kind: Pod, apiVersion: v1, metadata: [a]}",
    "no spec.template": "{kind: Deployment, apiVersion: apps/v1, metadata: {name: x}, spec: {}}",
    "no spec": "{kind: Pod, apiVersion: v1, metadata: {name: x}}",
    "Expected `array | null`": "{kind: Pod, apiVersion: v1, metadata: {name: x}, spec: {containers: 5}}",
}


@pytest.mark.parametrize(("message", "text"), BROKEN.items())
def test_what_cannot_be_read_is_one_line_that_names_the_file(run, tmp_path, message, text):
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    code, out, err = run("render", *SHOP, "-f", str(path))
    assert (code, out) == (UNUSABLE, "")
    assert message in err
    assert err.count("\n") == 1
    assert "broken.yaml" in err or "Pod default/x" in err


USAGE = [
    (["render"], "nothing to look at"),
    (["render", *FOREIGN], "no pod and no workload"),
    (["convert"], "nothing to convert"),
    (["convert", *SHOP], "expected PodPreset.settings.k8s.io"),
    (["export", *SHOP], "--to"),
    (["export", "--to", "mutatingadmissionpolicy", *SHOP, "--preset", "none"], "no such preset"),
    (["lint", "--no-proxy", "a", "--host", "a/b"], "is no host"),
    (["lint", "--no-proxy", "a", "--host", "a:99999"], "is no host"),
    (["lint", *FOREIGN, "--host", "a"], "no NO_PROXY"),
    (["lint", "--no-proxy", "a", "--ignore", "nothing"], "--ignore"),
    (["render", "-f", "/does/not/exist"], "cannot read"),
    (["diff", *FOREIGN], "no pod and no workload"),
    (["stale"], "give --kubeconfig PATH or set KUBECONFIG"),
    (["render", *SHOP, "--live"], "give --kubeconfig PATH or set KUBECONFIG"),
]


@pytest.mark.parametrize(("arguments", "message"), USAGE)
def test_a_mistake_is_told_in_one_line(run, arguments, message):
    code, out, err = run(*arguments)
    assert (code, out) == (UNUSABLE, "")
    assert message in err
    assert err.count("\n") == 1


def test_a_pod_without_presets_asks_for_some(run, tmp_path):
    path = tmp_path / "pod.yaml"
    path.write_text("{kind: Pod, apiVersion: v1, metadata: {name: x}, spec: {containers: [{name: c}]}}")
    code, _, err = run("render", "-f", str(path))
    assert code == UNUSABLE
    assert "no preset in what was read" in err


def test_an_empty_folder_is_no_input(run, tmp_path):
    code, _, err = run("render", "-f", str(tmp_path))
    assert code == UNUSABLE
    assert "has no file that ends in .yaml" in err


def test_every_subcommand_answers_help_and_says_what_its_exit_codes_mean(capsys):
    for command in ("render", "explain", "diff", "lint", "convert", "stale", "export"):
        with pytest.raises(SystemExit) as exit_:
            cli.main(["podpreset", command, "--help"])
        assert exit_.value.code == 0
        shown = capsys.readouterr().out
        assert "exit codes:\n  0  " in shown
        assert "  1  " in shown
    with pytest.raises(SystemExit):
        cli.main(["podpreset", "lint", "--help"])
    shown = capsys.readouterr().out
    assert all(rule in shown for rule in lint.RULES)
    with pytest.raises(SystemExit):
        cli.main(["podpreset", "convert", "--help"])
    shown = capsys.readouterr().out
    assert all(known in shown.replace("\n", " ") for known in convert.KNOWN)
