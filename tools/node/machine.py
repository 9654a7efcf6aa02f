"""What a machine must have before it can be a node: root, Linux, and some of Debian's packages.

Invariants: packages are installed only when one of their programs is missing; when that cannot be done the message says
which packages. Knows nothing of Kubernetes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tools.progress import step

PLUGINS = Path("/usr/lib/cni")
"""Where Debian keeps the CNI plugins."""

_PACKAGES = {
    "containerd": "containerd",
    "ctr": "containerd",
    "ip": "iproute2",
    "iptables": "iptables",
    "mount": "mount",
    "nsenter": "util-linux",
    "runc": "runc",
    "unshare": "util-linux",
    str(PLUGINS / "bridge"): "containernetworking-plugins",
    str(PLUGINS / "host-local"): "containernetworking-plugins",
}


class MachineError(RuntimeError):
    """This machine cannot be a node; the message says what would help."""


def program(name: str) -> str:
    """Return the path of an installed program; Debian keeps some where only root looks."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        raise MachineError(f"there is no {name}: apt-get install {_PACKAGES.get(name, name)}")
    return found


def missing() -> list[str]:
    """Return the packages to install."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    return sorted({package for name, package in _PACKAGES.items() if shutil.which(name, path=path) is None})


def prepare() -> None:
    """Install what is missing; raise MachineError when that, or a node at all, is not possible here."""
    if os.geteuid() != 0:
        raise MachineError("a node has to be started by root (namespaces, cgroups, mounts); or use a cluster you have")
    packages = missing()
    if not packages:
        return
    installer = shutil.which("apt-get")
    if installer is None:
        raise MachineError(f"install Debian's packages {', '.join(packages)}, or what they are called here")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with step(f"installing {', '.join(packages)}", expected="about 10 s, once"):
        for command in (["update"], ["install", "--yes", "--no-install-recommends", *packages]):
            done = subprocess.run(
                [installer, "-qq", *command], env=environment, capture_output=True, text=True, check=False
            )
            if done.returncode != 0:
                raise MachineError(f"apt-get {' '.join(command)}: {done.stderr.strip()[-1000:]}")
