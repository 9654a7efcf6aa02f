"""A network namespace for one replica, joined to the host by a pair of interfaces that can be taken down.

Responsible for: making and removing it; only root can (`possible`).
Invariant: what a killed run left behind is removed by the next.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

_PREFIX = "gwfault"


def possible():
    """Whether this process may make network namespaces; found out by making one."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    probe = f"{_PREFIX}-probe-{os.getpid()}"
    if _ip("netns", "add", probe, check=False):
        return False
    _ip("netns", "del", probe, check=False)
    return True


@contextlib.contextmanager
def made():
    """A Network for the body of the `with`."""
    _sweep()
    network = Network()
    try:
        network.make()
        yield network
    finally:
        network.remove()


class Network:
    """`host` and `inside` are the addresses of the two ends; `command` begins the command line of who lives inside."""

    def __init__(self):
        number = os.getpid()
        self.name = f"{_PREFIX}-{number}"
        self._outer, self._inner = f"gwo{number}", f"gwi{number}"
        third, fourth = number // 64 % 256, number % 64 * 4
        self.host, self.inside = f"198.18.{third}.{fourth + 1}", f"198.18.{third}.{fourth + 2}"
        self.command = ("/usr/sbin/ip", "netns", "exec", self.name)

    def make(self):
        _ip("netns", "add", self.name)
        _ip("link", "add", self._outer, "type", "veth", "peer", "name", self._inner, "netns", self.name)
        _ip("address", "add", f"{self.host}/30", "dev", self._outer)
        _ip("link", "set", self._outer, "up")
        for words in (
            ("address", "add", f"{self.inside}/30", "dev", self._inner),
            ("link", "set", self._inner, "up"),
            ("link", "set", "lo", "up"),
        ):
            _ip("-n", self.name, *words)

    def cut(self):
        """Take the wire out: both ends keep their connections and hear nothing."""
        _ip("link", "set", self._outer, "down")

    def join(self):
        _ip("link", "set", self._outer, "up")

    def remove(self):
        _ip("link", "del", self._outer, check=False)
        _ip("netns", "del", self.name, check=False)


def _sweep():
    """Remove the namespaces of runs that were killed."""
    done = subprocess.run(["/usr/sbin/ip", "netns", "list"], capture_output=True, text=True, check=False)
    for line in done.stdout.splitlines():
        name = line.split()[0]
        owner = name.removeprefix(f"{_PREFIX}-")
        if name.startswith(f"{_PREFIX}-") and owner.isdigit() and not Path(f"/proc/{owner}").exists():
            _ip("netns", "del", name, check=False)


def _ip(*words, check=True):
    done = subprocess.run(["/usr/sbin/ip", *words], capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done.returncode
