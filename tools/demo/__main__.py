"""`python -m tools.demo [--exit]`: a local cluster, the CRDs, and one chapter after the other.

Responsible for: the order. Every service runs as a process of its own, on objects from examples/, and what kubectl then
says is shown. Stays up until Ctrl-C; with DEMO_EXIT=1 in the environment it ends by itself. Exit code 0 when everything
that it shows came true, 1 otherwise.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tools import capi
from tools.cluster import Cluster, KubectlError
from tools.demo import allocator, integrator, machines, podpreset
from tools.demo.stage import DemoError, Stage
from tools.paths import ROOT
from tools.progress import say, step

if TYPE_CHECKING:
    from collections.abc import Sequence

CHAPTERS = (allocator, integrator, podpreset, machines)
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


def run(*, stay: bool) -> None:
    """Start everything, show it, and wait for Ctrl-C if told to."""
    with contextlib.ExitStack() as stack:
        with step("starting etcd and kube-apiserver"):
            cluster = stack.enter_context(Cluster.temporary())
        with step("installing the CRDs of Groundwork and of Cluster API"):
            cluster.install_crds(ROOT / "deploy" / "crds", *capi.crds())
        stage = stack.enter_context(Stage(cluster))
        for chapter in CHAPTERS:
            chapter.play(stage)
        if stay:
            groundwork = Path(sys.executable).with_name("groundwork")
            print(NEXT.format(kubeconfig=cluster.kubeconfig, groundwork=groundwork), flush=True)
            signal.pause()


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
