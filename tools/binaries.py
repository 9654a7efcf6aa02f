"""Finds or makes the pinned programs of the control plane, once per machine and user.

Order: $KUBEBUILDER_ASSETS, the user's cache folder, then each source of the table in turn (the official envtest archive
where there is one, a build from the Go modules pinned below tools/).
Invariants: a file that appears under its final name is complete (it is renamed into place); of several processes that
want the same program one makes it while the others wait for its lock. Must not know what the programs are used for.

    python -m tools.binaries [NAME ...]     # prints name=path lines; without names: the programs of the local cluster
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tools import paths
from tools.progress import step
from tools.sources import Archive, GoBuild, Source, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

KUBERNETES = "v1.36.3"
ETCD = "v3.6.8"
HELM = "v3.22.0"
GOVMOMI = "v0.55.1"
CLUSTERCTL = "v1.14.0"
PROMETHEUS = "v0.315.0"

_KUBERNETES_STAMP = {
    "k8s.io/component-base/version.gitVersion": KUBERNETES,
    "k8s.io/component-base/version.gitMajor": "1",
    "k8s.io/component-base/version.gitMinor": "36",
    "k8s.io/component-base/version.gitTreeState": "clean",
}
_HELM_STAMP = {
    "helm.sh/helm/v3/internal/version.version": HELM,
    "helm.sh/helm/v3/internal/version.gitTreeState": "clean",
    # What `helm template` and `helm lint` assume of a cluster that they cannot ask.
    "helm.sh/helm/v3/pkg/lint/rules.k8sVersionMajor": "1",
    "helm.sh/helm/v3/pkg/lint/rules.k8sVersionMinor": "36",
    "helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor": "1",
    "helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor": "36",
}
_CLUSTERCTL_STAMP = {
    "sigs.k8s.io/cluster-api/version.gitVersion": CLUSTERCTL,
    "sigs.k8s.io/cluster-api/version.gitMajor": "1",
    "sigs.k8s.io/cluster-api/version.gitMinor": "14",
}

# The newest official archive of this minor release; digests from controller-tools' envtest-releases.yaml.
_ENVTEST = Archive(
    version="envtest-v1.36.2",
    url="https://github.com/kubernetes-sigs/controller-tools/releases/download/envtest-v1.36.2/"
    "envtest-v1.36.2-linux-{machine}.tar.gz",
    sha512={
        "amd64": "ea743186c8a799f5cf8faf16969f86189d003cb7d130e0ac4b58789f1e5748dc"
        "f30ebe91c837a10d5ac415383da3e10b9e64d65785c938c23e739781cfb76f08",
        "arm64": "2d72ee985a8e262a3c57dc9f7f0fd891f6a8c7bf7ebaa2db6dc6d8eac8ae2818"
        "1afe51c1f368b67756cdb40b10de9b205609e1726e5f27f7c6d824dd9c6649ac",
    },
)


def _kubernetes(command: str, expected: str) -> GoBuild:
    return GoBuild(
        version=KUBERNETES, package=f"k8s.io/kubernetes/cmd/{command}", stamp=_KUBERNETES_STAMP, expected=expected
    )


def _prometheus(command: str, expected: str) -> GoBuild:
    # Version 3.Y.Z of the programs is module version 0.3YY.Z. Of service discoveries only Kubernetes' is asked for,
    # beside those that are always in. The module brings no web pages: the API is all there is.
    stamp = {"github.com/prometheus/common/version.Version": "3.15.0"}
    package = f"github.com/prometheus/prometheus/cmd/{command}"
    tags = ("remove_all_sd", "enable_kubernetes_sd")
    return GoBuild(PROMETHEUS, package, "prometheus", stamp, expected, tags)


def _own(module: str, version: str, expected: str) -> GoBuild:
    # Their sources are ours, so a change of them must not be answered with yesterday's binary.
    digest = hashlib.sha256()
    for file in sorted((Path(__file__).resolve().parent / module).iterdir()):
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return GoBuild(f"{version}-{digest.hexdigest()[:12]}", ".", module, expected=expected)


TABLE: Mapping[str, Sequence[Source]] = {
    "kube-apiserver": (_ENVTEST, _kubernetes("kube-apiserver", "about 4 min, once")),
    "etcd": (_ENVTEST, GoBuild(ETCD, "go.etcd.io/etcd/server/v3", expected="about 45 s, once")),
    "kubectl": (_ENVTEST, _kubernetes("kubectl", "about 30 s, once")),
    "kube-controller-manager": (_kubernetes("kube-controller-manager", "about 1 min, once"),),
    "kube-scheduler": (_kubernetes("kube-scheduler", "about 20 s, once"),),
    "kube-proxy": (_kubernetes("kube-proxy", "about 20 s, once"),),
    "kubelet": (_kubernetes("kubelet", "about 1 min, once"),),
    "helm": (GoBuild(HELM, "helm.sh/helm/v3/cmd/helm", "helm", _HELM_STAMP, "about 90 s, once"),),
    "promtool": (_prometheus("promtool", "about 2 min, once"),),
    "prometheus": (_prometheus("prometheus", "about 1 min, once"),),
    "clusterctl": (
        GoBuild(
            CLUSTERCTL,
            "sigs.k8s.io/cluster-api/cmd/clusterctl",
            "clusterctl",
            _CLUSTERCTL_STAMP,
            "about 3 min, once",
        ),
    ),
    "vcsim": (_own("vcsim", GOVMOMI, "about 30 s, once"),),
    "pause": (_own("node/pause", "v1", "about 10 s, once"),),
}

CLUSTER = ("etcd", "kube-apiserver", "kubectl")


class BinaryError(RuntimeError):
    """No source could give a binary; the message lists what each of them said."""


def ensure(*names: str, table: Mapping[str, Sequence[Source]] = TABLE) -> dict[str, Path]:
    """Return the path of each named program, obtaining those that are not on this machine yet.

    Raises BinaryError when a program cannot be had, KeyError for a name that the table does not have.
    """
    return {name: _ensure(name, table[name]) for name in names}


def _ensure(name: str, sources: Sequence[Source]) -> Path:
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if assets and _executable(given := Path(assets) / name):
        return given
    refusals: list[str] = []
    # First everything that is there already: a build made offline stays in use when the archive can be reached again.
    for source in sources:
        if _executable(cached := _cached(name, source)):
            return cached
    for source in sources:
        try:
            return _obtain(name, source)
        except Unavailable as reason:
            refusals.append(f"{type(source).__name__} {source.version}: {reason}")
    raise BinaryError(f"cannot get {name}:\n  " + "\n  ".join(refusals))


def _executable(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def _cached(name: str, source: Source) -> Path:
    return paths.cache() / name / source.version / name


def _obtain(name: str, source: Source) -> Path:
    target = _cached(name, source)
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target.with_name(".lock"), f"{name} {source.version}"):
        if _executable(target):  # made by the process whose lock we waited for
            return target
        # Beside the target, so that the renames below stay within one file system.
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=paths.cache()) as partial:
            source.fetch(name, Path(partial))
            # An archive brings its other programs along; keeping them saves their download.
            for file in Path(partial).iterdir():
                destination = _cached(file.name, source)
                destination.parent.mkdir(parents=True, exist_ok=True)
                file.replace(destination)
    return target


@contextmanager
def _locked(path: Path, label: str) -> Iterator[None]:
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with step(f"waiting for another process that makes {label}"):
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield  # closing the file releases the lock, also when this process is killed


def folder(*names: str, into: Path) -> Path:
    """Fill the folder `into` with links to the named programs and return it: one entry for a PATH."""
    into.mkdir(parents=True, exist_ok=True)
    for name, binary in ensure(*names).items():
        link = into / name
        if not link.is_symlink() or link.readlink() != binary:
            fresh = into / f".{name}.{os.getpid()}"
            fresh.unlink(missing_ok=True)
            fresh.symlink_to(binary)
            fresh.replace(link)
    return into


def main(arguments: Sequence[str]) -> int:
    """Print where the named programs are, one name=path a line."""
    unknown = [name for name in arguments if name not in TABLE]
    if unknown:
        print(f"unknown: {', '.join(unknown)}; there are: {', '.join(TABLE)}", file=sys.stderr)
        return 2
    try:
        for name, path in ensure(*(arguments or CLUSTER)).items():
            print(f"{name}={path}")
    except BinaryError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
