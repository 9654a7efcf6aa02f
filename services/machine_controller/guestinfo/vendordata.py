"""Vendor data for cloud-init: scripts beside the bootstrap data, in a MIME message of several parts.

Responsible for: the parts and their order. Scripts and boothooks rather than cloud-config: lists of cloud-config
(`write_files`, `runcmd`) in vendor data vanish when user data has them, which kubeadm's always has; scripts run in
any case, boothooks at each boot before anything else, vendor scripts once, after write_files and before runcmd.
Invariants: the same parts give the same bytes; contents are in no repr, since they may hold a proxy's password.
Must not know: what a script does.
Source: cloud-init's user-data formats and its handlers boot_hook and shell_script.
"""

from __future__ import annotations

import enum
import hashlib
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from email.policy import SMTPUTF8
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

VENDORDATA = "guestinfo.vendordata"


class Kind(enum.StrEnum):
    """What cloud-init does with a part; the value is its MIME subtype."""

    BOOTHOOK = "cloud-boothook"
    """Runs at each boot, before bootcmd, while the network is up."""
    SCRIPT = "x-shellscript"
    """Runs once in the life of the VM, after write_files and before runcmd."""


class Part(NamedTuple):
    """One script; `name` is a file name, by which vendor scripts are sorted when they run."""

    kind: Kind
    name: str
    content: str

    def __repr__(self) -> str:
        """Size only."""
        return f"Part({self.kind}, {self.name!r}, {len(self.content)} characters)"


def vendordata(parts: Sequence[Part]) -> bytes:
    """Return the MIME message; empty without parts. Raises ValueError for two parts of one name."""
    if not parts:
        return b""
    names = [part.name for part in parts]
    if len(set(names)) < len(names):
        raise ValueError(f"vendor data with two parts of one name: {', '.join(names)}")
    digest = hashlib.sha256("\0".join(part.content for part in parts).encode()).hexdigest()
    message = MIMEMultipart(boundary=f"==groundwork-{digest[:32]}==", policy=SMTPUTF8)
    for part in parts:
        # us-ascii stays readable for whoever decodes the key; anything else is base64 inside the message.
        text = MIMEText(part.content, part.kind.value, "us-ascii" if part.content.isascii() else "utf-8")
        text.add_header("Content-Disposition", "attachment", filename=part.name)
        message.attach(text)
    return message.as_bytes(policy=SMTPUTF8.clone(linesep="\n"))
