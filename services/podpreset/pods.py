"""The parts of a Pod that are looked at, as typed values.

Responsible for: reading a pod once, cheaply, and refusing what is none. Everything else of it is never decoded: patches
name places, so what is not known here stays as it is.
Must not know: presets.
Source: core/v1 Pod.
"""
# ruff: noqa: N815 - the fields carry their wire names

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

WINDOWS = "windows"
OS_LABELS = ("kubernetes.io/os", "beta.kubernetes.io/os")
ALWAYS = "Always"


class OwnEnv(Struct, frozen=True, gc=False):
    """core/v1 EnvVar of a container. Neither `value` nor `valueFrom` means the empty value."""

    name: str = ""
    value: str | None = None
    valueFrom: dict[str, Any] | None = None


class VolumeDevice(Struct, frozen=True, gc=False):
    """core/v1 VolumeDevice; shares names and paths with mounts."""

    name: str = ""
    devicePath: str = ""


class Container(Struct, frozen=True):
    """A container, init container or ephemeral container."""

    name: str = ""
    env: list[OwnEnv] | None = None
    envFrom: list[dict[str, Any]] | None = None
    volumeMounts: list[dict[str, Any]] | None = None
    volumeDevices: list[VolumeDevice] | None = None
    restartPolicy: str | None = None


class PodOS(Struct, frozen=True):
    """core/v1 PodOS."""

    name: str = ""


class PodSpec(Struct, frozen=True):
    """core/v1 PodSpec."""

    containers: list[Container] | None = None
    initContainers: list[Container] | None = None
    ephemeralContainers: list[Container] | None = None
    volumes: list[dict[str, Any]] | None = None
    os: PodOS | None = None
    nodeSelector: dict[str, str] | None = None


class PodMeta(Struct, frozen=True):
    """meta/v1 ObjectMeta. The name is empty when it is yet to be generated."""

    name: str = ""
    generateName: str = ""
    namespace: str = ""
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class Pod(Struct, frozen=True):
    """core/v1 Pod."""

    metadata: PodMeta | None = None
    spec: PodSpec | None = None

    @property
    def labels(self) -> dict[str, str]:
        """Its labels."""
        return (self.metadata.labels if self.metadata else None) or {}

    @property
    def annotations(self) -> dict[str, str]:
        """Its annotations."""
        return (self.metadata.annotations if self.metadata else None) or {}

    @property
    def windows(self) -> bool:
        """Whether it says that it is for Windows nodes, where names of variables have no letter case."""
        spec = self.spec
        if spec is None:
            return False
        if spec.os is not None and spec.os.name:
            return spec.os.name == WINDOWS
        wanted = spec.nodeSelector or {}
        return any(wanted.get(label) == WINDOWS for label in OS_LABELS)


_decode = msgspec.json.Decoder(Pod).decode


def read(data: bytes | memoryview | msgspec.Raw) -> Pod:
    """Decode a pod from JSON. Raises msgspec.DecodeError (a ValidationError is one) for anything else."""
    return _decode(data)


def convert(data: dict[str, Any]) -> Pod:
    """Read a pod from decoded JSON or YAML. Raises msgspec.ValidationError for anything else."""
    return msgspec.convert(data, Pod)
