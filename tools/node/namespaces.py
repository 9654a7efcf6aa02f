"""The network, mount, pid and uts namespaces that a node lives in, and programs that run there.

Invariants: everything that runs there ends with process 1, which ends with the program that holds it; so one SIGKILL
ends a node, whoever sends it. Knows nothing of what the programs are.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tools.node import machine
from tools.process import Daemon, ProcessError, start_time

if TYPE_CHECKING:
    from collections.abc import Sequence

_INIT = Path(__file__).with_name("init.py")
_RELAY = Path(__file__).with_name("relay.py")
_START_S = 30.0
_POLL_S = 0.05
_LISTENING = "0A"  # TCP_LISTEN in /proc/net/tcp


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


class Namespaces:
    """Those of one node, whose state is in `folder`; `tethered` ends them with this process."""

    def __init__(self, folder: Path, *, tethered: bool) -> None:
        self._folder = folder
        self._tethered = tethered
        self._holder = Daemon("init", folder)
        self._unshare = machine.program("unshare")
        self._nsenter = machine.program("nsenter")

    @property
    def init(self) -> int | None:
        """Process 1 as the machine numbers it, or None while there are no namespaces."""
        holder = self._holder.pid
        children = [] if holder is None else _children(holder)
        return children[0] if children else None

    def start(self) -> None:
        """Make the namespaces and return when they are set up."""
        ready = self._folder / "ready"
        ready.unlink(missing_ok=True)
        new = ("--net", "--mount", "--pid", "--uts", "--propagation=private", "--fork", "--kill-child", "--mount-proc")
        python = (sys.executable, "-I", "-S", str(_INIT), str(self._folder))
        self._holder.start([self._unshare, *new, *python], tethered=self._tethered)
        self._holder.wait_ready(ready.exists, timeout=_START_S)

    def stop(self) -> None:
        """End everything in the namespaces, and return when it has ended."""
        init = self.init
        self._holder.kill()
        # The kernel lets process 1 go only after all others.
        while init is not None and start_time(init) is not None:
            time.sleep(_POLL_S)

    def enter(self, *, kinds: Sequence[str] = ("net", "mount", "pid")) -> list[str]:
        """Return the beginning of a command that runs the rest inside."""
        init = self.init
        if init is None:
            raise ProcessError(f"the node of {self._folder} does not run")
        # The working directory becomes / there, so paths in commands have to be absolute.
        return [self._nsenter, f"--target={init}", *(f"--{kind}" for kind in kinds)]

    def run(self, command: Sequence[str]) -> str:
        """Run a command inside to its end; return its stdout, raise ProcessError with its complaint if it fails."""
        done = subprocess.run([*self.enter(), *command], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ProcessError(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()[-2000:]}")
        return done.stdout

    def daemon(self, name: str) -> Daemon:
        """Return the handle of the program `name`: that of its nsenter, which ends when the program does."""
        return Daemon(name, self._folder)

    def launch(self, name: str, command: Sequence[str]) -> None:
        """Start a program that goes on running inside."""
        self.daemon(name).start([*self.enter(), *command], tethered=self._tethered)

    def end(self, name: str, *, number: signal.Signals, within: float) -> None:
        """Send the program `name` a signal and return when it has ended; SIGKILL after `within` seconds."""
        holder = self.daemon(name)
        if (pid := holder.pid) is None:
            return
        for child in _children(pid):
            os.kill(child, number)
        deadline = time.monotonic() + within
        while holder.pid is not None:
            if time.monotonic() > deadline:
                for child in _children(pid):
                    os.kill(child, signal.SIGKILL)
            time.sleep(_POLL_S)

    def relay(self, port: int, host: str, target: int) -> None:
        """Pass connections to 127.0.0.1:`port` of the machine on to `host`:`target` inside."""
        arguments = [str(port), str(self.init), host, str(target)]
        daemon = Daemon("relay", self._folder)
        daemon.start([sys.executable, "-I", "-S", str(_RELAY), *arguments], tethered=self._tethered)

    def end_relay(self) -> None:
        """End what `relay` started, which runs outside."""
        Daemon("relay", self._folder).kill()

    def listening(self, port: int) -> bool:
        """Tell whether something listens on the TCP port inside."""
        wanted = f":{port:04X}"
        for table in ("tcp", "tcp6"):
            try:
                lines = Path(f"/proc/{self.init}/net/{table}").read_text().splitlines()[1:]
            except OSError:
                continue
            for line in lines:
                _, local, _, state, *_ = line.split()
                if state == _LISTENING and local.endswith(wanted):
                    return True
        return False
