"""CustomResourceDefinitions of Cluster API and of its vSphere provider (CAPV), read from the Go module cache.

Invariants: nothing of them is copied into the repository; the Go checksum database vouches for the content. Where no
conversion webhook runs the API server can only change the apiVersion of an object, which is what `spec.conversion:
None` does, so the conversion of each definition is stripped.

    python -m tools.capi [GROUP|NAME ...] | kubectl apply --server-side -f -
"""

from __future__ import annotations

import functools
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from tools import golang

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

DEFAULT = ("ipam.cluster.x-k8s.io", "clusters.cluster.x-k8s.io")
_CAPV_GROUP = "infrastructure.cluster.x-k8s.io"


@dataclass(frozen=True)
class _Release:
    module: str
    version: str
    folder: str


_CAPI = _Release("sigs.k8s.io/cluster-api", "v1.14.0", "core/config/crd/bases")
_CAPV = _Release("sigs.k8s.io/cluster-api-provider-vsphere", "v1.16.1", "config/default/crd/bases")


@functools.cache
def _folder(release: _Release) -> Path:
    return golang.download(release.module, release.version) / release.folder


def _release(wanted: str) -> _Release:
    in_capv = wanted == _CAPV_GROUP or wanted.endswith(f".{_CAPV_GROUP}")
    return _CAPV if in_capv else _CAPI


def _read(release: _Release, wanted: str) -> list[dict[str, Any]]:
    # The files are named GROUP_PLURAL.yaml: only those that can match are parsed, since a large one takes a second.
    files = sorted(_folder(release).glob(f"{wanted}_*.yaml"))
    if not files:
        plural, _, group = wanted.partition(".")
        files = sorted(_folder(release).glob(f"{group}_{plural}.yaml"))
    if not files:
        raise KeyError(f"{release.module} {release.version} has no CRD of {wanted}")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return [yaml.load(file.read_text(), Loader=loader) for file in files]  # noqa: S506 - both loaders are the safe one


def _restrict(definition: dict[str, Any], versions: Collection[str]) -> None:
    kept = [version for version in definition["spec"]["versions"] if version["name"] in versions]
    if not kept:
        raise KeyError(f"{definition['metadata']['name']} has none of the versions {', '.join(versions)}")
    for version in kept:
        version["served"] = True
    if not any(version["storage"] for version in kept):
        kept[-1]["storage"] = True  # the definitions list their versions from old to new
    definition["spec"]["versions"] = kept


def crds(*wanted: str, versions: Collection[str] | None = None) -> list[dict[str, Any]]:
    """Return the definitions of whole API groups or of single names such as clusters.cluster.x-k8s.io.

    Without names: Cluster API's IPAM group and its Cluster. `versions` keeps these API versions alone, as an older
    release of Cluster API would have installed: all are served, and the newest is stored unless the usual one is among
    them. Raises KeyError for what a release does not have, and golang.NoGoError when the module cannot be had.
    """
    definitions: list[dict[str, Any]] = []
    for name in wanted or DEFAULT:
        for definition in _read(_release(name), name):
            definition["spec"].pop("conversion", None)
            if versions is not None:
                _restrict(definition, versions)
            definitions.append(definition)
    return definitions


def main(arguments: Sequence[str]) -> int:
    """Print the definitions as a YAML stream."""
    try:
        yaml.safe_dump_all(crds(*arguments), sys.stdout, sort_keys=False)
    except (KeyError, golang.NoGoError) as error:
        print(f"error: {error.args[0]}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
