"""Metadata of a VM: its identity, host name and network, and what it is to forget once it has read it.

Invariants: the instance id never changes while the VM lives (another one makes cloud-init set the VM up anew); both
`hostname` and `local-hostname` are written, since with the latter alone /etc/hosts can change the name; lines are
`key: value`, as scripts of images that have no cloud-init cut them out with grep.
Must not know: how network configuration is made, how metadata reaches the VM.
Source: cloud-init's DataSourceVMware.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import yaml

from services.machine_controller.guestinfo.problems import InvalidError, Problem

if TYPE_CHECKING:
    from collections.abc import Collection

    from services.machine_controller.guestinfo.network import NetworkConfig

METADATA = "guestinfo.metadata"
REDACTABLE = ("userdata", "vendordata")
_HOSTNAME = re.compile(r"(?=.{1,63}\Z)[a-z0-9]([-a-z0-9]*[a-z0-9])?\Z")


def metadata(name: str, network: NetworkConfig, *, instance_id: str, redact: Collection[str] = ()) -> bytes:
    """YAML of the metadata for a VM called `name` (RFC 1123 label).

    `redact`: which of `REDACTABLE` the VM replaces by `---` when it has read them. Raises InvalidError.
    """
    problems = []
    if not _HOSTNAME.match(name):
        problems.append(Problem("metadata.name", name, "a host name: at most 63 of a-z, 0-9 and -, as in RFC 1123"))
    problems += [
        Problem("redact", word, f"one of {', '.join(REDACTABLE)}") for word in sorted(set(redact) - set(REDACTABLE))
    ]
    if problems:
        raise InvalidError(problems)
    content: dict[str, Any] = {
        "instance-id": instance_id,
        "hostname": name,
        "local-hostname": name,
        "wait-on-network": {"ipv4": network.waits4, "ipv6": network.waits6},
        "network": network.config,
    }
    if redact:
        content["redact"] = [word for word in REDACTABLE if word in redact]
    text: str = yaml.safe_dump(content, sort_keys=False, default_flow_style=False, width=10_000)
    return text.encode()
