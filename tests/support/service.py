"""A service as a process, as the kubelet would run it: started until ready, stopped, killed, started again.

Responsible for: its flags, its log (JSON, one file over all its starts) and its metrics.
Invariant: the process ends with the test process, however that ends.
"""

from __future__ import annotations

import http.client
import json
import signal
import sys
from contextlib import contextmanager

from prometheus_client.parser import text_string_to_metric_families

from tests.support import accounts
from tests.support.waiting import blocking_until
from tools.process import Daemon

_START_SECONDS = 60.0
_SHOWN_CHARACTERS = 20_000


class ServiceProcess:
    """`python -m <module>` against one cluster; `flags` are added to its command line. Subclasses name the module.

    With an administrator's kubeconfig it runs under its account of the chart.
    """

    module = ""

    def __init__(self, folder, kubeconfig, *flags):
        self._daemon = Daemon(self.module.rpartition(".")[2], folder)
        component = self.module.rpartition(".")[2].replace("_", "-")
        account = accounts.for_service(kubeconfig, component, *flags)
        self._command = [
            sys.executable,
            "-m",
            self.module,
            f"--kubeconfig={account}",
            "--bind-address=127.0.0.1:0",
            "--no-leader-election",
            "--log-format=json",
            *flags,
        ]
        self._address = ""
        self._seen = 0
        self._expected = set()

    @classmethod
    @contextmanager
    def running(cls, folder, kubeconfig, *flags):
        """Run it for the body of the `with`; what it logged about its own mistakes fails the test in the end."""
        process = cls(folder, kubeconfig, *flags)
        process.start()
        try:
            yield process
        finally:
            process.stop()
        assert process.mistakes() == []

    def start(self):
        self._address = ""
        self._seen = self.log_size()
        self._daemon.start(self._command, tethered=True)
        self._daemon.wait_ready(self._ready, timeout=_START_SECONDS)

    @property
    def pid(self):
        """Its process id, None when it does not run."""
        return self._daemon.pid

    @property
    def address(self):
        """Where it shows probes and metrics, as host:port."""
        return self._address

    def stop(self):
        self._daemon.stop()

    def kill(self):
        self._daemon.kill()

    def terminate(self):
        """Ask it to stop and do not wait."""
        self._daemon.signal(signal.SIGTERM)

    def wait(self):
        """Return once it has ended."""
        blocking_until(lambda: self._daemon.pid is None, why="it does not end")

    def expect_errors(self, *messages):
        """Take errors with these messages for what a test has provoked."""
        self._expected |= set(messages)

    def restart(self):
        self.stop()
        self.start()

    def log_size(self):
        """Length of its log so far, for `log`."""
        return self._daemon.log.stat().st_size if self._daemon.log.exists() else 0

    def log(self, since=0):
        """The text it logged since a size."""
        if not self._daemon.log.exists():
            return ""
        with self._daemon.log.open("rb") as file:
            file.seek(since)
            return file.read().decode(errors="replace")

    def shown(self, since):
        """The end of the log, for a report."""
        return self.log(since)[-_SHOWN_CHARACTERS:]

    def records(self, since=0):
        """What it logged, as dicts; a line that is no record stands for itself under `msg`."""
        found = []
        for line in self.log(since).splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                found.append({"level": "error", "logger": "", "msg": line})
        return found

    def mistakes(self):
        """Records that a healthy process never writes: errors, and warnings of the interpreter."""
        found = [r for r in self.records() if r["level"] == "error" or r["logger"] == "py.warnings"]
        return [r for r in found if r["msg"] not in self._expected]

    def metric(self, name, /, **labels):
        """Sum of a metric's samples that have the labels; 0 when there is none."""
        total = 0.0
        for family in text_string_to_metric_families(self._get("/metrics")[1]):
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    total += sample.value
        return total

    def _ready(self):
        if not self._address:
            lines = [r for r in self.records(self._seen) if r["msg"] == "Serving probes and metrics"]
            self._address = lines[0]["address"] if lines else ""
        return bool(self._address) and self._get("/readyz")[0] == http.HTTPStatus.OK

    def _get(self, path):
        connection = http.client.HTTPConnection(self._address, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()
