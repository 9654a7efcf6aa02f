"""`python -m tools.docs`: the reference pages that repeat what the code and the CRDs say, made from them.

Makes docs/reference/api.md (from deploy/crds), chart.md (from the chart's values.yaml), flags.md (from the settings of
the services), metrics.md (from the metrics that the services register when they are imported) and alerts.md (from the
chart's rules). `--check` writes nothing and exits 1 with a line for each page that is out of date; otherwise the exit
code is 0.

Invariants: the same sources give the same bytes, whatever Python, platform and other imports.
Must not know: the pages written by hand.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_args, get_type_hints

import yaml
from prometheus_client.metrics import MetricWrapperBase

# Each imports every module of its process, and so makes every metric.
from services.capv_integrator import __main__ as integrator
from services.capv_integrator.settings import IntegratorSettings
from services.ipam import __main__ as allocator
from services.ipam.settings import IpamSettings
from services.machine_controller import __main__ as machine_controller
from services.machine_controller.settings import MachineSettings
from services.podpreset import __main__ as webhook
from services.podpreset.settings import PodPresetSettings
from services.runtime import metrics
from services.runtime.flags import Flag, boolean, duration
from services.runtime.settings import Settings
from tools import values

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs" / "reference"
CRDS = ROOT / "deploy" / "crds"
ALERTS = ROOT / "deploy" / "chart" / "files" / "alerts"
CHART = ROOT / "deploy" / "chart"
CRD_ORDER = (
    *("IPPool", "GlobalIPPool", "IPClaim", "IPAddress", "IPReservation"),
    *("ClusterPodPreset", "PodPreset"),
    *("VSphereMachine", "VSphereMachineTemplate", "VSphereCluster", "VSphereFailureDomain", "VSphereDeploymentZone"),
)
SAME_AS = {"GlobalIPPool": "IPPool", "PodPreset": "ClusterPodPreset"}
NOTICE = "<!-- Made by `python -m tools.docs`: change the source, not this page. -->"
METRIC_GROUPS = (
    ("The allocator", ("groundwork_ipam_",)),
    ("The integrator", ("groundwork_capv_",)),
    ("Pod presets", ("groundwork_podpreset_",)),
    ("The machine controller", ("groundwork_machine_", "groundwork_vcenter_")),
    ("Webhooks and their certificates", ("groundwork_webhook_", "groundwork_process_restarts_")),
    ("Controllers and queues", ("controller_runtime_", "workqueue_")),
    (
        "The API server and the local copies",
        ("rest_client_", "groundwork_reflector_", "groundwork_store_", "groundwork_events_"),
    ),
    ("The process", ("",)),
)

SERVICES: tuple[tuple[Any, type[Settings]], ...] = (
    (allocator, IpamSettings),
    (integrator, IntegratorSettings),
    (webhook, PodPresetSettings),
    (machine_controller, MachineSettings),
)

Schema = dict[str, Any]


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table. A bar ends a cell between backticks too, and so is escaped everywhere."""
    lines = [header, ["---"] * len(header), *rows]
    cells = [[plain(cell).replace("|", "\\|") for cell in line] for line in lines]
    return [f"| {' | '.join(line)} |" for line in cells]


def plain(text: str) -> str:
    """Text on one line that Markdown shows as it is, but for what is between backticks."""
    pieces = " ".join(text.split()).split("`")
    pieces[::2] = [piece.replace("<", "&lt;").replace("*", "\\*") for piece in pieces[::2]]
    return "`".join(pieces)


def code(text: object) -> str:
    """Text as code, nothing for nothing."""
    return f"`{text}`" if text not in {None, ""} else ""


# -- api.md --------------------------------------------------------------------------------------------------------


class Field(NamedTuple):
    """One row of a table of fields."""

    name: str
    type: str
    default: str
    rules: str
    description: str


def definitions() -> list[Schema]:
    """CustomResourceDefinitions of deploy/crds, in the order of the page."""
    found = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in CRDS.rglob("*.yaml")]
    return sorted(found, key=lambda crd: CRD_ORDER.index(crd["spec"]["names"]["kind"]))


