"""Background programs with a log file and a pid file: start, look whether they live, stop, kill.

Invariants: a pid is believed only with the start time that was recorded with it, so a recycled pid is never signalled;
a program outlives its starter unless it is tethered. Knows nothing of Kubernetes.
"""

from __future__ import annotations

import json
import os
import queue
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_TETHER = Path(__file__).with_name("tether.py")
_POLL_S = 0.02
_TAIL_BYTES = 16_384


class ProcessError(RuntimeError):
    """A program did not start, or did not become ready in time; the message has the end of its log."""


def start_time(pid: int) -> int | None:
    """Return when `pid` started, in clock ticks after boot (proc(5), stat field 22), or None if it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The command name, field 2, may contain spaces and parentheses: count from its end.
    state, *fields = stat.rpartition(")")[2].split()
    return None if state in "ZX" else int(fields[18])


class _Spawner:
    """A thread that forks on behalf of all others: tethered children die when the thread that forked them ends."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._pid = 0
        self._guard = threading.Lock()

    def _serve(self) -> None:
        while True:
            self._jobs.get()()

    def popen(self, arguments: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
        with self._guard:
            if self._pid != os.getpid():  # first use, or we are a fork, which has no thread of its own yet
                self._jobs, self._pid = queue.SimpleQueue(), os.getpid()
                self._thread = threading.Thread(target=self._serve, name="spawner", daemon=True)
                self._thread.start()
        answer: queue.SimpleQueue[subprocess.Popen[bytes] | BaseException] = queue.SimpleQueue()

        def job() -> None:
            try:
                answer.put(_popen(arguments, log))
            except BaseException as error:  # noqa: BLE001 - raised again in the thread that asked
                answer.put(error)

        self._jobs.put(job)
        result = answer.get()
        if isinstance(result, BaseException):
            raise result
        return result


_SPAWNER = _Spawner()


def _popen(arguments: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as out:
        # A session of its own: Ctrl-C in the terminal is for the starter, who then stops us in order.
        return subprocess.Popen(
            arguments, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )


@dataclass
class Daemon:
    """One background program called `name`; `folder` holds its log and pid file."""

    name: str
    folder: Path

    @property
    def log(self) -> Path:
        """What it printed, over all its starts."""
        return self.folder / f"{self.name}.log"

    @property
    def _pid_file(self) -> Path:
        return self.folder / f"{self.name}.pid"

    @property
    def pid(self) -> int | None:
        """The process id while it runs, else None."""
        try:
            recorded = json.loads(self._pid_file.read_text())
        except (OSError, ValueError):
            return None
        pid: int = recorded["pid"]
        started = start_time(pid)
        # None on both sides: it ended before its start time was read.
        return pid if started is not None and started == recorded["started"] else None

    def start(self, arguments: Sequence[str], *, tethered: bool) -> None:
        """Start the program (an absolute path first); `tethered` ends it when this process ends, however it ends."""
        if self.pid is not None:
            return
        if tethered:
            shim = [sys.executable, "-I", "-S", str(_TETHER), str(os.getpid())]
            child = _SPAWNER.popen([*shim, *arguments], self.log)
        else:
            child = _popen(arguments, self.log)
        self._pid_file.write_text(json.dumps({"pid": child.pid, "started": start_time(child.pid)}))
        # The kernel must not keep a zombie of it, and Popen must not warn about a child it considers abandoned.
        threading.Thread(target=child.wait, name=f"reap-{self.name}", daemon=True).start()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal if it runs."""
        if (pid := self.pid) is not None:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                return

    def stop(self, *, timeout: float = 20.0) -> None:
        """End it with SIGTERM, after `timeout` seconds with SIGKILL; return when it is gone."""
        self.signal(signal.SIGTERM)
        deadline = time.monotonic() + timeout
        while self.pid is not None and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        self.kill()
        self._pid_file.unlink(missing_ok=True)

    def kill(self) -> None:
        """End it with SIGKILL, as a crash or the kernel's OOM killer would; return when it is gone.

        What somebody else starts in its place meanwhile is left alone.
        """
        pid = self.pid
        self.signal(signal.SIGKILL)
        while pid is not None and self.pid == pid:
            time.sleep(_POLL_S)

    def wait_ready(self, ready: Callable[[], bool], *, timeout: float) -> None:
        """Poll `ready` until it says yes; raise ProcessError when the program ends before or `timeout` seconds pass."""
        deadline = time.monotonic() + timeout
        while True:
            # Before asking: if its port was taken, the thief might answer in its place.
            if self.pid is None:
                raise ProcessError(f"{self.name} ended while it started; the end of {self.log}:\n{self.tail()}")
            if ready():
                return
            if time.monotonic() > deadline:
                text = f"{self.name} is not ready after {timeout:.0f} s; the end of {self.log}:\n{self.tail()}"
                raise ProcessError(text)
            time.sleep(_POLL_S)

    def tail(self, lines: int = 20) -> str:
        """Return the last lines of the log."""
        try:
            with self.log.open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - _TAIL_BYTES))
                return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])
        except OSError:
            return "(no log)"


def free_ports(count: int) -> list[int]:
    """Return `count` free TCP ports of the loopback, below the range the kernel gives to outgoing connections.

    Outside that range a port stays ours while its server restarts, and a client that keeps dialling it cannot be given
    the very same port as its source and so connect to itself.
    """
    ports: list[int] = []
    candidates = random.sample(range(20_000, 32_000), 1_000)
    for port in candidates:
        with socket.socket() as probe:
            # As Go's listeners do: a port that is merely in TIME_WAIT is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        ports.append(port)
        if len(ports) == count:
            return ports
    raise ProcessError("no free TCP ports on 127.0.0.1")
