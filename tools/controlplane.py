"""How etcd and kube-apiserver are started for a local cluster: their flags, when they are ready, and etcd's small API.

Invariants: everything listens on 127.0.0.1 alone; a restart uses the same ports and data. Knows nothing of kubeconfigs
or of what is stored in the cluster.
"""

from __future__ import annotations

import base64
import http.client
import json
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tools.process import Daemon

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tools.pki import Pki

_LOOPBACK = "127.0.0.1"
_ISSUER = "https://kubernetes.default.svc.cluster.local"
_SERVICE_RANGE = "10.0.0.0/24"
_SERVICE_ADDRESS = "10.0.0.1"  # the first of the range: the `kubernetes` Service
# 2 s on an idle machine. Machines are shared, and a fault run starts an API server while etcd is killed and paused:
# what ends is told at once, so these are for what hangs.
_ETCD_START_S = 120.0
_APISERVER_START_S = 300.0


@dataclass(frozen=True)
class Ports:
    """TCP ports on 127.0.0.1, fixed for the life of a cluster."""

    apiserver: int
    etcd: int
    etcd_peer: int


class Etcd:
    """One etcd member. Without fsync a crash of the machine may lose data; a crash of the process does not."""

    def __init__(self, binary: Path, folder: Path, ports: Ports, *, fsync: bool) -> None:
        self.daemon = Daemon("etcd", folder)
        self.url = f"http://{_LOOPBACK}:{ports.etcd}"
        self._port = ports.etcd
        peer = f"http://{_LOOPBACK}:{ports.etcd_peer}"
        self._command = [
            str(binary),
            "--name=local",
            f"--data-dir={folder / 'etcd'}",
            f"--listen-client-urls={self.url}",
            f"--advertise-client-urls={self.url}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=local={peer}",
            "--log-level=warn",
            *([] if fsync else ["--unsafe-no-fsync"]),
        ]

    def start(self, *, tethered: bool) -> None:
        """Start it if it does not run, and return when it serves."""
        self.daemon.start(self._command, tethered=tethered)
        self.daemon.wait_ready(self._healthy, timeout=_ETCD_START_S)

    def _healthy(self) -> bool:
        try:
            status, _ = self._call("GET", "/health", timeout=2)
        except OSError:
            return False
        return status == http.client.OK

    def _call(self, method: str, path: str, body: Any = None, *, timeout: float = 10) -> tuple[int, bytes]:
        # http.client rather than urllib: HTTP_PROXY must not apply to the loopback.
        connection = http.client.HTTPConnection(_LOOPBACK, self._port, timeout=timeout)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def _post(self, path: str, body: Any) -> Any:
        status, answer = self._call("POST", path, body)
        if status != http.client.OK:
            raise OSError(f"etcd {path}: HTTP {status}: {answer.decode(errors='replace')[:500]}")
        return json.loads(answer)

    def revision(self) -> int:
        """Return the current revision, which the API server shows as resourceVersion."""
        nowhere = base64.b64encode(b"\0").decode()
        # 64-bit numbers are strings in gRPC's JSON mapping.
        return int(self._post("/v3/kv/range", {"key": nowhere, "keys_only": True})["header"]["revision"])

    def compact(self) -> int:
        """Drop the history before the current revision, and return that revision once the space is freed."""
        revision = self.revision()
        try:
            self._post("/v3/kv/compaction", {"revision": str(revision), "physical": True})
        except OSError as error:
            if "has been compacted" not in str(error):  # nothing was written since the last time: as asked for
                raise
        return revision


class ApiServer:
    """One kube-apiserver: RBAC on; the ServiceAccount admission plugin off, as no controller makes the accounts."""

    def __init__(self, binary: Path, folder: Path, ports: Ports, pki: Pki, etcd_url: str) -> None:
        self.daemon = Daemon("kube-apiserver", folder)
        self._port = ports.apiserver
        self._admin = pki.client("admin", "groundwork-admin", "system:masters")
        self._ca = pki.ca
        names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
        serving = pki.server("apiserver", names, [_LOOPBACK, _SERVICE_ADDRESS])
        signing, verifying = pki.signing_key("service-accounts")
        self._command = [
            str(binary),
            f"--etcd-servers={etcd_url}",
            f"--bind-address={_LOOPBACK}",
            f"--secure-port={ports.apiserver}",
            # Without these it would look for a default route and publish that address as an Endpoint.
            f"--advertise-address={_LOOPBACK}",
            "--endpoint-reconciler-type=none",
            f"--service-cluster-ip-range={_SERVICE_RANGE}",
            f"--tls-cert-file={serving.certificate}",
            f"--tls-private-key-file={serving.key}",
            f"--client-ca-file={pki.ca.certificate}",
            f"--service-account-issuer={_ISSUER}",
            f"--service-account-key-file={verifying}",
            f"--service-account-signing-key-file={signing}",
            "--authorization-mode=RBAC",
            "--disable-admission-plugins=ServiceAccount",
            "--allow-privileged=true",
        ]

    def start(self, arguments: Sequence[str], *, tethered: bool) -> None:
        """Start it if it does not run, `arguments` after its own flags, and return when /readyz says ok."""
        self.daemon.start([*self._command, *arguments], tethered=tethered)
        self.daemon.wait_ready(self.ready, timeout=_APISERVER_START_S)

    def ready(self) -> bool:
        """Tell whether /readyz answers 200 now."""
        context = ssl.create_default_context(cafile=str(self._ca.certificate))
        context.load_cert_chain(self._admin.certificate, self._admin.key)
        connection = http.client.HTTPSConnection(_LOOPBACK, self._port, timeout=5, context=context)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
