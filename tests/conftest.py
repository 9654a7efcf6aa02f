"""What all tests share: one real API server for each session, a namespace for each test, and Hypothesis' settings."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import pytest
from hypothesis import settings

from tools import binaries, capi
from tools.cluster import Cluster

ROOT = Path(__file__).resolve().parent.parent

# Shared machines stall: a slow example says nothing about the code. CI must give the same answer for the same commit.
settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")


def pytest_collection_finish(session):
    # On a fresh machine this builds for minutes: here, with its progress shown, rather than in a fixture, where a time
    # limit would end it.
    if not session.config.option.collectonly and any("control_plane" in item.fixturenames for item in session.items):
        with session.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
            binaries.ensure(*binaries.CLUSTER)


@pytest.fixture(scope="session")
def control_plane():
    """Asks for the programs of a local cluster; for tests that run a cluster of their own."""
    return binaries.ensure(*binaries.CLUSTER)


@pytest.fixture(scope="session")
def cluster(control_plane):
    """A running cluster with our CustomResourceDefinitions and Cluster API's (IPAM and Cluster)."""
    with Cluster.temporary() as running:
        running.install_crds(ROOT / "deploy" / "crds", *capi.crds())
        yield running


@pytest.fixture
def namespace(cluster):
    """The name of a new namespace. It is left behind: no controller runs that could finalise its deletion."""
    name = f"test-{uuid.uuid4().hex[:10]}"
    cluster.kubectl("create", "namespace", name)
    return name
