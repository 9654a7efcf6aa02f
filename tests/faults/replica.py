"""One process of a service, kept running as a kubelet would: started again when it ends, asked whether it is ready.

Responsible for: its command line, its log, its clock and its network, and what can be done to a process.
Invariant: it ends with the runner, however that ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import signal
import sys
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tools.process import Daemon, free_ports

_FAKETIME = "/usr/lib/*/faketime/libfaketimeMT.so.1"
_PROBE_SECONDS = 2.0
_WATCH_SECONDS = 0.2


def faketime():
    """Path of libfaketime, or None where it is not installed (Debian: the package libfaketime)."""
    return next((str(path) for path in Path("/").glob(_FAKETIME.lstrip("/"))), None)


class Replica:
    """`python -m <module>` with `flags`; `host` is where its probes answer, `prefix` starts its command line."""

    def __init__(self, name, module, folder, flags, *, host="127.0.0.1", prefix=()):
        self.name = name
        self.host = host
        self.starts = 0
        self.wanted = False
        (self.port,) = free_ports(1)
        self._daemon = Daemon(name, folder)
        self._clock = folder / f"{name}.clock"
        self._prefix = list(prefix)
        self._flags = [module, f"--bind-address={host}:{self.port}", "--log-format=json", *flags]
        self.full_disk = False
        self.set_clock(0)

    @property
    def pid(self):
        return self._daemon.pid

    @property
    def log(self):
        return self._daemon.log

    def start(self):
        """Start it if it does not run; it may not be ready yet."""
        self.wanted = True
        if self._daemon.pid is not None:
            return
        command = [*self._prefix]
        if (library := faketime()) is not None:
            settings = {
                "LD_PRELOAD": library,
                "FAKETIME_TIMESTAMP_FILE": str(self._clock),
                "FAKETIME_CACHE_DURATION": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            }
            command += ["/usr/bin/env", *(f"{key}={value}" for key, value in settings.items())]
        if self.full_disk:
            command += ["/bin/sh", "-c", 'exec "$@" >/dev/full 2>&1', "sh"]
        self._daemon.start([*command, sys.executable, "-m", *self._flags], tethered=True)
        self.starts += 1

    @contextlib.asynccontextmanager
    async def kept_running(self):
        """Start it, and again whenever it ends, for the body of the `async with`."""
        await asyncio.to_thread(self.start)
        task = asyncio.create_task(self._keep())
        try:
            yield self
        finally:
            self.wanted = False
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self.signal(signal.SIGCONT)
            await asyncio.to_thread(self._daemon.stop)

    async def _keep(self):
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            if self.wanted and self._daemon.pid is None:
                await asyncio.to_thread(self.start)

    # What happens to it

    def signal(self, number):
        self._daemon.signal(number)

    def kill(self):
        self._daemon.kill()

    def set_clock(self, seconds):
        """Let its wall clock be ahead by so many seconds, from within a second on; the monotonic one stays right."""
        fresh = self._clock.with_suffix(".new")
        fresh.write_text(f"{seconds:+d}\n")
        fresh.replace(self._clock)

    # What it says

    def ready(self):
        """Whether /readyz says ok."""
        return self._get("/readyz")[0] == http.client.OK

    def metrics(self):
        """`{sample name: sum over its labels}`; empty when it does not answer."""
        status, text = self._get("/metrics")
        found = {}
        if status == http.client.OK:
            for family in text_string_to_metric_families(text):
                for sample in family.samples:
                    found[sample.name] = found.get(sample.name, 0.0) + sample.value
        return found

    def tracebacks(self):
        """`{(message, last line of the traceback): count}` of what it logged with one; a plain line counts as one."""
        found = {}
        for line in self.log.read_text(errors="replace").splitlines():
            try:
                record = json.loads(line)
                key = (record["msg"], record["stacktrace"].splitlines()[-1]) if "stacktrace" in record else None
            except (ValueError, TypeError, KeyError):
                key = ("not a record", line[:200])
            if key is not None:
                found[key] = found.get(key, 0) + 1
        return found

    def _get(self, path):
        connection = http.client.HTTPConnection(self.host, self.port, timeout=_PROBE_SECONDS)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except (OSError, http.client.HTTPException):
            return 0, ""
        finally:
            connection.close()