def fields(path: str, schema: Schema) -> Iterator[Field]:
    """Rows for the properties of an object, depth first; `path` names the object."""
    required = schema.get("required", ())
    said = _messages(schema)
    for name, value in schema.get("properties", {}).items():
        element = value.get("items", value)
        rules = [*(["required"] if name in required else []), *said.get(name, []), *_constraints(value)]
        yield Field(
            name=code(f"{path}.{name}"),
            type=_type(value),
            default=code(_json(value["default"])) if "default" in value else "",
            rules="; ".join(dict.fromkeys(rules)),
            description=value.get("description", ""),
        )
        if "properties" in element and not _is_plain(element):
            yield from fields(f"{path}.{name}{'[]' if element is not value else ''}", element)


def _is_plain(schema: Schema) -> bool:
    """Tell whether an object only has fields that its row can name: nothing is said of any of them."""
    return all("properties" not in value and "description" not in value for value in schema["properties"].values())


def _type(schema: Schema) -> str:
    if "items" in schema:
        return f"list of {_type(schema['items'])}"
    if "additionalProperties" in schema:
        return f"map of {_type(schema['additionalProperties'])}"
    if "properties" in schema and _is_plain(schema):
        return f"object with {', '.join(f'`{name}`' for name in schema['properties'])}"
    formats = [option.get("format", "") for option in schema.get("anyOf", [schema])]
    if formats == ["ipv4", "ipv6"]:
        return "address"
    named: Mapping[str, str] = {"cidr": "CIDR", "date-time": "time"}
    return named.get(formats[0], str(schema["type"]))


def _constraints(schema: Schema) -> list[str]:
    """What a value has to fulfil, list elements included."""
    found = []
    if "enum" in schema:
        found.append(f"one of {', '.join(f'`{value}`' for value in schema['enum'])}")
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        found.append(f"{low} to {high}")
    elif low is not None:
        found.append(f"at least {low}")
    if schema.get("minLength") == 1:
        found.append("not empty")
    if "maxLength" in schema:
        found.append(f"at most {schema['maxLength']} characters")
    if "pattern" in schema:
        found.append(f"matches `{schema['pattern']}`")
    if "maxItems" in schema:
        found.append(f"at most {schema['maxItems']} elements")
    for name, messages in _messages(schema).items():
        found += [f"`{name}` {message}" if name else message for message in messages]
    each = _constraints(schema["items"]) if "items" in schema else []
    return found + [f"each {rule}" for rule in each]


def _messages(schema: Schema) -> dict[str, list[str]]:
    """Messages of the CEL rules of an object by the property they are about, "" for the object itself."""
    found: dict[str, list[str]] = {}
    for rule in schema.get("x-kubernetes-validations", ()):
        field = rule.get("fieldPath", "").removeprefix(".")
        found.setdefault(field, []).append(rule["message"])
    return found


