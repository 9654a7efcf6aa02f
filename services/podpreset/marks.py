"""What a pod carries to tell which presets it got, and in which state.

Responsible for: the annotation of each preset and of all of them together.
Invariants: a key is valid however long the name is, and different for different presets of one pod; a hash depends on
what a preset gives, not on how its object is written, versioned or selected.
Must not know: pods.
Source: Kubernetes, "Annotations: syntax" (63 characters after the slash), and the old PodPreset's keys.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from services.podpreset.api import ADMISSION_PREFIX, APPLIED_PREFIXES, SKIP_VARIABLE, PodPresetSpec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from services.podpreset.api import PresetKey

_NAME_LENGTH = 63
_SHORT_HASH = 8
_HASH = 16


def annotation_key(preset: PresetKey) -> str:
    """Return the key that records a preset on a pod, e.g. `podpreset.admission.kubernetes.io/podpreset-hello`.

    A name that does not fit is cut, and ends in a hash of the whole.
    """
    name = APPLIED_PREFIXES[preset.kind] + preset.name
    if len(name) > _NAME_LENGTH:
        kept = name[: _NAME_LENGTH - _SHORT_HASH - 1].rstrip("-.")
        name = f"{kept}-{_digest(preset.name.encode())[:_SHORT_HASH]}"
    return ADMISSION_PREFIX + name


def content_hash(spec: PodPresetSpec) -> str:
    """Return a hash of what a preset gives, the value of its annotation.

    Selectors of pods and namespaces and the conflictPolicy are not in it: which presets a pod has tells of those.
    """
    given = PodPresetSpec(
        **{name: getattr(spec, name) for name in PodPresetSpec.__struct_fields__}  # without a namespaceSelector
    )
    given = replace(given, selector=None, conflict_policy=SKIP_VARIABLE)
    return _digest(msgspec.json.encode(given, order="sorted"))[:_HASH]


def combined_hash(presets: Iterable[tuple[PresetKey, str]]) -> str:
    """Return one hash for all presets of a pod, given with their own hashes in the order of application."""
    lines = [f"{preset.kind}/{preset.name}:{content}" for preset, content in presets]
    return _digest("\n".join(lines).encode())[:_HASH]


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
