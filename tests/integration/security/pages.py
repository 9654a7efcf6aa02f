"""What the documentation tells administrators to apply, as objects."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[3]
_FENCE = re.compile(r"^```yaml\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def objects(page, *kinds):
    """Objects of these kinds in the YAML blocks of a page, in its order."""
    text = (ROOT / "docs" / page).read_text()
    found = [obj for block in _FENCE.findall(text) for obj in yaml.safe_load_all(block)]
    return [obj for obj in found if obj["kind"] in kinds]
