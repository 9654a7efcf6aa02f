"""`python -m tools.check_crds`: the hand-written CRDs and the Structs that read them say the same.

Checks, for each pair below: the same property names, the same defaults, and recursively the same for nested Structs. A
Struct may read fewer fields of a Kubernetes-wide type (ObjectReference) than the schema allows. Kinds that
are one kind in two scopes are checked to have one spec. Exit code 0 when all agree, 1 with a line for each difference.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec
import yaml

from services.ipam import api
from services.podpreset import api as presets

CRDS = Path(__file__).parent.parent / "deploy" / "crds"
READ_IN_PART = {api.ObjectRef}

PAIRS: tuple[tuple[str, str, type[msgspec.Struct]], ...] = (
    ("ipam.metal3.io_ippools.yaml", "spec", api.PoolSpec),
    ("ipam.metal3.io_ippools.yaml", "status", api.PoolStatus),
    ("ipam.groundwork.dev_globalippools.yaml", "spec", api.PoolSpec),
    ("ipam.groundwork.dev_globalippools.yaml", "status", api.PoolStatus),
    ("ipam.metal3.io_ipclaims.yaml", "spec", api.IPClaimSpec),
    ("ipam.metal3.io_ipclaims.yaml", "status", api.IPClaimStatus),
    ("ipam.metal3.io_ipaddresses.yaml", "spec", api.IPAddressSpec),
    ("ipam.groundwork.dev_ipreservations.yaml", "spec", api.ReservationSpec),
    ("reach.spectrocloud.com_clusterpodpresets.yaml", "spec", presets.ClusterPodPresetSpec),
    ("reach.spectrocloud.com_clusterpodpresets.yaml", "status", presets.PresetStatus),
    ("reach.spectrocloud.com_podpresets.yaml", "spec", presets.PodPresetSpec),
    ("reach.spectrocloud.com_podpresets.yaml", "status", presets.PresetStatus),
)
# Two files, one spec: (one, other, fields whose description alone may differ, fields that only the first has).
TWINS: tuple[tuple[str, str, frozenset[str], frozenset[str]], ...] = (
    (
        "ipam.metal3.io_ippools.yaml",
        "ipam.groundwork.dev_globalippools.yaml",
        frozenset({"allowedNamespaces"}),
        frozenset(),
    ),
    (
        "reach.spectrocloud.com_clusterpodpresets.yaml",
        "reach.spectrocloud.com_podpresets.yaml",
        frozenset(),
        frozenset({"namespaceSelector"}),
    ),
)


def schema_of(file: str, part: str) -> dict[str, Any]:
    """Schema of `spec` or `status` in the only version of a CRD."""
    definition = yaml.safe_load((CRDS / file).read_text(encoding="utf-8"))
    (version,) = definition["spec"]["versions"]
    schema: dict[str, Any] = version["schema"]["openAPIV3Schema"]["properties"][part]
    return schema


def struct_inside(type_: Any) -> type[msgspec.Struct] | None:
    """The Struct in an annotation such as `X | None` or `tuple[X, ...]`, None when there is none."""
    match type_:
        case msgspec.inspect.StructType(cls=cls):
            return cls
        case msgspec.inspect.UnionType(types=types):
            return next((found for item in types if (found := struct_inside(item)) is not None), None)
        case msgspec.inspect.VarTupleType(item_type=item) | msgspec.inspect.ListType(item_type=item):
            return struct_inside(item)
        case _:
            return None


def differences(where: str, schema: dict[str, Any], struct: type[msgspec.Struct]) -> list[str]:
    """Every way in which a schema and a Struct disagree, one line each."""
    schema = schema.get("items", schema)
    properties: dict[str, Any] = schema.get("properties", {})
    info = msgspec.inspect.type_info(struct)
    assert isinstance(info, msgspec.inspect.StructType)
    fields = {field.encode_name: field for field in info.fields}
    found = [f"{where}.{name}: read by {struct.__name__}, not in the CRD" for name in fields.keys() - properties.keys()]
    if struct not in READ_IN_PART:
        found += [f"{where}.{name}: in the CRD, not in {struct.__name__}" for name in properties.keys() - fields.keys()]
    for name in sorted(fields.keys() & properties.keys()):
        field, declared = fields[name], properties[name]
        default = None if field.default is msgspec.NODEFAULT else field.default
        if "default" in declared and declared["default"] != default:
            found.append(
                f"{where}.{name}: default {declared['default']!r} in the CRD, {default!r} in {struct.__name__}"
            )
        inner = struct_inside(field.type)
        if inner is not None:
            found += differences(f"{where}.{name}", declared, inner)
    return found


def twin_differences(one: str, other: str, worded: frozenset[str], extra: frozenset[str]) -> list[str]:
    """Every field in which two specs that should be one differ."""
    ours, theirs = schema_of(one, "spec"), schema_of(other, "spec")
    found = []
    # Where the scope changes what a field means, it has rules of its own.
    if not worded and ours.get("x-kubernetes-validations") != theirs.get("x-kubernetes-validations"):
        found.append(f"{one} and {other} differ in the rules of spec")
    for name in ours["properties"].keys() | theirs["properties"].keys():
        first, second = dict(ours["properties"].get(name, {})), dict(theirs["properties"].get(name, {}))
        if name in worded:
            first.pop("description", None), second.pop("description", None)
        if first != second and not (name in extra and not second):
            found.append(f"{one} and {other} differ in spec.{name}")
    return found


def main() -> int:
    """Print every difference."""
    found = []
    for file, part, struct in PAIRS:
        found += differences(f"{file}: {part}", schema_of(file, part), struct)
    for one, other, worded, extra in TWINS:
        found += twin_differences(one, other, worded, extra)
    for line in sorted(found):
        print(line)
    if not found:
        print(f"CRDs and structs agree ({len(PAIRS)} pairs)")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