def _json(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def api_page() -> str:
    """docs/reference/api.md."""
    lines = [
        "# API",
        "",
        NOTICE,
        "",
        "The resources that Groundwork defines, from `deploy/crds`: those of the allocator, which also serves",
        "`ipam.cluster.x-k8s.io` IPAddressClaim and IPAddress of Cluster API, those of the pod preset webhook, and",
        "those of the machine controller, which are a subset of CAPV's.",
        "The API server enforces the rules; a message in the column Rules is what it answers.",
    ]
    known: dict[str, list[Field]] = {}
    for crd in definitions():
        spec = crd["spec"]
        (version,) = spec["versions"]
        schema = version["schema"]["openAPIV3Schema"]
        kind = spec["names"]["kind"]
        lines += ["", f"## {kind}", "", schema["description"], "", *_facts(spec, version)]
        said = [message for messages in _messages(schema).values() for message in messages]
        lines += [f"- Rule for the whole object: {plain(message)}." for message in said]
        rows = [row for part in ("spec", "status") for row in fields(part, schema["properties"].get(part, {}))]
        known[kind] = rows
        other = SAME_AS.get(kind)
        if other is not None:
            rows = [row for row in rows if row not in known[other]]
            lines += ["", _compared(other, known[other], known[kind], more=bool(rows))]
        header = ("Field", "Type", "Default", "Rules", "Description")
        lines += ["", *table(header, rows)] if rows else []
    return "\n".join([*lines, ""])


def _compared(other: str, theirs: Sequence[Field], ours: Sequence[Field], *, more: bool) -> str:
    """Say how the fields of a kind differ from those of another that has been shown."""
    names = {row.name for row in ours}
    missing = [row.name for row in theirs if row.name not in names and row.name.count(".") == 1]
    without = f" without {', '.join(missing)}" if missing else ""
    return f"Its fields are those of [{other}](#{other.lower()}){without}{', but for:' if more else '.'}"


def _facts(spec: Schema, version: Schema) -> list[str]:
    names = spec["names"]
    columns = [
        f"{column['name']}{' (wide)' if column.get('priority') else ''}"
        for column in version.get("additionalPrinterColumns", ())
    ]
    return [
        f"- API version `{spec['group']}/{version['name']}`, {spec['scope'].lower()}-scoped"
        if spec["scope"] == "Cluster"
        else f"- API version `{spec['group']}/{version['name']}`, namespaced",
        f"- Names `{names['plural']}`, {', '.join(code(name) for name in names['shortNames'])}",
        f"- Columns of `kubectl get`: {', '.join(columns)}",
    ]


# -- flags.md ------------------------------------------------------------------------------------------------------


def flags_page() -> str:
    """docs/reference/flags.md."""
    lines = [
        "# Flags",
        "",
        NOTICE,
        "",
        "A flag wins over its environment variable, the variable over the default. The value of a flag that may be",
        "repeated is a comma list in its variable.",
        "",
        "For manifests made for Cluster API providers every service also takes `--v N` (4 and more: log level",
        "debug) and `--insecure-diagnostics` (no effect: probes and metrics are plain HTTP and hold no secrets).",
        "`--help` and `--version` print and exit.",
        "",
        "Exit codes: 0 stopped as told, 1 a part crashed or the Lease was lost, 2 the configuration cannot be used.",
        "",
        "## Every service",
        "",
        *_flag_table(Settings),
    ]
    for module, settings in SERVICES:
        package = module.__name__.rpartition(".")[0]
        lines += ["", f"## {settings.program}", "", f"`python -m {package}` takes these as well:", ""]
        lines += _flag_table(settings, besides=Settings)
    return "\n".join([*lines, ""])


def _flag_table(settings: type[Settings], besides: type[Settings] | None = None) -> list[str]:
    """Table of flags, without those that mean the same in `besides`."""
    known = set(_flag_rows(besides)) if besides is not None else set()
    rows = [row for row in _flag_rows(settings) if row not in known]
    return table(("Flag", "Environment", "Default", "Takes", "Meaning"), rows)


def _flag_rows(settings: type[Settings]) -> list[tuple[str, ...]]:
    hints = get_type_hints(settings, include_extras=True)
    rows: list[tuple[str, ...]] = []
    for field in dataclasses.fields(settings):
        flag = next(item for item in get_args(hints[field.name]) if isinstance(item, Flag))
        name = f"--{field.name.replace('_', '-')}"
        names = [name, *([f"--no-{name[2:]}"] if flag.parser is boolean else []), *flag.aliases]
        rows.append(
            (
                ", ".join(code(item) for item in names),
                code(f"GROUNDWORK_{field.name.upper()}"),
                code(_default(field.default, flag)),
                f"{flag.parser.expects}{'; may be repeated' if flag.repeatable else ''}",
                flag.help.removesuffix("; repeatable"),
            )
        )
    return rows


def _default(value: object, flag: Flag) -> str:
    if value is None or value == ():
        return ""
    if flag.parser is duration:
        return f"{value:g}s"
    if isinstance(value, tuple) and flag.repeatable:
        return ",".join(map(str, value))
    return _json(value)


# -- metrics.md ----------------------------------------------------------------------------------------------------


class MetricRow(NamedTuple):
    """A metric as a scrape shows it."""

    name: str
    type: str
    labels: tuple[str, ...]
    help: str


def registered() -> list[MetricRow]:
    """Every metric that the modules of the services make, sorted by name."""
    package = allocator.__name__.partition(".")[0]
    modules = [module for name, module in sys.modules.items() if name.startswith(f"{package}.")]
    made = {value for module in modules for value in vars(module).values() if isinstance(value, MetricWrapperBase)}
    families = {family.name for family in metrics.REGISTRY.collect()}
    rows = []
    for metric in made:
        (family,) = metric.describe()
        assert family.name in families, f"{family.name} is on another registry"
        labels: tuple[str, ...] = metric._labelnames  # noqa: SLF001 - the library has no public way to ask for them
        name = f"{family.name}_total" if family.type == "counter" else family.name
        rows.append(MetricRow(name, family.type, labels, family.documentation))
    return sorted(rows)


def metrics_page() -> str:
    """docs/reference/metrics.md."""
    lines = [
        "# Metrics",
        "",
        NOTICE,
        "",
        "Served at `/metrics` of `--bind-address`, in the Prometheus text format or OpenMetrics. Names that",
        "controller-runtime and client-go use mean the same here, so dashboards for Go controllers work.",
        "Beside these there are the Python client's own `process_*`, `python_info` and `python_gc_*`.",
    ]
    left = registered()
    for title, prefixes in METRIC_GROUPS:
        rows = [row for row in left if row.name.startswith(prefixes)]
        left = [row for row in left if row not in rows]
        cells = [(code(row.name), row.type, ", ".join(code(label) for label in row.labels), row.help) for row in rows]
        lines += ["", f"## {title}", "", *table(("Name", "Type", "Labels", "Meaning"), cells)]
    return "\n".join([*lines, ""])


# -- chart.md ------------------------------------------------------------------------------------------------------


def chart_page() -> str:
    """docs/reference/chart.md."""
    blocks = values.read(CHART / "values.yaml")
    lines = [
        "# Values of the chart",
        "",
        NOTICE,
        "",
        "What `deploy/chart` can be told with `--set` or a file of values. `values.schema.json` refuses what is not",
        "here and what cannot be. [Install with helm](../tasks/install-with-helm.md) shows them at work.",
    ]
    for block in blocks:
        title = f"`{block.name}`" if block.name else "What all services share"
        about = plain(block.comment)
        rows = [(code(value.path), code(_value(value.default)), value.comment) for value in block.values]
        lines += ["", f"## {title}", "", *([about, ""] if about else []), *table(("Value", "Default", "Meaning"), rows)]
    return "\n".join([*lines, ""])


def _value(value: object) -> str:
    """Return a default as it would be written in YAML, on one line."""
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("\n").removesuffix("\n...")


# -- alerts.md -----------------------------------------------------------------------------------------------------

# A number of an expression and the comment behind it, by which the chart's values find it.
THRESHOLD = re.compile(r"([<>=]+ [\d.]+) # (\w+)")


def alerts_page() -> str:
    """docs/reference/alerts.md."""
    lines = [
        "# Alerts",
        "",
        NOTICE,
        "",
        "Rules of `deploy/chart/files/alerts`. How to get them, and how to change a threshold:",
        "[monitor](../tasks/monitor.md).",
        "An alert fires once its expression has been true for the time in the column After.",
    ]
    for path in sorted(ALERTS.glob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        (group,) = yaml.safe_load(text)["groups"]
        rows = [
            (
                f"[{rule['alert']}](../runbooks/{rule['alert']}.md)",
                rule["for"],
                rule["labels"]["severity"],
                rule["annotations"]["summary"],
                ", ".join(code(f"{name} {number}") for number, name in THRESHOLD.findall(rule["expr"])),
            )
            for rule in group["rules"]
        ]
        header = ("Alert", "After", "Severity", "Meaning", "Thresholds")
        lines += ["", f"## {group['name']}", "", *table(header, rows)]
    return "\n".join([*lines, ""])


# -- the command ---------------------------------------------------------------------------------------------------

PAGES: Mapping[str, Callable[[], str]] = {
    "api.md": api_page,
    "chart.md": chart_page,
    "flags.md": flags_page,
    "metrics.md": metrics_page,
    "alerts.md": alerts_page,
}


def outdated(folder: Path) -> dict[Path, str]:
    """Pages of a folder that are missing or differ from what they should be, with that."""
    wanted = {folder / name: page() for name, page in PAGES.items()}
    return {
        path: text for path, text in wanted.items() if not path.exists() or path.read_text(encoding="utf-8") != text
    }


def main(arguments: Sequence[str], folder: Path = REFERENCE) -> int:
    """Write the pages, or with --check tell which are out of date."""
    parser = argparse.ArgumentParser(prog="python -m tools.docs", description="Make the generated reference pages.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a page is out of date")
    options = parser.parse_args(arguments)
    stale = outdated(folder)
    for path, text in stale.items():
        if options.check:
            print(f"{path}: out of date, run: python -m tools.docs")
        else:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path}")
    if not stale:
        print(f"the reference pages are up to date ({len(PAGES)} pages)")
    return 1 if stale and options.check else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
