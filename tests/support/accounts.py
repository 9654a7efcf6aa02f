"""The ServiceAccounts that services run under in tests: with the chart's rules and no others.

Responsible for: turning the kubeconfig of a cluster's administrator into that of a service's account, so that whatever
a test has a service do, it is done with the rights that people install.
Invariant: any other kubeconfig is left as it is: a test that gives a service an account of its own means it.
"""

from __future__ import annotations

import functools
from pathlib import Path

from tests.support.audit import NAMESPACE
from tests.support.chart import COMPONENTS, render
from tools.cluster import Cluster


def for_service(kubeconfig, component, *flags):
    """The kubeconfig to run a service with; `flags` are its command line's."""
    path = Path(kubeconfig)
    cluster = Cluster.open(path.parent) if path.name == "kubeconfig" else None
    if cluster is None or component not in COMPONENTS:
        return path
    named = [flag.partition("=")[2] for flag in flags if str(flag).startswith("--lease-namespace=")]
    return _account(path.parent, component, named[-1] if named else NAMESPACE)


@functools.cache
def _account(folder, component, lease_namespace):
    cluster = Cluster.open(folder)
    own, everywhere = render({"machineController": {"enabled": True}}).rules(component)
    name = f"groundwork-{component}"
    kubeconfig = cluster.service_account_kubeconfig(NAMESPACE, name, everywhere)
    rbac = "rbac.authorization.k8s.io"
    meta = {"name": name, "namespace": lease_namespace}
    cluster.apply(
        {"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": meta, "rules": own},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "RoleBinding",
            "metadata": meta,
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": NAMESPACE}],
        },
    )
    return kubeconfig
