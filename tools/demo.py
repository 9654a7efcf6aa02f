"""`python -m tools.demo`: the system running on a real API server, shown step by step.

Responsible for: a local cluster, the CRDs, the allocator as a process of its own, objects from examples/, and what
`kubectl get` then says. Stays up until Ctrl-C; with DEMO_EXIT=1 in the environment it ends by itself. Exit code 0 when
everything that it shows came true, 1 otherwise.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

from tools import capi
from tools.cluster import Cluster, KubectlError
from tools.process import free_ports
from tools.progress import say, step

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = Path("examples") / "ipam"
METRICS = ("groundwork_ipam_allocations_total", "groundwork_ipam_refusals_total", "groundwork_ipam_pool_addresses")
NEXT = """
The cluster stays up until Ctrl-C. In another terminal:

  export KUBECONFIG={kubeconfig}

Try this:
  1. kubectl delete ipaddressclaim control-plane-1 && kubectl get ipreservations
     its address is kept for a while, in case the claim comes back
  2. kubectl patch ippool machines --type json -p '[{{"op":"remove","path":"/spec/pools/0"}}]'
     shrink the pool below what is in use: nobody loses an address, see the column OutOfRange in kubectl get ipp -o wide
  3. {groundwork} ipam verify
     check the ledger: every address held once, nothing lost
"""


class DemoError(RuntimeError):
    """Something that the demo promises did not happen."""


def title(text: str) -> None:
    """Print a heading."""
    print(f"\n\033[1m== {text}\033[0m" if sys.stdout.isatty() else f"\n== {text}", flush=True)


def show(cluster: Cluster, *arguments: str) -> str:
    """Run kubectl, print the command and what it says."""
    print(f"$ kubectl {' '.join(arguments)}", flush=True)
    output = cluster.kubectl(*arguments)
    print(output.rstrip(), flush=True)
    return output


def start_allocator(cluster: Cluster, port: int) -> subprocess.Popen[bytes]:
    """Start `python -m services.ipam`; its log goes to a file in the cluster's folder."""
    log = (cluster.folder / "ipam.log").open("wb")
    command = [sys.executable, "-m", "services.ipam", "--log-format", "text", "--bind-address", f"127.0.0.1:{port}"]
    print(f"$ python {' '.join(command[1:])} &", flush=True)
    return subprocess.Popen(
        [*command, "--kubeconfig", str(cluster.kubeconfig)], cwd=ROOT, stdout=log, stderr=subprocess.STDOUT
    )


def scrape(port: int) -> str:
    """Metrics of the allocator."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as response:
        text: str = response.read().decode()
        return text


def wait_until_ready(allocator: subprocess.Popen[bytes], port: int, seconds: float = 60) -> None:
    """Return when /readyz answers; DemoError when the process ends or takes too long."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if allocator.poll() is not None:
            raise DemoError(f"the allocator ended with exit code {allocator.returncode}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    raise DemoError(f"the allocator was not ready after {seconds:.0f} s")


def play(cluster: Cluster, port: int) -> None:
    """Show claims being served, refused and returned."""
    title("A pool and claims of both kinds")
    show(cluster, "apply", "-f", str(EXAMPLES / "pool.yaml"), "-f", str(EXAMPLES / "claims.yaml"))
    show(cluster, "wait", "--for=condition=Ready", "--timeout=30s", "ipclaim/worker-0", "ipclaim/vip")
    show(cluster, "wait", "--for=condition=Ready", "--timeout=30s", "ipaddressclaim/control-plane-0")
    show(cluster, "wait", "--for=jsonpath={.status.ipAddresses.used}=3", "--timeout=30s", "ippool/machines")
    show(cluster, "get", "ippools,ipclaims,ipaddresses.ipam.metal3.io,ipaddresses.ipam.cluster.x-k8s.io")

    title(
        "control-plane-1 asked for an address that the pool excludes: it says so, and gets it once the pool allows it"
    )
    show(cluster, "wait", "--for=condition=Ready=False", "--timeout=30s", "ipaddressclaim/control-plane-1")
    message = "jsonpath={.status.conditions[0].reason}: {.status.conditions[0].message}"
    show(cluster, "get", "ipaddressclaim", "control-plane-1", "-o", message)
    allow = '{"spec":{"excludedAddresses":["10.20.30.20-10.20.30.21"]}}'
    show(cluster, "patch", "ippool", "machines", "--type=merge", "-p", allow)
    show(cluster, "wait", "--for=condition=Ready", "--timeout=30s", "ipaddressclaim/control-plane-1")

    title("A claim goes and its address comes back: it cools for a minute, and worker-0 would get it again")
    show(cluster, "delete", "ipclaim", "worker-0", "--wait=true")
    show(cluster, "wait", "--for=jsonpath={.status.ipAddresses.cooling}=1", "--timeout=30s", "ippool/machines")
    show(cluster, "get", "ipreservations")
    show(cluster, "get", "ippools", "-o", "wide")

    title("What Prometheus sees")
    for line in scrape(port).splitlines():
        if line.startswith(METRICS):
            print(line)


def run(*, stay: bool) -> None:
    """Start everything, show it, and wait for Ctrl-C if told to."""
    with contextlib.ExitStack() as stack:
        with step("starting etcd and kube-apiserver"):
            cluster = stack.enter_context(Cluster.temporary())
        with step("installing the CRDs of Groundwork and of Cluster API"):
            cluster.install_crds(ROOT / "deploy" / "crds", *capi.crds())
        (port,) = free_ports(1)
        title("The allocator")
        allocator = start_allocator(cluster, port)
        stack.callback(allocator.wait, 30)
        stack.callback(allocator.terminate)
        try:
            wait_until_ready(allocator, port)
            play(cluster, port)
        except (KubectlError, DemoError):
            tail(cluster.folder / "ipam.log")
            raise
        if stay:
            print(
                NEXT.format(kubeconfig=cluster.kubeconfig, groundwork=Path(sys.executable).with_name("groundwork")),
                flush=True,
            )
            signal.pause()


def tail(log: Path, lines: int = 20) -> None:
    """Print the end of the allocator's log."""
    if log.exists():
        print("\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]), file=sys.stderr)


def main(arguments: Sequence[str] = ()) -> int:
    """Run the demo."""
    stay = "--exit" not in arguments and os.environ.get("DEMO_EXIT", "") in {"", "0"}
    os.chdir(ROOT)
    try:
        run(stay=stay)
    except KeyboardInterrupt:
        say("stopped, everything is removed")
    except (KubectlError, DemoError) as error:
        say(f"the demo failed: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
