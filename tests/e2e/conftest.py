"""The cluster that end-to-end tests run on: a node made for them, or the one of KUBECONFIG with the image E2E_IMAGE."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager

import pytest

from tests.e2e import traces
from tests.e2e.site import Site, run
from tools import binaries
from tools.node.node import PROGRAMS


def pytest_collection_modifyitems(config, items):
    # A test of what only a node of our own has does not fit a cluster that somebody lends us.
    if Site.lent():
        gone = [item for item in items if "node" in item.fixturenames]
        config.hook.pytest_deselected(items=gone)
        items[:] = [item for item in items if item not in gone]


def pytest_collection_finish(session):
    # Builds for minutes on a fresh machine: here, with its progress shown, rather than in a fixture with a time limit.
    wanted = {name for item in session.items for name in item.fixturenames}
    if not session.config.option.collectonly and {"site", "node_programs"} & wanted:
        with session.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
            binaries.ensure(*(("helm", "kubectl") if Site.lent() else PROGRAMS))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed and isinstance(site := item.funcargs.get("site"), Site):
        report.sections.append(("the cluster", site.describe()))
    return report


class Steps:
    """Says on the terminal what runs and how long it took, whatever pytest captures."""

    def __init__(self, config):
        self._capture = config.pluginmanager.getplugin("capturemanager")

    def say(self, text):
        with self._capture.global_and_fixture_disabled():
            print(f"\n[e2e] {text}", end="", flush=True)

    @contextmanager
    def step(self, label):
        started = time.monotonic()
        self.say(f"{label} ...")
        yield
        self.say(f"{label}: {time.monotonic() - started:.1f} s")


@pytest.fixture(scope="session")
def steps(pytestconfig):
    return Steps(pytestconfig)


@pytest.fixture(autouse=True)
def told(request, steps):
    with steps.step(request.node.name.removeprefix("test_").replace("_", " ")):
        yield


@pytest.fixture(scope="session")
def node_programs():
    """Asks for the programs of a node; for tests that run a node of their own."""
    return binaries.ensure(*PROGRAMS)


@pytest.fixture(scope="session")
def archives(steps, tmp_path_factory):
    """The archives of our image and of the client's, built from this checkout."""
    folder = tmp_path_factory.mktemp("images")
    made = {name: folder / f"{name}.tar" for name in ("build", "client")}
    for command, archive in made.items():
        with steps.step(f"image: {command}"):
            run(sys.executable, "-m", "tools.image", command, "--out", archive)
    yield made
    for archive in made.values():
        archive.unlink()


@pytest.fixture(scope="session")
def site(request, steps, tmp_path_factory):
    """A cluster with our image and nothing installed yet; a node of our own is gone without a trace afterwards."""
    if Site.lent():
        yield Site.of_environment(tmp_path_factory.mktemp("site"))
        return
    before = traces.of_machine()
    archives = request.getfixturevalue("archives")  # only now: a cluster that is lent has them
    with Site.made(tmp_path_factory.mktemp("site"), steps, archives) as made:
        of_node = made.node.folder, made.node.network, made.node.cgroup
        yield made
    with steps.step("what the node left behind"):
        assert traces.of_machine() == before
        assert traces.of_node(*of_node) == []


@pytest.fixture(scope="session")
def node(site):
    """The node of our own that the tests run on."""
    return site.node
