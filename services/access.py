"""How the subcommands of `groundwork` are told of a cluster and its namespaces, with kubectl's flags.

Responsible for: `--kubeconfig`, `--context`, `-n` and `-A`, and the connection that follows from them.
Invariant: where no flag and no variable names a cluster, the user's own kubeconfig does, as with kubectl.
Must not know: what is read there.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from services.console import complete_with
from services.runtime.kube import config

if TYPE_CHECKING:
    import argparse

DEFAULT_KUBECONFIG = Path("~/.kube/config")
LOGIN_LIMIT = 300.0
"""Seconds for an exec plugin of a command's user, who may have to log in in a browser."""
NAMESPACES = "namespaces"
CONTEXTS = "contexts"
FILES = "files"


def add_cluster(parser: argparse.ArgumentParser, purpose: str = "") -> None:
    """Add the flags that name a cluster; `purpose` is what it is needed for when it is not always."""
    intro = f"{purpose}: " if purpose else ""
    action = parser.add_argument(
        "--kubeconfig",
        metavar="PATH",
        help=f"{intro}kubeconfig file (default: $KUBECONFIG, else the pod's service account, else "
        f"{DEFAULT_KUBECONFIG})",
    )
    complete_with(action, FILES)
    action = parser.add_argument(
        "--context", metavar="NAME", help=f"{intro}context of the kubeconfig (default: its current one)"
    )
    complete_with(action, CONTEXTS)


def add_namespaces(parser: argparse.ArgumentParser, text: str) -> None:
    """Add the flags that choose namespaces; all of them is the default, and `-A` says it."""
    group = parser.add_mutually_exclusive_group()
    action = group.add_argument(
        "-n", "--namespace", action="append", default=[], metavar="NS", help=f"{text}; repeatable (default: all)"
    )
    complete_with(action, NAMESPACES)
    group.add_argument(
        "-A", "--all-namespaces", action="store_true", help="all namespaces, which is what happens without -n"
    )


async def connect(options: argparse.Namespace) -> config.Connection:
    """Find the cluster that the flags or the environment name. Raises ConfigError."""
    kubeconfig = options.kubeconfig or _own_kubeconfig(options.context)
    return await config.load(kubeconfig, options.context or "", limit=LOGIN_LIMIT)


def contexts(kubeconfig: str | None) -> list[str]:
    """Names of the contexts of a kubeconfig, of the user's own when None; none where it cannot be read."""
    found: list[str] = []
    for path in (kubeconfig or os.environ.get("KUBECONFIG") or str(DEFAULT_KUBECONFIG)).split(os.pathsep):
        try:
            read = yaml.safe_load(Path(path).expanduser().read_text(encoding="utf-8"))
            found += [str(context["name"]) for context in read["contexts"]]
        except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError):
            continue
    return list(dict.fromkeys(found))


def _own_kubeconfig(context: str | None) -> str | None:
    """The user's own kubeconfig, where kubectl looks too; None when something else says where the cluster is."""
    in_pod = os.environ.get("KUBERNETES_SERVICE_HOST") and not context
    if os.environ.get("KUBECONFIG") or in_pod:
        return None
    path = DEFAULT_KUBECONFIG.expanduser()
    return str(path) if path.exists() else None
