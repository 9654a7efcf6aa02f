"""What a node could leave behind on the machine that it ran on.

Responsible for: two looks, at what all of the machine shares and at what can only be the node's. Invariant: of what
other programs do meanwhile nothing is seen but what could as well come from a part of a node.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from tools.node import machine

_SETTINGS = (
    "kernel/keys/root_maxbytes",
    "kernel/keys/root_maxkeys",
    "kernel/panic",
    "kernel/panic_on_oops",
    "net/ipv4/ip_forward",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
)


# How the interfaces, network namespaces and rules of kubelet, kube-proxy and the CNI plugins are called.
_INTERFACES = ("cni", "kube", "node", "veth")
_NAMESPACES = ("cni-",)
_RULES = ("KUBE-", "CNI-", "cni0", "node0")


def _names(folder, beginnings):
    path = Path(folder)
    return sorted(found.name for found in path.iterdir() if found.name.startswith(beginnings)) if path.exists() else []


def of_machine():
    """Interfaces, packet filter rules and network namespaces as nodes have them, and the kernel's settings."""
    saved = subprocess.run([machine.program("iptables-save")], capture_output=True, text=True, check=True).stdout
    return {
        "interfaces": _names("/sys/class/net", _INTERFACES),
        "rules": [line for line in saved.splitlines() if any(name in line for name in _RULES)],
        "network namespaces": _names("/run/netns", _NAMESPACES) + _names("/var/run/netns", _NAMESPACES),
        "settings": {name: Path("/proc/sys", name).read_text().strip() for name in _SETTINGS},
        "folders": sorted(str(path) for name in ("/opt/containerd", "/etc/cni/net.d") if (path := Path(name)).exists()),
    }


def of_node(folder, network, cgroup):
    """Processes, mounts, cgroups and files that can only be those of one node; `network` is its namespace's inode."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            inside = (process / "ns" / "net").stat().st_ino == network
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it has just ended
        if inside or str(folder) in command:
            found.append(f"process {process.name}: {command}")
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    found += [f"mount {line}" for line in mounts if str(folder) in line or " node-" in line]
    found += [f"cgroup {path}" for pattern in ("", "*/") for path in Path("/sys/fs/cgroup").glob(f"{pattern}{cgroup}")]
    if folder.exists():
        found.append(f"folder {folder}")
    return found
