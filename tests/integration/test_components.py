"""What clusterctl's contract for providers asks of ipam-components.yaml and metadata.yaml."""

from __future__ import annotations

import re
import tomllib

import pytest
import yaml

from services.ipam.settings import IpamSettings
from tests.support.chart import ROOT, load, render, rights
from tools import components

VERSION = "v0.1.0"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    paths = components.write(VERSION, "registry.example.org/groundwork", tmp_path_factory.mktemp("components"))
    assert [path.name for path in paths] == ["ipam-components.yaml", "metadata.yaml"]
    return paths


@pytest.fixture(scope="module")
def text(written):
    return written[0].read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def objects(text):
    return load(text)


def only(objects, kind):
    (found,) = [obj for obj in objects if obj["kind"] == kind]
    return found


def test_there_is_one_namespace_and_everything_is_in_it(objects):
    namespace = only(objects, "Namespace")["metadata"]["name"]
    assert {obj["metadata"].get("namespace", namespace) for obj in objects} == {namespace}
    for obj in objects:
        for subject in obj.get("subjects", ()):
            assert subject["namespace"] == namespace


def test_every_object_says_which_provider_it_is_of_and_nothing_of_helm(objects):
    for obj in objects:
        assert obj["metadata"]["labels"]["cluster.x-k8s.io/provider"] == "ipam-groundwork", obj["metadata"]["name"]
        assert "helm" not in yaml.safe_dump({**obj["metadata"], "labels": dict(obj["metadata"]["labels"])}).lower()
    template = only(objects, "Deployment")["spec"]["template"]
    assert "helm" not in yaml.safe_dump(template["metadata"]).lower()


def test_the_version_is_that_of_the_release_and_not_of_the_chart():
    label = "app.kubernetes.io/version"
    for obj in load(components.components("v0.1.7-rc.1", "registry.example.org/groundwork")):
        if obj["kind"] != "Namespace":
            assert obj["metadata"]["labels"][label] == "0.1.7-rc.1", obj["metadata"]["name"]
        if obj["kind"] == "Deployment":
            assert obj["spec"]["template"]["metadata"]["labels"][label] == "0.1.7-rc.1"


def test_every_definition_of_ours_says_which_contract_it_keeps(objects):
    found = [obj for obj in objects if obj["kind"] == "CustomResourceDefinition"]
    assert {crd["spec"]["group"] for crd in found} == {"ipam.metal3.io", "ipam.groundwork.dev"}
    for crd in found:
        labels = crd["metadata"]["labels"]
        assert labels["cluster.x-k8s.io/v1beta2"] == "_".join(v["name"] for v in crd["spec"]["versions"])
        assert "helm.sh/resource-policy" not in crd["metadata"].get("annotations", {})


def test_the_manager_runs_the_released_image_and_takes_the_flags_it_is_given(objects):
    (container,) = only(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert container["name"] == "manager"
    assert container["image"] == f"registry.example.org/groundwork:{VERSION}"
    assert container["command"] == ["python", "-m", "services.ipam"]
    default = re.compile(r"\$\{\w+:=([^}]*)\}")
    arguments = [default.sub(r"\1", argument) for argument in container["args"]]
    settings = IpamSettings.parse([*arguments, "--namespace=addresses"], {})
    assert (settings.log_level, settings.workers, settings.watch_namespace) == ("info", 16, ("addresses",))


def test_variables_have_defaults_and_are_texts_that_any_reader_of_the_objects_can_take(text):
    found = re.findall(r"\$\{(\w+):=([^}]+)\}", text)
    assert dict(found) == components.VARIABLES
    assert all(line.lstrip().startswith("- --") for line in text.splitlines() if "${" in line)


def test_the_rights_are_the_chart_s(objects):
    own, everywhere = render().rules("ipam")
    given = [rule for obj in objects if obj["kind"] == "ClusterRole" for rule in obj["rules"]]
    assert rights(given) == rights(everywhere)
    assert rights(only(objects, "Role")["rules"]) == rights(own)


def test_the_metadata_knows_the_release_series_of_this_version(written):
    metadata = yaml.safe_load(written[1].read_text(encoding="utf-8"))
    assert (metadata["apiVersion"], metadata["kind"]) == ("clusterctl.cluster.x-k8s.io/v1alpha3", "Metadata")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    series = {(row["major"], row["minor"]): row["contract"] for row in metadata["releaseSeries"]}
    assert series[tuple(int(part) for part in project.split(".")[:2])] == "v1beta2"


@pytest.mark.parametrize(
    ("version", "reason"),
    [("0.1.0", "is no version"), ("v0.1", "is no version"), ("v9.9.9", "has no release series 9.9")],
)
def test_a_version_that_cannot_be_released_is_refused(version, reason, tmp_path, capsys):
    arguments = [f"--version={version}", "--image=i", f"--out={tmp_path / 'out'}"]
    assert components.main(arguments) == 1
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
