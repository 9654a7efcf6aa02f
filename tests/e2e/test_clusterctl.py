"""clusterctl itself with what tools.components makes: it shows the provider, and installs it on a real API server.

The API server has no controllers, so nothing starts; the allocator runs as a process with the rights that clusterctl
has installed. cert-manager counts as there as soon as its kinds are served.
"""

from __future__ import annotations

import os
import subprocess

import pytest
import yaml

from services.ipam import api
from tests.support.allocator import Allocator
from tests.support.chart import load
from tests.support.kube import Kube, eventually, manifest
from tools import binaries, capi, components
from tools.cluster import Cluster

VERSION = "v0.1.0"
IMAGE = "registry.example.org/groundwork"


@pytest.fixture(scope="module")
def clusterctl(tmp_path_factory):
    """Runs clusterctl; its configuration knows the provider, and a core provider that installs nothing."""
    folder = tmp_path_factory.mktemp("clusterctl")
    ours = components.write(VERSION, IMAGE, folder / components.PROVIDER / VERSION)[0]
    core = folder / "cluster-api" / "v1.14.0" / "core-components.yaml"
    core.parent.mkdir(parents=True)
    core.write_text(yaml.safe_dump(manifest_of("Namespace", "capi-system")))
    series = [{"major": 1, "minor": 14, "contract": "v1beta2"}]
    metadata = {"apiVersion": "clusterctl.cluster.x-k8s.io/v1alpha3", "kind": "Metadata", "releaseSeries": series}
    (core.parent / "metadata.yaml").write_text(yaml.safe_dump(metadata))
    providers = [
        {"name": "groundwork", "type": "IPAMProvider", "url": ours.as_uri()},
        {"name": "cluster-api", "type": "CoreProvider", "url": core.as_uri()},
    ]
    config = folder / "clusterctl.yaml"
    config.write_text(yaml.safe_dump({"providers": providers}))
    program = binaries.ensure("clusterctl")["clusterctl"]

    def run(*arguments, **environment):
        command = [program, *arguments, f"--config={config}"]
        quiet = {"CLUSTERCTL_DISABLE_VERSIONCHECK": "true", "XDG_CONFIG_HOME": str(folder), "GOPROXY": "off"}
        done = subprocess.run(
            command,
            env={**os.environ, **quiet, **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def manifest_of(kind, name):
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}}


def served(group, kind):
    """A definition that takes anything."""
    plural = f"{kind.lower()}s"
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.lower(), "listKind": f"{kind}List"},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
        },
    }


@pytest.fixture(scope="module")
def management(control_plane, clusterctl):
    """A cluster after `clusterctl init --ipam groundwork`."""
    with Cluster.temporary() as running:
        running.install_crds(*capi.crds(), *(served("cert-manager.io", kind) for kind in ("Issuer", "Certificate")))
        none = [f"--{kind}=-" for kind in ("bootstrap", "control-plane", "infrastructure")]
        core = "--core=cluster-api:v1.14.0"
        where = [f"--kubeconfig={running.kubeconfig}", "--target-namespace=addresses"]
        clusterctl("init", core, *none, f"--ipam=groundwork:{VERSION}", *where, GROUNDWORK_WORKERS="3")
        yield running


def test_clusterctl_shows_the_provider_with_its_variables_and_its_image(clusterctl):
    shown = clusterctl("generate", "provider", f"--ipam=groundwork:{VERSION}", "--describe")
    words = shown.split()
    assert {"IPAMProvider", VERSION, *components.VARIABLES, f"{IMAGE}:{VERSION}"} <= set(words)


def test_clusterctl_sets_variables_and_the_namespace(clusterctl):
    where = "--target-namespace=elsewhere"
    objects = load(
        clusterctl("generate", "provider", f"--ipam=groundwork:{VERSION}", where, GROUNDWORK_LOG_LEVEL="debug")
    )
    (deployment,) = [obj for obj in objects if obj["kind"] == "Deployment"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert {"--log-level=debug", "--workers=16"} <= set(container["args"])
    assert {obj["metadata"]["namespace"] for obj in objects if "namespace" in obj["metadata"]} == {"elsewhere"}
    assert [obj["metadata"]["name"] for obj in objects if obj["kind"] == "Namespace"] == ["elsewhere"]


async def test_clusterctl_installs_an_allocator_that_binds_a_claim_of_cluster_api(management, tmp_path):
    name = "groundwork-ipam"
    text = management.kubectl("get", "deployment", name, "--namespace=addresses", "-o", "yaml")
    (container,) = yaml.safe_load(text)["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"{IMAGE}:{VERSION}"
    assert "--workers=3" in container["args"]
    provider = management.kubectl("get", "providers.clusterctl.cluster.x-k8s.io", "--all-namespaces", "-o", "name")
    assert "provider.clusterctl.cluster.x-k8s.io/ipam-groundwork" in provider
    # Without rules of its own the account keeps those that clusterctl has installed.
    account = management.service_account_kubeconfig("addresses", name, [])
    given = [arg for arg in container["args"] if not arg.startswith(("--bind-address", "--log-format"))]
    lease = ["--leader-election", "--lease-namespace=addresses"]
    pool = {"namePrefix": "p", "prefix": 24, "pools": [{"start": "10.0.0.10", "end": "10.0.0.99"}]}
    claim = {"poolRef": {"apiGroup": api.METAL3_GROUP, "kind": "IPPool", "name": "pool"}}
    with Allocator.running(tmp_path, account, *given, *lease):
        async with Kube.connect(management.kubeconfig) as kube:
            await kube.create(api.IP_POOLS, manifest(api.IP_POOLS, "pool", "default", pool))
            await kube.create(api.CAPI_CLAIMS[0], manifest(api.CAPI_CLAIMS[0], "claim", "default", claim))
            await eventually(
                lambda: kube.get(api.CAPI_CLAIMS[0], "claim", "default"),
                lambda c: c.get("status", {}).get("addressRef"),
            )
