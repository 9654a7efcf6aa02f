"""Somebody else's webhook, which adds a container to every pod: the reason why webhooks are called again.

A plain HTTPS server in a thread. It shares no code with ours.
"""

from __future__ import annotations

import base64
import json
import ssl
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.support.webhook import SCOPE_LABEL
from tools.pki import Pki

NAME = "late-sidecar"


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["request"]
        response = {"uid": request["uid"], "allowed": True}
        if all(container["name"] != NAME for container in request["object"]["spec"]["containers"]):
            added = {"op": "add", "path": "/spec/containers/-", "value": {"name": NAME, "image": "sidecar"}}
            response |= {"patchType": "JSONPatch", "patch": base64.b64encode(json.dumps([added]).encode()).decode()}
        body = json.dumps(
            {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}
        ).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Say nothing."""


@contextmanager
def injected(cluster, folder, scope):
    """Add the sidecar to the pods of the namespaces of `scope`, after webhooks of lesser names."""
    pki = Pki(folder / "sidecar-pki")
    pair = pki.server("sidecar", ["localhost"], ["127.0.0.1"])
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    name = f"z-late-sidecar-{scope}"
    hook = {
        "name": "late.example.com",
        "admissionReviewVersions": ["v1"],
        "clientConfig": {
            "url": f"https://127.0.0.1:{server.server_address[1]}/",
            "caBundle": base64.b64encode(pki.ca.certificate.read_bytes()).decode(),
        },
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}],
        "namespaceSelector": {"matchLabels": {SCOPE_LABEL: scope}},
        "failurePolicy": "Fail",
        "sideEffects": "None",
    }
    try:
        cluster.apply(
            {
                "apiVersion": "admissionregistration.k8s.io/v1",
                "kind": "MutatingWebhookConfiguration",
                "metadata": {"name": name},
                "webhooks": [hook],
            }
        )
        yield
    finally:
        cluster.kubectl("delete", "mutatingwebhookconfiguration", name, "--ignore-not-found")
        server.shutdown()
        server.server_close()
        thread.join()
