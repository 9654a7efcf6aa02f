import ast
import re
import subprocess
import sys

import pytest
import yaml

from services import cli as groundwork
from services.ipam import api
from services.ipam.settings import IpamSettings
from services.podpreset import status
from tests.support import webhook
from tools import docs

ROOT = docs.ROOT
PAGES = sorted((ROOT / "docs").rglob("*.md"))
IPAM = ROOT / "services" / "ipam"
CAMEL_CASE = re.compile(r"[A-Z][a-z]+(?:[A-Z][a-z]+)+|Ready|Deleting")
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
NOTHING_TO_DO = {"Ready", "AddressAllocated", "PoolReady", "NoOverlap"}
"""Words of conditions that tell of no trouble."""


def words_of(*modules, folder=IPAM):
    """Every string of the modules that could be a reason, a token or a condition."""
    trees = [ast.parse((folder / f"{name}.py").read_text()) for name in modules]
    constants = [node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    return {value for value in constants if isinstance(value, str) and CAMEL_CASE.fullmatch(value)}


def kinds_of_resources():
    return {crd["spec"]["names"]["kind"] for crd in docs.definitions()} | {"Cluster"}


REASONS = words_of("decide", "ledger", "poolstatus", "api", "space") - kinds_of_resources()
REASONS_OF_PRESETS = {"Ready", status.PRESET_READY, status.INVALID_SPEC}
REASONS_OF_ZONES = words_of(
    "decide", "publish", "publisher", "reconciler", folder=ROOT / "services" / "machine_controller" / "zones"
) - {"PublishFailureDomains", "ConfigureTags"}  # actions of Events
REASONS_OF_MACHINES = words_of(
    *("clusters", "decide", "gather", "machines", "objects", "phases", "placement", "status"),
    folder=ROOT / "services" / "machine_controller",
) - {"Machine", "Cluster", "Secret"}


def page(name):
    return (ROOT / "docs" / name).read_text()


def coded(text):
    """Everything between backticks or in a heading of its own."""
    return set(re.findall(r"`([^`\n]+)`", text)) | set(re.findall(r"^#+ (\S+)$", text, re.MULTILINE))


def anchors(text):
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def blocks(language):
    for path in PAGES:
        for match in FENCE.finditer(path.read_text()):
            if match[2] == language:
                yield pytest.param(match[3], id=f"{path.stem}-{match.start()}")


def test_the_generated_pages_are_up_to_date():
    command = [sys.executable, "-m", "tools.docs", "--check"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_a_page_that_is_out_of_date_is_named_and_fails_the_check(tmp_path, capsys):
    assert docs.main([], tmp_path) == 0
    assert docs.main(["--check"], tmp_path) == 0
    (tmp_path / "flags.md").write_text("old")
    (tmp_path / "api.md").unlink()
    capsys.readouterr()
    assert docs.main(["--check"], tmp_path) == 1
    said = capsys.readouterr().out
    assert "flags.md: out of date" in said
    assert "api.md: out of date" in said
    assert "metrics.md" not in said
    assert (tmp_path / "flags.md").read_text() == "old"


def test_every_field_of_every_definition_is_in_the_api_page():
    text = page("reference/api.md")
    for crd in docs.definitions():
        (version,) = crd["spec"]["versions"]
        spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
        for name in spec["properties"]:
            assert f"`spec.{name}`" in text


def test_a_table_cell_shows_bars_tags_and_stars_as_they_are():
    assert docs.table(["A"], [["x|y <z> * `a|b <c> *`"]])[-1] == r"| x\|y &lt;z> \* `a\|b <c> *` |"


def test_what_cluster_api_deployments_pass_is_taken_as_the_flags_page_says():
    assert IpamSettings.parse(["--v=4", "--insecure-diagnostics"], {}).log_level == "debug"


def test_the_reasons_are_found_in_the_code():
    assert {"AddressAllocated", "PoolExhausted", "AddressCooling", "AddressOutsidePool", "Deleting"} <= REASONS


@pytest.mark.parametrize("reason", sorted(REASONS))
def test_every_reason_and_token_of_the_code_is_explained(reason):
    assert reason in coded(page("reference/conditions.md"))
    if reason not in NOTHING_TO_DO:
        assert reason in coded(page("tasks/troubleshoot.md"))


def test_the_conditions_page_explains_nothing_that_the_code_does_not_say():
    listed = {word for word in coded(page("reference/conditions.md")) if CAMEL_CASE.fullmatch(word)}
    others = REASONS_OF_PRESETS | REASONS_OF_ZONES | REASONS_OF_MACHINES
    assert others <= listed <= REASONS | others


def test_every_label_annotation_and_finalizer_of_the_code_is_listed():
    listed = coded(page("reference/labels-and-annotations.md"))
    finalizers = [
        f for group in (api.CLAIM_FINALIZERS, api.ADDRESS_FINALIZERS) for names in group.values() for f in names
    ]
    labels = [api.CLUSTER_NAME_LABEL, api.PROVIDER_LABEL, api.PROVIDER_LABEL_VALUE]
    annotations = [api.PAUSED_ANNOTATION, api.REQUESTED_ADDRESS_ANNOTATION]
    own = [*finalizers, *api.GARBAGE_COLLECTOR_FINALIZERS, api.POOL_FINALIZER, api.GLOBAL_POOL_FINALIZER]
    assert {*own, *labels, *annotations} <= listed
    assert {label for crd in docs.definitions() for label in crd["metadata"].get("labels", ())} <= listed


def test_every_finding_of_verify_is_explained_and_no_other():
    text = page("reference/cli.md")
    listed = {word for line in text.splitlines() if line.startswith("| `") for word in coded(line.split(" | ")[0])}
    assert {word for word in listed if CAMEL_CASE.fullmatch(word)} | {"Unreadable"} == words_of("cli/verify") | {
        "Unreadable"
    }
    assert "Unreadable" in listed


@pytest.mark.parametrize(
    "command",
    [
        *("ipam pools", "ipam addresses", "ipam verify", "ipam export", "ipam import"),
        *("machine kube-vip", "machine zones discover", "machine zones plan", "machine zones apply"),
    ],
)
def test_every_option_of_the_command_line_is_in_its_page(command, capsys):
    with pytest.raises(SystemExit):
        groundwork.main([*command.split(), "--help"])
    section = page("reference/cli.md").partition(f"## groundwork {command}\n")[2].partition("\n## ")[0]
    options = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    assert options
    assert options == set(re.findall(r"--[a-z-]+", section))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(path):
    text = re.sub(r"`[^`\n]*`", "", FENCE.sub("", path.read_text()))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("http"):
            continue
        file, _, anchor = target.partition("#")
        linked = (path.parent / file).resolve() if file else path
        assert linked.is_file(), target
        if anchor:
            assert anchor in anchors(linked.read_text()), target


def test_every_page_is_in_the_index():
    linked = set(re.findall(r"\]\(([^)\s]+)\)", page("README.md")))
    assert {str(path.relative_to(ROOT / "docs")) for path in PAGES} - {"README.md"} <= linked


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_metric_that_a_page_names_exists(path):
    made = {row.name for row in docs.registered()}
    named = set(re.findall(r"\bgroundwork_[a-z_]+\b", path.read_text()))
    assert named <= made


@pytest.mark.parametrize("block", list(blocks("yaml")))
def test_every_example_has_only_fields_that_its_definition_has(block):
    schemas = {}
    for crd in docs.definitions():
        (version,) = crd["spec"]["versions"]
        schemas[crd["spec"]["group"], crd["spec"]["names"]["kind"]] = version["schema"]["openAPIV3Schema"]
    for obj in yaml.safe_load_all(block):
        group = obj["apiVersion"].partition("/")[0]
        if (group, obj["kind"]) in schemas:
            known = {row.name for row in docs.fields("spec", schemas[group, obj["kind"]]["properties"]["spec"])}
            assert {f"`spec.{name}`" for name in obj["spec"]} <= known
        else:
            assert group in {
                "cluster.x-k8s.io",
                "infrastructure.cluster.x-k8s.io",
                "ipam.cluster.x-k8s.io",
                "rbac.authorization.k8s.io",
                "admissionregistration.k8s.io",
            }


def test_the_rights_on_the_rbac_page_are_those_that_the_webhook_is_tested_with():
    block, *_ = [match[3] for match in FENCE.finditer(page("reference/rbac.md")) if match[2] == "yaml"]
    listed = [rule for obj in yaml.safe_load_all(block) for rule in obj["rules"]]
    assert sorted(listed, key=str) == sorted([*webhook.RULES, *webhook.CERTIFICATE_RULES], key=str)
