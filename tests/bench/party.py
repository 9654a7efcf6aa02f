"""A process that is measured: the allocator, the bare writer beside it, or the integrator.

Responsible for: starting and stopping it, its metrics as it serves them, CPU time and memory as the kernel accounts
them (proc(5)).
"""

from __future__ import annotations

import http.client
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from prometheus_client.parser import text_string_to_metric_families

from tests.bench.load import BenchError
from tools.process import Daemon, free_ports

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.bench.stage import Stage

MODULES = {
    "allocator": "services.ipam",
    "bare": "tests.bench.bare",
    "integrator": "services.capv_integrator",
    "machines": "tests.bench.ticking",
}
_TICK = 1.0 / os.sysconf("SC_CLK_TCK")
_READY_SECONDS = 120.0
_SENT, _RECEIVED = "groundwork_client_sent_bytes_total", "groundwork_client_received_bytes_total"
_WRITES = ("POST", "PUT", "PATCH", "DELETE")


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK


def busy_seconds() -> float:
    """CPU time that the whole machine has used: what is not idle or waiting for a disk."""
    fields = [int(field) for field in Path("/proc/stat").read_text().partition("\n")[0].split()[1:]]
    return (sum(fields[:8]) - fields[3] - fields[4]) * _TICK


class Requests(NamedTuple):
    """What a process has asked of the API server, from its own metrics."""

    by_method: dict[str, float]
    refused: float
    """Answers with a status of 400 and above, or none at all."""
    lists: float
    bytes: float = 0.0
    """Of bodies, sent and received, watches included."""
    watched: float = 0.0
    """Those of the watches."""

    @property
    def calls(self) -> float:
        return sum(self.by_method.values())

    @property
    def writes(self) -> float:
        return sum(self.by_method.get(method, 0.0) for method in _WRITES)

    def since(self, earlier: Requests) -> Requests:
        """The difference."""
        by_method = {method: count - earlier.by_method.get(method, 0.0) for method, count in self.by_method.items()}
        return Requests(
            by_method,
            self.refused - earlier.refused,
            self.lists - earlier.lists,
            self.bytes - earlier.bytes,
            self.watched - earlier.watched,
        )


class Party:
    """One process that serves claims or machines. `name` is one of `MODULES`; `flags` are added to its command line."""

    def __init__(
        self, name: str, on: Stage, *, workers: int | None, uvloop: bool | None, flags: Sequence[str] = ()
    ) -> None:
        self.name = name
        self.port = free_ports(1)[0]
        self._command = [sys.executable, "-m", MODULES[name], "--kubeconfig", str(on.kubeconfig), *flags]
        self._command += ["--bind-address", f"127.0.0.1:{self.port}"]
        if workers is not None:
            self._command += ["--workers", str(workers)]
        if uvloop is not None:
            self._command += ["--uvloop" if uvloop else "--no-uvloop"]
        self._daemon = Daemon(name, on.cluster.folder)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._daemon.kill()

    @property
    def pid(self) -> int:
        """Its process id; BenchError when it has died."""
        pid = self._daemon.pid
        if pid is None:
            raise BenchError(f"{self.name} has died; the end of its log:\n{self._daemon.tail()}")
        return pid

    def start(self) -> None:
        """Start the process without waiting for anything."""
        self._daemon.start(self._command, tethered=True)

    def stop(self) -> None:
        """End it as a rolling update does, and wait until it is gone."""
        self._daemon.signal(signal.SIGTERM)
        deadline = time.monotonic() + 30.0
        while self._daemon.pid is not None:
            if time.monotonic() > deadline:
                raise BenchError(f"{self.name} did not stop; the end of its log:\n{self._daemon.tail()}")
            time.sleep(0.02)

    def restart(self) -> float:
        """Stop it, start it anew and return the seconds until it is ready."""
        self.stop()
        started = time.perf_counter()
        self.start()
        self.wait_ready()
        return time.perf_counter() - started

    def wait_ready(self) -> None:
        """Return when /readyz says ok."""
        deadline = time.monotonic() + _READY_SECONDS
        while True:
            assert self.pid
            try:
                if self._get("/readyz")[0] == http.client.OK:
                    return
            except OSError:
                pass
            if time.monotonic() > deadline:
                raise BenchError(f"{self.name} is not ready; the end of its log:\n{self._daemon.tail()}")
            time.sleep(0.05)

    def requests(self) -> Requests:
        """What it has asked of the API server so far."""
        by_method: dict[str, float] = {}
        refused = lists = moved = watched = 0.0
        for family in text_string_to_metric_families(self._get("/metrics")[1].decode()):
            for sample in family.samples:
                if sample.name == "rest_client_requests_total":
                    method, code = sample.labels["method"], sample.labels["code"]
                    by_method[method] = by_method.get(method, 0.0) + sample.value
                    refused += 0.0 if code.isdecimal() and int(code) < http.client.BAD_REQUEST else sample.value
                elif sample.name == "groundwork_reflector_lists_total":
                    lists += sample.value
                elif sample.name in (_SENT, _RECEIVED):
                    moved += sample.value
                    watched += sample.value if sample.labels.get("kind") == "watch" else 0.0
        return Requests(by_method, refused, lists, moved, watched)

    def page(self, path: str) -> str:
        """What it serves at a path of its probes and metrics."""
        return self._get(path)[1].decode()

    def rss(self, *, peak: bool = False) -> float:
        """Resident memory in MiB, or the most it ever was."""
        wanted = "VmHWM:" if peak else "VmRSS:"
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(wanted)) / 1024

    def _get(self, path: str) -> tuple[int, bytes]:
        # http.client rather than urllib: HTTP_PROXY must not apply to the loopback.
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


class Usage:
    """CPU time of several processes and of everything else, over a stretch of time."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = pids
        self._started = time.perf_counter()
        self._busy = busy_seconds()
        self._before = self._read()

    def _read(self) -> dict[str, float]:
        return {name: cpu_seconds(pid) for name, pid in self._pids.items()}

    def so_far(self) -> tuple[dict[str, float], float]:
        """CPU seconds by name, and how many cores everything else on the machine kept busy on average."""
        used = {name: seconds - self._before[name] for name, seconds in self._read().items()}
        others = busy_seconds() - self._busy - sum(used.values())
        return used, max(0.0, others / (time.perf_counter() - self._started))
