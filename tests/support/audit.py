"""What the services' accounts ask of an API server, from its audit log.

Responsible for: an API server that keeps such a log, reading it as rights (group, resource, verb), and finding what was
refused. It also checks who may set blockOwnerDeletion, as hardened API servers do.
Must not know: which rights there should be.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from pathlib import Path
from typing import NamedTuple

from tools.cluster import Cluster

NAMESPACE = "groundwork-system"
"""Of the accounts."""
_PREFIX = f"system:serviceaccount:{NAMESPACE}:groundwork-"
_HOOK = f"{_PREFIX}test"
"""Of the chart's test hook, which is no service."""
_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata", "userGroups": [f"system:serviceaccounts:{NAMESPACE}"]}, {"level": "None"}],
}
_LOGS = {}
USED = set()
"""Every Right that was asked for in this session, granted or not."""


class Right(NamedTuple):
    """What a service asked for: `resource` with its subresource, as rules have it."""

    service: str
    group: str
    resource: str
    verb: str

    def __str__(self):
        return f"{self.service}: {self.verb} {self.resource}{f'.{self.group}' if self.group else ''}"


class Log:
    """The log of one API server."""

    def __init__(self, path):
        self._path = path
        self._offset = 0
        self.refused = []
        """Requests that RBAC refused, as text."""

    def read(self):
        """Take in what was written since the last time."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break  # it is being written
                self._offset += len(line)
                self._take(json.loads(line))

    def _take(self, event):
        user = event["user"]["username"]
        about = event.get("objectRef")
        if not user.startswith(_PREFIX) or user == _HOOK or about is None:
            return
        resource = "/".join(filter(None, (about["resource"], about.get("subresource"))))
        right = Right(user.removeprefix(_PREFIX), about.get("apiGroup", ""), resource, event["verb"])
        USED.add(right)
        if event.get("annotations", {}).get("authorization.k8s.io/decision") == "forbid":
            self.refused.append(f"{right} ({event['requestURI']})")


@contextlib.contextmanager
def audited():
    """A cluster with an audit log, for the body of the `with`; `logs` finds it."""
    with tempfile.TemporaryDirectory(prefix="groundwork-audit-") as folder:
        policy, path = Path(folder, "policy.json"), Path(folder, "audit.log")
        policy.write_text(json.dumps(_POLICY))
        arguments = [
            f"--audit-policy-file={policy}",
            f"--audit-log-path={path}",
            "--enable-admission-plugins=OwnerReferencesPermissionEnforcement",
        ]
        with Cluster.temporary(apiserver_args=arguments) as running:
            _LOGS[running.folder] = Log(path)
            try:
                yield running
            finally:
                del _LOGS[running.folder]


def logs():
    """Logs of all audited clusters that run now."""
    return list(_LOGS.values())


def log_of(cluster):
    return _LOGS[cluster.folder]
