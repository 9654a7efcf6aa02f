"""A single node with a control plane: made, used, loaded with images, disturbed, and removed without a trace.

Responsible for the order in which the parts start and what "ready" means for each. Invariants: a temporary node ends
with the process that made it, however that ends, and a later one removes what is left of it; all state is below one
folder. Knows nothing of Groundwork.
"""

from __future__ import annotations

import base64
import fcntl
import http.client
import json
import shutil
import signal
import ssl
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self

import yaml

from tools import binaries
from tools.node import cgroups, daemons, images, machine
from tools.node.init import NAME
from tools.node.namespaces import Namespaces
from tools.pki import Pair, Pki
from tools.process import ProcessError, free_ports
from tools.progress import say, step

if TYPE_CHECKING:
    from collections.abc import Iterator

NodeError = ProcessError
"""A part did not start, or a command failed; the message has the end of what it said."""

PROGRAMS = (
    "etcd",
    "helm",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-proxy",
    "kube-scheduler",
    "kubectl",
    "kubelet",
    "pause",
)
"""What a node takes of tools.binaries."""

_PREFIX = "groundwork-node-"
_SWEEP_AGE_S = 600.0
_START_S = 180.0  # 10 s in all on an idle machine
_POLL_S = 0.2


class Node:
    """One node; make it with `Node.create` or `Node.temporary`.

    folder      all of its state, logs included
    kubeconfig  the admin's (group system:masters), for use outside of the node: https://127.0.0.1:PORT
    """

    def __init__(self, folder: Path, port: int, *, tethered: bool = False) -> None:
        self.folder = folder
        self.kubeconfig = folder / "kubeconfig"
        self.url = f"https://127.0.0.1:{port}"
        self.cgroup = f"{_PREFIX}{port}"
        self._port = port
        self._spaces = Namespaces(folder, tethered=tethered)

    # Life cycle

    @classmethod
    def create(cls, folder: Path, *, tethered: bool = False) -> Self:
        """Return the running node whose state is in `folder`, made as needed; a part that ended is not started again.

        Raises MachineError when this machine cannot be a node, NodeError when a part does not come up.
        """
        machine.prepare()
        folder = folder.absolute()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if (found := cls.open(folder)) is not None:
            if found.running:
                return found
            found._kill()  # noqa: SLF001 - our own
        node = cls(folder, free_ports(1)[0], tethered=tethered)
        (folder / "node.json").write_text(json.dumps({"port": node._port}))
        try:
            node._start()
        except BaseException:
            node._kill()
            raise
        return node

    @classmethod
    def open(cls, folder: Path) -> Self | None:
        """Return the node whose state is in `folder`, running or not, or None if there is none."""
        try:
            return cls(folder.absolute(), json.loads((folder / "node.json").read_text())["port"])
        except FileNotFoundError:
            return None

    @classmethod
    @contextmanager
    def temporary(cls) -> Iterator[Self]:
        """Run a node for the body of the `with`."""
        sweep()
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        # Held while we live: how a later run knows what a killed one has left behind.
        with (folder / ".owner").open("w") as owner:
            fcntl.flock(owner, fcntl.LOCK_EX)
            try:
                yield cls.create(folder, tethered=True)
            finally:
                remove(folder)

    @property
    def running(self) -> bool:
        """Whether the API server answers that it is ready."""
        return self._spaces.init is not None and self._ready()

    @property
    def network(self) -> int | None:
        """The inode that names the node's network namespace, while it runs."""
        init = self._spaces.init
        return None if init is None else Path(f"/proc/{init}/ns/net").stat().st_ino

    def _kill(self) -> None:
        self._spaces.stop()
        self._spaces.end_relay()
        cgroups.remove(self.cgroup)

    def _start(self) -> None:
        programs = binaries.ensure(*PROGRAMS)
        with step(f"starting a node in {self.folder}", expected="about 10 s"):
            pki = Pki(self.folder / "pki")
            self._kubeconfig(self.kubeconfig, self.url, pki, _admin(pki))
            cgroups.make(self.cgroup)
            self._spaces.start()
            self._control_plane(programs, pki)
            self._worker(programs, pki)

    def _control_plane(self, programs: dict[str, Path], pki: Pki) -> None:
        self._launch("etcd", programs["etcd"], daemons.etcd(self.folder))
        self._listening("etcd", daemons.ETCD_PORT)
        self._launch("kube-apiserver", programs["kube-apiserver"], daemons.apiserver(pki))
        self._spaces.relay(self._port, "127.0.0.1", daemons.API_PORT)
        self._spaces.daemon("kube-apiserver").wait_ready(self._ready, timeout=_START_S)
        manager = self._identity(pki, "kube-controller-manager", "system:kube-controller-manager")
        arguments = daemons.controller_manager(pki, manager)
        self._launch("kube-controller-manager", programs["kube-controller-manager"], arguments)
        scheduler = self._identity(pki, "kube-scheduler", "system:kube-scheduler")
        self._launch("kube-scheduler", programs["kube-scheduler"], daemons.scheduler(scheduler))

    def _worker(self, programs: dict[str, Path], pki: Pki) -> None:
        containerd = Path(machine.program("containerd"))
        self._launch("containerd", containerd, daemons.containerd(self.folder, machine.PLUGINS))
        # Pulling fails without a registry, so what every pod needs must be there before the first one.
        self._spaces.daemon("containerd").wait_ready(self._containerd_answers, timeout=_START_S)
        self.load(images.of_program(programs["pause"], daemons.PAUSE, self.folder / "pause.tar"))
        self._launch_kubelet()
        proxy = self._identity(pki, "kube-proxy", "system:kube-proxy")
        self._launch("kube-proxy", programs["kube-proxy"], daemons.proxy(self.folder, proxy))
        self._listening("kube-proxy", daemons.PROXY_HEALTH_PORT)
        self._spaces.daemon("kubelet").wait_ready(self._node_ready, timeout=_START_S)
        # Made by the controller manager; before it is there, no pod of the namespace is admitted.
        account = ("get", "serviceaccount", "default", "--ignore-not-found", "--output=name")
        self._spaces.daemon("kube-controller-manager").wait_ready(
            lambda: bool(self.kubectl(*account)), timeout=_START_S
        )

    def _launch_kubelet(self) -> None:
        pki = Pki(self.folder / "pki")
        identity = self._identity(pki, "kubelet", f"system:node:{NAME}", "system:nodes")
        arguments = daemons.kubelet(self.folder, pki, identity, self.cgroup)
        self._launch("kubelet", binaries.ensure("kubelet")["kubelet"], arguments)

    def _launch(self, name: str, program: Path, arguments: list[str]) -> None:
        self._spaces.launch(name, [str(program), *arguments])

    def _listening(self, name: str, port: int) -> None:
        self._spaces.daemon(name).wait_ready(lambda: self._spaces.listening(port), timeout=_START_S)

    def _containerd_answers(self) -> bool:
        try:
            self._ctr("version")
        except NodeError:
            return False
        return True

    def _node_ready(self) -> bool:
        time.sleep(_POLL_S)
        ready = 'jsonpath={.items[*].status.conditions[?(@.type=="Ready")].status}'
        return self.kubectl("get", "nodes", f"--output={ready}") == "True"

    def _ready(self) -> bool:
        pki = Pki(self.folder / "pki")
        admin = _admin(pki)
        context = ssl.create_default_context(cafile=str(pki.ca.certificate))
        context.load_cert_chain(admin.certificate, admin.key)
        connection = http.client.HTTPSConnection("127.0.0.1", self._port, timeout=5, context=context)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _identity(self, pki: Pki, name: str, user: str, group: str = "") -> Path:
        """Return the kubeconfig of a part of the node."""
        path = self.folder / f"{name}.kubeconfig"
        self._kubeconfig(path, daemons.API_URL, pki, pki.client(name, user, group))
        return path

    @staticmethod
    def _kubeconfig(path: Path, url: str, pki: Pki, who: Pair) -> None:
        def encoded(file: Path) -> str:
            return base64.b64encode(file.read_bytes()).decode()

        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "node",
            "clusters": [
                {"name": "node", "cluster": {"server": url, "certificate-authority-data": encoded(pki.ca.certificate)}}
            ],
            "users": [
                {
                    "name": "node",
                    "user": {
                        "client-certificate-data": encoded(who.certificate),
                        "client-key-data": encoded(who.key),
                    },
                }
            ],
            "contexts": [{"name": "node", "context": {"cluster": "node", "user": "node"}}],
        }
        path.touch(mode=0o600)
        path.write_text(yaml.safe_dump(config, sort_keys=False))

    # Use

    def kubectl(self, *arguments: str, input: str = "") -> str:  # noqa: A002 - the name that subprocess.run has for it
        """Run kubectl as the admin and return its stdout; raise NodeError if it fails."""
        command = ["--kubeconfig", str(self.kubeconfig), "--cache-dir", str(self.folder / "kubectl-cache"), *arguments]
        done = subprocess.run(
            [binaries.ensure("kubectl")["kubectl"], *command], input=input, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise NodeError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def _ctr(self, *arguments: str) -> str:
        socket = daemons.containerd_socket(self.folder)
        return self._spaces.run([machine.program("ctr"), f"--address={socket}", "--namespace=k8s.io", *arguments])

    def load(self, archive: Path) -> list[str]:
        """Import an image archive (OCI or docker) for pods; return the names that its images have."""
        before = set(self.images())
        self._ctr("images", "import", str(archive.absolute()))
        return sorted(set(self.images()) - before)

    def images(self) -> list[str]:
        """Return the names of the images that pods can use."""
        return sorted(name for name in self._ctr("images", "list", "--quiet").split() if "sha256:" not in name)

    # Disturbances

    def restart_kubelet(self) -> None:
        """End kubelet as an upgrade of it would, start it again, and return when the node is ready; pods go on."""
        self._spaces.end("kubelet", number=signal.SIGTERM, within=20.0)
        self._launch_kubelet()
        self._spaces.daemon("kubelet").wait_ready(self._kubelet_answers, timeout=_START_S)

    def _kubelet_answers(self) -> bool:
        # The node stays Ready for 40 s without a kubelet, so its own port is what tells.
        return self._spaces.listening(daemons.KUBELET_PORT) and self._node_ready()


def _admin(pki: Pki) -> Pair:
    return pki.client("admin", "groundwork-admin", "system:masters")


def remove(folder: Path) -> None:
    """End the node whose state is in `folder`, if there is one, and delete every trace of it."""
    node = Node.open(folder)
    if node is not None:
        node._kill()  # noqa: SLF001 - our own
    shutil.rmtree(folder, ignore_errors=True)


def sweep(*, age: float = _SWEEP_AGE_S) -> list[Path]:
    """Remove what is left of temporary nodes made `age` seconds ago whose owner was killed; return their folders."""
    swept: list[Path] = []
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        try:
            # A young folder may not have its owner's lock yet.
            if time.time() - folder.stat().st_mtime < age:
                continue
            with (folder / ".owner").open() as owner:
                fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
                say(f"removing what is left of the node in {folder}")
                remove(folder)
                swept.append(folder)
        except OSError:
            continue  # in use, somebody else's, or just removed by another sweep
    return swept
