"""An image archive made without any tool: one layer with one program, in the format of `docker save`.

Invariant: the same program gives the same bytes. Knows nothing of registries, which a node has none of.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from typing import TYPE_CHECKING

from tools.sources import machine

if TYPE_CHECKING:
    from pathlib import Path


def _tar(files: dict[str, tuple[bytes, int]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, (content, mode) in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def of_program(program: Path, name: str, into: Path) -> Path:
    """Write the archive `into` with the image `name`, which runs the static `program` as nobody; return `into`."""
    layer = _tar({program.name: (program.read_bytes(), 0o755)})
    config = {
        "architecture": machine(),
        "os": "linux",
        "config": {"Entrypoint": [f"/{program.name}"], "User": "65535:65535"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    files = {
        "layer.tar": layer,
        "config.json": json.dumps(config).encode(),
        "manifest.json": json.dumps(manifest).encode(),
    }
    into.write_bytes(_tar({file: (content, 0o644) for file, content in files.items()}))
    return into
