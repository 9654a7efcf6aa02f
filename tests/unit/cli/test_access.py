"""Where the command line looks for a cluster."""

from __future__ import annotations

import argparse

import pytest
import yaml

from services import access, console
from services.runtime.kube.errors import ConfigError


@pytest.fixture
def home(monkeypatch, tmp_path):
    """A home with a kubeconfig of two contexts, and nothing else that names a cluster."""
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / ".kube" / "config", "own")
    return tmp_path


def write(path, server):
    names = [server, f"{server}-two"]
    content = {
        "current-context": server,
        "contexts": [{"name": name, "context": {"cluster": name, "user": "u"}} for name in names],
        "clusters": [{"name": name, "cluster": {"server": f"http://{name}"}} for name in names],
        "users": [{"name": "u", "user": {"token": "t"}}],
    }
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(content))
    return str(path)


async def url(**flags):
    options = argparse.Namespace(**{"kubeconfig": None, "context": None, **flags})
    return (await access.connect(options)).url


async def test_without_anything_the_user_s_own_kubeconfig_is_taken(home):
    assert await url() == "http://own"
    assert await url(context="own-two") == "http://own-two"


async def test_a_flag_comes_before_a_variable_and_that_before_the_user_s_own(home, monkeypatch):
    given, named = (write(home / name / "config", name) for name in ("given", "named"))
    monkeypatch.setenv("KUBECONFIG", named)
    assert await url() == "http://named"
    assert await url(context="named-two") == "http://named-two"
    assert await url(kubeconfig=given) == "http://given"


async def test_in_a_pod_a_context_means_the_kubeconfig_there(home, monkeypatch):
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    with pytest.raises(ConfigError, match="service account"):
        await url()
    assert await url(context="own-two") == "http://own-two"


async def test_a_context_without_any_kubeconfig_is_told(home):
    (home / ".kube" / "config").unlink()
    with pytest.raises(ConfigError, match="the context x is one of a kubeconfig, and there is none"):
        await url(context="x")


@pytest.mark.parametrize(
    ("called", "name"),
    [
        ("/usr/local/bin/kubectl-groundwork", "kubectl groundwork"),
        ("kubectl-groundwork", "kubectl groundwork"),
        ("/usr/bin/groundwork", "groundwork"),
        ("/srv/services/cli.py", "groundwork"),
        ("", "groundwork"),
    ],
)
def test_the_command_is_called_what_the_user_called_it(monkeypatch, called, name):
    monkeypatch.setattr("sys.argv", [called])
    assert console.program() == name
