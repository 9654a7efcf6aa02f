"""The API server of these tests keeps an audit log, and services work with the chart's rights and no others.

A test in which a service is refused anything fails. When all of these tests have run and passed, each right of the
chart has been used: one that no test needs is told, and fails the run of `make rights`.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support import audit, rights
from tests.support.kube import Kube
from tests.support.service import ServiceProcess
from tools import capi

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="session")
def cluster(control_plane):
    """A running cluster with our CustomResourceDefinitions and Cluster API's (IPAM and Cluster)."""
    with audit.audited() as running:
        running.install_crds(ROOT / "deploy" / "crds", *capi.crds())
        yield running


@pytest.fixture
async def kube(cluster):
    """The API server, as an administrator."""
    async with Kube.connect(cluster.kubeconfig) as kube:
        yield kube


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Show with a test that fails what a service logged meanwhile, if the test has it as a fixture."""
    report = yield
    found = {id(used): (name, used) for name, used in getattr(item, "funcargs", {}).items()}  # each once
    for name, used in found.values():
        if report.failed and isinstance(used, ServiceProcess):
            report.sections.append((name, used.shown(getattr(item, "log_offset", 0))))
    return report


@pytest.fixture(autouse=True)
def within_its_rights():
    """After each test: nobody was refused anything."""
    for log in audit.logs():
        log.read()
        log.refused.clear()
    yield
    refused = []
    for log in audit.logs():
        log.read()
        refused += log.refused
    assert refused == []


def _complete(session):
    """Whether every test of this folder was chosen."""
    option = session.config.option
    narrowed = option.keyword or option.markexpr or getattr(option, "lf", False) or option.deselect
    chosen = {item.path for item in session.items}
    return (
        not narrowed
        and not option.collectonly
        and not any("::" in argument for argument in session.config.args)
        and set(HERE.rglob("test_*.py")) <= chosen
    )


def pytest_sessionfinish(session, exitstatus):
    if exitstatus != pytest.ExitCode.OK or not _complete(session):
        return
    needless = sorted(map(str, rights.needless(audit.USED)))
    if needless:
        if os.environ.get("GROUNDWORK_CHECK_RIGHTS"):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        reporter = session.config.pluginmanager.getplugin("terminalreporter")
        reporter.section("rights of the chart that no test needs", red=True)
        reporter.write_line("\n".join(needless))
