"""The command as a plugin of the real kubectl: found, named, completed; contexts and names of a real cluster."""

from __future__ import annotations

import os
import subprocess

import pytest
import yaml

from services.completion.names import VARIABLE
from services.ipam import api
from tests.support import shells
from tests.support.ipam_cli import pool
from tools import binaries

GLOBAL = "globalippool.ipam.groundwork.dev"


@pytest.fixture(scope="module")
def kubectl(tmp_path_factory, cluster):
    """Runs the real kubectl with the plugin on PATH and the cluster as the current context."""
    folder = shells.install(tmp_path_factory.mktemp("bin"))
    program = binaries.ensure("kubectl")["kubectl"]
    environ = {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "HOME": str(folder),
        "KUBECONFIG": str(cluster.kubeconfig),
        VARIABLE: "60",  # a machine under load must not decide what is completed
    }

    def run(*arguments, **extra):
        done = subprocess.run(
            [program, *arguments], env=environ | extra, capture_output=True, text=True, check=False, timeout=120
        )
        return done.returncode, done.stdout, done.stderr

    return run


@pytest.fixture(scope="module")
def pools(cluster):
    """A pool of each kind, whose names no other test uses."""
    space = "plugin-space"
    cluster.kubectl("create", "namespace", space)
    spec = {"pools": [{"start": "10.250.0.10", "end": "10.250.0.20"}], "prefix": 24, "domain": "plugin"}
    cluster.apply(pool("plugin-own", space, **spec), pool("plugin-shared", "", **spec))
    yield space
    cluster.kubectl("delete", f"globalippools.{api.OWN_GROUP}", "plugin-shared")
    cluster.kubectl("delete", f"ippools.{api.METAL3_GROUP}", "plugin-own", f"--namespace={space}")


def test_kubectl_lists_it_as_a_plugin(kubectl):
    _, out, err = kubectl("plugin", "list")
    assert "/kubectl-groundwork\n" in out
    assert "kubectl-groundwork" not in err  # where it warns of plugins that it cannot run


@pytest.mark.parametrize("arguments", [["--help"], ["ipam", "--help"], ["ipam", "pools", "--help"]])
def test_help_calls_it_what_the_user_called_it(kubectl, arguments):
    code, out, _ = kubectl("groundwork", *arguments)
    assert code == 0
    assert out.startswith(f"usage: {' '.join(['kubectl', 'groundwork', *arguments[:-1]])} [")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nonsense"], "kubectl groundwork: 'nonsense' is no subcommand"),
        (["ipam", "pools", "-o", "xml"], "kubectl groundwork ipam: "),
        (["ipam", "pools", "-A", "-n", "x"], "kubectl groundwork ipam: "),
        (["--context", "nowhere", "ipam", "pools"], "has no context nowhere (kubectl config get-contexts lists them)"),
        (["ipam", "pools", "--kubeconfig", "/nowhere"], "give --kubeconfig PATH or set KUBECONFIG"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_to_do_and_exit_code_2(kubectl, arguments, said):
    code, out, err = kubectl("groundwork", *arguments)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert said in err


def test_a_context_is_taken_before_and_after_the_subcommand(kubectl, cluster, tmp_path, pools):
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    (context,) = config["contexts"]
    config |= {"contexts": [{**context, "name": "there"}], "current-context": "elsewhere"}
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(config))
    for arguments in (["--context", "there", "ipam", "pools"], ["ipam", "pools", "--context=there"]):
        code, out, err = kubectl("groundwork", *arguments, "-n", pools, "-o", "name", KUBECONFIG=str(path))
        assert (code, err) == (0, "")
        assert "plugin-own" in out
    code, out, _ = kubectl("groundwork", "ipam", "pools", KUBECONFIG=str(path))
    assert (code, out) == (2, "")


def test_names_are_those_that_kubectl_takes(kubectl, pools):
    code, out, _ = kubectl("groundwork", "-n", pools, "ipam", "pools", "-o", "name")
    assert code == 0
    assert {f"{GLOBAL}/plugin-shared", "ippool.ipam.metal3.io/plugin-own"} <= set(out.splitlines())
    code, found, _ = kubectl("get", f"{GLOBAL}/plugin-shared", "-o", "name")
    assert (code, found) == (0, f"{GLOBAL}/plugin-shared\n")


def test_all_namespaces_may_be_said(kubectl, pools):
    for flags in ([], ["-A"], ["--all-namespaces"]):
        assert f"\n{pools} " in kubectl("groundwork", "ipam", "pools", *flags)[1]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["ipa"], "ipam"),
        (["ipam", "pools", "-o", "na"], "name"),
        (["ipam", "addresses", "--pool", "plugin-s"], "plugin-shared"),
        (["ipam", "addresses", "--pool", "plugin-space/"], "plugin-space/plugin-own"),
        (["ipam", "addresses", "--pool=plugin-s"], "--pool=plugin-shared"),
        (["ipam", "pools", "-n", "plugin"], "plugin-space"),
    ],
)
def test_kubectl_completes_words_and_names_of_the_cluster(kubectl, pools, words, expected):
    assert pools
    code, out, _ = kubectl("__complete", "groundwork", *words)
    assert code == 0
    assert expected in [line.partition("\t")[0] for line in out.splitlines()]
    assert out.endswith(":4\n")


def test_no_cluster_means_no_names_and_no_complaint(kubectl):
    code, out, err = kubectl("__complete", "groundwork", "ipam", "pools", "-n", "", KUBECONFIG="/nowhere")
    assert (code, out.splitlines()[-1]) == (0, ":4")
    assert "Traceback" not in err
