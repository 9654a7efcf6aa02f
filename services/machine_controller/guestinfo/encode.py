"""Values of guestinfo keys as VMware carries them: text, base64, compressed where they would be too long.

Responsible for: the encoding, the `.encoding` key beside each value, and the size limits.
Invariants: the same bytes give the same text (gzip without a time stamp), so a value can be compared with what a VM
has; decoding gives back the very bytes; an error tells sizes, never content.
Must not know: what a value means.
Sources: open-vm-tools' 64 KiB for one RPC message; cloud-init's and Ignition's names of encodings.
"""

from __future__ import annotations

import base64
import gzip
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_VALUE = 64 * 1024 - 64
"""Characters of one value: a message of open-vm-tools has 64 KiB, its status and the key's name are in it too."""
MAX_TOTAL = 1024 * 1024
"""Characters of all keys and values: vmx files are limited to 1 MiB unless the host is configured otherwise."""
SUFFIX = ".encoding"
PLAIN = "base64"
COMPRESSED = "gzip+base64"
REDACTED = ("---", "")
"""What cloud-init leaves in place of a value that metadata told it to redact."""


class TooLargeError(ValueError):
    """A value does not fit into the VM; `key`, `size` and `limit` in characters, as encoded."""

    def __init__(self, key: str, size: int, limit: int) -> None:
        super().__init__(f"{key}: {size} characters, even compressed: at most {limit}")
        self.key = key
        self.size = size
        self.limit = limit


class MalformedError(ValueError):
    """A value that does not have the encoding it says."""


def encoded(key: str, value: bytes, *, limit: int = MAX_VALUE) -> dict[str, str]:
    """`key` with `value` in base64 and `key.encoding` beside it; compressed when base64 alone exceeds `limit`.

    Raises TooLargeError when it exceeds `limit` all the same.
    """
    text, encoding = base64.b64encode(value).decode("ascii"), PLAIN
    if len(text) > limit:
        text, encoding = base64.b64encode(gzip.compress(value, 9, mtime=0)).decode("ascii"), COMPRESSED
    if len(text) > limit:
        raise TooLargeError(key, len(text), limit)
    return {key: text, f"{key}{SUFFIX}": encoding}


def decoded(key: str, values: Mapping[str, str]) -> bytes | None:
    """Return the bytes of `key`; None when it is absent or redacted. Raises MalformedError."""
    text = values.get(key, "")
    if text in REDACTED:
        return None
    encoding = values.get(f"{key}{SUFFIX}", "")
    try:
        match encoding:
            case "base64" | "b64":
                return base64.b64decode(text)
            case "gzip+base64" | "gz+b64" | "gzip+b64" | "gz+base64":
                return gzip.decompress(base64.b64decode(text))
            case _:
                return text.encode()
    # Of base64, ValueError: its letters may be wrong, or not even ASCII.
    except (ValueError, OSError, EOFError, zlib.error) as error:
        raise MalformedError(f"{key}: not {encoding or 'UTF-8'}") from error
