"""A local cluster, a real etcd and kube-apiserver on the loopback interface, for the demo, the tests and the benches.

    python -m tools.cluster up|down|status|env [--name NAME]
    eval "$(python -m tools.cluster env)"

Invariants: a named cluster lives in the user's cache folder and outlives the command; a temporary one ends with the
process that made it, however that ends. All state, logs included, is below one folder. No controllers and no nodes run:
namespaces are never finalised and Pods never start.
"""

from __future__ import annotations

import argparse
import base64
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import yaml

from tools import binaries, commands, paths
from tools.controlplane import ApiServer, Etcd, Ports
from tools.pki import Pki
from tools.process import ProcessError, free_ports
from tools.progress import say

Manifest = Path | str | Mapping[str, Any]

_TEMPORARY_PREFIX = "groundwork-cluster-"
_SWEEP_AGE_S = 600.0
_PORT_ATTEMPTS = 3
_PORT_PATIENCE_S = 20.0
_PORT_TAKEN = "address already in use"


class KubectlError(RuntimeError):
    """kubectl exited with a failure; the message is what it printed."""


class Cluster:
    """One local cluster; make it with `Cluster.create` or `Cluster.temporary`.

    folder      all of its state
    kubeconfig  the admin's (group system:masters), certificates inside
    url         https://127.0.0.1:PORT, the same over restarts
    ca          the PEM file that verifies it
    """

    def __init__(
        self,
        folder: Path,
        ports: Ports,
        *,
        fsync: bool = False,
        apiserver_args: Sequence[str] = (),
        tethered: bool = False,
    ) -> None:
        programs = binaries.ensure(*binaries.CLUSTER)
        self.folder = folder
        self.kubeconfig = folder / "kubeconfig"
        self.url = f"https://127.0.0.1:{ports.apiserver}"
        self._apiserver_args = list(apiserver_args)
        self._tethered = tethered
        self._kubectl = programs["kubectl"]
        self._pki = Pki(folder / "pki")
        self.ca = self._pki.ca.certificate
        self.etcd = Etcd(programs["etcd"], folder, ports, fsync=fsync)
        self.apiserver = ApiServer(programs["kube-apiserver"], folder, ports, self._pki, self.etcd.url)
        admin = self._pki.client("admin", "groundwork-admin", "system:masters")
        self._write_kubeconfig(
            self.kubeconfig,
            {
                "client-certificate-data": _encoded(admin.certificate),
                "client-key-data": _encoded(admin.key),
            },
        )

    # Life cycle

    @classmethod
    def create(
        cls, folder: Path, *, fsync: bool = False, apiserver_args: Sequence[str] = (), tethered: bool = False
    ) -> Self:
        """Return the running cluster whose state is in `folder`, made or started as needed.

        `fsync` makes etcd wait for the disk (the default favours speed); `apiserver_args` are added to kube-apiserver's
        flags. A cluster that exists keeps its ports, certificates and data, and takes the options of this call when it
        has to be started. Raises ProcessError if a program does not come up.
        """
        folder = folder.absolute()
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for attempt in range(1, _PORT_ATTEMPTS + 1):
                ports = _load_ports(folder) or Ports(*free_ports(3))
                cluster = cls(folder, ports, fsync=fsync, apiserver_args=apiserver_args, tethered=tethered)
                try:
                    cluster.start()
                except ProcessError as error:
                    # Between choosing a port and listening on it another process may have taken it. Only a cluster
                    # that nobody has a kubeconfig of yet may move.
                    cluster.stop()
                    taken = _PORT_TAKEN in str(error)
                    if not taken or _load_ports(folder) or attempt == _PORT_ATTEMPTS:
                        raise
                    continue
                _save_ports(folder, ports)
                return cluster
        raise AssertionError("unreachable: the last attempt returns or raises")

    @classmethod
    def open(cls, folder: Path) -> Self | None:
        """Return the cluster whose state is in `folder`, running or not, or None if there is none."""
        ports = _load_ports(folder)
        return None if ports is None else cls(folder.absolute(), ports)

    @classmethod
    @contextmanager
    def temporary(cls, *, fsync: bool = False, apiserver_args: Sequence[str] = ()) -> Iterator[Self]:
        """Run a cluster for the body of the `with`; its processes die with this process even if that is killed."""
        sweep()
        folder = Path(tempfile.mkdtemp(prefix=_TEMPORARY_PREFIX))
        # Held while we live: how a later run knows what a killed one has left behind.
        with (folder / ".owner").open("w") as owner:
            fcntl.flock(owner, fcntl.LOCK_EX)
            try:
                cluster = cls.create(folder, fsync=fsync, apiserver_args=apiserver_args, tethered=True)
                try:
                    yield cluster
                finally:
                    cluster.apiserver.daemon.kill()
                    cluster.etcd.daemon.kill()
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def start(self) -> None:
        """Start what does not run, and return when the API server is ready."""
        self.start_etcd()
        self.start_apiserver()

    def stop(self) -> None:
        """Stop both programs in order; the data stays."""
        self.stop_apiserver()
        self.stop_etcd()

    def remove(self) -> None:
        """Stop the cluster and delete its state."""
        self.apiserver.daemon.kill()
        self.etcd.daemon.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def running(self) -> bool:
        """Whether both programs run and the API server is ready."""
        return self.etcd.daemon.pid is not None and self.apiserver.daemon.pid is not None and self.apiserver.ready()

    # Faults

    def stop_apiserver(self, *, grace: float = 5.0) -> None:
        """Stop the API server as an upgrade would: SIGTERM, and SIGKILL after `grace` seconds.

        It answers SIGTERM with GOAWAY at once, but stays for as long as a client holds a watch open.
        """
        self.apiserver.daemon.stop(timeout=grace)

    def kill_apiserver(self) -> None:
        """Stop the API server as a crash would (SIGKILL)."""
        self.apiserver.daemon.kill()

    def start_apiserver(self, *, args: Sequence[str] | None = None) -> None:
        """Start the API server on the same port and wait until it is ready; `args` replace its extra flags for good."""
        if args is not None:
            self._apiserver_args = list(args)
        self._on_its_port(lambda: self.apiserver.start(self._apiserver_args, tethered=self._tethered))

    def _on_its_port(self, start: Callable[[], None]) -> None:
        """Start a program again on the port it had, which cannot be changed any more.

        While it was down, somebody may be trying the port for being free.
        """
        deadline = time.monotonic() + (_PORT_PATIENCE_S if _load_ports(self.folder) else 0.0)
        while True:
            try:
                start()
            except ProcessError as error:
                if _PORT_TAKEN not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
            else:
                return

    def stop_etcd(self, *, grace: float = 3.0) -> None:
        """Stop etcd (SIGTERM, SIGKILL after `grace` seconds); the API server stays and answers errors."""
        self.etcd.daemon.stop(timeout=grace)

    def kill_etcd(self) -> None:
        """Stop etcd as a crash would (SIGKILL)."""
        self.etcd.daemon.kill()

    def start_etcd(self) -> None:
        """Start etcd on the same port with its data and wait until it serves."""
        self._on_its_port(lambda: self.etcd.start(tethered=self._tethered))

    def compact_etcd(self) -> int:
        """Drop etcd's history and return the revision before which nothing is left.

        The API server still answers watches from its own watch cache, which forgets only by age, size and restart: see
        `expire_watches` for a watch that is refused.
        """
        return self.etcd.compact()

    def expire_watches(self) -> None:
        """Make every resourceVersion handed out so far too old to watch from: 410 Gone is the answer from now on.

        Compacts etcd and restarts the API server, whose watch cache then begins at the present.
        """
        self.kill_apiserver()
        self.compact_etcd()
        self.start_apiserver()

    # Content

    def kubectl(
        self,
        *args: str,
        input: str | None = None,  # noqa: A002 - the name that subprocess.run has for it
        kubeconfig: Path | None = None,
    ) -> str:
        """Run kubectl as the admin, or with another kubeconfig; return its stdout, raise KubectlError if it fails."""
        command = [
            str(self._kubectl),
            f"--kubeconfig={kubeconfig or self.kubeconfig}",
            f"--cache-dir={self.folder / 'kubectl-cache'}",
            *args,
        ]
        done = subprocess.run(command, input=input or "", capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise KubectlError(f"kubectl {' '.join(args)}: {done.stderr.strip()}")
        return done.stdout

    def apply(self, *manifests: Manifest) -> None:
        """Apply manifests server-side: files, folders of .yaml files, or objects as dicts."""
        paths_ = [str(manifest) for manifest in manifests if not isinstance(manifest, Mapping)]
        objects = [manifest for manifest in manifests if isinstance(manifest, Mapping)]
        command = ["apply", "--server-side", "--force-conflicts"]
        if paths_:
            self.kubectl(*command, *(f"--filename={path}" for path in paths_))
        if objects:
            self.kubectl(*command, "--filename=-", input=_as_list(objects))

    def install_crds(self, *manifests: Manifest) -> None:
        """Apply CustomResourceDefinitions and wait until the API server serves them.

        Takes what `apply` takes; a folder without .yaml files is no error.
        """
        definitions: list[Mapping[str, Any]] = []
        for manifest in manifests:
            if isinstance(manifest, Mapping):
                definitions.append(manifest)
                continue
            path = Path(manifest)
            for file in sorted(path.glob("*.yaml")) if path.is_dir() else [path]:
                definitions += [document for document in yaml.safe_load_all(file.read_text()) if document]
        if not definitions:
            return
        self.apply(*definitions)
        names = [f"crd/{definition['metadata']['name']}" for definition in definitions]
        self.kubectl("wait", "--for=condition=Established", "--timeout=60s", *names)

    def service_account_kubeconfig(
        self,
        namespace: str,
        name: str,
        rules: Sequence[Mapping[str, Any]],
        *,
        namespaced: bool = False,
        token_seconds: int = 86_400,
    ) -> Path:
        """Make a ServiceAccount that may do what the RBAC `rules` say and nothing else; return its kubeconfig.

        `namespaced` grants the rules in `namespace` alone (Role) instead of everywhere (ClusterRole). The API server
        signs the token (TokenRequest), valid for `token_seconds`, at least 600.
        """
        scope = {"namespace": namespace} if namespaced else {}
        kind = "Role" if namespaced else "ClusterRole"
        role = name if namespaced else f"{namespace}:{name}"
        rbac = "rbac.authorization.k8s.io"
        self.apply(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}},
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}},
            {
                "apiVersion": f"{rbac}/v1",
                "kind": kind,
                "metadata": {"name": role, **scope},
                "rules": [dict(rule) for rule in rules],
            },
            {
                "apiVersion": f"{rbac}/v1",
                "kind": f"{kind}Binding",
                "metadata": {"name": role, **scope},
                "roleRef": {"apiGroup": rbac, "kind": kind, "name": role},
                "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
            },
        )
        token = self.kubectl("create", "token", name, f"--namespace={namespace}", f"--duration={token_seconds}s")
        path = self.folder / "kubeconfigs" / f"{namespace}.{name}"
        path.parent.mkdir(exist_ok=True)
        self._write_kubeconfig(path, {"token": token.strip()}, namespace=namespace)
        return path

    def _write_kubeconfig(self, path: Path, user: Mapping[str, str], *, namespace: str = "default") -> None:
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "local",
            "clusters": [
                {"name": "local", "cluster": {"server": self.url, "certificate-authority-data": _encoded(self.ca)}}
            ],
            "users": [{"name": "local", "user": dict(user)}],
            "contexts": [{"name": "local", "context": {"cluster": "local", "user": "local", "namespace": namespace}}],
        }
        # Written aside and renamed: a reader never sees half of it, and it is private from its first byte.
        fresh = path.with_name(f".{path.name}.{os.getpid()}")
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            yaml.safe_dump(config, file, sort_keys=False)
        fresh.replace(path)


