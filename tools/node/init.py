"""Process 1 of a node's namespaces: `init.py FOLDER` makes them look like a machine of its own, then only reaps.

Runs with `python -I -S` in new network, mount, pid and uts namespaces, as root; FOLDER holds the node's state, and
FOLDER/ready appears when all is set up. Invariants: nothing that it mounts, writes or configures is seen outside of the
namespaces; when it ends, however it ends, the kernel ends every process in them and drops every mount, interface and
packet filter rule.
"""

import signal
import socket
import subprocess
import sys
from pathlib import Path

NAME = "node1"
ADDRESS = "198.18.77.1"  # of the range for benchmarks (RFC 2544): it is nobody's outside either
_GATEWAY = "198.18.77.254"

# What kubelet insists on; it writes them for the whole machine unless it reads them, which these files let it.
_SYSCTLS = {
    "vm/overcommit_memory": 1,
    "vm/panic_on_oom": 0,
    "kernel/panic": 10,
    "kernel/panic_on_oops": 1,
    "kernel/keys/root_maxkeys": 1_000_000,
    "kernel/keys/root_maxbytes": 25_000_000,
}
_BRIDGE_FILTER = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


def _mounts(folder: Path) -> None:
    # Shared within: containers get what kubelet mounts later. The caller made it private to us before.
    _run("mount", "--make-rshared", "/")
    _run("mount", "-t", "tmpfs", "-o", "mode=755", "node-run", "/run")
    # kubelet and CNI plugins have paths of their own in here, which may not exist on the machine.
    upper, work, logs = (folder / "var" / part for part in ("lib", "work", "log"))
    for made in (upper, work, logs):
        made.mkdir(parents=True, exist_ok=True)
    _run("mount", "-t", "overlay", "-o", f"lowerdir=/var/lib,upperdir={upper},workdir={work}", "node-lib", "/var/lib")
    for name in ("cni", "kubelet"):
        Path("/var/lib", name).mkdir(exist_ok=True)
    _run("mount", "--bind", str(logs), "/var/log")
    for name, value in _SYSCTLS.items():
        stand_in = folder / "sysctl" / name.replace("/", ".")
        stand_in.parent.mkdir(exist_ok=True)
        stand_in.write_text(f"{value}\n")
        _run("mount", "--bind", str(stand_in), f"/proc/sys/{name}")


def _network() -> None:
    socket.sethostname(NAME)
    _run("ip", "link", "set", "lo", "up")
    # Both ends stay inside: an interface that carries the address, and no way out.
    _run("ip", "link", "add", "node0", "type", "veth", "peer", "name", "node0p")
    _run("ip", "address", "add", f"{ADDRESS}/24", "dev", "node0")
    _run("ip", "link", "set", "node0", "up")
    _run("ip", "link", "set", "node0p", "up")
    # Without any route a Service's address is unreachable before kube-proxy's rules see the packet.
    _run("ip", "route", "add", "default", "via", _GATEWAY, "dev", "node0")
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    if not _BRIDGE_FILTER.exists():
        raise SystemExit("the kernel does not show bridged packets to iptables: modprobe br_netfilter")
    _BRIDGE_FILTER.write_text("1")


def main() -> None:
    """Set the namespaces up, say so, and wait to be killed."""
    folder = Path(sys.argv[1])
    _mounts(folder)
    _network()
    (folder / "ready").touch()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # orphans come to process 1; the kernel then buries them by itself
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
