"""Makes what `clusterctl init --ipam groundwork` and Cluster API's operator install, from the chart.

    python -m tools.components --version v0.1.0 --image REPOSITORY --out FOLDER

Responsible for: ipam-components.yaml and, beside it, metadata.yaml, as Cluster API's clusterctl contract for providers
wants them: one Namespace, the label of the provider on every object, a container `manager`, and settings as
`${VARIABLE:=default}`.
Invariant: what the allocator is and may do comes from the chart alone; here it is only made fit for another installer.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tools import binaries, paths

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

NAME = "groundwork"
NAMESPACE = "groundwork-system"
PROVIDER = "ipam-groundwork"
PROVIDER_LABEL = "cluster.x-k8s.io/provider"
COMPONENTS = "ipam-components.yaml"
METADATA = paths.ROOT / "deploy" / "clusterctl" / "metadata.yaml"
CHART = paths.ROOT / "deploy" / "chart"
VARIABLES = {"GROUNDWORK_LOG_LEVEL": "info", "GROUNDWORK_WORKERS": "16"}
"""What users may set for clusterctl, with the defaults. Texts only: clusterctl also reads objects with these unset."""

_GROUPS = {"ipam.metal3.io", "ipam.groundwork.dev"}
_VERSION_LABEL = "app.kubernetes.io/version"
_OF_HELM = {"helm.sh/chart", "app.kubernetes.io/managed-by"}
_VERSION = re.compile(r"v\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?")

Object = dict[str, Any]


class ComponentsError(Exception):
    """The components cannot be made; the message says why."""


def variable(name: str) -> str:
    """Return how a component refers to a variable."""
    return f"${{{name}:={VARIABLES[name]}}}"


def components(version: str, image: str) -> str:
    """Return ipam-components.yaml of a release: `version` like v0.1.0, `image` a repository without a tag.

    Raises ComponentsError when helm cannot render the chart.
    """
    objects = [_namespace(), *(_fitted(obj, version) for obj in _rendered(version, image))]
    return yaml.safe_dump_all(objects, sort_keys=False, width=1_000_000)


def _namespace() -> Object:
    labels = {PROVIDER_LABEL: PROVIDER, "app.kubernetes.io/part-of": NAME}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}


def _rendered(version: str, image: str) -> Iterator[Object]:
    values = {
        "image": {"repository": image, "tag": version},
        "commonLabels": {PROVIDER_LABEL: PROVIDER},
        "crds": {"keep": False},
        "rbac": {"aggregateClusterRoles": False},
        "helmTest": {"enabled": False},
        "ipam": {"extraArgs": [f"--workers={variable('GROUNDWORK_WORKERS')}"]},
        **{name: {"enabled": False} for name in ("capvIntegrator", "podpreset", "machineController")},
    }
    command = [str(binaries.ensure("helm")["helm"]), "template", NAME, str(CHART), f"--namespace={NAMESPACE}"]
    done = subprocess.run(
        [*command, "--values=-"], input=json.dumps(values), capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise ComponentsError(done.stderr.strip())
    for obj in yaml.safe_load_all(done.stdout):
        if obj and (obj["kind"] != "CustomResourceDefinition" or obj["spec"]["group"] in _GROUPS):
            yield obj


def _fitted(obj: Object, version: str) -> Object:
    """Return an object of the chart as clusterctl's."""
    _labelled(obj["metadata"], version)
    if obj["kind"] == "Deployment":
        template = obj["spec"]["template"]
        _labelled(template["metadata"], version)
        (manager,) = template["spec"]["containers"]
        level = f"--log-level={variable('GROUNDWORK_LOG_LEVEL')}"
        manager["args"] = [level if arg.startswith("--log-level=") else arg for arg in manager["args"]]
    return obj


def _labelled(metadata: Object, version: str) -> None:
    """Take helm's labels away and write the version of the release, where the chart's stands."""
    kept = {name: value for name, value in metadata["labels"].items() if name not in _OF_HELM}
    metadata["labels"] = {**kept, _VERSION_LABEL: version.removeprefix("v")}
    if not metadata.get("annotations", True):
        del metadata["annotations"]


def write(version: str, image: str, out: Path) -> list[Path]:
    """Write both files into a folder, made if need be, and return their paths. Raises ComponentsError."""
    if not _VERSION.fullmatch(version):
        raise ComponentsError(f"{version!r} is no version: use one like v0.1.0")
    major, minor = version[1:].split(".")[:2]
    known = yaml.safe_load(METADATA.read_text(encoding="utf-8"))["releaseSeries"]
    if not any((str(series["major"]), str(series["minor"])) == (major, minor) for series in known):
        raise ComponentsError(f"{METADATA.relative_to(paths.ROOT)} has no release series {major}.{minor}")
    text = components(version, image)
    out.mkdir(parents=True, exist_ok=True)
    target = out / COMPONENTS
    target.write_text(text, encoding="utf-8")
    return [target, Path(shutil.copy(METADATA, out / METADATA.name))]


def main(arguments: Sequence[str]) -> int:
    """Write the files that a release publishes, and print their paths."""
    parser = argparse.ArgumentParser(prog="python -m tools.components", description="Make clusterctl's components.")
    parser.add_argument("--version", required=True, help="of the release, like v0.1.0; the image's tag")
    parser.add_argument("--image", required=True, metavar="REPOSITORY", help="of the image, without a tag")
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="where the files go")
    options = parser.parse_args(arguments)
    try:
        for path in write(options.version, options.image, options.out):
            print(path)
    except (ComponentsError, binaries.BinaryError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