def _encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def _as_list(objects: Sequence[Mapping[str, Any]]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": [dict(object_) for object_ in objects]})


def _load_ports(folder: Path) -> Ports | None:
    try:
        return Ports(**json.loads((folder / "ports.json").read_text()))
    except FileNotFoundError:
        return None


def _save_ports(folder: Path, ports: Ports) -> None:
    (folder / "ports.json").write_text(json.dumps(asdict(ports)))


def sweep() -> None:
    """Delete the folders of temporary clusters whose owner was killed (their processes died with it)."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_TEMPORARY_PREFIX}*"):
        try:
            # A young folder may not have its owner's lock yet.
            status = folder.stat()
            if status.st_uid != os.getuid() or time.time() - status.st_mtime < _SWEEP_AGE_S:
                continue
            with (folder / ".owner").open() as owner:
                fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue  # in use, somebody else's, or just removed by another sweep


def named(name: str) -> Path:
    """Return the state folder of the named cluster."""
    return paths.cache() / "clusters" / name


def _up(folder: Path, *, fsync: bool) -> int:
    cluster = Cluster.create(folder, fsync=fsync)
    say(f"cluster {folder.name} is up at {cluster.url}; its logs are in {folder}")
    return 0


def _down(folder: Path) -> int:
    cluster = Cluster.open(folder)
    if cluster is None:
        say(f"cluster {folder.name} does not exist")
        return 0
    cluster.remove()
    say(f"cluster {folder.name} is gone")
    return 0


def main(arguments: Sequence[str]) -> int:
    """Run one command on a named cluster; `status` exits 0 when it is up and 3 when it is not."""
    parser = argparse.ArgumentParser(prog="python -m tools.cluster", description="A local etcd and kube-apiserver.")
    parser.add_argument("command", choices=["up", "down", "status", "env"])
    parser.add_argument("--name", default="default", help="which cluster (default: %(default)s)")
    parser.add_argument("--fsync", action="store_true", help="up: etcd waits for the disk")
    options = parser.parse_args(arguments)
    folder = named(options.name)
    try:
        if options.command == "up":
            return _up(folder, fsync=options.fsync)
        if options.command == "down":
            return _down(folder)
        cluster = Cluster.open(folder)
        if options.command == "status":
            return commands.status(cluster)
        return commands.env("cluster", folder, cluster, *binaries.CLUSTER)
    except (ProcessError, binaries.BinaryError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
