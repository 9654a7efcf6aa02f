"""The definitions (CRDs) of this version, and how those of a cluster differ from them, field by field.

Responsible for: reading deploy/crds as it is shipped, and comparing two definitions.
Invariants: texts for people (descriptions, columns of tables) are no difference. Comparing is pure.
Must not know: the cluster, what a difference leads to.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

Json = dict[str, Any]

_INSTALLED = Path(__file__).parent / "crds"
_CHECKOUT = Path(__file__).resolve().parents[2] / "deploy" / "crds"
_PROSE = frozenset({"description", "example", "title", "externalDocs"})
_SHOWN = 60


class Difference(NamedTuple):
    """One field that is not the same."""

    where: str
    """`v1alpha1 spec.pools[].prefix`, or `v1alpha1`."""
    what: str
    missing: bool = False
    """It is not in the cluster at all, so the API server drops it from what is written."""

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


def shipped() -> list[Json] | None:
    """Return the definitions of this version; None where they are not installed with it."""
    folder = next((each for each in (_INSTALLED, _CHECKOUT) if each.is_dir()), None)
    if folder is None:
        return None
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    texts = [path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*.yaml"))]
    return [yaml.load(text, Loader=loader) for text in texts]  # noqa: S506 - both are safe loaders


def differences(ours: Json, theirs: Json) -> list[Difference]:
    """Return what an installed definition has otherwise than ours, in the order of the fields."""
    found: list[Difference] = []
    if ours["spec"]["scope"] != theirs["spec"]["scope"]:
        found.append(Difference("scope", f"{theirs['spec']['scope']}, should be {ours['spec']['scope']}"))
    installed = {version["name"]: version for version in theirs["spec"]["versions"]}
    for version in ours["spec"]["versions"]:
        name = version["name"]
        other = installed.get(name)
        if other is None:
            found.append(Difference(name, "the version is missing", missing=True))
            continue
        if version["served"] and not other["served"]:
            found.append(Difference(name, "the version is not served", missing=True))
        if version["storage"] and not other["storage"]:
            found.append(Difference(name, "the version is not the stored one"))
        if "status" in version.get("subresources", {}) and "status" not in other.get("subresources", {}):
            found.append(Difference(name, "the status is no subresource", missing=True))
        found += _schema(name, _root(version), _root(other))
    return found


def _root(version: Json) -> Json:
    root: Json = (version.get("schema") or {}).get("openAPIV3Schema") or {}
    return root


def _schema(where: str, ours: Any, theirs: Any, path: str = "") -> Iterator[Difference]:
    place = f"{where} {path}".strip()
    ours_fields, theirs_fields = ours.get("properties") or {}, theirs.get("properties") or {}
    for name, schema in ours_fields.items():
        below = f"{path}.{name}" if path else name
        if name in theirs_fields:
            yield from _schema(where, schema, theirs_fields[name], below)
        elif not theirs.get("x-kubernetes-preserve-unknown-fields"):
            yield Difference(f"{where} {below}", "the field is missing", missing=True)
    for name in sorted(theirs_fields.keys() - ours_fields.keys()):
        below = f"{path}.{name}" if path else name
        yield Difference(f"{where} {below}", "a field that this version does not have")
    for key, suffix in (("items", "[]"), ("additionalProperties", ".*")):
        one, other = ours.get(key), theirs.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            yield from _schema(where, one, other, path + suffix)
        elif one != other:
            yield Difference(place, f"{key}: {_short(other)}, should be {_short(one)}")
    for key in sorted((ours.keys() | theirs.keys()) - _PROSE - {"properties", "items", "additionalProperties"}):
        if ours.get(key) != theirs.get(key):
            yield Difference(place, f"{key}: {_short(theirs.get(key))}, should be {_short(ours.get(key))}")


def _short(value: Any) -> str:
    if value is None:
        return "none"
    text = str(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
