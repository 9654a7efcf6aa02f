"""The chart as helm renders it, and what its rules allow.

Responsible for: running helm, rendering a set of values once however many tests ask, and looking into the result.
Must not know: which values there are.
"""

from __future__ import annotations

import functools
import itertools
import json
import subprocess
from pathlib import Path

import yaml

from tools import binaries

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy" / "chart"
RELEASE = "groundwork"
NAMESPACE = "groundwork-system"
KEYS = {
    "ipam": "ipam",
    "capvIntegrator": "capv-integrator",
    "podpreset": "podpreset",
    "machineController": "machine-controller",
}
"""Block of the values to name of the service."""
COMPONENTS = tuple(KEYS.values())
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def helm(*arguments, cluster=None, fails=False, given=""):
    """Output of helm, or its complaint when it is to fail."""
    where = [f"--kubeconfig={cluster.kubeconfig}"] if cluster is not None else []
    command = [binaries.ensure("helm")["helm"], *arguments, *where]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, input=given)
    assert (done.returncode != 0) is fails, done.stderr
    return done.stderr if fails else done.stdout


def load(text):
    """Every object of a YAML stream."""
    return [obj for obj in yaml.load_all(text, Loader=_LOADER) if obj]


def values():
    """values.yaml."""
    return yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))


class Rendered:
    """Objects of one rendering, by kind and name."""

    def __init__(self, text):
        self.objects = load(text)
        self._named = {(o["kind"], o["metadata"]["name"]): o for o in self.objects}
        assert len(self._named) == len(self.objects), "two objects of one name"

    def find(self, kind, name):
        """One object, or None."""
        return self._named.get((kind, name))

    def get(self, kind, name):
        return self._named[kind, name]

    def of(self, kind):
        return [obj for obj in self.objects if obj["kind"] == kind]

    def one(self, kind, component):
        """The object of a kind with the service's own name, or None."""
        return self.find(kind, f"groundwork-{component}")

    def pod(self, component):
        """Template of the service's pods: spec with the metadata inside, {} when it is not there."""
        deployment = self.one("Deployment", component)
        if deployment is None:
            return {}
        template = deployment["spec"]["template"]
        return {**template["spec"], "metadata": template["metadata"]}

    def container(self, component):
        """The only container of the service, {} when it is not there."""
        found = self.pod(component).get("containers", [{}])
        assert len(found) == 1
        return found[0]

    def args(self, component):
        return self.container(component).get("args", [])

    def rules(self, component):
        """What the service may do: (in its own namespace, everywhere)."""
        name = f"groundwork-{component}"
        everywhere = [rule for part in ("read", "write") for rule in self.get("ClusterRole", f"{name}-{part}")["rules"]]
        return self.get("Role", name)["rules"], everywhere


def render(given=None, *flags):
    """Render with these values, given as a dict; asked again with the same, it answers from memory."""
    return _render(json.dumps(given or {}, sort_keys=True), flags)


@functools.cache
def _render(given, flags):
    arguments = ["template", RELEASE, str(CHART), f"--namespace={NAMESPACE}", "--values=-", *flags]
    return Rendered(helm(*arguments, given=given))


def rights(rules):
    """Rules as a set of single rights: (group, resource, name or "", verb)."""
    return {
        right
        for rule in rules
        for right in itertools.product(
            rule["apiGroups"], rule["resources"], rule.get("resourceNames") or [""], rule["verbs"]
        )
    }


def nested(path, value):
    """A value at a dotted path as a dict."""
    for name in reversed(path.split(".")):
        value = {name: value}
    return value


def merged(*parts):
    """Dicts laid over each other."""
    found = {}
    for part in parts:
        for key, value in part.items():
            both = isinstance(value, dict) and isinstance(found.get(key), dict)
            found[key] = merged(found[key], value) if both else value
    return found
