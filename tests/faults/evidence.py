"""What is there, as somebody outside sees it: every object of interest and every VM, read anew and as plain JSON.

Responsible for: asking the API server as its administrator, and vcsim's control endpoint.
Invariants: the standard library and PyYAML alone: shares no code with the services, so that a mistake in theirs does
not hide itself. Knows no rule; `invariants` has them.
"""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import yaml

_METAL3 = "/apis/ipam.metal3.io/v1alpha1"
_CAPI = "/apis/ipam.cluster.x-k8s.io/v1beta2"
_INFRASTRUCTURE = "/apis/infrastructure.cluster.x-k8s.io/v1beta2"
_CLUSTER = "/apis/cluster.x-k8s.io/v1beta2"
PATHS = {
    "IPPool": f"{_METAL3}/ippools",
    "IPClaim": f"{_METAL3}/ipclaims",
    "IPAddressClaim": f"{_CAPI}/ipaddressclaims",
    "metal3": f"{_METAL3}/ipaddresses",
    "capi": f"{_CAPI}/ipaddresses",
    "reservations": "/apis/ipam.groundwork.dev/v1alpha1/ipreservations",
    "VSphereMachine": f"{_INFRASTRUCTURE}/vspheremachines",
    "VSphereVM": f"{_INFRASTRUCTURE}/vspherevms",
    "VSphereCluster": f"{_INFRASTRUCTURE}/vsphereclusters",
    "Machine": f"{_CLUSTER}/machines",
    "Cluster": f"{_CLUSTER}/clusters",
    "Pod": "/api/v1/pods",
    "ClusterPodPreset": "/apis/reach.spectrocloud.com/v1alpha1/clusterpodpresets",
}
ADDRESSES = ("metal3", "capi")
_SECONDS = 30.0


class UnavailableError(Exception):
    """No answer that can be used; ask again."""


class Server:
    """One API server, of a kubeconfig with a client certificate."""

    def __init__(self, kubeconfig):
        content = yaml.safe_load(Path(kubeconfig).read_text())
        cluster, user = content["clusters"][0]["cluster"], content["users"][0]["user"]
        parts = urlsplit(cluster["server"])
        self._address = (parts.hostname, parts.port)
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        self._context = ssl.create_default_context(cadata=authority)
        with tempfile.NamedTemporaryFile(suffix=".pem") as pair:
            for field in ("client-certificate-data", "client-key-data"):
                pair.write(base64.b64decode(user[field]))
            pair.flush()
            self._context.load_cert_chain(pair.name)

    def items(self, path):
        """Objects of a list, their book-keeping left out but for the names of those who wrote."""
        connection = http.client.HTTPSConnection(*self._address, timeout=_SECONDS, context=self._context)
        try:
            return _json(connection, path)["items"]
        finally:
            connection.close()

    def look(self, *kinds):
        """`{kind: objects}`, of all kinds unless some are given. The lists are of different moments."""
        return {kind: self.items(PATHS[kind]) for kind in kinds or PATHS}


def vms(control):
    """Every VM of vcsim whose control endpoint is `host:port`."""
    connection = http.client.HTTPConnection(control, timeout=_SECONDS)
    try:
        return _json(connection, "/vms")
    finally:
        connection.close()


def _json(connection, path):
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != http.client.OK:
            raise UnavailableError(f"{path}: {answer.status} {body[:200]!r}")
        return json.loads(body)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise UnavailableError(f"{path}: {error!r}") from error
