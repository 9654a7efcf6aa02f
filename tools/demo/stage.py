"""What every chapter of the demo is told with: headings, kubectl with its command shown, and services as processes.

Responsible for: starting and ending the services, and showing the end of their logs when something does not come true.
Must not know: any service.
"""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.request
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

from tools.paths import ROOT
from tools.process import free_ports

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tools.cluster import Cluster

_READY_SECONDS = 60.0
_LOG_LINES = 20


class DemoError(RuntimeError):
    """Something that the demo promises did not happen."""


class Program:
    """A service as a process of its own; its log goes to a file in the cluster's folder."""

    def __init__(self, process: subprocess.Popen[bytes], name: str, port: int, log: Path) -> None:
        self.process = process
        self.name = name
        self.port = port
        self.log = log

    def wait_until_ready(self) -> None:
        """Return when /readyz answers; DemoError when the process ends or takes too long."""
        deadline = time.monotonic() + _READY_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise DemoError(f"{self.name} ended with exit code {self.process.returncode}")
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=1):
                    return
            except OSError:
                time.sleep(0.1)
        raise DemoError(f"{self.name} was not ready after {_READY_SECONDS:.0f} s")

    def metrics(self, *prefixes: str) -> None:
        """Print the metrics whose names begin so."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as response:
            text: str = response.read().decode()
        for line in text.splitlines():
            if line.startswith(prefixes):
                print(line)

    def show_log(self) -> None:
        """Print the end of the log to stderr."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES:]
        print(f"--- {self.name}", *lines, sep="\n", file=sys.stderr)


class Stage:
    """`with Stage(cluster) as stage`: ends every program that was started on it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.programs: list[Program] = []
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """End the programs, the last one first; after an error, show what they said."""
        if kind is not None and issubclass(kind, Exception):
            for program in self.programs:
                program.show_log()
        self._stack.close()

    def title(self, text: str) -> None:
        """Print a heading."""
        print(f"\n\033[1m== {text}\033[0m" if sys.stdout.isatty() else f"\n== {text}", flush=True)

    def kubectl(self, *arguments: str) -> str:
        """Run kubectl, print the command and what it says."""
        print(f"$ kubectl {' '.join(arguments)}", flush=True)
        output = self.cluster.kubectl(*arguments)
        print(output.rstrip(), flush=True)
        return output

    def wait(self, condition: str, what: str, *more: str) -> None:
        """Let kubectl wait for a condition and show that it came true."""
        self.kubectl("wait", f"--for={condition}", "--timeout=60s", what, *more)

    def callback(self, end: Callable[[], object]) -> None:
        """Call `end` when the demo is over."""
        self._stack.callback(end)

    def eventually(self, came_true: Callable[[], bool], what: str) -> None:
        """Wait for something that kubectl cannot wait for; DemoError when it does not come true."""
        deadline = time.monotonic() + _READY_SECONDS
        while not came_true():
            self.promise(time.monotonic() < deadline, what)
            time.sleep(0.1)

    def promise(self, kept: bool, what: str) -> None:
        """Fail unless what the demo promises came true."""
        if not kept:
            raise DemoError(f"this did not come true: {what}")

    def create(self, obj: Mapping[str, Any]) -> dict[str, Any]:
        """Create an object as another controller would, and return an owner reference to it."""
        self.cluster.apply(obj)
        meta = obj["metadata"]
        where = [f"--namespace={meta['namespace']}"] if "namespace" in meta else []
        group, _, version = obj["apiVersion"].rpartition("/")
        kind = f"{obj['kind']}.{version}.{group}" if group else obj["kind"]
        uid = self.cluster.kubectl("get", kind, meta["name"], *where, "--output=jsonpath={.metadata.uid}")
        return {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "name": meta["name"], "uid": uid}

    def start(self, module: str, *flags: str, ready: bool = True) -> Program:
        """Start `python -m MODULE` against the cluster, and wait until it is ready."""
        name = module.rpartition(".")[2]
        (port,) = free_ports(1)
        log = self.cluster.folder / f"{name}.log"
        command = [sys.executable, "-m", module, "--log-format", "text", "--bind-address", f"127.0.0.1:{port}", *flags]
        print(f"$ python {' '.join(command[1:])} &", flush=True)
        with log.open("wb") as out:
            process = subprocess.Popen(
                [*command, "--kubeconfig", str(self.cluster.kubeconfig)], cwd=ROOT, stdout=out, stderr=subprocess.STDOUT
            )
        self._stack.callback(process.wait, 30)
        self._stack.callback(process.terminate)
        program = Program(process, name, port, log)
        self.programs.append(program)
        if ready:
            program.wait_until_ready()
        return program
